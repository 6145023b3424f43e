"""A long training: schedules, a checkpoint on the way, a gradient that is not a number; nothing drifts or breaks."""

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import orbax.checkpoint as ocp
import pytest
import reference

import fiedler_jax as fj

SIZES = (20, 16, 8, 3)
EVERY = 50
EXAMPLES = 64


def data() -> tuple[jax.Array, jax.Array]:
    rng = np.random.default_rng(0)
    inputs = rng.standard_normal((EXAMPLES, SIZES[0])).astype(np.float32)
    return jnp.asarray(inputs), jnp.asarray(np.argmax(inputs[:, :3], axis=1))


def transformation(steps: int, normalized: bool) -> optax.GradientTransformation:
    strength = optax.piecewise_interpolate_schedule("linear", 1e-3, {steps // 3: 10.0, 2 * steps // 3: 0.0})
    rate = optax.cosine_decay_schedule(0.05, steps, alpha=0.1)
    penalty = fj.add_fiedler_penalty(strength, normalized=normalized, refresh_every=EVERY)
    return optax.apply_if_finite(optax.chain(penalty, optax.sgd(rate, momentum=0.9)), max_consecutive_errors=3)


def loss(params: Any, inputs: jax.Array, labels: jax.Array) -> jax.Array:
    x = inputs
    for layer in range(len(SIZES) - 1):
        x = (jax.nn.relu(x) if layer else x) @ params[f"Dense_{layer}"]["kernel"]
    return jnp.mean(optax.softmax_cross_entropy_with_integer_labels(x, labels))


def start() -> Any:
    return jax.tree.map(jnp.asarray, reference.chain_params(reference.random_kernels(SIZES, 1)))


def trainer(tx: optax.GradientTransformation, broken_at: int) -> Any:
    """A chunk of steps; its carry ends with the parameters that the last refresh looked at."""

    def step(carry: Any, count: jax.Array, inputs: jax.Array, labels: jax.Array) -> Any:
        params, state, looked_at = carry
        rows = (jnp.arange(16) + 16 * count) % EXAMPLES
        gradient = jax.grad(loss)(params, inputs[rows], labels[rows])
        gradient = jax.tree.map(lambda g: jnp.where(count == broken_at, jnp.nan, g), gradient)
        updates, after = tx.update(gradient, state, params)
        looked = fj.fiedler_metrics(after).refreshes > fj.fiedler_metrics(state).refreshes
        looked_at = jax.tree.map(lambda now, then: jnp.where(looked, now, then), params, looked_at)
        return optax.apply_updates(params, updates), after, looked_at

    @jax.jit
    def chunk(carry: Any, first: jax.Array, inputs: jax.Array, labels: jax.Array) -> Any:
        def body(carry: Any, i: jax.Array) -> Any:
            return step(carry, first + i, inputs, labels), None

        return jax.lax.scan(body, carry, jnp.arange(EVERY))[0]

    return chunk


def through_a_file(carry: Any, folder: Path) -> Any:
    with ocp.StandardCheckpointer() as checkpointer:
        checkpointer.save(folder / "halfway", carry)
        checkpointer.wait_until_finished()
        return checkpointer.restore(folder / "halfway", carry)


def assert_same(one: Any, other: Any) -> None:
    for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
        np.testing.assert_array_equal(a, b)


def soak(steps: int, normalized: bool, folder: Path) -> None:
    half = steps // 2
    tx = transformation(steps, normalized)
    # Two steps into a chunk, so that every later refresh comes one step after a chunk's first.
    chunk = trainer(tx, broken_at=half + EVERY + 2)
    inputs, labels = data()
    carry: Any = start(), tx.init(start()), start()
    for first in range(0, steps, EVERY):
        at = jnp.asarray(first), inputs, labels
        if first == half:
            restored = through_a_file(carry, folder)
            assert_same(chunk(restored, *at), chunk(carry, *at))
            carry = restored
        carry = chunk(carry, *at)
        assert all(bool(jnp.all(jnp.isfinite(leaf))) for leaf in jax.tree.leaves(carry)), first
        kernels = [np.asarray(layer["kernel"], np.float64) for layer in carry[2].values()]
        expected = reference.spectrum(reference.chain_adjacency(kernels), normalized)[1]
        assert float(fj.fiedler_metrics(carry[1]).value) == pytest.approx(expected, rel=0.01), first
    params, state, _ = carry
    metrics = fj.fiedler_metrics(state)
    assert int(state.total_notfinite) == 1
    assert (int(metrics.count), int(metrics.refreshes), int(metrics.skipped)) == (steps - 1, steps // EVERY, 0)
    assert float(metrics.l1_coefficient) == 0
    assert float(loss(params, inputs, labels)) < 0.5 * float(loss(start(), inputs, labels))


@pytest.mark.parametrize(
    ("steps", "normalized"), [(4_000, True), *(pytest.param(20_000, n, marks=pytest.mark.slow) for n in (True, False))]
)
def test_a_long_training_with_all_that_may_happen(steps: int, normalized: bool, tmp_path: Path) -> None:
    soak(steps, normalized, tmp_path)
