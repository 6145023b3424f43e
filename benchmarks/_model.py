"""The network all methods train: a multilayer perceptron."""

from collections.abc import Mapping
from typing import Any

import jax
from flax import linen as nn
from flax.linen.initializers import Initializer

Params = Mapping[str, Any]


class MLP(nn.Module):
    """ReLU network of Dense layers, with dropout after each hidden layer.

    Kernels and biases start uniform on ±1/sqrt(fan_in), as in the experiments of Tam
    and Dunson (PyTorch's default).

    Attributes:
        widths: units of each layer after the input; the last are the logits.
        dropout_rate: share of hidden units set to zero in training.
    """

    widths: tuple[int, ...]
    dropout_rate: float = 0.0

    @nn.compact
    def __call__(self, x: jax.Array, *, training: bool) -> jax.Array:
        for width in self.widths[:-1]:
            x = nn.relu(_dense(width, x.shape[-1])(x))
            x = nn.Dropout(self.dropout_rate)(x, deterministic=not training)
        return _dense(self.widths[-1], x.shape[-1])(x)


def _dense(width: int, fan_in: int) -> nn.Dense:
    init = uniform_within(fan_in**-0.5)
    return nn.Dense(width, kernel_init=init, bias_init=init)


def uniform_within(bound: float) -> Initializer:
    """Initializer that draws uniformly from ±bound."""

    def init(key, shape, dtype=None, out_sharding=None):
        del out_sharding
        return jax.random.uniform(key, shape, dtype or float, -bound, bound)

    return init
