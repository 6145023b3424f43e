"""The tuned comparison from its command line, and its trials against plain training loops."""

import contextlib
import functools
import io
import json
import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import fiedler_jax as fj
from benchmarks import sparsity, tune
from benchmarks._optimizers import add_uniform_counterpart, prune_gradually, shrink_kernels
from benchmarks._study import problems, trial
from benchmarks._study.store import TrialStore
from benchmarks._study.task import Recipe, Task, batch_rows, draw_split
from benchmarks._study.trial import Trial, run_trials
from benchmarks._training import initial_params

RECIPE = Recipe(hidden=(6,), steps=9, batch_size=4, learning_rate=0.1, refresh_every=4)
OPTIONS = ("--tasks", "digits-100", "--methods", "none,l2,fiedler", "--budget", "2", "--draws", "1", "--folds", "2")
SMALL = (*OPTIONS, "--seeds", "2")


def blobs(classes: int | None = 3) -> Task:
    rng = np.random.default_rng(0)
    labels = np.arange(90) % 3
    inputs = (labels[:, None] + 0.3 * rng.standard_normal((90, 5))).astype(np.float32)
    targets = labels.astype(np.int32) if classes else inputs[:, :2] ** 2
    return Task("blobs", RECIPE, inputs, targets, np.arange(60), np.arange(60, 90), 40, classes)


def forward(params: Any, inputs: jax.Array) -> jax.Array:
    hidden = jnp.maximum(inputs @ params["Dense_0"]["kernel"] + params["Dense_0"]["bias"], 0)
    return hidden @ params["Dense_1"]["kernel"] + params["Dense_1"]["bias"]


def plain_step(optimizer: Any, params: Any, state: Any, inputs: jax.Array, labels: jax.Array) -> tuple[Any, Any]:
    def loss(params):
        return optax.softmax_cross_entropy_with_integer_labels(forward(params, inputs), labels).mean()

    updates, state = optimizer.update(jax.grad(loss)(params), state, params)
    return optax.apply_updates(params, updates), state


def test_a_trial_is_plain_training() -> None:
    task, seed = blobs(), 3
    transformations = {
        "fiedler-raised": optax.chain(fj.add_fiedler_penalty(-0.02, refresh_every=4), optax.sgd(0.1, momentum=0.9)),
        "fiedler-combinatorial-shrinkage@2": optax.chain(
            optax.sgd(0.1, momentum=0.9), fj.fiedler_shrinkage(0.02, 0.1, normalized=False, refresh_every=2)
        ),
        "l2": optax.chain(optax.add_decayed_weights(0.02), optax.sgd(0.1, momentum=0.9)),
    }
    split = draw_split(task, seed, None, 4)
    losses = []
    for method, optimizer in transformations.items():
        params = initial_params(task.sizes, seed)
        state = optimizer.init(params)
        step = jax.jit(functools.partial(plain_step, optimizer))
        for rows in batch_rows(task, split, seed):
            params, state = step(params, state, task.inputs[rows], task.targets[rows])
        outputs = forward(params, jnp.asarray(task.inputs[task.test]))
        expected = optax.softmax_cross_entropy_with_integer_labels(outputs, task.targets[task.test]).mean()
        strengths = ((method.split("@")[0], 0.02),)
        [[(_, measured)]] = run_trials(task, [Trial("blobs", method, strengths, seed, None, 4)])
        assert measured["loss"] == pytest.approx(float(expected), rel=1e-4)
        losses.append(measured["loss"])
    assert len(set(losses)) == len(losses)


def test_a_trial_does_not_depend_on_the_others_beside_it() -> None:
    task = blobs()
    trials = [Trial("blobs", "fiedler", (("fiedler", 0.01 * seed),), seed, None, 4) for seed in range(11)]
    together = dict(found for part in run_trials(task, trials) for found in part)
    [alone] = [found for part in run_trials(task, trials[4:5]) for found in part]
    assert list(together) == trials
    assert alone == (trials[4], together[trials[4]])


def test_regression_is_judged_by_its_error() -> None:
    task = blobs(classes=None)
    [[(_, measured)]] = run_trials(task, [Trial("blobs", "l1", (("l1", 1e-4),), 1, 0, 4)])
    assert measured["rmse"] == pytest.approx(measured["loss"] ** 0.5, rel=1e-5)
    assert "accuracy" not in measured
    # Structure is for networks that are judged on the test examples.
    assert "fiedler" not in measured


