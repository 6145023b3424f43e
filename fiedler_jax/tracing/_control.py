"""Loops and branches."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from fiedler_jax._effective import Effective, computed
from fiedler_jax.tracing._elementwise import combined
from fiedler_jax.tracing._identities import NO_UNIT, holds_any, no_units, varied
from fiedler_jax.tracing._jaxpr import as_program
from fiedler_jax.tracing._movement import stacked
from fiedler_jax.tracing._trace import CARRY, Rule, Trace, Value, identities, leaves_of, shape_of

_AXES_OF_VECTORS = 2


def scan(trace: Trace, equation: Any, values: Sequence[Value]) -> list[Value]:
    """A loop over layers, whose parameters are stacked, is a step per layer; a loop over time is one step.

    In the latter, a unit that is carried from step to step is one unit, and so is an input at every step. Vectors of
    parameters, such as those of positions, may go along with the inputs.
    """
    params = equation.params
    program = as_program(params["jaxpr"])
    assert program is not None
    num_consts, num_carry = params["num_consts"], params["num_carry"]
    consts, carry = list(values[:num_consts]), list(values[num_consts : num_consts + num_carry])
    sliced = [trace.units.simplest(v) if isinstance(v, np.ndarray) else v for v in values[num_consts + num_carry :]]
    if _is_over_layers(trace, sliced):
        steps = range(params["length"])
        slices: list[list[Value]] = []
        for step in reversed(steps) if params["reverse"] else steps:
            given = [_at_step(value, step) for value in sliced]
            results = trace.run(trace, program, [*consts, *carry, *given])
            carry = results[:num_carry]
            slices.append(results[num_carry:])
        if params["reverse"]:
            slices.reverse()
        gathered = zip(*slices, strict=True)
        out_shapes = [shape_of(v) for v in equation.outvars[num_carry:]]
        return [*carry, *(_stacked(trace, list(ys), shape) for ys, shape in zip(gathered, out_shapes, strict=True))]
    xs = [v if isinstance(v, Effective) else _at_all_steps(trace, v) for v in sliced]
    first = [_at_any_step(trace, value) for value in xs]
    results = _one_step(trace, program, consts, carry, first)
    ys = (_at_each_step(v, params["length"]) for v in results[num_carry:])
    return [*results[:num_carry], *ys]


def _is_over_layers(trace: Trace, sliced: Sequence[Value]) -> bool:
    """Whether a loop that is given these stacks goes over layers, and not over the positions of its inputs."""
    activations = [ids for ids in sliced if isinstance(ids, np.ndarray) and holds_any(ids)]
    units = [np.maximum(ids, NO_UNIT) for ids in activations if ids.shape[0] > 1]
    if any(trace.units.linked(ids) and not trace.units.are_inputs(ids) for ids in units):
        return True
    stacks = [value for value in sliced if isinstance(value, Effective) and value.leaves]
    return any(not activations or len(value.shape) > _AXES_OF_VECTORS for value in stacks)


def _at_all_steps(trace: Trace, ids: np.ndarray) -> np.ndarray:
    """Identities of what a loop over time is given, which are one at all steps."""
    seen = trace.units.seen_along(ids, [0])
    return seen if len(seen) == 1 else trace.units.united_over(seen, [0])


def while_(trace: Trace, equation: Any, values: Sequence[Value]) -> list[Value]:
    """A loop of unknown length, as one over time."""
    params = equation.params
    program = as_program(params["body_jaxpr"])
    assert program is not None
    consts = values[params["cond_nconsts"] :]
    skipped = params["body_nconsts"]
    return _one_step(trace, program, list(consts[:skipped]), list(consts[skipped:]), [])


def _one_step(trace: Trace, program: Any, consts: list[Value], carry: list[Value], xs: list[Value]) -> list[Value]:
    """One step of a loop, after which what is carried out is what was carried in."""
    inside: list[Value] = []
    variables = program.inputs[len(consts) : len(consts) + len(carry)]
    for value, variable, result in zip(carry, variables, program.outputs, strict=False):
        if variable is result:
            inside.append(value)
            continue
        trace.used([value], "is where a loop starts")
        floating = jnp.issubdtype(variable.aval.dtype, jnp.floating)
        shape = shape_of(variable)
        begun = trace.units.fresh(shape, CARRY) if floating else no_units(len(shape))
        _begin(trace, begun, identities(value))
        if isinstance(value, Effective) and value.leaves:
            trace.changed.append((value, begun))
        inside.append(begun)
    results = trace.run(trace, program, [*consts, *inside, *xs])
    for i, (value, result) in enumerate(zip(inside, results, strict=False)):
        if not isinstance(value, np.ndarray) or (leaves_of([result]) and not trace.units.linked(value)):
            continue
        trace.used([result], "is carried through a loop")
        results[i] = _carried(trace, value, identities(result))
    return results


def _begin(trace: Trace, begun: np.ndarray, given: np.ndarray) -> None:
    """Units that a loop carries are those that it is given, or the pools."""
    units, given = trace.units, trace.units.simplest(given)
    units.unite(begun, given)
    pools = units.without_pools(given) != given
    if np.any(pools) and begun.size:
        one_each = units.united_over(begun, [axis for axis in range(begun.ndim) if axis not in varied(given)])
        units.claim(given[pools], np.broadcast_to(one_each, given.shape)[pools])


def _carried(trace: Trace, before: np.ndarray, after: np.ndarray) -> np.ndarray:
    units = trace.units
    after = units.simplest(after)
    if np.any(units.are_outer(after)):
        # What summed over a factor of the carry saw the other one.
        before = units.simplest(before)
        seen = units.seen_along(after, [axis for axis in range(before.ndim) if axis not in varied(before)])
        if not np.any(units.are_outer(seen)):
            combined(trace, before, seen)
        return after
    found = units.standing_for(after, CARRY)
    if np.all(found < 0):
        return units.simplest(before) if units.linked(before) else no_units(before.ndim)
    further = sorted(varied(before) - varied(found))
    if further and np.all(found >= 0):
        before = units.united_over(before, further)
    # Elements of the carry that were united with no kernel's units have only to follow.
    return combined(trace, before, found)


def _at_step(value: Value, step: int) -> Value:
    if isinstance(value, np.ndarray):
        return value[step] if value.shape[0] > 1 else value[0]
    (one,) = computed(
        f"step {step}",
        lambda stack: jax.lax.index_in_dim(stack, step, keepdims=False),
        [value],
        [(value.shape[1:], value.dtype)],
        structural=True,
    )
    return one.at(f"[{step}]")


def _at_any_step(trace: Trace, value: Value) -> Value:
    """What a loop over time is given at a step; what is another one at another step is not known."""
    if isinstance(value, np.ndarray):
        return value[0]
    if value.leaves:
        inputs = value, Effective((), jnp.dtype(jnp.int32))
        return computed("a step", jax.lax.dynamic_index_in_dim, inputs, [(value.shape[1:], value.dtype)])[0]
    stack = trace.known(value)
    if stack is not None and np.all(stack == stack[:1]):
        return _at_step(value, 0)
    return Effective(value.shape[1:], value.dtype)


def _at_each_step(value: Value, length: int) -> Value:
    """What a loop over time gives out, of which there is one at all steps."""
    if isinstance(value, np.ndarray):
        return value[None]
    shape = length, *value.shape
    return computed(shape, lambda one: jnp.broadcast_to(one, shape), [value], [(shape, value.dtype)], True, True)[0]


def _stacked(trace: Trace, steps: list[Value], shape: tuple[int, ...]) -> Value:
    """What a loop gives at each step, side by side."""
    if all(isinstance(value, Effective) for value in steps):
        effective = [value for value in steps if isinstance(value, Effective)]
        return computed("stack", lambda *a: jnp.stack(a), effective, [(shape, effective[0].dtype)], True)[0]
    return stacked(trace, [identities(value) for value in steps], 0)


def cond(trace: Trace, equation: Any, values: Sequence[Value]) -> list[Value]:
    """Every branch is followed; what they give is one unit."""
    index, *operands = values
    programs = [program for program in map(as_program, equation.params["branches"]) if program is not None]
    chosen = trace.known(index)
    if chosen is not None:
        programs = [programs[int(chosen)]]
    branches = [trace.run(trace, program, operands) for program in programs]
    return [_either(trace, list(results)) for results in zip(*branches, strict=True)]


def _either(trace: Trace, results: list[Value]) -> Value:
    effective = [value for value in results if isinstance(value, Effective)]
    if len(effective) == len(results) and len(set(effective)) == 1:
        return results[0]
    if leaves_of(results):
        trace.not_understood("parameters chosen by a computed condition", results)
    found = identities(results[0])
    for other in results[1:]:
        found = combined(trace, found, identities(other))
    return found


RULES: dict[str, Rule] = {"scan": scan, "while": while_, "cond": cond}
