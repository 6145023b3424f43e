"""The solvers on operators with known spectra."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import spectra
from hypothesis import example, given, settings
from hypothesis import strategies as st

from fiedler_jax import eigen, errors
from fiedler_jax.eigen import Status
from fiedler_jax.eigen._result import (
    RitzReport,
    absent_value,
    accuracy_floor,
    assess,
    conclude,
    settled_residual,
    stands_clear,
)

ITERATIVE = [eigen.Davidson(), eigen.Lanczos(), eigen.PowerIteration()]
SOLVERS = [*ITERATIVE, eigen.Dense()]
EACH = pytest.mark.parametrize("solver", SOLVERS, ids=lambda s: type(s).__name__)
# Of what all solvers take from the same functions, the first to compile stands for the others by default.
EACH_SPARINGLY = pytest.mark.parametrize(
    "solver",
    [
        pytest.param(s, marks=pytest.mark.slow if isinstance(s, eigen.Lanczos) else [], id=type(s).__name__)
        for s in SOLVERS
    ],
)
EACH_ITERATIVE = pytest.mark.parametrize("solver", ITERATIVE, ids=lambda s: type(s).__name__)


def with_spectrum(values: np.ndarray, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """A symmetric matrix with the given eigenvalues, and its eigenvectors as rows."""
    q, _ = np.linalg.qr(np.random.default_rng(seed).normal(size=(len(values), len(values))))
    return (q * values) @ q.T, q.T


@functools.cache
def runner(solver: eigen.Solver, num: int) -> Callable[..., eigen.EigenResult]:
    """One compiled solve for each solver, shared by the tests."""

    def run(
        matrix: jax.Array, init: jax.Array, start: jax.Array, null: jax.Array, support: jax.Array
    ) -> eigen.EigenResult:
        operator = eigen.operator_from_matrix(matrix, null)._replace(support=support)
        return solver.solve(operator, num, init=init, start=start)

    return jax.jit(run)


def solve(
    solver: eigen.Solver,
    matrix: np.ndarray,
    dtype: str,
    num: int = 1,
    *,
    init: np.ndarray | None = None,
    start: np.ndarray | None = None,
    null: np.ndarray | None = None,
    support: np.ndarray | None = None,
) -> eigen.EigenResult:
    n = len(matrix)
    rows = [np.zeros((1, n)) if given is None else np.atleast_2d(given) for given in (init, start)]
    null = np.zeros(n) if null is None else null
    inside = np.ones(n, bool) if support is None else support
    return runner(solver, num)(*(jnp.asarray(x, dtype) for x in (matrix, *rows, null)), jnp.asarray(inside))


@EACH
@pytest.mark.parametrize("num", [pytest.param(1, marks=pytest.mark.slow), 3])
def test_the_smallest_pairs_and_what_is_said_of_them(solver: eigen.Solver, num: int, dtype: str) -> None:
    values = np.concatenate([[0.2, 0.5, 0.9, 1.5], np.linspace(2, 4, 36)])
    matrix, _ = with_spectrum(values)
    result = solve(solver, matrix, dtype, num)
    assert Status(int(result.status)) is Status.CONVERGED
    narrow = spectra.narrow(dtype)
    np.testing.assert_allclose(result.values, values[:num], rtol=spectra.tolerance(dtype), atol=float(result.floor))
    np.testing.assert_allclose(result.next_value, values[num], rtol=3e-3)
    vectors = np.asarray(result.vectors, np.float64)
    np.testing.assert_allclose(vectors @ vectors.T, np.eye(num), atol=1e-5 if narrow else 1e-12)
    rows = vectors @ matrix - np.asarray(result.values)[:, None] * vectors
    np.testing.assert_allclose(result.residuals, np.linalg.norm(rows, axis=1), atol=5e-6 if narrow else 1e-13)
    assert result.values.dtype == result.vectors.dtype == dtype
    assert int(result.matvecs) >= int(result.iterations) >= 1


@EACH
def test_the_null_vector_is_left_out(solver: eigen.Solver, dtype: str) -> None:
    matrix, vectors = with_spectrum(np.concatenate([[0.0, 0.3], np.linspace(1, 2, 38)]))
    result = solve(solver, matrix, dtype, init=vectors[0], start=vectors[0], null=vectors[0])
    np.testing.assert_allclose(result.values, [0.3], rtol=1e-5)
    assert abs(float(result.vectors[0] @ vectors[0])) < 1e-5


@EACH_SPARINGLY
def test_vectors_stay_on_the_support(solver: eigen.Solver) -> None:
    blocks = np.zeros((40, 40))
    blocks[:20, :20], _ = with_spectrum(np.linspace(1, 2, 20))
    blocks[20:, 20:], _ = with_spectrum(np.linspace(0.1, 2, 20), seed=1)
    result = solve(solver, blocks, "float32", support=np.arange(40) < 20)
    np.testing.assert_allclose(result.values, [1.0], rtol=1e-5)
    assert jnp.all(result.vectors[0, 20:] == 0)


@EACH_ITERATIVE
@pytest.mark.parametrize("given", ["init", "start"])
@pytest.mark.parametrize("at", [1, 2, 5])
def test_an_exact_higher_eigenvector_does_not_mislead(solver: eigen.Solver, at: int, given: str, dtype: str) -> None:
    values = np.concatenate([[0.2, 0.5, 0.6, 0.7, 0.8], np.linspace(2, 4, 35)])
    matrix, vectors = with_spectrum(values)
    result = solve(solver, matrix, dtype, **{given: vectors[at]})
    np.testing.assert_allclose(result.values, values[:1], rtol=1e-5)
    assert Status(int(result.status)) is Status.CONVERGED


@EACH
def test_a_multiple_smallest_value(solver: eigen.Solver, dtype: str) -> None:
    values = np.concatenate([[0.5, 0.5, 0.5], np.linspace(1, 2, 37)])
    matrix, _ = with_spectrum(values)
    result = solve(solver, matrix, dtype)
    np.testing.assert_allclose(result.values, [0.5], rtol=1e-5)
    assert Status(int(result.status)) in (Status.CONVERGED, Status.ACCURACY_FLOOR)


def test_davidson_returns_every_copy_of_a_multiple_value(x64: None) -> None:
    values = np.concatenate([[0.5, 0.5, 0.5], np.linspace(1, 2, 37)])
    matrix, vectors = with_spectrum(values)
    result = solve(eigen.Davidson(), matrix, "float64", num=3)
    np.testing.assert_allclose(result.values, values[:3], rtol=1e-9)
    np.testing.assert_allclose(np.linalg.norm(np.asarray(result.vectors) @ vectors[:3].T), np.sqrt(3), rtol=1e-6)


@EACH_SPARINGLY
@pytest.mark.parametrize("n", [1, pytest.param(2, marks=pytest.mark.slow), 4])
def test_matrices_smaller_than_the_basis(solver: eigen.Solver, n: int) -> None:
    values = np.arange(1.0, n + 1)
    result = solve(solver, with_spectrum(values)[0], "float32")
    np.testing.assert_allclose(result.values, [1.0], rtol=1e-5)
    np.testing.assert_allclose(result.next_value, 2.0 if n > 1 else np.inf, rtol=5e-2)
    assert Status(int(result.status)) is Status.CONVERGED


@EACH_SPARINGLY
def test_too_few_directions_are_reported(solver: eigen.Solver) -> None:
    result = solve(solver, np.zeros((1, 1)), "float32", start=np.ones(1), null=np.ones(1))
    assert Status(int(result.status)) is Status.TOO_FEW_VERTICES
    assert result.values[0] == 0
    assert jnp.all(result.vectors == 0)


@EACH
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_what_is_not_finite_is_reported_at_once(solver: eigen.Solver, bad: float) -> None:
    matrix, _ = with_spectrum(np.linspace(1, 2, 40))
    matrix[3, 4] = matrix[4, 3] = bad
    result = solve(solver, matrix, "float32")
    assert Status(int(result.status)) is Status.NOT_FINITE
    assert jnp.all(jnp.isnan(result.values))
    assert jnp.isnan(result.next_value)
    assert int(result.iterations) <= 1


@EACH_ITERATIVE
def test_running_out_of_iterations_is_reported(solver: Any) -> None:
    matrix, _ = with_spectrum(np.geomspace(1e-4, 1, 200))
    result = solve(dataclasses.replace(solver, max_iterations=1), matrix, "float32")
    assert Status(int(result.status)) is Status.ITERATION_LIMIT
    assert float(result.values[0]) >= 1e-4 - 1e-6
    assert int(result.iterations) <= 2


def test_a_residual_at_the_rounding_level_is_not_called_converged() -> None:
    matrix, _ = with_spectrum(np.concatenate([[1e-12], np.linspace(1, 2, 39)]))
    result = solve(eigen.Davidson(), matrix, "float32")
    assert Status(int(result.status)) is Status.ACCURACY_FLOOR
    assert float(result.residuals[0]) <= float(result.floor) < 1e-5


@pytest.mark.parametrize("tol", [1e-3, pytest.param(1e-5, marks=pytest.mark.slow), 1e-8])
def test_the_error_estimate_bounds_the_error_and_meets_the_tolerance(tol: float, x64: None) -> None:
    values = np.concatenate([[0.3, 0.35], np.linspace(0.4, 4, 98)])
    matrix, _ = with_spectrum(values)
    result = solve(eigen.Davidson(tol=tol), matrix, "float64")
    error = abs(float(result.values[0]) - 0.3)
    assert error <= float(result.error[0]) + 1e-14
    assert float(result.error[0]) <= tol * 0.3


@EACH_SPARINGLY
def test_vmap_solves_each(solver: eigen.Solver, x64: None) -> None:
    matrices = np.stack([with_spectrum(np.linspace(low, 3, 20), seed=3)[0] for low in (0.1, 0.2, 0.4)])
    run = jax.vmap(lambda m: solver.solve(eigen.operator_from_matrix(m)))
    result = jax.jit(run)(jnp.asarray(matrices))
    np.testing.assert_allclose(result.values[:, 0], [0.1, 0.2, 0.4], rtol=1e-7)
    assert jnp.all(result.status == Status.CONVERGED)


@settings(max_examples=200, deadline=None)
@example(low=[1.0, 0.99609375], seed=0, warm=2, given_as="start")
@given(
    low=st.lists(st.floats(1e-3, 1), min_size=2, max_size=6),
    seed=st.integers(0, 99),
    warm=st.integers(0, 5),
    given_as=st.sampled_from(["init", "start"]),
)
def test_converged_is_never_said_of_a_wrong_value(low: list[float], seed: int, warm: int, given_as: str) -> None:
    values = np.sort(np.concatenate([low, np.linspace(1, 3, 40 - len(low))]))
    matrix, vectors = with_spectrum(values, seed)
    with jax.enable_x64(True):
        result = solve(eigen.Davidson(), matrix, "float64", **{given_as: vectors[warm]})
    assert Status(int(result.status)) is Status.CONVERGED
    np.testing.assert_allclose(result.values, values[:1], rtol=2e-9)


@pytest.mark.parametrize("kind", [eigen.Davidson, eigen.Lanczos, eigen.PowerIteration])
@pytest.mark.parametrize(
    "settings_",
    [
        {"tol": 0.0},
        {"tol": 2.0},
        {"tol": float("nan")},
        {"max_iterations": 0},
        {"tol": "1e-3"},
        {"max_iterations": 1.5},
        {"max_iterations": True},
        {"max_iterations": 2**31 - 1},
    ],
)
def test_settings_out_of_range_are_errors(kind: type, settings_: dict) -> None:
    with pytest.raises(errors.HyperparameterError, match=next(iter(settings_))):
        kind(**settings_)


@pytest.mark.parametrize("kind", [eigen.Davidson, eigen.Lanczos])
@pytest.mark.parametrize("size", [7, 24.0])
def test_a_basis_too_small_or_in_part_is_an_error(kind: type, size: Any) -> None:
    with pytest.raises(errors.HyperparameterError, match=f"basis_size must be an integer of at least 8, not {size}"):
        kind(basis_size=size)


@pytest.mark.parametrize("basis_size", [8, *(pytest.param(size, marks=pytest.mark.slow) for size in (11, 20)), 60])
def test_davidson_with_any_basis_size(basis_size: int, x64: None) -> None:
    values = np.concatenate([[0.01, 0.02], np.linspace(0.05, 4, 118)])
    matrix, _ = with_spectrum(values)
    result = solve(eigen.Davidson(basis_size=basis_size), matrix, "float64")
    np.testing.assert_allclose(result.values, [0.01], rtol=1e-9)
    assert Status(int(result.status)) is Status.CONVERGED


@pytest.mark.parametrize("kind", [int, np.uint8, np.float16, jnp.bfloat16, np.float32])
def test_a_matrix_of_any_real_numbers_is_an_operator(kind: Any) -> None:
    path = np.array([[1, 1, 0], [1, 2, 1], [0, 1, 1]])
    operator = eigen.operator_from_matrix(path.astype(kind), null_vector=[3**-0.5, -(3**-0.5), 3**-0.5])  # pyright: ignore[reportArgumentType]
    np.testing.assert_allclose(eigen.Davidson().solve(operator).values, [1], rtol=1e-6)


@pytest.mark.parametrize(
    ("matrix", "null", "message"),
    [
        (np.ones((2, 3)), None, r"square.*not float32 of shape \(2, 3\)"),
        (np.ones(4), None, r"of shape \(4,\)"),
        (np.ones((0, 0)), None, r"of shape \(0, 0\)"),
        (1j * np.eye(2), None, "not complex64"),
        (np.eye(2), np.ones(3), r"null vector must have shape \(2,\), not \(3,\)"),
    ],
)
def test_what_is_no_matrix_is_no_operator(matrix: Any, null: Any, message: str) -> None:
    with pytest.raises(errors.ArgumentTypeError, match=message):
        eigen.operator_from_matrix(matrix, null)


def test_unit_lengths_hold_where_a_vector_sits_on_one_vertex() -> None:
    # A running float32 sum loses thousands of squares that are each about the rounding of the first.
    row = np.full(5000, 2e-4, np.float32)
    row[0] = 1
    operator = eigen.operator_from_matrix(jnp.ones((1, 1)))
    report = RitzReport(jnp.ones(4), jnp.zeros(4), jnp.zeros(4))
    found, count = assess(operator, report, 3, 1e-6), jnp.ones((), jnp.int32)
    result = jax.jit(lambda rows: conclude(operator, report, found, rows, count, count))(jnp.asarray([row] * 3))
    np.testing.assert_allclose(np.linalg.norm(np.asarray(result.vectors, float), axis=1), 1, rtol=1e-6)


def test_power_iteration_keeps_its_tolerance_in_a_cluster(x64: None) -> None:
    # All six targets lack parts of the same vectors above them.
    draws = [np.random.default_rng(seed) for seed in range(200)]
    drawn = np.array([[*(1 + 1e-2 * np.sort(rng.random(6))), *(1.05 + 0.3 * rng.random(14))] for rng in draws])
    matrices = jnp.asarray([with_spectrum(values, seed)[0] for seed, values in enumerate(drawn)])
    solver = eigen.PowerIteration(tol=1e-3, max_iterations=500)
    result = jax.jit(jax.vmap(lambda matrix: solver.solve(eigen.operator_from_matrix(matrix), 6)))(matrices)
    assert jnp.all(result.status == Status.CONVERGED)
    off = np.abs(np.sort(result.values, axis=1) - drawn[:, :6])
    assert np.all(off <= 1e-3 * drawn[:, :6])
    assert np.all(off <= 4 * result.error)


# An operator whose eigenvalues do not exceed 8, and of which reports are made up below.
UP_TO_EIGHT = 8 * np.eye(4)


@pytest.mark.parametrize(
    ("values", "residuals", "reach", "error", "accurate"),
    [
        # The gap ends where the guard may be at least; beyond it the residual alone bounds the error.
        ([1, 2, 3], [1e-4, 0.04, 0], [0, 0.04, 0], 1e-8 / 0.96, True),
        ([1, 1.04, 3], [0.02, 0.03, 0], [0, 0.03, 0], 0.02, False),
        # A copy of the target, to within the tolerance, hides nothing.
        ([1, 1, 3], [1e-9, 1e-7, 0], [0, 1e-7, 0], 1e-9, True),
        # A guard that is not known to a few per cent, or may be a target, and pairs that may come down to one.
        ([1, 2, 3], [1e-4, 0.07, 0], [0, 0.07, 0], 1e-8 / 0.93, False),
        ([1, 1.02, 3], [1e-9, 0.025, 0], [0, 0, 0], 1e-9, False),
        ([1, 2, 3], [1e-4, 0.04, 0.04], [0, 1.1, 0], 1e-8 / 0.96, False),
        ([1, 2, 3], [1e-4, 0.04, 0.04], [0, 0.9, 2.1], 1e-8 / 0.96, False),
        ([1, 2, 3], [1e-4, 0.04, 0.04], [0, 0.9, 1.9], 1e-8 / 0.96, True),
        ([1, 2, 3], [1e-4, 0.04, 0], [0, 0.9, 2.1], 1e-8 / 0.96, True),
    ],
)
def test_what_a_report_shows_of_one_target(
    values: list[float], residuals: list[float], reach: list[float], error: float, accurate: bool, x64: None
) -> None:
    report = RitzReport(*(jnp.asarray(x, float) for x in (values, residuals, reach)))
    found = assess(eigen.operator_from_matrix(jnp.asarray(UP_TO_EIGHT)), report, 1, 1e-6)
    np.testing.assert_allclose(found.error, [error], rtol=1e-6)
    assert bool(found.accurate) is bool(found.resolved) is accurate
    assert not found.lowest


def test_what_a_report_shows_at_the_level_of_rounding(x64: None) -> None:
    operator = eigen.operator_from_matrix(jnp.asarray(UP_TO_EIGHT))
    floor, absent = float(accuracy_floor(operator)), float(absent_value(operator))
    assert floor == 16 * np.finfo(float).eps * 8

    def shown(values: list[float], residuals: list[float], num: int = 1, **settings: Any) -> Any:
        pairs = jnp.asarray(values, float), jnp.asarray(residuals, float)
        return assess(operator, RitzReport(*pairs, pairs[1]), num, 1e-6, **settings)

    # A guard that the basis does not hold yet shows nothing; where it holds all there is, the bound takes its place.
    assert not shown([1, absent], [1e-4, 0]).resolved
    assert shown([1, 0.24 * absent], [1e-4, 0]).resolved
    found = shown([1, absent], [1e-4, 0], complete=True)
    assert found.accurate
    np.testing.assert_allclose(found.error, 1e-8 / 8, rtol=1e-6)
    # A residual below the rounding of one product is not known.
    np.testing.assert_allclose(shown([1, 1], [0, 0]).error, floor / 16)
    # Nothing lies below zero, whatever the guard shows.
    for value, residual in ((floor, floor), (2 * floor, floor), (floor, 2 * floor)):
        found = shown([value, 1], [residual, 1])
        assert bool(found.lowest) is bool(found.resolved) is (max(value, residual) == floor)
        assert not found.accurate
    # No digit of such a value is right; that it is settled is another matter.
    found = shown([floor, 1], [2 * floor, 1e-3], settled=jnp.asarray(3 * floor))
    assert found.resolved
    assert not found.accurate
    # Nor is one accurate by its gap where it is to be followed further down.
    for residual, settled, accurate in ((1, 1, True), (1, 0.25, False), (0.2, 0.25, True)):
        found = shown([1, 2], [residual * floor, 1e-3], settled=jnp.asarray(settled * floor))
        assert bool(found.accurate) is accurate
    # Rounding mixes the vectors of targets: a sixteenth of the floor at least, the floor at most, up to their distance.
    rho = floor / 16
    for apart, residual, error in ((1e-12, 0, rho**2 / 1e-12), (1e-12, floor, floor**2 / 1e-12), (rho / 2, 0, rho / 2)):
        mixed = shown([0.5, 0.5 + apart, 2], [residual, residual, 1e-3], num=2)
        np.testing.assert_allclose(mixed.error, [error] * 2, rtol=0.2)


@pytest.mark.parametrize(
    ("values", "residuals", "errors_", "accurate"),
    [
        ([1, 1.01, 2], [1e-4, 1e-4, 1e-3], [1e-8 / 0.999, 1e-8 / 0.989], True),
        ([1, 1.5, 2], [1e-4, 0.02, 1e-3], [1e-8 / 0.999, 4e-4 / 0.499], False),
        ([1e-16, 1, 2], [1e-16, 0.02, 1e-3], [0, 4e-4 / 0.999], False),
    ],
)
def test_what_a_report_shows_of_two_targets(
    values: list[float], residuals: list[float], errors_: list[float], accurate: bool, x64: None
) -> None:
    pairs = jnp.asarray(values), jnp.asarray(residuals)
    found = assess(eigen.operator_from_matrix(jnp.asarray(UP_TO_EIGHT)), RitzReport(*pairs, pairs[1]), 2, 1e-6)
    np.testing.assert_allclose(found.error, errors_, rtol=1e-6, atol=1e-14)
    assert bool(found.accurate) is bool(found.resolved) is accurate
    assert not found.lowest


def test_where_targets_lie_near_zero_pairs_are_followed_further_down(x64: None) -> None:
    operator = eigen.operator_from_matrix(jnp.asarray(UP_TO_EIGHT))
    floor = float(accuracy_floor(operator))
    for highest, share in ((0.5, 1), (2, 0.25), (31, 0.25), (33, 1)):
        np.testing.assert_allclose(settled_residual(operator, floor * jnp.array([0, highest])), share * floor)


def test_what_stands_clear_of_a_target(x64: None) -> None:
    operator = eigen.operator_from_matrix(jnp.asarray(UP_TO_EIGHT))
    residuals = jnp.array([0, 0.11, 0.13, 0.07, 0.05, 1e-9, 1e-9])
    report = RitzReport(jnp.array([1, 2, 2, 1.3, 1.3, 1, 2e-9]), residuals, residuals)
    clear = stands_clear(operator, report, 1, 1e-6, jnp.asarray(1e-9), apart=5)
    assert clear.tolist() == [True, True, False, False, True, True, True]
    stricter = operator._replace(tolerance_scale=lambda values: jnp.full_like(values, 0.5))
    clear = stands_clear(stricter, report, 1, 1e-6, jnp.asarray(1e-9), apart=5)
    assert clear.tolist() == [True, False, False, False, False, True, True]


def test_a_tolerance_is_scaled_to_what_is_asked_for(x64: None) -> None:
    report = RitzReport(jnp.array([1.0, 2]), jnp.array([9e-4, 0]), jnp.zeros(2))
    for share, accurate in ((1.0, True), (0.5, False)):
        operator = eigen.operator_from_matrix(jnp.asarray(UP_TO_EIGHT))
        operator = operator._replace(tolerance_scale=lambda values, share=share: jnp.full_like(values, share))
        assert bool(assess(operator, report, 1, 1e-6).accurate) is accurate
