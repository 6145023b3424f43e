"""The interpretation of a program on unit identities."""

from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np

from fiedler_jax._effective import Effective, computed, constant_value
from fiedler_jax.tracing import _control, _elementwise, _indexing, _movement, _products, _scaled
from fiedler_jax.tracing._identities import holds_any
from fiedler_jax.tracing._jaxpr import EquationFunction, Program, equations, inner_program, literal_value
from fiedler_jax.tracing._trace import Rule, Trace, Value, identities, leaves_of, of_outputs, shape_of

_RULES: dict[str, Rule] = {
    **_control.RULES,
    **_elementwise.RULES,
    **_movement.RULES,
    **_indexing.RULES,
    **_products.RULES,
    **_scaled.RULES,
}


def run(trace: Trace, program: Program, values: Sequence[Value]) -> list[Value]:
    """The values of a program's outputs from those of its inputs; what it multiplies is noted in the trace."""
    known: dict[Any, Value] = dict(zip(program.inputs, values, strict=True))
    known |= {v: _constant(c) for v, c in zip(program.jaxpr.constvars, program.constants, strict=True)}

    def read(variable: Any) -> Value:
        is_literal, number = literal_value(variable)
        return _constant(number) if is_literal else known[variable]

    for equation in equations(program):
        results = _results(trace, equation, [read(variable) for variable in equation.invars])
        known.update(zip(equation.outvars, results, strict=True))
    return [read(variable) for variable in program.outputs]


def _results(trace: Trace, equation: Any, values: Sequence[Value]) -> Sequence[Value]:
    name = equation.primitive.name
    if not equation.outvars:  # It prints or checks something.
        return []
    if _elementwise.is_over_devices(equation):
        return _elementwise.over_devices(trace, equation, values)
    if all(isinstance(value, Effective) for value in values):
        effective = [value for value in values if isinstance(value, Effective)]
        if name not in _control.RULES and (inner := inner_program(equation)) is not None:
            return run(trace, inner, values)
        return _of_parameters(equation, effective)
    rule = _RULES.get(name)
    if rule is not None:
        results = rule(trace, equation, values)
        lost = len(results) < len(equation.outvars)
        return [*results, *of_outputs(equation)[len(results) :]] if lost else results
    inner = inner_program(equation)
    if inner is not None:
        return run(trace, inner, values)
    if leaves_of(values) or any(holds_any(identities(value)) for value in values):
        remedy = " over several devices (a mesh of one is understood)" if name == "shard_map" else ""
        trace.not_understood(f"operation '{name}'{remedy}", values)
    return of_outputs(equation)


def _of_parameters(equation: Any, values: list[Effective]) -> list[Effective]:
    """The outputs of an equation on parameters and constants alone."""
    name, (first, *_) = equation.primitive.name, equation.outvars
    if name == "convert_element_type" and values[0].leaves:
        old, new = values[0].dtype, first.aval.dtype
        if jnp.issubdtype(old, jnp.floating) and jnp.issubdtype(new, jnp.floating):
            return [values[0].cast(new)]
    outputs = [(shape_of(variable), variable.aval.dtype) for variable in equation.outvars]
    repeats = _repeats(name, values, outputs[0][0])
    identity = name, equation.params
    return computed(identity, EquationFunction(equation), values, outputs, name in _movement.STRUCTURAL, repeats)


def _repeats(name: str, values: list[Effective], shape: tuple[int, ...]) -> bool:
    """Whether an operation, with an output of this shape, puts parameters at several positions as they are."""
    kernels = [value for value in values if value.leaves]
    if name in ("broadcast_in_dim", "tile"):
        return bool(np.prod(shape) > np.prod(values[0].shape))
    if name in ("concatenate", "stack"):
        return len(kernels) == len(values) > 1 and len(set(kernels)) == 1
    if name == "gather":
        places = constant_value(values[1])
        return places is not None and any(_is_repeated(places, axis) for axis in range(places.ndim - 1))
    if name not in ("add", "sub", "mul") or not kernels:
        return False
    own = np.max([kernel.shape or (1,) * len(shape) for kernel in kernels], axis=0)
    grown = np.flatnonzero(own < shape).tolist()
    # Zeros for each example, say; but a basis has other numbers at each position.
    numbers = [constant_value(value) for value in values if not value.leaves and value.shape]
    return len(grown) > 0 and all(n is None or _is_repeated(n, axis) for n in numbers for axis in grown)


def _is_repeated(number: np.ndarray, axis: int) -> bool:
    return number.shape[axis] > 1 and bool(np.all(number == number.take([0], axis)))


def _constant(value: Any) -> Effective:
    dtype = value.dtype if hasattr(value, "dtype") else jnp.result_type(value)
    return Effective(np.shape(value), dtype, value=value)
