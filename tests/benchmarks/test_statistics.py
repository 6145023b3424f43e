import math

import numpy as np
import pytest
from scipy import stats

from benchmarks._experiment import EpochPoint, Run
from benchmarks._statistics import (
    curve,
    differences_to_none,
    failures,
    mean_sd,
    ms_per_step,
    paired_difference,
    summarize,
)
from benchmarks._training import FiedlerPoint, PenaltyPoint


def make_pair(value, status="converged"):
    return FiedlerPoint(value, 0.0, 0.0, 0.1, status, status == "converged")


def make_run(method, seed, test_accuracy, seconds=(0.5, 0.2, 0.4), status="converged", coefficient=None):
    penalties = {} if coefficient is None else {"fiedler": PenaltyPoint(0.1, coefficient, 0.0, 0.1, "converged", 0, 3)}
    points = [
        EpochPoint(i, 1 / (i + 1), 0.9, test_accuracy, make_pair(0.5), make_pair(2.0, status), penalties, s)
        for i, s in enumerate([None, *seconds])
    ]
    return Run(method, seed, tuple(points), 0.25)


@pytest.mark.parametrize("n", [2, 5, 12])
def test_interval_is_that_of_the_paired_t_test(n):
    rng = np.random.default_rng(n)
    values, baseline = rng.normal(size=n), rng.normal(size=n)
    ours = paired_difference(values, baseline)
    theirs = stats.ttest_rel(values, baseline).confidence_interval(0.95)
    np.testing.assert_allclose((ours.low, ours.high), (theirs.low, theirs.high), rtol=1e-10)
    np.testing.assert_allclose(ours.mean, (values - baseline).mean())
    assert ours.n == n


def test_pairing_matters():
    baseline, gain = np.array([0.1, 0.5, 0.9]), np.array([0.01, 0.011, 0.012])
    paired = paired_difference(baseline + gain, baseline)
    shuffled = paired_difference(baseline[::-1] + gain, baseline)
    assert paired.low > 0
    assert shuffled.low < 0 < shuffled.high


def test_one_seed_has_a_difference_but_no_interval():
    difference = paired_difference([0.7], [0.5])
    assert difference.mean == pytest.approx(0.2)
    assert math.isnan(difference.low)
    assert math.isnan(difference.high)
    assert math.isnan(mean_sd([0.7]).sd)


def test_sd_is_that_of_a_sample():
    assert mean_sd([1.0, 2.0, 6.0]) == pytest.approx((3.0, 7.0**0.5))


def test_ms_per_step_leaves_out_the_first_epoch_of_each_seed():
    runs = [make_run("l1", 0, 0.5, (9.0, 0.2, 0.4)), make_run("l1", 1, 0.5, (9.0, 0.3, 0.8))]
    assert ms_per_step([*runs, make_run("l2", 0, 0.5, (7.0, 7.0))], "l1", 10) == pytest.approx(35.0)


def test_ms_per_step_of_a_single_epoch():
    assert ms_per_step([make_run("l1", 0, 0.5, (0.3,))], "l1", 10) == pytest.approx(30.0)


def test_curve_has_a_row_per_seed_and_a_column_per_epoch():
    runs = [make_run("l1", 0, 0.5), make_run("none", 0, 0.4), make_run("l1", 1, 0.7)]
    np.testing.assert_array_equal(curve(runs, "l1", lambda p: p.test_accuracy), [[0.5] * 4, [0.7] * 4])


def test_failures_are_counted_by_status():
    points = [make_pair(1.0, status) for status in ("converged", "not finite", "accuracy floor", "not finite")]
    assert failures(points) == {"not finite": 2, "accuracy floor": 1}


def test_summary_of_final_networks():
    runs = [
        make_run("fiedler", 0, 0.6, coefficient=0.1),
        make_run("fiedler", 1, 0.8, status="iteration limit", coefficient=0.3),
        make_run("none", 0, 0.1),
    ]
    summary = summarize(runs, "fiedler", 10)
    assert summary.n == 2
    assert summary.test_accuracy == pytest.approx((0.7, 0.02**0.5))
    assert summary.gap == pytest.approx((0.2, 0.02**0.5))
    assert summary.near_zero_share == pytest.approx((0.25, 0.0))
    assert summary.normalized_failures == {}
    assert summary.combinatorial_failures == {"iteration limit": 1}
    assert summary.l1_coefficients == pytest.approx({"fiedler": 0.2})
    assert summary.ms_per_step == pytest.approx(30.0)


def test_differences_pair_seeds_and_leave_out_the_baseline():
    runs = [make_run("none", 0, 0.5), make_run("none", 1, 0.6), make_run("l1", 0, 0.52), make_run("l1", 1, 0.64)]
    differences = differences_to_none(runs, ("none", "l1"))
    assert list(differences) == ["l1"]
    assert differences["l1"] == pytest.approx(paired_difference([0.02, 0.04], [0.0, 0.0]))
