"""The rules by which the default solver knows that no eigenvalue is missing, on reports that are made up."""

from collections.abc import Sequence

import jax.numpy as jnp
import numpy as np
import pytest

from fiedler_jax import eigen
from fiedler_jax.eigen._missing import Evidence, given_at_start, is_shown
from fiedler_jax.eigen._result import RitzReport, absent_value, accuracy_floor

INF = np.inf
# 16 eps times the bound of the spectrum, which is 8.
FLOOR = 16 * float(np.finfo(float).eps) * 8


def diagonal_operator() -> eigen.SymmetricOperator:
    operator = eigen.operator_from_matrix(jnp.diag(jnp.array([2.0, 4, 8, 0])))
    assert float(accuracy_floor(operator)) == FLOOR
    return operator


def report_of(values: Sequence[float], residuals: Sequence[float]) -> RitzReport:
    return RitzReport(jnp.asarray(values, float), jnp.asarray(residuals, float), jnp.asarray(residuals, float))


@pytest.mark.parametrize(
    ("value", "residual", "at", "near"),
    [
        # To a hundredth of the diagonal where the vector sits, or of the value where that is more.
        (1, 0.019, 0, True),
        (1, 0.021, 0, False),
        (1, 0.039, 1, True),
        (5, 0.049, 1, True),
        (5, 0.051, 1, False),
        # Or to rounding.
        (0, 0.9 * FLOOR, 3, True),
        (0, 1.1 * FLOOR, 3, False),
        # A direction that does not exist was not given.
        (32, 0, 1, False),
    ],
)
def test_a_pair_that_is_nearly_exact_counts_as_given(
    value: float, residual: float, at: int, near: bool, x64: None
) -> None:
    operator = diagonal_operator()
    assert float(absent_value(operator)) == 32
    found = given_at_start(operator, report_of([value], [residual]), jnp.zeros((1, 4)).at[0, at].set(1))
    lower = value - residual - 1e-3 * value - FLOOR
    np.testing.assert_allclose(found, [lower if near else INF], rtol=1e-12)


def test_by_its_value_a_pair_must_be_nearer_where_tolerances_are_stricter(x64: None) -> None:
    operator = diagonal_operator()._replace(tolerance_scale=lambda values: jnp.full_like(values, 0.5))
    # Half in one coordinate, half in another, whose diagonal is 5 in the mean.
    vectors = jnp.zeros((3, 4)).at[:, 0].set(0.5**0.5).at[:, 2].set(0.5**0.5)
    report = report_of([6, 6, 12], [0.049, 0.051, 0.059])
    found = given_at_start(operator, report, vectors)
    np.testing.assert_allclose(found, [6 - 0.049 - 3e-3 - FLOOR, INF, 12 - 0.059 - 6e-3 - FLOOR], rtol=1e-12)


NONE, ONE, TWO = (INF, INF, INF), (0.9, INF, INF), (0.9, 1.9, INF)


@pytest.mark.parametrize(
    ("residuals", "given", "products", "shown"),
    [
        # Where none was given the guard must be sharp, and how far it is clear is no matter here.
        ((0, 0.05, 9), NONE, 1, True),
        ((0, 0.07, 0), NONE, 1, False),
        # Where one was, a second product has to be made, and the next pair must be clear but may be less sharp.
        ((0, 0.11, 9), ONE, 2, True),
        ((0, 0.13, 0), ONE, 2, False),
        ((0, 0.05, 0), ONE, 1, False),
        # Where two were, all up to the third.
        ((0, 0, 0.17), TWO, 2, True),
        ((0, 0, 0.19), TWO, 2, False),
        ((0, 0.13, 0), TWO, 2, False),
        # Where all were, nothing is left to look at.
        ((0, 9, 9), (0.9, 1.9, 2.9), 1, True),
        # What was given counts only for the pairs at or above its lower end.
        ((0, 0.11, 9), (0.9, 2.1, INF), 2, True),
        ((0, 0.11, 9), (0.9, 2, INF), 2, False),
    ],
)
def test_what_was_not_given_shows_itself(
    residuals: tuple[float, ...], given: tuple[float, ...], products: int, shown: bool, x64: None
) -> None:
    assert bool(is_shown_of((1, 2, 3), residuals, given=given, products=products)) is shown


def is_shown_of(
    values: Sequence[float],
    residuals: Sequence[float],
    given: Sequence[float] = NONE,
    *,
    falling: bool = False,
    fell: bool = False,
    products: int = 100,
    num: int = 1,
) -> bool:
    evidence = Evidence(jnp.asarray(given), jnp.asarray(falling), jnp.asarray(fell), jnp.asarray(products))
    settled = jnp.asarray(FLOOR)
    return bool(is_shown(diagonal_operator(), report_of(values, residuals), evidence, num, 1e-6, settled))


def test_targets_are_not_what_shows_that_none_is_missing(x64: None) -> None:
    # Of two targets the guard is the third pair, whatever the second is like.
    assert is_shown_of((1, 2, 3), (0, 9, 0.08), num=2)
    assert not is_shown_of((1, 2, 3), (0, 0, 0.1), num=2)


@pytest.mark.parametrize(
    ("floors", "falling", "fell", "least"),
    [
        (199, False, False, 8),
        (201, False, False, 1),
        (199, True, False, 100),
        (201, True, False, 100),
        (201, False, True, 100),
    ],
)
def test_how_many_products_are_made_at_least(floors: float, falling: bool, fell: bool, least: int, x64: None) -> None:
    for products in (least - 1, least):
        shown = is_shown_of((floors * FLOOR, 2, 3), (0, 0, 0), falling=falling, fell=fell, products=products)
        assert shown is (products == least)
