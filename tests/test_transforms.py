"""The Optax transformation: its gradient, its state, and what it refuses."""

# Optax types states and updates as any tree of anything, so nothing can be read from them without these.
# pyright: reportIndexIssue=false, reportAttributeAccessIssue=false, reportArgumentType=false
# pyright: reportCallIssue=false, reportOperatorIssue=false

import functools
import re
from typing import Any

import flax.serialization
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import reference
from flax import nnx
from jax.experimental import checkify
from spectra import BOTH
from stepping import DENSE, GRAPH, SHARED, SIZES, VERTICES, assert_trees_close, fiedler_value, network, stepper, zeros

import fiedler_jax as fj
from fiedler_jax import Status, errors

pytestmark = pytest.mark.crossed


@BOTH
def test_the_update_after_a_refresh_is_the_gradient(normalized: bool, dtype: str) -> None:
    params = network(dtype)
    scale, factor = ("vertices", VERTICES) if normalized else ("unit", 1)
    tx = fj.add_fiedler_penalty(0.3, normalized=normalized, scale=scale)
    given = jax.tree.map(lambda w: 0.5 * jnp.ones_like(w), params)
    updates, _ = jax.jit(tx.update)(given, tx.init(params), params)
    gradient = jax.grad(lambda p: fiedler_value(GRAPH, p, normalized=normalized))(params)
    expected = jax.tree.map(lambda u, g: u + 0.3 * factor * g, given, gradient)
    assert_trees_close(updates, expected, atol=2e-3 if dtype == "float32" else 1e-5)
    assert jnp.all(updates["Dense_0"]["bias"] == 0.5)


@BOTH
def test_between_refreshes_the_coefficients_stay_and_the_signs_follow(normalized: bool) -> None:
    params = network()
    tx = fj.add_fiedler_penalty(0.3, GRAPH, normalized=normalized, refresh_every=3, solver=DENSE)
    update = stepper(tx)
    first, state = update(zeros(params), tx.init(params), params)
    moved = jax.tree.map(lambda w: -1.7 * w, params)
    second, state = update(zeros(params), state, moved)
    assert_trees_close(second, jax.tree.map(jnp.negative, first), atol=1e-7)
    np.testing.assert_allclose(state.values[0], fiedler_value(GRAPH, params, normalized=normalized), rtol=1e-5)
    flat = jax.tree.map(lambda w: jnp.linspace(0.1, 1, w.size).reshape(w.shape), params)
    _, state = update(zeros(params), state, flat)
    stale = state.values[0]
    _, state = update(zeros(params), state, flat)
    assert state.values[0] != stale
    np.testing.assert_allclose(state.values[0], fiedler_value(GRAPH, flat, normalized=normalized), rtol=1e-5)


@BOTH
def test_refreshing_at_every_step_follows_the_value(normalized: bool) -> None:
    tx = fj.add_fiedler_penalty(0.3, GRAPH, normalized=normalized, refresh_every=1)
    params = network()
    state = tx.init(params)
    for seed in range(1, 4):
        params = network(seed=seed)
        _, state = stepper(tx)(zeros(params), state, params)
        adjacency = reference.chain_adjacency(reference.random_kernels(SIZES, seed))
        np.testing.assert_allclose(state.values[0], reference.spectrum(adjacency, normalized)[1], rtol=1e-5)


@BOTH
@pytest.mark.parametrize("sign", [1, -1])
def test_descent_lowers_the_value_and_a_negative_strength_raises_it(sign: int, normalized: bool) -> None:
    params = network()
    tx = optax.chain(
        fj.add_fiedler_penalty(sign * 0.05, GRAPH, normalized=normalized, refresh_every=5, solver=DENSE),
        optax.sgd(0.02),
    )
    state = tx.init(params)
    before = fiedler_value(GRAPH, params, normalized=normalized)
    for _ in range(30):
        updates, state = stepper(tx)(zeros(params), state, params)
        params = optax.apply_updates(params, updates)
    after = fiedler_value(GRAPH, params, normalized=normalized, ignore_isolated=True)
    assert sign * (before - after) > 0.02 * before


