"""Derivatives of the Fiedler value, and the penalties made from it, against the dense oracle."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import reference
from spectra import BOTH

import fiedler_jax as fj
from fiedler_jax import eigen

pytestmark = pytest.mark.crossed


@BOTH
def test_the_gradient_agrees_with_central_differences(normalized: bool, x64: None) -> None:
    kernels = reference.random_kernels((7, 6, 5, 3), seed=4)
    params = reference.chain_params(kernels, "float64")
    graph = fj.graph_from_params(params)
    value = functools.partial(fj.fiedler_value, graph, normalized=normalized, solver=fj.Dense())
    gradient = jax.jit(jax.grad(value))(jax.tree.map(jnp.asarray, params))
    step = 1e-5
    for i, kernel in enumerate(kernels):
        assert jnp.all(gradient[f"Dense_{i}"]["bias"] == 0)
        for j in np.ndindex(kernel.shape):
            ends = []
            for sign in (1, -1):
                moved = [k.copy() for k in kernels]
                moved[i][j] += sign * step
                ends.append(reference.spectrum(reference.chain_adjacency(moved), normalized)[1])
            expected = (ends[0] - ends[1]) / (2 * step)
            np.testing.assert_allclose(gradient[f"Dense_{i}"]["kernel"][j], expected, atol=1e-6)


def test_a_graph_may_be_an_argument_of_what_is_transformed() -> None:
    params = reference.chain_params(reference.random_kernels((4, 3, 2)))
    graph = fj.graph_from_params(params)
    value = functools.partial(fj.fiedler_value, solver=fj.Dense())
    expected = jax.jit(jax.value_and_grad(lambda p: value(graph, p)))(params)
    jitted = jax.jit(jax.value_and_grad(value, argnums=1))
    for same in (graph, fj.graph_from_params(params)):
        jax.tree.map(np.testing.assert_array_equal, jitted(same, params), expected)
    assert jitted._cache_size() == 1  # pyright: ignore[reportAttributeAccessIssue]
    assert jax.tree.leaves(graph) == []


@BOTH
def test_the_gradient_is_the_published_formula(normalized: bool, x64: None) -> None:
    kernels = reference.random_kernels((9, 6, 4), seed=1)
    kernels[0][2, 3] = 0
    params = jax.tree.map(jnp.asarray, reference.chain_params(kernels, "float64"))
    graph = fj.graph_from_params(params)
    values, columns = np.linalg.eigh(reference.dense_laplacian(reference.chain_adjacency(kernels), normalized))
    y = columns[:, 1]
    if normalized:
        y = y / np.sqrt(reference.chain_adjacency(kernels).sum(axis=1))
    squares = (y[:, None] - y) ** 2 - normalized * values[1] * (y[:, None] ** 2 + y**2)
    gradient = jax.jit(jax.grad(lambda p: fj.fiedler_value(graph, p, normalized=normalized)))(params)
    coefficients = fj.l1_coefficients(graph, params, jnp.asarray(columns[:, 1]), normalized=normalized, strength=3.0)
    for name, block, kernel in [
        ("Dense_0", squares[:9, 9:15], kernels[0]),
        ("Dense_1", squares[9:15, 15:], kernels[1]),
    ]:
        np.testing.assert_allclose(gradient[name]["kernel"], block * np.sign(kernel), atol=1e-5)
        np.testing.assert_allclose(coefficients[name]["kernel"], 3 * block, atol=3e-5)
        assert coefficients[name]["bias"].shape == ()
        assert coefficients[name]["bias"] == 0


@BOTH
def test_the_three_forms_of_the_penalty_agree(normalized: bool, x64: None) -> None:
    params = jax.tree.map(jnp.asarray, reference.chain_params(reference.random_kernels((9, 6, 4)), "float64"))
    graph = fj.graph_from_params(params)
    vector = fj.fiedler_pair(fj.laplacian(graph, params, normalized=normalized), solver=fj.Dense()).vector
    value = functools.partial(fj.fiedler_value, graph, normalized=normalized, solver=fj.Dense())
    frozen = functools.partial(fj.variational_penalty, graph, vectors=vector, normalized=normalized)
    np.testing.assert_allclose(value(params), frozen(params), rtol=1e-12)
    by_value, by_vector = jax.jit(jax.grad(value))(params), jax.jit(jax.grad(lambda p: frozen(params=p)))(params)
    coefficients = fj.l1_coefficients(graph, params, vector, normalized=normalized)
    signed = jax.tree.map(lambda c, w: c * jnp.sign(w), coefficients, params)
    for a, b, c in zip(*map(jax.tree.leaves, (by_value, by_vector, signed)), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-12)
        np.testing.assert_allclose(a, c, atol=1e-10)
    total = sum(jnp.sum(c * jnp.abs(w)) for c, w in zip(*map(jax.tree.leaves, (coefficients, params)), strict=True))
    np.testing.assert_allclose(total, 0 if normalized else value(params), atol=1e-10)


@BOTH
def test_the_variational_penalty_bounds_the_value_from_above_and_adds_rows(normalized: bool, x64: None) -> None:
    params = reference.chain_params(reference.random_kernels((9, 6, 4)), "float64")
    graph = fj.graph_from_params(params)
    pair = fj.fiedler_pair(fj.laplacian(graph, params, normalized=normalized), solver=fj.Dense())
    moved = jax.tree.map(lambda w: w * 1.01 if w.shape == (6, 4) else w * 0.99, params)
    if not normalized:
        bound = fj.variational_penalty(graph, moved, pair.vector, normalized=False)
        assert bound >= fj.fiedler_value(graph, moved, normalized=False, solver=fj.Dense())
    rows = jnp.stack([pair.vector, -2 * pair.vector])
    np.testing.assert_allclose(
        fj.variational_penalty(graph, params, rows, normalized=normalized), 5 * pair.value, rtol=1e-6
    )


@BOTH
def test_gradients_are_finite_with_dead_units(normalized: bool, dtype: str) -> None:
    kernels = reference.random_kernels((8, 6, 4))
    kernels[0][:, 1] = 0
    kernels[1][1] = 0
    params = jax.tree.map(jnp.asarray, reference.chain_params(kernels, dtype))
    graph = fj.graph_from_params(params)
    value = functools.partial(fj.fiedler_value, graph, normalized=normalized, ignore_isolated=True, solver=fj.Dense())
    gradient = jax.jit(jax.grad(value))(params)
    assert all(jnp.all(jnp.isfinite(leaf)) for leaf in jax.tree.leaves(gradient))
    assert jnp.any(gradient["Dense_0"]["kernel"] != 0)
    assert jnp.all(gradient["Dense_0"]["kernel"][:, 1] == 0)


@pytest.mark.parametrize(("k", "normalized"), [(2, True), (4, False)])
def test_several_eigenpairs_and_the_gradient_of_their_sum(k: int, normalized: bool, x64: None) -> None:
    kernels = reference.random_kernels((9, 6, 4), seed=1)
    params = jax.tree.map(jnp.asarray, reference.chain_params(kernels, "float64"))
    graph = fj.graph_from_params(params)
    lap = fj.laplacian(graph, params, normalized=normalized)
    values, columns = np.linalg.eigh(reference.dense_laplacian(reference.chain_adjacency(kernels), normalized))
    pairs = jax.jit(fj.laplacian_eigenpairs, static_argnums=1)(lap, k)
    np.testing.assert_allclose(pairs.values, values[1 : k + 1], rtol=1e-9)
    np.testing.assert_allclose(np.abs(pairs.vectors @ columns[:, 1 : k + 1]), np.eye(k), atol=1e-4)
    total = functools.partial(fj.fiedler_value, graph, normalized=normalized, num_eigenvalues=k, solver=fj.Dense())
    found, gradient = jax.jit(jax.value_and_grad(total))(params)
    np.testing.assert_allclose(found, values[1 : k + 1].sum(), rtol=1e-12)
    step, there = 1e-5, (1, 2)
    ends = []
    for sign in (1, -1):
        moved = [kernel.copy() for kernel in kernels]
        moved[0][there] += sign * step
        ends.append(reference.spectrum(reference.chain_adjacency(moved), normalized)[1 : k + 1].sum())
    np.testing.assert_allclose(gradient["Dense_0"]["kernel"][there], (ends[0] - ends[1]) / (2 * step), atol=1e-6)


def test_several_eigenvalues_keep_pulling_after_a_disconnection(x64: None) -> None:
    # Three complete graphs, two of them joined: λ2 is zero, λ3 is not.
    adjacency = np.kron(np.eye(3), 1 - np.eye(4))
    adjacency[0, 4] = adjacency[4, 0] = 0.1
    lap = fj.laplacian_from_adjacency(adjacency)
    values = fj.laplacian_eigenpairs(lap, 2).values
    np.testing.assert_allclose(values, reference.spectrum(adjacency, False)[1:3], atol=1e-12)
    assert values[1] > 0.01

    def total(weight: jax.Array) -> jax.Array:
        joined = jnp.asarray(adjacency).at[0, 4].set(weight).at[4, 0].set(weight)
        return jnp.sum(fj.laplacian_eigenpairs(fj.laplacian_from_adjacency(joined), 2).values)

    assert jax.grad(total)(0.1) > 0.1


def test_a_start_that_depends_on_the_weights_has_no_part_in_the_derivative(x64: None) -> None:
    path = np.eye(6, k=1) + np.eye(6, k=-1)

    def value(scale: jax.Array) -> jax.Array:
        start = scale * jnp.arange(6.0)
        return fj.fiedler_pair(fj.laplacian_from_adjacency(scale * path), start).value

    expected = 2 - 2 * np.cos(np.pi / 6)
    np.testing.assert_allclose(jax.jvp(value, (1.0,), (1.0,)), [expected] * 2, rtol=1e-8)
    np.testing.assert_allclose(jax.grad(value)(1.0), expected, rtol=1e-8)


def test_test_vectors_are_held_constant() -> None:
    params = reference.chain_params(reference.random_kernels((4, 3, 2)), "float32")
    graph = fj.graph_from_params(params)
    # The vectors of a solve depend on the weights, and the penalty's derivative leaves that out.
    slope = jax.grad(lambda vector: fj.variational_penalty(graph, params, vector))(jnp.arange(9.0))
    np.testing.assert_array_equal(slope, 0)


def test_what_is_asked_of_a_value_reaches_the_solve_and_what_is_not_is_the_default() -> None:
    kernels = reference.random_kernels((5, 4, 3))
    kernels[0][0] = 0
    params = reference.chain_params(kernels, "float32")
    graph = fj.graph_from_params(params)

    def asked(**settings: bool) -> float:
        return float(fj.fiedler_value(graph, params, solver=fj.Dense(), **settings))

    assert asked() == asked(normalized=True, ignore_isolated=False) < 1e-6
    combinatorial = asked(normalized=False, ignore_isolated=True)
    lap = fj.laplacian(graph, params, normalized=False)
    assert combinatorial == fj.fiedler_pair(lap, solver=fj.Dense(), ignore_isolated=True).value > 1e-2
    assert asked(ignore_isolated=True) != combinatorial
    assert fj.laplacian(graph, params).normalized
    assert not fj.laplacian_from_adjacency(np.eye(3)).normalized
    rows = jnp.arange(12.0)
    for penalty in (fj.variational_penalty, fj.l1_coefficients):
        default, normalized = penalty(graph, params, rows), penalty(graph, params, rows, normalized=True)
        jax.tree.map(np.testing.assert_array_equal, default, normalized)
    with pytest.raises(ZeroDivisionError):
        fj.fiedler_value(graph, params, solver=Failing())


class Failing:
    """A solver that shows that it was asked."""

    def solve(self, operator: eigen.SymmetricOperator, num: int = 1, **start: jax.Array | None) -> eigen.EigenResult:
        raise ZeroDivisionError
