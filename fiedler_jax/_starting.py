"""Rows near which Fiedler vectors are found, for a solver to start from."""

import itertools
from collections.abc import Sequence

import jax
import jax.numpy as jnp

from fiedler_jax._folding import Fold
from fiedler_jax.laplacian import Laplacian, Range

# Starting rows cost one product each, so a deep net's groups are taken together into no more than this many.
_MOST_GROUP_ROWS = 8

# The vertices of least degree that start rows point at: on wide inputs the Fiedler vector sits on one of them.
_LEAST_DEGREES = 2


def start_rows(lap: Laplacian, support: jax.Array) -> list[jax.Array]:
    """Rows that point at vertices of least degree and at groups of units."""
    # In float32 XLA selects, in float64 it sorts all vertices; which of nearly equal ones is chosen is no matter.
    least = jnp.where(support, lap.degrees, jnp.inf).astype(jnp.float32)
    _, weakest = jax.lax.top_k(-least, min(_LEAST_DEGREES, lap.num_vertices))
    vertices = jnp.arange(lap.num_vertices)
    rows = [vertices == weakest[:, None], *_group_rows(vertices, lap.groups)]
    return [row * jnp.sqrt(lap.degrees) for row in rows] if lap.normalized else rows


def half_start_rows(lap: Laplacian, half: Fold) -> list[jax.Array]:
    """The same on half of the vertices, where isolated vertices stand for all of least degree."""
    rows = _group_rows(jnp.arange(len(half.degrees)), tuple(half.kept.values()))
    return [*(row * jnp.sqrt(half.degrees) for row in rows), (half.degrees <= 0)[None]]


def joined(rows: Sequence[jax.Array], support: jax.Array, dtype: jnp.dtype) -> jax.Array:
    """Start rows under one another, without what is not finite or outside the support."""
    together = jnp.concatenate([jnp.zeros((0, len(support)), dtype), *(row.astype(dtype) for row in rows)])
    return jnp.where(support & jnp.isfinite(together), together, 0)


def _group_rows(vertices: jax.Array, groups: Sequence[Range]) -> list[jax.Array]:
    firsts = [first for first, _ in groups[:: -(-len(groups) // _MOST_GROUP_ROWS)]]
    # With the null vector, of which each group has its part, all but the last span what all do.
    return [((vertices >= first) & (vertices < stop))[None] for first, stop in itertools.pairwise(firsts)]
