"""Operations element by element, and those along an axis: where units stay, where they unite, where they are lost."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from fiedler_jax._effective import Effective, computed
from fiedler_jax.tracing._identities import NO_UNIT, has_units, holds_any, no_units, varied, varied_among
from fiedler_jax.tracing._jaxpr import EquationFunction
from fiedler_jax.tracing._trace import Rule, Trace, Value, identities, leaves_of, of_outputs, shape_of
from fiedler_jax.tracing._units import MOST_OUTER

# fmt: off
_ADD = ("add", "sub", "add_any")
_MULTIPLY = ("mul", "div")
_OTHER = (
    "abs", "acos", "acosh", "and", "asin", "asinh", "atan", "atan2", "atanh", "bessel_i0e", "bessel_i1e", "cbrt",
    "ceil", "clamp", "clz", "complex", "conj", "convert_element_type", "cos", "cosh", "digamma", "erf", "erf_inv",
    "erfc", "exp", "exp2", "expm1", "floor", "igamma", "igammac", "imag", "integer_pow", "lgamma", "log", "log1p",
    "logistic", "max", "min", "mulhi", "neg", "nextafter", "not", "or", "polygamma", "population_count", "pow",
    "real", "reciprocal", "regularized_incomplete_beta", "rem", "round", "rsqrt", "select_n", "shift_left",
    "shift_right_arithmetic", "shift_right_logical", "sign", "sin", "sinh", "sqrt", "square", "tan", "tanh", "xor",
    "zeta",
)
_UNCHANGED = (
    "copy", "device_put", "name", "optimization_barrier", "pin",
    "reduce_precision", "reshard", "sharding_constraint", "stop_gradient", "layout_constraint", "unpin",
    "with_memory_space_constraint",
)
_AXES_OF_A_MATRIX = 2

# A decision, or a random number, is no unit.
_DECISIONS = (
    "argmax", "argmin", "eq", "eq_to", "ge", "gt", "is_finite", "le", "le_to", "lt", "lt_to", "ne",
    "bitcast_convert_type", "random_bits", "random_clone", "random_fold_in", "random_gamma", "random_seed",
    "random_split", "random_unwrap", "random_wrap", "threefry2x32", "rng_bit_generator", "rng_uniform",
    "philox2x32", "philox4x32", "threefry4x32",
)
_REDUCTIONS = (
    "reduce", "reduce_and", "reduce_max", "reduce_min", "reduce_or", "reduce_prod", "reduce_sum", "reduce_xor",
)
_COLLECTIVES = ("pmax", "pmin", "psum")
_EXCHANGES = (
    "all_gather", "all_gather_invariant", "all_gather_reduced", "all_to_all", "axis_index", "pbroadcast", "pcast",
    "ppermute", "psum_invariant", "pvary", "reduce_scatter",
)
_CUMULATIVE = ("cumlogsumexp", "cummax", "cummin", "cumprod", "cumsum")
_WINDOWS = ("reduce_window", "reduce_window_max", "reduce_window_min", "reduce_window_sum")
# fmt: on


def combined(trace: Trace, some: np.ndarray, others: np.ndarray, scaled: bool = False) -> np.ndarray:
    """The identities of an elementwise operation on two activations: unit i of one is unit i of the other.

    Where one of them varies along an axis on which the other does not, it keeps its identities: a mask or a scalar
    gate is not united with all the units it multiplies. Only the elements of an input, not yet units of any kernel,
    may be united along such an axis. Nor is a gate repeated over units united with those that are `scaled` by it. An
    outer product is of both. A pool may be the unit it meets, if that is one only. Units of a layer that meet their
    neighbours in it are in pools with these.
    """
    units = trace.units
    a, b = units.simplest(some), units.simplest(others)
    if np.any(units.are_outer(a)) or np.any(units.are_outer(b)):
        return _with_outer(trace, a, b)
    if not has_units(a) or not has_units(b):
        return _with_pools(trace, a, b)
    if varied(a) != varied(b):
        trace.see(a)
        trace.see(b)
        if varied(a) < varied(b):
            a, b = b, a
        if not varied(b) < varied(a):
            if units.linked(a) and units.linked(b):
                return outer(trace, a, b)
            # A gate of each position joins no features of an input, which are along the last axis.
            kept = [ids for ids in (a, b) if units.linked(ids)] or [
                ids for ids in (a, b) if ids.ndim - 1 in varied(ids)
            ]
            return kept[0] if kept else no_units(a.ndim)
        gates = a.ndim > 1 and a.ndim - 1 in varied(a) - varied(b) and (not varied(b) or units.are_inputs(a))
        if units.linked(a) or not units.linked(b) or gates:
            return a
        a = units.united_over(a, sorted(varied(a) - varied(b)))
    met = _scaled(trace, a, b) if scaled else None
    if met is None and units.linked(a) and units.linked(b):
        met = units.with_neighbours(a, b)
    if met is not None:
        return units.simplest(met)
    units.unite(a, b)
    return units.simplest(np.where(a >= 0, a, b))


def _scaled(trace: Trace, a: np.ndarray, b: np.ndarray) -> np.ndarray | None:
    """Identities of a product in which units of one factor meet several of the other; None if each meets one.

    What meets several only scales them, as it would along an axis of its own; unless it is as many that were united, as
    the halves of a rotary pair are.
    """
    one, other = np.broadcast_arrays(a, b)
    met = (one >= 0) & (other >= 0)
    pairs, place = np.unique(np.stack([one[met], other[met]]), axis=1, return_inverse=True)
    scales, is_scaled = (_meet_several(trace, own)[place.ravel()] for own in pairs)
    if not np.any(scales | is_scaled):
        return None
    ids = np.where(one >= 0, one, other)
    ids[met] = np.where(scales, other[met], one[met])
    trace.units.unite(one[met][~scales & ~is_scaled], other[met][~scales & ~is_scaled])
    if np.any(both := scales & is_scaled):
        ids[met] = np.where(both, outer(trace, one[met], other[met]), ids[met])
    return ids


def _meet_several(trace: Trace, units: np.ndarray) -> np.ndarray:
    """Which of these units stand there more often than there are units of a layer in them."""
    own, place, counts = np.unique(units, return_inverse=True, return_counts=True)
    several = counts > 1
    several[several] = counts[several] > trace.units.held_of_a_layer(own[several])
    return several[place]


def outer(trace: Trace, some: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Identities of an outer product of units of kernels; but learned queries only weigh what they meet."""
    alone = [ids for ids in (some, others) if not trace.are_queries(ids)]
    if len(alone) == 1:
        return alone[0]
    found = trace.units.outer(some, others)
    if found is None:
        trace.not_understood(f"an outer product of more than {MOST_OUTER} elements", [some, others])
        return no_units(some.ndim)
    return found


