"""Holding every contender to the same accuracy, and timing them in turn."""

import contextlib
import functools
import signal
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import jax
import numpy as np
import threadpoolctl

from benchmarks._contenders import Answer, Contender, Knob, Ladder, Solve
from benchmarks._problems import Problem
from benchmarks._reference import Reference

# An error this many times above both the target and what the tolerance allows is no accident of a stopping rule.
_SILENT_FACTOR = 10
_LEAST_RUNS = 3
_TRIALS = 2
_LONG = 0.2
_OUT_OF_TIME = "out of time"


# For each contender, on how many cases it needed which setting.
Needed = Mapping[str, Mapping[str, int]]


class TimeLimitError(Exception):
    """A solver was interrupted."""


@dataclass(frozen=True)
class Rules:
    """What is demanded and how long it may take.

    Attributes:
        accuracy: relative error demanded of the value.
        repeats: most timed runs of a contender.
        cap: seconds a contender may solve in all while its tolerance is looked for; compiling does not count.
        budget: seconds of timed runs after which a contender is not run again.
    """

    accuracy: float
    repeats: int
    cap: float
    budget: float


class Attempt(NamedTuple):
    """One solve while looking for a tolerance; errors and the promise are relative to the value."""

    setting: str
    seconds: float
    value: float | None
    error: float | None
    claim: bool | None
    promise: float | None
    silent: bool
    failure: str | None


class Result(NamedTuple):
    """A contender on a case.

    Attributes:
        solver: its name.
        outcome: ``"ok"``, ``"wrong"`` (no tolerance was accurate), ``"slow"`` (none was before the time was up),
            ``"failed"`` (it raised), ``"skipped"``, or ``"ended"`` (its process had to be ended, or died).
        reason: why, unless ok.
        setting: the tolerance it was timed with.
        error: relative error at that tolerance.
        seconds: every timed run.
        attempts: all solves made to find the tolerance.
    """

    solver: str
    outcome: str
    reason: str | None = None
    setting: str | None = None
    error: float | None = None
    seconds: tuple[float, ...] = ()
    attempts: tuple[Attempt, ...] = ()

    @property
    def median(self) -> float:
        """Median of the timed runs; NaN without any."""
        return float(np.median(self.seconds)) if self.seconds else float("nan")


class _Chosen(NamedTuple):
    knob: Knob
    attempt: Attempt


class _Threaded(NamedTuple):
    solve: Callable[[], Answer]
    threads: int | None


class _Search(NamedTuple):
    chosen: _Chosen | None
    attempts: tuple[Attempt, ...]
    in_time: bool


def judge(
    contenders: Sequence[Contender],
    problem: Problem,
    reference: Reference,
    rules: Rules,
    report: Callable[[str], None] = lambda _: None,
    needed: Needed | None = None,
) -> list[Result]:
    """Finds each contender's loosest sufficient tolerance, then times all of them in turn.

    Args:
        contenders: who takes part.
        problem: the graph, and the start if it is warm.
        reference: the right value.
        rules: the accuracy demanded and the time allowed.
        report: told what is going on.
        needed: the settings each contender needed on other cases; the tightest of them is then its only one.

    Returns:
        One result for each contender, in their order.
    """
    results, solves = {}, {}
    for contender in contenders:
        report(contender.name)
        # Threads that wait for one another cost more than they bring where others use the cores too.
        with _blas_threads(1):
            results[contender.name], solve = _qualify(contender, problem, reference, rules, needed)
        if solve is not None:
            solves[contender.name] = _with_faster_threads(solve, results[contender.name])
    report("timing")
    seconds = _round_robin(solves, rules)
    return [r._replace(seconds=seconds.get(name, ())) for name, r in results.items()]


