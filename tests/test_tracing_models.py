"""Graphs traced from models, against adjacencies written by hand."""

import functools
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from adjacency import Adjacency
from flax import nnx
from traced import KEY, Case, check, filled, flat, linen, taps, through

CASES: dict[str, Callable[[], Case]] = {}


def case(build: Callable[[], Case]) -> Callable[[], Case]:
    CASES[build.__name__] = build
    return build


def attention(a: Adjacency, p: Any, stream: np.ndarray) -> np.ndarray:
    """Query and key units are leaves; values lead on."""
    d = len(stream)
    a.layer(stream, p["query"]["kernel"].reshape(d, -1))
    a.layer(stream, p["key"]["kernel"].reshape(d, -1))
    value = a.layer(stream, p["value"]["kernel"].reshape(d, -1))
    return a.layer(value, p["out"]["kernel"].reshape(len(value), -1))


@case
def dense_general():
    def fun(x):
        return through(x, nn.DenseGeneral((2, 3), axis=-1), nn.relu, nn.DenseGeneral(5, axis=(-2, -1)))

    def reference(p, a):
        hidden = a.layer(a.units(4), p["DenseGeneral_0"]["kernel"].reshape(4, 6))
        a.layer(hidden, p["DenseGeneral_1"]["kernel"].reshape(6, 5))

    return *linen(fun, jnp.ones((2, 4))), reference


@case
def einsum():
    def fun(x):
        return nn.Einsum((3, 4, 5), "bsc,cde->bsde", use_bias=False)(x)

    def reference(p, a):
        a.layer(a.units(3), p["Einsum_0"]["kernel"].reshape(3, 20))

    return *linen(fun, jnp.ones((2, 7, 3))), reference


@case
def conv_strided_dilated():
    def fun(x):
        x = nn.relu(nn.Conv(4, (3, 3), strides=2)(x))
        return nn.Conv(3, (2, 3), kernel_dilation=2, padding="VALID")(x)

    def reference(p, a):
        a.layer(a.layer(a.units(2), taps(p["Conv_0"]["kernel"])), taps(p["Conv_1"]["kernel"]))

    return *linen(fun, jnp.ones((1, 16, 16, 2))), reference


@case
def conv_one_dimension_circular():
    def fun(x):
        x = nn.Conv(4, (3,), padding="CIRCULAR")(x)
        return nn.Conv(4, (3,), padding="CAUSAL")(x)

    def reference(p, a):
        a.layer(a.layer(a.units(2), taps(p["Conv_0"]["kernel"])), taps(p["Conv_1"]["kernel"]))

    return *linen(fun, jnp.ones((2, 9, 2))), reference


@case
def conv_three_dimensions():
    def fun(x):
        return through(x, nn.Conv(4, (2, 2, 2)), nn.gelu, nn.Conv(2, (1, 1, 1)))

    def reference(p, a):
        a.layer(a.layer(a.units(3), taps(p["Conv_0"]["kernel"])), taps(p["Conv_1"]["kernel"]))

    return *linen(fun, jnp.ones((1, 4, 4, 4, 3))), reference


@case
def conv_grouped():
    def fun(x):
        x = nn.Conv(6, (3, 3))(x)
        return nn.Conv(4, (3, 3), feature_group_count=2)(x)

    def reference(p, a):
        hidden = a.layer(a.units(2), taps(p["Conv_0"]["kernel"]))
        kernel, out = taps(p["Conv_1"]["kernel"]), a.units(4)
        for group in range(2):
            a.join(hidden[3 * group :][:3], out[2 * group :][:2], kernel[:, 2 * group :][:, :2])

    return *linen(fun, jnp.ones((1, 8, 8, 2))), reference


@case
def conv_depthwise_separable():
    def fun(x):
        x = nn.Conv(6, (3, 3))(x)
        x = nn.Conv(12, (3, 3), feature_group_count=6)(x)
        return nn.Conv(3, (1, 1))(nn.relu(x))

    def reference(p, a):
        hidden = a.layer(a.units(2), taps(p["Conv_0"]["kernel"]))
        kernel, deep = taps(p["Conv_1"]["kernel"]), a.units(12)
        for channel in range(6):
            a.join(hidden[[channel]], deep[2 * channel :][:2], kernel[:, 2 * channel :][:, :2])
        a.layer(deep, taps(p["Conv_2"]["kernel"]))

    return *linen(fun, jnp.ones((1, 8, 8, 2))), reference


@case
def conv_transpose():
    def fun(x):
        return through(
            x, nn.ConvTranspose(4, (2, 2), transpose_kernel=True), nn.ConvTranspose(3, (3, 3), strides=(2, 2))
        )

    def reference(p, a):
        first = taps(p["ConvTranspose_0"]["kernel"]).T
        a.layer(a.layer(a.units(2), first), taps(p["ConvTranspose_1"]["kernel"]))

    return *linen(fun, jnp.ones((1, 4, 4, 2))), reference


@case
def conv_local():
    def fun(x):
        return through(x, nn.ConvLocal(2, (2,), padding="VALID"), flat, nn.Dense(2))

    def reference(p, a):
        pixels, kernel, out = a.units(4, 3), p["ConvLocal_0"]["kernel"], a.units(3, 2)
        for position in range(3):
            # Patches hold their channels first.
            patch = pixels[position : position + 2].T
            a.join(patch, out[position], kernel[position])
        a.layer(out, p["Dense_0"]["kernel"])

    return *linen(fun, jnp.ones((2, 4, 3))), reference


@case
def embed_and_attend():
    class Model(nn.Module):
        @nn.compact
        def __call__(self, tokens: jax.Array) -> jax.Array:
            embed = nn.Embed(7, 4)
            return embed.attend(nn.relu(nn.Dense(4)(embed(tokens))))

    def reference(p, a):
        table = p["Embed_0"]["embedding"]
        hidden = a.layer(a.layer(a.units(7), table), p["Dense_0"]["kernel"])
        a.layer(hidden, table.T)

    tokens = jnp.zeros((2, 3), int)
    return Model(), filled(Model(), tokens), (tokens,), reference


@case
def attention_with_residual():
    def fun(x):
        x = nn.Dense(6)(x)
        return nn.Dense(3)(x + nn.MultiHeadDotProductAttention(num_heads=2, qkv_features=8)(x))

    def reference(p, a):
        stream = a.layer(a.units(5), p["Dense_0"]["kernel"])
        heads = p["MultiHeadDotProductAttention_0"]
        value = a.layer(stream, heads["value"]["kernel"].reshape(6, 8))
        a.layer(stream, heads["query"]["kernel"].reshape(6, 8))
        a.layer(stream, heads["key"]["kernel"].reshape(6, 8))
        a.join(value, stream, heads["out"]["kernel"].reshape(8, 6))
        a.layer(stream, p["Dense_1"]["kernel"])

    return *linen(fun, jnp.ones((2, 4, 5))), reference