@pytest.mark.parametrize("classes", [3, None])
def test_a_network_that_diverges_is_recorded_as_such(classes: int | None, tmp_path: Path) -> None:
    task = blobs(classes)
    diverging = [Trial("blobs", "l2", (("l2", 1e6),), seed, None, 4) for seed in range(2)]
    found = [measured for part in run_trials(task, diverging) for _, measured in part]
    assert all(math.isnan(measured["loss"]) for measured in found)
    assert [measured["fiedler"]["status"] for measured in found] == ["not finite"] * 2
    store = TrialStore(tmp_path / "trials.jsonl")
    store.add(task, list(zip(diverging, found, strict=True)))
    assert store.get(task, diverging[0])["loss"] is None  # pyright: ignore[reportOptionalSubscript]


def test_dropout_acts_and_belongs_to_the_seed() -> None:
    task = blobs()
    trials = [Trial("blobs", "dropout", (("dropout", rate),), 1, None, 4) for rate in (0.1, 0.5)]
    first, again = ([measured["loss"] for part in run_trials(task, trials) for _, measured in part] for _ in range(2))
    assert first == again
    [[(_, plain)]] = run_trials(task, [Trial("blobs", "none", (), 1, None, 4)])
    assert len({*first, plain["loss"]}) == 3
    # The masks are not those of another seed's, either.
    split = draw_split(task, 1, None, 4)
    keys = [jax.random.key_data(trial._lane(task, trials[0]._replace(seed=seed), split).key) for seed in (1, 2)]
    assert (keys[0] != keys[1]).any()


def test_adaptive_refreshes_run_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    lanes = []
    train = trial._train
    monkeypatch.setattr(trial, "_train", lambda p, members, x: lanes.append(len(members.order)) or train(p, members, x))
    trials = [Trial("blobs", "fiedler@auto", (("fiedler", 0.01),), seed, None, 4) for seed in range(2)]
    found = [measured for part in run_trials(blobs(), trials) for _, measured in part]
    assert lanes == [1, 1]
    assert all(1 < one["penalties"][0]["refreshes"] <= RECIPE.steps for one in found)


def test_shrunk_kernels_are_exactly_zero() -> None:
    params = {"Dense_0": {"kernel": jnp.array([[0.3, -0.05, 1e-3]]), "bias": jnp.array([0.01, 0.0, 0.0])}}
    updates = jax.tree.map(lambda w: jnp.full_like(w, 0.01), params)
    shrunk, _ = shrink_kernels(0.1).update(updates, optax.EmptyState(), params)
    after: Any = optax.apply_updates(params, shrunk)
    np.testing.assert_allclose(after["Dense_0"]["kernel"], [[0.21, 0, 0]], atol=1e-7)
    assert (np.asarray(after["Dense_0"]["kernel"])[0, 1:] == 0).all()
    np.testing.assert_allclose(after["Dense_0"]["bias"], [0.02, 0.01, 0.01])


def test_the_uniform_counterpart_pulls_as_hard_on_average() -> None:
    params = initial_params((5, 6, 3), 0)
    updates: Any
    plain: Any
    zeros = jax.tree.map(jnp.zeros_like, params)
    penalty = fj.add_fiedler_penalty(0.1)
    updates, _ = penalty.update(zeros, penalty.init(params), params)
    uniform = add_uniform_counterpart(0.1, normalized=True)
    plain, _ = uniform.update(zeros, uniform.init(params), params)

    def pulls(tree: Any) -> np.ndarray:
        return np.concatenate([np.abs(layer["kernel"]).ravel() for layer in tree.values()])

    assert pulls(updates).mean() == pytest.approx(pulls(plain).mean(), rel=1e-5)
    assert np.ptp(pulls(plain)) < 1e-7 < np.ptp(pulls(updates))
    assert not np.any(plain["Dense_0"]["bias"])
    np.testing.assert_array_equal(np.sign(plain["Dense_0"]["kernel"]), np.sign(params["Dense_0"]["kernel"]))