@pytest.mark.parametrize("kind", ["bfloat16", "float16", "float32", "float64"])
def test_updates_keep_the_dtype_of_the_parameters_and_states_theirs(kind: str) -> None:
    with jax.enable_x64(kind == "float64"):
        params = jax.tree.map(lambda w: jnp.asarray(w, kind), network())
        tx = fj.add_fiedler_penalty(0.1, GRAPH, solver=DENSE)
        state = tx.init(params)
        updates, after = stepper(tx)(zeros(params), state, params)
        assert {leaf.dtype for leaf in jax.tree.leaves(updates)} == {jnp.dtype(kind)}
        wide = jnp.float64 if kind == "float64" else jnp.float32
        assert {leaf.dtype for leaf in jax.tree.leaves(state)} == {jnp.dtype(wide), jnp.dtype("int32")}
        assert [(x.shape, x.dtype) for x in jax.tree.leaves(state)] == [
            (x.shape, x.dtype) for x in jax.tree.leaves(after)
        ]
        assert jnp.any(updates["Dense_0"]["kernel"] != 0)


def test_mixed_dtypes_are_kept_leaf_by_leaf() -> None:
    params = network()
    params["Dense_1"]["kernel"] = params["Dense_1"]["kernel"].astype(jnp.bfloat16)
    updates, _ = stepper(SHARED)(zeros(params), SHARED.init(params), params)
    assert updates["Dense_1"]["kernel"].dtype == jnp.bfloat16
    assert updates["Dense_0"]["kernel"].dtype == jnp.float32


def test_metrics_say_what_they_mean() -> None:
    params = network()
    tx = optax.chain(fj.add_fiedler_penalty(-0.2, GRAPH, solver=DENSE), optax.adam(1e-3))
    state = tx.init(params)
    assert fj.fiedler_metrics(state).l1_coefficient == 0
    _, state = jax.jit(tx.update)(zeros(params), state, params)
    metrics = jax.jit(fj.fiedler_metrics)(state)
    pair = jax.jit(functools.partial(fj.fiedler_pair, solver=DENSE))(fj.laplacian(GRAPH, params))
    coefficients = fj.l1_coefficients(GRAPH, params, pair.vector, strength=0.2 * VERTICES)
    kernels = jnp.concatenate([coefficients[f"Dense_{i}"]["kernel"].ravel() for i in range(3)])
    np.testing.assert_allclose(metrics.l1_coefficient, jnp.mean(jnp.abs(kernels)), rtol=1e-3)
    np.testing.assert_allclose(metrics.value, pair.value, rtol=1e-5)
    np.testing.assert_allclose(metrics.ipr, pair.ipr, rtol=1e-2)
    assert 0 <= metrics.residual < 1e-3
    assert metrics.status == Status.CONVERGED
    assert metrics.skipped == 0


def test_before_the_first_solve_the_metrics_say_so() -> None:
    state = SHARED.init(network())
    assert fj.fiedler_metrics(state).status == Status.NOT_SOLVED
    assert not fj.eigen.is_usable(state.status)
    # States that were saved when that was no status of its own go on as ever.
    before = state._replace(status=jnp.zeros((), jnp.int32))
    assert_trees_close(*(SHARED.update(network(), s, network()) for s in (state, before)), atol=0)


def test_metrics_of_several_members_have_an_entry_for_each() -> None:
    members = jax.tree.map(lambda *leaves: jnp.stack(leaves), *[network(seed=seed) for seed in range(3)])
    tx = fj.add_fiedler_penalty(0.1, GRAPH, num_eigenvalues=2, solver=DENSE)
    _, state = jax.jit(jax.vmap(tx.update))(members, jax.vmap(tx.init)(members), members)
    together, one_by_one = fj.fiedler_metrics(state), jax.vmap(fj.fiedler_metrics)(state)
    assert together.value.shape == (3,)
    assert_trees_close(together, one_by_one)


