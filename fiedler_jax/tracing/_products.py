"""Products and convolutions: where the edges come from."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from fiedler_jax._effective import Effective, constant_value, first_along, is_same_along
from fiedler_jax.tracing._edges import (
    contracted,
    joined,
    kernel_name,
    placed,
    rows_of,
    source_units,
    with_units_for_pools,
)
from fiedler_jax.tracing._elementwise import combined, outer
from fiedler_jax.tracing._identities import NO_UNIT, has_units, holds_any, no_units, varied, varied_among
from fiedler_jax.tracing._scaled import summed
from fiedler_jax.tracing._trace import CARRY, Product, Rule, ScaledKernel, Trace, Value, identities, leaves_of, shape_of


def dot_general(trace: Trace, equation: Any, values: Sequence[Value]) -> list[Value]:
    """With a kernel, a block of edges; the units of a position are those of every position it is shared over."""
    contract, batch = equation.params["dimension_numbers"]
    which = [isinstance(value, Effective) and bool(value.leaves) for value in values]
    if not any(which):
        found = summed(trace, equation, values)
        return [_of_activations(trace, equation, values) if found is None else found]
    w, x = (0, 1) if which[0] else (1, 0)
    kernel = values[w]
    assert isinstance(kernel, Effective)
    ids = trace.units.simplest(identities(values[x]))
    kernel, ids, is_shared = _unrepeated(trace, kernel, ids, batch[w], batch[x])
    rank_w, rank_x = len(kernel.shape), ids.ndim
    free_x = [axis for axis in range(rank_x) if axis not in (*contract[x], *batch[x])]
    ids = trace.units.seen_along(ids, free_x)
    free_w = [axis for axis in range(rank_w) if axis not in (*contract[w], *batch[w])]
    b = len(batch[x])
    if not free_w and varied(ids) & set(contract[x]) and varied(ids) & set(free_x) and trace.units.linked(ids):
        trace.used([kernel], "weighs branches of units")
        return [contracted(trace.units.pooled(ids, contract[x]), contract[x], batch[x], 0, b + len(free_x))]
    features = math.prod(kernel.shape[axis] for axis in contract[w])
    if mixes_positions(trace, ids, contract[x], free_x, features):
        trace.see(ids)
        if varied(ids) & set(contract[x]):  # Of an input read in part, what was not read is one at all positions too.
            ids = trace.units.united_over(ids, contract[x])
        say_mixed(trace, ids, kernel)
        return [contracted(ids, contract[x], batch[x], len(free_w) if w == 0 else 0, b + len(free_x) + len(free_w))]
    if varied(ids) & {*contract[x], *batch[x]}:
        ids = with_units_for_pools(trace, ids, kernel)
    elif np.any(trace.units.are_of_neighbours(ids)):
        ids = no_units(with_units_for_pools(trace, ids, kernel).ndim)
    if not holds_any(ids):
        sizes = [kernel.shape[axis] for axis in (*batch[w], *contract[w])]
        ids = rows_of(trace, values[x], (*batch[x], *contract[x]), sizes, kernel)
    columns = joined(trace, kernel, ids, (batch[w], contract[w]), (batch[x], contract[x]))
    at = [*range(b), *(axis + b + (0 if w == 0 else len(free_x)) for axis in range(len(free_w)))]
    result = placed(columns, at, b + len(free_w) + len(free_x))
    if is_shared:
        trace.share(trace.products[-1], "makes queries that are repeated over a batch")
    if b and free_w and not contract[w]:
        in_result = dict(zip((*batch[w], *free_w), at, strict=True))
        shift = len(free_w) if w == 0 else 0
        rows = contracted(trace.units.simplest(ids), [], batch[x], shift, result.ndim)
        axes = tuple(in_result[axis] for axis in range(len(kernel.shape)))
        trace.scale(ScaledKernel(result, kernel, axes, rows, trace.products[-1]))
    return [result]


def _unrepeated(
    trace: Trace, kernel: Effective, ids: np.ndarray, of_kernel: Sequence[int], of_ids: Sequence[int]
) -> tuple[Effective, np.ndarray, bool]:
    """A kernel that was repeated over a batch, and what it reads, as if it were not; and whether it was."""
    before = kernel
    for axis, at in zip(of_kernel, of_ids, strict=True):
        varies = at in varied(ids)
        if not before.repeated or kernel.shape[axis] == 1 or (varies and trace.units.linked(ids)):
            continue
        if before.known and not is_same_along(before, axis):
            continue
        kernel = first_along(kernel, axis)
        ids = trace.units.united_over(ids, [at]) if varies else ids
    return kernel, ids, kernel is not before


def mixes_positions(
    trace: Trace, ids: np.ndarray, contracted: Sequence[int], free: Sequence[int], features: int
) -> bool:
    """Whether a kernel joins positions of the same unit, and is shared by different units of earlier kernels.

    Uniting what it is shared over would make one vertex of them all (the token mixing of an MLP-Mixer). But where it
    reads one feature of an input, it is shared by that one's positions, though some of them were read before.
    """
    if features == 1 and trace.units.are_inputs(ids) and not trace.units.all_linked(ids):
        return False
    # What no kernel has read, as padding beside a unit, is no other one.
    known = trace.units.are_linked(ids)
    if len(np.unique(ids[known])) < 2:
        return False
    varies = varied_among(known, ids)
    return not varies & set(contracted) and bool(varies & set(free))


def say_mixed(trace: Trace, ids: np.ndarray, kernel: Effective) -> None:
    """Note a kernel left out because it mixes positions; or what an input made of one, such as biased scores."""
    if not kernel.known:
        trace.used([kernel], "weighs positions together with an input or noise")
        return
    found = trace.units.find(ids)
    count = len(np.unique(found[found != NO_UNIT]))
    trace.used([kernel], f"mixes positions and is shared by {count} units, which its edges would make one vertex")


def _of_activations(trace: Trace, equation: Any, values: Sequence[Value]) -> np.ndarray:
    """Identities of a product without parameters: attention, gates, fixed matrices.

    It keeps those of the operand that does not vary along the contracted axes: what is summed are positions of one
    unit. If both operands do so and vary elsewhere, it is an outer product. Units that are summed, each with its gate,
    are in a pool.
    """
    contract, batch = equation.params["dimension_numbers"]
    rank, units = len(shape_of(equation.outvars[0])), trace.units
    seen = [units.seen_along(identities(value), contract[i]) for i, value in enumerate(values)]
    all_ids = [units.simplest(units.without_pools(ids)) for ids in seen]
    for kernel, begun in trace.changed:
        for ids in all_ids:
            if not units.linked(ids) and np.any(np.isin(ids, units.find(begun))):
                trace.not_understood("a kernel changed in a loop", [kernel])
                return no_units(rank)
    summed = [bool(varied(ids) & set(contract[i])) for i, ids in enumerate(all_ids)]
    for ids, is_summed in zip(all_ids, summed, strict=True):
        if is_summed:
            trace.no_queries(ids)
    for i, other in ((0, values[1]), (1, values[0])):
        if summed[i] and isinstance(other, Effective) and not other.leaves:
            return _by_fixed_matrix(trace, all_ids[i], other, i, equation, values)
    free = [[a for a in range(ids.ndim) if a not in (*contract[i], *batch[i])] for i, ids in enumerate(all_ids)]

    def varies(i: int, ids: np.ndarray) -> bool:
        return bool(varied(ids) & set(free[i]))

    def kept(i: int, ids: np.ndarray) -> np.ndarray:
        return contracted(ids, contract[i], batch[i], len(free[0]) if i == 1 else 0, rank)

    one_each = [
        _summed(trace, i, all_ids, free, equation, values) if summed[i] else ids for i, ids in enumerate(all_ids)
    ]
    found = [(varies(i, ids), kept(i, ids)) for i, ids in enumerate(one_each) if ids is not None and holds_any(ids)]
    if len(found) == 2 and found[0][0] == found[1][0]:
        (several, one), (_, other) = found
        if not several:
            return combined(trace, one, other)
        if units.linked(one) and units.linked(other):
            return outer(trace, one, other)
        return one if units.linked(one) else other if units.linked(other) else no_units(rank)
    several, result = max(found, key=lambda of: of[0], default=(False, no_units(rank)))
    if several:
        return result
    # Positions of a pool may be summed as well.
    simplest = enumerate(map(units.simplest, seen))
    pools = [kept(i, ids) for i, ids in simplest if varies(i, ids) and not varied(ids) & set(contract[i])]
    return outer(trace, *pools) if len(pools) == 2 else pools[0] if pools else result


def _summed(
    trace: Trace,
    i: int,
    all_ids: Sequence[np.ndarray],
    free: Sequence[Sequence[int]],
    equation: Any,
    values: Sequence[Value],
) -> np.ndarray | None:
    """One identity for those of operand i that a product without parameters sums, or None where it keeps none.

    It keeps those of branches, and others if each has its gate, as in a mixture of experts: in a pool where the gates
    have further positions, else as one unit.
    """
    contract, _ = equation.params["dimension_numbers"]
    units, ids, others, other = trace.units, all_ids[i], all_ids[1 - i], values[1 - i]
    size, shared = ([shape_of(equation.invars[j])[axis] for axis in free[j]] for j in (i, 1 - i))
    # Along the last axis, as Flax has it, are features.
    keeps_features = ids.ndim - 1 in varied(ids) - set(contract[i])
    # The elements of an input may be those of as many positions.
    positions = keeps_features and units.linked(ids) and not units.linked(others)
    if isinstance(other, Effective) or (varied(others) & set(free[1 - i]) and not positions):
        return None
    if not units.are_branches(ids, contract[i]):
        # Gates of an example are those of all its positions.
        of_examples = all(n == 1 for n in shared) and keeps_features
        if not (of_examples or _is_gated_sum(ids, free[i], size)):
            return None
        # A query's score of the features that an input holds, or each of several branches.
        kept = sorted(varied(ids) & set(free[i]))
        is_score = _are_features(trace, ids, contract[i]) or units.are_branches(ids, kept)
        if is_score and varied(others) & set(contract[1 - i]) and units.linked(others):
            return None
    # A query at one position looks the same, but its scores are of several.
    in_pools = units.linked(ids) and not units.are_inputs(ids) and any(n > 1 for n in shared)
    return (units.pooled if in_pools else units.united_over)(ids, contract[i])


def _by_fixed_matrix(
    trace: Trace, ids: np.ndarray, matrix: Effective, i: int, equation: Any, values: Sequence[Value]
) -> np.ndarray:
    """Identities after a product, whose operand i they are, with a matrix that depends on no parameter.

    What reads one element is it, what reads several that nothing else reads is a pool of them. Units that are mixed
    further cannot be told apart. Of an input, features that are mixed are new ones, and positions are one.
    """
    contract, batch = equation.params["dimension_numbers"]
    units, rank = trace.units, len(shape_of(equation.outvars[0]))
    free = [axis for axis in range(ids.ndim) if axis not in (*contract[i], *batch[i])]
    free_of_matrix = [a for a in range(len(matrix.shape)) if a not in (*contract[1 - i], *batch[1 - i])]
    weights = constant_value(matrix)
    if weights is not None:
        order = *batch[1 - i], *free_of_matrix, *contract[1 - i]
        shapes = [[matrix.shape[a] for a in axes] for axes in (batch[1 - i], free_of_matrix, contract[1 - i])]
        read = (weights.transpose(order) != 0).reshape([math.prod(shape) for shape in shapes])
        kept = [ids.shape[axis] for axis in free]
        full = np.broadcast_to(ids.transpose(*batch[i], *free, *contract[i]), (*shapes[0], *kept, *shapes[2]))
        found = _read(trace, full.reshape(len(read), -1, read.shape[2]), read)
        if found is not None:
            axes = range(rank)
            b, f = len(batch[i]), len(free)
            first = [*axes[:b], *axes[b + f :], *axes[b : b + f]]
            return found.reshape(*shapes[0], *kept, *shapes[1]).transpose(first if i == 1 else axes)
    if units.linked(ids):
        trace.not_understood("a product of units with a fixed matrix", values)
        return no_units(rank)
    if not varied(ids) & set(free):
        return no_units(rank)
    shift = len(free_of_matrix) if i == 1 else 0
    if ids.ndim - 1 not in contract[i]:
        return contracted(units.united_over(ids, contract[i]), contract[i], batch[i], shift, rank)
    one_each = ids[tuple(slice(0, 1) if axis in contract[i] else slice(None) for axis in range(ids.ndim))]
    shape = list(contracted(one_each, contract[i], batch[i], shift, rank).shape)
    first = len(batch[i]) + (0 if i == 1 else len(free))
    shape[first : first + len(free_of_matrix)] = [matrix.shape[axis] for axis in free_of_matrix]
    return units.fresh(shape, f"{units.name(int(ids.max()))} mixed")


def _read(trace: Trace, ids: np.ndarray, read: np.ndarray) -> np.ndarray | None:
    """What the rows (batch, m, k) of a matrix read from identities (batch, free, k), as (batch, free, m).

    None if something is read twice, each time among others.
    """
    count = read.sum(axis=2)[:, None]
    first = read.argmax(axis=2)[:, None]
    picked = np.take_along_axis(ids, np.broadcast_to(first, (*ids.shape[:2], read.shape[1])), axis=2)
    picked = np.where(count == 0, NO_UNIT, picked)
    if np.all(count <= 1):
        return picked
    if not trace.units.linked(ids) or np.any(read.sum(axis=1) > 1):
        return None
    if picked.size == 1:
        return np.full_like(picked, NO_UNIT)
    members = np.where(read[:, None], ids[:, :, None], NO_UNIT)
    return trace.units.in_pools(members.reshape(-1, members.shape[-1])).reshape(picked.shape)


def _are_features(trace: Trace, ids: np.ndarray, axes: Sequence[int]) -> bool:
    """Whether elements of an input are its features along these axes: the last one, as Flax has it, is among them.

    What a loop begins a step with is no input.
    """
    is_input = not trace.units.linked(ids) and trace.units.name(int(ids.max())) != CARRY
    return is_input and ids.ndim - 1 in axes


def _is_gated_sum(ids: np.ndarray, free: Sequence[int], sizes: Sequence[int]) -> bool:
    """Whether a product sums different units of an operand, each with its gate (a mixture of experts).

    Then it varies along all the axes that it keeps. A query does not: it has positions, so that its product with a
    key is a score, which is no unit.
    """
    return bool(varied(ids) & set(free)) and all(
        axis in varied(ids) or size == 1 for axis, size in zip(free, sizes, strict=True)
    )


def ragged_dot(trace: Trace, equation: Any, values: Sequence[Value]) -> list[Value]:
    """Rows in groups, each with its kernel, as in a mixture of experts: the units of a row are those of its group.

    How many rows a group has is not known, and does not matter: here all have as many.
    """
    x, kernel = values[:2]
    numbers = equation.params["ragged_dot_dimension_numbers"]
    contract, batch = numbers.dot_dimension_numbers
    axes = [*contract, *batch, numbers.lhs_ragged_dimensions, numbers.rhs_group_dimensions]
    num_rows, num_groups = shape_of(equation.invars[0])[0], shape_of(equation.invars[1])[0]
    if list(map(tuple, axes)) != [(1,), (1,), (), (), (0,), (0,)] or not leaves_of([kernel]):
        trace.not_understood("a ragged product other than of rows with a kernel for each group", values)
        return [no_units(len(shape_of(equation.outvars[0])))]
    if num_rows < num_groups:
        trace.not_understood("a kernel for each group of rows, traced with fewer rows than groups", values)
        return [no_units(len(shape_of(equation.outvars[0])))]
    assert isinstance(kernel, Effective)
    ids = with_units_for_pools(trace, trace.units.simplest(identities(x)), kernel)
    ids = ids if holds_any(ids) else rows_of(trace, x, [1], [kernel.shape[1]], kernel)
    group_of = np.arange(num_rows) * num_groups // num_rows
    in_groups = [trace.units.simplest(ids[group_of == group] if len(ids) > 1 else ids) for group in range(num_groups)]
    # What has other units in one group is not in groups, and any row of it may be in any of these.
    apart = all(len(rows) == 1 for rows in in_groups)
    ids = np.concatenate(in_groups) if apart else trace.units.united_over(ids, [0])
    return [joined(trace, kernel, trace.units.simplest(ids), ([0], [1]), ([0], [1]))[group_of]]


def convolution(trace: Trace, equation: Any, values: Sequence[Value]) -> list[Value]:
    """Channels are the units; taps of one pair of channels are summed."""
    numbers, groups = equation.params["dimension_numbers"], equation.params["feature_group_count"]
    kernel, rank = values[1], len(shape_of(equation.outvars[0]))
    positions = [0, *range(2, rank)]
    ids = trace.units.simplest(identities(values[0])).transpose(numbers.lhs_spec)
    ids = trace.units.seen_along(ids, positions)
    is_kernel = isinstance(kernel, Effective) and bool(kernel.leaves)
    if equation.params["batch_group_count"] != 1 or (not is_kernel and isinstance(values[0], Effective)):
        if leaves_of(values) or any(trace.units.linked(identities(value)) for value in values):
            trace.not_understood("a convolution over groups of the batch, or of what depends on no input", values)
        return [no_units(rank)]
    if not is_kernel:
        return [_by_fixed_kernel(trace, equation, values, ids)]
    assert isinstance(kernel, Effective)
    at = numbers.rhs_spec[:2]
    outputs, inputs = (kernel.shape[axis] for axis in at)
    if groups == 1 and mixes_positions(trace, ids, [1], positions, inputs):
        say_mixed(trace, ids, kernel)
        shapes = (shape_of(equation.invars[0]), numbers.lhs_spec), (shape_of(equation.outvars[0]), numbers.out_spec)
        before, after = ([shape[axis] for axis in spec[2:]] for shape, spec in shapes)
        return [ids.transpose(np.argsort(numbers.out_spec)) if before == after else no_units(rank)]
    if 1 in varied(ids):
        ids = with_units_for_pools(trace, ids, kernel)
    if not holds_any(ids):
        ids = rows_of(trace, values[0], [numbers.lhs_spec[1]], [groups * inputs], kernel).transpose(numbers.lhs_spec)
    channels = trace.units.united_over(ids, positions).reshape(-1)
    channels = source_units(trace, np.broadcast_to(channels, groups * inputs), [groups * inputs], kernel)
    # Axes: output channels, input channels of the group.
    source = channels.reshape(groups, 1, inputs)
    source = np.repeat(source, 1 if groups == 1 else outputs // groups, axis=1).reshape(-1, inputs)
    target = trace.units.fresh([outputs, 1], kernel_name(kernel))
    trace.multiply(Product(kernel, placed(source, at, rank), placed(target, at, rank)))
    return [placed(target[:, 0], [numbers.out_spec[1]], rank)]


def _by_fixed_kernel(trace: Trace, equation: Any, values: Sequence[Value], ids: np.ndarray) -> np.ndarray:
    """Identities, from those in the order (batch, channel, positions), after a convolution without parameters.

    Where each output channel reads one element (the extraction of patches) it is that element; where it reads one
    channel at several positions (a blur) it is that channel; else it is no unit.
    """
    params = equation.params
    numbers, groups = params["dimension_numbers"], params["feature_group_count"]
    rank = ids.ndim
    weights = constant_value(values[1]) if isinstance(values[1], Effective) else None
    ids = np.maximum(ids, NO_UNIT)
    if weights is None or not has_units(ids):
        if has_units(ids) and has_units(identities(values[1])):
            trace.not_understood("a convolution with a kernel made of activations", values)
        return no_units(rank)
    weights = weights.transpose(numbers.rhs_spec)
    in_shape = [shape_of(equation.invars[0])[axis] for axis in numbers.lhs_spec]
    out_shape = [shape_of(equation.outvars[0])[axis] for axis in numbers.out_spec]
    read = [np.argwhere(one) for one in weights]
    channel_of = [i // (len(weights) // groups) * weights.shape[1] + places[:, 0] for i, places in enumerate(read)]
    if any(len(set(channels)) != 1 for channels in channel_of):
        if 1 in varied(ids) and trace.units.linked(ids):
            trace.not_understood("a convolution of units with a fixed kernel", values)
        return no_units(rank)
    single = all(len(places) == 1 for places in read) and all(d == 1 for d in params["lhs_dilation"])
    if not single and varied(ids) & set(range(2, rank)):
        if trace.units.linked(ids):
            trace.not_understood("a convolution of units with a fixed kernel", values)
            return no_units(rank)
        ids = trace.units.united_over(ids, range(2, rank))
    outputs = []
    for places, channels in zip(read, channel_of, strict=True):
        one = ids.take([channels[0] if ids.shape[1] > 1 else 0], axis=1)
        for axis in range(2, rank):
            if one.shape[axis] == 1:
                continue
            tap = places[0][axis - 1] * params["rhs_dilation"][axis - 2] - params["padding"][axis - 2][0]
            at = np.arange(out_shape[axis]) * params["window_strides"][axis - 2] + tap
            inside = (at >= 0) & (at < in_shape[axis])
            moved = np.moveaxis(one, axis, -1)[..., np.where(inside, at, 0)]
            one = np.moveaxis(np.where(inside, moved, -1), -1, axis)
        outputs.append(one)
    return trace.units.simplest(np.concatenate(outputs, axis=1)).transpose(np.argsort(numbers.out_spec))


RULES: dict[str, Rule] = {
    "dot_general": dot_general,
    "ragged_dot_general": ragged_dot,
    "conv_general_dilated": convolution,
}