@case
def attention_masked_and_causal():
    def fun(x):
        mask = nn.make_causal_mask(x[..., 0])
        return nn.MultiHeadDotProductAttention(num_heads=2)(nn.Dense(4)(x), mask=mask)

    def reference(p, a):
        attention(a, p["MultiHeadDotProductAttention_0"], a.layer(a.units(5), p["Dense_0"]["kernel"]))

    return *linen(fun, jnp.ones((2, 4, 5))), reference


@case
def attention_fused_qkv_split():
    def fun(x):
        q, k, v = jnp.split(nn.Dense(3 * 6)(x).reshape(*x.shape[:2], 3, 2, 3), 3, axis=2)
        weights = nn.softmax(jnp.einsum("btzhd,bszhd->bhts", q, k))
        return nn.Dense(4)(jnp.einsum("bhts,bszhd->bthd", weights, v).reshape(*x.shape[:2], 6))

    def reference(p, a):
        fused = a.layer(a.units(5), p["Dense_0"]["kernel"])
        a.layer(fused[12:], p["Dense_1"]["kernel"])

    return *linen(fun, jnp.ones((2, 4, 5))), reference


@case
def attention_fused_qkv_interleaved():
    def fun(x):
        qkv = nn.Dense(3 * 6)(x).reshape(*x.shape[:2], 2, 3, 3)
        q, k, v = qkv[..., 0, :], qkv[..., 1, :], qkv[..., 2, :]
        out = nn.dot_product_attention(q, k, v)
        return nn.DenseGeneral(4, axis=(-2, -1))(out)

    def reference(p, a):
        fused = a.layer(a.units(5), p["Dense_0"]["kernel"]).reshape(2, 3, 3)
        a.layer(fused[:, 2], p["DenseGeneral_0"]["kernel"].reshape(6, 4))

    return *linen(fun, jnp.ones((2, 4, 5))), reference


def grouped_query_attention(p: Any, a: Adjacency) -> None:
    """Two heads of values, each read by two rows of the output's kernel."""
    x = a.units(5)
    a.layer(x, p["DenseGeneral_0"]["kernel"].reshape(5, 12))
    a.layer(x, p["DenseGeneral_1"]["kernel"].reshape(5, 6))
    value = a.layer(x, p["DenseGeneral_2"]["kernel"].reshape(5, 6)).reshape(2, 1, 3)
    out = a.units(5)
    a.join(np.broadcast_to(value, (2, 2, 3)), out, p["DenseGeneral_3"]["kernel"].reshape(12, 5))


@case
def attention_grouped_query():
    def fun(x):
        q = nn.DenseGeneral((4, 3), use_bias=False)(x)
        k, v = nn.DenseGeneral((2, 3))(x), nn.DenseGeneral((2, 3))(x)
        out = nn.dot_product_attention(q, jnp.repeat(k, 2, axis=2), jnp.repeat(v, 2, axis=2))
        return nn.DenseGeneral(5, axis=(-2, -1))(out)

    return *linen(fun, jnp.ones((2, 4, 5))), grouped_query_attention


@case
def attention_jax_nn():
    def fun(x):
        q = nn.DenseGeneral((4, 3))(x)
        k, v = nn.DenseGeneral((2, 3))(x), nn.DenseGeneral((2, 3))(x)
        return nn.DenseGeneral(5, axis=(-2, -1))(jax.nn.dot_product_attention(q, k, v))

    return *linen(fun, jnp.ones((2, 4, 5))), grouped_query_attention


@case
def rotary_pairs_are_one_unit():
    def rotate(x):
        angle = jnp.arange(x.shape[1])[:, None] * jnp.array([1.0, 0.1])
        a, b = jnp.split(x, 2, axis=-1)
        return jnp.concatenate([a * jnp.cos(angle) - b * jnp.sin(angle), b * jnp.cos(angle) + a * jnp.sin(angle)], -1)

    def fun(x):
        q, k, v = rotate(nn.Dense(4)(x)), rotate(nn.Dense(4)(x)), nn.Dense(4)(x)
        return nn.Dense(3)(nn.dot_product_attention(q[:, :, None], k[:, :, None], v[:, :, None])[:, :, 0])

    def reference(p, a):
        x = a.units(5)
        for name in ("Dense_0", "Dense_1"):
            kernel = np.abs(p[name]["kernel"])
            a.layer(x, kernel[:, :2] + kernel[:, 2:])
        a.layer(a.layer(x, p["Dense_2"]["kernel"]), p["Dense_3"]["kernel"])

    return *linen(fun, jnp.ones((2, 4, 5))), reference


@case
def transformer_block():
    def fun(x):
        x = nn.Dense(6)(x)
        heads = nn.MultiHeadDotProductAttention(num_heads=2)
        x = x + heads(nn.LayerNorm()(x))
        return x + through(x, nn.LayerNorm(), nn.Dense(12), nn.gelu, nn.Dense(6))

    def reference(p, a):
        stream = a.layer(a.units(5), p["Dense_0"]["kernel"])
        heads = p["MultiHeadDotProductAttention_0"]
        for name in ("query", "key"):
            a.layer(stream, heads[name]["kernel"].reshape(6, 6))
        value = a.layer(stream, heads["value"]["kernel"].reshape(6, 6))
        a.join(value, stream, heads["out"]["kernel"].reshape(6, 6))
        a.join(a.layer(stream, p["Dense_1"]["kernel"]), stream, p["Dense_2"]["kernel"])

    return *linen(fun, jnp.ones((2, 4, 5))), reference


@case
def vision_transformer():
    def fun(x):
        x = nn.Conv(6, (4, 4), strides=4)(x)
        x = x.reshape(len(x), -1, 6)

        class Tokens(nn.Module):
            @nn.compact
            def __call__(self, x):
                token = self.param("token", nn.initializers.normal(), (1, 1, 6))
                x = jnp.concatenate([jnp.tile(token, (len(x), 1, 1)), x], axis=1)
                return x + self.param("position", nn.initializers.normal(), (1, x.shape[1], 6))

        x = Tokens()(x)
        x = x + nn.MultiHeadDotProductAttention(num_heads=2)(nn.LayerNorm()(x))
        return nn.Dense(3)(x[:, 0])

    def reference(p, a):
        stream = a.layer(a.units(3), taps(p["Conv_0"]["kernel"]))
        heads = p["MultiHeadDotProductAttention_0"]
        for name in ("query", "key"):
            a.layer(stream, heads[name]["kernel"].reshape(6, 6))
        value = a.layer(stream, heads["value"]["kernel"].reshape(6, 6))
        a.join(value, stream, heads["out"]["kernel"].reshape(6, 6))
        a.layer(stream, p["Dense_0"]["kernel"])

    return *linen(fun, jnp.ones((2, 8, 8, 3))), reference


