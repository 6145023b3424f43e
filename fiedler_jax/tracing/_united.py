"""Which units of a network are one and the same, and which have edges: a union-find.

Units that turn out to be one are united. The least number stands for them.
"""

import bisect
import math
from collections.abc import Sequence

import numpy as np

from fiedler_jax._components import joined_by
from fiedler_jax.tracing._identities import NO_UNIT, has_units, varied


class United:
    """Numbers for units, and which of them are one and the same."""

    def __init__(self, earlier: "United | None" = None) -> None:
        """With those of an earlier interpretation of the same program, what were one there are so from the start."""
        self._earlier = earlier
        # The unit here that stands for each one there, and the first of the units made under a name and shape.
        self._now = np.full(len(earlier._parent) if earlier else 0, NO_UNIT, np.int32)
        self._made: dict[tuple[str, tuple[int, ...]], list[int]] = {}
        self._parent = np.zeros(0, np.int32)
        self._linked = np.zeros(0, bool)
        self._names: list[tuple[int, str]] = []
        # The layer of each unit: those that one kernel makes, but a batch of kernels makes as many layers.
        self._layers = np.zeros(0, np.int32)
        self._num_inputs = 0

    def fresh(self, shape: Sequence[int], name: str, layers: Sequence[int] = ()) -> np.ndarray:
        """New units, under a name for the report: (*layers, *shape) of them, of so many layers."""
        shape = (*layers, *shape)
        first, count = len(self._parent), int(np.prod(shape, dtype=np.int64))
        numbers = np.arange(first, first + count, dtype=np.int32)
        before = self._layers.max(initial=-1) + 1
        own = np.repeat(np.arange(math.prod(layers), dtype=np.int32), count // math.prod(layers) if count else 0)
        self._layers = np.concatenate([self._layers, before + own])
        self._parent = np.concatenate([self._parent, numbers])
        self._linked = np.concatenate([self._linked, np.zeros(count, bool)])
        self._names.append((first, name))
        again = self._made.setdefault((name, shape), [])
        again.append(first)
        if self._earlier is not None and len(known := self._earlier._made.get((name, shape), [])) >= len(again):
            self._unite_as_before(numbers, self._earlier.find(numbers - first + known[len(again) - 1]))
        return numbers.reshape(shape)

    def _unite_as_before(self, numbers: np.ndarray, before: np.ndarray) -> None:
        found, first = np.unique(before, return_index=True)
        new = self._now[found] == NO_UNIT
        self._now[found[new]] = numbers[first[new]]
        self.unite(numbers, self._now[before])

    def made_as_before(self) -> bool:
        """Whether units were made under the names and shapes of the earlier interpretation, as many each, if any."""
        earlier = self._earlier._made if self._earlier else {}
        return all(len(again) == len(earlier[key]) for key, again in self._made.items() if key in earlier)

    def mark_inputs(self) -> None:
        """Note that all units made so far are elements of inputs."""
        self._num_inputs = len(self._parent)

    def are_inputs(self, ids: np.ndarray) -> bool:
        """Whether all the units are elements of inputs, or have been united with some."""
        # The least number stands for a unit.
        found = self.find(ids)
        return bool(np.all(found[found >= 0] < self._num_inputs))

    def name(self, unit: int) -> str:
        """The name under which a unit was made."""
        return self.made_at(unit)[1]

    def made_at(self, unit: int) -> tuple[int, str]:
        """The first of the units that were made together with this one, and their name."""
        return self._names[bisect.bisect_right(self._names, unit, key=lambda made: made[0]) - 1]

    def held_of_a_layer(self, units: np.ndarray) -> np.ndarray:
        """For each of these numbers, how many units of one layer it stands for at most."""
        if not units.size:
            return np.zeros(0, int)
        every = np.arange(len(self._parent))
        every = every[np.isin(found := self.find(every), units)]
        made = np.searchsorted([first for first, _ in self._names], every, side="right")
        pairs, counts = np.unique(np.stack([found[every], made]), axis=1, return_counts=True)
        return np.array([counts[pairs[0] == unit].max() for unit in units.tolist()])

    def find(self, ids: np.ndarray) -> np.ndarray:
        """The one number that stands for each unit."""
        found = ids
        while True:
            above = np.where(found >= 0, self._parent[np.maximum(found, 0)] if len(self._parent) else found, found)
            if np.array_equal(above, found):
                return found.astype(np.int32)
            found = above

    def unite(self, some: np.ndarray, others: np.ndarray) -> None:
        """Make one of the units at each place of two arrays that broadcast, where both are units."""
        one, other = (a.ravel() for a in np.broadcast_arrays(self.find(some), self.find(others)))
        pairs = np.unique(np.stack([one, other])[:, (one != other) & (one >= 0) & (other >= 0)], axis=1)
        if not pairs.size:
            return
        roots, component = joined_by(pairs)
        _, first = np.unique(component, return_index=True)
        least = roots[first][component]
        self._parent[roots] = least
        np.logical_or.at(self._linked, least, self._linked[roots])

    def link(self, ids: np.ndarray) -> None:
        """Note that units have edges."""
        found = self.find(ids)
        self._linked[found[found >= 0]] = True

    def all_linked(self, ids: np.ndarray) -> bool:
        """Whether all of the units have edges."""
        found = self.find(ids)
        return bool(np.all(self._linked[found[found >= 0]]))

    def are_linked(self, ids: np.ndarray) -> np.ndarray:
        """Which elements are units that have edges."""
        found = self.find(ids)
        linked = np.array(found >= 0)
        linked[linked] = self._linked[found[linked]]
        return linked

    def linked(self, ids: np.ndarray) -> bool:
        """Whether any of the units has edges."""
        return bool(np.any(self.are_linked(ids)))

    def simplest(self, ids: np.ndarray) -> np.ndarray:
        """The identities by the numbers that stand for them, of size one wherever they do not vary."""
        found = self.find(ids)
        for axis in range(found.ndim):
            if found.shape[axis] > 1 and np.all(found == (head := found.take([0], axis=axis))):
                found = head
        return found

    def united_over(self, ids: np.ndarray, axes: Sequence[int]) -> np.ndarray:
        """Identities with the units along some axes made one, those axes of size one; what else there is, is none."""
        ids = np.maximum(ids, NO_UNIT)
        moved = np.moveaxis(self.find(ids), axes, range(-len(axes), 0)) if axes else self.find(ids)[..., None]
        kept = moved.shape[: moved.ndim - max(len(axes), 1)]
        flat = moved.reshape(*kept, math.prod(moved.shape[len(kept) :]))
        if not flat.size:  # A batch or a layer of none.
            return np.full([1 if axis in axes else size for axis, size in enumerate(ids.shape)], NO_UNIT, np.int32)
        first = flat.max(axis=-1, keepdims=True)
        self.unite(first, flat)
        return np.expand_dims(self.find(first[..., 0]), tuple(sorted(axes)))

    def are_branches(self, ids: np.ndarray, axes: Sequence[int]) -> bool:
        """Whether identities vary along some axes, and those of units along them are of a layer each at every place."""
        if not varied(ids) & set(axes) or not has_units(ids):
            return False
        moved = np.moveaxis(self.find(ids), axes, range(-len(axes), 0))
        count = math.prod(moved.shape[ids.ndim - len(axes) :])
        places = np.sort(moved.reshape(-1, count), axis=1)
        again = np.pad(places[:, 1:] == places[:, :-1], ((0, 0), (1, 0)))
        # What is no unit, or the same one again, is like a layer of its own.
        alone = -1 - np.arange(count)
        layers = np.sort(np.where(again | (places < 0), alone, self._layers[np.maximum(places, 0)]), axis=1)
        return not np.any(layers[:, 1:] == layers[:, :-1])

    def are_of_a_layer_each(self, units: np.ndarray) -> bool:
        """Whether no two of these units are of one layer."""
        return len(np.unique(self._layers[units])) == len(units)
