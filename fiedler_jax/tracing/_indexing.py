"""Gathers and scatters: embedding tables, positions, and units picked by an index."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from fiedler_jax._effective import Effective
from fiedler_jax.tracing._edges import kernel_name, placed
from fiedler_jax.tracing._elementwise import combined
from fiedler_jax.tracing._identities import NO_UNIT, holds_any, varied
from fiedler_jax.tracing._movement import chosen, is_one_unit
from fiedler_jax.tracing._trace import Product, Rule, Trace, Value, identities, of_outputs, shape_of

# Writes at more places than this are not followed one by one.
_MOST_WRITES = 2**14


def gather(trace: Trace, equation: Any, values: Sequence[Value]) -> list[Value]:
    if isinstance(values[0], Effective) and values[0].leaves:
        return [_embedded(trace, equation, values)]
    numbers, sizes = equation.params["dimension_numbers"], equation.params["slice_sizes"]
    full, rank = shape_of(equation.invars[0]), len(shape_of(equation.outvars[0]))
    ids = trace.units.simplest(identities(values[0]))
    picked = [axis for axis in range(ids.ndim) if sizes[axis] < full[axis]]
    picked = [axis for axis in picked if axis not in numbers.operand_batching_dims]
    indices = trace.known(values[1])
    if varied(ids) & set(picked) and indices is not None:
        exact = _picked_exactly(ids, indices, equation)
        if exact is not None:
            return [trace.units.simplest(exact)]
    ids = chosen(trace, ids, picked, equation, values[:1])
    return [_placed(ids, numbers, numbers.collapsed_slice_dims, rank)]


def _placed(ids: np.ndarray, numbers: Any, dropped: Sequence[int], rank: int) -> np.ndarray:
    """Identities of slices, without the dropped axes, among the axes of a gather's output."""
    batch = [axis for axis in range(rank) if axis not in numbers.offset_dims]
    left = [axis for axis in range(ids.ndim) if axis not in dropped and axis not in numbers.operand_batching_dims]
    stays = [axis for axis in range(ids.ndim) if axis not in dropped]
    at = [_output_axis(own, numbers, left, batch) for own in stays]
    return placed(np.squeeze(ids, axis=tuple(dropped)), at, rank)


def _output_axis(own: int, numbers: Any, left: list[int], batch: list[int]) -> int:
    if own in left:
        return numbers.offset_dims[left.index(own)]
    return batch[numbers.start_indices_batching_dims[numbers.operand_batching_dims.index(own)]]


def _picked_exactly(ids: np.ndarray, indices: np.ndarray, equation: Any) -> np.ndarray | None:
    """Identities of a gather by known indices, where each index picks single elements of its axis."""
    numbers, sizes = equation.params["dimension_numbers"], equation.params["slice_sizes"]
    batching = dict(zip(numbers.operand_batching_dims, numbers.start_indices_batching_dims, strict=True))
    indexed = [*numbers.start_index_map, *batching]
    if any(sizes[axis] != 1 for axis in indexed):
        return None
    full = shape_of(equation.invars[0])
    expanded = np.broadcast_to(ids, [full[a] if a in indexed else ids.shape[a] for a in range(ids.ndim)])
    front = np.moveaxis(expanded, indexed, range(len(indexed)))
    places = [np.clip(indices[..., i], 0, full[axis] - 1) for i, axis in enumerate(numbers.start_index_map)]
    places += [np.indices(indices.shape[:-1])[axis] for axis in batching.values()]
    # Axes: those of the indices, then those of the operand that are not indexed.
    taken = front[tuple(places)]
    rest = [axis for axis in range(ids.ndim) if axis not in indexed]
    kept = [axis for axis in range(ids.ndim) if axis not in (*numbers.collapsed_slice_dims, *batching)]
    batch = indices.ndim - 1
    for position, axis in enumerate(kept):
        if axis not in rest:
            taken = np.expand_dims(taken, batch + position)
    rank = len(shape_of(equation.outvars[0]))
    others = [axis for axis in range(rank) if axis not in numbers.offset_dims]
    return np.moveaxis(taken, range(rank), [*others, *numbers.offset_dims])


def _embedded(trace: Trace, equation: Any, values: Sequence[Value]) -> np.ndarray:
    """Rows of a table looked up by an input: edges between a vertex for each row and the features.

    Single numbers, such as the bias of each item, are no features.
    """
    kernel = values[0]
    assert isinstance(kernel, Effective)
    numbers, sizes = equation.params["dimension_numbers"], equation.params["slice_sizes"]
    (out,) = of_outputs(equation)
    rows, stack = list(numbers.collapsed_slice_dims), list(numbers.operand_batching_dims)
    columns = [axis for axis in range(len(kernel.shape)) if axis not in (*rows, *stack)]
    whole = all(sizes[axis] == kernel.shape[axis] for axis in columns)
    if not columns and not stack and len(rows) == 1:
        trace.used(values[:1], "is a number for each index")
        return out
    if len(rows) != 1 or len(columns) != 1 or not whole:
        trace.not_understood("parameters picked by a computed index", values)
        return out
    name = kernel_name(kernel)
    source, target = (
        trace.units.fresh([n if axis in (*ends, *stack) else 1 for axis, n in enumerate(kernel.shape)], label)
        for ends, label in ((rows, f"{name} rows"), (columns, name))
    )
    trace.multiply(Product(kernel, source, target))
    return _placed(target, numbers, rows, out.ndim)


