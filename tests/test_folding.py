"""The normalized Laplacian on half of a two-coloured graph against the whole one, densely."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import reference
import spectra

import fiedler_jax as fj
from fiedler_jax import Status
from fiedler_jax._folding import fold
from fiedler_jax.fiedler import _operator

SIZES = (40, 24, 33, 9)
GRAPH = fj.graph_from_params(reference.chain_params(reference.random_kernels(SIZES)))


def kernels(*, dead: tuple[tuple[int, int], ...] = (), seed: int = 0, parts: int = 1) -> reference.Kernels:
    """Random kernels without the edges of dead units (layer, unit), in as many separate parts."""
    found = reference.random_kernels(SIZES, seed)
    for i, kernel in enumerate(found):
        part = [np.arange(size) * parts // size for size in kernel.shape]
        kernel[part[0][:, None] != part[1]] = 0
        kernel[[unit for layer, unit in dead if layer == i]] = 0
        kernel[:, [unit for layer, unit in dead if layer == i + 1]] = 0
    return found


@functools.partial(jax.jit, static_argnames=("num", "ignore_isolated", "solver"))
def solve(
    params: Any, init: Any = None, num: int = 1, ignore_isolated: bool = False, solver: Any = fj.Davidson()
) -> fj.eigen.EigenResult:
    lap = fj.laplacian(GRAPH, params)
    assert fold(lap, num, ignore_isolated) is not None
    return fj.laplacian_eigenpairs(lap, num, init, solver=solver, ignore_isolated=ignore_isolated)


FURTHER = [(1, "float64"), (3, "float32")]
CASES = {
    "whole": {},
    "lone vertex of the folded half": {"dead": ((3, 4),)},
    "lone vertices of both halves": {"dead": ((0, 7), (2, 1), (3, 0), (3, 8))},
    "two parts": {"parts": 2},
    "three parts and a lone vertex": {"parts": 3, "dead": ((1, 2),)},
}


@pytest.mark.parametrize(
    ("num", "dtype"),
    [(1, "float32"), (3, "float64"), *(pytest.param(*slow, marks=pytest.mark.slow) for slow in FURTHER)],
    indirect=["dtype"],
)
@pytest.mark.parametrize("case", CASES)
def test_eigenpairs_are_those_of_the_whole_laplacian(case: str, num: int, dtype: str) -> None:
    weights = [kernel.astype(dtype) for kernel in kernels(**CASES[case])]
    dense = reference.dense_laplacian(reference.chain_adjacency([k.astype(float) for k in weights]), True)
    spectrum = np.linalg.eigvalsh(dense)
    found = solve(reference.chain_params(weights, dtype), num=num)
    tol, eps = spectra.tolerance(dtype), float(np.finfo(dtype).eps)
    vectors, values = np.asarray(found.vectors, float), np.asarray(found.values, float)

    assert fj.eigen.is_usable(found.status)
    assert np.all(abs(values - spectrum[1 : num + 1]) <= tol * spectrum[1 : num + 1] + 16 * eps)
    # Errors were estimated, not below what they are.
    assert np.all(abs(values - spectrum[1 : num + 1]) <= 10 * np.asarray(found.error, float) + 16 * eps)
    # Rounding on one half grows by 1 / σ in the other, and in what lies above λ = 1 - σ of the next.
    singular, next_singular = 1 - spectrum[1 : num + 1], 1 - spectrum[num + 1]
    assert np.all(abs(vectors @ vectors.T - np.eye(num)) <= 16 * eps / np.outer(singular, singular))
    true = np.linalg.norm(dense @ vectors.T - vectors.T * values, axis=0)
    np.testing.assert_allclose(np.asarray(found.residuals, float), true, rtol=0.02, atol=20 * eps)
    # The guard is an upper bound of the next eigenvalue; it is near it unless nothing can lie below the values found.
    floor = found.floor / next_singular
    assert -floor <= found.next_value - spectrum[num + 1]
    assert found.next_value - spectrum[num + 1] <= found.next_residual + floor or np.all(values <= found.floor)


@pytest.mark.parametrize("case", CASES)
def test_isolated_vertices_left_out(case: str, x64: None) -> None:
    weights = kernels(**CASES[case])
    adjacency = reference.chain_adjacency(weights)
    linked = adjacency.sum(axis=0) > 0
    found = solve(reference.chain_params(weights, "float64"), ignore_isolated=True)
    assert fj.eigen.is_usable(found.status)
    expected = reference.spectrum(adjacency[np.ix_(linked, linked)], True)[1]
    np.testing.assert_allclose(found.values[0], expected, rtol=1e-9, atol=1e-14)
    assert np.all(np.asarray(found.vectors)[0][~linked] == 0)


def test_the_operator_is_one_minus_the_square_of_the_adjacency(x64: None) -> None:
    weights = kernels(dead=((0, 7), (2, 1), (3, 0)))

    @jax.jit
    def folded_twice(params: Any) -> tuple[jax.Array, ...]:
        half = fold(fj.laplacian(GRAPH, params), 2, False)
        assert half is not None
        # 24 and 9 units are the smaller half, against 40 and 33.
        assert half.halves.kept == ((40, 64), (97, 106))
        return half.operator.matvec(jnp.eye(33 + 3)), half.support, half.isolated

    matrix, support, isolated = map(np.asarray, folded_twice(reference.chain_params(weights, "float64")))
    dense = reference.dense_laplacian(reference.chain_adjacency(weights), True)
    kept = np.r_[40:64, 97:106]
    folded = np.r_[0:40, 64:97]
    cross = dense[np.ix_(folded, kept)]
    expected = np.diag(np.diag(dense)[kept]) - cross.T @ cross
    np.testing.assert_allclose(matrix[:33, :33], expected, atol=1e-14)
    # Two of the three last coordinates stand for the lone vertices of the folded half, with eigenvalue 0.
    np.testing.assert_array_equal(matrix[33:], 0)
    np.testing.assert_array_equal(support[33:], [True, True, False])
    assert set(isolated[:2]) == {7, 65}


@pytest.mark.parametrize("start", ["eigenvector 3", "eigenvector 2 and 4", "a lone unit", "nan"])
def test_starts_that_mislead(start: str, x64: None) -> None:
    weights = kernels(seed=3)
    values, columns = np.linalg.eigh(reference.dense_laplacian(reference.chain_adjacency(weights), True))
    init = {
        "eigenvector 3": columns[:, 3],
        "eigenvector 2 and 4": columns[:, 2] + columns[:, 4],
        "a lone unit": np.eye(len(values))[0],
        "nan": np.full(len(values), np.nan),
    }[start]
    found = solve(reference.chain_params(weights, "float64"), init)
    assert found.status == Status.CONVERGED
    np.testing.assert_allclose(found.values[0], values[1], rtol=1e-9)


def test_a_vector_found_before_is_a_start(x64: None) -> None:
    params = reference.chain_params(kernels(), "float64")
    # A row of zeros is no start.
    cold = solve(params, jnp.zeros(sum(SIZES)))
    warm = solve(params, cold.vectors[0])
    assert warm.residuals[0] <= cold.residuals[0]
    assert warm.iterations <= cold.iterations


@pytest.mark.parametrize(
    "solver",
    [
        fj.Dense(),
        pytest.param(fj.Lanczos(), marks=pytest.mark.slow),
        pytest.param(fj.PowerIteration(), marks=pytest.mark.slow),
    ],
    ids=lambda solver: type(solver).__name__,
)
def test_each_solver(solver: Any, x64: None) -> None:
    weights = kernels()
    found = solve(reference.chain_params(weights, "float64"), solver=solver)
    assert found.status == Status.CONVERGED
    expected = reference.spectrum(reference.chain_adjacency(weights), True)[1]
    np.testing.assert_allclose(found.values[0], expected, rtol=1e-9)


@pytest.mark.parametrize("noise", [0.0, 1e-7, 1e-4, 1e-2, 0.3])
def test_singular_values_near_zero(noise: float, dtype: str) -> None:
    # Of equal edges every nonzero eigenvalue but the largest is 1: σ is 0, and its square says little about it.
    rng = np.random.default_rng(0)
    kernel = (1 + noise * rng.uniform(-1, 1, (48, 32))).astype(dtype)
    params = reference.chain_params([kernel], dtype)
    pair = jax.jit(fj.fiedler_pair)(fj.laplacian(fj.graph_from_params(params), params))
    value = reference.spectrum(reference.chain_adjacency([kernel.astype(float)]), True)[1]
    assert pair.usable
    eps = np.finfo(dtype).eps
    tol = spectra.tolerance(dtype) if pair.converged else float(pair.floor)
    assert abs(float(pair.value) - value) <= tol * value + 8 * eps


@pytest.mark.parametrize("left", [1, 2, 3])
def test_a_half_with_too_few_connected_vertices_says_so(left: int, x64: None) -> None:
    dead = tuple((1, unit) for unit in range(24)) + tuple((3, unit) for unit in range(9 - left))
    weights = kernels(dead=dead)
    found = solve(reference.chain_params(weights, "float64"), ignore_isolated=True)
    adjacency = reference.chain_adjacency(weights)
    linked = adjacency.any(axis=1)
    spectrum = reference.spectrum(adjacency[np.ix_(linked, linked)], True)
    if left == 1:
        # The null vector is all there is of a star's hub; the other eigenvalues live on its leaves.
        assert found.status == Status.TOO_FEW_VERTICES
        assert not np.any(found.vectors)
        return
    assert found.status == Status.CONVERGED
    np.testing.assert_allclose([found.values[0], found.next_value], spectrum[1:3], rtol=1e-9)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_weights_that_are_not_finite(bad: float) -> None:
    weights = kernels()
    weights[1][0, 0] = bad
    assert solve(reference.chain_params(weights)).status == Status.NOT_FINITE


def test_odd_cycles_of_groups_are_not_folded(x64: None) -> None:
    rng = np.random.default_rng(0)
    params = {name: rng.uniform(-1, 1, (24, 24)) for name in ("ab", "bc", "ca")}
    graph = fj.graph_from_edges(params, [("ab", "a", "b"), ("bc", "b", "c"), ("ca", "c", "a")])
    lap = fj.laplacian(graph, params)
    assert fold(lap, 1, False) is None
    value = jax.jit(functools.partial(fj.fiedler_value, graph, solver=fj.Dense()))(params)
    np.testing.assert_allclose(value, np.linalg.eigvalsh(lap.to_dense())[1], rtol=1e-9)


def test_what_is_not_folded() -> None:
    params = reference.chain_params(kernels())
    assert fold(fj.laplacian(GRAPH, params, normalized=False), 1, False) is None
    # 33 vertices hold three eigenvalues and a guard, but are thought too few for more.
    assert fold(fj.laplacian(GRAPH, params), 4, False) is None


def test_parts_without_a_common_block_choose_their_halves_apart() -> None:
    params = {"first": jnp.ones((30, 20)), "second": jnp.ones((20, 40))}
    graph = fj.graph_from_edges(params, [("first", "a", "b"), ("second", "c", "d")])
    half = fold(fj.laplacian(graph, params), 1, False)
    assert half is not None
    sizes = [stop - start for start, stop in half.halves.kept]
    assert sizes == [20, 20]


@pytest.mark.parametrize("count", [250, pytest.param(1000, marks=pytest.mark.slow)])
def test_a_start_at_the_next_eigenvector_is_never_taken_for_the_answer(count: int, x64: None) -> None:
    # Half of such a net has 20 vertices, few enough that the guard turns sharp in the first products.
    sizes, draws = (24, 20, 24), np.random.default_rng(11)
    drawn = [reference.random_kernels(sizes, int(seed)) for seed in draws.integers(2**31, size=count)]
    values, columns = np.linalg.eigh([reference.dense_laplacian(reference.chain_adjacency(one), True) for one in drawn])
    stacked = jax.tree.map(
        lambda *leaves: jnp.stack(leaves), *(reference.chain_params(one, "float64") for one in drawn)
    )
    graph = fj.graph_from_params(reference.chain_params(drawn[0], "float64"))
    solve_each = jax.jit(jax.vmap(lambda params, init: fj.fiedler_pair(fj.laplacian(graph, params), init)))
    pairs = solve_each(stacked, jnp.asarray(columns[:, :, 2]))
    assert np.all(pairs.status == Status.CONVERGED)
    np.testing.assert_allclose(pairs.value, values[:, 1], rtol=1e-8)


def test_an_operator_that_is_called_even_has_one_number_on_its_diagonal() -> None:
    params = reference.chain_params(kernels(dead=((0, 7), (3, 4))))
    lap = fj.laplacian(GRAPH, params)
    half, whole = fold(lap, 1, False), _operator(lap, False, lap.upper_bound)
    assert half is not None
    for operator in (half.operator, whole):
        np.testing.assert_array_equal(np.unique(operator.diagonal), [0, operator.even])
    plain = fj.laplacian(GRAPH, params, normalized=False)
    assert _operator(plain, False, plain.upper_bound).even is None