def search(
    contender: Contender,
    solve: Solve,
    problem: Problem,
    reference: Reference,
    rules: Rules,
    ladders: Sequence[Ladder] | None = None,
) -> _Search:
    """Climbs each ladder of tolerances to the first that is accurate, and chooses the fastest of these.

    Without an accurate one, the attempt of least error is chosen. A later ladder is given no more time for one attempt
    than the fastest accurate one took, as nothing slower would be chosen.
    """
    attempts, best, in_time, left = [], None, True, rules.cap
    for ladder in contender.ladders(problem, rules.accuracy) if ladders is None else ladders:
        # A ladder that is only there for robustness is not worth compiling once another was accurate.
        if contender.compiled and best is not None and _accurate(best.attempt, rules):
            break
        for knob in ladder:
            limit = left if best is None or not _accurate(best.attempt, rules) else min(left, best.attempt.seconds)
            attempt = attempt_at(contender, solve, problem, knob, reference, rules, limit)
            attempts.append(attempt)
            left -= attempt.seconds
            if attempt.error is None:
                in_time &= attempt.failure != _OUT_OF_TIME
                break
            if best is None or _rank(attempt, rules) < _rank(best.attempt, rules):
                best = _Chosen(knob, attempt)
            if _accurate(attempt, rules):
                break
            if left < 0:
                return _Search(best, tuple(attempts), False)
    return _Search(best, tuple(attempts), in_time)


@contextlib.contextmanager
def time_limit(seconds: float) -> Iterator[None]:
    """Interrupts what runs inside after some seconds, at the next step of the Python interpreter.

    Raises:
        TimeLimitError: the time was up.
    """
    if not hasattr(signal, "SIGALRM") or threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(*_: object) -> None:
        raise TimeLimitError

    earlier = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, max(seconds, 1e-3))
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, earlier)


def tightest(contender: Contender, ladders: Sequence[Ladder], needed: Needed) -> Ladder:
    """The last of the needed settings on the ladder that has most of them, as a ladder of its own; perhaps none."""
    counts = needed.get(contender.name, {})

    def votes(ladder: Ladder) -> int:
        return sum(counts.get(contender.describe(knob), 0) for knob in ladder)

    return tuple(knob for knob in max(ladders, key=votes, default=()) if counts.get(contender.describe(knob)))[-1:]


def _qualify(
    contender: Contender, problem: Problem, reference: Reference, rules: Rules, needed: Needed | None
) -> tuple[Result, Callable[[], Answer] | None]:
    refusal = contender.refusal(problem)
    if refusal is None and problem.start is not None and not contender.accepts_start:
        refusal = "takes no start"
    if refusal is not None:
        return Result(contender.name, "skipped", refusal), None
    ladders = contender.ladders(problem, rules.accuracy)
    # What has one setting in all, such as the accuracy demanded, was not chosen.
    if needed is not None and sum(map(len, ladders)) > 1:
        ladders = (tightest(contender, ladders, needed),)
        if not ladders[0]:
            return Result(contender.name, "skipped", "accurate nowhere in the earlier run"), None
    solve = contender.prepare(problem)
    found = search(contender, solve, problem, reference, rules, ladders)
    if not found.attempts:
        return Result(contender.name, "skipped", "too few vertices"), None
    if found.chosen is None:
        failure = found.attempts[-1].failure
        outcome = "slow" if failure == _OUT_OF_TIME else "failed"
        return Result(contender.name, outcome, failure, attempts=found.attempts), None
    knob, attempt = found.chosen
    result = Result(contender.name, "ok", None, attempt.setting, attempt.error, attempts=found.attempts)
    if not _accurate(attempt, rules):
        result = result._replace(
            outcome="wrong" if found.in_time else "slow",
            reason=f"error {attempt.error:.1e} at {attempt.setting}",
        )
    return result, lambda: solve(knob)


