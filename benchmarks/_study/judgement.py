"""From trials to a verdict: the choice of strengths, paired differences, and a correction for their number."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
from scipy import stats

from benchmarks._methods import FIEDLER_FORMS, Refresh, parse_method
from benchmarks._statistics import CONFIDENCE, MeanSd, PairedDifference, mean_sd, paired_difference
from benchmarks._study.plan import is_fiedler
from benchmarks._study.task import Task
from benchmarks._study.trial import Strengths, Trial

Measured = Sequence[tuple[Trial, Mapping[str, Any]]]
Verdict = Literal["helps", "no difference", "hurts", "diverged"]


class Choice(NamedTuple):
    """The strengths chosen for a method.

    Attributes:
        strengths: by regularizer.
        validation: mean of the task's measure over draws and folds, with them.
        badness: what ranks choices, the least first: by the measure, then by the loss.
        curve: all strengths tried, with their means.
    """

    strengths: Strengths
    validation: float
    badness: tuple[float, float]
    curve: tuple[tuple[Strengths, float], ...]


class SparsityPoint(NamedTuple):
    """Networks of one method and strength.

    Attributes:
        method: the method's name.
        strengths: by regularizer.
        value: the task's measure.
        zero_share: share of kernel entries that are exactly zero.
        parts: connected parts of more than one unit.
        lone_units: units without any edge.
    """

    method: str
    strengths: Strengths
    value: MeanSd
    zero_share: MeanSd
    parts: MeanSd
    lone_units: MeanSd


class Outcome(NamedTuple):
    """A method on a task, judged by fresh seeds on the test examples.

    Attributes:
        task: the task's name.
        method: the method's name.
        choice: its strengths.
        measured: what was measured, a seed each.
        value: mean and spread of the task's measure.
    """

    task: str
    method: str
    choice: Choice
    measured: tuple[Mapping[str, Any], ...]
    value: MeanSd


class Comparison(NamedTuple):
    """A method against another on a task.

    Attributes:
        task: the task's name.
        method: the one.
        other: the other.
        difference: in the task's measure, over seeds.
        p: of a paired t test.
        adjusted: the same after Holm's correction for all comparisons of this kind in the report.
        verdict: what that says at 5 per cent; "diverged" if a network of either did, which leaves no difference.
    """

    task: str
    method: str
    other: str
    difference: PairedDifference
    p: float
    adjusted: float
    verdict: Verdict


def choose(task: Task, results: Measured) -> Choice:
    """The strengths with the best mean over draws and folds; of equal ones those with the lower mean loss.

    Args:
        task: the task.
        results: the tuning trials of one method.

    Returns:
        The choice. A network that diverged counts as the worst there is.
    """
    found: dict[Strengths, list[tuple[float, float]]] = {}
    for trial, measured in results:
        found.setdefault(trial.strengths, []).append((_number(measured[task.measure]), _number(measured["loss"])))
    means = {strengths: tuple(np.mean(values, axis=0)) for strengths, values in found.items()}

    def badness(strengths: Strengths) -> tuple[float, float]:
        value, loss = map(float, means[strengths])
        return (math.inf, math.inf) if not math.isfinite(loss) else (-task.sign * value, loss)

    best = min(means, key=badness)
    return Choice(best, float(means[best][0]), badness(best), tuple((s, float(v)) for s, (v, _) in means.items()))


def outcome(task: Task, method: str, choice: Choice, results: Measured) -> Outcome:
    """Sums up the trials of a method on the test examples."""
    measured = tuple(found for _, found in results)
    return Outcome(task.name, method, choice, measured, mean_sd([_number(found[task.measure]) for found in measured]))


def sparsity_points(task: Task, results: Measured) -> list[SparsityPoint]:
    """Sums up trials of several methods at several strengths, in their order."""
    found: dict[tuple[str, Strengths], list[Mapping[str, Any]]] = {}
    for trial, measured in results:
        found.setdefault((trial.method, trial.strengths), []).append(measured)

    def over_seeds(group: list[Mapping[str, Any]], name: str) -> MeanSd:
        return mean_sd([_number(measured[name]) for measured in group])

    names = (task.measure, "zero_share", "parts", "lone_units")
    return [SparsityPoint(*key, *(over_seeds(group, name) for name in names)) for key, group in found.items()]


def differences_to_none(tasks: Mapping[str, Task], outcomes: Sequence[Outcome]) -> list[Comparison]:
    """All methods against none, on each task."""
    found = {(one.task, one.method): one for one in outcomes}
    pairs = [(one, found[one.task, "none"]) for one in outcomes if one.method != "none"]
    return _compared(tasks, pairs)


def differences_to_best_other(tasks: Mapping[str, Task], outcomes: Sequence[Outcome]) -> list[Comparison]:
    """Methods with a Fiedler part against the best without one, by cross-validation, on each task."""
    pairs = []
    for name in tasks:
        here = [one for one in outcomes if one.task == name]
        # Controls, which pull as hard as a Fiedler penalty, would otherwise move what it is measured by.
        others = [one for one in here if not parse_method(one.method).fiedler_regularizers]
        best = min(others, key=lambda one: one.choice.badness)
        pairs += [(one, best) for one in here if is_fiedler(one.method)]
    return _compared(tasks, pairs)


def differences_to_the_rest(tasks: Mapping[str, Task], outcomes: Sequence[Outcome]) -> list[Comparison]:
    """Combinations against what is left of them without their Fiedler part, where that is a method too."""
    found = {(one.task, frozenset(parse_method(one.method).regularizers)): one for one in outcomes}
    pairs = []
    for one in outcomes:
        parts = frozenset(parse_method(one.method).regularizers)
        rest = parts - set(FIEDLER_FORMS)
        if rest and rest != parts and (one.task, rest) in found:
            pairs.append((one, found[one.task, rest]))
    return _compared(tasks, pairs)


def differences_to_no_structure(tasks: Mapping[str, Task], outcomes: Sequence[Outcome]) -> list[Comparison]:
    """Methods with a Fiedler part against the same with an unstructured L1 penalty in its place, where there is one.

    One that is refreshed as often, else one that is refreshed as the task says.
    """
    found = {(one.task, *_parts(one.method)): one for one in outcomes}
    pairs = []
    for one in outcomes:
        parts, refresh_every = _parts(one.method)
        plain = frozenset(map(_without_structure, parts))
        other = found.get((one.task, plain, refresh_every), found.get((one.task, plain, None)))
        if is_fiedler(one.method) and other is not None:
            pairs.append((one, other))
    return _compared(tasks, pairs)


def holm(p_values: Sequence[float]) -> list[float]:
    """P values adjusted for their number.

    Args:
        p_values: of all tests in the family.

    Returns:
        ``max over j <= i of (m - j + 1) p_(j)``, at most 1, in the order given.

    Source: Holm, "A simple sequentially rejective multiple test procedure", Scand. J. Statist. 6 (1979).
    """
    order = np.argsort(p_values)
    factors = np.arange(len(order), 0, -1)
    adjusted = np.empty(len(order))
    adjusted[order] = np.minimum(np.maximum.accumulate(np.asarray(p_values)[order] * factors), 1)
    return adjusted.tolist()


def _compared(tasks: Mapping[str, Task], pairs: Sequence[tuple[Outcome, Outcome]]) -> list[Comparison]:
    values = [
        tuple([_number(found[tasks[one.task].measure]) for found in one.measured] for one in pair) for pair in pairs
    ]
    p_values = [_p_value(one, other) for one, other in values]
    return [
        Comparison(
            one.task,
            one.method,
            other.method,
            difference := paired_difference(*numbers),
            p,
            adjusted,
            _verdict(tasks[one.task].sign * difference.mean, adjusted),
        )
        for (one, other), numbers, p, adjusted in zip(pairs, values, p_values, holm(p_values), strict=True)
    ]


def _parts(method: str) -> tuple[frozenset[str], Refresh | None]:
    parsed = parse_method(method)
    return frozenset(parsed.regularizers), parsed.refresh_every


def _without_structure(regularizer: str) -> str:
    if regularizer not in FIEDLER_FORMS:
        return regularizer
    return "fiedler-uniform" if FIEDLER_FORMS[regularizer].normalized else "fiedler-combinatorial-uniform"


def _verdict(gain: float, p: float) -> Verdict:
    if math.isnan(gain):
        return "diverged"
    if p > 1 - CONFIDENCE:
        return "no difference"
    return "helps" if gain > 0 else "hurts"


def _p_value(one: Sequence[float], other: Sequence[float]) -> float:
    differences = np.subtract(one, other)
    # Networks that agree on every example leave no spread to divide by.
    if np.ptp(differences) == 0:
        return 1.0 if differences[0] == 0 else 0.0
    statistic = differences.mean() / stats.sem(differences)
    p = float(2 * stats.t.sf(abs(statistic), len(differences) - 1))
    return 1.0 if math.isnan(p) else p


def _number(value: float | None) -> float:
    """A number read back from JSON, where one that is not finite is None."""
    return math.nan if value is None else value
