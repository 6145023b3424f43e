"""What tests of the proximal transformation share."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import reference
from stepping import DENSE, GRAPH

import fiedler_jax as fj

# The dense solver compiles several times faster than the default, which few of these tests are about.
shrinkage = functools.partial(fj.fiedler_shrinkage, solver=DENSE)
SHARED = shrinkage(0.1, 0.1, GRAPH)


def coefficients_by_hand(kernels: reference.Kernels, normalized: bool, k: int) -> reference.Kernels:
    """The derivative of λ2 + … + λ(k+1) with respect to each edge weight, in float64."""
    adjacency = reference.chain_adjacency(kernels)
    values, columns = np.linalg.eigh(reference.dense_laplacian(adjacency, normalized))
    y = columns[:, 1 : k + 1].T / (np.sqrt(adjacency.sum(axis=1)) if normalized else 1)
    squares = (y[:, :, None] - y[:, None]) ** 2
    if normalized:
        squares -= values[1 : k + 1, None, None] * (y[:, :, None] ** 2 + y[:, None] ** 2)
    offsets = np.cumsum([0, kernels[0].shape[0], *(kernel.shape[1] for kernel in kernels)])
    return [squares.sum(0)[a:b, b:c] for a, b, c in zip(offsets, offsets[1:], offsets[2:], strict=False)]


def kernels_of(params: Any) -> reference.Kernels:
    return [np.asarray(params[f"Dense_{i}"]["kernel"], np.float64) for i in range(len(params))]


def random_like(params: Any, size: float, seed: int = 7) -> Any:
    rng = np.random.default_rng(seed)
    return jax.tree.map(lambda w: jnp.asarray(size * rng.normal(size=w.shape), w.dtype), params)


def zero_count(params: Any) -> int:
    return sum(int(np.sum(kernel == 0)) for kernel in kernels_of(params))
