"""The matrix-free Laplacian against dense NumPy."""

import functools
from typing import Any

import compiling
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import reference
import scipy.sparse
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from spectra import BOTH, NORMALIZED

import fiedler_jax as fj
from fiedler_jax import eigen, errors

pytestmark = pytest.mark.crossed

weights = st.floats(-2, 2, width=32, allow_subnormal=False).map(lambda w: w if abs(w) > 1e-6 else 0.0)


# One shape, so that one compilation serves all examples; zeros take edges and whole units away.
chains = st.tuples(*(hnp.arrays(np.float64, shape, elements=weights) for shape in [(4, 3), (3, 5), (5, 2)])).map(list)


def chain(params: Any, normalized: bool) -> fj.Laplacian:
    edges = [(f"Dense_{i}/kernel", f"h{i}", f"h{i + 1}") for i in range(len(params))]
    return fj.laplacian(fj.graph_from_edges(params, edges), params, normalized=normalized)


def network(kernels: list[np.ndarray], normalized: bool, dtype: str = "float32") -> fj.Laplacian:
    return chain(reference.chain_params(kernels, dtype), normalized)


@functools.partial(jax.jit, static_argnames="normalized")
def chain_and_products(params: Any, rows: jax.Array, normalized: bool) -> tuple[fj.Laplacian, dict[str, jax.Array]]:
    """A chain's Laplacian, and what it makes of rows."""
    lap = chain(params, normalized)
    return lap, {
        "dense": lap.to_dense(),
        "rows": lap.matvec(rows),
        "row": lap.matvec(rows[0]),
        "forms": lap.quadratic_form(rows),
        "form": lap.quadratic_form(rows[0]),
        "null": lap.null_vector,
    }


@BOTH
@settings(max_examples=100, deadline=None)
@given(kernels=chains, seed=st.integers(0, 9))
def test_a_chain_agrees_with_its_dense_laplacian(normalized: bool, kernels: list[np.ndarray], seed: int) -> None:
    with jax.enable_x64(True):
        adjacency = reference.chain_adjacency(kernels)
        dense = reference.dense_laplacian(adjacency, normalized)
        rows = np.random.default_rng(seed).normal(size=(3, len(dense)))
        lap, of = chain_and_products(reference.chain_params(kernels, "float64"), jnp.asarray(rows), normalized)
        np.testing.assert_allclose(of["dense"], dense, atol=1e-13)
        np.testing.assert_allclose(of["rows"], rows @ dense, atol=1e-12)
        np.testing.assert_allclose(of["row"], rows[0] @ dense, atol=1e-12)
        forms = np.einsum("bi,ij,bj->b", rows, dense, rows)
        np.testing.assert_allclose(of["forms"], forms, atol=1e-12)
        np.testing.assert_allclose(of["form"], forms[0], atol=1e-12)
        assert of["form"].shape == ()
        np.testing.assert_allclose(lap.degrees, adjacency.sum(axis=1), atol=1e-13)
        np.testing.assert_allclose(lap.diagonal, np.diag(dense), atol=1e-13)
        np.testing.assert_allclose(np.linalg.norm(of["null"]), 1)
        np.testing.assert_allclose(dense @ np.asarray(of["null"]), 0, atol=1e-12)
        assert np.linalg.eigvalsh(dense)[-1] <= lap.upper_bound * (1 + 1e-12)


@BOTH
@settings(max_examples=100, deadline=None)
@given(upper=hnp.arrays(np.float64, (6, 6), elements=weights.map(abs)))
def test_an_adjacency_agrees_with_its_dense_laplacian(normalized: bool, upper: np.ndarray) -> None:
    adjacency = np.triu(upper) + np.triu(upper).T
    dense = reference.dense_laplacian(adjacency, normalized)
    with jax.enable_x64(True):
        lap = fj.laplacian_from_adjacency(adjacency, normalized=normalized)
        np.testing.assert_allclose(lap.to_dense(), dense, atol=1e-13)
        rows = np.random.default_rng(0).normal(size=(2, 6))
        np.testing.assert_allclose(
            lap.quadratic_form(jnp.asarray(rows)), np.einsum("bi,ij,bj->b", rows, dense, rows), atol=1e-12
        )


@BOTH
def test_loops_and_parallel_kernels_add_up(normalized: bool, dtype: str) -> None:
    rng = np.random.default_rng(1)
    inner, first, second = rng.normal(size=(3, 3)), rng.normal(size=(4, 3)), rng.normal(size=(4, 3))
    params = {"a": first.astype(dtype), "b": second.astype(dtype), "loop": inner.astype(dtype)}
    graph = fj.graph_from_edges(params, [("a", "x", "h"), ("b", "x", "h"), ("loop", "h", "h")])
    adjacency = np.zeros((7, 7))
    adjacency[:4, 4:] = np.abs(first) + np.abs(second)
    adjacency[4:, 4:] = np.abs(inner)
    adjacency = adjacency + adjacency.T
    lap = fj.laplacian(graph, params, normalized=normalized)
    expected = reference.dense_laplacian(adjacency, normalized)
    np.testing.assert_allclose(lap.to_dense(), expected, atol=1e-6 if dtype == "float32" else 1e-14)


