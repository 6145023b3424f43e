"""Operations that move elements about: their identities move with them."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from fiedler_jax.tracing._elementwise import combined
from fiedler_jax.tracing._identities import NO_UNIT, holds_any, no_units, varied
from fiedler_jax.tracing._trace import Rule, Trace, Value, identities, leaves_of, shape_of


def reshaped(ids: np.ndarray, old: Sequence[int], new: Sequence[int]) -> np.ndarray:
    """Identities of an array of the old shape after a reshape; axes without any variation stay of size one."""
    if 0 in old:
        return no_units(len(new))
    expanded, sizes = [], []
    i = j = 0
    while i < len(old) or j < len(new):
        first_i, first_j = i, j
        i, j = min(i + 1, len(old)), min(j + 1, len(new))
        # The smallest runs of old and of new axes that hold equally many elements.
        while (left := math.prod(old[first_i:i])) != (right := math.prod(new[first_j:j])):
            if left < right:
                i += 1
            else:
                j += 1
        varies = any(ids.shape[axis] > 1 for axis in range(first_i, i))
        expanded += [old[axis] if varies else 1 for axis in range(first_i, i)]
        sizes += [new[axis] if varies else 1 for axis in range(first_j, j)]
    return np.broadcast_to(ids, expanded).reshape(sizes)


def reshape(trace: Trace, equation: Any, values: Sequence[Value]) -> list[Value]:
    ids, shape = trace.units.simplest(identities(values[0])), shape_of(equation.invars[0])
    if (order := equation.params["dimensions"]) is not None:
        ids, shape = ids.transpose(order), [shape[axis] for axis in order]
    return [trace.units.simplest(reshaped(ids, shape, shape_of(equation.outvars[0])))]


def transpose(trace: Trace, equation: Any, values: Sequence[Value]) -> list[Value]:
    return [np.transpose(identities(values[0]), equation.params["permutation"])]


def broadcast_in_dim(trace: Trace, equation: Any, values: Sequence[Value]) -> list[Value]:
    ids, shape = identities(values[0]), [1] * len(shape_of(equation.outvars[0]))
    for axis, size in zip(equation.params["broadcast_dimensions"], ids.shape, strict=True):
        shape[axis] = size
    return [ids.reshape(shape)]


def squeeze(trace: Trace, equation: Any, values: Sequence[Value]) -> list[Value]:
    return [np.squeeze(identities(values[0]), axis=tuple(equation.params["dimensions"]))]


def reverse(trace: Trace, equation: Any, values: Sequence[Value]) -> list[Value]:
    return [np.flip(identities(values[0]), axis=tuple(equation.params["dimensions"]))]


def part(ids: np.ndarray, starts: Sequence[int], stops: Sequence[int], steps: Sequence[int]) -> np.ndarray:
    """A slice of identities."""
    spans = zip(ids.shape, starts, stops, steps, strict=True)
    return ids[tuple(slice(None) if size == 1 else slice(start, stop, step) for size, start, stop, step in spans)]


def slice_(trace: Trace, equation: Any, values: Sequence[Value]) -> list[Value]:
    ids, params = identities(values[0]), equation.params
    steps = params["strides"] or [1] * ids.ndim
    return [part(ids, params["start_indices"], params["limit_indices"], steps)]


def split(trace: Trace, equation: Any, values: Sequence[Value]) -> list[Value]:
    ids, axis = identities(values[0]), equation.params["axis"]
    stops = np.cumsum(equation.params["sizes"])
    if ids.shape[axis] == 1:
        return [ids] * len(stops)
    return list(np.split(ids, stops[:-1], axis=axis))


def pad(trace: Trace, equation: Any, values: Sequence[Value]) -> list[Value]:
    """Padding is no unit; but padded positions of a unit are that unit, like the positions that were there."""
    ids = trace.units.simplest(identities(values[0]))
    for axis, (low, high, interior) in enumerate(equation.params["padding_config"]):
        size = shape_of(equation.invars[0])[axis]
        if (low, high, interior) == (0, 0, 0) or (ids.shape[axis] == 1 and size > 1) or not holds_any(ids):
            continue
        full = shape_of(equation.outvars[0])[axis]
        places = low + np.arange(size) * (interior + 1)
        inside = (places >= 0) & (places < full)
        padded = np.full((*ids.shape[:axis], full, *ids.shape[axis + 1 :]), NO_UNIT, np.int32)
        np.moveaxis(padded, axis, 0)[places[inside]] = np.moveaxis(ids, axis, 0)[inside]
        ids = padded
    return [ids]


def concatenate(trace: Trace, equation: Any, values: Sequence[Value]) -> list[Value]:
    """Side by side; a part without units, such as a class token, joins the positions of the units beside it."""
    axis = equation.params["dimension"]
    trace.used(values, "stands beside units")
    parts = [trace.units.simplest(identities(value)) for value in values]
    sizes = [shape_of(variable)[axis] for variable in equation.invars]
    beside = [(ids, size) for ids, size in zip(parts, sizes, strict=True) if holds_any(ids)]
    if not beside:
        return [no_units(parts[0].ndim)]
    filler = beside[0][0]
    same = all(size > 1 and ids.shape == filler.shape and np.array_equal(ids, filler) for ids, size in beside)
    if same and filler.shape[axis] == 1:
        return [filler]
    shape = np.broadcast_shapes(*((*ids.shape[:axis], *ids.shape[axis + 1 :]) for ids in parts))
    full = [np.broadcast_to(ids, (*shape[:axis], size, *shape[axis:])) for ids, size in zip(parts, sizes, strict=True)]
    if len(beside) < len(parts):
        trace.see(np.concatenate([one for ids, one in zip(parts, full, strict=True) if holds_any(ids)], axis=axis))
    return [np.concatenate(full, axis=axis)]


def stacked(trace: Trace, parts: Sequence[np.ndarray], axis: int) -> np.ndarray:
    """Identities of several arrays side by side along a new axis."""
    full = np.broadcast_shapes(*(ids.shape for ids in parts))
    return trace.units.simplest(np.stack([np.broadcast_to(ids, full) for ids in parts], axis))


def stack(trace: Trace, equation: Any, values: Sequence[Value]) -> list[Value]:
    return [stacked(trace, [identities(value) for value in values], equation.params["axis"])]


def unstack(trace: Trace, equation: Any, values: Sequence[Value]) -> list[Value]:
    ids, axis = identities(values[0]), equation.params["axis"]
    return [ids.take(i if ids.shape[axis] > 1 else 0, axis=axis) for i in range(len(equation.outvars))]


def tile(trace: Trace, equation: Any, values: Sequence[Value]) -> list[Value]:
    ids = trace.units.simplest(identities(values[0]))
    return [np.tile(ids, [n if size > 1 else 1 for n, size in zip(equation.params["reps"], ids.shape, strict=True)])]


def chosen(trace: Trace, ids: np.ndarray, axes: Sequence[int], equation: Any, values: Sequence[Value]) -> np.ndarray:
    """Identities after positions along some axes were picked by an index not known beforehand.

    Positions of one unit are that unit; elements of an input become one, as do branches; other units of kernels cannot
    be told apart any more, which is noted.
    """
    ids = trace.units.simplest(ids)
    axes = sorted(varied(ids) & set(axes))
    if not axes:
        return ids
    if np.any(trace.units.are_of_neighbours(ids)):
        return trace.units.mixed(ids, axes)
    if not trace.units.linked(ids) or trace.units.are_branches(ids, axes):
        return trace.units.united_over(ids, axes)
    trace.see(ids)
    trace.not_understood(f"{equation.primitive.name} of units by a computed index", values)
    return no_units(ids.ndim)


def dynamic_slice(trace: Trace, equation: Any, values: Sequence[Value]) -> list[Value]:
    ids, sizes = trace.units.simplest(identities(values[0])), equation.params["slice_sizes"]
    full = shape_of(equation.invars[0])
    if leaves_of(values[:1]):
        # A row of a table is no kernel; a layer of a stack is one.
        if ids.ndim > 2:
            trace.not_understood("parameters picked by a computed index", values[:1])
        trace.used(values[:1], "picked by a computed index")
    moving = []
    for axis in [axis for axis in varied(ids) if sizes[axis] < full[axis]]:
        known = trace.known(values[1 + axis])
        if known is None:
            moving.append(axis)
            continue
        start = min(max(int(known), 0), full[axis] - sizes[axis])
        ids = ids.take(range(start, start + sizes[axis]), axis=axis)
    return [chosen(trace, ids, moving, equation, values[:1])]


def is_one_unit(trace: Trace, update: np.ndarray, there: np.ndarray) -> bool:
    """Whether a single unit is written where none is yet; several are features, of which this is a position."""
    return update.size == 1 and trace.units.linked(update) and not holds_any(there)


def dynamic_update_slice(trace: Trace, equation: Any, values: Sequence[Value]) -> list[Value]:
    ids, update = (trace.units.simplest(identities(value)) for value in values[:2])
    full, sizes = shape_of(equation.invars[0]), shape_of(equation.invars[1])
    moving = [axis for axis in range(ids.ndim) if sizes[axis] < full[axis]]
    known = {axis: trace.known(values[2 + axis]) for axis in moving}
    starts = {axis: int(start) for axis, start in known.items() if start is not None}
    varies = (varied(ids) | varied(update)) & set(moving)
    if len(starts) == len(moving) and (varies or is_one_unit(trace, update, ids)):
        shape = [max(a, b) for a, b in zip(ids.shape, update.shape, strict=True)]
        for axis in moving:
            shape[axis] = full[axis]
        written = np.broadcast_to(ids, shape).copy()
        places = [slice(None)] * ids.ndim
        for axis in moving:
            start = min(max(starts[axis], 0), full[axis] - sizes[axis])
            places[axis] = slice(start, start + sizes[axis])
        written[tuple(places)] = update
        return [written]
    trace.used(values[:2], f"enters {equation.primitive.name}")
    update = chosen(trace, update, moving, equation, values[1:2])
    return [combined(trace, chosen(trace, ids, moving, equation, values[:1]), update)]


RULES: dict[str, Rule] = {
    "reshape": reshape,
    "transpose": transpose,
    "broadcast_in_dim": broadcast_in_dim,
    "squeeze": squeeze,
    "rev": reverse,
    "slice": slice_,
    "split": split,
    "pad": pad,
    "concatenate": concatenate,
    "stack": stack,
    "unstack": unstack,
    "tile": tile,
    "dynamic_slice": dynamic_slice,
    "dynamic_update_slice": dynamic_update_slice,
}

# What only moves entries of a parameter leaves a kernel in its own precision.
STRUCTURAL = frozenset([*RULES, "copy", "gather", "expand_dims"]) - {"dynamic_update_slice"}
