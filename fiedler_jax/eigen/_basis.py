"""Orthonormal bases of rows, of fixed shape: a row that would add no direction is zero."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from fiedler_jax._rows import diagonal_of, squares
from fiedler_jax.eigen._operator import SymmetricOperator
from fiedler_jax.eigen._result import absent_value, accuracy_floor, is_present
from fiedler_jax.eigen._varying import varying_alike

# A row that keeps less than this many eps of its length after projection is rounding noise, not a direction.
_NOISE_FACTOR = 32.0

# Each pass multiplies what is left of the basis in the rows by about eps over the share of them that was new.
_MOST_PASSES = 5

# How far apart rows whose values are rounding are held: as a share of the least value that is more, but at least this
# many times the rounding. Ritz vectors on their way to zero do not count: where the least value was theirs, rounding
# still mixed those that had arrived, and 25 networks pruned to 1 %, in float64, took 136 products (the mean,
# normalized; now 62) and 169 (combinatorial; now 125).
_APART = 1e-4
_LEAST_APART = 8.0


class RitzPairs(NamedTuple):
    """Eigenvalues of the projected operator, ascending, and their coefficient columns."""

    values: jax.Array
    coefficients: jax.Array


def orthonormalize(rows: jax.Array, basis: jax.Array, held: jax.Array | None = None) -> jax.Array:
    """Rows (b, n) made orthonormal, and orthogonal to a basis (m, n), or its rows that are `held`; dependent ones zero.

    Each pass projects, then decomposes the rows through their Gram matrix (Stathopoulos & Wu, "A block
    orthogonalization procedure with constant synchronization requirements", 2002), which finds dependent directions
    whatever their order. Passes are repeated until one finds the rows orthonormal already.
    """
    noise = _NOISE_FACTOR * jnp.finfo(rows.dtype).eps

    def once(carry: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        rows, left = carry
        shares = rows @ basis.T
        rest = rows - (shares if held is None else jnp.where(held, shares, 0)) @ basis
        gram = rest @ rest.T
        before, squared = squares(rows), squares(rest)
        inverse = jnp.where(squared > noise**2 * before, jax.lax.rsqrt(squared), 0)
        # A row too long to be squared counts as none.
        there = (inverse > 0) & (inverse[:, None] > 0)
        scaled = jnp.where(there, gram * inverse * inverse[:, None], 0)
        weights, mixing = jnp.linalg.eigh(scaled, symmetrize_input=False)
        keep = weights > noise * len(rows)
        # The inner `where` keeps a NaN that is not used from whoever checks for them.
        scale = jnp.where(keep, jax.lax.rsqrt(jnp.where(keep, weights, 1)), 0)
        # Where hardly anything was taken away, rounding was not amplified either.
        settled = jnp.all(((weights > 0.5) | (weights == 0)) & ((squared > 0.5 * before) | (squared == 0)))
        return (mixing * scale).T * inverse @ rest, jnp.where(settled, 0, left - 1)

    first = varying_alike((rows, jnp.int32(_MOST_PASSES)), basis)
    return jax.lax.while_loop(lambda carry: carry[1] > 0, once, first)[0]


def rows_or_none(operator: SymmetricOperator, rows: jax.Array | None) -> jax.Array:
    """Rows (m, n), where they are left out none (0, n)."""
    return jnp.zeros((0, len(operator.diagonal)), operator.diagonal.dtype) if rows is None else rows


def rayleigh_ritz(
    operator: SymmetricOperator,
    projected: jax.Array,
    valid: jax.Array,
    residuals: jax.Array | None = None,
    final: bool | jax.Array = False,
) -> RitzPairs:
    """Ritz pairs of ``H = V A Vᵀ`` (m, m); basis rows that are not valid come last, with the absent value.

    The order and the mixture in which pairs come whose values are rounding, as those of the parts of a disconnected
    graph are, is rounding too: each takes a share of what is wrong in the others, and none would converge before all
    do. So of rows 1 to k, which were Ritz vectors with these `residuals` before, those with such values are held
    apart, in their order; not in the `final` basis, since a value near rounding then keeps some of theirs, for a later
    basis to take away.
    """
    eye = np.eye(len(projected), dtype=bool)
    # LAPACK may not return from a matrix with NaN, and its result would mean nothing.
    safe = jnp.where(jnp.isfinite(projected), projected, 0)
    symmetric = jnp.where(valid[:, None] & valid, (safe + safe.T) / 2, 0)
    symmetric = jnp.where(eye & ~valid, absent_value(operator), symmetric)
    if residuals is None:
        return RitzPairs(*jnp.linalg.eigh(symmetric, symmetrize_input=False))
    own = jnp.where(valid, diagonal_of(safe), absent_value(operator))
    floor, place, last = accuracy_floor(operator), np.arange(len(eye)), len(residuals)
    # The null vector and rows that are new have no residual to be compared with.
    stays = jnp.pad(residuals, (1, len(eye) - 1 - last)) <= own
    least = jnp.min(jnp.where((own > floor) & stays, own, absent_value(operator)))
    apart = jnp.maximum(_APART * least, _LEAST_APART * floor)
    held = (own <= floor) & (place > 0) & (place <= last) & jnp.logical_not(final)
    lower = jnp.where(held, apart * (1 + last - place), 0)
    values, vectors = jnp.linalg.eigh(symmetric - jnp.where(eye, lower, 0), symmetrize_input=False)
    return RitzPairs(values + lower @ vectors**2, vectors)


def residuals_of(operator: SymmetricOperator, values: jax.Array, vectors: jax.Array, products: jax.Array) -> jax.Array:
    """The residual rows ``A v - θ v``, zero for absent directions."""
    exists = is_present(operator, values)
    return jnp.where(exists[:, None], products - values[:, None] * vectors, 0)


def scattered_rows(operator: SymmetricOperator, count: int) -> jax.Array:
    """Fixed rows (count, n) that hold a part of every eigenvector, which given ones (exact eigenvectors, say) need not.

    To find all copies of a multiple eigenvalue takes as many.
    """
    return scattered_row(operator, jnp.arange(count, dtype=jnp.uint32)[:, None])


def scattered_row(operator: SymmetricOperator, salt: int | jax.Array = 0) -> jax.Array:
    """A fixed row of pseudo-random numbers in [-1/2, 1/2) on the operator's support, or one for each salt (k, 1).

    An integer hash rather than `jax.random`: it needs no key and compiles to a handful of operations.
    """
    n = operator.diagonal.shape[0]
    bits = (jnp.arange(n, dtype=jnp.uint32) + jnp.asarray(salt, jnp.uint32) * 7919 + 1) * jnp.uint32(2654435769)
    bits = (bits ^ (bits >> 15)) * jnp.uint32(2246822519)
    bits = (bits ^ (bits >> 13)) * jnp.uint32(3266489917)
    bits = bits ^ (bits >> 16)
    return jnp.where(operator.support, bits.astype(operator.diagonal.dtype) / 2.0**32 - 0.5, 0)
