"""The proximal transformation: its step, its exact zeros, its thresholds over time."""

# Optax types states and updates as any tree of anything, so nothing can be read from them without these.
# pyright: reportIndexIssue=false, reportAttributeAccessIssue=false, reportArgumentType=false
# pyright: reportCallIssue=false, reportOperatorIssue=false

import functools
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import reference
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from shrinking import SHARED, coefficients_by_hand, kernels_of, random_like, shrinkage, zero_count
from spectra import BOTH
from stepping import DENSE, GRAPH, VERTICES, assert_trees_close, network, stepper, zeros

import fiedler_jax as fj
from fiedler_jax import errors


def proximal_step(point: np.ndarray, threshold: np.ndarray) -> np.ndarray:
    return np.sign(point) * np.maximum(np.abs(point) - threshold, 0)


@functools.partial(jax.jit, static_argnames=("graph", "normalized", "strength"))
def thresholds(params: Any, graph: Any = GRAPH, normalized: bool = True, strength: float = 1.0) -> Any:
    """With a learning rate of one, at the first update."""
    lap = fj.laplacian(graph, params, normalized=normalized)
    pair = fj.fiedler_pair(lap, solver=DENSE, ignore_isolated=True)
    return fj.l1_coefficients(graph, params, pair.vector, normalized=normalized, strength=strength * graph.num_vertices)


def trained(tx: optax.GradientTransformation, params: Any, steps: int, gradients: Callable[[Any], Any] = zeros) -> Any:
    """The parameters after each update and the last state."""
    state, path = tx.init(params), []
    for _ in range(steps):
        updates, state = stepper(tx)(gradients(params), state, params)
        params = optax.apply_updates(params, updates)
        path.append(params)
    return path, state


@BOTH
@pytest.mark.parametrize("k", [1, 3])
def test_one_step_is_the_proximal_step(k: int, normalized: bool, x64: None) -> None:
    params = network("float64")
    updates = random_like(params, 0.02)
    strength, rate = (3.0 if normalized else 6.0) / k, 0.4
    tx = shrinkage(strength, rate, GRAPH, normalized=normalized, num_eigenvalues=k)
    after, _ = stepper(tx)(updates, tx.init(params), params)
    found = kernels_of(optax.apply_updates(params, after))
    coefficients = coefficients_by_hand(kernels_of(params), normalized, k)
    for i, (kernel, moved, c) in enumerate(zip(kernels_of(params), kernels_of(updates), coefficients, strict=True)):
        expected = proximal_step(kernel + moved, rate * strength * VERTICES * c)
        np.testing.assert_allclose(found[i], expected, atol=1e-10)
        np.testing.assert_array_equal(found[i] == 0, expected == 0)
    assert 10 < zero_count(optax.apply_updates(params, after)) < GRAPH.num_edges - 10
    assert any((c < 0).any() for c in coefficients) == normalized


DTYPES = [
    ("float32", "float32"),
    ("bfloat16", "bfloat16"),
    ("float16", "float16"),
    ("float64", "float64"),
    ("bfloat16", "float32"),
    ("float16", "bfloat16"),
    ("float32", "bfloat16"),
    ("float64", "float32"),
]


@pytest.mark.parametrize(("kind", "of_updates"), DTYPES)
def test_pruned_weights_are_exactly_zero(kind: str, of_updates: str) -> None:
    with jax.enable_x64("float64" in (kind, of_updates)):
        params = jax.tree.map(lambda w: jnp.asarray(w, kind), network())
        updates = jax.tree.map(lambda u: u.astype(of_updates), random_like(params, 0.02))
        tx = shrinkage(2.0, 1.0, GRAPH, normalized=False)

        @jax.jit
        def step(updates: Any, params: Any) -> Any:
            after, _ = tx.update(updates, tx.init(params), params)
            return after, optax.apply_updates(params, after)

        after, new = step(updates, params)
        coefficients = coefficients_by_hand(kernels_of(params), False, 1)
        for old, moved, c, kernel in zip(
            *map(kernels_of, (params, updates)), coefficients, kernels_of(new), strict=True
        ):
            excess = np.abs(old + moved) - 2 * VERTICES * c
            clear = np.abs(excess) > 1e-4
            np.testing.assert_array_equal((kernel == 0)[clear], (excess < 0)[clear])
        assert 10 < zero_count(new) < GRAPH.num_edges - 10
        wide = jnp.result_type(jnp.dtype(kind), jnp.dtype(of_updates))
        assert {leaf["kernel"].dtype for leaf in after.values()} == {wide}
        assert {leaf.dtype for leaf in jax.tree.leaves(new)} == {jnp.dtype(kind)}


