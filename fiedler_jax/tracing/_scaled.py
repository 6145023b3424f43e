"""Kernels whose rows are multiplied by an activation first and summed afterwards: the layer of the scaled activation.

``Σ_c h_c (g_c W_co)`` is ``Σ_c (g_c h_c) W_co``, and ``Σ_c (x_c W_co)`` is a product of matrices written by hand; that
product is also what ``Σ_c (x_c - W_co)²``, the distances to learned centres, have of both.
"""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from fiedler_jax._effective import Effective, computed
from fiedler_jax.tracing._edges import joined, placed, with_units_for_pools
from fiedler_jax.tracing._elementwise import combined, elementwise, made_without_units, reduction
from fiedler_jax.tracing._identities import has_units, holds_any, no_units, varied
from fiedler_jax.tracing._movement import transpose
from fiedler_jax.tracing._trace import Rule, ScaledKernel, Trace, Value, identities, shape_of


class _Pairs(NamedTuple):
    """Axes of a scaled kernel, each with that of the identities it meets: those that are summed, and those beside."""

    summed: Sequence[tuple[int, int]]
    beside: Sequence[tuple[int, int]]


def multiplication(trace: Trace, equation: Any, values: Sequence[Value]) -> list[Value]:
    """Element by element, a kernel scaled; but inputs along an axis of its own, such as tokens', are a layer's."""
    which = [isinstance(value, Effective) and bool(value.leaves) for value in values]
    if values[0] is values[1] and id(values[0]) in trace.shifted:
        return square(trace, equation, values)
    if not any(which) or any(map(trace.scaled_kernel, values)):
        return weighed(trace, equation, values)
    if (made := made_without_units(trace, equation, values)) is not None:
        return made
    if sum(which) != 1:
        return elementwise(trace, equation, values)
    kernel, activation, shape = *values[:: 1 if which[0] else -1], shape_of(equation.invars[int(which[0])])
    assert isinstance(kernel, Effective)
    ids = trace.units.simplest(identities(activation))
    if kernel.repeated or not holds_any(ids) or not shape:
        return elementwise(trace, equation, values)
    axes = tuple(range(ids.ndim))
    own = {axis for axis, size in enumerate(kernel.shape) if size > shape[axis]}
    # A statistic that is still to be told from a sum is none. A single unit has an edge for each entry of a vector of
    # features, which are along the last axis.
    alone = ids.size == 1 and own == {ids.ndim - 1}
    if not own or not has_units(ids) or (trace.units.linked(ids) and not alone):
        (found,) = elementwise(trace, equation, values)
        trace.scale(ScaledKernel(identities(found), kernel, axes, ids))
        return [found]
    # Along what both have each input has units of its own.
    both = [axis for axis, size in enumerate(kernel.shape) if size > 1 and axis not in own]
    columns = joined(trace, kernel, ids, (both, ()), (both, ()))
    columns = placed(columns, [*both, *(axis for axis in axes if axis not in both)], ids.ndim)
    trace.scale(ScaledKernel(columns, kernel, axes, trace.units.simplest(ids), trace.products[-1]))
    return [columns]


def difference(trace: Trace, equation: Any, values: Sequence[Value]) -> list[Value]:
    """Element by element; but a kernel with an axis of its own beside rows that are units may be one of centres."""
    (found,) = elementwise(trace, equation, values)
    which = [isinstance(value, Effective) and bool(value.leaves) for value in values]
    if sum(which) != 1 or isinstance(found, Effective):
        return [found]
    kernel, ids = values[which.index(True)], trace.units.simplest(identities(values[which.index(False)]))
    shape = shape_of(equation.invars[which.index(False)])
    assert isinstance(kernel, Effective)
    beside = {axis for axis, size in enumerate(kernel.shape) if size > 1}
    own = {axis for axis in beside if len(shape) == len(kernel.shape) and shape[axis] == 1}
    if own and beside - own <= varied(ids) and beside - own and not kernel.repeated:
        found = found.copy()
        trace.shifted[id(found)] = ScaledKernel(found, kernel, tuple(range(ids.ndim)), ids, is_square=True)
    return [found]


def square(trace: Trace, equation: Any, values: Sequence[Value]) -> list[Value]:
    """Element by element; differences from a kernel, squared, have the products with it in them."""
    (found,), shifted = elementwise(trace, equation, values), trace.shifted.get(id(values[0]))
    if shifted is not None and equation.params.get("y", 2) == 2:
        found = identities(found).copy()
        trace.scale(dataclasses.replace(shifted, result=found))
    return [found]