@case
def residual_block_with_batch_norm():
    def fun(x):
        norm = functools.partial(nn.BatchNorm, use_running_average=False)
        x = nn.relu(norm()(nn.Conv(4, (3, 3))(x)))
        y = nn.relu(norm()(nn.Conv(4, (3, 3))(x)))
        y = norm()(nn.Conv(6, (3, 3), strides=2)(y))
        x = nn.relu(norm()(nn.Conv(6, (1, 1), strides=2)(x)) + y)
        return nn.Dense(3)(x.mean(axis=(1, 2)))

    def reference(p, a):
        x = a.layer(a.units(2), taps(p["Conv_0"]["kernel"]))
        y = a.layer(x, taps(p["Conv_1"]["kernel"]))
        out = a.layer(y, taps(p["Conv_2"]["kernel"]))
        a.join(x, out, taps(p["Conv_3"]["kernel"]))
        a.layer(out, p["Dense_0"]["kernel"])

    return *linen(fun, jnp.ones((2, 8, 8, 2))), reference


@case
def batch_norm_in_evaluation():
    def fun(x):
        return through(x, nn.Dense(5), nn.BatchNorm(use_running_average=True), nn.Dense(2))

    def reference(p, a):
        a.layer(a.layer(a.units(4), p["Dense_0"]["kernel"]), p["Dense_1"]["kernel"])

    return *linen(fun, jnp.ones((2, 4))), reference


@case
def group_norm_and_rms_norm():
    def fun(x):
        x = nn.GroupNorm(num_groups=2)(nn.Conv(4, (3, 3))(x))
        return through(x, nn.InstanceNorm(), nn.RMSNorm(), nn.Dense(3))

    def reference(p, a):
        a.layer(a.layer(a.units(2), taps(p["Conv_0"]["kernel"])), p["Dense_0"]["kernel"])

    return *linen(fun, jnp.ones((2, 6, 6, 2))), reference


@case
def weight_norm():
    def fun(x):
        return through(x, nn.WeightNorm(nn.Dense(5)), nn.Dense(3))

    def reference(p, a):
        kernel, scale = p["Dense_0"]["kernel"], p["WeightNorm_0"]["Dense_0/kernel/scale"]
        a.layer(a.layer(a.units(4), scale * kernel / np.linalg.norm(kernel, axis=0)), p["Dense_1"]["kernel"])

    return *linen(fun, jnp.ones((2, 4))), reference


@case
def spectral_norm():
    class Model(nn.Module):
        @nn.compact
        def __call__(self, x: jax.Array) -> jax.Array:
            return nn.Dense(3, name="head")(nn.SpectralNorm(nn.Dense(5), n_steps=30)(x, update_stats=True))

    def reference(p, a):
        kernel = p["Dense_0"]["kernel"]
        a.layer(a.layer(a.units(4), kernel / np.linalg.norm(kernel, 2)), p["head"]["kernel"])

    variables = filled(Model(), jnp.ones((2, 4)))
    return Model(), variables, (jnp.ones((2, 4)),), reference


@case
def pooling_then_flatten():
    def fun(x):
        x = nn.max_pool(nn.relu(nn.Conv(4, (3, 3))(x)), (2, 2), strides=(2, 2))
        x = nn.avg_pool(nn.Conv(5, (3, 3))(x), (2, 2), strides=(1, 1))
        return nn.Dense(3)(x.reshape(len(x), -1))

    def reference(p, a):
        channels = a.layer(a.layer(a.units(2), taps(p["Conv_0"]["kernel"])), taps(p["Conv_1"]["kernel"]))
        a.layer(channels, np.abs(p["Dense_0"]["kernel"]).reshape(9, 5, 3).sum(axis=0))

    return *linen(fun, jnp.ones((2, 8, 8, 2))), reference


@case
def image_flattened_to_pixels():
    def fun(x):
        return through(flat(x) / 255.0, nn.Dense(5), nn.relu, nn.Dense(3))

    def reference(p, a):
        a.layer(a.layer(a.units(12), p["Dense_0"]["kernel"]), p["Dense_1"]["kernel"])

    return *linen(fun, jnp.ones((2, 3, 4, 1), jnp.uint8)), reference


@case
def pixels_pooled_first():
    def fun(x):
        return nn.Dense(3)(nn.avg_pool(x, (2, 2), strides=(2, 2)).reshape(len(x), -1))

    def reference(p, a):
        a.layer(a.units(8), p["Dense_0"]["kernel"])

    return *linen(fun, jnp.ones((2, 4, 4, 2))), reference


@case
def dense_net():
    def fun(x):
        x = nn.Conv(3, (3, 3))(x)
        for _ in range(2):
            x = jnp.concatenate([x, nn.Conv(2, (3, 3))(nn.relu(x))], axis=-1)
        return nn.Dense(4)(x.mean(axis=(1, 2)))

    def reference(p, a):
        x = a.layer(a.units(2), taps(p["Conv_0"]["kernel"]))
        for i in (1, 2):
            x = np.concatenate([x, a.layer(x, taps(p[f"Conv_{i}"]["kernel"]))])
        a.layer(x, p["Dense_0"]["kernel"])

    return *linen(fun, jnp.ones((1, 6, 6, 2))), reference


@case
def u_net():
    def fun(x):
        top = nn.relu(nn.Conv(4, (3, 3))(x))
        low = nn.relu(nn.Conv(5, (3, 3))(nn.max_pool(top, (2, 2), strides=(2, 2))))
        up = jax.image.resize(low, (*top.shape[:-1], 5), "nearest")
        up = nn.ConvTranspose(3, (2, 2))(up)
        return nn.Conv(2, (1, 1))(jnp.concatenate([up, top], axis=-1))

    def reference(p, a):
        top = a.layer(a.units(1), taps(p["Conv_0"]["kernel"]))
        low = a.layer(top, taps(p["Conv_1"]["kernel"]))
        up = a.layer(low, taps(p["ConvTranspose_0"]["kernel"]))
        a.layer(np.concatenate([up, top]), taps(p["Conv_2"]["kernel"]))

    return *linen(fun, jnp.ones((1, 8, 8, 1))), reference


@case
def learned_queries():
    class Pool(nn.Module):
        @nn.compact
        def __call__(self, x: jax.Array) -> jax.Array:
            queries = self.param("queries", nn.initializers.normal(), (6, 4))
            queries = jnp.broadcast_to(queries, (len(x), 6, 4))
            return nn.MultiHeadDotProductAttention(num_heads=2)(nn.LayerNorm()(queries), x)

    def fun(x):
        return through(x, nn.Dense(4), Pool(), lambda x: x.mean(axis=1), nn.Dense(2))

    def reference(p, a):
        stream, heads = a.layer(a.units(5), p["Dense_0"]["kernel"]), p["Pool_0"]["MultiHeadDotProductAttention_0"]
        a.layer(stream, heads["key"]["kernel"].reshape(4, 4))
        value = a.layer(stream, heads["value"]["kernel"].reshape(4, 4))
        a.layer(a.layer(value, heads["out"]["kernel"].reshape(4, 4)), p["Dense_1"]["kernel"])

    return *linen(fun, jnp.ones((3, 5, 5))), reference


@case
def swiglu():
    def fun(x):
        return nn.Dense(4, name="out")(nn.silu(nn.Dense(6)(x)) * nn.Dense(6)(x))

    def reference(p, a):
        x = a.units(5)
        hidden = a.layer(x, np.abs(p["Dense_0"]["kernel"]) + np.abs(p["Dense_1"]["kernel"]))
        a.layer(hidden, p["out"]["kernel"])

    return *linen(fun, jnp.ones((2, 3, 5))), reference


