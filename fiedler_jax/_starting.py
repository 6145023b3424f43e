"""Rows near which Fiedler vectors are found, for a solver to start from."""

import itertools
from collections.abc import Sequence

import jax
import jax.numpy as jnp

from fiedler_jax._folding import Fold
from fiedler_jax.laplacian import Laplacian, Range

# Starting rows cost one product each, so a deep net's groups are taken together into no more than this many.
_MOST_GROUP_ROWS = 8

# The vertices of least degree that start rows point at, or one for each value asked for: on wide inputs the Fiedler
# vector sits on one of them, and each isolated vertex has one of its own.
_LEAST_DEGREES = 2


def start_rows(lap: Laplacian, support: jax.Array, num: int) -> list[jax.Array]:
    """Rows that point at vertices of least degree, `num` of them or more, and at groups of units."""
    # In float32 XLA selects, in float64 it sorts all vertices; which of nearly equal ones is chosen is no matter.
    least = jnp.where(support, lap.degrees, jnp.inf).astype(jnp.float32)
    _, weakest = jax.lax.top_k(-least, min(max(_LEAST_DEGREES, num), lap.num_vertices))
    vertices = jnp.arange(lap.num_vertices)
    groups = _group_rows(vertices, lap.groups)
    if lap.normalized:
        groups = [row * jnp.sqrt(lap.degrees) for row in groups]
    return [vertices == weakest[:, None], *groups]


def half_start_rows(lap: Laplacian, half: Fold, num: int) -> list[jax.Array]:
    """The same on half of the vertices, where isolated vertices, in `num` rows, stand for all of least degree."""
    rows = _group_rows(jnp.arange(len(half.degrees)), tuple(half.kept.values()))
    isolated = (half.degrees <= 0) & half.support
    # Each is an eigenvector of value 0. Together in one row they are one; beside other parts of a network pruned to 1
    # per cent, also 0 to rounding, the second of two values took 171 products in float64 (the mean of 25), where it
    # takes one (tests/test_hard_spectra.py has such a network).
    taking_turns = jnp.cumsum(isolated) % num == jnp.arange(num)[:, None] if num > 1 else True
    return [*(row * jnp.sqrt(half.degrees) for row in rows), jnp.atleast_2d(isolated & taking_turns)]


def joined(rows: Sequence[jax.Array], support: jax.Array, dtype: jnp.dtype) -> jax.Array:
    """Start rows under one another, without what is not finite or outside the support."""
    together = jnp.concatenate([jnp.zeros((0, len(support)), dtype), *(row.astype(dtype) for row in rows)])
    return jnp.where(support & jnp.isfinite(together), together, 0)


def _group_rows(vertices: jax.Array, groups: Sequence[Range]) -> list[jax.Array]:
    firsts = [first for first, _ in groups[:: -(-len(groups) // _MOST_GROUP_ROWS)]]
    # With the null vector, of which each group has its part, all but the last span what all do.
    return [((vertices >= first) & (vertices < stop))[None] for first, stop in itertools.pairwise(firsts)]
