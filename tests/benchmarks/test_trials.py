"""Trials of the tuned comparison against plain training loops, and the regularizers made for it."""

import functools
import math
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from blobs import blobs

import fiedler_jax as fj
from benchmarks._optimizers import add_uniform_counterpart, prune_gradually, shrink_kernels
from benchmarks._study import trial
from benchmarks._study.store import TrialStore
from benchmarks._study.task import Recipe, batch_rows, draw_split
from benchmarks._study.trial import Trial, run_trials
from benchmarks._training import initial_params

pytestmark = pytest.mark.usefixtures("dense_solver")
RECIPE = Recipe(hidden=(6,), steps=9, batch_size=4, learning_rate=0.1, refresh_every=4)


def forward(params: Any, inputs: jax.Array) -> jax.Array:
    hidden = jnp.maximum(inputs @ params["Dense_0"]["kernel"] + params["Dense_0"]["bias"], 0)
    return hidden @ params["Dense_1"]["kernel"] + params["Dense_1"]["bias"]


def plain_step(optimizer: Any, params: Any, state: Any, inputs: jax.Array, labels: jax.Array) -> tuple[Any, Any]:
    def loss(params):
        return optax.softmax_cross_entropy_with_integer_labels(forward(params, inputs), labels).mean()

    updates, state = optimizer.update(jax.grad(loss)(params), state, params)
    return optax.apply_updates(params, updates), state


def test_a_trial_is_plain_training() -> None:
    task, seed = blobs(recipe=RECIPE), 3
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
    task = blobs(recipe=RECIPE)
    trials = [Trial("blobs", "fiedler", (("fiedler", 0.01 * seed),), seed, None, 4) for seed in range(11)]
    together = dict(found for part in run_trials(task, trials) for found in part)
    [alone] = [found for part in run_trials(task, trials[4:5]) for found in part]
    assert list(together) == trials
    assert alone == (trials[4], together[trials[4]])


def test_regression_is_judged_by_its_error() -> None:
    task = blobs(classes=None, recipe=RECIPE)
    [[(_, measured)]] = run_trials(task, [Trial("blobs", "l1", (("l1", 1e-4),), 1, 0, 4)])
    assert measured["rmse"] == pytest.approx(measured["loss"] ** 0.5, rel=1e-5)
    assert "accuracy" not in measured
    # Structure is for networks that are judged on the test examples.
    assert "fiedler" not in measured


@pytest.mark.parametrize("classes", [3, None])
def test_a_network_that_diverges_is_recorded_as_such(classes: int | None, tmp_path: Path) -> None:
    task = blobs(classes=classes, recipe=RECIPE)
    diverging = [Trial("blobs", "l2", (("l2", 1e6),), seed, None, 4) for seed in range(2)]
    found = [measured for part in run_trials(task, diverging) for _, measured in part]
    assert all(math.isnan(measured["loss"]) for measured in found)
    assert [measured["fiedler"]["status"] for measured in found] == ["not finite"] * 2
    store = TrialStore(tmp_path / "trials.jsonl")
    store.add(task, list(zip(diverging, found, strict=True)))
    assert store.get(task, diverging[0])["loss"] is None  # pyright: ignore[reportOptionalSubscript]


def test_dropout_acts_and_belongs_to_the_seed() -> None:
    task = blobs(recipe=RECIPE)
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
    found = [measured for part in run_trials(blobs(recipe=RECIPE), trials) for _, measured in part]
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
    updates, _ = jax.jit(penalty.update)(zeros, penalty.init(params), params)
    uniform = add_uniform_counterpart(0.1, normalized=True)
    plain, _ = jax.jit(uniform.update)(zeros, uniform.init(params), params)

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