@pytest.mark.parametrize("steps", [40, 203])
def test_pruning_leaves_the_largest_and_lets_them_learn(steps: int) -> None:
    params: Any = initial_params((5, 6, 3), 0)
    tx = optax.chain(optax.sgd(1.0), prune_gradually(0.75, steps))
    state, before, shares = tx.init(params), params, []
    for _ in range(steps):
        # Gradients that would bring everything back.
        gradient = jax.tree.map(lambda w: -0.01 * jnp.ones_like(w), params)
        updates, state = jax.jit(tx.update)(gradient, state, params)
        params = optax.apply_updates(params, updates)
        shares.append(np.mean([float((w == 0).mean()) for w in (params["Dense_0"]["kernel"],)]))
    kernels = np.concatenate([layer["kernel"].ravel() for layer in params.values()])
    assert (kernels == 0).sum() == round(0.75 * kernels.size)
    assert shares[: steps // 4 - 1] == [0] * (steps // 4 - 1)
    assert len({share for share in shares if share > 0}) >= (1 if steps == 40 else 3)
    assert np.all(np.diff(shares) >= 0)
    # What is left has learnt at every step, and biases are not pruned.
    left = np.asarray(params["Dense_0"]["kernel"]) != 0
    moved = np.asarray(params["Dense_0"]["kernel"] - before["Dense_0"]["kernel"])[left]
    np.testing.assert_allclose(moved, 0.01 * steps, rtol=1e-4)
    np.testing.assert_allclose(params["Dense_0"]["bias"] - before["Dense_0"]["bias"], 0.01 * steps, rtol=1e-4)


class Ended(NamedTuple):
    """How a run from the command line ended."""

    status: int
    folder: Path
    shown: str
    errors: str


def run(folder: Path, *options: str, main: Callable[[list[str]], int] = tune.main) -> Ended:
    shown, errors = io.StringIO(), io.StringIO()
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(shown), contextlib.redirect_stderr(errors):
        patch.setattr(problems, "_DIGITS", Recipe(hidden=(8,), steps=20, batch_size=16, learning_rate=0.1))
        status = main([*options, "--out", str(folder)])
    return Ended(status, folder, shown.getvalue(), errors.getvalue())


def lines(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "trials.jsonl").read_text(encoding="utf-8").splitlines()]


@pytest.fixture(scope="module")
def ended(tmp_path_factory: pytest.TempPathFactory) -> Ended:
    """One small study."""
    return run(tmp_path_factory.mktemp("tune") / "results", *SMALL)


def test_a_study_end_to_end(ended: Ended) -> None:
    assert ended.status == 0
    records = lines(ended.folder)
    # One draw and two folds for one and twice two strengths, then two seeds for three methods.
    assert len(records) == 2 * (1 + 2 + 2) + 3 * 2
    assert len({record["key"] for record in records}) == len(records)
    for record in records:
        assert set(record) == {"schema", "key", "trial", "recipe", "versions", "measured"}
        assert record["schema"] == 1
        assert set(record["trial"]) == {"task", "method", "strengths", "seed", "fold", "folds"}
        measured = record["measured"]
        assert {"loss", "accuracy", "ece", "train_loss", "shifts", "penalties", "zero_share"} <= set(measured)
        assert 0 <= measured["accuracy"] <= 1
        assert len(measured["penalties"]) == (record["trial"]["method"] == "fiedler")
        assert ("fiedler" in measured) == (record["trial"]["fold"] is None)
    report = (ended.folder / "report.md").read_text(encoding="utf-8")
    assert "| task | l2 | fiedler |" in report
    assert report.count("| digits-100 | fiedler |") == 1
    assert "**Task digits-100**" in report
    assert "100 training examples, 899 to test; network 64-8-10, 20 steps of 16 examples" in report
    for name in ("differences.png", "strengths-digits-100.png"):
        assert (ended.folder / name).read_bytes().startswith(b"\x89PNG")
        assert name in ended.shown


