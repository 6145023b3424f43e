"""Linen modules, nnx modules and plain functions as one thing: a function of parameters, other state and inputs."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from flax.core import DenyList

from fiedler_jax._paths import is_masked
from fiedler_jax.errors import ArgumentTypeError


class Model(NamedTuple):
    """A function ``apply(variables, *inputs, **kwargs)`` with its variables.

    `is_parameter` says of a leaf of the variables, by its key path, whether the optimizer sees it, `above` how many of
    that path's keys it does not see.
    """

    apply: Callable[..., Any]
    variables: Any
    is_parameter: Callable[[tuple[Any, ...]], bool]
    above: int = 0


def as_model(model: Any, params: Any) -> Model:
    """What `graph_from_model` was given, as one kind of model; ArgumentTypeError if it is none."""
    if isinstance(model, type) or not callable(model):
        given = f"the class {model.__name__}" if isinstance(model, type) else f"a {type(model).__name__}"
        raise ArgumentTypeError(
            f"The model must be a Flax module or a function of parameters and inputs, not {given}. It comes first: "
            "fj.graph_from_model(model, params, *inputs)."
        )
    if isinstance(model, nnx.Module):
        return _of_nnx(model, params)
    collections = isinstance(params, Mapping) and "params" in params
    is_parameter = _in_params if collections else _always
    if isinstance(model, nn.Module):
        return Model(_linen_apply(model), params if collections else {"params": params}, _in_params)
    return Model(model, params, is_parameter)


def is_array(leaf: Any) -> bool:
    """Whether a leaf is an array or stands for one."""
    return isinstance(leaf, jax.Array | np.ndarray | np.generic | jax.ShapeDtypeStruct) and not is_masked(leaf)


def abstract(leaf: Any) -> jax.ShapeDtypeStruct:
    """Shape and dtype of an array, as JAX would take it."""
    dtype = leaf.dtype
    if not jnp.issubdtype(dtype, jax.dtypes.extended):
        dtype = jax.dtypes.canonicalize_dtype(dtype)
    return jax.ShapeDtypeStruct(leaf.shape, dtype)


def _of_nnx(model: nnx.Module, params: Any) -> Model:
    graph, own, rest = nnx.split(model, nnx.Param, ...)
    if params is None or params is model:
        params = own
    elif isinstance(params, nnx.Module):
        params = nnx.state(params, nnx.Param)
    elif not isinstance(params, nnx.State):
        nnx.replace_by_pure_dict(own, params)
        params = own
    given = {path for path, _ in nnx.to_flat_state(params)}
    held = nnx.from_flat_state([(path, leaf) for path, leaf in nnx.to_flat_state(own) if path not in given])

    def apply(variables: Any, *inputs: Any, **kwargs: Any) -> Any:
        return nnx.merge(graph, *variables)(*inputs, **kwargs)

    return Model(apply, (params, held, rest), lambda key_path: key_path[0].idx == 0, above=1)


def _linen_apply(model: nn.Module) -> Callable[..., Any]:
    def apply(variables: Any, *inputs: Any, **kwargs: Any) -> Any:
        # Dropout and the like ask for random numbers; batch statistics may be missing, or be written.
        settings = {"rngs": jax.random.key(0), "mutable": DenyList("params"), **kwargs}
        return model.apply(variables, *inputs, **settings)

    return apply


def _in_params(key_path: tuple[Any, ...]) -> bool:
    return getattr(key_path[0], "key", None) == "params"


def _always(key_path: tuple[Any, ...]) -> bool:
    return True