@case
def squeeze_and_excite():
    def fun(x):
        x = nn.Conv(6, (3, 3))(x)
        gate = through(x.mean(axis=(1, 2)), nn.Dense(2), nn.relu, nn.Dense(6))
        return nn.Dense(3)((x * nn.sigmoid(gate)[:, None, None]).mean(axis=(1, 2)))

    def reference(p, a):
        x = a.layer(a.units(2), taps(p["Conv_0"]["kernel"]))
        a.join(a.layer(x, p["Dense_0"]["kernel"]), x, p["Dense_1"]["kernel"])
        a.layer(x, p["Dense_2"]["kernel"])

    return *linen(fun, jnp.ones((2, 6, 6, 2))), reference


@case
def scalar_gate_joins_nothing():
    def fun(x):
        return nn.Dense(3, name="out")(nn.Dense(6)(x) * nn.sigmoid(nn.Dense(1)(x)))

    def reference(p, a):
        x = a.units(5)
        a.layer(a.layer(x, p["Dense_0"]["kernel"]), p["out"]["kernel"])
        a.layer(x, p["Dense_1"]["kernel"])

    return *linen(fun, jnp.ones((2, 5))), reference


@case
def similarity_of_inputs_joins_nothing():
    def fun(x):
        return nn.Dense(3, name="out")(nn.softmax(x @ x.T) @ nn.Dense(6)(x))

    def reference(p, a):
        a.layer(a.layer(a.units(4), p["Dense_0"]["kernel"]), p["out"]["kernel"])

    return *linen(fun, jnp.ones((5, 4))), reference


@case
def tied_table_in_low_precision():
    class Model(nn.Module):
        @nn.compact
        def __call__(self, tokens: jax.Array) -> jax.Array:
            embed = nn.Embed(7, 4, dtype=jnp.bfloat16)
            return embed.attend(nn.Dense(4, dtype=jnp.bfloat16)(embed(tokens)))

    def reference(p, a):
        table = p["Embed_0"]["embedding"]
        a.layer(a.layer(a.layer(a.units(7), table), p["Dense_0"]["kernel"]), table.T)

    tokens = jnp.zeros((2, 3), int)
    return Model(), filled(Model(), tokens), (tokens,), reference


def gates(p: Any, names: str, side: str) -> np.ndarray:
    return np.sum([np.abs(p[side + name]["kernel"]) for name in names], axis=0)


@case
def lstm():
    def fun(x):
        return through(x, nn.RNN(nn.LSTMCell(3)), lambda x: x[:, -1], nn.Dense(2))

    def reference(p, a):
        x, hidden = a.units(5), a.units(3)
        a.join(x, hidden, gates(p["LSTMCell_0"], "ifgo", "i"))
        a.join(hidden, hidden, gates(p["LSTMCell_0"], "ifgo", "h"))
        a.layer(hidden, p["Dense_0"]["kernel"])

    return *linen(fun, jnp.ones((2, 4, 5))), reference


@case
def optimized_lstm_twice():
    def fun(x):
        return through(x, nn.RNN(nn.OptimizedLSTMCell(3)), nn.RNN(nn.OptimizedLSTMCell(4)))

    def reference(p, a):
        below = a.units(5)
        for i, size in enumerate((3, 4)):
            hidden, own = a.units(size), p[f"OptimizedLSTMCell_{i}"]
            a.join(below, hidden, gates(own, "ifgo", "i"))
            a.join(hidden, hidden, gates(own, "ifgo", "h"))
            below = hidden

    return *linen(fun, jnp.ones((2, 4, 5))), reference


@case
def gru_with_lengths():
    class Model(nn.Module):
        @nn.compact
        def __call__(self, x: jax.Array, lengths: jax.Array) -> jax.Array:
            carry, _ = nn.RNN(nn.GRUCell(3), return_carry=True)(x, seq_lengths=lengths)
            return nn.Dense(2)(carry)

    def reference(p, a):
        x, hidden = a.units(5), a.units(3)
        a.join(x, hidden, gates(p["GRUCell_0"], "rzn", "i"))
        a.join(hidden, hidden, gates(p["GRUCell_0"], "rzn", "h"))
        a.layer(hidden, p["Dense_0"]["kernel"])

    inputs = jnp.ones((2, 4, 5)), jnp.array([3, 4])
    return Model(), filled(Model(), *inputs), inputs, reference


@case
def running_mean_under_a_mask():
    def model(params, x, mask):
        def step(mean, row):
            mean = 0.9 * mean + 0.1 * row @ params["in"]
            return mean, mean

        _, x = jax.lax.scan(step, jnp.zeros(6), x)
        return (x * mask[:, None]) @ params["out"]

    def reference(p, a):
        a.layer(a.layer(a.units(5), p["in"]), p["out"])

    params = {"in": jax.random.normal(KEY, (5, 6)), "out": jax.random.normal(KEY, (6, 3))}
    return model, params, (jnp.ones((4, 5)), jnp.ones(4)), reference


@case
def bidirectional():
    def fun(x):
        return nn.Dense(2)(nn.Bidirectional(nn.RNN(nn.SimpleCell(3)), nn.RNN(nn.SimpleCell(4)))(x))

    def reference(p, a):
        x = a.units(5)
        hidden = []
        for i, size in enumerate((3, 4)):
            hidden.append(a.units(size))
            a.join(x, hidden[i], p[f"SimpleCell_{i}"]["i"]["kernel"])
            a.join(hidden[i], hidden[i], p[f"SimpleCell_{i}"]["h"]["kernel"])
        a.layer(np.concatenate(hidden), p["Dense_0"]["kernel"])

    return *linen(fun, jnp.ones((2, 4, 5))), reference


@case
def scan_over_layers():
    class Block(nn.Module):
        @nn.compact
        def __call__(self, x: jax.Array, _: None) -> tuple[jax.Array, None]:
            return x + through(x, nn.Dense(6), nn.relu, nn.Dense(4)), None

    class Model(nn.Module):
        @nn.compact
        def __call__(self, x: jax.Array) -> jax.Array:
            layers = nn.scan(nn.remat(Block), variable_axes={"params": 0}, split_rngs={"params": True}, length=3)
            return through(x, nn.Dense(4), lambda x: layers(name="layers")(x, None)[0], nn.Dense(2))

    def reference(p, a):
        stream = a.layer(a.units(5), p["Dense_0"]["kernel"])
        for i in range(3):
            hidden = a.layer(stream, p["layers"]["Dense_0"]["kernel"][i])
            a.join(hidden, stream, p["layers"]["Dense_1"]["kernel"][i])
        a.layer(stream, p["Dense_1"]["kernel"])

    return Model(), filled(Model(), jnp.ones((2, 5))), (jnp.ones((2, 5)),), reference


