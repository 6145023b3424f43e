"""The proximal transformation in chains, models and maps."""

# Optax types states and updates as any tree of anything, so nothing can be read from them without these.
# pyright: reportIndexIssue=false, reportAttributeAccessIssue=false, reportArgumentType=false
# pyright: reportCallIssue=false, reportOperatorIssue=false

import functools
import warnings
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from flax.training.train_state import TrainState
from networks import Mlp, NnxMlp
from shrinking import SHARED, coefficients_by_hand, kernels_of, random_like, shrinkage, zero_count
from stepping import GRAPH, SIZES, VERTICES, assert_trees_close, network, stepper, zeros

import fiedler_jax as fj
from fiedler_jax import Status, errors


def test_hyperparameters_from_inject_hyperparams_are_live() -> None:
    params = network()
    tx = optax.inject_hyperparams(shrinkage)(strength=0.1, learning_rate=0.01, graph=GRAPH, normalized=False)
    update, state = stepper(tx), tx.init(params)
    given = random_like(params, 1e-3)
    first, state = update(given, state, params)
    lone = shrinkage(0.1, 0.01, GRAPH, normalized=False)
    assert_trees_close(first, stepper(lone)(given, lone.init(params), params)[0], atol=1e-7)
    state.hyperparams["learning_rate"] = jnp.float32(0.02)
    second, state = update(given, state, params)
    state.hyperparams["learning_rate"], state.hyperparams["strength"] = jnp.float32(0.01), jnp.float32(0.2)
    third, state = update(given, state, params)
    assert_trees_close(second, third, rtol=1e-6)
    assert optax.tree.norm(optax.tree.sub(first, second)) > 1e-3
    for bad in (jnp.nan, jnp.inf, -0.01):
        state.hyperparams["learning_rate"] = jnp.float32(bad)
        same, state = update(given, state, params)
        assert_trees_close(same, given, rtol=0)
    assert fj.fiedler_metrics(state).skipped == 3
    assert fj.fiedler_metrics(state).count == 6


def test_a_step_without_a_strength_or_a_vector_passes_unchanged() -> None:
    params = network()
    given = random_like(params, 1e-2)
    tx = shrinkage(lambda count: jnp.where(count == 1, jnp.nan, 1.0), 1.0, GRAPH, refresh_every=1)
    changed, state = stepper(tx)(given, tx.init(params), params)
    assert jnp.any(changed["Dense_0"]["kernel"] != given["Dense_0"]["kernel"])
    same, state = stepper(tx)(given, state, params)
    assert_trees_close(same, given, rtol=0)
    assert state.skipped == 1
    broken = network()
    broken["Dense_1"]["kernel"] = broken["Dense_1"]["kernel"].at[0, 0].set(jnp.nan)
    same, state = stepper(tx)(given, tx.init(params), broken)
    assert_trees_close(same, given, rtol=0)
    assert (state.status, state.skipped) == (Status.NOT_FINITE, 1)


@pytest.mark.parametrize("graph", [None, GRAPH])
def test_a_mask_over_all_edges_changes_nothing(graph: Any) -> None:
    params = network()
    mask = jax.tree_util.tree_map_with_path(lambda path, _: path[-1].key == "kernel", params)
    tx = optax.masked(shrinkage(0.1, 0.1, graph), mask)
    given = random_like(params, 0.01)
    after, _ = tx.update(given, tx.init(params), params)
    assert_trees_close(after, SHARED.update(given, SHARED.init(params), params)[0], atol=1e-7)
    mask["Dense_1"]["kernel"] = False
    with pytest.raises(errors.MaskedKernelError, match="hides Dense_1/kernel"):
        optax.masked(shrinkage(0.1, 0.1, graph), mask).init(params)


def test_map_params_leaves_the_state_alone() -> None:
    params = network()
    tx = optax.chain(optax.sgd(0.1, momentum=0.9), shrinkage(0.1, 0.1))
    state = tx.init(params)
    mapped = optax.tree.map_params(tx, lambda _: "weight", state, transform_non_params=lambda _: "other")
    assert set(jax.tree.leaves(mapped[0])) == {"weight"}
    assert set(jax.tree.leaves(mapped[1])) == {"other"}