def test_metrics_need_exactly_one_state() -> None:
    params = network()
    with pytest.raises(errors.StateNotFoundError, match="holds 0"):
        fj.fiedler_metrics(optax.adam(0.1).init(params))
    state = optax.chain(SHARED, SHARED).init(params)
    with pytest.raises(errors.StateNotFoundError, match="holds 2"):
        fj.fiedler_metrics(state)
    assert fj.fiedler_metrics(state[1]).count == 0


def test_metrics_of_a_state_without_its_types_say_how_to_get_them_back() -> None:
    state = SHARED.init(network())
    optimizer = nnx.Optimizer(nnx.Linear(3, 2, rngs=nnx.Rngs(0)), fj.add_fiedler_penalty(0.1), wrt=nnx.Param)
    definition, split = nnx.split(optimizer)
    for bare in (split, nnx.state(optimizer), flax.serialization.to_state_dict(state)):
        with pytest.raises(errors.StateNotFoundError, match=r"nnx\.merge it, .* structure of tx\.init\(params\)"):
            fj.fiedler_metrics(bare)
    assert fj.fiedler_metrics(nnx.merge(definition, split).opt_state).count == 0
    restored = flax.serialization.from_state_dict(state, flax.serialization.to_state_dict(state))
    assert fj.fiedler_metrics(restored).count == 0


@pytest.mark.parametrize("bad", [jnp.nan, jnp.inf])
def test_weights_that_are_not_finite_leave_the_state_finite(bad: float) -> None:
    params = network()
    update = stepper(fj.add_fiedler_penalty(0.1, GRAPH, refresh_every=1))
    state = SHARED.init(params)
    broken = jax.tree.map(lambda w: w, params)
    broken["Dense_1"]["kernel"] = broken["Dense_1"]["kernel"].at[0, 0].set(bad)
    updates, state = update(zeros(params), state, broken)
    assert state.status == Status.NOT_FINITE
    assert state.skipped == 1
    assert jnp.all(updates["Dense_0"]["kernel"] == 0)
    assert all(jnp.all(jnp.isfinite(leaf)) for leaf in jax.tree.leaves(state))
    updates, state = update(zeros(params), state, params)
    assert state.status == Status.CONVERGED
    good = state.vectors
    _, state = update(zeros(params), state, broken)
    assert state.status == Status.NOT_FINITE
    assert state.skipped == 1
    np.testing.assert_array_equal(state.vectors, good)


def test_a_schedule_that_turns_nan_is_skipped_and_counted() -> None:
    params = network()
    tx = fj.add_fiedler_penalty(lambda count: jnp.where(count == 1, jnp.nan, 0.1), GRAPH, solver=DENSE)
    state = tx.init(params)
    norms = []
    for _ in range(3):
        updates, state = stepper(tx)(zeros(params), state, params)
        norms.append(float(optax.tree.norm(updates)))
    assert norms[1] == 0
    assert norms[0] == norms[2] > 0
    assert state.skipped == 1


@pytest.mark.parametrize("wrap", [jax.jit, lambda update: update], ids=["jit", "eager"])
def test_a_schedule_out_of_range_is_skipped_under_inject_hyperparams_too(wrap: Any) -> None:
    falling = {"strength": 0.1, "learning_rate": lambda count: 0.1 - 0.06 * count}
    tx = optax.inject_hyperparams(fj.fiedler_shrinkage)(**falling, graph=GRAPH, solver=DENSE)
    params, update = network(), wrap(tx.update)
    state = tx.init(params)
    for _ in range(4):
        _, state = update(zeros(params), state, params)
    assert fj.fiedler_metrics(state).skipped == 2