@case
def vmap_ensemble():
    class Model(nn.Module):
        @nn.compact
        def __call__(self, x: jax.Array) -> jax.Array:
            settings: Any = {"variable_axes": {"params": 0}, "split_rngs": {"params": True}, "axis_size": 3}
            x = nn.vmap(nn.Dense, **settings, in_axes=None)(4)(x)  # pyright: ignore[reportArgumentType]
            return nn.vmap(nn.Dense, **settings)(2)(nn.relu(x))

    def reference(p, a):
        x = a.units(5)
        first, second = p["VmapDense_0"]["kernel"], p["VmapDense_1"]["kernel"]
        for member in range(3):
            a.layer(a.layer(x, first[member]), second[member])

    return Model(), filled(Model(), jnp.ones((2, 5))), (jnp.ones((2, 5)),), reference


@case
def jitted_and_rematerialized():
    def fun(x):
        return nn.jit(nn.Dense)(3)(nn.relu(nn.remat(nn.Dense)(4)(x)))

    def reference(p, a):
        a.layer(a.layer(a.units(5), p["CheckpointDense_0"]["kernel"]), p["JitDense_0"]["kernel"])

    return *linen(fun, jnp.ones((2, 5))), reference


@case
def custom_derivatives():
    @jax.custom_jvp
    def first(x, w):
        return jnp.tanh(x @ w)

    first.defjvps(lambda t, _, x, w: t @ w, None)

    @jax.custom_vjp
    def second(x, w):
        return x @ w

    second.defvjp(lambda x, w: (x @ w, (x, w)), lambda res, g: (g @ res[1].T, res[0].T @ g))

    def model(params, x):
        return second(first(x, params["a"]), params["b"])

    def reference(p, a):
        a.layer(a.layer(a.units(5), p["a"]), p["b"])

    params = {"a": jax.random.normal(KEY, (5, 4)), "b": jax.random.normal(KEY, (4, 3))}
    return model, params, (jnp.ones((2, 5)),), reference


@case
def cond_branches_unite():
    def model(params, x):
        hidden = jax.lax.cond(x.sum() > 0, lambda: x @ params["a"], lambda: jnp.tanh(x @ params["b"]))
        return jax.lax.switch(1, [lambda: hidden @ params["c"], lambda: hidden @ params["d"]])

    def reference(p, a):
        a.layer(a.layer(a.units(5), np.abs(p["a"]) + np.abs(p["b"])), p["d"])

    keys = jax.random.split(KEY, 4)
    params = {name: jax.random.normal(key, (5, 5)) for name, key in zip("abcd", keys, strict=True)}
    return model, params, (jnp.ones((2, 5)),), reference


@case
def mixture_of_experts():
    def fun(x):
        class Experts(nn.Module):
            @nn.compact
            def __call__(self, x):
                up = self.param("up", nn.initializers.normal(1), (3, 4, 6))
                down = self.param("down", nn.initializers.normal(1), (3, 6, 4))
                scores = nn.softmax(nn.Dense(3)(x))
                chosen = jax.nn.one_hot(jnp.argmax(scores, -1), 3)
                place = (jnp.cumsum(chosen, axis=0) * chosen).astype(int)
                dispatch = (jax.nn.one_hot(place, 8) * chosen[..., None]).astype(x.dtype)
                combine = dispatch * scores[..., None]
                given = jnp.einsum("tec,td->ecd", dispatch, x)
                hidden = nn.relu(jnp.einsum("ecd,edf->ecf", given, up))
                return jnp.einsum("tec,ecd->td", combine, jnp.einsum("ecf,efd->ecd", hidden, down))

        x = nn.Dense(4)(x)
        return nn.Dense(2)(x + Experts()(x))

    def reference(p, a):
        stream, experts = a.layer(a.units(5), p["Dense_0"]["kernel"]), p["Experts_0"]
        a.layer(stream, experts["Dense_0"]["kernel"])
        for up, down in zip(experts["up"], experts["down"], strict=True):
            a.join(a.layer(stream, up), stream, down)
        a.layer(stream, p["Dense_1"]["kernel"])

    return *linen(fun, jnp.ones((7, 5))), reference


def two_branches(join: Callable[[jax.Array, jax.Array], jax.Array]):
    """Two kernels beside each other, whose units are one."""

    def fun(x):
        x = nn.Dense(5)(x)
        return through(join(nn.relu(nn.Dense(4)(x)), nn.relu(nn.Dense(4)(x))), nn.Dense(3))

    def reference(p, a):
        below = a.layer(a.units(6), p["Dense_0"]["kernel"])
        both = a.layer(below, p["Dense_1"]["kernel"])
        a.join(below, both, p["Dense_2"]["kernel"])
        a.layer(both, p["Dense_3"]["kernel"])

    return *linen(fun, jnp.ones((2, 6))), reference


@case
def branches_stacked_and_summed():
    return two_branches(lambda a, b: jnp.stack([a, b]).sum(axis=0))


@case
def branches_stacked_and_averaged():
    return two_branches(lambda a, b: jnp.tanh(2 * jnp.stack([a, b], axis=-1).mean(axis=-1)) + 1)


@case
def branches_stacked_and_weighed():
    return two_branches(lambda a, b: jnp.einsum("i,ibn->bn", jnp.array([0.25, 0.75]), jnp.stack([a, b])))


@case
def branches_pooled_twice():
    return two_branches(lambda a, b: jnp.stack([a, b]).max(axis=0) - jnp.stack([a, b]).min(axis=0))


@case
def branches_pooled_and_pooled_again():
    def join(a, b):
        return jnp.stack([jnp.stack([a, b]).max(axis=0), jnp.stack([b, a]).min(axis=0)]).sum(axis=0)

    return two_branches(join)


@case
def a_stacked_sum_on_a_residual():
    def fun(x):
        x = nn.Dense(4)(x)
        x = x + jnp.stack([nn.Dense(4)(x), nn.Dense(4)(x)]).sum(axis=0)
        return nn.Dense(3)(x)

    def reference(p, a):
        stream = a.layer(a.units(6), p["Dense_0"]["kernel"])
        for name in ("Dense_1", "Dense_2"):
            a.join(stream, stream, p[name]["kernel"])
        a.layer(stream, p["Dense_3"]["kernel"])

    return *linen(fun, jnp.ones((2, 6))), reference


@case
def maxout_beside_a_layer():
    def fun(x):
        pieces = nn.Dense(8)(x).reshape(*x.shape[:-1], 4, 2).max(axis=-1)
        return through(jnp.concatenate([pieces, nn.Dense(2)(x)], axis=-1), nn.Dense(3))

    def reference(p, a):
        x = a.units(6)
        pieces = a.layer(x, np.abs(p["Dense_0"]["kernel"]).reshape(6, 4, 2).sum(axis=-1))
        a.layer(np.concatenate([pieces, a.layer(x, p["Dense_1"]["kernel"])]), p["Dense_2"]["kernel"])

    return *linen(fun, jnp.ones((2, 6))), reference


@case
def maxout_of_channels():
    def fun(x):
        pieces = nn.Conv(6, (3, 3))(x).reshape(*x.shape[:-1], 2, 3).max(axis=-2)
        return nn.Conv(2, (3, 3))(pieces)

    def reference(p, a):
        pieces = a.layer(a.units(2), taps(p["Conv_0"]["kernel"]).reshape(2, 2, 3).sum(axis=1))
        a.layer(pieces, taps(p["Conv_1"]["kernel"]))

    return *linen(fun, jnp.ones((2, 6, 6, 2))), reference