def test_multi_steps_shrinks_at_real_steps() -> None:
    params = network()
    tx = optax.MultiSteps(optax.chain(optax.sgd(1.0), SHARED), every_k_schedule=3)
    state, update = tx.init(params), jax.jit(tx.update)
    given = random_like(params, 0.1)
    updates = given
    for step in range(1, 7):
        updates, state = update(given, state, params)
        assert fj.fiedler_metrics(state).count == step // 3
        assert bool(jnp.any(updates["Dense_0"]["kernel"] != 0)) == (step % 3 == 0)
    expected, _ = stepper(SHARED)(optax.tree.scale(-1, given), SHARED.init(params), params)
    assert_trees_close(updates, expected, atol=1e-6)


X = jnp.linspace(-1, 1, 5 * SIZES[0]).reshape(5, SIZES[0])


def test_a_linen_train_state_trains_to_exact_zeros() -> None:
    model = Mlp(SIZES[1:])
    params = model.init(jax.random.key(0), X)["params"]
    tx = optax.chain(optax.adam(1e-2), fj.fiedler_shrinkage(1.0, 1e-2, refresh_every="auto"))
    state = TrainState.create(apply_fn=model.apply, params=params, tx=tx)

    @functools.partial(jax.jit, donate_argnums=0)
    def step(state: TrainState) -> TrainState:
        gradient = jax.grad(lambda p: jnp.mean((model.apply({"params": p}, X) - 1) ** 2))(state.params)
        return state.apply_gradients(grads=gradient)

    for _ in range(40):
        state = step(state)
    metrics = fj.fiedler_metrics(state.opt_state)
    assert metrics.count == 40
    assert metrics.status == Status.CONVERGED
    assert zero_count(state.params) > 10


@pytest.mark.parametrize("read", [True, False])
def test_an_nnx_optimizer_trains_to_exact_zeros(read: bool) -> None:
    model = NnxMlp(SIZES)
    graph = fj.graph_from_params(nnx.state(model, nnx.Param))
    tx = optax.chain(optax.sgd(2e-2), shrinkage(1.0, 2e-2, None if read else graph, refresh_every=10))
    optimizer = nnx.Optimizer(model, tx, wrt=nnx.Param)

    @nnx.jit
    def step(model: Any, optimizer: nnx.Optimizer) -> None:
        optimizer.update(model, nnx.grad(lambda m: jnp.mean((m(X) - 1) ** 2))(model))

    for _ in range(20):
        step(model, optimizer)
    assert fj.fiedler_metrics(optimizer.opt_state).count == 20
    assert sum(int(jnp.sum(layer.kernel[...] == 0)) for layer in model.layers) > 10


def test_vmap_over_members_gives_each_its_own() -> None:
    members = [network(seed=s) for s in range(3)]
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *members)
    rates = jnp.array([0.1, 0.2, 0.4])

    def one(params: Any, rate: jax.Array) -> Any:
        tx = shrinkage(0.5, rate, GRAPH)
        return tx.update(zeros(params), tx.init(params), params)[0]

    updates = jax.jit(jax.vmap(one))(stacked, rates)
    alone = jax.jit(one)
    for i, params in enumerate(members):
        expected = alone(params, rates[i])
        assert_trees_close(jax.tree.map(lambda u, i=i: u[i], updates), expected, atol=1e-5)
        assert zero_count(optax.apply_updates(params, expected)) > 5


def test_a_second_step_does_not_compile_again_and_the_state_can_be_donated() -> None:
    params = network()
    update = jax.jit(SHARED.update, donate_argnums=(0, 1))
    state = SHARED.init(params)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for _ in range(3):
            old, (_, state) = state, update(zeros(params), state, params)
            assert old.vectors.is_deleted()
    assert update._cache_size() == 1  # pyright: ignore[reportFunctionMemberAccess]
    shapes = jax.eval_shape(SHARED.init, params)
    assert [(x.shape, x.dtype) for x in jax.tree.leaves(shapes)] == [(x.shape, x.dtype) for x in jax.tree.leaves(state)]


def test_metrics_read_its_state() -> None:
    params = network()
    tx = optax.chain(optax.sgd(0.1), shrinkage(-0.2, 0.1, GRAPH))
    _, state = stepper(tx)(zeros(params), tx.init(params), params)
    metrics = fj.fiedler_metrics(state)
    coefficients = coefficients_by_hand(kernels_of(params), True, 1)
    mean = np.mean(np.abs(np.concatenate([c.ravel() for c in coefficients])))
    np.testing.assert_allclose(metrics.l1_coefficient, 0.2 * VERTICES * mean, rtol=1e-3)
    both = optax.chain(fj.add_fiedler_penalty(0.1, GRAPH), SHARED).init(params)
    with pytest.raises(errors.StateNotFoundError, match="holds 2 states of add_fiedler_penalty or fiedler_shrinkage"):
        fj.fiedler_metrics(both)
