"""All that is known here of JAX's own program representation; the only module that names its types."""

import dataclasses
import pickle
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple, NoReturn

import jax
from jax.extend.core import ClosedJaxpr, Jaxpr, Literal


class Program(NamedTuple):
    """A traced function: its variables stand for arrays, its equations make outputs from inputs."""

    jaxpr: Any
    constants: tuple[Any, ...]

    @property
    def inputs(self) -> tuple[Any, ...]:
        """The variables of the arguments."""
        return tuple(self.jaxpr.invars)

    @property
    def outputs(self) -> tuple[Any, ...]:
        """The variables, or literals, of the results."""
        return tuple(self.jaxpr.outvars)


def program_of(fun: Callable[..., Any], *args: Any) -> Program:
    """A function of pytrees as a program on their flattened leaves; nothing is computed."""
    closed = jax.make_jaxpr(fun)(*args)
    return Program(closed.jaxpr, tuple(closed.consts))


def literal_value(variable: Any) -> tuple[bool, Any]:
    """Whether a variable is written out as a number, and that number."""
    return (True, variable.val) if isinstance(variable, Literal) else (False, None)


def as_program(param: Any) -> Program | None:
    """A parameter of an equation as a program, if it is one."""
    if isinstance(param, ClosedJaxpr):
        return Program(param.jaxpr, tuple(param.consts))
    return Program(param, ()) if isinstance(param, Jaxpr) and not param.constvars else None


def inner_program(equation: Any) -> Program | None:
    """The program that an equation merely calls with its own operands: jit, remat, custom derivatives and the like.

    It is known by its structure, not by the name of the primitive: exactly one program among the parameters, which
    takes what the equation takes and gives what it gives.
    """
    found = [program for program in map(as_program, equation.params.values()) if program is not None]
    if len(found) != 1:
        return None
    taken = [_signature(v) for v in found[0].inputs] == [_signature(v) for v in equation.invars]
    given = [_signature(v) for v in found[0].outputs] == [_signature(v) for v in equation.outvars]
    return found[0] if taken and given else None


def equations(program: Program) -> Iterator[Any]:
    """The equations of a program, in the order in which they can be computed."""
    yield from program.jaxpr.eqns


@dataclasses.dataclass(frozen=True, eq=False)
class EquationFunction:
    """The function of arrays that an equation computes."""

    equation: Any

    def __call__(self, *values: Any) -> Any:
        primitive = self.equation.primitive
        params = primitive.get_bind_params(self.equation.params)
        # Up to JAX 0.10.1 functions come first.
        functions, params = params if isinstance(params, tuple) else ((), params)
        return primitive.bind(*functions, *values, **params)

    def __deepcopy__(self, memo: Any) -> "EquationFunction":
        return self

    def __reduce__(self) -> NoReturn:
        raise pickle.PicklingError(
            "A traced graph that computes kernels from parameters cannot be pickled. Trace the model again where it is "
            "needed: fj.graph_from_model(model, params, inputs)."
        )


def _signature(variable: Any) -> tuple[Any, Any]:
    aval = variable.aval
    return getattr(aval, "shape", None), getattr(aval, "dtype", None)