def attempt_at(
    contender: Contender,
    solve: Solve,
    problem: Problem,
    knob: Knob,
    reference: Reference,
    rules: Rules,
    limit: float,
) -> Attempt:
    """One solve at a knob, stopped after `limit` seconds, and what is to be said of it; compiling does not count."""
    setting = contender.describe(knob)
    began = time.perf_counter()
    try:
        # A peer's warnings are no failure: its value is judged.
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            if contender.compiled:
                jax.block_until_ready(solve(knob))
            began = time.perf_counter()
            with time_limit(limit):
                answer = jax.block_until_ready(solve(knob))
    except TimeLimitError:
        return Attempt(setting, time.perf_counter() - began, None, None, None, None, False, _OUT_OF_TIME)
    except Exception as error:
        # Whatever a peer raises is its result on this case, and is shown as such.
        failure = f"{type(error).__name__}: {error}".splitlines()[0]
        return Attempt(setting, time.perf_counter() - began, None, None, None, None, False, failure)
    seconds = time.perf_counter() - began
    value = float(answer.value)
    error = relative_error(value, reference)
    claim = None if answer.claim is None else bool(answer.claim)
    promise = contender.promise(problem, knob, _scale(reference), reference.upper_bound)
    silent = bool(claim) and not error <= _SILENT_FACTOR * max(rules.accuracy, promise)
    return Attempt(setting, seconds, value, error, claim, promise, silent, None)


def relative_error(value: float, reference: Reference) -> float:
    """Relative to the reference, or to the bound of the spectrum where that is no more than rounding of it."""
    return abs(value - reference.value) / _scale(reference)


def _scale(reference: Reference) -> float:
    rounding = np.finfo(np.float64).eps * reference.upper_bound
    return reference.value if reference.value > rounding else reference.upper_bound


def _accurate(attempt: Attempt, rules: Rules) -> bool:
    return attempt.error is not None and attempt.error <= rules.accuracy


def _rank(attempt: Attempt, rules: Rules) -> tuple[bool, float]:
    """Accurate before not, then the fastest of the accurate and the least wrong of the others; a NaN is the worst."""
    if _accurate(attempt, rules):
        return (False, attempt.seconds)
    return (True, np.nan_to_num(attempt.error if attempt.error is not None else np.inf, nan=np.inf))


def _round_robin(solves: dict[str, _Threaded], rules: Rules) -> dict[str, tuple[float, ...]]:
    seconds: dict[str, list[float]] = {name: [] for name in solves}
    for _ in range(rules.repeats):
        waiting = [name for name in solves if _goes_on(seconds[name], rules)]
        if not waiting:
            break
        for name in waiting:
            seconds[name].append(_timed(solves[name]))
    return {name: tuple(times) for name, times in seconds.items()}


def _with_faster_threads(solve: Callable[[], Answer], result: Result) -> _Threaded:
    """Lets BLAS use one thread or all, whichever is faster for this solver, as a careful user would."""
    everyone, alone = _Threaded(solve, None), _Threaded(solve, 1)
    known = next(attempt.seconds for attempt in result.attempts if attempt.setting == result.setting)
    if known > _LONG:
        return everyone if _timed(everyone) < known else alone
    # In turn, as a passing load on the machine should not decide.
    times = [(_timed(everyone), _timed(alone)) for _ in range(_TRIALS)]
    return everyone if min(a for a, _ in times) < min(b for _, b in times) else alone


def _goes_on(times: Sequence[float], rules: Rules) -> bool:
    spent = sum(times)
    return spent < rules.budget or (len(times) < _LEAST_RUNS and spent < _LEAST_RUNS * rules.budget)


def _timed(threaded: _Threaded) -> float:
    with warnings.catch_warnings(), _blas_threads(threaded.threads):
        warnings.simplefilter("ignore")
        began = time.perf_counter()
        jax.block_until_ready(threaded.solve())
        return time.perf_counter() - began


def _blas_threads(count: int | None) -> contextlib.AbstractContextManager:
    return _blas().limit(limits=count, user_api="blas")


@functools.cache
def _blas() -> threadpoolctl.ThreadpoolController:
    # Looking for the libraries takes milliseconds, so once for all.
    return threadpoolctl.ThreadpoolController()
