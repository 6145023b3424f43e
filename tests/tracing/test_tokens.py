"""Learned tokens and slots, against adjacencies by hand."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import pytest
from traced import cases, check, linen, random_params, taps, through

CASES, case = cases()


@case
def learned_tokens():
    def fun(x):
        x = nn.Dense(6)(x)
        weights = nn.softmax(nn.Dense(3)(nn.LayerNorm()(x)), axis=1)
        tokens = nn.LayerNorm()(jnp.einsum("btr,btd->brd", weights, x))
        return nn.Dense(2, name="out")(nn.gelu(nn.Dense(5)(tokens)).mean(axis=1))

    def reference(p, a):
        x = a.layer(a.units(4), p["Dense_0"]["kernel"])
        a.layer(x, p["Dense_1"]["kernel"])
        a.layer(a.layer(x, p["Dense_2"]["kernel"]), p["out"]["kernel"])

    return *linen(fun, jnp.ones((2, 7, 4))), reference


@case
def learned_tokens_on_a_residual():
    def fun(x):
        weights = nn.softmax(nn.Dense(3)(x), axis=1)
        tokens = (weights[..., None] * nn.Dense(6)(x)[:, :, None]).sum(axis=1)
        return nn.Dense(2, name="out")(tokens + nn.Dense(6)(x.mean(axis=1))[:, None])

    def reference(p, a):
        x = a.units(4)
        a.layer(x, p["Dense_0"]["kernel"])
        stream = a.layer(x, p["Dense_1"]["kernel"])
        a.join(x, stream, p["Dense_2"]["kernel"])
        a.layer(stream, p["out"]["kernel"])

    return *linen(fun, jnp.ones((2, 7, 4))), reference


@case
def slots_that_compete():
    def fun(x):
        keys, values = nn.Dense(6)(x), nn.Dense(5)(x)
        share = nn.softmax(nn.Dense(3)(keys), axis=-1) + 1e-8
        share = share / share.sum(axis=1, keepdims=True)
        return nn.Dense(2)(jnp.einsum("bns,bnd->bsd", share, values))

    def reference(p, a):
        x = a.units(4)
        a.layer(a.layer(x, p["Dense_0"]["kernel"]), p["Dense_2"]["kernel"])
        a.layer(a.layer(x, p["Dense_1"]["kernel"]), p["Dense_3"]["kernel"])

    return *linen(fun, jnp.ones((2, 7, 4))), reference


def tokens_of(params: Any, x: jax.Array) -> jax.Array:
    return jnp.einsum("btr,btd->brd", jax.nn.softmax(x @ params["w"], axis=1), x @ params["in"])


@case
def learned_tokens_read_by_a_recurrence():
    def model(params, x):
        def step(h, token):
            h = jnp.tanh(token @ params["i"] + h @ params["h"])
            return h, None

        h, _ = jax.lax.scan(step, jnp.zeros((2, 5)), jnp.swapaxes(tokens_of(params, x), 0, 1))
        return h @ params["out"]

    def reference(p, a):
        x = a.units(4)
        a.layer(x, p["w"])
        h = a.layer(a.layer(x, p["in"]), p["i"])
        a.join(h, h, p["h"])
        a.layer(h, p["out"])

    params = random_params(**{"w": (4, 3), "in": (4, 6), "i": (6, 5), "h": (5, 5), "out": (5, 2)})
    return model, params, (jnp.ones((2, 7, 4)),), reference


@case
def a_class_token_beside_learned_tokens():
    def model(params, x):
        tokens = jnp.concatenate([jnp.zeros((2, 1, 6)), tokens_of(params, x)], axis=1)
        return (tokens + jnp.tanh(tokens @ params["up"]) @ params["down"])[:, 0] @ params["out"]

    def reference(p, a):
        x = a.units(4)
        a.layer(x, p["w"])
        stream = a.layer(x, p["in"])
        a.join(a.layer(stream, p["up"]), stream, p["down"])
        a.layer(stream, p["out"])

    params = random_params(**{"w": (4, 3), "in": (4, 6), "up": (6, 5), "down": (5, 6), "out": (6, 2)})
    return model, params, (jnp.ones((2, 7, 4)),), reference


@case
def one_of_the_learned_tokens():
    def model(params, x):
        return tokens_of(params, x)[:, 0] @ params["out"]

    def reference(p, a):
        x = a.units(4)
        a.layer(x, p["w"])
        a.layer(a.layer(x, p["in"]), p["out"])

    return model, random_params(**{"w": (4, 3), "in": (4, 6), "out": (6, 2)}), (jnp.ones((2, 7, 4)),), reference


@case
def learned_tokens_convolved():
    def fun(x):
        tokens = jnp.einsum("btr,btd->brd", nn.softmax(nn.Dense(3)(x), axis=1), nn.Dense(6)(x))
        return nn.Conv(5, (2,))(tokens)

    def reference(p, a):
        x = a.units(4)
        a.layer(x, p["Dense_0"]["kernel"])
        a.layer(a.layer(x, p["Dense_1"]["kernel"]), taps(p["Conv_0"]["kernel"]))

    return *linen(fun, jnp.ones((2, 7, 4))), reference


@case
def learned_tokens_beside_those_of_a_layer():
    def model(params, x, z):
        return jnp.concatenate([tokens_of(params, x), z @ params["z"]], axis=1) @ params["out"]

    def reference(p, a):
        x = a.units(4)
        a.layer(x, p["w"])
        both = a.layer(x, p["in"])
        a.join(a.units(5), both, p["z"])
        a.layer(both, p["out"])

    params = random_params(**{"w": (4, 3), "in": (4, 6), "z": (5, 6), "out": (6, 2)})
    return model, params, (jnp.ones((2, 7, 4)), jnp.ones((2, 8, 5))), reference


@case
def tokens_of_an_input_weighted_by_a_layer():
    def model(params, x, z):
        return jnp.einsum("bv,bvd->bd", jax.nn.softmax(z @ params["w"]), x) @ params["out"]

    def reference(p, a):
        a.layer(a.units(5), p["w"])
        a.layer(a.units(6), p["out"])

    return model, random_params(w=(5, 3), out=(6, 2)), (jnp.ones((2, 3, 6)), jnp.ones((2, 5))), reference


def read_beside_a_class_token(params: Any, tokens: jax.Array) -> jax.Array:
    first = jnp.broadcast_to(params["cls"], (len(tokens), 1, 8))
    h = jnp.concatenate([first, tokens], axis=1)
    weights = jax.nn.softmax((h @ params["q"]) @ (h @ params["k"]).mT)
    return (h + weights @ (h @ params["v"]) @ params["o"])[:, 0] @ params["head"]


def read_by_attention(p: Any, a: Any, stream: Any) -> None:
    for name in "qk":
        a.layer(stream, p[name])
    a.join(a.layer(stream, p["v"]), stream, p["o"])
    a.layer(stream, p["head"])


ATTENTION = {"cls": (8,), "q": (8, 6), "k": (8, 6), "v": (8, 6), "o": (6, 8), "head": (8, 2)}


@case
def a_class_token_beside_patches_and_words():
    def model(params, patches, words):
        tokens = jnp.concatenate([patches @ params["patch"], params["table"][words]], axis=1)
        return read_beside_a_class_token(params, tokens)

    def reference(p, a):
        stream = a.layer(a.units(5), p["patch"])
        a.join(a.units(9), stream, p["table"])
        read_by_attention(p, a, stream)

    params = random_params(**ATTENTION, patch=(5, 8), table=(9, 8))
    return model, params, (jnp.ones((3, 4, 5)), jnp.zeros((3, 6), int)), reference


@case
def a_class_token_beside_a_token_of_each_feature():
    def model(params, x):
        return read_beside_a_class_token(params, x[..., None] * params["w"] + params["b"])

    def reference(p, a):
        x, stream = a.units(5), a.units(8)
        a.join(x, stream, p["w"])
        read_by_attention(p, a, stream)

    params = random_params(**ATTENTION, w=(5, 8), b=(5, 8))
    return model, params, (jnp.ones((3, 5)),), reference


@case
def learned_tokens_added_to_a_layer_and_normalized():
    class Tokens(nn.Module):
        @nn.compact
        def __call__(self, x: jax.Array) -> jax.Array:
            return x[:, None] + self.param("tokens", nn.initializers.normal(), (3, 4))

    def fun(x):
        h = Tokens()(nn.Dense(4)(x))
        h = h + through(h, nn.LayerNorm(), nn.Dense(8), nn.relu, nn.Dense(4))
        return nn.Dense(2)(h.mean(axis=1))

    def reference(p, a):
        stream = a.layer(a.units(5), p["Dense_0"]["kernel"])
        a.join(a.layer(stream, p["Dense_1"]["kernel"]), stream, p["Dense_2"]["kernel"])
        a.layer(stream, p["Dense_3"]["kernel"])

    return *linen(fun, jnp.ones((2, 5))), reference


@pytest.mark.parametrize("name", CASES)
def test_a_model(name: str) -> None:
    check(*CASES[name]())