def test_the_report_holds_what_the_trials_say(ended: Ended) -> None:
    final = {
        method: [
            record["measured"]["accuracy"]
            for record in lines(ended.folder)
            if record["trial"]["method"] == method and record["trial"]["fold"] is None
        ]
        for method in ("none", "l2")
    }
    report = (ended.folder / "report.md").read_text(encoding="utf-8")
    [row] = [line for line in report.splitlines() if line.startswith("| l2 |")]
    assert f"{100 * np.mean(final['l2']):.2f} ± {100 * np.std(final['l2'], ddof=1):.2f}" in row
    difference = 100 * np.mean(np.subtract(final["l2"], final["none"]))
    assert f"| digits-100 | {difference:+z.2f} [" in report


def test_same_command_same_numbers_and_nothing_run_twice(
    ended: Ended, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert run(tmp_path, *SMALL).status == 0
    assert lines(tmp_path) == lines(ended.folder)
    monkeypatch.setattr(trial, "_run", lambda *_: pytest.fail("a finished trial ran again"))
    again = run(tmp_path, *SMALL)
    assert again.status == 0
    assert (tmp_path / "report.md").read_text() == (ended.folder / "report.md").read_text()


def test_an_interrupted_study_goes_on_where_it_was(
    ended: Ended, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, calls = trial._run, []

    def interrupted(*arguments):
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return real(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(trial, "_run", interrupted)
        stopped = run(tmp_path, *SMALL)
    assert (stopped.status, stopped.errors) == (130, "interrupted\n")
    kept = lines(tmp_path)
    assert 0 < len(kept) < len(lines(ended.folder))
    assert run(tmp_path, *SMALL).status == 0
    assert lines(tmp_path)[: len(kept)] == kept
    assert (tmp_path / "report.md").read_text() == (ended.folder / "report.md").read_text()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--tasks", "moons"), "unknown task 'moons'"),
        ((*OPTIONS, "--seeds", "1"), "--seeds must be at least 2"),
        (("--tasks", "mnist-500"), "mnist needs --data-dir"),
        (("--tasks", "digits-100", "--methods", "none,l4"), "unknown method 'l4'"),
    ],
)
def test_mistakes_end_with_a_message(tmp_path: Path, options: tuple[str, ...], message: str) -> None:
    found = run(tmp_path, *options)
    assert found.status == 2
    assert message in found.errors


def test_an_output_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    found = run(tmp_path / "file" / "results", *SMALL)
    assert found.status == 2
    assert "cannot write to the output folder" in found.errors


def test_sparsity_end_to_end(tmp_path: Path) -> None:
    methods = "none,l1-shrinkage,fiedler-combinatorial-shrinkage,pruning"
    options = ("--task", "digits-100", "--methods", methods, "--budget", "3", "--seeds", "2")
    ended = run(tmp_path, *options, main=sparsity.main)
    assert ended.status == 0
    records = lines(tmp_path)
    assert len(records) == 2 * (1 + 3 * 3)
    report = (tmp_path / "report.md").read_text(encoding="utf-8")
    for share in (0.499, 0.95, 0.995):
        found = [r["measured"] for r in records if r["trial"]["strengths"] == [["pruning", share]]]
        zeros = [one["zero_share"] for one in found]
        np.testing.assert_allclose(zeros, share, atol=1 / (64 * 8 + 80))
        accuracy = 100 * np.array([one["accuracy"] for one in found])
        assert f"| {share:g} | {100 * np.mean(zeros):.2f} ± 0.00 | {accuracy.mean():.2f} ±" in report
    assert (tmp_path / "sparsity.png").read_bytes().startswith(b"\x89PNG")
    # A strong enough shrinkage leaves nothing; no method leaves all its zeros to the others.
    strongest = [r["measured"] for r in records if r["trial"]["strengths"] == [["l1-shrinkage", 1.0]]]
    assert all(one["zero_share"] > 0.9 for one in strongest)
    assert run(tmp_path, *options, main=sparsity.main).status == 0
    assert lines(tmp_path) == records


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--methods", "none,fiedler+l2"), "methods with one strength, not 'fiedler\\+l2'"),
        (("--seeds", "1"), "--seeds must be at least 2"),
        (("--methods", "l3"), "unknown method 'l3'"),
    ],
)
def test_mistakes_in_sparsity_end_with_a_message(tmp_path: Path, options: tuple[str, ...], message: str) -> None:
    ended = run(tmp_path, "--task", "digits-100", *options, main=sparsity.main)
    assert ended.status == 2
    assert re.search(message, ended.errors)
