"""Orthonormal bases of rows, of fixed shape: a row that would add no direction is zero."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from fiedler_jax.eigen._operator import SymmetricOperator
from fiedler_jax.eigen._result import absent_value

# A row that keeps less than this many eps of its length after projection is rounding noise, not a direction.
_NOISE_FACTOR = 32.0


class RitzPairs(NamedTuple):
    """Eigenvalues of the projected operator, ascending, and their coefficient columns."""

    values: jax.Array
    coefficients: jax.Array


def orthonormalize(rows: jax.Array, basis: jax.Array, null_vector: jax.Array) -> jax.Array:
    """Rows (b, n) made orthonormal, and orthogonal to a basis (m, n) and to the null vector; dependent ones zero.

    Twice: projection, then the singular value decomposition of the rows through their Gram matrix (as in
    Stathopoulos & Wu, "A block orthogonalization procedure with constant synchronization requirements", 2002),
    which finds dependent directions whatever their order.
    """
    noise = _NOISE_FACTOR * jnp.finfo(rows.dtype).eps
    for _ in range(2):
        before = jnp.linalg.norm(rows, axis=1, keepdims=True)
        rows = rows - (rows @ null_vector)[:, None] * null_vector - (rows @ basis.T) @ basis
        after = jnp.linalg.norm(rows, axis=1, keepdims=True)
        keep = after > noise * before
        rows = jnp.where(keep, rows / jnp.where(keep, after, 1), 0)
        weights, mixing = jnp.linalg.eigh(rows @ rows.T)
        keep = weights > noise * len(rows)
        rows = (mixing * jnp.where(keep, jax.lax.rsqrt(jnp.where(keep, weights, 1)), 0)).T @ rows
    return rows


def start_basis(operator: SymmetricOperator, start: jax.Array, scattered: int = 1) -> jax.Array:
    """Start rows and some scattered ones, orthonormal.

    Scattered rows hold a part of every eigenvector, which given ones (exact eigenvectors, say) need not.
    """
    rows = jnp.concatenate([start, *(scattered_row(operator, salt)[None] for salt in range(scattered))])
    return orthonormalize(rows, jnp.zeros_like(rows[:1]), operator.null_vector)


def rayleigh_ritz(operator: SymmetricOperator, projected: jax.Array, valid: jax.Array) -> RitzPairs:
    """Ritz pairs of ``H = V A Vᵀ`` (m, m); basis rows that are not valid come last, with the absent value."""
    # LAPACK may not return from a matrix with NaN, and its result would mean nothing.
    safe = jnp.where(jnp.isfinite(projected), projected, 0)
    symmetric = jnp.where(valid[:, None] & valid[None, :], (safe + safe.T) / 2, 0)
    return RitzPairs(*jnp.linalg.eigh(symmetric + jnp.diag(jnp.where(valid, 0, absent_value(operator)))))


def residuals_of(operator: SymmetricOperator, values: jax.Array, vectors: jax.Array, products: jax.Array) -> jax.Array:
    """The residual rows ``A v - θ v``, zero for absent directions."""
    exists = values < absent_value(operator) / 2
    return jnp.where(exists[:, None], products - values[:, None] * vectors, 0)


def scattered_row(operator: SymmetricOperator, salt: int | jax.Array = 0) -> jax.Array:
    """A fixed row of pseudo-random numbers in (-1/2, 1/2) on the operator's support.

    An integer hash rather than `jax.random`: it needs no key and compiles to a handful of operations.
    """
    n = operator.diagonal.shape[0]
    bits = (jnp.arange(n, dtype=jnp.uint32) + jnp.asarray(salt, jnp.uint32) * 7919) * jnp.uint32(2654435769)
    bits = (bits ^ (bits >> 15)) * jnp.uint32(2246822519)
    bits = (bits ^ (bits >> 13)) * jnp.uint32(3266489917)
    bits = bits ^ (bits >> 16)
    return jnp.where(operator.support, bits.astype(operator.diagonal.dtype) / 2.0**32 - 0.5, 0)
