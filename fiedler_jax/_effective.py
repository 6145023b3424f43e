"""Effective kernels: what a model makes of its parameter leaves before it multiplies them with activations.

An effective kernel is a graph of operations whose sources are parameter leaves and constants: a transpose, a cast, four
concatenated gate kernels, ``W + B A``. It holds no values of parameters and is a differentiable function of them.
"""

import contextlib
import dataclasses
import functools
import hashlib
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from fiedler_jax._paths import Path, display


@dataclasses.dataclass(frozen=True, eq=False)
class Operation:
    """A function of effective kernels; `name`, as a string, and its inputs identify it.

    A `structural` one only moves entries about: it takes its inputs in whatever precision they come, so that a kernel
    which the model casts to a lower one keeps its own. One that `repeats` puts the same entries at several positions.
    """

    name: Any
    apply: Callable[..., Any]
    inputs: tuple["Effective", ...]
    structural: bool = False
    repeats: bool = False

    @functools.cached_property
    def fingerprint(self) -> str:
        """A digest that is the same for the same function of the same leaves."""
        return _digest(str(self.name), *(one.fingerprint for one in self.inputs))


@dataclasses.dataclass(frozen=True, eq=False)
class Effective:
    """An effective kernel: a parameter leaf, a constant, or an output of an operation.

    Attributes:
        shape: its shape.
        dtype: its dtype in the model.
        leaf: the path of the leaf, if it is one.
        value: the value of the constant, if it is one that has a value.
        operation: the operation, if it is the output of one.
        index: which of the operation's outputs it is.
        place: where in a stack of parameters it comes from, in words; empty if from everywhere.
    """

    shape: tuple[int, ...]
    dtype: Any
    leaf: Path | None = None
    value: Any = None
    operation: Operation | None = None
    index: int = 0
    place: str = ""

    @functools.cached_property
    def leaves(self) -> dict[Path, tuple[int, ...]]:
        """The parameter leaves it depends on, with their shapes."""
        if self.operation is not None:
            return {path: shape for one in self.operation.inputs for path, shape in one.leaves.items()}
        return {} if self.leaf is None else {self.leaf: self.shape}

    @functools.cached_property
    def repeated(self) -> bool:
        """Whether some parameter in it is repeated, as kernels are not but learned tokens and queries are."""
        if self.operation is None:
            return False
        return (self.operation.repeats and bool(self.leaves)) or any(one.repeated for one in self.operation.inputs)

    @functools.cached_property
    def moved(self) -> bool:
        """Whether its entries are those of parameter leaves, moved about at most."""
        if self.operation is None:
            return self.leaf is not None
        entries = [one for one in self.operation.inputs if one.leaves or jnp.issubdtype(one.dtype, jnp.floating)]
        return self.operation.structural and all(one.moved for one in entries)

    @functools.cached_property
    def known(self) -> bool:
        """Whether every constant in it has a value."""
        if self.operation is not None:
            return all(one.known for one in self.operation.inputs)
        return self.leaf is not None or self.value is not None

    @functools.cached_property
    def fingerprint(self) -> str:
        """A digest that is the same for the same function of the same leaves."""
        if self.operation is not None:
            return _digest("output", str(self.index), self.operation.fingerprint)
        if self.leaf is not None:
            return _digest("leaf", display(self.leaf))
        value = self.value
        if value is not None and jnp.issubdtype(self.dtype, jax.dtypes.prng_key):
            value = jax.random.key_data(value)
        value = np.asarray(value)
        return _digest("constant", str(value.dtype), str(value.shape), hashlib.sha256(value.tobytes()).hexdigest())

    def at(self, place: str) -> "Effective":
        """The same, as the part of a stack."""
        return dataclasses.replace(self, place=self.place + place)

    def cast(self, dtype: Any) -> "Effective":
        """The same, as the model sees it in another floating dtype."""
        return dataclasses.replace(self, dtype=dtype)

    def __hash__(self) -> int:
        return hash(self.fingerprint)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Effective) and self.fingerprint == other.fingerprint


def computed(
    name: Any,
    apply: Callable[..., Any],
    inputs: Iterable[Effective],
    outputs: Iterable[tuple[tuple[int, ...], Any]],
    structural: bool = False,
    repeats: bool = False,
) -> list[Effective]:
    """The outputs of an operation, by their shapes and dtypes."""
    operation = Operation(name, apply, tuple(inputs), structural, repeats)
    return [Effective(tuple(shape), dtype, operation=operation, index=i) for i, (shape, dtype) in enumerate(outputs)]


def evaluate(effective: Effective, leaves: Mapping[Path, Any], memo: dict[int, Any] | None = None) -> Any:
    """The value of an effective kernel at the given leaves; `memo` shares work between several of them."""
    memo = {} if memo is None else memo
    if effective.operation is None:
        return effective.value if effective.leaf is None else leaves[effective.leaf]
    outputs = memo.get(id(effective.operation))
    if outputs is None:
        operation = effective.operation
        inputs = [evaluate(one, leaves, memo) for one in operation.inputs]
        if operation.structural:
            inputs = _in_one_precision(inputs)
        else:
            inputs = [
                jnp.asarray(value, one.dtype) if jnp.issubdtype(one.dtype, jnp.floating) else value
                for one, value in zip(operation.inputs, inputs, strict=True)
            ]
        outputs = operation.apply(*inputs)
        memo[id(operation)] = outputs = outputs if isinstance(outputs, list | tuple) else [outputs]
    return outputs[effective.index]


def constant_value(effective: Effective) -> np.ndarray | None:
    """The value of an effective kernel without parameters, or None if it has none, or is a key of random numbers.

    It is computed on the host.
    """
    if effective.leaves or not effective.known or jnp.issubdtype(effective.dtype, jax.dtypes.prng_key):
        return None
    with jax.ensure_compile_time_eval(), _on_host():
        return np.asarray(evaluate(effective, {}))


def is_same_along(effective: Effective, axis: int) -> bool:
    """Whether a known effective kernel is the same at all places along an axis, for whatever parameters."""
    rng = np.random.default_rng(0)
    with jax.ensure_compile_time_eval(), _on_host():
        leaves = {path: rng.uniform(0.5, 1, shape).astype(np.float32) for path, shape in effective.leaves.items()}
        value = np.asarray(jnp.asarray(evaluate(effective, leaves), jnp.complex64))
    return np.allclose(value, value.take([0], axis), equal_nan=True)


def first_along(effective: Effective, axis: int) -> Effective:
    """The first of several effective kernels along an axis, which stays."""
    shape = *effective.shape[:axis], 1, *effective.shape[axis + 1 :]
    name = f"first along {axis}"
    apply = functools.partial(jax.lax.slice_in_dim, start_index=0, limit_index=1, axis=axis)
    return computed(name, apply, [effective], [(shape, effective.dtype)], structural=True)[0]


def _on_host() -> contextlib.AbstractContextManager[Any]:
    try:
        return jax.default_device(jax.local_devices(backend="cpu")[0])
    except RuntimeError:  # JAX was told to leave the CPU alone.
        return contextlib.nullcontext()


def _in_one_precision(values: list[Any]) -> list[Any]:
    floating = [value.dtype for value in values if jnp.issubdtype(value.dtype, jnp.floating)]
    widest = jnp.result_type(*floating) if floating else None
    return [jnp.asarray(v, widest) if jnp.issubdtype(v.dtype, jnp.floating) else v for v in values]


def _digest(*parts: str) -> str:
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:32]