@BOTH
def test_a_dead_unit_does_not_end_the_penalty(normalized: bool) -> None:
    params = network()
    params["Dense_0"]["kernel"] = params["Dense_0"]["kernel"].at[3].set(0)
    pulls = {}
    for ignore in (True, False):
        tx = fj.add_fiedler_penalty(0.1, GRAPH, normalized=normalized, ignore_isolated=ignore, solver=DENSE)
        updates, state = stepper(tx)(zeros(params), tx.init(params), params)
        assert jnp.all(updates["Dense_0"]["kernel"][3] == 0)
        pulls[ignore] = float(optax.tree.norm(updates)), float(state.values[0])
    assert pulls[True][0] > 1e-3
    assert pulls[True][1] > 1e-2
    assert pulls[False][1] < 1e-6


@pytest.mark.parametrize("make", [fj.add_fiedler_penalty, functools.partial(fj.fiedler_shrinkage, learning_rate=0.1)])
def test_what_is_not_set_is_as_documented(make: Any) -> None:
    params = network()
    params["Dense_0"]["kernel"] = params["Dense_0"]["kernel"].at[3].set(0)
    documented = {"graph": GRAPH, "normalized": True, "num_eigenvalues": 1, "refresh_every": 100, "scale": "vertices"}
    results = []
    for settings in ({}, documented | {"ignore_isolated": True}):
        tx = make(0.1, solver=DENSE, **settings)
        results.append(jax.jit(tx.update)(zeros(params), tx.init(params), params))
    jax.tree.map(np.testing.assert_array_equal, *results)
    assert results[0][1].values[0] > 1e-2


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"strength": float("nan")}, "strength is nan"),
        ({"strength": float("inf")}, "strength is inf"),
        ({"strength": lambda count: jnp.nan * count}, "schedule's first value"),
        ({"strength": 0.1, "refresh_every": 0}, "refresh_every must be an integer of at least 1 or 'auto', not 0"),
        ({"strength": "0.1"}, "strength is 0.1"),
        ({"strength": np.array([0.1])}, "strength is"),
        ({"strength": 1j}, "strength is 1j"),
        ({"strength": lambda count: jnp.zeros(1)}, "schedule's first value"),
        ({"strength": 0.1, "refresh_every": "often"}, "not 'often'"),
        ({"strength": 0.1, "refresh_every": None}, "not None"),
        ({"strength": 0.1, "refresh_every": True}, "not True"),
        ({"strength": 0.1, "refresh_every": float("inf")}, "not inf"),
        ({"strength": 0.1, "refresh_every": 2.5}, "not 2.5"),
        ({"strength": 0.1, "refresh_every": np.array(0)}, r"not array\(0\)"),
        ({"strength": 0.1, "refresh_every": np.array([2])}, r"not array\(\[2\]\)"),
        ({"strength": 0.1, "scale": "edges"}, "'vertices' or 'unit', not 'edges'"),
        ({"strength": 0.1, "scale": np.ones(3)}, "'vertices' or 'unit'"),
        ({"strength": 0.1, "num_eigenvalues": [1]}, r"not \[1\]"),
    ],
)
def test_settings_out_of_range_are_errors(settings: dict, message: str) -> None:
    with pytest.raises(errors.HyperparameterError, match=message):
        fj.add_fiedler_penalty(**settings)


def test_a_graph_in_the_place_of_the_learning_rate_is_an_error() -> None:
    with pytest.raises(errors.HyperparameterError, match=r"^learning_rate is a NetworkGraph; .* comes second"):
        fj.fiedler_shrinkage(0.1, GRAPH)  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize("solver", ["davidson", fj.Davidson, None])
def test_what_is_no_solver_is_an_error(solver: Any) -> None:
    with pytest.raises(errors.ArgumentTypeError, match=r"such as fj.Davidson\(\)"):
        fj.add_fiedler_penalty(0.1, solver=solver)


