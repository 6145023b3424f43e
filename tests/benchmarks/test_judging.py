"""How solvers are judged: tolerances, claims, time limits, turns."""

import dataclasses
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from benchmarks._contenders import Answer, Base, Knob, Ladder, Solve
from benchmarks._judging import Result, Rules, judge, search, time_limit
from benchmarks._judging import TimeLimitError as OutOfTime
from benchmarks._problems import Problem
from benchmarks._reference import Reference
from benchmarks._solver_report import ratio_to_ours

RULES = Rules(accuracy=1e-8, repeats=3, cap=5.0, budget=0.2)


LINE = Problem((np.eye(3, k=1) + np.eye(3, k=-1),), normalized=False, symmetric=True)


RIGHT = Reference(1.0, np.array([1.0, 0.0, -1.0]) / 2**0.5, 4.0, "by hand")


@dataclasses.dataclass(frozen=True)
class Scripted(Base):
    """A solver whose answer at each tolerance is laid down, with the times it was called."""

    name: str = "scripted"
    answers: tuple[tuple[float, Any], ...] = ()
    second: tuple[tuple[float, Any], ...] = ()
    calls: list[float] = dataclasses.field(default_factory=list)

    def ladders(self, problem: Problem, accuracy: float) -> tuple[Ladder, ...]:
        del problem
        ladders = (self.answers, self.second) if self.second else (self.answers,)
        return tuple(tuple(Knob(tol, option) for tol, _ in ladder) for option, ladder in enumerate(ladders))

    def prepare(self, problem: Problem) -> Solve:
        del problem

        def call(knob: Knob) -> Answer:
            self.calls.append(knob.value)
            answer = dict(self.second if knob.option else self.answers)[knob.value]
            return answer if isinstance(answer, Answer) else answer()

        return call


def judged(*answers: tuple[float, Any], rules: Rules = RULES, **options: Any) -> Result:
    return judge((Scripted(answers=answers, **options),), LINE, RIGHT, rules)[0]


def slowly(value: float, seconds: float) -> Callable[[], Answer]:
    def answer() -> Answer:
        time.sleep(seconds)
        return Answer(value, None, True)

    return answer


def test_the_loosest_sufficient_tolerance_is_chosen():
    fake = Scripted(answers=((1e-2, Answer(1.1)), (1e-3, Answer(1 + 1e-9)), (1e-4, Answer(1.0))))
    (result,) = judge((fake,), LINE, RIGHT, RULES)
    assert (result.outcome, result.setting) == ("ok", "tol 1.0e-03")
    assert result.error == pytest.approx(1e-9, rel=1e-3)
    assert 1e-4 not in fake.calls
    assert len(result.seconds) == 3


def test_the_faster_of_two_settings_is_chosen():
    slow, fast = ((1e-3, slowly(1.0, 0.05)),), ((1e-3, Answer(1.0)),)
    for first, second, chosen in ((slow, fast, 1), (fast, slow, 0)):
        fake = Scripted(answers=first, second=second)
        found = search(fake, fake.prepare(LINE), LINE, RIGHT, RULES)
        assert found.chosen is not None
        assert found.chosen.knob.option == chosen


def test_the_tightest_setting_needed_elsewhere_is_the_only_one():
    answers = tuple((10.0**-k, Answer(1.0)) for k in range(2, 6))
    fake = Scripted(answers=answers, second=answers)
    needed = {"scripted": {"tol 1.0e-02": 3, "tol 1.0e-04": 1}}
    (result,) = judge((fake,), LINE, RIGHT, RULES, needed=needed)
    assert (result.outcome, result.setting, len(result.attempts)) == ("ok", "tol 1.0e-04", 1)
    (result,) = judge((fake,), LINE, RIGHT, RULES, needed={"other": {"tol 1.0e-02": 1}})
    assert (result.outcome, result.reason) == ("skipped", "accurate nowhere in the earlier run")
    # What has one setting in all keeps it.
    (result,) = judge((Scripted(answers=answers[2:3]),), LINE, RIGHT, RULES, needed={})
    assert (result.outcome, result.setting) == ("ok", "tol 1.0e-04")


def test_the_least_wrong_answer_is_shown_as_wrong():
    result = judged((1e-2, Answer(1.5)), (1e-3, Answer(1.2)), (1e-4, Answer(float("nan"))))
    assert (result.outcome, result.setting) == ("wrong", "tol 1.0e-03")
    assert "error 2.0e-01" in (result.reason or "")
    assert result.seconds


@pytest.mark.parametrize(
    ("tol", "answer", "silent"),
    [
        (1e-4, Answer(1.01, None, True), True),
        (1e-4, Answer(1.01, None, False), False),
        (1e-4, Answer(1.01, None, None), False),
        (1e-2, Answer(1.01, None, True), False),
        (1e-10, Answer(1 + 5e-8, None, True), False),
        (1e-10, Answer(1 + 5e-7, None, True), True),
        (1e-4, Answer(float("nan"), None, True), True),
    ],
)
def test_silent_wrong_answers_are_claimed_and_beyond_the_promise(tol, answer, silent):
    (attempt,) = judged((tol, answer)).attempts
    assert attempt.silent is silent


@pytest.mark.parametrize(("share", "silent"), [(1e-2, True), (1e-5, False)])
def test_what_is_claimed_far_from_a_zero_is_silently_wrong(share, silent):
    class Relative(Scripted):
        def promise(self, problem: Problem, knob: Knob, value: float, bound: float) -> float:
            return knob.value * bound / value

    nothing = RIGHT._replace(value=1e-30)
    fake = Relative(answers=((1e-4, Answer(share * RIGHT.upper_bound, None, True)),))
    (attempt,) = judge((fake,), LINE, nothing, RULES)[0].attempts
    assert attempt.silent is silent


def test_what_a_solver_raises_is_its_result():
    def fail() -> Answer:
        raise ValueError("no convergence\nat all")

    result = judged((1e-2, fail), (1e-3, Answer(1.0)))
    assert (result.outcome, result.reason) == ("failed", "ValueError: no convergence")


def test_a_solver_without_an_answer_in_time_is_slow():
    hurried = dataclasses.replace(RULES, cap=0.05)
    result = judged((1e-2, slowly(1.5, 0.01)), (1e-3, slowly(1.0, 30)), rules=hurried)
    assert result.outcome == "slow"
    assert result.reason == "error 5.0e-01 at tol 1.0e-02"
    assert judged((1e-3, slowly(1.0, 30)), rules=hurried).reason == "out of time"


def test_time_limit_interrupts_and_leaves_no_alarm():
    began = time.perf_counter()
    with pytest.raises(OutOfTime), time_limit(0.05):
        time.sleep(30)
    assert time.perf_counter() - began < 5
    with time_limit(0.05):
        pass
    time.sleep(0.1)


def test_timing_goes_in_turns():
    order = []
    fakes = []
    for name in "ab":

        def answer(name: str = name) -> Answer:
            order.append(name)
            return Answer(1.0)

        fakes.append(Scripted(name, answers=((1e-2, answer),)))
    judge(fakes, LINE, RIGHT, RULES)
    assert order[-6:] == list("ababab")


def test_ratios_compare_the_same_rounds():
    ours = Result("ours", "ok", seconds=(1.0, 2.0, 4.0, 100.0))
    theirs = Result("peer", "ok", seconds=(3.0, 6.0, 8.0))
    assert ratio_to_ours(theirs, [ours, theirs]) == 3
    assert np.isnan(ratio_to_ours(theirs, [theirs]))
