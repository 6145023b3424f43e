"""The Optax transformation in chains, models and maps."""

# Optax types states and updates as any tree of anything, so nothing can be read from them without these.
# pyright: reportIndexIssue=false, reportAttributeAccessIssue=false, reportArgumentType=false
# pyright: reportCallIssue=false, reportOperatorIssue=false

import itertools
import warnings
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from flax.training.train_state import TrainState
from stepping import DENSE, GRAPH, SHARED, SIZES, VERTICES, assert_trees_close, fiedler_value, network, stepper, zeros

import fiedler_jax as fj
from fiedler_jax import Status, errors

pytestmark = pytest.mark.crossed


def test_a_second_step_does_not_compile_again() -> None:
    params = network()
    update = jax.jit(SHARED.update)
    _, state = update(zeros(params), SHARED.init(params), params)
    _, state = update(zeros(params), state, params)
    update(zeros(params), state, params)
    assert update._cache_size() == 1  # pyright: ignore[reportFunctionMemberAccess]


@pytest.mark.parametrize("injected", [False, True])
@pytest.mark.parametrize("refresh_every", [1, 3, "auto"])
def test_nor_does_one_outside_jit(refresh_every: Any, injected: bool) -> None:
    tx: Any = fj.add_fiedler_penalty(0.1, GRAPH, refresh_every=refresh_every, solver=DENSE)
    if injected:
        make = optax.inject_hyperparams(fj.add_fiedler_penalty, static_args=("refresh_every",))
        tx = make(0.1, GRAPH, refresh_every=refresh_every, solver=DENSE)
    params = network()
    _, state = tx.update(zeros(params), tx.init(params), params)
    _, state = tx.update(zeros(params), state, params)
    compiled: list[str] = []

    def record(event: str, seconds: float, **_: Any) -> None:
        if event.endswith("backend_compile_duration"):
            compiled.append(event)

    jax.monitoring.register_event_duration_secs_listener(record)
    try:
        for _ in range(4):
            _, state = tx.update(zeros(params), state, params)
        assert not compiled
        jax.jit(lambda x: x + len(compiled))(1.0)
        assert compiled
    finally:
        jax.monitoring.unregister_event_duration_listener(record)


def test_the_state_can_be_donated_from_the_start() -> None:
    params = network()
    update = jax.jit(SHARED.update, donate_argnums=(0, 1))
    state = SHARED.init(params)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        _, after = update(zeros(params), state, params)
    # An array given away twice is an error by itself; one that no update reads is not given away at all.
    assert state.vectors.is_deleted()
    assert state.count.is_deleted()
    assert not any(leaf.is_deleted() for leaf in jax.tree.leaves((after, params)))


def test_init_is_abstract() -> None:
    params = network()
    shapes = jax.eval_shape(SHARED.init, params)
    assert [(x.shape, x.dtype) for x in jax.tree.leaves(shapes)] == [
        (x.shape, x.dtype) for x in jax.tree.leaves(SHARED.init(params))
    ]
    read = fj.add_fiedler_penalty(0.1)
    assert jax.eval_shape(read.init, jax.eval_shape(lambda: params)).vectors.shape == (1, VERTICES)


@pytest.mark.parametrize("graph", [None, GRAPH])
def test_map_params_leaves_the_state_alone(graph: Any) -> None:
    params = network()
    tx = optax.chain(fj.add_fiedler_penalty(0.1, graph, solver=DENSE), optax.sgd(0.1, momentum=0.9))
    state = tx.init(params)
    mapped = optax.tree.map_params(tx, lambda _: "weight", state, transform_non_params=lambda _: "other")
    assert set(jax.tree.leaves(mapped[0])) == {"other"}
    assert set(jax.tree.leaves(mapped[1])) == {"weight"}
    assert jax.tree.structure(mapped) == jax.tree.structure(state)


@pytest.mark.parametrize("static_args", [(), "graph"])
def test_inject_hyperparams_leaves_the_graph_alone(static_args: Any) -> None:
    params = network()
    tx = optax.inject_hyperparams(fj.add_fiedler_penalty, static_args)(0.1, GRAPH, solver=DENSE)
    state = tx.init(params)
    assert set(state.hyperparams) == {"strength", "refresh_every"}
    updates, _ = jax.jit(tx.update)(zeros(params), state, params)
    assert_trees_close(updates, stepper(SHARED)(zeros(params), SHARED.init(params), params)[0], atol=1e-6)


