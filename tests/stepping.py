"""A small chain, and what tests of transformations do with it."""

import contextlib
import functools
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import reference

import fiedler_jax as fj

SIZES = (12, 8, 6, 4)
VERTICES = sum(SIZES)


def network(dtype: str = "float32", seed: int = 0) -> Any:
    return jax.tree.map(jnp.asarray, reference.chain_params(reference.random_kernels(SIZES, seed), dtype))


def zeros(params: Any) -> Any:
    return jax.tree.map(jnp.zeros_like, params)


GRAPH = fj.graph_from_params(network())
# Where the solver is not the point the dense one serves: it compiles several times faster than the default.
DENSE = fj.Dense()
SHARED = fj.add_fiedler_penalty(0.1, GRAPH, solver=DENSE)

fiedler_value = jax.jit(
    functools.partial(fj.fiedler_value, solver=DENSE),
    static_argnums=0,
    static_argnames=("normalized", "num_eigenvalues", "ignore_isolated"),
)


@contextlib.contextmanager
def dense_by_default() -> Iterator[None]:
    """Whoever names no solver gets the dense one."""
    # What was compiled before holds the solver of before.
    jax.clear_caches()
    with pytest.MonkeyPatch.context() as patch:
        for name in ("fiedler_pair", "add_fiedler_penalty", "fiedler_shrinkage"):
            patch.setattr(fj, name, functools.partial(getattr(fj, name), solver=DENSE))
        yield
    jax.clear_caches()


@functools.cache
def stepper(tx: optax.GradientTransformation) -> Any:
    """One compiled update for each transformation."""
    return jax.jit(lambda updates, state, params: tx.update(updates, state, params))


def assert_trees_close(a: Any, b: Any, **tolerance: Any) -> None:
    assert jax.tree.structure(a) == jax.tree.structure(b)
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        np.testing.assert_allclose(np.asarray(x, np.float64), np.asarray(y, np.float64), **tolerance)