@case
def selective_kernels():
    def fun(x):
        both = jnp.stack([nn.Conv(4, (3, 3))(x), nn.Conv(4, (5, 5))(x)], axis=1)
        scores = through(both.sum(axis=1).mean(axis=(1, 2)), nn.Dense(5), nn.relu, nn.Dense(8))
        weights = nn.softmax(scores.reshape(-1, 2, 1, 1, 4), axis=1)
        return nn.Conv(3, (1, 1))((both * weights).sum(axis=1))

    def reference(p, a):
        x = a.units(2)
        both = a.layer(x, taps(p["Conv_0"]["kernel"]))
        a.join(x, both, taps(p["Conv_1"]["kernel"]))
        squeezed = a.layer(both, p["Dense_0"]["kernel"])
        a.join(squeezed, both, np.abs(p["Dense_1"]["kernel"]).reshape(5, 2, 4).sum(axis=1))
        a.layer(both, taps(p["Conv_2"]["kernel"]))

    return *linen(fun, jnp.ones((2, 6, 6, 2))), reference


@case
def a_stacked_sum_is_normalized_by_groups():
    def fun(x):
        both = jnp.stack([nn.Dense(6)(x), nn.Dense(6)(x)]).sum(axis=0)
        return through(both, nn.GroupNorm(2), nn.Dense(3))

    def reference(p, a):
        x = a.units(5)
        both = a.layer(x, p["Dense_0"]["kernel"])
        a.join(x, both, p["Dense_1"]["kernel"])
        a.layer(both, p["Dense_2"]["kernel"])

    return *linen(fun, jnp.ones((2, 5))), reference


@case
def a_stacked_sum_in_another_on_a_residual():
    def fun(x):
        inner = jnp.stack([nn.Dense(4)(x), nn.Dense(4)(x)]).sum(axis=0) + nn.Dense(4)(x)
        return nn.Dense(3)(jnp.stack([inner, nn.Dense(4)(x)]).sum(axis=0))

    def reference(p, a):
        x = a.units(5)
        all_four = a.layer(x, p["Dense_0"]["kernel"])
        for name in ("Dense_1", "Dense_2", "Dense_4"):
            a.join(x, all_four, p[name]["kernel"])
        a.layer(all_four, p["Dense_3"]["kernel"])

    return *linen(fun, jnp.ones((2, 5))), reference


@case
def a_stacked_sum_after_the_largest_of_its_groups():
    def fun(x):
        groups = jnp.stack([nn.Dense(6)(x), nn.Dense(6)(x)]).sum(axis=0).reshape(-1, 2, 3)
        return nn.Dense(3)(flat(groups.max(axis=-1)[..., None] * groups))

    def reference(p, a):
        x = a.units(5)
        both = a.layer(x, p["Dense_0"]["kernel"])
        a.join(x, both, p["Dense_1"]["kernel"])
        a.layer(both, p["Dense_2"]["kernel"])

    return *linen(fun, jnp.ones((2, 5))), reference


@case
def statistics_of_groups_repeated_as_gates():
    def fun(x):
        gate = nn.Dense(6)(x).reshape(-1, 2, 3).mean(axis=-1)
        return nn.Dense(3)(nn.Dense(6)(x) * jnp.repeat(gate, 3, axis=-1))

    def reference(p, a):
        x = a.units(5)
        a.layer(x, p["Dense_0"]["kernel"])
        a.layer(a.layer(x, p["Dense_2"]["kernel"]), p["Dense_1"]["kernel"])

    return *linen(fun, jnp.ones((2, 5))), reference


@case
def squeeze_and_excite_on_an_average():
    def fun(x):
        both = jnp.stack([nn.Dense(6)(x), nn.Dense(6)(x)]).mean(axis=0)
        gate = through(both, nn.Dense(4), nn.relu, nn.Dense(6), nn.sigmoid)
        return nn.Dense(3)(both * gate)

    def reference(p, a):
        x = a.units(5)
        both = a.layer(x, p["Dense_0"]["kernel"])
        a.join(x, both, p["Dense_1"]["kernel"])
        a.join(a.layer(both, p["Dense_2"]["kernel"]), both, p["Dense_3"]["kernel"])
        a.layer(both, p["Dense_4"]["kernel"])

    return *linen(fun, jnp.ones((2, 5))), reference


@case
def experts_gated_for_two_tasks():
    def fun(x):
        experts = jnp.stack([nn.Dense(4)(x), nn.Dense(4)(x), nn.Dense(4)(x)], axis=1)
        gates = [nn.softmax(nn.Dense(3)(x)) for _ in range(2)]
        return [nn.Dense(1)((gate[..., None] * experts).sum(axis=1)) for gate in gates]

    def reference(p, a):
        x = a.units(5)
        experts = a.layer(x, p["Dense_0"]["kernel"])
        for name in ("Dense_1", "Dense_2"):
            a.join(x, experts, p[name]["kernel"])
        for gate, task in (("Dense_3", "Dense_5"), ("Dense_4", "Dense_6")):
            a.layer(x, p[gate]["kernel"])
            a.layer(experts, p[task]["kernel"])

    return *linen(fun, jnp.ones((2, 5))), reference


@case
def attention_scores_of_units_that_lead_on():
    def model(params, x, edges, senders, receivers):
        heads = (x @ params["w"]).reshape(-1, 2, 4)
        scores = (heads * params["a"]).sum(axis=-1)[senders] + edges @ params["e"]
        sent = jnp.exp(scores)[..., None] * heads[senders]
        return jax.ops.segment_sum(sent, receivers, 5).reshape(5, -1) @ params["o"]

    def reference(p, a):
        heads = a.layer(a.units(4), p["w"])
        a.layer(a.units(3), p["e"])
        a.layer(heads, p["o"])

    shapes = {"w": (4, 8), "a": (2, 4), "e": (3, 2), "o": (8, 3)}
    params = {name: jax.random.normal(KEY, shape) for name, shape in shapes.items()}
    return model, params, (jnp.ones((5, 4)), jnp.ones((7, 3)), jnp.zeros(7, int), jnp.zeros(7, int)), reference


@case
def attention_scores_by_sums_with_a_bias():
    def model(params, x, pairs):
        q, k, v = ((x @ params[name]).reshape(5, 2, 4) for name in "qkv")
        scores = (q[:, None] * k).sum(axis=-1) + pairs @ params["e"]
        return jnp.einsum("tsh,shd->thd", jnp.exp(scores), v).reshape(5, -1) @ params["o"]

    def reference(p, a):
        x = a.units(6)
        a.join(x, a.layer(x, p["q"]), p["k"])
        a.layer(a.units(3), p["e"])
        a.layer(a.layer(x, p["v"]), p["o"])

    shapes = {"q": (6, 8), "k": (6, 8), "v": (6, 8), "e": (3, 2), "o": (8, 3)}
    params = {name: jax.random.normal(KEY, shape) for name, shape in shapes.items()}
    return model, params, (jnp.ones((5, 6)), jnp.ones((5, 5, 3))), reference