def weighed(trace: Trace, equation: Any, values: Sequence[Value]) -> list[Value]:
    """A scaled kernel is still one when its entries are scaled or masked: another kernel, or one of gated rows."""
    found, name = elementwise(trace, equation, values), equation.primitive.name
    place = next((i for i, value in enumerate(values) if trace.scaled_kernel(value)), None)
    if place is None or (name == "div" and place == 1):
        return found
    scaled = trace.scaled_kernel(values[place])
    assert scaled is not None
    kernel, rows = scaled.kernel, scaled.rows
    gates = [trace.units.simplest(identities(value)) for i, value in enumerate(values) if i != place]
    if any(map(holds_any, gates)):
        if name == "select_n" or scaled.product is not None or not varied(gates[0]) <= varied(rows):
            return found
        rows = trace.units.simplest(combined(trace, rows, gates[0], scaled=True))
    elif name == "neg":
        kernel = _entrywise(name, jnp.negative, kernel)
    elif name == "select_n":
        kernel = _with_weights(trace, scaled, values[0], f"case {place}", lambda k, n: jnp.where(n == place - 1, k, 0))
    else:
        apply = jnp.multiply if name == "mul" else jnp.divide
        kernel = _with_weights(trace, scaled, values[1 - place], name, apply)
    # A copy, by which it is told from what it was.
    result = identities(found[0]).copy()
    trace.scale(dataclasses.replace(scaled, result=result, kernel=kernel, rows=rows))
    return [result]


def _with_weights(
    trace: Trace, scaled: ScaledKernel, weights: Value, name: str, apply: Callable[..., Any]
) -> Effective:
    """A scaled kernel with a weight for each entry; itself if these are not known, or others at other positions."""
    if not isinstance(weights, Effective):
        return scaled.kernel
    own = _own_axes(scaled)
    beside = [axis for axis in range(len(weights.shape)) if axis not in own]
    value = trace.known(weights)
    if value is None:
        alike = bool(weights.leaves) and all(weights.shape[axis] == 1 for axis in beside)
    else:
        alike = all(np.all(value == value.take([0], axis)) for axis in beside)
    if not alike:
        return scaled.kernel

    def apply_to(kernel: Any, weights: Any) -> Any:
        weights = jnp.asarray(weights)
        if not weights.ndim:
            return apply(kernel, weights)
        at_one = weights[tuple(0 if axis in beside else slice(None) for axis in range(weights.ndim))]
        return apply(kernel, placed(at_one, [own[axis] for axis in sorted(own)], len(scaled.kernel.shape)))

    return _entrywise((name, scaled.axes), apply_to, scaled.kernel, weights)


def _entrywise(name: Any, apply: Callable[..., Any], kernel: Effective, *others: Effective) -> Effective:
    return computed(name, apply, [kernel, *others], [(kernel.shape, kernel.dtype)])[0]


def summation(trace: Trace, equation: Any, values: Sequence[Value]) -> list[Value]:
    """A reduction; but over the rows of a scaled kernel it is a product with the kernel."""
    axes, scaled = equation.params["axes"], trace.scaled_kernel(values[0])
    if scaled is not None:
        kept = [axis for axis in range(scaled.rows.ndim) if axis not in axes]
        pairs = _Pairs(*([(axis, axis) for axis in some] for some in (axes, kept)))
        if _sums_rows(trace, scaled, scaled.rows, pairs):
            return [_layer(trace, scaled, scaled.rows, pairs, kept)]
    return reduction(trace, equation, values)


