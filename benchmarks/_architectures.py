"""Models of the size people train, in their essentials: a ResNet-50, the smallest GPT-2, a recurrent language model."""

import functools
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp


class Bottleneck(nn.Module):
    """A residual block of three convolutions."""

    filters: int
    stride: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        conv = functools.partial(nn.Conv, use_bias=False)
        norm = functools.partial(nn.BatchNorm, use_running_average=False)
        y = nn.relu(norm()(conv(self.filters, (1, 1))(x)))
        y = nn.relu(norm()(conv(self.filters, (3, 3), self.stride)(y)))
        y = norm()(conv(4 * self.filters, (1, 1))(y))
        if x.shape != y.shape:
            x = norm(name="norm_proj")(conv(4 * self.filters, (1, 1), self.stride, name="conv_proj")(x))
        return nn.relu(x + y)


class ResNet50(nn.Module):
    """He et al., Deep Residual Learning for Image Recognition, 2015."""

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        x = nn.Conv(64, (7, 7), 2, use_bias=False)(x)
        x = nn.relu(nn.BatchNorm(use_running_average=False)(x))
        x = nn.max_pool(x, (3, 3), strides=(2, 2), padding="SAME")
        for stage, count in enumerate((3, 4, 6, 3)):
            for block in range(count):
                x = Bottleneck(64 * 2**stage, 2 if stage and not block else 1)(x)
        return nn.Dense(1000)(x.mean(axis=(1, 2)))


class Gpt2(nn.Module):
    """Radford et al., Language Models are Unsupervised Multitask Learners, 2019; its smallest size."""

    @nn.compact
    def __call__(self, tokens: jax.Array) -> jax.Array:
        embed = nn.Embed(50257, 768)
        x = embed(tokens) + nn.Embed(1024, 768)(jnp.arange(tokens.shape[1]))
        for _ in range(12):
            y = nn.Dense(3 * 768)(nn.LayerNorm()(x)).reshape(*tokens.shape, 3, 12, 64)
            y = nn.dot_product_attention(y[:, :, 0], y[:, :, 1], y[:, :, 2], mask=nn.make_causal_mask(tokens))
            x = x + nn.Dense(768)(y.reshape(x.shape))
            y = nn.gelu(nn.Dense(3072)(nn.LayerNorm()(x)))
            x = x + nn.Dense(768)(y)
        return embed.attend(nn.LayerNorm()(x))


class Lstm(nn.Module):
    """Zaremba et al., Recurrent Neural Network Regularization, 2014; its medium size."""

    @nn.compact
    def __call__(self, tokens: jax.Array) -> jax.Array:
        x: Any = nn.Embed(10_000, 650)(tokens)
        for _ in range(2):
            x = nn.RNN(nn.OptimizedLSTMCell(650))(x)
        return nn.Dense(10_000)(x)


ARCHITECTURES: dict[str, Callable[[], tuple[nn.Module, jax.ShapeDtypeStruct]]] = {
    "resnet50": lambda: (ResNet50(), jax.ShapeDtypeStruct((8, 224, 224, 3), jnp.float32)),
    "gpt2": lambda: (Gpt2(), jax.ShapeDtypeStruct((8, 1024), jnp.int32)),
    "lstm": lambda: (Lstm(), jax.ShapeDtypeStruct((20, 35), jnp.int32)),
}
