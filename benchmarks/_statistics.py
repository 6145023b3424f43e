"""Means, spreads and paired differences over seeds."""

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import numpy as np
from scipy import stats

from benchmarks._experiment import EpochPoint, Run
from benchmarks._training import FiedlerPoint

CONFIDENCE = 0.95


class MeanSd(NamedTuple):
    """Mean and sample standard deviation; the latter is NaN for one value."""

    mean: float
    sd: float


class PairedDifference(NamedTuple):
    """Mean difference with its confidence interval; NaN bounds for one pair."""

    mean: float
    low: float
    high: float
    n: int


class MethodSummary(NamedTuple):
    """A method over all seeds; accuracies and shares are fractions.

    ``*_failures`` count, by status, the final λ2 solves that did not converge.
    ``l1_coefficients`` are the mean effective L1 coefficients of the method's Fiedler
    penalties at their last refresh, by regularizer.
    """

    method: str
    n: int
    train_accuracy: MeanSd
    test_accuracy: MeanSd
    gap: MeanSd
    normalized: MeanSd
    normalized_failures: dict[str, int]
    combinatorial: MeanSd
    combinatorial_failures: dict[str, int]
    near_zero_share: MeanSd
    ms_per_step: float
    l1_coefficients: dict[str, float]


def mean_sd(values: Sequence[float] | np.ndarray) -> MeanSd:
    """Mean and sample standard deviation of the values."""
    array = np.asarray(values, float)
    return MeanSd(float(array.mean()), _sample_sd(array))


def paired_difference(values: Sequence[float] | np.ndarray, baseline: Sequence[float] | np.ndarray) -> PairedDifference:
    """Mean of ``values - baseline`` with a Student-t confidence interval.

    Args:
        values: one number per seed.
        baseline: the other method's numbers for the same seeds.

    Returns:
        The mean difference, its 95 % interval and the number of pairs.
    """
    differences = np.asarray(values, float) - np.asarray(baseline, float)
    n, mean = len(differences), float(differences.mean())
    if n < 2:
        return PairedDifference(mean, float("nan"), float("nan"), n)
    quantile = stats.t.ppf((1 + CONFIDENCE) / 2, n - 1)
    margin = float(quantile * _sample_sd(differences) / np.sqrt(n))
    return PairedDifference(mean, mean - margin, mean + margin, n)


def curve(runs: Sequence[Run], method: str, read: Callable[[EpochPoint], float]) -> np.ndarray:
    """Array (seeds, epochs + 1) of one quantity of one method."""
    return np.array([[read(point) for point in run.points] for run in runs if run.method == method])


def ms_per_step(runs: Sequence[Run], method: str, steps: int) -> float:
    """Median time of a step over the epochs of all seeds.

    The first epoch of each seed is left out, unless it is the only one: it meets cold
    caches.
    """
    seconds = [
        [point.seconds for point in run.points if point.seconds is not None] for run in runs if run.method == method
    ]
    warm = [epochs[1:] or epochs for epochs in seconds]
    return float(np.median(np.concatenate(warm)) / steps * 1e3)


def failures(points: Iterable[FiedlerPoint]) -> dict[str, int]:
    """Counts the λ2 solves that did not converge, by status."""
    return dict(Counter(point.status for point in points if not point.converged))


def summarize(runs: Sequence[Run], method: str, steps: int) -> MethodSummary:
    """Sums up a method's final networks.

    Args:
        runs: runs of any methods.
        method: the one to sum up.
        steps: steps per epoch.

    Returns:
        Its summary.
    """
    own = [run for run in runs if run.method == method]
    final = [run.points[-1] for run in own]
    train = np.array([point.train_accuracy for point in final])
    test = np.array([point.test_accuracy for point in final])
    return MethodSummary(
        method=method,
        n=len(own),
        train_accuracy=mean_sd(train),
        test_accuracy=mean_sd(test),
        gap=mean_sd(train - test),
        normalized=mean_sd([point.normalized.value for point in final]),
        normalized_failures=failures(point.normalized for point in final),
        combinatorial=mean_sd([point.combinatorial.value for point in final]),
        combinatorial_failures=failures(point.combinatorial for point in final),
        near_zero_share=mean_sd([run.near_zero_share for run in own]),
        ms_per_step=ms_per_step(runs, method, steps),
        l1_coefficients={
            regularizer: float(np.mean([p.penalties[regularizer].l1_coefficient for p in final]))
            for regularizer in final[0].penalties
        },
    )


def differences_to_none(runs: Sequence[Run], methods: Sequence[str]) -> dict[str, PairedDifference]:
    """Paired differences in final test accuracy to ``"none"``, by method."""
    final = {method: curve(runs, method, lambda point: point.test_accuracy)[:, -1] for method in methods}
    return {method: paired_difference(final[method], final["none"]) for method in methods if method != "none"}


def _sample_sd(array: np.ndarray) -> float:
    return float(array.std(ddof=1)) if len(array) > 1 else float("nan")