@case
def a_statistic_of_groups_that_are_given_out():
    def fun(x):
        groups = nn.Dense(8)(x).reshape(-1, 2, 4)
        return groups, nn.Dense(3)(groups.mean(axis=-1))

    def reference(p, a):
        a.layer(a.units(4), p["Dense_0"]["kernel"])
        a.layer(a.units(2), p["Dense_1"]["kernel"])

    return *linen(fun, jnp.ones((2, 4))), reference


@case
def advantages_less_their_mean():
    def fun(x):
        value, advantages = nn.Dense(5)(x)[:, None], nn.Dense(15)(x).reshape(-1, 3, 5)
        return value - advantages.mean(axis=1, keepdims=True) + advantages

    def reference(p, a):
        x = a.units(4)
        a.layer(x, p["Dense_0"]["kernel"])
        a.layer(x, p["Dense_1"]["kernel"])

    return *linen(fun, jnp.ones((2, 4))), reference


@case
def a_statistic_of_groups_that_lead_on():
    def fun(x):
        groups = nn.Dense(8)(x).reshape(-1, 2, 4)
        gate = through(groups.mean(axis=-1), nn.Dense(3), nn.relu, nn.Dense(2), nn.sigmoid)
        return nn.Dense(3)(flat(groups * gate[..., None]))

    def reference(p, a):
        a.layer(a.layer(a.units(4), p["Dense_0"]["kernel"]), p["Dense_3"]["kernel"])
        a.layer(a.layer(a.units(2), p["Dense_1"]["kernel"]), p["Dense_2"]["kernel"])

    return *linen(fun, jnp.ones((2, 4))), reference


@case
def a_convolution_over_the_channels():
    def fun(x):
        x = nn.Conv(8, (3, 3))(x)
        gate = nn.sigmoid(nn.Conv(1, (3,))(x.mean(axis=(1, 2))[..., None])[..., 0])
        return nn.Dense(3)((x * gate[:, None, None]).mean(axis=(1, 2)))

    def reference(p, a):
        a.layer(a.layer(a.units(2), taps(p["Conv_0"]["kernel"])), p["Dense_0"]["kernel"])

    return *linen(fun, jnp.ones((2, 6, 6, 2))), reference


@case
def members_of_an_ensemble_averaged():
    def fun(x):
        members = nn.vmap(nn.Dense, variable_axes={"params": 0}, split_rngs={"params": True}, axis_size=3, in_axes=0)
        return through(jnp.broadcast_to(x, (3, *x.shape)), members(4), lambda x: x.mean(axis=0), nn.Dense(2))

    def reference(p, a):
        x = a.units(5)
        (members,) = (layer["kernel"] for name, layer in p.items() if name != "Dense_0")
        a.layer(a.layer(x, np.abs(members).sum(axis=0)), p["Dense_0"]["kernel"])

    return *linen(fun, jnp.ones((2, 5))), reference


@case
def layers_mixed_by_learned_weights():
    def model(params, x):
        layers = [x @ params["v"]]
        for w in params["w"]:
            layers.append(jnp.tanh(layers[-1] @ w))
        return jnp.einsum("l,lbn->bn", jax.nn.softmax(params["mix"]), jnp.stack(layers)) @ params["out"]

    def reference(p, a):
        stream = a.layer(a.units(5), p["v"])
        for w in p["w"]:
            a.join(stream, stream, w)
        a.layer(stream, p["out"])

    keys = jax.random.split(KEY, 3)
    shapes = {"v": (5, 4), "w": (2, 4, 4), "out": (4, 3)}
    params = {name: jax.random.normal(key, shape) for key, (name, shape) in zip(keys, shapes.items(), strict=True)}
    return model, {**params, "mix": jnp.ones(3)}, (jnp.ones((2, 5)),), reference


@case
def statistics_of_groups_scale_other_units():
    def fun(x):
        groups = nn.Dense(6)(x).reshape(-1, 2, 3)
        gate = nn.sigmoid(nn.Dense(2)(x)) * jnp.square(groups).mean(axis=-1)
        scaled = jnp.einsum("bg,bgd->bgd", jnp.square(groups).max(axis=-1), groups)
        return nn.Dense(3)(flat(gate[..., None] * scaled))

    def reference(p, a):
        x = a.units(4)
        a.layer(a.layer(x, p["Dense_0"]["kernel"]), p["Dense_2"]["kernel"])
        a.layer(x, p["Dense_1"]["kernel"])

    return *linen(fun, jnp.ones((2, 4))), reference


@case
def a_layer_on_each_statistic():
    def fun(x):
        groups = nn.Dense(6)(x).reshape(-1, 2, 3)
        scale = nn.Dense(1)(nn.tanh(nn.Dense(4)(groups.mean(axis=-1, keepdims=True))))
        return nn.Dense(2)(flat(groups * scale))

    def reference(p, a):
        a.layer(a.layer(a.units(4), p["Dense_0"]["kernel"]), p["Dense_3"]["kernel"])
        a.layer(a.layer(a.units(1), p["Dense_2"]["kernel"]), p["Dense_1"]["kernel"])

    return *linen(fun, jnp.ones((2, 4))), reference


@case
def an_image_decoded_onto_the_image():
    def fun(x):
        decoded = nn.Dense(16)(flat(nn.Conv(2, (3, 3))(x)))
        return nn.Dense(3)(flat(decoded.reshape(x.shape) + x))

    def reference(p, a):
        channels = a.layer(a.units(1), taps(p["Conv_0"]["kernel"]))
        decoded = a.layer(channels, np.abs(p["Dense_0"]["kernel"]).reshape(16, 2, 16).sum(axis=0))
        a.layer(decoded, p["Dense_1"]["kernel"])

    return *linen(fun, jnp.ones((1, 4, 4, 1))), reference


@case
def a_vector_for_the_features_of_every_step():
    def model(params, x):
        return (x @ params["w"]) @ params["v"]

    def reference(p, a):
        a.layer(a.layer(a.units(4), p["w"][:, None]), np.abs(p["v"]).sum(axis=0)[None])

    params = {"w": jax.random.normal(KEY, (4,)), "v": jax.random.normal(KEY, (5, 3))}
    return model, params, (jnp.ones((2, 5, 4)),), reference


@case
def a_sum_carried_through_time():
    def model(params, xs):
        def step(h, x):
            h = jnp.tanh(jnp.stack([x @ params["w"], h @ params["u"]]).sum(axis=0))
            return h, None

        h, _ = jax.lax.scan(step, jnp.zeros((2, 4)), xs)
        return h @ params["out"]

    def reference(p, a):
        h = a.layer(a.units(5), p["w"])
        a.join(h, h, p["u"])
        a.layer(h, p["out"])

    keys = jax.random.split(KEY, 3)
    shapes = {"w": (5, 4), "u": (4, 4), "out": (4, 3)}
    params = {name: jax.random.normal(key, shape) for key, (name, shape) in zip(keys, shapes.items(), strict=True)}
    return model, params, (jnp.ones((7, 2, 5)),), reference


