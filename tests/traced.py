"""Models with the adjacency of their units written by hand, and the check of the one against the other."""

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from adjacency import Adjacency
from flax import nnx
from reference import spectrum
from scipy.sparse.csgraph import connected_components

import fiedler_jax as fj
from fiedler_jax._paths import canonical_path, display

KEY = jax.random.key(0)

# A model, its variables, its inputs, and what writes its adjacency from its parameters.
Case = tuple[Any, Any, tuple, Callable[[Any, Adjacency], None]]
Build = Callable[[], Case]

# Functions of parameters and an input, with those.
Writings = tuple[list[Callable[..., jax.Array]], dict[str, jax.Array], jax.Array]


def cases() -> tuple[dict[str, Build], Callable[[Build], Build]]:
    """A register of cases by name, and what enters one that is built by a function of this name."""
    entered: dict[str, Build] = {}

    def case(build: Build) -> Build:
        entered[build.__name__] = build
        return build

    return entered, case


def writings(*shape: int) -> tuple[dict[str, Callable[[], Writings]], Callable[..., Any]]:
    """A register of one function in several writings, by name, and what enters those that a function gives.

    All are functions of parameters, of shapes that are stated as they are entered, and of an input of this shape.
    """
    entered: dict[str, Callable[[], Writings]] = {}

    def of(**shapes: tuple[int, ...]) -> Callable[..., Any]:
        def enter(build: Callable[[], list]) -> Callable[[], list]:
            entered[build.__name__] = lambda: (build(), random_params(**shapes), jax.random.normal(KEY, shape))
            return build

        return enter

    return entered, of


def random_params(**shapes: tuple[int, ...]) -> dict[str, jax.Array]:
    keys = jax.random.split(KEY, len(shapes))
    return {name: jax.random.normal(key, shape) for key, (name, shape) in zip(keys, shapes.items(), strict=True)}


def filled(model: nn.Module, *inputs: jax.Array) -> Any:
    """Variables of a module, all of them random: nothing has to be compiled to make them."""
    rng = np.random.default_rng(0)
    shapes = jax.eval_shape(model.init, KEY, *inputs)
    return jax.tree.map(lambda leaf: rng.normal(size=leaf.shape).astype(np.float32), shapes)


def linen(fun: Callable[..., Any], *inputs: jax.Array) -> tuple[nn.Module, Any, tuple]:
    """A module whose layers are made inside a function, with its variables."""

    class Model(nn.Module):
        @nn.compact
        def __call__(self, *inputs: jax.Array) -> jax.Array:
            return fun(*inputs)

    return Model(), filled(Model(), *inputs), inputs


def through(x: jax.Array, *layers: Callable[[jax.Array], Any]) -> jax.Array:
    """Layers one after the other: linen numbers them as they are made, so nested calls would be numbered backwards."""
    for layer in layers:
        x = layer(x)
    return x


def flat(x: jax.Array) -> jax.Array:
    return x.reshape(len(x), -1)


def taps(kernel: np.ndarray) -> np.ndarray:
    """Absolute weights between channels: the sum over the taps of a convolution kernel (..., in, out)."""
    return np.abs(kernel).sum(axis=tuple(range(kernel.ndim - 2)))


def check(model: Any, variables: Any, inputs: tuple, reference: Callable[[Any, Adjacency], None]) -> None:
    """A model without anything that is not understood has the graph written by hand."""
    graph = fj.graph_from_model(model, variables, *inputs, strict=True)
    adjacency = Adjacency()
    reference(as_numpy(variables), adjacency)
    assert_same_graph(graph, variables, adjacency.matrix)
    assert_leaves_are_accounted_for(graph, variables)


def assert_one_graph(functions: list[Callable[..., jax.Array]], params: Any, x: jax.Array) -> None:
    """Functions that compute the same have graphs with the same spectrum."""
    values, spectra = [], []
    for fun in functions:
        graph = fj.graph_from_model(fun, params, x, strict=True)
        dense = jax.jit(lambda params, graph=graph: fj.laplacian(graph, params, normalized=False).to_dense())
        values.append(np.asarray(jax.jit(fun)(params, x)))
        spectra.append(spectrum(-np.asarray(dense(params), np.float64), normalized=False))
    for fun, value, found in zip(functions, values, spectra, strict=True):
        np.testing.assert_allclose(value, values[0], rtol=1e-3, atol=1e-4, err_msg=fun.__name__)
        np.testing.assert_allclose(found, spectra[0], rtol=0, atol=1e-5 * spectra[0][-1], err_msg=fun.__name__)


def as_numpy(variables: Any) -> Any:
    if isinstance(variables, nnx.State):
        variables = nnx.to_pure_dict(variables)
    params = variables.get("params", variables)
    return jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), params)


def assert_same_graph(graph: fj.NetworkGraph, variables: Any, expected: np.ndarray) -> None:
    """The same vertices, total weight and spectra as those of an adjacency written by hand."""
    assert graph.num_vertices == len(expected), graph
    parts, of = connected_components(expected != 0, directed=False)
    sizes = [int(size) for size in np.bincount(of, minlength=parts) if size > 1]
    assert sorted(sum(own.values()) for own in graph.components) == sorted(sizes), graph

    # The other Laplacian follows from this one, and would have to be compiled.
    dense = jax.jit(lambda variables: fj.laplacian(graph, variables, normalized=False).to_dense())
    found = np.asarray(dense(variables), np.float64)
    np.testing.assert_allclose(np.trace(found), expected.sum(), rtol=1e-5)
    for normalized in (True, False):
        values = spectrum(expected, normalized)
        np.testing.assert_allclose(
            spectrum(-found, normalized), values, rtol=0, atol=1e-5 * values[-1], err_msg=str(graph)
        )


def assert_leaves_are_accounted_for(graph: fj.NetworkGraph, variables: Any) -> None:
    """Every leaf is in an edge block, and then it has a gradient, or it is left out with a reason."""
    params = variables.get("params", variables) if isinstance(variables, dict) else variables
    vector = np.random.default_rng(0).normal(size=graph.num_vertices).astype(np.float32)
    gradient = jax.jit(jax.grad(lambda p: fj.variational_penalty(graph, p, jnp.asarray(vector), normalized=False)))(
        params
    )
    without = {
        display(canonical_path(path))
        for path, leaf in jax.tree_util.tree_leaves_with_path(gradient)
        if not np.any(np.asarray(leaf))
    }
    assert without == {leaf.path for leaf in graph.left_out}
    assert all(leaf.reason for leaf in graph.left_out)
