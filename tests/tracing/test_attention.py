"""Attention in its forms, against adjacencies by hand."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from adjacency import Adjacency
from traced import KEY, cases, check, filled, linen, random_params, taps, through

import fiedler_jax as fj

CASES, case = cases()


def attention(a: Adjacency, p: Any, stream: np.ndarray) -> np.ndarray:
    """Query and key units are leaves; values lead on."""
    d = len(stream)
    a.layer(stream, p["query"]["kernel"].reshape(d, -1))
    a.layer(stream, p["key"]["kernel"].reshape(d, -1))
    value = a.layer(stream, p["value"]["kernel"].reshape(d, -1))
    return a.layer(value, p["out"]["kernel"].reshape(len(value), -1))


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
def attention_scores_of_units_that_lead_on():
    def model(params, x, edges, senders, receivers):
        heads = (x @ params["w"]).reshape(-1, 2, 4)
        scores = jnp.tanh(heads * params["a"]).sum(axis=-1)[senders] + edges @ params["e"]
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


@case
def attention_of_one_query():
    def fun(x):
        q = nn.DenseGeneral((2, 2, 3))(x[:, -1:])
        k, v = nn.DenseGeneral((2, 3))(x), nn.DenseGeneral((2, 3))(x)
        weights = nn.softmax(jnp.einsum("bsgrd,btgd->bgrst", q, k))
        return nn.DenseGeneral(5, axis=(-3, -2, -1))(jnp.einsum("bgrst,btgd->bsgrd", weights, v))

    def reference(p, a):
        x = a.units(4)
        a.layer(x, p["DenseGeneral_0"]["kernel"].reshape(4, 12))
        a.layer(x, p["DenseGeneral_1"]["kernel"].reshape(4, 6))
        value = a.layer(x, p["DenseGeneral_2"]["kernel"].reshape(4, 6)).reshape(2, 1, 3)
        a.layer(np.broadcast_to(value, (2, 2, 3)).ravel(), p["DenseGeneral_3"]["kernel"].reshape(12, 5))

    return *linen(fun, jnp.ones((2, 7, 4))), reference


@case
def attention_whose_weights_are_given_out():
    def model(params, x):
        q, k, v = ((x @ params[name]).reshape(7, 2, 4) for name in "qkv")
        weights = jax.nn.softmax((q[:, None] * k).sum(axis=-1), axis=1)
        return jnp.einsum("tsh,shd->thd", weights, v).reshape(7, 8) @ params["o"], weights

    def reference(p, a):
        x = a.units(5)
        a.join(x, a.layer(x, p["q"]), p["k"])
        a.layer(a.layer(x, p["v"]), p["o"])

    return model, random_params(q=(5, 8), k=(5, 8), v=(5, 8), o=(8, 3)), (jnp.ones((7, 5)),), reference


@case
def attention_of_normalized_queries_and_keys():
    def fun(x):
        return nn.MultiHeadDotProductAttention(num_heads=2, normalize_qk=True)(nn.Dense(8)(x))

    def reference(p, a):
        stream, p = a.layer(a.units(5), p["Dense_0"]["kernel"]), p["MultiHeadDotProductAttention_0"]
        for name in ("query", "key"):
            a.layer(stream, p[name]["kernel"].reshape(8, 8))
        a.layer(a.layer(stream, p["value"]["kernel"].reshape(8, 8)), p["out"]["kernel"].reshape(8, 8))

    return *linen(fun, jnp.ones((2, 4, 5))), reference


@case
def attention_to_relative_positions_apart():
    distances = np.clip(np.arange(5)[:, None] - np.arange(5) + 2, 0, 4)

    def model(params, x):
        q, k, v = ((x @ params[name]).reshape(2, 5, 2, 3) for name in "qkv")
        far_q, far_k = ((params["far"] @ params[name]).reshape(5, 2, 3) for name in "qk")
        to_places = jnp.einsum("bthd,rhd->bhtr", q, far_k)
        of_places = jnp.einsum("bshd,rhd->bhsr", k, far_q)
        scores = jnp.einsum("bthd,bshd->bhts", q, k)
        scores += jnp.take_along_axis(to_places, jnp.asarray(distances)[None, None], axis=-1)
        scores += jnp.take_along_axis(of_places, jnp.asarray(distances.T)[None, None], axis=-1).mT
        return jnp.einsum("bhts,bshd->bthd", jax.nn.softmax(scores), v).reshape(2, 5, 6) @ params["o"]

    def reference(p, a):
        x = a.units(4)
        q, k = (a.layer(x, p[name]).reshape(2, 3) for name in "qk")
        far_q, far_k = ((p["far"] @ p[name]).reshape(5, 2, 3) for name in "qk")
        for head in range(2):
            places = a.layer(q[head], far_k[:, head].T)
            a.join(k[head], places, far_q[:, head].T)
        a.layer(a.layer(x, p["v"]), p["o"])

    return model, random_params(q=(4, 6), k=(4, 6), v=(4, 6), o=(6, 2), far=(5, 4)), (jnp.ones((2, 5, 4)),), reference


@pytest.mark.parametrize("name", CASES)
def test_a_model(name: str) -> None:
    check(*CASES[name]())


@pytest.mark.parametrize(
    ("batch", "reason"), [(1, "weighs positions together with an input or noise"), (2, "added to units")]
)
def test_a_bias_of_relative_positions_joins_nothing(batch: int, reason: str) -> None:
    def model(params, x):
        q, k, v = (x @ params[name] for name in "qkv")
        distances = np.abs(np.arange(5)[:, None] - np.arange(5))
        return jax.nn.softmax(q @ k.mT + params["table"][distances]) @ v @ params["o"]

    params = random_params(q=(4, 6), k=(4, 6), v=(4, 6), o=(6, 2), table=(5,))
    graph = fj.graph_from_model(model, params, jnp.ones((batch, 5, 4)), strict=True)
    assert [group.size for group in graph.groups] == [4, 6, 6, 6, 2]
    assert [leaf.reason for leaf in graph.left_out] == [f"{reason}: joins no two units"]
