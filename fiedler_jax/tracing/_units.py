"""Unit identities: which unit of the network each element of an activation is.

Identities are an integer array with as many axes as the activation, of size one along every axis on which they do not
depend; -1 is an element that is no unit (a statistic, a constant). Units that turn out to be one are united.
"""

import bisect
from collections.abc import Sequence

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

NO_UNIT = -1


class Units:
    """Numbers for units, and which of them are one and the same (a union-find)."""

    def __init__(self) -> None:
        self._parent = np.zeros(0, np.int32)
        self._linked = np.zeros(0, bool)
        self._names: list[tuple[int, str]] = []

    def fresh(self, shape: Sequence[int], name: str) -> np.ndarray:
        """New units, under a name for the report."""
        first, count = len(self._parent), int(np.prod(shape, dtype=np.int64))
        numbers = np.arange(first, first + count, dtype=np.int32)
        self._parent = np.concatenate([self._parent, numbers])
        self._linked = np.concatenate([self._linked, np.zeros(count, bool)])
        self._names.append((first, name))
        return numbers.reshape(shape)

    def name(self, unit: int) -> str:
        """The name under which a unit was made."""
        return self.made_at(unit)[1]

    def made_at(self, unit: int) -> tuple[int, str]:
        """The first of the units that were made together with this one, and their name."""
        return self._names[bisect.bisect_right(self._names, unit, key=lambda made: made[0]) - 1]

    def find(self, ids: np.ndarray) -> np.ndarray:
        """The one number that stands for each unit."""
        found = np.where(ids >= 0, self._parent[ids] if len(self._parent) else ids, NO_UNIT)
        while True:
            above = np.where(found >= 0, self._parent[found] if len(self._parent) else found, NO_UNIT)
            if np.array_equal(above, found):
                return found.astype(np.int32)
            found = above

    def unite(self, some: np.ndarray, others: np.ndarray) -> None:
        """Make one of the units at each place of two arrays that broadcast, where both are units."""
        one, other = (a.ravel() for a in np.broadcast_arrays(self.find(some), self.find(others)))
        pairs = np.unique(np.stack([one, other])[:, (one != other) & (one >= 0) & (other >= 0)], axis=1)
        if not pairs.size:
            return
        roots, ends = np.unique(pairs, return_inverse=True)
        ends = ends.reshape(2, -1)
        graph = coo_array((np.ones(ends.shape[1]), (ends[0], ends[1])), shape=(len(roots), len(roots)))
        _, component = connected_components(graph, directed=False)
        _, first = np.unique(component, return_index=True)
        least = roots[first][component]
        self._parent[roots] = least
        np.logical_or.at(self._linked, least, self._linked[roots])

    def link(self, ids: np.ndarray) -> None:
        """Note that units have edges."""
        found = self.find(ids)
        self._linked[found[found >= 0]] = True

    def linked(self, ids: np.ndarray) -> bool:
        """Whether any of the units has edges."""
        found = self.find(ids)
        return bool(np.any(self._linked[found[found >= 0]]))

    def simplest(self, ids: np.ndarray) -> np.ndarray:
        """The identities by the numbers that stand for them, of size one wherever they do not vary."""
        found = self.find(ids)
        for axis in range(found.ndim):
            if found.shape[axis] > 1 and np.all(found == (head := found.take([0], axis=axis))):
                found = head
        return found

    def united_over(self, ids: np.ndarray, axes: Sequence[int]) -> np.ndarray:
        """Identities with the units along some axes made one, those axes of size one."""
        moved = np.moveaxis(self.find(ids), axes, range(-len(axes), 0)) if axes else self.find(ids)[..., None]
        kept = moved.shape[: moved.ndim - max(len(axes), 1)]
        flat = moved.reshape(*kept, -1)
        first = flat.max(axis=-1, keepdims=True)
        self.unite(first, flat)
        return np.expand_dims(self.find(first[..., 0]), tuple(sorted(axes)))


def no_units(rank: int) -> np.ndarray:
    """The identities of an array of this rank that holds no units."""
    return np.full((1,) * rank, NO_UNIT, np.int32)


def varied(ids: np.ndarray) -> frozenset[int]:
    """The axes along which identities vary."""
    return frozenset(axis for axis, size in enumerate(ids.shape) if size > 1)


def has_units(ids: np.ndarray) -> bool:
    """Whether any element is a unit."""
    return bool(np.any(ids >= 0))