def test_strength_from_inject_hyperparams_is_live() -> None:
    params = network()
    tx = optax.inject_hyperparams(fj.add_fiedler_penalty)(strength=0.1, graph=GRAPH, solver=DENSE)
    update = stepper(tx)
    state = tx.init(params)
    once, state = update(zeros(params), state, params)
    # The state has no field of a hyperparameter's name, which `optax.tree.get` would find too.
    assert optax.tree.get(state, "strength") == jnp.float32(0.1)
    state = optax.tree.set(state, strength=jnp.float32(0.3))
    thrice, state = update(zeros(params), state, params)
    assert_trees_close(thrice, jax.tree.map(lambda u: 3 * u, once), rtol=1e-5, atol=1e-7)
    assert fj.fiedler_metrics(state).count == 2
    np.testing.assert_allclose(state.inner_state.last_strength, 0.3)
    # Every number becomes a traced array there, the interval between refreshes too.
    state.hyperparams["refresh_every"] = jnp.asarray(2)
    _, state = update(zeros(params), state, network(seed=5))
    np.testing.assert_allclose(fj.fiedler_metrics(state).value, fiedler_value(GRAPH, network(seed=5)), rtol=1e-5)


@pytest.mark.parametrize("injected", [False, True])
def test_strength_may_follow_a_schedule(injected: bool) -> None:
    params = network()
    schedule = optax.linear_schedule(0.0, 0.4, 4)
    make = optax.inject_hyperparams(fj.add_fiedler_penalty) if injected else fj.add_fiedler_penalty
    tx = make(strength=schedule, graph=GRAPH, solver=DENSE)
    state = tx.init(params)
    sizes = []
    for _ in range(5):
        updates, state = stepper(tx)(zeros(params), state, params)
        sizes.append(float(optax.tree.norm(updates)))
    np.testing.assert_allclose(np.array(sizes) / sizes[4], [0, 0.25, 0.5, 0.75, 1], atol=1e-5)


def test_a_mask_over_all_edges_changes_nothing() -> None:
    params = network()
    mask = jax.tree_util.tree_map_with_path(lambda path, _: path[-1].key == "kernel", params)
    expected, _ = stepper(SHARED)(zeros(params), SHARED.init(params), params)
    for inner in (SHARED, fj.add_fiedler_penalty(0.1, solver=DENSE)):
        tx = optax.masked(inner, mask)
        updates, _ = stepper(tx)(zeros(params), tx.init(params), params)
        assert_trees_close(updates, expected, atol=1e-7)


@pytest.mark.parametrize("graph", [None, GRAPH])
def test_a_mask_that_hides_an_edge_is_an_error(graph: Any) -> None:
    params = network()
    mask = jax.tree.map(lambda _: True, params)
    mask["Dense_1"]["kernel"] = False
    tx = optax.masked(fj.add_fiedler_penalty(0.1, graph), mask)
    with pytest.raises(errors.MaskedKernelError, match="hides Dense_1/kernel"):
        tx.init(params)
    whole_layer = {"Dense_0": True, "Dense_1": False, "Dense_2": True}
    with pytest.raises(errors.MaskedKernelError, match="hides Dense_1"):
        optax.masked(fj.add_fiedler_penalty(0.1, graph), whole_layer).init(params)


def test_partition_regularizes_its_part() -> None:
    params = {"net": network(), "head": {"kernel": jnp.ones((4, 2)), "bias": jnp.zeros(2)}}
    graph = fj.graph_from_edges(params, [(f"net/Dense_{i}/kernel", f"h{i}", f"h{i + 1}") for i in range(3)])
    labels = {"net": "regularized", "head": "plain"}
    tx = optax.partition(
        {"regularized": fj.add_fiedler_penalty(0.1, graph, solver=DENSE), "plain": optax.identity()}, labels
    )
    updates, state = stepper(tx)(zeros(params), tx.init(params), params)
    expected, _ = stepper(SHARED)(zeros(network()), SHARED.init(network()), network())
    assert_trees_close(updates["net"], expected, atol=1e-7)
    assert all(jnp.all(leaf == 0) for leaf in jax.tree.leaves(updates["head"]))
    assert fj.fiedler_metrics(state).count == 1
    with pytest.raises(errors.MaskedKernelError, match="hides head"):
        optax.partition({"regularized": fj.add_fiedler_penalty(0.1), "plain": optax.identity()}, labels).init(params)