def _with_outer(trace: Trace, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """As `combined`, where one activation is an outer product: what varies as a factor of it does is that factor."""
    units = trace.units
    if not np.any(units.are_outer(a)):
        a, b = b, a
    # What only fills up, as padding does, is no unit.
    if varied(a) <= varied(b) and units.linked(b):
        return units.simplest(np.where(b != NO_UNIT, b, a))
    if not units.linked(b) or not varied(b) < varied(a):
        return a
    product = units.are_outer(a)
    same = [factor for factor in units.factors(a) if varied_among(product, factor) == varied(b)]
    for factor in same:
        units.unite(factor, b)
    return units.simplest(np.where(a != NO_UNIT, a, b)) if same or np.any(units.are_outer(b)) else a


def _with_pools(trace: Trace, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """As `combined`, where at least one of the activations has no units."""
    if has_units(b) or not holds_any(a):
        a, b = b, a
    if varied(a) != varied(b) or not holds_any(b):
        across = not trace.units.linked(a) and not varied(b) <= varied(a)
        return b if varied(a) < varied(b) or across else a
    pairs = np.unique(np.stack([a, b], axis=-1).reshape(-1, 2), axis=0)
    # The mean of a group of channels meets all of these.
    alone = [len(np.unique(pairs[:, i])) == len(pairs) for i in (0, 1)]
    if has_units(a):
        met = pairs[(pairs[:, 0] >= 0) & (pairs[:, 1] < NO_UNIT)]
        if alone[1]:
            trace.units.claim(met[:, 1], met[:, 0])
        return _with_further_neighbours(trace, a, b)
    return trace.units.pooled_together(a, b) if all(alone) else b if alone[1] else a


def _with_further_neighbours(trace: Trace, units: np.ndarray, pools: np.ndarray) -> np.ndarray:
    """Units, but where they meet a pool of their neighbours that they are not in, one that holds them too."""
    one, other = np.broadcast_arrays(units, pools)
    further = (one >= 0) & trace.units.are_of_neighbours(other)
    further[further] = trace.units.are_further(one[further], other[further])
    if not np.any(further):
        return units
    further |= (one >= 0) & (other == NO_UNIT)
    ids = one.copy()
    ids[further] = trace.units.in_pools(np.stack([one[further], other[further]], axis=1), neighbours=True)
    return ids


def made_without_units(trace: Trace, equation: Any, values: Sequence[Value]) -> list[Value] | None:
    """What comes of a matrix of parameters and noise, or a scalar input, is one still, of no known value; else None."""
    (output,) = equation.outvars
    kernels = [value for value in values if isinstance(value, Effective) and value.leaves]
    if not kernels:
        return None
    # What is broadcast, as to a batch, is learned noise or a bias.
    if any(kernel.repeated or kernel.shape != shape_of(output) for kernel in kernels):
        return None
    if sum(size > 1 for size in shape_of(output)) < _AXES_OF_A_MATRIX:
        return None
    for ids in (value for value in values if isinstance(value, np.ndarray)):
        if holds_any(ids) and (ids.size > 1 or trace.units.linked(ids)):
            return None
    given = [
        v if isinstance(v, Effective) else Effective(shape_of(at), at.aval.dtype)
        for v, at in zip(values, equation.invars, strict=True)
    ]
    name = equation.primitive.name, equation.params
    return list(computed(name, EquationFunction(equation), given, [(shape_of(output), output.aval.dtype)]))


def elementwise(trace: Trace, equation: Any, values: Sequence[Value]) -> list[Value]:
    """Units unite with those of the other activations; biases, scales and constants leave them as they are."""
    if (made := made_without_units(trace, equation, values)) is not None:
        return made
    (output,) = equation.outvars
    rank = len(output.aval.shape)
    name = equation.primitive.name
    activations = [value for value in values if isinstance(value, np.ndarray)]
    if leaves_of(values):
        kind = "added to" if name in _ADD else "scales" if name in _MULTIPLY else f"enters {name} with"
        trace.used(values, f"{kind} units")
    found = no_units(rank)
    # A scalar, such as the bounds of clamp, has no place of its own.
    for ids in activations:
        found = combined(trace, found, ids if ids.ndim == rank else no_units(rank), scaled=name in _MULTIPLY)
    return [found if np.dtype(bool) != output.aval.dtype else no_units(rank)]


def unchanged(trace: Trace, equation: Any, values: Sequence[Value]) -> list[Value]:
    """Outputs are the inputs."""
    return list(values)


def decision(trace: Trace, equation: Any, values: Sequence[Value]) -> list[Value]:
    """Comparisons, indices and random numbers are no units."""
    trace.used(values, f"enters {equation.primitive.name}")
    return list(of_outputs(equation))


def lost_where_varied(trace: Trace, ids: np.ndarray, axes: Sequence[int]) -> np.ndarray:
    """Identities after an operation that mixes all elements along some axes: none, if they vary there."""
    found = trace.units.simplest(ids)
    if not varied(found) & set(axes):
        return found
    trace.see(found)
    return no_units(found.ndim)


def reduction(trace: Trace, equation: Any, values: Sequence[Value]) -> list[Value]:
    """A statistic over an axis along which the units vary is none of them, or a pool; over positions it is the unit."""
    axes = equation.params["axes"] if "axes" in equation.params else equation.params["dimensions"]
    kept = [trace.units.pooled(identities(value), axes) for value in values[: len(equation.outvars)]]
    return [np.squeeze(ids, axis=tuple(axes)) for ids in kept]


def is_over_devices(equation: Any) -> bool:
    """Whether an operation goes over devices; over an axis that vmap has named, one is a reduction."""
    axes = equation.params.get("axes", equation.params.get("axis_name", ()))
    named = any(isinstance(axis, str) for axis in (axes if isinstance(axes, tuple) else (axes,)))
    return equation.primitive.name in (*_COLLECTIVES, *_EXCHANGES) and named


def over_devices(trace: Trace, equation: Any, values: Sequence[Value]) -> list[Value]:
    """On one device nothing happens, and a sum of what several have of a unit is that unit."""
    if not values:
        return [Effective(shape_of(variable), variable.aval.dtype) for variable in equation.outvars]
    if [shape_of(variable) for variable in equation.outvars] == [shape_of(variable) for variable in equation.invars]:
        return list(values)
    trace.not_understood(f"{equation.primitive.name} over devices", values)
    return list(of_outputs(equation))


def cumulative(trace: Trace, equation: Any, values: Sequence[Value]) -> list[Value]:
    """As a reduction, but the axis stays; so units of kernels are mixed with their neighbours, as by a fixed matrix.

    Positions of an input are one. Its features, along the last axis, that are mixed are new ones.
    """
    units, axis = trace.units, equation.params["axis"]
    ids = units.simplest(identities(values[0]))
    if axis in varied(ids) and axis < ids.ndim - 1 and units.are_inputs(ids) and not units.all_linked(ids):
        return [units.united_over(ids, [axis])]
    if axis in varied(ids) and units.linked(ids):
        trace.not_understood(f"{equation.primitive.name} over units", values)
    return [lost_where_varied(trace, ids, [axis])]


def _ordered(trace: Trace, ids: np.ndarray, axis: int) -> np.ndarray:
    """Identities of order statistics along an axis; those of units of kernels are a pool of neighbours."""
    found = trace.units.simplest(ids)
    if axis not in varied(found) or not trace.units.linked(found):
        return lost_where_varied(trace, found, [axis])
    return trace.units.mixed(found, [axis])


def sort(trace: Trace, equation: Any, values: Sequence[Value]) -> list[Value]:
    """Sorting positions leaves a unit what it is; sorting units makes them order statistics."""
    return [_ordered(trace, identities(value), equation.params["dimension"]) for value in values]


def top_k(trace: Trace, equation: Any, values: Sequence[Value]) -> list[Value]:
    """As sorting; the indices are no units."""
    rank = len(shape_of(equation.outvars[0]))
    axis = equation.params.get("reduction_dimension", equation.params.get("axis", -1)) % rank
    return [_ordered(trace, identities(values[0]), axis), no_units(rank)]


def fft(trace: Trace, equation: Any, values: Sequence[Value]) -> list[Value]:
    """A transform along the last axes mixes what lies there; branches, such as those of each frequency, are one."""
    rank = len(shape_of(equation.outvars[0]))
    axes = range(rank - len(equation.params["fft_lengths"]), rank)
    ids = trace.units.simplest(identities(values[0]))
    if trace.units.linked(ids) and trace.units.are_branches(ids, axes):
        return [trace.units.united_over(ids, axes)]
    if varied(ids) & set(axes) and trace.units.linked(ids):
        trace.not_understood("a Fourier transform of units", values)
    return [lost_where_varied(trace, ids, axes)]


def windows(trace: Trace, equation: Any, values: Sequence[Value]) -> list[Value]:
    """Pooling: over positions a unit stays itself; windows of units that do not overlap become one unit each.

    Units of kernels in windows that overlap are pools of neighbours.
    """
    ids = trace.units.simplest(identities(values[0]))
    params = equation.params
    sizes, strides = params["window_dimensions"], params["window_strides"]
    pooled = [axis for axis in varied(ids) if sizes[axis] > 1 or strides[axis] > 1]
    dilations = zip(params["base_dilation"], params["window_dilation"], strict=True)
    plain = [pair == (1, 1) for pair in dilations]
    overlap = any(strides[axis] < sizes[axis] or not plain[axis] for axis in pooled)
    if overlap and not trace.units.linked(ids):
        return [trace.units.united_over(ids, pooled)]
    for axis in pooled:
        low, _ = params["padding"][axis]
        count, size, stride = shape_of(equation.outvars[0])[axis], sizes[axis], strides[axis]
        places = np.arange(count)[:, None] * stride + np.arange(size) * params["window_dilation"][axis] - low
        dilation = params["base_dilation"][axis]
        inside = (places >= 0) & (places % dilation == 0) & (places // dilation < ids.shape[axis])
        window = np.moveaxis(ids, axis, -1)[..., np.where(inside, places // dilation, 0)]
        window = np.where(inside, window, NO_UNIT)
        if overlap:
            ids = trace.units.in_pools(window.reshape(-1, size), neighbours=True).reshape(window.shape[:-1])
        else:
            ids = trace.units.united_over(window, [window.ndim - 1])[..., 0]
        ids = np.moveaxis(ids, -1, axis)
    return [ids]


RULES: dict[str, Rule] = {
    **dict.fromkeys((*_ADD, *_MULTIPLY, *_OTHER), elementwise),
    **dict.fromkeys(_UNCHANGED, unchanged),
    **dict.fromkeys(_DECISIONS, decision),
    **dict.fromkeys((*_REDUCTIONS, *_COLLECTIVES), reduction),
    **dict.fromkeys(_CUMULATIVE, cumulative),
    **dict.fromkeys(_WINDOWS, windows),
    "sort": sort,
    "top_k": top_k,
    "approx_top_k": top_k,
    "fft": fft,
}
