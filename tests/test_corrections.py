"""What the diagonal says of Ritz pairs, against plain NumPy."""

import jax.numpy as jnp
import numpy as np
import pytest
import reference
import scipy.linalg

from fiedler_jax import eigen
from fiedler_jax.eigen._basis import RitzPairs
from fiedler_jax.eigen._corrections import Pairs, corrections, is_uneven, is_vague, loosest, pairs_of, reach_of
from fiedler_jax.eigen._result import RitzReport, absent_value, accuracy_floor

DIAGONAL = np.array([0, 1, 2, 2.001, 4, 8])
VALUES = np.array([2.0, 0.5, 9, 0])


def operator_with(diagonal: np.ndarray) -> eigen.SymmetricOperator:
    return eigen.operator_from_matrix(jnp.diag(jnp.asarray(diagonal)))


def inverse_distances(least: float, values: np.ndarray = VALUES) -> np.ndarray:
    """One over how far the values are from the diagonal, but for those that are too near; zero where all is zero."""
    distance = np.maximum(abs(DIAGONAL - values[:, None]), least * DIAGONAL)
    return np.divide(1, distance, out=np.zeros_like(distance), where=distance > 0)


def vectors_and_residuals() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    vectors, rows = rng.normal(size=(2, 4, 6))
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True), 0.1 * rows


def pairs(operator: eigen.SymmetricOperator, values: np.ndarray, vectors: np.ndarray, rows: np.ndarray) -> Pairs:
    """Ritz pairs with these residual rows."""
    return pairs_of(operator, *map(jnp.asarray, (values, vectors, rows + values[:, None] * vectors)))


def test_corrections_are_olsens(x64: None) -> None:
    vectors, rows = vectors_and_residuals()
    operator = operator_with(DIAGONAL)
    found = np.asarray(corrections(operator, pairs(operator, VALUES, vectors, rows), jnp.eye(4)))
    along, steps = inverse_distances(0.003) * vectors, inverse_distances(0.003) * rows
    shift = np.sum(steps * vectors, axis=1) / np.sum(along * vectors, axis=1)
    np.testing.assert_allclose(found, steps - shift[:, None] * along, rtol=1e-9, atol=1e-12)
    # At no coordinate of a zero diagonal is there anything to be had, nor from a vector that sits there.
    np.testing.assert_array_equal(found[3, 0], 0)
    alone = np.zeros_like(vectors)
    alone[:, 0] = 1
    found = corrections(operator, pairs(operator, np.zeros(4), alone, rows), jnp.eye(4)[2:])
    np.testing.assert_allclose(found, rows[2:] / np.where(DIAGONAL > 0, DIAGONAL, np.inf), rtol=1e-12)


def test_by_an_even_diagonal_residuals_are_corrections_as_they_stand(x64: None) -> None:
    vectors, rows = vectors_and_residuals()
    rows -= np.sum(rows * vectors, axis=1, keepdims=True) * vectors
    operator = operator_with(np.full(6, 2.0))
    for values in (VALUES[:2] + 0.1, np.array([1.9, 2])):
        found, expected = (
            corrections(it, pairs(it, values, vectors[:2], rows[:2]), jnp.eye(2)[::-1])
            for it in (operator._replace(even=2.0), operator)
        )
        # Their length is no matter.
        found, expected = (x / np.linalg.norm(x, axis=1, keepdims=True) for x in (found, expected))
        np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-12)
    # Nor are coordinates of a zero diagonal.
    isolated = operator_with(np.array([2.0] * 5 + [0]))._replace(even=2.0)
    found = corrections(isolated, pairs(isolated, VALUES[:2], vectors[:2], rows[:2]), jnp.eye(2))
    np.testing.assert_allclose(found, rows[:2], rtol=1e-9)


def test_a_pair_comes_down_by_what_a_correction_takes_and_at_most_by_the_residual(x64: None) -> None:
    vectors, rows = vectors_and_residuals()
    for scale in (0.01, 100):
        found = reach_of(pairs(operator_with(DIAGONAL), VALUES, vectors, scale * rows))
        second_order = scale**2 * np.sum(inverse_distances(0.1) * rows**2, axis=1)
        length = scale * np.linalg.norm(rows, axis=1)
        assert np.all(second_order < length) == (scale < 1)
        np.testing.assert_allclose(found, np.minimum(second_order, length), rtol=1e-9)


def test_a_residual_says_nothing_beside_seven_tenths_of_the_value(x64: None) -> None:
    vectors, rows = vectors_and_residuals()
    operator, even = operator_with(DIAGONAL), operator_with(np.full(6, 2.0))
    values = np.array([2.0, 0.5, 3, 3])
    weights = inverse_distances(1, values)
    share = np.sqrt(np.sum(weights * rows**2, axis=1) / np.sum(weights * vectors**2, axis=1)) / values
    plain = np.linalg.norm(rows, axis=1) / values
    for factor, vague in ((0.69, False), (0.71, True)):
        # Of the last nothing is said.
        for it, shares in ((operator, share), (even, plain), (even._replace(even=2.0), plain)):
            found = is_vague(it, pairs(it, values, vectors, rows * (factor / shares)[:, None]), 3)
            assert found.tolist() == [vague] * 3 + [False]


