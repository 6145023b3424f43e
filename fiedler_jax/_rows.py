"""Rows, their lengths and inner products, the largest of many numbers, and sums that keep small terms."""

import jax
import jax.numpy as jnp

# XLA on CPU has a library for sums and the like of so many numbers. Those of fewer it compiles, to three kernels; so
# zeros join them, rows of them if these are no more.
_BY_LIBRARY = 4096
_MOST_ZERO_ROWS = 8

_LANES = 32


def lengths(rows: jax.Array) -> jax.Array:
    """The Euclidean length of each row."""
    return jnp.sqrt(squares(rows))


def squares(rows: jax.Array) -> jax.Array:
    """The squared length of each row."""
    return inner_products(rows, rows)


def inner_products(rows: jax.Array, others: jax.Array) -> jax.Array:
    """The inner product of each row with its counterpart.

    As a sum, which XLA splits. The diagonal of a product of matrices adds one term after another, and where a vector
    sits on one vertex the many tiny terms after its large one round away: in float32 a Fiedler value came out 4e-6 too
    large.
    """
    count, n = rows.shape
    missing = -(-_BY_LIBRARY // max(n, 1)) - count
    products = rows * others
    if 0 < missing <= _MOST_ZERO_ROWS:
        return jnp.sum(jnp.pad(products, ((0, missing), (0, 0))), axis=1)[:count]
    return jnp.sum(products, axis=1)


def largest(numbers: jax.Array) -> jax.Array:
    """The largest of nonnegative numbers (n,), infinite where one is NaN, and zero of none."""
    # XLA's library passes over NaN (jax 0.10.2).
    known = jnp.where(jnp.isnan(numbers), jnp.inf, numbers)
    return jnp.max(jnp.pad(known, (0, max(_BY_LIBRARY - len(numbers), 0))))


def participation(rows: jax.Array) -> jax.Array:
    """The inverse participation ratio ``Σ v_i⁴`` of each row of length one."""
    return squares(rows**2)


def diagonal_of(matrix: jax.Array) -> jax.Array:
    """The diagonal of a small matrix, without indexing, which XLA compiles to a gather."""
    return matrix.reshape(-1)[:: len(matrix) + 1]


def stable_sum(by_row: jax.Array) -> jax.Array:
    """The sum of nonnegative sums over rows, in lanes, then over the lanes.

    One running float32 sum over all edges was seen to lose five times the accuracy asked of a Fiedler value: where the
    vector sits on one unit, the many tiny terms after its large ones round away.
    """
    # The barriers keep XLA from merging nested sums into that one. As products with ones they would compile to less,
    # but XLA on CPU merges those with the sums over rows, and under vmap returned memory never written (jax 0.10.2).
    sums = jnp.pad(jax.lax.optimization_barrier(by_row), (0, -len(by_row) % _BY_LIBRARY))
    for lanes in (_BY_LIBRARY, _LANES):
        sums = jax.lax.optimization_barrier(jnp.sum(sums.reshape(lanes, -1), axis=1))
    return jnp.sum(sums)
