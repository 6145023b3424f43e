"""Unit identities: which unit of the network each element of an activation is.

What a reduction leaves of several units, where others vary along another axis, is a pool, a number below -1, and what
that is shows at the end only. The sum of branches that were stacked goes on in their place: then they are one unit, as
if they had been added. The mean of a group of channels that go on themselves is a statistic, and none of them.

An outer product has a number below -1 for each pair of units of its factors. What sums over one factor, or is shared
by its units, sees the other: the features of weighted tokens, not the weights.
"""

import math
from collections.abc import Sequence

import numpy as np

from fiedler_jax._components import joined_by
from fiedler_jax.tracing._identities import NO_UNIT, no_units, varied, varied_among
from fiedler_jax.tracing._united import United

# Units that change places with one another.
_PAIR = 2

# An outer product of more elements is given up, lest a trace need more memory than the model.
MOST_OUTER = 2**24


class Units(United):
    """Numbers for units, and for what several of them make together: pools and outer products."""

    def __init__(self, earlier: "Units | None" = None) -> None:
        """With those of an earlier interpretation of the same program, what were one there are so from the start."""
        super().__init__(earlier)
        # In each column a pool and something in it, a unit or an older pool; a pool and a unit that may be what it is.
        self._pooled = np.zeros((2, 0), np.int32)
        self._claims = np.zeros((2, 0), np.int32)
        # For each number below -1: the unit that stands for it, if one does; the factors, if it is a product; whether
        # it is a pool of neighbours.
        self._unit_of = np.zeros(0, np.int32)
        self._factors = np.zeros((2, 0), np.int32)
        self._neighbours = np.zeros(0, bool)

    def are_linked(self, ids: np.ndarray) -> np.ndarray:
        """Which elements are units that have edges, or outer products of such."""
        return super().are_linked(ids) | self.are_outer(ids)

    def outer(self, some: np.ndarray, others: np.ndarray) -> np.ndarray | None:
        """Identities of what depends on a unit of each of two arrays, wherever both have one; None of too many."""
        one, other = self.simplest(some), self.simplest(others)
        if math.prod(np.broadcast_shapes(one.shape, other.shape)) > MOST_OUTER:
            return None
        one, other = np.broadcast_arrays(one, other)
        both = (one != NO_UNIT) & (other != NO_UNIT)
        ids = np.full(both.shape, NO_UNIT, np.int32)
        ids[both] = self._numbers(np.stack([one[both], other[both]]))
        return ids

    def are_outer(self, ids: np.ndarray) -> np.ndarray:
        """Which elements are outer products."""
        below = ids < NO_UNIT
        if not np.any(below):
            return np.zeros(ids.shape, bool)
        return below & (self._factors[0][np.where(below, NO_UNIT - 1 - ids, 0)] != NO_UNIT)

    def factors(self, ids: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The first factors of outer products, and the second; elsewhere no units."""
        outer = self.are_outer(ids)
        at = np.where(outer, NO_UNIT - 1 - ids, 0)
        one, other = (self.find(np.where(outer, factor[at], NO_UNIT)) for factor in self._factors)
        return one, other

    def seen_along(self, ids: np.ndarray, axes: Sequence[int]) -> np.ndarray:
        """Identities with each outer product by that factor which does not vary along some axes, if the other does.

        A single unit only scales what the other factor is.
        """
        found = self.simplest(ids)
        while np.any(outer := self.are_outer(found)):
            factors = self.factors(found)
            varies = [varied_among(outer, factor) for factor in factors]
            gone = [bool(own & set(axes)) for own in varies]
            if gone[0] == gone[1]:
                gone = [not own for own in varies]
            if gone[0] == gone[1]:
                break
            found = self.simplest(np.where(outer, factors[gone.index(False)], found))
        return found

    def without_pools(self, ids: np.ndarray) -> np.ndarray:
        """Identities in which pools are no units; outer products stay."""
        return np.where((ids < NO_UNIT) & ~self.are_outer(ids), NO_UNIT, ids)

    def pooled(self, ids: np.ndarray, axes: Sequence[int]) -> np.ndarray:
        """Identities after a reduction along some axes, which become of size one.

        Units that do not vary along these stay what they are. Those that do are in a pool for each place along the
        other axes; where they vary along none of these, all are in one statistic, which is no unit.
        """
        found = self.seen_along(ids, axes)
        gone = varied(found) & set(axes)
        if not gone or gone == varied(found):
            return no_units(found.ndim) if gone else found
        members = np.moveaxis(found, sorted(gone), range(-len(gone), 0))
        kept = [1 if axis in gone else size for axis, size in enumerate(found.shape)]
        return self.in_pools(members.reshape(math.prod(kept), -1)).reshape(kept)

    def pooled_together(self, some: np.ndarray, others: np.ndarray) -> np.ndarray:
        """Pools of what is at each place of two arrays of one shape."""
        return self.in_pools(np.stack([some.ravel(), others.ravel()], axis=1)).reshape(some.shape)

    def in_pools(self, members: np.ndarray, neighbours: bool = False) -> np.ndarray:
        """A new pool for each row of members; where none is a unit or a pool, no unit.

        Of neighbours, if one of the members is such a pool.
        """
        held = (members != NO_UNIT) & ~self.are_outer(members)
        pools = self._numbers(np.full((2, len(members)), NO_UNIT, np.int32))
        self._neighbours[NO_UNIT - 1 - pools] = neighbours | np.any(self.are_of_neighbours(members), axis=1)
        pairs = np.stack([np.broadcast_to(pools[:, None], members.shape)[held], members[held]])
        self._pooled = np.concatenate([self._pooled, pairs], axis=1)
        return np.where(held.any(axis=1), pools, NO_UNIT)

    def mixed(self, ids: np.ndarray, axes: Sequence[int]) -> np.ndarray:
        """Identities after which of some along these axes is where is not known: a pool of neighbours of them all."""
        members = np.moveaxis(ids, axes, range(-len(axes), 0))
        kept = [1 if axis in axes else size for axis, size in enumerate(ids.shape)]
        return self.in_pools(members.reshape(math.prod(kept), -1), neighbours=True).reshape(kept)

    def with_neighbours(self, some: np.ndarray, others: np.ndarray) -> np.ndarray | None:
        """Identities of what has come of two arrays, if the units of one are others of those of the other, shifted.

        The places along the last axis count: what is shifted along another is a position of its neighbour. A pair that
        changes places, as the halves of a rotary pair do, are no neighbours.
        """
        one, other = np.broadcast_arrays(self.find(some), self.find(others))
        moved = (one != other) & (one >= 0) & (other >= 0)
        if not np.any(moved) or not one.ndim:
            return None
        row = np.broadcast_to(np.arange(one[..., 0].size).reshape(*one.shape[:-1], 1), one.shape)
        here, there = (row[moved].astype(np.int64) * len(self._parent) + ids[moved] for ids in (one, other))
        if not np.any(np.isin(here, there)):
            return None
        units, component = joined_by(np.unique(np.stack([one[moved], other[moved]]), axis=1))
        mixed = moved.copy()
        mixed[moved] = np.bincount(component)[component][np.searchsorted(units, one[moved])] > _PAIR
        if not np.any(mixed):
            return None
        # What is shifted in from beside the layer is no unit.
        mixed |= (one >= 0) != (other >= 0)
        self.unite(np.where(mixed, NO_UNIT, one), other)
        ids = self.find(np.where(one >= 0, one, other))
        ids[mixed] = self.in_pools(np.stack([one[mixed], other[mixed]], axis=1), neighbours=True)
        return ids

    def are_of_neighbours(self, ids: np.ndarray) -> np.ndarray:
        """Which elements are pools of neighbours."""
        below = ids < NO_UNIT
        return below & self._neighbours[np.where(below, NO_UNIT - 1 - ids, 0)] if np.any(below) else below

    def are_further(self, units: np.ndarray, pools: np.ndarray) -> np.ndarray:
        """Which units are not in these pools, one to each, but others of a layer that is."""
        members = {pool: inside.tolist() for pool, inside in self._members(pools).items()}

        def is_further(unit: int, pool: int) -> bool:
            return unit not in members[pool] and self.made_at(unit) in map(self.made_at, members[pool])

        return np.array(list(map(is_further, self.find(units).tolist(), pools.tolist())), bool)

    def _numbers(self, factors: np.ndarray) -> np.ndarray:
        """New numbers below -1, for products of these factors (2, m) or, where they are no units, for pools."""
        count = factors.shape[1]
        numbers = NO_UNIT - 1 - len(self._unit_of) - np.arange(count, dtype=np.int32)
        self._unit_of = np.concatenate([self._unit_of, np.full(count, NO_UNIT, np.int32)])
        self._factors = np.concatenate([self._factors, factors], axis=1)
        self._neighbours = np.concatenate([self._neighbours, np.zeros(count, bool)])
        return numbers

    def standing_for(self, ids: np.ndarray, name: str) -> np.ndarray:
        """Identities with a unit of its own for each pool or outer product, under this name if it is new."""
        # The older a pool, the smaller the number below zero.
        pools = np.unique(ids[ids < NO_UNIT])[::-1]
        new = pools[self._unit_of[NO_UNIT - 1 - pools] == NO_UNIT]
        if new.size:
            own = self.fresh([len(new)], name)
            self._unit_of[NO_UNIT - 1 - new] = own
            self.link(own)
            self.claim(new, own)
        return np.where(ids < NO_UNIT, self._unit_of[np.maximum(NO_UNIT - 1 - ids, 0)], ids) if pools.size else ids

    def claim(self, pools: np.ndarray, units: np.ndarray) -> None:
        """Note that units are what pools are, if these are no mere statistics."""
        self._claims = np.concatenate([self._claims, np.stack([pools.ravel(), units.ravel()])], axis=1)

    def settle(self, used: np.ndarray, given_out: np.ndarray) -> None:
        """Unite what is in each pool with the units that claim it, where it goes on through these alone.

        Args:
            used: the units that kernels read or the model gives out.
            given_out: what the model gives out. A pool there is a sum if it is one of several layers.

        A pool of units that are used themselves is a statistic, unless they come from as many layers: then it is their
        sum. A claim counts where its unit is used, or is in a pool that goes on.
        """
        used = np.isin(np.arange(len(self._parent)), self.find(used))
        pools = np.concatenate([self._claims[0], given_out[given_out < NO_UNIT]])
        members = self._members(pools[~self.are_of_neighbours(pools)])
        sums = {pool for pool, units in members.items() if self._is_sum(units, used)}
        claims = self._claims[:, [pool in sums for pool in self._claims[0].tolist()]]
        while np.any(going_on := used[self.find(claims[1])]):
            pools, units = claims[:, going_on]
            inside = [members[pool] for pool in pools.tolist()]
            self.unite(np.repeat(units, list(map(len, inside))), np.concatenate(inside))
            used[self.find(np.concatenate(inside))] = True
            claims = claims[:, ~going_on]
        for pool in given_out[np.isin(given_out, list(members))].tolist():
            if self.are_of_a_layer_each(members[pool]):
                self.unite(members[pool][:1], members[pool])

    def _members(self, pools: np.ndarray) -> dict[int, np.ndarray]:
        """The units in some pools, and in the pools in these."""
        members: dict[int, np.ndarray] = {}
        for pool, inside in self._inside(pools):
            units = [members[one] if one < 0 else np.array([one]) for one in inside.tolist()]
            members[pool] = np.unique(self.find(np.concatenate(units)))
        return members

    def _inside(self, wanted: np.ndarray) -> list[tuple[int, np.ndarray]]:
        """Some pools and those in them, and what is in each; before each those that are in it."""
        needed = np.unique(wanted)
        while True:
            pools, inside = self._pooled[:, np.isin(self._pooled[0], needed)]
            further = np.union1d(needed, inside[inside < NO_UNIT])
            if len(further) == len(needed):
                break
            needed = further
        # A pool is older than one that holds it.
        numbers, first = np.unique(-pools, return_index=True)
        return list(zip((-numbers).tolist(), np.split(inside, first[1:]), strict=True)) if len(pools) else []

    def _is_sum(self, units: np.ndarray, used: np.ndarray) -> bool:
        return not np.any(used[units]) or self.are_of_a_layer_each(units)