def test_multi_steps_counts_real_steps() -> None:
    params = network()
    tx = optax.MultiSteps(optax.chain(SHARED, optax.sgd(1.0)), every_k_schedule=3)
    state = tx.init(params)
    update = jax.jit(tx.update)
    given = jax.tree.map(jnp.ones_like, params)
    updates = given
    for step in range(1, 7):
        updates, state = update(given, state, params)
        assert fj.fiedler_metrics(state).count == step // 3
        assert bool(jnp.any(updates["Dense_0"]["kernel"] != 0)) == (step % 3 == 0)
    expected, _ = SHARED.update(given, SHARED.init(params), params)
    assert_trees_close(updates, jax.tree.map(jnp.negative, expected), atol=1e-6)


class Mlp(nn.Module):
    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        for width in SIZES[1:-1]:
            x = nn.relu(nn.Dense(width)(x))
        return nn.Dense(SIZES[-1])(x)


def test_a_linen_train_state_trains() -> None:
    model, x = Mlp(), jnp.linspace(-1, 1, 5 * SIZES[0]).reshape(5, SIZES[0])
    params = model.init(jax.random.key(0), x)["params"]
    tx = optax.chain(fj.add_fiedler_penalty(1.0), optax.adam(1e-2))
    state = TrainState.create(apply_fn=model.apply, params=params, tx=tx)

    @jax.jit
    def step(state: TrainState) -> TrainState:
        gradient = jax.grad(lambda p: jnp.mean(model.apply({"params": p}, x) ** 2))(state.params)
        return state.apply_gradients(grads=gradient)

    before = fiedler_value(GRAPH, params)
    for _ in range(30):
        state = step(state)
    metrics = fj.fiedler_metrics(state.opt_state)
    assert metrics.count == 30
    assert fiedler_value(GRAPH, state.params, ignore_isolated=True) < 0.9 * before


def test_an_nnx_optimizer_trains() -> None:
    class NnxMlp(nnx.Module):
        def __init__(self, rngs: nnx.Rngs):
            self.layers = nnx.List([nnx.Linear(a, b, rngs=rngs) for a, b in itertools.pairwise(SIZES)])

        def __call__(self, x: jax.Array) -> jax.Array:
            for layer in self.layers:
                x = nnx.relu(layer(x))
            return x

    model, x = NnxMlp(nnx.Rngs(0)), jnp.linspace(-1, 1, 5 * SIZES[0]).reshape(5, SIZES[0])
    graph = fj.graph_from_params(nnx.state(model, nnx.Param))
    for tx in (fj.add_fiedler_penalty(1.0, solver=DENSE), fj.add_fiedler_penalty(1.0, graph, solver=DENSE)):
        optimizer = nnx.Optimizer(model, optax.chain(tx, optax.adam(1e-2)), wrt=nnx.Param)

        @nnx.jit
        def step(model: Any, optimizer: nnx.Optimizer) -> None:
            optimizer.update(model, nnx.grad(lambda m: jnp.mean(m(x) ** 2))(model))

        before = fiedler_value(graph, nnx.state(model, nnx.Param))
        for _ in range(10):
            step(model, optimizer)
        metrics = fj.fiedler_metrics(optimizer.opt_state)
        assert all(isinstance(field, jax.Array) for field in metrics)
        assert metrics.count == 10
        assert metrics.status == Status.CONVERGED
        assert fiedler_value(graph, nnx.state(model, nnx.Param), ignore_isolated=True) < before


def test_vmap_over_members_gives_each_its_own() -> None:
    members = [network(seed=s) for s in range(3)]
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *members)
    tx = fj.add_fiedler_penalty(0.1, GRAPH)
    state = jax.vmap(tx.init)(stacked)
    updates, state = jax.jit(jax.vmap(tx.update))(zeros(stacked), state, stacked)
    for i, params in enumerate(members):
        expected, _ = stepper(SHARED)(zeros(params), SHARED.init(params), params)
        assert_trees_close(jax.tree.map(lambda u, i=i: u[i], updates), expected, atol=2e-3)


def test_vmap_with_an_unmapped_count_keeps_the_choice_to_refresh() -> None:
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *[network(seed=s) for s in range(2)])
    axes = fj.FiedlerPenaltyState(None, *[0] * (len(fj.FiedlerPenaltyState._fields) - 1))
    state = jax.vmap(SHARED.init, out_axes=axes)(stacked)
    for given, branches in ((0, False), (axes, True)):
        one = state if branches else state._replace(count=jnp.zeros(2, jnp.int32))
        update = jax.vmap(SHARED.update, in_axes=(0, given, 0), out_axes=(0, given))
        text = str(jax.make_jaxpr(update)(zeros(stacked), one, stacked))
        assert (" cond[" in text) == branches
