"""Lengths and inner products of rows."""

import jax
import jax.numpy as jnp
import numpy as np


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
    return jnp.sum(rows * others, axis=1)


def diagonal(matrix: jax.Array) -> jax.Array:
    """The diagonal of a small matrix, without indexing, which XLA compiles to a gather."""
    return jnp.sum(jnp.where(np.eye(len(matrix), dtype=bool), matrix, 0), axis=1)