@BOTH
def test_where_no_sign_changes_it_is_the_penalty_before_sgd(normalized: bool, x64: None) -> None:
    params = network("float64")
    add = fj.add_fiedler_penalty(0.05, GRAPH, normalized=normalized, refresh_every=3, solver=DENSE)
    shrink = shrinkage(0.05, 1e-4, GRAPH, normalized=normalized, refresh_every=3)
    gradients = functools.partial(random_like, size=0.1)
    before, _ = trained(optax.chain(add, optax.sgd(1e-4)), params, 8, gradients)
    after, _ = trained(optax.chain(optax.sgd(1e-4), shrink), params, 8, gradients)
    unpenalized, _ = trained(optax.sgd(1e-4), params, 8, gradients)
    assert_trees_close(after[-1], before[-1], atol=1e-13)
    assert optax.tree.norm(optax.tree.sub(after[-1], unpenalized[-1])) > 1e-5
    for one, other in zip(kernels_of(after[-1]), kernels_of(params), strict=True):
        np.testing.assert_array_equal(np.sign(one), np.sign(other))


def test_both_schedules_are_those_of_sgd_at_the_same_update(x64: None) -> None:
    params = network("float64")
    rate = optax.piecewise_constant_schedule(0.2, {1: 0.5, 3: 0.25, 4: 0.0})
    path, state = trained(
        optax.chain(
            optax.sgd(rate), shrinkage(lambda count: 0.2 * jnp.minimum(count, 4), rate, GRAPH, normalized=False)
        ),
        params,
        6,
        functools.partial(random_like, size=0.3),
    )
    coefficients = coefficients_by_hand(kernels_of(params), False, 1)
    kernels, gradients = kernels_of(params), kernels_of(random_like(params, 0.3))
    for step, lr in enumerate([0.2, 0.1, 0.1, 0.025, 0.0, 0.0]):
        t = lr * VERTICES * 0.2 * min(step, 4)
        kernels = [
            proximal_step(kernel - lr * gradient, t * c)
            for kernel, gradient, c in zip(kernels, gradients, coefficients, strict=True)
        ]
        for one, other in zip(kernels_of(path[step]), kernels, strict=True):
            np.testing.assert_allclose(one, other, atol=1e-9)
    assert fj.fiedler_metrics(state).count == 6
    assert state[-1].last_strength == pytest.approx(0.8)


def test_a_weight_that_is_pruned_has_no_derivative(x64: None) -> None:
    def trained(kernel: jax.Array) -> Any:
        params = {"Dense_0": {"kernel": kernel}}
        tx = optax.chain(optax.sgd(0.1), fj.fiedler_shrinkage(0.5, 0.1, normalized=False, solver=fj.Dense()))
        state = tx.init(params)
        for _ in range(2):
            updates, state = tx.update(jax.tree.map(jnp.zeros_like, params), state, params)
            params = optax.apply_updates(params, updates)
        return params["Dense_0"]["kernel"]

    kernel = jnp.array([[2.0, 0.3], [0.2, -1.0]])
    after, derivative = jax.jit(trained)(kernel), jax.jit(jax.jacobian(trained))(kernel)
    np.testing.assert_array_equal(after == 0, [[False, True], [True, False]])
    # With the coefficients held fixed a weight that is left moves along, and a pruned one does not.
    np.testing.assert_allclose(derivative.reshape(4, 4), np.diag([1, 0, 0, 1]), atol=1e-12)