def scatter(trace: Trace, equation: Any, values: Sequence[Value]) -> list[Value]:
    """What is written joins the units that were there, position by position."""
    numbers = equation.params["dimension_numbers"]
    full = shape_of(equation.invars[0])
    ids, update = (trace.units.simplest(identities(values[i])) for i in (0, 2))
    trace.used([values[0], values[2]], f"enters {equation.primitive.name}")
    exact = _written_exactly(trace, ids, update, equation, values)
    if exact is not None:
        return [exact]
    batching = dict(zip(numbers.operand_batching_dims, numbers.scatter_indices_batching_dims, strict=True))
    scattered = [axis for axis in range(update.ndim) if axis not in numbers.update_window_dims]
    update = chosen(
        trace, update, [a for i, a in enumerate(scattered) if i not in batching.values()], equation, values[2:]
    )
    window = [axis for axis in range(len(full)) if axis not in numbers.inserted_window_dims and axis not in batching]
    from_update = {own: axis for own, axis in zip(window, numbers.update_window_dims, strict=True)}
    from_update |= {own: scattered[index_axis] for own, index_axis in batching.items()}
    partial = [
        own
        for own in range(len(full))
        if own not in from_update or shape_of(equation.invars[2])[from_update[own]] < full[own]
    ]
    ids = chosen(trace, ids, partial, equation, values[:1])
    update = chosen(trace, update, [from_update[own] for own in partial if own in from_update], equation, values[2:])
    own_of = {axis: own for own, axis in from_update.items()}
    rest = tuple(axis for axis in range(update.ndim) if axis not in own_of)
    return [combined(trace, ids, placed(np.squeeze(update, axis=rest), [own_of[a] for a in sorted(own_of)], len(full)))]


def _written_exactly(
    trace: Trace, ids: np.ndarray, update: np.ndarray, equation: Any, values: Sequence[Value]
) -> np.ndarray | None:
    """Identities after writes at known places, if units vary among these, or come to single ones that had none.

    Other places are positions of what is there, such as those of a cache.
    """
    numbers, full = equation.params["dimension_numbers"], shape_of(equation.invars[0])
    indices = trace.known(values[1])
    if indices is None or numbers.operand_batching_dims or math.prod(indices.shape[:-1]) > _MOST_WRITES:
        return None
    windows = _in_windows(update, numbers)
    sizes = windows.shape[indices.ndim - 1 :]
    lengths = _in_windows(np.empty(shape_of(equation.invars[2]), bool), numbers).shape[indices.ndim - 1 :]
    moving = {axis for axis in range(len(full)) if lengths[axis] < full[axis]}
    varies = moving & varied(ids) or any(sizes[axis] > 1 for axis in moving)
    single = set(numbers.scatter_dims_to_operand_dims) <= set(numbers.inserted_window_dims)
    alone = is_one_unit(trace, update, ids)
    if not (varies or alone or (single and holds_any(update) and not holds_any(ids))):
        return None
    shape = [full[axis] if axis in moving else max(ids.shape[axis], sizes[axis]) for axis in range(len(full))]
    there, given, times = np.broadcast_to(ids, shape), np.full(shape, NO_UNIT, np.int32), np.zeros(shape, np.int32)
    for place in np.ndindex(indices.shape[:-1]):
        starts = np.zeros(len(full), int)
        starts[list(numbers.scatter_dims_to_operand_dims)] = indices[place]
        if np.any((starts < 0) | (starts + lengths > full)):
            return None
        spans = zip(starts.tolist(), lengths, strict=True)
        at = tuple(slice(i, i + n) if axis in moving else slice(None) for axis, (i, n) in enumerate(spans))
        given[at] = windows[tuple(i if size > 1 else 0 for i, size in zip(place, windows.shape, strict=False))]
        times[at] += 1
    if equation.primitive.name == "scatter":
        return trace.units.simplest(np.where(times > 0, given, there))
    if np.any(times > 1):
        return None
    trace.units.unite(there, given)
    return trace.units.simplest(np.where(there != NO_UNIT, there, given))


def _in_windows(update: np.ndarray, numbers: Any) -> np.ndarray:
    """The update of a scatter with the axes of its indices first, then those of the operand."""
    scattered = [axis for axis in range(update.ndim) if axis not in numbers.update_window_dims]
    inserted = [len(scattered) + axis for axis in numbers.inserted_window_dims]
    return np.expand_dims(np.moveaxis(update, scattered, range(len(scattered))), tuple(inserted))


RULES: dict[str, Rule] = {
    "gather": gather,
    **dict.fromkeys(["scatter", "scatter-add", "scatter-sub", "scatter-mul", "scatter-min", "scatter-max"], scatter),
}
