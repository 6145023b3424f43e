"""Networks that several tests take: Flax chains, the sizes of the paper's networks and a smaller one."""

import itertools

import flax.linen as nn
import jax
import pytest
import reference
from flax import nnx

import fiedler_jax as fj

SMALL = (300, 120, 90, 10)
NETS = [(784, 500, 500, 500, 10), (3072, 500, 500, 500, 10), (20531, 50, 50, 50, 5)]


def each_net(*default: tuple[tuple[int, ...], bool]) -> pytest.MarkDecorator:
    """Those sizes and kinds of Laplacian by default, and all of the paper's networks in the slow mark."""
    rest = [case for case in itertools.product(NETS, (False, True)) if case not in default]
    return pytest.mark.parametrize(
        ("sizes", "normalized"),
        [*default, *(pytest.param(*case, marks=pytest.mark.slow) for case in rest)],
        ids=lambda value: str(value[0] if isinstance(value, tuple) else value),
    )


def chain_laplacian(kernels: reference.Kernels, normalized: bool, dtype: str = "float64") -> fj.Laplacian:
    params = reference.chain_params(kernels, dtype)
    return fj.laplacian(fj.graph_from_params(params), params, normalized=normalized)


class Mlp(nn.Module):
    widths: tuple[int, ...]

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        for width in self.widths:
            x = nn.relu(nn.Dense(width)(x))
        return x


class NnxMlp(nnx.Module):
    def __init__(self, widths: tuple[int, ...]):
        rngs = nnx.Rngs(0)
        self.layers = nnx.List([nnx.Linear(a, b, rngs=rngs) for a, b in itertools.pairwise(widths)])

    def __call__(self, x: jax.Array) -> jax.Array:
        for layer in self.layers:
            x = nnx.relu(layer(x))
        return x