@pytest.mark.parametrize(
    ("state", "error"),
    [
        (SHARED.init(network() | {"Dense_0": {"kernel": jnp.ones((SIZES[0], SIZES[1]))}})._asdict(), "dict"),
        (optax.adam(0.1).init(network()), "tuple"),
    ],
)
def test_a_state_of_something_else_is_an_error(state: Any, error: str) -> None:
    with pytest.raises(errors.ArgumentTypeError, match=f"got {error} as its state"):
        SHARED.update(network(), state, network())


def test_a_state_of_another_size_is_an_error() -> None:
    several = fj.add_fiedler_penalty(0.1, GRAPH, num_eigenvalues=2, solver=DENSE)
    with pytest.raises(errors.KernelMismatchError, match=rf"shape \(1, {VERTICES}\) in float32, but 2 of {VERTICES}"):
        several.update(network(), SHARED.init(network()), network())


@pytest.mark.parametrize(("field", "needed"), [("count", "()"), ("values", "(1,)"), ("skipped", "()")])
def test_a_state_stacked_in_part_is_an_error(field: str, needed: str) -> None:
    state = SHARED.init(network())
    stacked = state._replace(**{field: jnp.stack([getattr(state, field)] * 3)})
    with pytest.raises(errors.KernelMismatchError, match=rf"a {field} of shape \(3,.*, not {re.escape(needed)}"):
        SHARED.update(network(), stacked, network())


@pytest.mark.parametrize("refresh_every", [1, 100, "auto"])
def test_a_state_of_another_precision_is_an_error(refresh_every: Any, x64: None) -> None:
    tx = fj.add_fiedler_penalty(0.1, GRAPH, refresh_every=refresh_every, solver=DENSE)
    narrow, wide = network(), network("float64")
    for params, other in ((narrow, wide), (wide, narrow)):
        with pytest.raises(errors.KernelMismatchError, match=r"in float\d\d, but .* in float\d\d are needed"):
            tx.update(params, tx.init(other), params)


@pytest.mark.parametrize("more", [0, 10**9])
def test_more_eigenvalues_than_there_are_is_an_error(more: int) -> None:
    assert fj.add_fiedler_penalty(0.1, num_eigenvalues=VERTICES - 1).init(network()).values.shape == (VERTICES - 1,)
    with pytest.raises(errors.HyperparameterError, match=f"a graph of {VERTICES} vertices has {VERTICES - 1} eigenval"):
        fj.add_fiedler_penalty(0.1, num_eigenvalues=VERTICES + more).init(network())


@pytest.mark.parametrize("tx", [SHARED, fj.fiedler_shrinkage(0.1, 0.1, GRAPH, solver=DENSE)])
def test_updates_without_a_kernel_are_an_error(tx: optax.GradientTransformationExtraArgs) -> None:
    params = network()
    with pytest.raises(errors.KernelMismatchError, match="nothing for Dense_0/kernel"):
        tx.update({"x": jnp.zeros(2)}, tx.init(params), params)
    # As Optax passes over what is None or masked.
    for none in (None, optax.MaskedNode()):
        updates, _ = tx.update(zeros(params) | {"Dense_0": {"kernel": none, "bias": none}}, tx.init(params), params)
        assert updates["Dense_0"]["kernel"] == none
        assert jnp.any(updates["Dense_1"]["kernel"] != 0)


@pytest.mark.parametrize("shape", [(), (1, 1), (2, *SIZES[:2]), (SIZES[1],), SIZES[1::-1]])
@pytest.mark.parametrize("tx", [SHARED, fj.fiedler_shrinkage(0.1, 0.1, GRAPH, solver=DENSE)])
def test_an_update_of_another_shape_is_an_error(tx: optax.GradientTransformationExtraArgs, shape: Any) -> None:
    params = network()
    updates = zeros(params) | {"Dense_0": {"kernel": jnp.zeros(shape), "bias": jnp.zeros(SIZES[1])}}
    message = f"Dense_0/kernel has shape {shape}, but the parameter {SIZES[:2]}"
    with pytest.raises(errors.KernelMismatchError, match=re.escape(message)):
        tx.update(updates, tx.init(params), params)


