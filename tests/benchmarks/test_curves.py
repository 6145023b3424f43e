"""The Fiedler values that are recorded along training, from the default solver."""

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks._training import fiedler_pairs, fiedler_point, initial_params
from fiedler_jax import graph_from_params

# Of the small configurations and data, so that these programs are compiled once.
SIZES = (9, 7, 5, 10)


def test_fiedler_values_are_those_of_the_dense_laplacian():
    params = initial_params(SIZES, 0)
    offsets = np.cumsum((0, *SIZES))
    adjacency = np.zeros((31, 31))
    for i in range(3):
        rows, columns = slice(*offsets[i : i + 2]), slice(*offsets[i + 1 : i + 3])
        adjacency[rows, columns] = np.abs(params[f"Dense_{i}"]["kernel"])
    adjacency += adjacency.T
    degrees = adjacency.sum(axis=0)
    combinatorial = np.diag(degrees) - adjacency
    normalized = combinatorial / np.sqrt(np.outer(degrees, degrees))

    start = jnp.asarray(np.random.default_rng(0).normal(size=31), jnp.float32)
    pairs = fiedler_pairs(graph_from_params(params), params, start, start)
    for pair, laplacian in zip(pairs, (normalized, combinatorial), strict=True):
        point = fiedler_point(pair)
        assert point.converged
        np.testing.assert_allclose(point.value, np.linalg.eigvalsh(laplacian)[1], rtol=1e-5)


def test_nan_weights_are_named_and_do_not_spoil_the_next_start():
    params = jax.tree.map(lambda w: w.at[0].set(jnp.nan), initial_params(SIZES, 0))
    start = jnp.asarray(np.random.default_rng(0).normal(size=31), jnp.float32)
    for pair in fiedler_pairs(graph_from_params(params), params, start, start):
        assert fiedler_point(pair).status == "not finite"
        np.testing.assert_array_equal(pair.vector, start)