def test_zeros_stay_under_small_updates_and_leave_under_large_ones() -> None:
    params = network()
    params["Dense_0"]["kernel"] = params["Dense_0"]["kernel"].at[::2, 1].set(0)
    params["Dense_1"]["kernel"] = jnp.where(jnp.abs(params["Dense_1"]["kernel"]) < 0.1, 0, params["Dense_1"]["kernel"])
    at = thresholds(params, normalized=False)
    tx = shrinkage(1.0, 1.0, GRAPH, normalized=False)
    for share in (0.9, -0.9, 1.5, -1.5):
        given = jax.tree.map(lambda w, t, share=share: jnp.broadcast_to(share * t, w.shape), params, at)
        after, _ = stepper(tx)(given, tx.init(params), params)
        for layer in ("Dense_0", "Dense_1"):
            empty = params[layer]["kernel"] == 0
            moved, t = after[layer]["kernel"][empty], at[layer]["kernel"][empty]
            assert t.size > 5
            assert jnp.all(t > 0)
            np.testing.assert_allclose(moved, 0 if abs(share) < 1 else share / 3 * t, rtol=1e-3)


def test_negative_thresholds_move_entries_away_from_zero_but_not_zeros() -> None:
    params = network()
    params["Dense_1"]["kernel"] = params["Dense_1"]["kernel"].at[2, 3].set(0)
    tx = shrinkage(-0.5, 0.1, GRAPH, normalized=False)
    after, _ = stepper(tx)(zeros(params), tx.init(params), params)
    t = thresholds(params, normalized=False, strength=-0.05)
    for layer in params:
        kernel = params[layer]["kernel"]
        np.testing.assert_allclose(after[layer]["kernel"], -t[layer]["kernel"] * jnp.sign(kernel), atol=1e-6)
    assert after["Dense_1"]["kernel"][2, 3] == 0
    assert t["Dense_1"]["kernel"][2, 3] < 0


def test_only_kernels_of_the_graph_are_changed() -> None:
    params = {"net": network(), "head": {"kernel": jnp.ones((4, 2)), "bias": jnp.zeros(2)}}
    graph = fj.graph_from_edges(params, [(f"net/Dense_{i}/kernel", f"h{i}", f"h{i + 1}") for i in range(3)])
    tx = shrinkage(0.5, 0.5, graph)
    given = random_like(params, 1.0)
    after, _ = stepper(tx)(given, tx.init(params), params)
    expected, _ = stepper(shrinkage(0.5, 0.5, GRAPH))(given["net"], SHARED.init(network()), network())
    assert_trees_close(after["net"], expected, atol=1e-6)
    assert_trees_close(after["head"], given["head"], rtol=0)
    for layer, leaves in after["net"].items():
        np.testing.assert_array_equal(leaves["bias"], given["net"][layer]["bias"])
        assert jnp.any(leaves["kernel"] != given["net"][layer]["kernel"])


def isolated(params: Any) -> int:
    return int(np.sum(reference.chain_adjacency(kernels_of(params)).sum(axis=1) == 0))


def test_pruning_goes_on_after_a_unit_has_lost_all_its_edges() -> None:
    params = network()
    params["Dense_0"]["kernel"] = params["Dense_0"]["kernel"].at[3].multiply(0.1)
    dead, pruned, values = {}, {}, {}
    for ignore in (True, False):
        tx = shrinkage(0.5, 0.02, GRAPH, normalized=False, refresh_every=1, ignore_isolated=ignore)
        path, state = trained(tx, params, 13)
        assert not np.any(path[0]["Dense_0"]["kernel"][3])
        dead[ignore], pruned[ignore] = [isolated(one) for one in path], [zero_count(one) for one in path]
        values[ignore] = float(fj.fiedler_metrics(state).value)
    assert dead[True][0] == dead[False][0] == 1
    # With the unit left out the rest goes on losing edges, and units, at every update; otherwise nothing happens.
    assert np.all(np.diff(pruned[True]) > 0)
    assert dead[True][-1] >= 4
    assert values[True] > 0.1
    assert set(dead[False]) == {1}
    assert len(set(pruned[False])) == 1
    assert values[False] < 1e-6


