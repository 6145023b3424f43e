"""Half of a graph in two colours: its normalized Laplacian as an operator on the vertices of one colour."""

import functools
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp

from fiedler_jax._rows import squares
from fiedler_jax._sharding import replicated
from fiedler_jax.eigen import EigenResult, Status, SymmetricOperator
from fiedler_jax.laplacian import ROOT_UNIT, Laplacian, Range, has_edges, product_with_block

# With so many vertices to each eigenvalue asked for, all of these lie in the lower half of the spectrum.
_VERTICES_PER_EIGENVALUE = 8

# A product shorter than this many eps is rounding.
_NOISE_FACTOR = 16.0


class Halves(NamedTuple):
    """The groups of a graph in two colours: `kept` those of the smaller half, `folded` the others."""

    kept: tuple[Range, ...]
    folded: tuple[Range, ...]


class Fold(NamedTuple):
    """A normalized Laplacian on the kept half.

    With the roots of the degrees in it, let B map the kept half to the folded one. The eigenvalues of L are 1 - σ and
    1 + σ for the singular values σ of B, and 1; those of ``M = I - BᵀB`` are θ = 1 - σ². So the smallest of M give the
    smallest of L, in a space of half the size or less, and a product with M costs as much as one with L but counts
    for two (it is ``L (2 I - L)`` on one half). A vector u of M belongs to ``(u, B u / σ) / √2`` of L.

    M knows nothing of isolated vertices in the folded half, each of which makes an eigenvalue 0 of L: as many of them
    as could matter stand behind the kept vertices as `isolated`.

    Attributes:
        lap: the normalized Laplacian.
        halves: its groups.
        isolated: numbers (i,) of vertices of L; those which are not folded and isolated stand for none.
        degrees: those of the kept vertices, and zeros for the isolated ones.
        support: which coordinates eigenvectors may use.
    """

    lap: Laplacian
    halves: Halves
    isolated: jax.Array
    degrees: jax.Array
    support: jax.Array

    @property
    def kept(self) -> dict[Range, Range]:
        """Where each kept group stands in vectors of M."""
        return _places(self.halves.kept)

    @property
    def operator(self) -> SymmetricOperator:
        """M, to be solved."""
        # NaN and infinite weights show in the diagonal.
        diagonal = jnp.where(jnp.isfinite(self.degrees), has_edges(self.degrees).astype(self.lap.dtype), jnp.nan)
        scale = self.lap.inverse_root_degrees

        def matvec(rows: jax.Array) -> jax.Array:
            below = self._cross(_scaled(self._split(rows), scale))
            above = self._cross(_scaled(below, scale**2))
            return diagonal * rows - self.joined(_scaled(above, scale))

        return SymmetricOperator(
            matvec=matvec,
            diagonal=diagonal,
            upper_bound=jnp.ones((), self.lap.dtype),
            null_vector=self.null_vector,
            support=self.support,
            tolerance_scale=lambda values: 2 / (1 + 1 / _singular(values)),
            even=1.0,
        )

    @property
    def null_vector(self) -> jax.Array:
        """The unit eigenvector of M of eigenvalue 0 that is known, zero without edges."""
        root = ROOT_UNIT * jnp.where(has_edges(self.degrees), jnp.sqrt(self.degrees), 0)
        squared = squares(root[None])[0]
        return root * jnp.where(squared > 0, jax.lax.rsqrt(squared), 0)

    def restrict(self, x: jax.Array) -> jax.Array:
        """The kept half of vectors (..., n) of L, and zeros for the isolated vertices."""
        return self.joined({group: x[..., slice(*group)] for group in self.halves.kept})

    def joined(self, parts: dict[Range, jax.Array]) -> jax.Array:
        """Vectors of M from their parts on the kept groups, zeros for the isolated vertices."""
        side = _concatenated(parts, self.halves.kept)
        return jnp.pad(side, [(0, 0)] * (side.ndim - 1) + [(0, len(self.isolated))])

    def lift(self, result: EigenResult) -> EigenResult:
        """The eigenpairs of L that belong to those of M; values and residuals follow from ``λ = 1 - √(1 - θ)``."""
        slope = 1 / (2 * _singular(result.values))
        enough = result.status != Status.TOO_FEW_VERTICES
        return result._replace(
            values=jnp.where(enough, 1 - _singular(result.values), 0),
            vectors=self._lifted(result.vectors),
            residuals=_lifted_residual(result.residuals, result.values),
            error=result.error * slope,
            # Those eigenvalues of L that M does not have are all 1 or more.
            next_value=jnp.where(jnp.isinf(result.next_value), 1, 1 - _singular(result.next_value)),
            next_residual=_lifted_residual(result.next_residual, result.next_value),
            floor=_lifted_residual(result.floor, result.values[0]),
        )

    def _lifted(self, rows: jax.Array) -> jax.Array:
        # The null vector comes along. Of several rows: XLA has a library for their products, where it compiles those
        # of a single one.
        rows = jnp.concatenate([rows, self.null_vector[None]])
        scale = self.lap.inverse_root_degrees
        parts = self._split(rows) | self._cross(_scaled(self._split(rows), scale))
        folded = _within(self.halves.folded, self.lap.num_vertices)
        whole = jax.lax.optimization_barrier(_concatenated(parts, self.lap.groups) * jnp.where(folded, scale, 1))
        below = jnp.where(folded, whole, 0)
        # What u holds of the null vector by rounding, B u / σ holds 1 / σ times.
        products = below @ below.T
        share = products[:, -1:] / jnp.maximum(products[-1, -1], jnp.finfo(rows.dtype).tiny)
        below = jax.lax.optimization_barrier(below - share * below[-1])
        # Isolated vertices have no counterpart that takes its share of the length.
        alone = ~self.lap.connected
        linked, squared = squares(jnp.where(folded | alone, 0, whole)), squares(below)
        # Where σ is rounding, so is B u, and (u, 0) is an eigenvector on its own, of L's eigenvalue 1.
        known = squared > (_NOISE_FACTOR * jnp.finfo(rows.dtype).eps) ** 2 * linked
        factor = jnp.where(known, jnp.sqrt(linked / jnp.where(known, 2 * squared, 1)), 0)
        above = jnp.where(alone | ~known[:, None], 1, 0.5**0.5) * whole
        vectors = jnp.where(folded, factor[:, None] * below, above)
        if len(self.isolated):
            vertices = self.isolated[:, None] == jnp.arange(self.lap.num_vertices)
            vectors += rows[:, rows.shape[-1] - len(self.isolated) :] @ vertices.astype(rows.dtype)
        return vectors[:-1]

    def _split(self, rows: jax.Array) -> dict[Range, jax.Array]:
        """The kept groups' parts of vectors of M."""
        return {group: rows[..., slice(*at)] for group, at in self.kept.items()}

    def _cross(self, parts: dict[Range, jax.Array]) -> dict[Range, jax.Array]:
        """What the adjacency maps the groups of one half to, on those of the other."""
        sums: dict[Range, jax.Array] = {}
        for block, (source, target, _) in zip(self.lap.blocks, self.lap.placements, strict=True):
            forward = source in parts
            start, end = (source, target) if forward else (target, source)
            product = product_with_block(parts[start], block, transposed=not forward)
            sums[end] = sums[end] + product if end in sums else product
        return {group: replicated(part) for group, part in sums.items()}