@BOTH
def test_a_small_quadratic_form_keeps_its_relative_accuracy(normalized: bool) -> None:
    """Two cliques joined by a weak bridge: the terms of xᵀ(Lx) would cancel to nothing in float32."""
    clique = 1 - np.eye(8)
    adjacency = np.kron(np.eye(2), clique)
    adjacency[7, 8] = adjacency[8, 7] = 1e-7
    sides = np.repeat([1.0, -1.0], 8)
    degrees = adjacency.sum(axis=1)
    x = sides * np.sqrt(degrees) if normalized else sides
    lap = fj.laplacian_from_adjacency(adjacency.astype("float32"), normalized=normalized)
    np.testing.assert_allclose(lap.quadratic_form(jnp.asarray(x, jnp.float32)), 4e-7, rtol=1e-6)


@BOTH
def test_a_localized_vector_on_a_wide_input_keeps_its_accuracy(normalized: bool) -> None:
    """A running float32 sum would lose the million tiny terms that come after the few large ones."""
    kernels = [k.astype("float32") for k in reference.random_kernels((20531, 50, 5))]
    lap = network(kernels, normalized)
    x = np.full(20586, 3e-5)
    x[7] = 1
    first, second = (np.abs(k.astype("float64")) for k in kernels)
    degrees = np.concatenate([first.sum(axis=1), first.sum(axis=0) + second.sum(axis=1), second.sum(axis=0)])
    y = x.astype("float32").astype("float64") / (np.sqrt(degrees) if normalized else 1)
    a, b, c = np.split(y, [20531, 20581])
    expected = np.sum(first * (a[:, None] - b) ** 2) + np.sum(second * (b[:, None] - c) ** 2)
    form = jax.jit(lambda v: lap.quadratic_form(v))(jnp.asarray(x, jnp.float32))
    np.testing.assert_allclose(form, expected, rtol=1e-6)


@pytest.mark.parametrize("narrow", ["bfloat16", "float16"])
@BOTH
def test_narrow_parameters_compute_in_float32(normalized: bool, narrow: str) -> None:
    kernels = reference.random_kernels((6, 5, 4))
    params = jax.tree.map(lambda w: jnp.asarray(w, narrow), reference.chain_params(kernels))
    graph = fj.graph_from_params(params)
    lap = fj.laplacian(graph, params, normalized=normalized)
    assert lap.matvec(lap.null_vector).dtype == jnp.float32
    rounded = [np.asarray(params[f"Dense_{i}"]["kernel"], np.float64) for i in range(2)]
    expected = reference.dense_laplacian(reference.chain_adjacency(rounded), normalized)
    np.testing.assert_allclose(lap.to_dense(), expected, atol=1e-6)
    form = jax.jit(lambda p: fj.laplacian(graph, p, normalized=normalized).quadratic_form(jnp.ones(15)))
    gradient = jax.grad(form)(params)
    assert gradient["Dense_0"]["kernel"].dtype == narrow


@BOTH
def test_float32_stays_float32_where_64_bits_are_enabled(normalized: bool, x64: None) -> None:
    lap = network(reference.random_kernels((6, 5, 4)), normalized, "float32")
    x = lap.null_vector
    of_lap = [
        lap.degrees,
        lap.diagonal,
        lap.upper_bound,
        lap.inverse_root_degrees,
        lap.matvec(x),
        lap.quadratic_form(x),
    ]
    assert {array.dtype for array in [x, *of_lap]} == {jnp.dtype("float32")}


@NORMALIZED
def test_a_float32_pair_stays_float32_where_64_bits_are_enabled(normalized: bool, x64: None) -> None:
    pair = jax.jit(fj.fiedler_pair)(network(reference.random_kernels((6, 5, 4)), normalized, "float32"))
    of_pair = [pair.value, pair.vector, pair.residual, pair.error, pair.next_value, pair.ipr, pair.floor]
    assert {array.dtype for array in of_pair} == {jnp.dtype("float32")}


@BOTH
def test_the_form_is_differentiable_in_the_weights(normalized: bool, x64: None) -> None:
    kernels = reference.random_kernels((4, 3, 2), seed=5)
    x = jnp.asarray(np.random.default_rng(0).normal(size=9))
    params = reference.chain_params(kernels, "float64")
    graph = fj.graph_from_params(params)

    @jax.jit
    def form(p: Any) -> jax.Array:
        return fj.laplacian(graph, p, normalized=normalized).quadratic_form(x)

    gradient = jax.grad(form)(jax.tree.map(jnp.asarray, params))
    step = 1e-6
    for i, kernel in enumerate(kernels):
        for j in np.ndindex(kernel.shape):
            moved = [k.copy() for k in kernels]
            moved[i][j] += step
            up = form(reference.chain_params(moved, "float64"))
            moved[i][j] -= 2 * step
            down = form(reference.chain_params(moved, "float64"))
            np.testing.assert_allclose(gradient[f"Dense_{i}"]["kernel"][j], (up - down) / (2 * step), atol=1e-8)


