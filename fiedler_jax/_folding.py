"""Half of a graph in two colours: its normalized Laplacian as an operator on the vertices of one colour."""

from collections.abc import Iterable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from fiedler_jax.eigen import EigenResult, Status, SymmetricOperator
from fiedler_jax.laplacian import Laplacian, Range, product_with_block, sum_by_group

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
        support: which coordinates eigenvectors may use.
    """

    lap: Laplacian
    halves: Halves
    isolated: jax.Array
    support: jax.Array

    @property
    def kept(self) -> dict[Range, Range]:
        """Where each kept group stands in vectors of M."""
        return _side_by_side(self.halves.kept)

    @property
    def operator(self) -> SymmetricOperator:
        """M, to be solved."""
        connected = self.restrict(self.lap.connected).astype(self.lap.dtype)
        # NaN and infinite weights show in the diagonal.
        diagonal = self.restrict(self.lap.diagonal)
        null_vector = self.restrict(self.lap.null_vector)
        squared = jnp.sum(null_vector**2)

        def matvec(rows: jax.Array) -> jax.Array:
            return connected * rows - self.append(self._up(self._down(rows)))

        return SymmetricOperator(
            matvec=matvec,
            diagonal=diagonal,
            upper_bound=jnp.ones((), self.lap.dtype) + 0 * jnp.sum(self.lap.diagonal),
            null_vector=null_vector * jnp.where(squared > 0, jax.lax.rsqrt(jnp.where(squared > 0, squared, 1)), 0),
            support=self.support,
            tolerance_scale=lambda values: 2 / (1 + 1 / _singular(values)),
        )

    def restrict(self, x: jax.Array) -> jax.Array:
        """The kept half of vectors (..., n) of L, and zeros for the isolated vertices."""
        return self.append(jnp.concatenate([x[..., slice(*group)] for group in self.halves.kept], axis=-1))

    def append(self, x: jax.Array) -> jax.Array:
        """Vectors of the kept half, and zeros for the isolated vertices."""
        return jnp.concatenate([x, jnp.zeros((*x.shape[:-1], len(self.isolated)), x.dtype)], axis=-1)

    def lift(self, result: EigenResult) -> EigenResult:
        """The eigenpairs of L that belong to those of M; values and residuals follow from ``λ = 1 - √(1 - θ)``."""
        vectors = self._lifted(result.vectors)
        # One more is the null vector's. Those of L that M does not have are all 1 or more.
        few = jnp.sum(self.support) < len(vectors) + 1
        slope = 1 / (2 * _singular(result.values))
        next_singular = _singular(result.next_value)
        status = jnp.where(few & (result.status != Status.NOT_FINITE), Status.TOO_FEW_VERTICES, result.status)
        return result._replace(
            values=jnp.where(few, 0, 1 - _singular(result.values)),
            vectors=jnp.where(few, 0, vectors),
            residuals=_lifted_residual(result.residuals, result.values),
            error=result.error * slope,
            next_value=jnp.where(jnp.isinf(result.next_value), 1, 1 - next_singular),
            next_residual=_lifted_residual(result.next_residual, result.next_value),
            floor=_lifted_residual(result.floor, result.values[0]),
            status=status.astype(jnp.int32),
        )

    def _lifted(self, rows: jax.Array) -> jax.Array:
        alone = ~self.restrict(self.lap.connected)
        linked = jnp.where(alone, 0, rows)
        below = self._down(linked)
        squared = jnp.sum(below**2, axis=-1, keepdims=True)
        length = jnp.sqrt(jnp.sum(linked**2, axis=-1, keepdims=True))
        # Where σ is rounding, so is B u, and (u, 0) is an eigenvector on its own, of L's eigenvalue 1.
        known = squared > (_NOISE_FACTOR * jnp.finfo(rows.dtype).eps * length) ** 2
        below = below * jnp.where(known, length * jax.lax.rsqrt(jnp.where(known, squared, 1)), 0)
        # Isolated vertices have no counterpart that takes its share of the length.
        rows = jnp.where(alone, 2**0.5, 1) * rows
        kept, folded = self.kept, _side_by_side(self.halves.folded)
        parts = [
            rows[..., slice(*kept[group])] if group in kept else below[..., slice(*folded[group])]
            for group in self.lap.groups
        ]
        isolated = rows[..., rows.shape[-1] - len(self.isolated) :]
        vectors = jnp.concatenate(parts, axis=-1).at[..., self.isolated].add(isolated)
        # What u holds of the null vector by rounding, B u / σ holds 1 / σ times.
        vectors = vectors - (vectors @ self.lap.null_vector)[..., None] * self.lap.null_vector
        total = jnp.sum(vectors**2, axis=-1, keepdims=True)
        return vectors * jnp.where(total > 0, jax.lax.rsqrt(jnp.where(total > 0, total, 1)), 0)

    def _down(self, rows: jax.Array) -> jax.Array:
        """``B x``, from the kept half to the folded one."""
        return self._cross(self.halves.kept, self.halves.folded, rows)

    def _up(self, rows: jax.Array) -> jax.Array:
        """``Bᵀ x``, back."""
        return self._cross(self.halves.folded, self.halves.kept, rows)

    def _cross(self, sources: tuple[Range, ...], targets: tuple[Range, ...], rows: jax.Array) -> jax.Array:
        at, scale = _side_by_side(sources), self.lap.inverse_root_degrees
        scaled = rows[..., : sum(_sizes(sources))] * jnp.concatenate([scale[slice(*group)] for group in sources])
        ends, parts = [], []
        for block, (source, target, _) in zip(self.lap.blocks, self.lap.placements, strict=True):
            forward = source in at
            ends.append(target if forward else source)
            parts.append(product_with_block(scaled, at[source if forward else target], block, transposed=not forward))
        return sum_by_group(targets, ends, parts) * jnp.concatenate([scale[slice(*group)] for group in targets])


def fold(lap: Laplacian, num: int, ignore_isolated: bool) -> Fold | None:
    """The normalized Laplacian on half of its vertices, if its groups have two colours and the half is large enough.

    Too small a half might not hold the `num` smallest eigenvalues and the next.
    """
    halves = _halves(lap) if lap.normalized else None
    if halves is None or sum(_sizes(halves.kept)) < _VERTICES_PER_EIGENVALUE * (num + 1):
        return None
    kept = jnp.concatenate([lap.connected[slice(*group)] for group in halves.kept])
    if ignore_isolated:
        return Fold(lap, halves, jnp.zeros(0, jnp.int32), kept)
    folded = jnp.zeros(lap.num_vertices, bool)
    for group in halves.folded:
        folded = folded.at[slice(*group)].set(True)
    # In float32 XLA selects, where for integers it sorts.
    lone, isolated = jax.lax.top_k((folded & ~lap.connected).astype(jnp.float32), num + 1)
    return Fold(lap, halves, isolated, jnp.concatenate([jnp.ones_like(kept), lone > 0]))


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


def _side_by_side(groups: tuple[Range, ...]) -> dict[Range, Range]:
    sizes = _sizes(groups)
    return {group: (sum(sizes[:i]), sum(sizes[: i + 1])) for i, group in enumerate(groups)}


def _singular(values: jax.Array) -> jax.Array:
    """The singular value σ of an eigenvalue 1 - σ²; one that cannot be told from 0 counts as what can."""
    return jnp.sqrt(jnp.clip(1 - values, jnp.finfo(values.dtype).eps, 1))


def _lifted_residual(residual: jax.Array, value: jax.Array) -> jax.Array:
    """The residual of a lifted vector: ``|r| / (√2 σ)``, where σ itself can be told from 0."""
    return residual / (2**0.5 * jnp.maximum(_singular(value), jnp.sqrt(residual)))
