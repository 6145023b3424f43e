"""Bases and decompositions of the eigensolvers, on random rows and matrices."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from fiedler_jax import eigen
from fiedler_jax.eigen._basis import orthonormalize, rayleigh_ritz, residuals_of, scattered_row
from fiedler_jax.eigen._lanczos import _step

DTYPES = pytest.mark.parametrize("dtype", ["float32", "float64"])


def random_rows(rng: np.random.Generator, count: int, rank: int, decades: float, n: int = 20) -> np.ndarray:
    """Rows that span `rank` directions, of lengths and mutual angles over some decades."""
    lengths = 10 ** -rng.uniform(0, decades, (count, 1))
    mixing = rng.normal(size=(count, rank)) * 10 ** -rng.uniform(0, decades, rank)
    return lengths * (mixing @ rng.normal(size=(rank, n)))


compiled_orthonormalize = jax.jit(lambda rows, basis, null: orthonormalize(rows, jnp.concatenate([null[None], basis])))


@DTYPES
@settings(max_examples=200, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    rank=st.integers(1, 4),
    inside=st.sampled_from([0.0, 1e-12, 1e-5, 1e-3, 1.0]),
    decades=st.sampled_from([0.0, 2.0, 8.0]),
    held=st.integers(0, 18),
)
def test_orthonormalized_rows(dtype: str, seed: int, rank: int, inside: float, decades: float, held: int) -> None:
    rng = np.random.default_rng(seed)
    columns, _ = np.linalg.qr(rng.normal(size=(20, 20)))
    null, basis = columns[:, 0], np.where(np.arange(18)[:, None] < held, columns.T[1:19], 0)
    # All but a part `inside` of the rows lies in what they have to be orthogonal to.
    rows = random_rows(rng, 4, rank, decades) * inside + rng.normal(size=(4, 19)) @ np.vstack([null, basis])
    with jax.enable_x64(dtype == "float64"):
        given_ = [jnp.asarray(x, dtype) for x in (rows, basis, null)]
        result = np.asarray(compiled_orthonormalize(*given_), np.float64)
    eps = float(np.finfo(dtype).eps)
    gram, there = result @ result.T, np.any(result != 0, axis=1)
    np.testing.assert_allclose(gram, np.diag(there.astype(float)), atol=128 * eps)
    np.testing.assert_allclose(result @ np.vstack([null, basis]).T, 0, atol=128 * eps)
    assert there.sum() <= 20 - 1 - held


def test_a_row_too_long_to_be_squared_counts_as_none() -> None:
    rows = np.random.default_rng(0).normal(size=(4, 20)).astype(np.float32)
    with_it, without = (
        compiled_orthonormalize(jnp.asarray(rows).at[2].multiply(factor), jnp.zeros((18, 20)), jnp.zeros(20))
        for factor in (1e30, 0)
    )
    np.testing.assert_allclose(with_it.T @ with_it, without.T @ without, atol=1e-6)


@pytest.mark.parametrize("length", [1e-15, 1e15])
def test_how_long_rows_are_is_no_matter(length: float) -> None:
    rows = np.random.default_rng(0).normal(size=(4, 20)).astype(np.float32)
    basis, null = jnp.eye(18, 20, 1), jnp.zeros(20)
    result = compiled_orthonormalize(jnp.asarray(rows * np.float32(length)), basis, null)
    # What is left of 20 dimensions: the first and the last.
    np.testing.assert_allclose(result.T @ result, np.diag([1] + [0] * 18 + [1]), atol=1e-5)


@DTYPES
@settings(max_examples=100, deadline=None)
@given(seed=st.integers(0, 10_000), rank=st.integers(0, 4))
def test_orthonormalized_rows_span_what_was_given(dtype: str, seed: int, rank: int) -> None:
    rng = np.random.default_rng(seed)
    rows = random_rows(rng, 4, rank, 0) if rank else np.zeros((4, 20))
    singular = np.linalg.svd(rows, compute_uv=False)
    assume(rank == 0 or singular[rank - 1] > 0.1 * singular[0])
    columns, _ = np.linalg.qr(rng.normal(size=(20, 4)))
    null, basis = columns[:, 0], columns.T[1:]
    with jax.enable_x64(dtype == "float64"):
        result = np.asarray(compiled_orthonormalize(*(jnp.asarray(x, dtype) for x in (rows, basis, null))), np.float64)
    outside = rows - rows @ columns @ columns.T
    atol = 1e3 * float(np.finfo(dtype).eps) * float(1 + np.linalg.norm(rows))
    np.testing.assert_allclose(outside - outside @ result.T @ result, 0, atol=atol)
    assert np.any(result != 0, axis=1).sum() == rank


@DTYPES
@settings(max_examples=50, deadline=None)
@given(seed=st.integers(0, 10_000), missing=st.sets(st.integers(0, 7), max_size=5))
def test_rayleigh_ritz(dtype: str, seed: int, missing: set[int]) -> None:
    rng = np.random.default_rng(seed)
    matrix = random_rows(rng, 20, 20, 0)
    matrix = matrix @ matrix.T
    columns, _ = np.linalg.qr(rng.normal(size=(20, 8)))
    valid = np.array([i not in missing for i in range(8)])
    basis = np.where(valid[:, None], columns.T, 0)
    with jax.enable_x64(dtype == "float64"):
        operator = eigen.operator_from_matrix(jnp.asarray(matrix, dtype))
        ritz = rayleigh_ritz(operator, jnp.asarray(basis @ matrix @ basis.T, dtype), jnp.asarray(valid))
        vectors = ritz.coefficients.T @ jnp.asarray(basis, dtype)
        rows = np.asarray(residuals_of(operator, ritz.values, vectors, operator.matvec(vectors)), np.float64)
    count, bound = int(valid.sum()), float(operator.upper_bound)
    atol = 32 * float(np.finfo(dtype).eps) * bound
    expected = np.linalg.eigvalsh(basis[valid] @ matrix @ basis[valid].T)
    np.testing.assert_allclose(ritz.values[:count], expected, atol=atol)
    assert np.all(np.asarray(ritz.values[count:]) > bound)
    # Galerkin: what is left over is orthogonal to the basis, and nothing is left of a direction that is absent.
    np.testing.assert_allclose(rows @ basis.T, 0, atol=atol)
    assert np.all(rows[count:] == 0)


@jax.jit
def lanczos_steps(
    matrix: jax.Array, null: jax.Array, first: jax.Array, width: jax.Array
) -> tuple[jax.Array, jax.Array]:
    operator = eigen.operator_from_matrix(matrix, null)
    basis = jnp.pad(first, ((0, 13 - len(first)), (0, 0)))
    projected = jnp.zeros((10, 10), matrix.dtype)
    return jax.lax.fori_loop(0, 10, lambda j, carry: _step(operator, j, width, *carry), (basis, projected))


@DTYPES
@settings(max_examples=50, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    distinct=st.integers(2, 19),
    invariant=st.booleans(),
    width=st.integers(min_value=1, max_value=3),
)
def test_lanczos_decomposition(dtype: str, seed: int, distinct: int, invariant: bool, width: int) -> None:
    rng = np.random.default_rng(seed)
    columns, _ = np.linalg.qr(rng.normal(size=(20, 20)))
    values = np.concatenate([[0.0], 1 + np.arange(19) % distinct])
    matrix = (columns * values) @ columns.T
    # Exact eigenvectors break the recurrence down at once.
    mixed = columns[:, 1:] @ np.linalg.qr(rng.normal(size=(19, 3)))[0]
    first = np.where(np.arange(3)[:, None] < width, (columns[:, 5:8] if invariant else mixed).T, 0)
    with jax.enable_x64(dtype == "float64"):
        given_ = (jnp.asarray(x, dtype) for x in (matrix, columns[:, 0], first))
        basis, projected = lanczos_steps(*given_, jnp.asarray(width))
    q, h = np.asarray(basis, np.float64)[: 10 + width], np.asarray(projected, np.float64)
    atol = 64 * float(np.finfo(dtype).eps) * np.abs(matrix).sum(axis=1).max()
    np.testing.assert_allclose(q @ q.T, np.eye(10 + width), atol=atol)
    np.testing.assert_allclose(q @ columns[:, 0], 0, atol=atol)
    rest = q[:10] @ matrix - h @ q[:10]
    np.testing.assert_allclose(rest[: 10 - width], 0, atol=atol)
    np.testing.assert_allclose(rest - rest @ q[10:].T @ q[10:], 0, atol=atol)


def test_scattered_rows_hold_a_part_of_every_coordinate_and_of_no_other_row(x64: None) -> None:
    operator = eigen.operator_from_matrix(jnp.eye(400))
    rows = np.stack([scattered_row(operator, salt) for salt in range(8)])
    assert np.all(np.abs(rows) <= 0.5)
    assert np.all(rows != 0)
    cosines = np.corrcoef(rows) - np.eye(8)
    assert np.abs(cosines).max() < 0.2