def test_a_layer_without_units_has_no_edges() -> None:
    params = {"Dense_0": {"kernel": jnp.ones((3, 0))}, "Dense_1": {"kernel": jnp.ones((0, 2))}}
    tx = fj.add_fiedler_penalty(0.1)
    updates, _ = tx.update(params, tx.init(params), params)
    assert_trees_close(updates, params, atol=0)


def test_nothing_that_is_not_used_is_nan() -> None:
    params = network()
    tx = fj.add_fiedler_penalty(0.1, GRAPH)
    checked = checkify.checkify(tx.update, errors=checkify.nan_checks)
    error, _ = jax.jit(checked)(zeros(params), tx.init(params), params)
    assert error.get() is None


def test_updates_need_parameters_and_take_other_arguments() -> None:
    params = network()
    with pytest.raises(errors.MissingParamsError, match=r"tx\.update"):
        SHARED.update(zeros(params), SHARED.init(params))
    SHARED.update(zeros(params), SHARED.init(params), params=params, value=1.0, loss=None)


def test_a_graph_of_another_model_is_an_error_at_init() -> None:
    with pytest.raises(errors.KernelMismatchError, match="Dense_0/kernel"):
        SHARED.init({"Dense_0": {"kernel": jnp.ones((3, 3))}})
    with pytest.raises(errors.NoKernelsError):
        fj.add_fiedler_penalty(0.1).init({"Dense_0": {"bias": jnp.ones(3)}})


@BOTH
def test_several_eigenvalues_give_the_gradient_of_their_sum(normalized: bool, x64: None) -> None:
    params = jax.tree.map(jnp.asarray, network("float64"))
    tx = fj.add_fiedler_penalty(0.3, GRAPH, normalized=normalized, num_eigenvalues=3, scale="unit")
    state = tx.init(params)
    updates, state = jax.jit(tx.update)(zeros(params), state, params)
    total = functools.partial(fiedler_value, GRAPH, normalized=normalized, num_eigenvalues=3)
    value, gradient = jax.value_and_grad(total)(params)
    assert_trees_close(updates, jax.tree.map(lambda g: 0.3 * g, gradient), atol=1e-5)
    np.testing.assert_allclose(jnp.sum(state.values), value, rtol=1e-8)
    assert state.vectors.shape == (3, VERTICES)


def test_the_number_of_eigenvalues_is_static_under_inject_hyperparams() -> None:
    params = network()
    inject = functools.partial(optax.inject_hyperparams, fj.add_fiedler_penalty)
    state = inject(static_args="num_eigenvalues")(0.1, GRAPH, num_eigenvalues=2).init(params)
    assert state.inner_state.vectors.shape == (2, VERTICES)
    with pytest.raises(errors.HyperparameterError, match="static_args"):
        inject()(0.1, GRAPH, num_eigenvalues=2).init(params)


@pytest.mark.parametrize("make", [fj.add_fiedler_penalty, lambda *a, **k: fj.fiedler_shrinkage(a[0], 0.1, *a[1:], **k)])
def test_a_graph_in_components_needs_as_many_eigenvalues(make: Any) -> None:
    params = {name: jnp.array([[1.0, 0.2], [0.3, 1.0]]) for name in ("one", "other")}
    graph = fj.graph_from_edges(params, [("one", "a", "b"), ("other", "c", "d")])
    with pytest.raises(
        fj.errors.DisconnectedGraphError, match=r"2 components .*4 units of a, b; 4 units of c, d.*=2 or"
    ):
        make(0.1, graph).init(params)
    tx = make(0.1, graph, num_eigenvalues=2, normalized=False)
    state = tx.init(params)
    updates, _ = jax.jit(tx.update)(jax.tree.map(jnp.zeros_like, params), state, params)
    # λ2 is 0 between the two, λ3 the smaller of their own.
    assert any(np.any(np.abs(update) > 1e-3) for update in jax.tree.leaves(updates))