def test_two_parts_end_the_pruning_by_one_eigenvalue_but_not_by_two() -> None:
    rng = np.random.default_rng(0)
    inside = np.kron(np.eye(2), np.ones((3, 3)))
    kernels = [np.where(inside > 0, rng.uniform(0.5, 1, (6, 6)), 0.002) for _ in range(2)]
    params = jax.tree.map(jnp.asarray, reference.chain_params(kernels))
    graph = fj.graph_from_params(params)
    ends = {}
    for k in (1, 2):
        path, state = trained(
            shrinkage(0.3, 0.01, graph, normalized=False, num_eigenvalues=k, refresh_every=1), params, 80
        )
        between = [np.sum(kernel[inside == 0] != 0) for kernel in kernels_of(path[19])]
        assert between == [0, 0]
        ends[k] = kernels_of(path[19]), kernels_of(path[-1]), state.values
    for then, now in zip(*ends[1][:2], strict=True):
        np.testing.assert_allclose(now, then, atol=1e-6)
    assert ends[1][2] == pytest.approx(0, abs=1e-6)
    assert sum(np.abs(then - now).sum() for then, now in zip(*ends[2][:2], strict=True)) > 1
    assert all(np.all(now[inside == 0] == 0) for now in ends[2][1])


def test_normalized_thresholds_act_relative_to_one_another() -> None:
    params = network()
    sizes, grown = {}, {}
    for normalized in (True, False):
        path, _ = trained(shrinkage(0.5, 0.005, GRAPH, normalized=normalized, refresh_every=1), params, 40)
        before, after = (np.concatenate([k.ravel() for k in kernels_of(one)]) for one in (params, path[-1]))
        assert np.sum(after == 0) > 10
        assert np.linalg.norm(before - after) > 0.1 * np.linalg.norm(before)
        sizes[normalized] = np.linalg.norm(after) / np.linalg.norm(before)
        grown[normalized] = np.mean(np.abs(after) > np.abs(before) + 1e-6)
    # To first order the sum of squares stays, as Σ c_ij |W_ij| = 0.
    assert sizes[True] == pytest.approx(1, abs=0.003)
    assert sizes[False] < 0.97
    assert grown[True] > 0.3
    assert grown[False] == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"learning_rate": float("nan")}, "learning_rate is nan.*optimizer before it"),
        ({"learning_rate": -0.1}, "learning_rate is -0.1; it must be a finite number of at least 0"),
        ({"learning_rate": float("inf")}, "learning_rate is inf"),
        ({"learning_rate": lambda count: count - 1.0}, "learning_rate schedule's first value is -1"),
        ({"strength": float("nan")}, "strength is nan"),
        ({"refresh_every": 0}, "refresh_every must be"),
        ({"scale": "edges"}, "'vertices' or 'unit'"),
        ({"num_eigenvalues": 0}, "num_eigenvalues must be a positive"),
        ({"num_eigenvalues": jnp.int32(2)}, r"not Array\(2, dtype=int32\)"),
    ],
)
def test_settings_out_of_range_are_errors(arguments: dict, message: str) -> None:
    with pytest.raises(errors.HyperparameterError, match=message):
        fj.fiedler_shrinkage(**{"strength": 0.1, "learning_rate": 0.1} | arguments)


def test_updates_need_parameters_and_take_other_arguments() -> None:
    params = network()
    with pytest.raises(errors.MissingParamsError, match=r"fiedler_shrinkage needs.*tx\.update"):
        SHARED.update(zeros(params), SHARED.init(params))
    SHARED.update(zeros(params), SHARED.init(params), params=params, value=1.0, loss=None)


def weight_normed() -> tuple[fj.NetworkGraph, Any]:
    class Model(nn.Module):
        @nn.compact
        def __call__(self, x: jax.Array) -> jax.Array:
            hidden = nn.WeightNorm(nn.Dense(5))(x)
            return nn.Dense(3)(nn.relu(hidden))

    x = jnp.ones((2, 6))
    params = jax.eval_shape(Model().init, jax.random.key(0), x)["params"]
    params = random_like(params, 1.0)
    return fj.graph_from_model(Model(), params, x), params


