"""From products of kernels with units to groups of units and edge blocks."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from fiedler_jax._arrangement import Arrangement, Scattered, Span
from fiedler_jax._effective import Effective
from fiedler_jax._paths import display
from fiedler_jax.graph import EdgeBlock, UnitGroup
from fiedler_jax.tracing._edges import kernel_name
from fiedler_jax.tracing._trace import CARRY, Trace


def assembled(trace: Trace) -> tuple[tuple[UnitGroup, ...], tuple[EdgeBlock, ...]]:
    """The groups of units and the edge blocks of everything noted.

    A group is a largest set of units that every kernel takes or leaves as a whole, so that each block of edges lies
    between two whole groups.
    """
    ends = [(trace.units.find(p.source), trace.units.find(p.target)) for p in trace.products]
    units, group_of = _partition([end for pair in ends for end in pair])
    numbers = np.unique(group_of)
    members = sorted((units[group_of == number] for number in numbers), key=lambda own: own[0])
    place = np.full(units.max() + 1, -1, np.int32)
    home = np.full(units.max() + 1, -1, np.int32)
    for i, own in enumerate(members):
        place[own], home[own] = np.arange(len(own)), i
    makers: list[list[Effective]] = [[] for _ in members]
    for product, (_, target) in zip(trace.products, ends, strict=True):
        for j in np.unique(home[target]):
            makers[j].append(product.kernel)
    groups = tuple(map(UnitGroup, _names(trace, members, makers), map(len, members)))
    blocks: list[EdgeBlock] = []
    for product, (source, target) in zip(trace.products, ends, strict=True):
        for i in np.unique(home[source]):
            for j in np.unique(home[target]):
                rows = np.where(home[source] == i, place[source], -1)
                columns = np.where(home[target] == j, place[target], -1)
                found = _arrangement(product.kernel, rows, columns, groups[i].size, groups[j].size)
                if found is not None:
                    shape, how = found
                    name = ", ".join(display(path) for path in product.kernel.leaves) + product.kernel.place
                    blocks.append(EdgeBlock(name, groups[i].name, groups[j].name, shape, how))
    return groups, tuple(blocks)


def _partition(sets: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """All members of some sets, and for each the number of its part: members of the same sets have the same part."""
    members = np.unique(np.concatenate([one.ravel() for one in sets]))
    part = np.zeros(len(members), np.int64)
    for one in sets:
        inside = np.searchsorted(members, np.unique(one))
        _, renewed = np.unique(part[inside], return_inverse=True)
        part[inside] = part.max() + 1 + renewed
    return members, part


def _names(trace: Trace, groups: Sequence[np.ndarray], makers: Sequence[list[Effective]]) -> list[str]:
    """A name for each group: that under which its first unit was made, with the place there if it is a part of it.

    What is carried through a loop has the name that the kernels which make it have in common.
    """
    made = [trace.units.made_at(int(own[0])) for own in groups]
    names: list[str] = []
    for own, kernels, (first, name) in zip(groups, makers, made, strict=True):
        if name == CARRY and kernels:
            name = kernel_name(*kernels)
        parts = [int(other[0]) for other, (start, _) in zip(groups, made, strict=True) if start == first]
        if len(parts) > 1:
            start, stop = own[0] - first, own[-1] - first + 1
            together = stop - start == len(own)
            name += f"[{start}:{stop}]" if together else f"[part {parts.index(int(own[0])) + 1}]"
        count = 2
        unique = name
        while unique in names:
            unique, count = f"{name} ({count})", count + 1
        names.append(unique)
    return names


def _arrangement(
    kernel: Effective, rows: np.ndarray, columns: np.ndarray, num_rows: int, num_columns: int
) -> tuple[tuple[int, ...], Arrangement | None] | None:
    """The shape of the block that a kernel gives between two groups and the way to it; None if there are no edges.

    Args:
        kernel: the effective kernel.
        rows: for each entry (up to broadcasting) the unit of the source group, or -1.
        columns: for each entry the unit of the target group, or -1.
        num_rows: size of the source group.
        num_columns: size of the target group.
    """
    picks = _picks(kernel.shape, rows, columns)
    if not (np.any((rows >= 0) & (columns >= 0)) if picks is None else all(map(len, picks))):
        return None
    regular = None if picks is None else _regular(kernel, rows, columns, num_rows, num_columns, picks)
    if regular is not None:
        shape, how = regular
        plain = not any(how.picked) and not how.summed and how.split == kernel.shape and len(kernel.shape) == 2
        trivial = plain and kernel.leaf is not None and how.order == (0, 1) and shape == kernel.shape
        return shape, None if trivial else how
    outside = [
        np.where(one >= 0, one, size).astype(np.int32) for one, size in ((rows, num_rows), (columns, num_columns))
    ]
    table = Scattered(outside[0].tobytes(), outside[1].tobytes(), rows.shape, columns.shape)
    return (num_rows, num_columns), Arrangement(kernel, scattered=table)


def _regular(
    kernel: Effective,
    rows: np.ndarray,
    columns: np.ndarray,
    num_rows: int,
    num_columns: int,
    picks: Sequence[np.ndarray],
) -> tuple[tuple[int, ...], Arrangement] | None:
    rows, columns = (_picked(one, picks) for one in (rows, columns))
    along_rows, along_columns = _by_axis(rows), _by_axis(columns)
    if along_rows is None or along_columns is None:
        return None
    parts: list[tuple[int, int, int]] = []
    for size, one, other in zip(map(len, picks), along_rows, along_columns, strict=True):
        found = _radices(*(np.broadcast_to(a, size) for a in (one, other)))
        if found is None:
            return None
        parts += found
    if not (_covers([p[:2] for p in parts], num_rows) and _covers([(p[0], p[2]) for p in parts], num_columns)):
        return None
    batch = sorted((i for i, (_, s, t) in enumerate(parts) if s and t), key=lambda i: -parts[i][1])
    source = sorted((i for i, (_, s, t) in enumerate(parts) if s and not t), key=lambda i: -parts[i][1])
    target = sorted((i for i, (_, s, t) in enumerate(parts) if t and not s), key=lambda i: -parts[i][2])
    for axis, own in ((1, source), (2, target)):
        strides = [parts[i][axis] for i in (*batch, *own)]
        if strides != sorted(strides, reverse=True):
            return None
    sizes = [math.prod(parts[i][0] for i in own) for own in (batch, source, target)]
    summed = tuple(i for i, (_, s, t) in enumerate(parts) if not s and not t)
    left = [i for i in range(len(parts)) if i not in summed]
    how = Arrangement(
        kernel,
        tuple(_as_pick(pick, size) for pick, size in zip(picks, kernel.shape, strict=True)),
        tuple(p[0] for p in parts),
        summed,
        tuple(left.index(i) for i in (*batch, *source, *target)),
    )
    return tuple(sizes if batch else sizes[1:]), how


def _picks(shape: Sequence[int], *all_places: np.ndarray) -> list[np.ndarray] | None:
    """The entries along each axis that lie in both groups, if those that do are all combinations of some."""
    inside = [np.ones(size, bool) for size in shape]
    for places in all_places:
        mask = places >= 0
        sides = [mask.any(axis=tuple(a for a in range(mask.ndim) if a != axis)) for axis in range(mask.ndim)]
        combinations = np.ones((), bool)
        for axis, side in enumerate(sides):
            combinations = combinations & np.expand_dims(side, [a for a in range(mask.ndim) if a != axis])
            inside[axis] = inside[axis] & side
        if not np.array_equal(combinations, mask):
            return None
    return [np.flatnonzero(one) for one in inside]


def _picked(places: np.ndarray, picks: Sequence[np.ndarray]) -> np.ndarray:
    for axis, pick in enumerate(picks):
        if places.shape[axis] > 1:
            places = places.take(pick, axis=axis)
    return places


def _as_pick(pick: np.ndarray, size: int) -> Any:
    if len(pick) == size:
        return None
    if pick[-1] - pick[0] + 1 == len(pick):
        return Span(int(pick[0]), int(pick[-1]) + 1)
    return tuple(pick.tolist())


def _by_axis(places: np.ndarray) -> list[np.ndarray] | None:
    """Places as sums of one term per axis, or None if they are not."""
    if places.size == 0 or places.flat[0] != 0:
        return None
    terms, total = [], np.zeros((), np.int64)
    for axis in range(places.ndim):
        term = np.moveaxis(places, axis, 0).reshape(places.shape[axis], -1)[:, 0]
        terms.append(term)
        total = total + np.expand_dims(term, [a for a in range(places.ndim) if a != axis])
    return terms if np.array_equal(total, places) else None


def _radices(one: np.ndarray, other: np.ndarray) -> list[tuple[int, int, int]] | None:
    """An axis as one of several axes (size, step of one, step of other) along each of which both advance evenly."""
    size = len(one)
    if size == 1:
        return []
    steps = int(one[1] - one[0]), int(other[1] - other[0])
    even = np.arange(size)
    for length in sorted((d for d in range(2, size + 1) if size % d == 0), reverse=True):
        heads = slice(None, None, length)
        fits = all(
            np.array_equal(places.reshape(-1, length), places[heads, None] + step * even[:length])
            for places, step in zip((one, other), steps, strict=True)
        )
        if fits and min(steps) >= 0:
            rest = _radices(one[heads], other[heads])
            return None if rest is None else [*rest, (length, *steps)]
    return None


def _covers(axes: Sequence[tuple[int, int]], count: int) -> bool:
    """Whether axes (size, step) with steps above zero run through so many places, each once."""
    reached = 1
    for size, step in sorted(((size, step) for size, step in axes if step), key=lambda axis: axis[1]):
        if step != reached:
            return False
        reached *= size
    return reached == count