@pytest.mark.parametrize(("most", "uneven"), [(3.9, False), (4.1, True)])
def test_an_uneven_diagonal_has_entries_more_than_twice_as_large_as_others(most: float, uneven: bool) -> None:
    operator = operator_with(np.array([2, most, 3, 0]))._replace(support=jnp.arange(4) < 3)
    operator = operator._replace(upper_bound=2 * operator.upper_bound)
    assert bool(is_uneven(operator)) is uneven


WANTED, KEPT = 2, 10


def with_loose_part(tie: float) -> np.ndarray:
    """The Laplacian of a dense graph with two leaves, and three vertices that hang together by heavy edges."""
    upper = np.random.default_rng(0).uniform(0.5, 1, (20, 20))
    upper[:3] *= tie
    upper[:2, 1:3] *= 30 / tie
    upper[:, 18:] *= 1e-4
    upper = np.triu(upper, 1)
    return reference.dense_laplacian(upper + upper.T, False)


def with_a_part_of_it(rows: int) -> np.ndarray:
    """A basis (rows, 20) that holds the null vector and the leaves, and nearly the indicator of the three."""
    basis = np.random.default_rng(1).normal(size=(rows, 20))
    basis[:, 18:] = 0
    basis[:3] = [np.ones(20), *np.eye(20)[18:]]
    basis[3] = 0.1 * basis[3] + (np.arange(20) < 3)
    return np.linalg.qr(basis.T)[0].T


def loosest_in_numpy(matrix: np.ndarray, basis: np.ndarray, free: np.ndarray) -> tuple[np.ndarray, float]:
    """Of a basis the mixtures of free rows that lead furthest out of it, ascending, and how far the last does."""
    degrees = np.diag(matrix)
    weights, mixing = scipy.linalg.eigh((free * degrees) @ free.T, free @ matrix @ free.T)
    v = mixing.T @ free
    averaged = v @ matrix / degrees
    bent = weights * np.sum(degrees * averaged**2, axis=1) - 1
    if np.max(bent) > 1:
        # In the norm of D, in which least squares tell what the basis does not hold.
        root = np.sqrt(degrees)
        held, *_ = np.linalg.lstsq((root * basis).T, (root * averaged).T, rcond=None)
        bent = weights * np.sum(degrees * (averaged - held.T @ basis) ** 2, axis=1)
    order = np.argsort(bent)
    return (v - averaged)[order], bent[order][-1]


# The loosest leads out by 1.05, 0.95 and 0.6; by 1.3 and 1.2 if the basis held nothing of where it leads.
@pytest.mark.parametrize(("tie", "falling"), [(0.19, True), (0.2, False), (1, False)])
def test_the_loosest_mixtures_lead_furthest_out_of_the_basis(tie: float, falling: bool, x64: None) -> None:
    rows = 13
    matrix = with_loose_part(tie)
    operator = eigen.operator_from_matrix(jnp.asarray(matrix))
    absent, floor = float(absent_value(operator)), float(accuracy_floor(operator))
    # The last rows of the basis do not exist, and its first does not count.
    basis = np.pad(with_a_part_of_it(rows), ((0, 2), (0, 0)))
    projected = basis @ matrix @ basis.T
    values, coefficients = np.linalg.eigh(projected + np.diag([absent] + [0] * (rows - 1) + [absent] * 2))
    # One pair can come down by too little, one has no residual, and one no value.
    known, residuals, reach = values[:KEPT].copy(), np.ones(KEPT), np.ones(KEPT)
    reach[4:6] = values[4:6] * [0.009, 0.011]
    residuals[6] = known[7] = floor / 2
    free = coefficients.T[[i for i in range(WANTED, rows - 1) if i not in (4, 6, 7)]] @ basis
    expected, most = loosest_in_numpy(matrix, basis[:rows], free)
    found = loosest(
        operator,
        RitzPairs(jnp.asarray(values), jnp.asarray(coefficients)),
        jnp.asarray(basis),
        jnp.asarray(basis @ matrix),
        jnp.asarray(projected),
        RitzReport(*map(jnp.asarray, (known, residuals, reach))),
        WANTED,
    )
    assert bool(found.falling) is bool(most > 1) is falling
    for row, mixing, right in zip(found.rows, found.mixing, expected[:-3:-1], strict=True):
        np.testing.assert_allclose(row, right * np.sign(row @ right), rtol=1e-6, atol=1e-9)
        mixture = np.asarray(mixing) @ basis
        np.testing.assert_allclose(mixture @ matrix @ mixture, 1, rtol=1e-9)
        np.testing.assert_allclose(mixture - mixture @ matrix / np.diag(matrix), row, rtol=1e-9, atol=1e-12)
