"""The parts of the tuned comparison: draws, candidates, the choice, the verdict."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from blobs import blobs
from matplotlib.figure import Figure
from scipy import stats

import fiedler_jax as fj
from benchmarks._errors import ConfigError, DataError, MethodError
from benchmarks._statistics import paired_difference
from benchmarks._study import problems
from benchmarks._study.judgement import (
    Comparison,
    choose,
    differences_to_best_other,
    differences_to_no_structure,
    differences_to_none,
    differences_to_the_rest,
    holm,
    outcome,
)
from benchmarks._study.measures import calibration_error, judge, structure
from benchmarks._study.plan import TuneConfig, at_edge, candidates, is_fiedler, judging_trials, tuning_trials
from benchmarks._study.plots import plot_differences
from benchmarks._study.problems import make_task, shifted_images
from benchmarks._study.task import Recipe, batch_rows, check_split, check_task, draw_split
from benchmarks._study.trial import Trial


def config(tmp_path: Path, **changes: Any) -> TuneConfig:
    given = {"tasks": ("digits",), "data_dir": None, "methods": ("none", "l2"), "budget": 2, "draws": 2, "folds": 2}
    return TuneConfig(**{**given, "seeds": 3, "first_seed": 0, "out": tmp_path, **changes})


def test_folds_part_the_draw_and_judge_every_example_once() -> None:
    task = blobs()
    whole = draw_split(task, 3, None, 4)
    folds = [draw_split(task, 3, fold, 4) for fold in range(4)]
    assert len(whole.train) == 40
    assert np.isin(whole.train, task.pool).all()
    np.testing.assert_array_equal(whole.judged, task.test)
    np.testing.assert_array_equal(np.sort(np.concatenate([one.judged for one in folds])), np.sort(whole.train))
    for one in folds:
        assert not np.intersect1d(one.train, one.judged).size
        assert len(one.train) + len(one.judged) == 40
        # Stratified: every class in every part.
        assert np.bincount(task.targets[one.judged], minlength=3).min() >= 3


def test_a_draw_belongs_to_its_seed() -> None:
    task = blobs()
    one, same, other = (draw_split(task, seed, None, 4).train for seed in (1, 1, 2))
    np.testing.assert_array_equal(one, same)
    assert set(one) != set(other)


def test_label_noise_replaces_its_share_of_the_draw_and_nothing_else() -> None:
    task = blobs(label_noise=0.4)
    split, fold = draw_split(task, 5, None, 4), draw_split(task, 5, 1, 4)
    changed = np.flatnonzero(split.targets != task.targets)
    assert len(changed) == 16
    assert np.isin(changed, split.train).all()
    np.testing.assert_array_equal(fold.targets, split.targets)
    assert set(split.targets) <= {0, 1, 2}


def test_batches_are_of_the_training_examples_and_go_through_all_before_any_again() -> None:
    task = blobs()
    split = draw_split(task, 0, 0, 4)
    rows = batch_rows(task, split, 0)
    assert rows.shape == (7, 4)
    assert np.isin(rows, split.train).all()
    assert len(np.unique(rows)) == 28


def test_every_method_has_as_many_candidates() -> None:
    for method in ("l2", "dropout", "fiedler", "fiedler+dropout", "l1-shrinkage"):
        found = candidates(method, 5)
        assert len(found) == len(set(found)) == 5
    assert candidates("none", 5) == [()]
    assert candidates("l1", 5) == [(("l1", value),) for value in (1e-5, 1e-4, 1e-3, 1e-2, 1e-1)]
    assert [name for name, _ in candidates("dropout+fiedler", 3)[0]] == ["fiedler", "dropout"]


def test_ends_of_the_grid_are_told() -> None:
    assert at_edge((("l1", 1e-5),), 5) == ["l1 weakest"]
    assert at_edge((("l1", 1e-4),), 5) == []
    assert at_edge((("fiedler", 1e-3), ("dropout", 0.8)), 5) == ["dropout strongest"]


def test_seeds_that_choose_never_judge(tmp_path: Path) -> None:
    settings = config(tmp_path)
    tuning = tuning_trials("digits", "l2", settings)
    judging = judging_trials("digits", "l2", tuning[0].strengths, settings)
    assert len(tuning) == 2 * 2 * 2
    assert len(set(tuning)) == len(tuning)
    assert all(trial.fold is not None for trial in tuning)
    assert [trial.fold for trial in judging] == [None] * 3
    assert not {trial.seed for trial in tuning} & {trial.seed for trial in judging}
    later = config(tmp_path, first_seed=3)
    assert tuning_trials("digits", "l2", later) == tuning
    assert not set(judging_trials("digits", "l2", tuning[0].strengths, later)) & set(judging)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"budget": 1}, "--budget must be at least 2"),
        ({"folds": 1}, "--folds must be at least 2"),
        ({"seeds": 1}, "--seeds must be at least 2"),
        ({"first_seed": 9_998}, "where those for tuning begin"),
        ({"methods": ("l2",)}, "must contain 'none'"),
        ({"methods": ("none",)}, "and one besides"),
        ({"tasks": ("digits", "digits")}, "--tasks names one twice"),
    ],
)
def test_bad_settings_are_refused(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        config(tmp_path, **changes)
    with pytest.raises(MethodError, match="unknown method"):
        config(tmp_path, methods=("none", "l3"))


def test_folds_that_do_not_fit_are_refused() -> None:
    task = blobs()
    check_split(task, 13)
    with pytest.raises(ConfigError, match="--folds 14 is too many for task blobs: one of its classes has 13"):
        check_split(task, 14)
    check_split(blobs(classes=None), 14)
    with pytest.raises(ConfigError, match="40 training examples in 2 folds leave less than a batch of 21"):
        check_split(task._replace(recipe=Recipe((6,), 7, 21, 0.1)), 2)


VALUES = np.zeros((90, 2), np.float32)
IMAGES = np.zeros((90, 5, 1), np.float32)
BROKEN = np.full((90, 5), np.nan, np.float32)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"inputs": [[0.0] * 5] * 90}, "inputs must be a NumPy array of finite numbers"),
        ({"inputs": BROKEN}, "inputs must be a NumPy array of finite numbers"),
        ({"shifts": {"blur": BROKEN}}, "blur must be a NumPy array of finite numbers"),
        ({"inputs": IMAGES}, r"inputs must be \(examples, features\), not \(90, 5, 1\); flatten"),
        ({"targets": np.zeros(89, int)}, "90 inputs but 89 targets"),
        (
            {"classes": None, "targets": VALUES[:, 0]},
            r"values to predict must be \(examples, outputs\), not \(90,\); for one output add an axis",
        ),
        ({"targets": VALUES}, r"classes must be integers \(examples,\), not float32 \(90, 2\)"),
        ({"targets": 1 + np.arange(90) % 3}, "classes must be numbered from 0 to 2, but go from 1 to 3"),
        ({"pool": np.arange(31, 91)}, "pool must be a NumPy array of numbers of examples, from 0 to 89"),
        ({"pool": list(range(60))}, "pool must be a NumPy array of numbers of examples"),
        ({"test": np.arange(90) < 60}, "test must be a NumPy array of numbers of examples, from 0 to 89"),
        ({"pool": np.arange(60) // 2}, "pool has an example twice"),
        ({"test": np.arange(50, 90)}, "10 examples are in both pool and test"),
        ({"size": 61}, "size is 61, but pool has 60 examples to draw from"),
        ({"shifts": {"blur": VALUES}}, r"blur has shape \(90, 2\), but the test inputs \(30, 5\)"),
        ({"modules": np.arange(4)}, "modules must have a number for each of the 5 features"),
    ],
)
def test_tasks_whose_arrays_do_not_fit_are_refused(
    monkeypatch: pytest.MonkeyPatch, changes: dict[str, Any], message: str
) -> None:
    for classes in (3, None):
        check_task(blobs(classes=classes))
    monkeypatch.setattr(problems, "TASKS", {"own": lambda name, folder: blobs(**changes)})
    with pytest.raises(DataError, match=f"task own: {message}"):
        make_task("own", None)


def test_draws_that_cannot_keep_the_shares_of_classes_are_refused() -> None:
    lone = blobs(targets=np.where(np.arange(90) == 3, 2, np.arange(90) % 2))
    with pytest.raises(ConfigError, match="no draw of 40 examples keeps the classes' shares: The least populated"):
        check_split(lone, 2)


def test_images_of_another_size_are_refused(mnist_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(DataError, match="10000 training examples are asked for, and there are 60"):
        make_task("mnist-500", mnist_folder)
    monkeypatch.setattr(problems, "_MNIST_POOL", 50)
    with pytest.raises(DataError, match="task mnist-500 needs images of 28 x 28 pixels, and these have 9"):
        make_task("mnist-500", mnist_folder)


def test_unknown_tasks_are_refused() -> None:
    with pytest.raises(ConfigError, match="unknown task 'digit'; known: digits, digits-100"):
        make_task("digit", None)


def results(values: dict[float, list[float]]) -> list[tuple[Trial, dict[str, Any]]]:
    return [
        (Trial("blobs", "l2", (("l2", strength),), at, 0, 2), {"accuracy": value, "rmse": value, "loss": strength})
        for strength, found in values.items()
        for at, value in enumerate(found)
    ]


def test_the_best_mean_is_chosen_and_of_equal_ones_the_lower_loss() -> None:
    task = blobs()
    chosen = choose(task, results({0.1: [0.9, 0.7], 0.2: [0.8, 0.9], 0.3: [0.9, 0.8], 0.4: [0.8, 0.8]}))
    assert chosen.strengths == (("l2", 0.2),)
    assert chosen.validation == pytest.approx(0.85)
    assert dict(chosen.curve)[(("l2", 0.1),)] == pytest.approx(0.8)


def test_less_error_is_better_and_a_diverged_network_worst() -> None:
    task = blobs(classes=None)
    found = results({0.1: [2.0, 2.0], 0.2: [1.0, 1.0]})
    assert choose(task, found).strengths == (("l2", 0.2),)
    diverged = [(trial, {**measured, "loss": None} if trial.seed else measured) for trial, measured in found[2:]]
    assert choose(task, found[:2] + diverged).strengths == (("l2", 0.1),)


def test_holm_by_hand() -> None:
    assert holm([0.04, 0.01, 0.03]) == pytest.approx([0.06, 0.03, 0.06])
    assert holm([0.5, 0.9]) == pytest.approx([1.0, 1.0])


def judged(method: str, values: list[float], validation: float, loss: float = 1.0) -> Any:
    task = blobs()
    found = [(Trial("blobs", method, (), seed, None, 2), {"accuracy": v}) for seed, v in enumerate(values)]
    choice = choose(task, [(found[0][0], {"accuracy": validation, "loss": loss})])
    return outcome(task, method, choice, found)


def test_verdicts_need_a_difference_that_survives_the_correction() -> None:
    base = [0.80, 0.82, 0.81, 0.83, 0.79, 0.80]
    better = [value + 0.02 + 0.001 * at for at, value in enumerate(base)]
    worse = [value - 0.02 - 0.001 * at for at, value in enumerate(base)]
    # By itself p is below 0.05, but another method has a larger one.
    unsure = [value + step for value, step in zip(base, [0.01, 0.02, -0.002, 0.015, 0.01, 0.002], strict=True)]
    equal = [value + step for value, step in zip(base, [0.01, -0.01, 0.01, -0.01, 0.01, -0.01], strict=True)]
    named = {"none": base, "l2": better, "l1": worse, "fiedler": unsure, "dropout": equal}
    outcomes = [judged(method, values, 0.8) for method, values in named.items()]
    found = {one.method: one for one in differences_to_none({"blobs": blobs()}, outcomes)}
    assert {name: one.verdict for name, one in found.items()} == {
        "l2": "helps",
        "l1": "hurts",
        "fiedler": "no difference",
        "dropout": "no difference",
    }
    expected = stats.ttest_rel(unsure, base).pvalue
    assert found["fiedler"].p == pytest.approx(expected)
    assert found["fiedler"].p < 0.05 <= found["fiedler"].adjusted
    interval = stats.ttest_rel(better, base).confidence_interval()
    assert (found["l2"].difference.low, found["l2"].difference.high) == pytest.approx(tuple(interval))


def test_less_error_helps_in_regression() -> None:
    task = blobs(classes=None)
    trials = [Trial("blobs", "l2", (), seed, None, 2) for seed in range(4)]
    choice = choose(task, [(trials[0], {"rmse": 1.0, "loss": 1.0})])
    one, base = (
        outcome(task, method, choice, [(t, {"rmse": start + 0.01 * t.seed**2}) for t in trials])
        for method, start in (("l2", 0.5), ("none", 0.9))
    )
    [found] = differences_to_none({"blobs": task}, [base, one])
    assert found.verdict == "helps"
    assert found.difference.mean == pytest.approx(-0.4)


@pytest.mark.parametrize(("classes", "title"), [(2, "points of accuracy gained over none"), (None, "rmse reduced")])
def test_the_picture_of_differences_says_which_way_is_better(
    classes: int | None, title: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn = []
    monkeypatch.setattr(Figure, "savefig", lambda figure, *_, **__: drawn.append(figure))
    less = Comparison("blobs", "l2", "none", paired_difference([0.5, 0.4], [0.9, 0.9]), 0.01, 0.01, "helps")
    plot_differences({"blobs": blobs(classes=classes)}, [less], tmp_path / "differences.png")
    [axes] = drawn[0].axes
    assert title in axes.get_title()
    (_, mean, _) = axes.lines
    assert (np.ravel(mean.get_xdata())[0] > 0) == (classes is None)


def test_networks_that_agree_are_no_difference() -> None:
    outcomes = [judged(method, [0.8, 0.9], 0.8) for method in ("none", "l2")]
    [found] = differences_to_none({"blobs": blobs()}, outcomes)
    assert (found.p, found.verdict) == (1.0, "no difference")


def test_networks_that_diverged_are_no_verdict() -> None:
    outcomes = [judged("none", [0.8, 0.8], 0.8), judged("l2", [0.9, math.nan], 0.8)]
    [found] = differences_to_none({"blobs": blobs()}, outcomes)
    assert (found.verdict, found.adjusted) == ("diverged", 1)


def test_the_best_other_is_chosen_by_validation_not_by_the_test() -> None:
    outcomes = [
        judged("none", [0.8, 0.8], 0.7),
        judged("l2", [0.7, 0.7], 0.9),
        # No control, and none that diverged.
        judged("fiedler-uniform", [0.9, 0.9], 0.95),
        judged("l1", [math.nan, 0.9], math.nan, math.nan),
        judged("fiedler", [0.8, 0.8], 0.6),
    ]
    [found] = differences_to_best_other({"blobs": blobs()}, outcomes)
    assert (found.method, found.other) == ("fiedler", "l2")


def test_combinations_are_compared_to_the_same_without_their_fiedler_part() -> None:
    names = (
        "none",
        "l2",
        "fiedler",
        "l2+fiedler@10",
        "fiedler+dropout",
        "fiedler-uniform+l2",
        "l1+l2",
        "fiedler+l1+l2",
    )
    outcomes = [judged(name, [0.8 + 0.01 * at, 0.9], 0.7) for at, name in enumerate(names)]
    found = differences_to_the_rest({"blobs": blobs()}, outcomes)
    assert [(one.method, one.other) for one in found] == [
        ("l2+fiedler@10", "l2"),
        ("fiedler-uniform+l2", "l2"),
        ("fiedler+l1+l2", "l1+l2"),
    ]
    assert found[0].difference.mean == pytest.approx(0.01)


def test_fiedler_methods_are_compared_to_the_same_without_structure() -> None:
    names = ("none", "l2", "fiedler", "fiedler@10", "l2+fiedler", "fiedler-uniform", "fiedler-uniform+l2", "fiedler-4")
    names = (*names, "fiedler-combinatorial", "l1", "fiedler-uniform@1", "fiedler@1")
    outcomes = [judged(name, [0.8 + 0.01 * at, 0.9], 0.7) for at, name in enumerate(names)]
    found = differences_to_no_structure({"blobs": blobs()}, outcomes)
    assert [(one.method, one.other) for one in found] == [
        ("fiedler", "fiedler-uniform"),
        ("fiedler@10", "fiedler-uniform"),
        ("l2+fiedler", "fiedler-uniform+l2"),
        ("fiedler-4", "fiedler-uniform"),
        ("fiedler@1", "fiedler-uniform@1"),
    ]


def test_which_methods_have_the_structure() -> None:
    names = ("fiedler", "fiedler-uniform", "l1", "fiedler+dropout", "fiedler-shrinkage@auto")
    assert [is_fiedler(name) for name in names] == [True, False, False, True, True]


def test_calibration_error_by_hand() -> None:
    # Two examples at 0.9, one of them right, and two at 0.6, both right.
    probabilities = np.array([[0.9, 0.1], [0.9, 0.1], [0.4, 0.6], [0.6, 0.4]])
    assert calibration_error(probabilities, np.array([0, 1, 1, 0])) == pytest.approx((0.8 + 0.8) / 4)
    assert calibration_error(np.eye(2), np.array([0, 1])) == 0


def test_parts_of_a_noisy_draw_judge_by_their_noisy_labels() -> None:
    task = blobs(label_noise=0.5)
    fold, final = draw_split(task, 0, 1, 4), draw_split(task, 0, None, 4)
    learnt, truth = (10 * np.eye(3)[targets] for targets in (fold.targets, task.targets))
    assert judge(task, learnt, fold, {})["accuracy"] == 1
    assert judge(task, truth, fold, {})["accuracy"] < 0.8
    # On the test examples, and on shifted ones, no label is wrong.
    found = judge(task, truth, final, {"upside down": -truth[task.test]})
    assert (found["accuracy"], found["shifts"]["upside down"]["accuracy"]) == (1, 0)
    assert found["train_loss"] > 1 > judge(task, learnt, final, {})["train_loss"]


def cut_network(bridge: float) -> dict[str, Any]:
    """Two networks of four inputs side by side, joined by one edge."""
    first, second = np.zeros((8, 4)), np.zeros((4, 2))
    first[:4, :2] = first[4:, 2:] = 1
    second[:2, 0] = second[2:, 1] = 1
    first[0, 3] = bridge
    return {"Dense_0": {"kernel": first.astype(np.float32)}, "Dense_1": {"kernel": second.astype(np.float32)}}


@pytest.mark.parametrize(("bridge", "parts"), [(0.1, 1), (0.0, 2)])
def test_the_fiedler_cut_is_compared_to_the_modules(bridge: float, parts: int) -> None:
    params = cut_network(bridge)
    graph = fj.graph_from_params(params)
    pair = fj.fiedler_pair(fj.laplacian(graph, params))
    right = structure(blobs(modules=np.repeat([0, 1], 4)), params, pair)
    wrong = structure(blobs(modules=np.tile([0, 1], 4)), params, pair)
    assert (right["parts"], right["lone_units"]) == (parts, 0)
    assert right["module_agreement"] == 1
    assert wrong["module_agreement"] < 0.1
    assert structure(blobs(), params, pair)["module_agreement"] is None


def test_lone_units_are_no_parts() -> None:
    params = cut_network(0.1)
    params["Dense_0"]["kernel"][5] = 0
    pair = fj.fiedler_pair(fj.laplacian(fj.graph_from_params(params), params))
    found = structure(blobs(), params, pair)
    assert (found["parts"], found["lone_units"]) == (1, 1)


def test_the_modular_teacher_keeps_its_modules_apart() -> None:
    task = make_task("modular-200", None)
    assert task.modules is not None
    outputs = task.targets[task.test]
    # What a module's outputs are explained by: the other's inputs explain nothing of them.
    for module in (0, 1):
        inputs = task.inputs[task.test][:, task.modules == module]
        design = np.concatenate([inputs, np.abs(inputs), np.ones((len(inputs), 1))], axis=1)
        fitted = design @ np.linalg.lstsq(design, outputs, rcond=None)[0]
        explained = 1 - ((outputs - fitted) ** 2).mean(axis=0) / outputs.var(axis=0)
        own = np.repeat([0, 1], 2) == module
        assert explained[own].min() > 0.5
        assert explained[~own].max() < 0.05


def test_tasks_that_need_no_files() -> None:
    for name in (name for name in problems.TASKS if not name.startswith("mnist")):
        task = make_task(name, None)
        assert task.name == name
        assert not np.intersect1d(task.pool, task.test).size
        assert task.size <= len(task.pool)
        assert np.isfinite(task.inputs).all()
        assert len(task.inputs) == len(task.targets)


def test_shifted_images() -> None:
    square = np.zeros((4, 28, 28), np.float32)
    square[:, 10:18, 8] = 1.0
    found = shifted_images(square.reshape(4, -1))
    assert set(found) == {"noise", "blur", "rotation", "occlusion"}
    assert all(images.shape == (4, 784) and images.dtype == np.float32 for images in found.values())
    noise = found["noise"] - square.reshape(4, -1)
    assert abs(noise.std() - 1) < 0.1
    # A blur keeps the sum and lowers the peak; turning to both sides moves the stroke's upper end to both sides.
    np.testing.assert_allclose(found["blur"].sum(axis=1), 8, rtol=1e-3)
    assert found["blur"].max() < 0.6
    upper = found["rotation"].reshape(4, 28, 28)[:, :14]
    centre = (upper * np.arange(28)).sum(axis=(1, 2)) / upper.sum(axis=(1, 2))
    assert (centre[0] - 8) * (centre[1] - 8) < 0
    assert abs(centre[0] - centre[1]) > 1
    np.testing.assert_allclose(centre[::2], centre[0], rtol=1e-6)
    hidden = (found["occlusion"] != square.reshape(4, -1)).sum(axis=1)
    assert hidden.max() <= 8