@case
def one_layer_called_twice():
    class Model(nn.Module):
        @nn.compact
        def __call__(self, x: jax.Array, y: jax.Array) -> jax.Array:
            tower = nn.Dense(4)
            return nn.Dense(2)(jnp.concatenate([tower(x), tower(y)], axis=-1))

    def reference(p, a):
        towers = [a.layer(a.units(5), p["Dense_0"]["kernel"]) for _ in range(2)]
        a.layer(np.concatenate(towers), p["Dense_1"]["kernel"])

    inputs = jnp.ones((2, 5)), jnp.ones((2, 5))
    return Model(), filled(Model(), *inputs), inputs, reference


@case
def lora_merged_and_applied():
    def model(params, x):
        x = x @ (params["w"] + 2.0 * params["down"] @ params["up"])
        return x @ params["v"] + (x @ params["v_down"]) @ params["v_up"]

    def reference(p, a):
        hidden = a.layer(a.units(5), p["w"] + 2 * p["down"] @ p["up"])
        out = a.layer(hidden, p["v"])
        a.join(a.layer(hidden, p["v_down"]), out, p["v_up"])

    shapes = {"w": (5, 4), "down": (5, 2), "up": (2, 4), "v": (4, 3), "v_down": (4, 1), "v_up": (1, 3)}
    keys = jax.random.split(KEY, 6)
    params = {name: jax.random.normal(key, shape) for key, (name, shape) in zip(keys, shapes.items(), strict=True)}
    return model, params, (jnp.ones((2, 5)),), reference


@case
def low_precision_and_dropout():
    def fun(x):
        x = nn.Dropout(0.5, deterministic=False)(nn.Dense(4, dtype=jnp.bfloat16)(x), rng=jax.random.key(1))
        return nn.Dense(3, dtype=jnp.float16)(nn.relu(x))

    def reference(p, a):
        a.layer(a.layer(a.units(5), p["Dense_0"]["kernel"]), p["Dense_1"]["kernel"])

    return *linen(fun, jnp.ones((2, 5))), reference


@case
def names_against_the_order_of_calls():
    def fun(x):
        return nn.Dense(6)(nn.gelu(nn.Dense(6)(x)))

    def reference(p, a):
        a.layer(a.layer(a.units(6), p["Dense_1"]["kernel"]), p["Dense_0"]["kernel"])

    return *linen(fun, jnp.ones((2, 6))), reference


@case
def mixer_leaves_out_what_mixes_tokens():
    def fun(x):
        x = nn.Conv(4, (2, 2), strides=2)(x).reshape(len(x), -1, 4)
        y = through(x.swapaxes(1, 2), nn.Dense(5), nn.gelu, nn.Dense(9)).swapaxes(1, 2)
        x = x + y
        return x + through(x, nn.Dense(7), nn.gelu, nn.Dense(4))

    def reference(p, a):
        stream = a.layer(a.units(2), taps(p["Conv_0"]["kernel"]))
        a.join(a.layer(stream, p["Dense_2"]["kernel"]), stream, p["Dense_3"]["kernel"])

    return *linen(fun, jnp.ones((2, 6, 6, 2))), reference


@case
def token_and_position_embedding():
    def fun(tokens):
        x = nn.Embed(7, 4)(tokens) + nn.Embed(3, 4)(jnp.arange(3))
        return nn.Dense(2)(x)

    def reference(p, a):
        a.layer(a.layer(a.units(7), p["Embed_0"]["embedding"]), p["Dense_0"]["kernel"])

    return *linen(fun, jnp.zeros((2, 3), int)), reference


@case
def plain_function_with_vmap():
    def one(params, x):
        return jnp.tanh(params["w"] @ x + params["b"]) @ params["v"]

    def reference(p, a):
        a.layer(a.layer(a.units(5), p["w"].T), p["v"])

    params = {"w": jax.random.normal(KEY, (4, 5)), "b": jnp.ones(4), "v": jax.random.normal(KEY, (4, 3))}
    return jax.vmap(one, in_axes=(None, 0)), params, (jnp.ones((2, 5)),), reference


@case
def stacked_members_with_tables():
    def one(params, tokens):
        return jnp.take(params["table"], tokens, axis=0) @ params["w"]

    def reference(p, a):
        for table, w in zip(p["table"], p["w"], strict=True):
            a.layer(a.layer(a.units(7), table), w)

    params = {"table": jax.random.normal(KEY, (3, 7, 4)), "w": jax.random.normal(KEY, (3, 4, 2))}
    return jax.vmap(one), params, (jnp.zeros((3, 2, 5), int),), reference


@case
def graph_convolution():
    def model(params, x, senders, receivers):
        messages = (x @ params["w"])[senders]
        gathered = jnp.zeros((4, 6)).at[receivers].add(messages)
        return jax.ops.segment_sum(jax.nn.relu(gathered)[senders] @ params["v"], receivers, 4)

    def reference(p, a):
        a.layer(a.layer(a.units(5), p["w"]), p["v"])

    params = {"w": jax.random.normal(KEY, (5, 6)), "v": jax.random.normal(KEY, (6, 3))}
    edges = jnp.array([0, 1, 2]), jnp.array([1, 2, 3])
    return model, params, (jnp.ones((4, 5)), *edges), reference


@case
def decoding_with_a_cache():
    def model(params, x, cache, step):
        cache = jax.lax.dynamic_update_slice(cache, x @ params["v"], (step, 0))
        scores = jax.nn.softmax(cache @ (x @ params["q"])[0])
        return (scores @ cache) @ params["o"]

    def reference(p, a):
        x = a.units(5)
        a.layer(x, p["q"])
        a.layer(a.layer(x, p["v"]), p["o"])

    keys = jax.random.split(KEY, 3)
    params = {
        name: jax.random.normal(key, shape)
        for key, name, shape in zip(keys, "vqo", [(5, 4), (5, 4), (4, 3)], strict=True)
    }
    return model, params, (jnp.ones((1, 5)), jnp.zeros((8, 4)), jnp.asarray(2)), reference


class NnxBlock(nnx.Module):
    def __init__(self):
        rngs = nnx.Rngs(0)
        self.conv = nnx.Conv(2, 4, (3, 3), rngs=rngs)
        self.norm = nnx.BatchNorm(4, rngs=rngs)
        self.drop = nnx.Dropout(0.5, rngs=rngs)
        self.head = nnx.Linear(4, 3, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        return self.head(self.drop(nnx.relu(self.norm(self.conv(x)))).mean(axis=(1, 2)))


@case
def nnx_module():
    def reference(p, a):
        a.layer(a.layer(a.units(2), taps(p["conv"]["kernel"])), p["head"]["kernel"])

    model = NnxBlock()
    return model, nnx.state(model, nnx.Param), (jnp.ones((2, 6, 6, 2)),), reference


@pytest.mark.parametrize("name", CASES)
def test_a_traced_model(name: str) -> None:
    check(*CASES[name]())
