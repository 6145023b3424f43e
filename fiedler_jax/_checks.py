"""Checks of what the caller gives, before anything is traced with it."""

import numbers
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from fiedler_jax.errors import ArgumentTypeError, HyperparameterError, VectorError


def flag(name: str, value: Any) -> bool:
    """The setting of this name as a bool; HyperparameterError unless it is one, or a concrete array of one."""
    array = isinstance(value, jax.Array | np.ndarray) and not isinstance(value, Tracer)
    if isinstance(value, bool | np.bool_) or (array and value.shape == () and value.dtype == bool):
        return bool(value)
    kind = f"a {type(value).__name__}" if isinstance(value, jax.Array | np.ndarray) else repr(value)
    raise HyperparameterError(f"{name} must be True or False, known before anything is traced, not {kind}.")


def holds_reals(dtype: Any) -> bool:
    """Whether a dtype is one of real numbers, truth values among them."""
    return any(jnp.issubdtype(dtype, kind) for kind in (jnp.floating, jnp.integer, jnp.bool_))


def is_real(value: Any) -> bool:
    """Whether it is one real number, traced or not."""
    if isinstance(value, jax.Array | np.ndarray | np.generic):
        return value.ndim == 0 and holds_reals(value.dtype)
    return isinstance(value, numbers.Real)


def rows_of_vertices(vectors: Any, num_vertices: int) -> jax.Array:
    """A vector (n,) or rows (b, n) as a real array; VectorError unless there is one real entry for each vertex."""
    try:
        found = vectors if isinstance(vectors, jax.Array) else np.asarray(vectors)
        jnp.result_type(found)
        real = holds_reals(found.dtype)
        if not real and not jnp.issubdtype(found.dtype, jnp.complexfloating):
            raise TypeError
    except (TypeError, ValueError):
        raise VectorError(
            f"Expected one vector ({num_vertices},) or rows (b, {num_vertices}), an array of numbers, not "
            f"{getattr(vectors, 'dtype', type(vectors).__name__)}. Of a FiedlerPair pass the vector."
        ) from None
    if not real:
        raise VectorError(f"Vectors over the vertices are real, not {found.dtype}. Pass the real part, or its length.")
    if found.ndim not in (1, 2) or found.shape[-1] != num_vertices:
        raise VectorError(
            f"Expected one vector ({num_vertices},) or rows (b, {num_vertices}), one entry a vertex, not shape "
            f"{found.shape}."
        )
    return jnp.asarray(found)


def on_the_host(what: str, *trees: Any) -> None:
    """Raise ArgumentTypeError if something is traced that has to be looked at."""
    if any(isinstance(leaf, Tracer) for leaf in jax.tree.leaves(trees)):
        raise ArgumentTypeError(f"{what} looks at numbers on the host. Call it outside jit, vmap and derivatives.")