def low_rank(up: jax.Array) -> tuple[fj.NetworkGraph, Any]:
    def model(params: Any, x: jax.Array) -> jax.Array:
        return jax.nn.relu(x @ (params["w"] + params["down"] @ params["up"])) @ params["v"]

    shapes = {"w": (5, 4), "down": (5, 2), "up": (2, 4), "v": (4, 3)}
    params = random_like({name: jnp.zeros(shape) for name, shape in shapes.items()}, 1.0) | {"up": up}
    return fj.graph_from_model(model, params, jnp.ones((2, 5))), params


def test_a_weight_normed_kernel_is_shrunk_leaf_by_leaf() -> None:
    graph, params = weight_normed()
    kernel = params["Dense_0"]["kernel"] = 20 * params["Dense_0"]["kernel"].at[2, 3].set(0)
    scale = params["WeightNorm_0"]["Dense_0/kernel/scale"]
    tx = shrinkage(1.0, 1.0, graph, normalized=False)
    norms = jnp.linalg.norm(kernel, axis=0)
    effective = {"Dense_0": {"kernel": scale * kernel / norms}, "Dense_1": params["Dense_1"]}
    of_kernel = thresholds(effective, fj.graph_from_params(effective), False)["Dense_0"]["kernel"]
    expected = float(of_kernel[2, 3] * jnp.abs(scale[3]) / norms[3])
    assert expected > 1e-6
    for share, moved in ((0.9, 0.0), (-0.9, 0.0), (1.5, 0.5), (-1.5, -0.5)):
        given = zeros(params)
        given["Dense_0"]["kernel"] = given["Dense_0"]["kernel"].at[2, 3].set(share * expected)
        after, _ = stepper(tx)(given, tx.init(params), params)
        np.testing.assert_allclose(after["Dense_0"]["kernel"][2, 3], moved * expected, rtol=1e-3)


@pytest.mark.parametrize("zero", [True, False])
def test_a_low_rank_kernel_follows_its_slope_where_zero_is_no_kink(zero: bool) -> None:
    """B = 0 is where a low-rank update starts; W there is not zero, and neither is the gradient of the penalty."""
    graph, params = low_rank(jnp.zeros((2, 4)) if zero else jnp.ones((2, 4)))
    shrink = optax.chain(optax.sgd(1e-3), shrinkage(0.1, 1e-3, graph, normalized=False))
    add = optax.chain(fj.add_fiedler_penalty(0.1, graph, normalized=False, solver=DENSE), optax.sgd(1e-3))
    after, _ = stepper(shrink)(zeros(params), shrink.init(params), params)
    before, _ = stepper(add)(zeros(params), add.init(params), params)
    assert_trees_close(after, before, atol=1e-7)
    assert jnp.sum(jnp.abs(after["up"])) > 1e-6


class Drawn:
    """One layer of edges among five and four units, whose step is compiled once for each dtype."""

    graph = fj.graph_from_edges({"k": jnp.ones((5, 4))}, [("k", "a", "b")])

    @staticmethod
    @jax.jit
    def step(weights: jax.Array, update: jax.Array, strength: jax.Array) -> Any:
        tx = shrinkage(strength, 1.0, Drawn.graph, normalized=False)
        params = {"k": weights}
        after, state = tx.update({"k": update}, tx.init(params), params)
        return optax.apply_updates(params, after)["k"], state.skipped


numbers = st.floats(-10, 10, width=16, allow_subnormal=False)
matrices = hnp.arrays(np.float16, (5, 4), elements=numbers, fill=st.nothing())


@settings(max_examples=60, deadline=None)
@given(matrices, matrices, st.floats(0, 4), st.sampled_from(["float32", "bfloat16"]))
def test_a_nonnegative_threshold_flips_no_sign_and_lets_nothing_grow(
    weights: np.ndarray, update: np.ndarray, strength: float, kind: str
) -> None:
    w, u = jnp.asarray(weights, kind), jnp.asarray(update, kind)
    new, skipped = Drawn.step(w, u, jnp.float32(strength))
    point = np.asarray(w + u, np.float64)
    new = np.asarray(new, np.float64)
    assert np.all((np.sign(new) == np.sign(point)) | (new == 0))
    assert np.all(np.abs(new) <= np.abs(point))
    if skipped:
        np.testing.assert_array_equal(new, point)