@BOTH
def test_gradients_are_finite_at_zero_weights_and_dead_units(normalized: bool, dtype: str) -> None:
    kernels = reference.random_kernels((4, 3, 2))
    kernels[0][:, 1] = 0
    kernels[1][1] = 0
    kernels[0][2, 0] = 0
    params = reference.chain_params(kernels, dtype)
    graph = fj.graph_from_params(params)
    x = jnp.linspace(-1, 1, 9, dtype=dtype)

    def all_of_it(p: Any) -> jax.Array:
        lap = fj.laplacian(graph, p, normalized=normalized)
        return lap.quadratic_form(x) + jnp.sum(lap.matvec(x)) + jnp.sum(lap.null_vector)

    gradient = jax.jit(jax.grad(all_of_it))(jax.tree.map(jnp.asarray, params))
    first = gradient["Dense_0"]["kernel"]
    assert jnp.all(jnp.isfinite(first))
    assert jnp.all(first[:, 1] == 0)
    assert first[2, 0] == 0
    assert jnp.any(first != 0)


@BOTH
def test_jit_and_vmap_give_what_eager_gives(normalized: bool) -> None:
    nets = [reference.chain_params(reference.random_kernels((5, 4, 3), seed=s)) for s in range(3)]
    graph = fj.graph_from_params(nets[0])
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *nets)
    x = jnp.linspace(0, 1, 12)

    def product(p: Any) -> jax.Array:
        return fj.laplacian(graph, p, normalized=normalized).matvec(x)

    batched = jax.jit(jax.vmap(product))(stacked)
    for i, net in enumerate(nets):
        np.testing.assert_allclose(batched[i], product(net), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("adjacency", "message"),
    [
        (np.ones((2, 3)), r"not of shape \(2, 3\)"),
        (np.ones(4), r"not of shape \(4,\)"),
        (np.array([[0, -1], [-1, 0]]), r"\(0, 1\) is -1"),
        (np.array([[0, 1], [2, 0]]), r"\(0, 1\) and \(1, 0\) are 1 and 2"),
        (np.eye(2) * 1j, "not complex"),
        (scipy.sparse.eye_array(3), r"not dia_array.*toarray\(\)"),
    ],
)
def test_what_is_no_adjacency_is_an_error(adjacency: Any, message: str) -> None:
    with pytest.raises(errors.AdjacencyError, match=message):
        fj.laplacian_from_adjacency(adjacency)


def test_an_isolated_vertex_has_neither_a_scale_nor_a_slope() -> None:
    adjacency = jnp.zeros((3, 3)).at[0, 1].set(4).at[1, 0].set(4)
    lap = fj.laplacian_from_adjacency(adjacency, normalized=True)
    np.testing.assert_array_equal(lap.connected, [True, True, False])
    np.testing.assert_array_equal(lap.diagonal, [1, 1, 0])
    np.testing.assert_array_equal(lap.inverse_root_degrees, [0.5, 0.5, 0])
    scale = jax.jit(lambda a: fj.laplacian_from_adjacency(a, normalized=True).inverse_root_degrees)
    slopes = jax.jacobian(scale)(adjacency)
    assert jnp.all(jnp.isfinite(slopes))
    np.testing.assert_array_equal(slopes[2], 0)


def test_no_matrix_of_all_vertices_is_formed() -> None:
    params = reference.chain_params(reference.random_kernels((2000, 8, 4)))
    graph = fj.graph_from_params(params)

    def work(p: Any) -> jax.Array:
        return fj.laplacian(graph, p).matvec(jnp.ones((2, graph.num_vertices)))

    memory = jax.jit(work).lower(params).compile(compiling.AS_USERS).memory_analysis()
    assert memory is not None
    assert memory.temp_size_in_bytes < 40 * graph.num_vertices * 4


@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("inputs", [4, 5000])
def test_no_weight_that_is_not_finite_leaves_a_finite_bound(inputs: int, bad: float) -> None:
    # XLA's library on CPU, which takes the largest of 4096 numbers or more, passes over NaN (jax 0.10.2).
    kernels = reference.random_kernels((inputs, 3, 2))
    kernels[0][inputs // 2, 1] = bad
    assert network(kernels, False).upper_bound == np.inf
    matrix = jnp.zeros((inputs, inputs), jnp.float32).at[0, inputs // 2].set(bad)
    assert eigen.operator_from_matrix(matrix).upper_bound == np.inf