def summed(trace: Trace, equation: Any, values: Sequence[Value]) -> np.ndarray | None:
    """Identities of a product of activations that sums over the rows of a scaled kernel; None of any other."""
    contract, batch = equation.params["dimension_numbers"]
    free = [
        [(i, axis) for axis in range(len(shape_of(variable))) if axis not in (*contract[i], *batch[i])]
        for i, variable in enumerate(equation.invars)
    ]
    for i, other in ((0, 1), (1, 0)):
        scaled = trace.scaled_kernel(values[i])
        if scaled is None:
            continue
        pairs = _Pairs(*(list(zip(axes[i], axes[other], strict=True)) for axes in (contract, batch)))
        to, ids = dict([*pairs.summed, *pairs.beside]), trace.units.simplest(identities(values[other]))
        if not varied(scaled.rows) <= set(to):
            if (
                trace.units.linked(ids)
                and not trace.units.linked(scaled.rows)
                and scaled.rows.shape == scaled.kernel.shape
            ):
                trace.not_understood("a kernel that an input scales entry by entry", [scaled.kernel])
                return no_units(len(shape_of(equation.outvars[0])))
            continue
        if not _sums_rows(trace, scaled, ids, pairs):
            continue
        rows = np.squeeze(scaled.rows, axis=tuple(axis for axis in range(scaled.rows.ndim) if axis not in to))
        rows = placed(rows, [to[axis] for axis in sorted(to)], ids.ndim)
        order = [*((i, axis) for axis in batch[i]), *free[0], *free[1]]
        order = [axis if j == i else None for j, axis in order]
        return _layer(trace, scaled, combined(trace, ids, rows, scaled=True), pairs, order)
    return None


def transposition(trace: Trace, equation: Any, values: Sequence[Value]) -> list[Value]:
    """A scaled kernel is still one when its axes have changed places."""
    (found,) = transpose(trace, equation, values)
    scaled = trace.scaled_kernel(values[0])
    if scaled is not None:
        order = tuple(equation.params["permutation"])
        axes, rows = tuple(map(order.index, scaled.axes)), scaled.rows.transpose(order)
        trace.scale(dataclasses.replace(scaled, result=identities(found), axes=axes, rows=rows))
    return [found]


def conversion(trace: Trace, equation: Any, values: Sequence[Value]) -> list[Value]:
    """A scaled kernel is still one in another type, such as that in which a sum is taken."""
    (found,) = elementwise(trace, equation, values)
    scaled = trace.scaled_kernel(values[0])
    if scaled is not None:
        trace.scale(dataclasses.replace(scaled, result=identities(found)))
    return [found]


def _sums_rows(trace: Trace, scaled: ScaledKernel, ids: np.ndarray, pairs: _Pairs) -> bool:
    """Whether a sum of units, whose identities are given, is one over rows of a scaled kernel alone."""
    own = _own_axes(scaled)
    over = {at for _, at in pairs.summed}
    if not all(axis in own for axis, _ in pairs.summed) or not holds_any(ids):
        return False
    # Units that the kernel is shared by are branches that it weighs, or features whose positions it mixes.
    shared = varied(ids) - over - {at for axis, at in pairs.beside if axis in own}
    return not shared or not trace.units.linked(ids)


def _layer(
    trace: Trace, scaled: ScaledKernel, ids: np.ndarray, pairs: _Pairs, order: Sequence[int | None]
) -> np.ndarray:
    """Identities after a sum over the rows of a scaled kernel.

    Args:
        trace: the notes.
        scaled: the kernel.
        ids: identities of all that its rows are multiplied with.
        pairs: axes of the scaled kernel, each with that of the identities.
        order: the axis of the scaled kernel at each axis of the output, where there is one.
    """
    own, kernel = _own_axes(scaled), scaled.kernel
    ids = with_units_for_pools(trace, ids, kernel)
    batch = [(own[axis], at) for axis, at in pairs.beside if axis in own and at in varied(ids)]
    contract = [(own[axis], at) for axis, at in pairs.summed]
    of_kernel, of_ids = (([pair[side] for pair in batch], [pair[side] for pair in contract]) for side in (0, 1))
    columns = joined(trace, kernel, ids, of_kernel, of_ids)
    free = [axis for axis in range(len(kernel.shape)) if axis not in (*of_kernel[0], *of_kernel[1])]
    if scaled.product is not None:
        trace.summed.append(scaled.product)
    if scaled.is_square:
        trace.share(trace.products[-1], "is subtracted from units or added to them")
    return placed(columns, [order.index(scaled.axes[axis]) for axis in (*of_kernel[0], *free)], len(order))


def _own_axes(scaled: ScaledKernel) -> dict[int, int]:
    """The axes of a scaled kernel that the kernel has too, with those of the kernel."""
    return {axis: own for own, axis in enumerate(scaled.axes) if scaled.kernel.shape[own] > 1}


RULES: dict[str, Rule] = {
    "mul": multiplication,
    **dict.fromkeys(["sub", "add"], difference),
    **dict.fromkeys(["square", "integer_pow"], square),
    **dict.fromkeys(["div", "neg", "select_n"], weighed),
    "reduce_sum": summation,
    "transpose": transposition,
    "convert_element_type": conversion,
}
