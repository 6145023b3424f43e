"""The default solver: how it ends, and how many products it takes where a rule saves some."""

import functools

import jax
import jax.numpy as jnp
import networkx as nx
import numpy as np
import pytest
from spectra import fiedler, padded

import fiedler_jax as fj
from benchmarks.misleading import cliques
from fiedler_jax import Status, eigen
from fiedler_jax.eigen import _davidson


@jax.jit
def solve_operator(matrix: jax.Array, bound: jax.Array) -> eigen.EigenResult:
    return fj.Davidson().solve(eigen.operator_from_matrix(matrix)._replace(upper_bound=bound))


@pytest.mark.parametrize(("entry", "bound"), [(np.nan, 40.0), (np.inf, 40.0), (1.0, np.inf), (1.0, np.nan)])
def test_what_is_not_finite_shows_in_products_or_in_the_bound(entry: float, bound: float) -> None:
    matrix = np.diag(1 + np.arange(40.0))
    matrix[3, 4] = matrix[4, 3] = entry
    result = solve_operator(jnp.asarray(matrix, jnp.float32), jnp.float32(bound))
    assert result.status == Status.NOT_FINITE
    assert result.iterations == 1


def test_targets_that_are_accurate_are_not_found_before_enough_products_were_made() -> None:
    # Four leaves of about one weight, within two hundred floors of zero: all is sharp after three products.
    upper = np.triu(np.ones((40, 40)), 1)
    upper[:, 36:] = 0
    upper[np.arange(4), np.arange(36, 40)] = 0.02 * (1 + np.arange(4))
    whole = fiedler(upper + upper.T, False, "float32")
    assert whole.converged
    assert whole.iterations == 8
    stopped = fiedler(upper + upper.T, False, "float32", solver=fj.Davidson(max_iterations=6))
    assert stopped.iterations == 7
    assert stopped.status == Status.ITERATION_LIMIT
    np.testing.assert_allclose(stopped.value, whole.value, rtol=1e-6)


def test_two_vertices_among_isolated_ones_are_all_there_is(dtype: str) -> None:
    pair = fiedler(padded(0.25 * (1 - np.eye(2))), False, dtype, ignore_isolated=True)
    assert pair.converged
    np.testing.assert_allclose(pair.value, 0.5, rtol=1e-6)
    assert pair.next_value == np.inf


def test_on_an_even_diagonal_what_is_loose_is_not_awaited(x64: None) -> None:
    pair = fiedler(nx.to_numpy_array(nx.path_graph(100)), True, "float64")
    assert pair.converged
    assert pair.iterations <= 80


def test_a_value_that_is_rounding_is_the_lowest_at_once() -> None:
    # Nothing lies below it, though what hangs together heavily has not come down yet.
    (adjacency,) = cliques(np.random.default_rng(6))
    pair = fiedler(adjacency, False, "float32")
    assert pair.status == Status.ACCURACY_FLOOR
    assert pair.value < pair.floor
    assert pair.iterations == 1


def test_what_rounding_settles_is_not_followed_on(dtype: str) -> None:
    # Three parts that hang together by edges of a few floors, whose values can be told from zero but not apart.
    upper = np.triu(np.kron(np.eye(3), np.random.default_rng(0).uniform(0.5, 1, (12, 12))), 1)
    upper[11, 12] = upper[23, 24] = 8e3 * np.finfo(dtype).eps
    pair = fiedler(padded(upper + upper.T), False, dtype, ignore_isolated=True)
    assert pair.status == Status.ACCURACY_FLOOR
    assert pair.value > pair.floor
    assert pair.iterations <= 16


def test_eight_start_rows_are_not_all_that_a_solve_begins_with(x64: None) -> None:
    # As many as a block has, all of them exact higher eigenvectors.
    values = np.concatenate([[0.2], np.linspace(0.5, 4, 39)])
    columns, _ = np.linalg.qr(np.random.default_rng(0).normal(size=(40, 40)))
    operator = eigen.operator_from_matrix(jnp.asarray((columns * values) @ columns.T))
    result = jax.jit(functools.partial(fj.Davidson().solve, operator))(start=jnp.asarray(columns[:, 1:9].T))
    assert result.status == Status.CONVERGED
    np.testing.assert_allclose(result.values, values[:1], rtol=1e-9)


def test_what_is_loose_is_looked_for_unless_the_diagonal_is_called_even(monkeypatch: pytest.MonkeyPatch) -> None:
    def looked(*_: object) -> None:
        raise LookupError

    monkeypatch.setattr(_davidson, "loosest", looked)
    operator = eigen.operator_from_matrix(jnp.diag(jnp.arange(1.0, 20.0)))
    with pytest.raises(LookupError):
        fj.Davidson().solve(operator)
    eye = jnp.eye(19)
    operator = eigen.operator_from_matrix(3 * eye - jnp.roll(eye, 1, axis=0) - jnp.roll(eye, -1, axis=0))
    with pytest.raises(LookupError):
        fj.Davidson().solve(operator)
    np.testing.assert_allclose(fj.Davidson().solve(operator._replace(even=3.0)).values, [1], rtol=1e-6)


@pytest.mark.parametrize("even", [None, 3.0])
def test_a_basis_that_begins_anew_owes_nothing_to_what_it_leaves_behind(even: float | None, x64: None) -> None:
    rng = np.random.default_rng(0)
    matrix = rng.normal(size=(40, 40)) / 40
    matrix = matrix + matrix.T + 3 * np.eye(40) - np.diag(np.diag(matrix + matrix.T))
    operator = eigen.operator_from_matrix(jnp.asarray(matrix))._replace(even=even)
    shape = _davidson._Shape(wanted=2, corrected=5, block=8, kept=11)

    def stepped(state: _davidson._State) -> _davidson._State:
        return _davidson._improve(operator, _davidson._expand(operator, state), shape, 1e-9)

    state = _davidson._begin(operator, jnp.asarray(rng.normal(size=(8, 40))), jnp.zeros((0, 40)), shape)
    state = stepped(stepped(state))
    rows = np.asarray(state.basis[1:9])
    # Products that have drifted as far as can be.
    spoiled = state.products + jnp.asarray(rng.normal(size=state.products.shape))
    found = stepped(state._replace(products=spoiled, joining=state.basis[1:9], anew=jnp.ones((), bool)))
    np.testing.assert_allclose(found.report.values[:8], np.linalg.eigvalsh(rows @ matrix @ rows.T), rtol=1e-12)
    np.testing.assert_allclose(found.products[1:9], found.basis[1:9] @ matrix, atol=1e-12)
    np.testing.assert_allclose(found.basis[1:9] @ found.basis[1:9].T, np.eye(8), atol=1e-12)
    assert np.all(np.asarray(found.basis[9:]) == 0)
    assert int(found.matvecs) == int(state.matvecs) + 8