def fold(lap: Laplacian, num: int, ignore_isolated: bool) -> Fold | None:
    """The normalized Laplacian on half of its vertices, if its groups have two colours and the half is large enough.

    Too small a half might not hold the `num` smallest eigenvalues and the next.
    """
    halves = _halves(lap) if lap.normalized else None
    if halves is None or sum(_sizes(halves.kept)) < _VERTICES_PER_EIGENVALUE * (num + 1):
        return None
    kept = [lap.degrees[slice(*group)] for group in halves.kept]
    if ignore_isolated:
        degrees = jnp.concatenate(kept)
        return Fold(lap, halves, jnp.zeros(0, jnp.int32), degrees, has_edges(degrees))
    folded = _within(halves.folded, lap.num_vertices)
    # In float32 XLA selects, where for integers it sorts.
    lone, isolated = jax.lax.top_k((folded & ~lap.connected).astype(jnp.float32), num + 1)
    degrees = jnp.concatenate([*kept, jnp.zeros(num + 1, lap.dtype)])
    support = jnp.concatenate([jnp.ones(len(degrees) - len(lone), bool), lone > 0])
    return Fold(lap, halves, isolated, degrees, support)


def _halves(lap: Laplacian) -> Halves | None:
    """The groups by colour, the smaller half of each connected part kept; None if a block joins two of one colour."""
    neighbours: dict[Range, list[Range]] = {group: [] for group in lap.groups}
    for source, target, _ in lap.placements:
        neighbours[source].append(target)
        neighbours[target].append(source)
    colours: dict[Range, int] = {}
    kept: list[Range] = []
    for first in lap.groups:
        if first in colours:
            continue
        colours[first] = 0
        part = [first]
        for group in part:
            for other in neighbours[group]:
                if other not in colours:
                    colours[other] = 1 - colours[group]
                    part.append(other)
                elif colours[other] == colours[group]:
                    return None
        kept += min(([g for g in part if colours[g] == c] for c in (1, 0)), key=lambda half: sum(_sizes(half)))
    return Halves(tuple(g for g in lap.groups if g in kept), tuple(g for g in lap.groups if g not in kept))


def _sizes(groups: Iterable[Range]) -> list[int]:
    return [stop - start for start, stop in groups]


def _within(groups: tuple[Range, ...], num_vertices: int) -> jax.Array:
    """Which vertices belong to these groups."""
    vertices = jnp.arange(num_vertices)
    return functools.reduce(jnp.logical_or, [(vertices >= first) & (vertices < stop) for first, stop in groups])


def _scaled(parts: dict[Range, jax.Array], scale: jax.Array) -> dict[Range, jax.Array]:
    return {group: part * scale[slice(*group)] for group, part in parts.items()}


def _concatenated(parts: dict[Range, jax.Array], groups: Sequence[Range]) -> jax.Array:
    return jnp.concatenate([parts[group] for group in groups], axis=-1)


def _places(groups: tuple[Range, ...]) -> dict[Range, Range]:
    sizes = _sizes(groups)
    return {group: (sum(sizes[:i]), sum(sizes[: i + 1])) for i, group in enumerate(groups)}


def _singular(values: jax.Array) -> jax.Array:
    """The singular value σ of an eigenvalue 1 - σ²; one that cannot be told from 0 counts as what can."""
    return jnp.sqrt(jnp.clip(1 - values, jnp.finfo(values.dtype).eps, 1))


def _lifted_residual(residual: jax.Array, value: jax.Array) -> jax.Array:
    """The residual of a lifted vector: ``|r| / (√2 σ)``, where σ itself can be told from 0."""
    return residual / (2**0.5 * jnp.maximum(_singular(value), jnp.sqrt(residual)))
