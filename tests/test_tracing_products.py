"""Products without parameters: fixed matrices, gates, attention and outer products, against adjacencies by hand."""

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from adjacency import Adjacency
from traced import KEY, Case, check, flat, linen, taps, through

import fiedler_jax as fj

CASES: dict[str, Callable[[], Case]] = {}


def case(build: Callable[[], Case]) -> Callable[[], Case]:
    CASES[build.__name__] = build
    return build


def random_params(**shapes: tuple[int, ...]) -> dict[str, jax.Array]:
    keys = jax.random.split(KEY, len(shapes))
    return {name: jax.random.normal(key, shape) for key, (name, shape) in zip(keys, shapes.items(), strict=True)}


@case
def a_permutation_between_layers():
    places = np.array([3, 1, 4, 0, 5, 2])

    def fun(x):
        return nn.Dense(3, name="out")(nn.relu(nn.Dense(6)(x)) @ jnp.eye(6)[places])

    def reference(p, a):
        hidden = a.layer(a.units(4), p["Dense_0"]["kernel"])
        a.layer(hidden[np.argsort(places)], p["out"]["kernel"])

    return *linen(fun, jnp.ones((2, 4))), reference


@case
def a_permutation_of_the_input_from_the_left():
    places = np.array([2, 0, 3, 1])

    def fun(x):
        return through(2.0 * jnp.eye(4)[places] @ x.T, lambda x: x.T, nn.Dense(3))

    def reference(p, a):
        a.layer(a.units(4)[places], p["Dense_0"]["kernel"])

    return *linen(fun, jnp.ones((2, 4))), reference


@case
def a_matrix_that_selects_and_fills_up():
    def fun(x):
        chosen = nn.Dense(6)(x) @ jnp.zeros((6, 4)).at[(1, 5, 1), (0, 1, 3)].set(1.0)
        return nn.Dense(3)(chosen)

    def reference(p, a):
        hidden = a.layer(a.units(5), p["Dense_0"]["kernel"])
        a.layer(np.append(hidden, a.units(1))[[1, 5, 6, 1]], p["Dense_1"]["kernel"])

    return *linen(fun, jnp.ones((2, 5))), reference


@case
def a_matrix_that_adds_neighbours_but_one():
    sums = jnp.repeat(jnp.eye(3), 2, axis=0)[:5]

    def fun(x):
        return nn.Dense(3, name="out")(nn.relu(nn.Dense(5)(x)) @ sums)

    def reference(p, a):
        a.layer(a.layer(a.units(4), np.abs(p["Dense_0"]["kernel"]) @ np.asarray(sums)), p["out"]["kernel"])

    return *linen(fun, jnp.ones((2, 4))), reference


@case
def a_matrix_for_each_group():
    places = np.array([[1, 0, 2], [2, 1, 0]])

    def fun(x):
        groups = nn.DenseGeneral((2, 3))(x)
        return nn.Dense(3)(flat(jnp.einsum("bgi,gio->bgo", groups, jax.nn.one_hot(places, 3, axis=1))))

    def reference(p, a):
        groups = a.layer(a.units(4), p["DenseGeneral_0"]["kernel"].reshape(4, 6)).reshape(2, 3)
        a.layer(np.take_along_axis(groups, places, axis=1).ravel(), p["Dense_0"]["kernel"])

    return *linen(fun, jnp.ones((2, 4))), reference


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
def experts_with_a_gate_each_given_out():
    def fun(x):
        experts = jnp.stack([nn.Dense(4)(x), nn.Dense(4)(x), nn.Dense(4)(x)], axis=1)
        return jnp.einsum("be,bed->bd", nn.softmax(nn.Dense(3)(x)), experts)

    def reference(p, a):
        x = a.units(5)
        experts = a.layer(x, p["Dense_0"]["kernel"])
        for name in ("Dense_1", "Dense_2"):
            a.join(x, experts, p[name]["kernel"])
        a.layer(x, p["Dense_3"]["kernel"])

    return *linen(fun, jnp.ones((2, 5))), reference


@case
def an_average_of_members_given_out():
    def fun(x):
        return jnp.stack([nn.Dense(4)(x), nn.Dense(4)(x)]).mean(axis=0)

    def reference(p, a):
        x = a.units(5)
        a.join(x, a.layer(x, p["Dense_0"]["kernel"]), p["Dense_1"]["kernel"])

    return *linen(fun, jnp.ones((2, 5))), reference


@case
def soft_experts_on_a_residual():
    def model(params, x):
        x = x @ params["in"]
        logits = jnp.einsum("btd,des->btes", x, params["slots"])
        slots = jnp.einsum("btd,btes->besd", x, jax.nn.softmax(logits, axis=1))
        slots = jnp.einsum(
            "besf,efd->besd", jax.nn.relu(jnp.einsum("besd,edf->besf", slots, params["up"])), params["down"]
        )
        x = x + jnp.einsum("btes,besd->btd", jax.nn.softmax(logits, axis=(2, 3)), slots)
        return x @ params["out"]

    def reference(p, a):
        x = a.layer(a.units(4), p["in"])
        a.layer(x, p["slots"].reshape(5, 6))
        for up, down in zip(p["up"], p["down"], strict=True):
            a.join(a.layer(x, up), x, down)
        a.layer(x, p["out"])

    params = random_params(**{"in": (4, 5), "slots": (5, 2, 3), "up": (2, 5, 6), "down": (2, 6, 5), "out": (5, 3)})
    return model, params, (jnp.ones((2, 7, 4)),), reference


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


@case
def a_layer_whose_kernel_is_computed():
    def fun(x):
        kernel = nn.Dense(4 * 6)(x).reshape(-1, 4, 6)
        return nn.Dense(2, name="out")(nn.relu(jnp.einsum("bi,bio->bo", nn.Dense(4)(x), kernel)))

    def reference(p, a):
        x = a.units(5)
        out = a.layer(x, np.abs(p["Dense_0"]["kernel"]).reshape(5, 4, 6).sum(axis=1))
        a.layer(x, p["Dense_1"]["kernel"])
        a.layer(out, p["out"]["kernel"])

    return *linen(fun, jnp.ones((2, 5))), reference


def linear_attention(p: Any, a: Adjacency) -> None:
    x = a.units(4)
    a.layer(x, p["Dense_0"]["kernel"])
    a.layer(x, p["Dense_1"]["kernel"])
    a.layer(a.layer(x, p["Dense_2"]["kernel"]), p["out"]["kernel"])


@case
def attention_linear():
    def fun(x):
        q, k, v = nn.elu(nn.Dense(6)(x)) + 1, nn.elu(nn.Dense(6)(x)) + 1, nn.Dense(5)(x)
        mixed = jnp.einsum("btd,bde->bte", q, jnp.einsum("btd,bte->bde", k, v))
        return nn.Dense(3, name="out")(mixed / jnp.einsum("btd,bd->bt", q, k.sum(axis=1))[..., None])

    return *linen(fun, jnp.ones((2, 7, 4))), linear_attention


@case
def attention_linear_and_causal():
    def fun(x):
        q, k, v = nn.Dense(6)(x), nn.Dense(6)(x), nn.Dense(5)(x)
        state = jnp.cumsum(k[..., None] * v[..., None, :], axis=1)
        return nn.Dense(3, name="out")(jnp.einsum("btd,btde->bte", q, state))

    return *linen(fun, jnp.ones((2, 7, 4))), linear_attention


@case
def attention_linear_step_by_step():
    def fun(x):
        q, k, v = (jnp.swapaxes(nn.Dense(size)(x), 0, 1) for size in (6, 6, 5))

        def step(state, now):
            q, k, v = now
            state = 0.9 * state + jnp.einsum("bd,be->bde", k, v)
            return state, jnp.einsum("bd,bde->be", q, state)

        _, out = jax.lax.scan(step, jnp.zeros((2, 6, 5)), (q, k, v))
        return nn.Dense(3, name="out")(out)

    return *linen(fun, jnp.ones((2, 7, 4))), linear_attention


def selective_state_space(p: Any, a: Adjacency) -> None:
    """What is multiplied element by element is one unit: the step's size and the input, B and C."""
    x = a.layer(a.units(4), p["in"])
    a.join(x, x, p["dt"])
    a.join(x, a.layer(x, p["B"]), p["C"])
    a.layer(x, p["out"])


def state_space_params() -> dict[str, jax.Array]:
    return random_params(**{"in": (4, 6), "dt": (6, 6), "B": (6, 3), "C": (6, 3), "A": (6, 3), "out": (6, 2)})


def state_space_inputs(params: Any, x: jax.Array) -> tuple[jax.Array, ...]:
    x = x @ params["in"]
    dt = jax.nn.softplus(x @ params["dt"])
    decay = jnp.exp(-dt[..., None] * jnp.exp(params["A"]))
    return decay, (dt * x)[..., None] * (x @ params["B"])[..., None, :], x @ params["C"]


@case
def a_selective_state_space_step_by_step():
    def model(params, x):
        def step(h, now):
            decay, put, c = now
            h = decay * h + put
            return h, (h * c[:, None]).sum(axis=-1)

        inputs = [jnp.swapaxes(one, 0, 1) for one in state_space_inputs(params, x)]
        _, y = jax.lax.scan(step, jnp.zeros((2, 6, 3)), inputs)
        return y @ params["out"]

    return model, state_space_params(), (jnp.ones((2, 7, 4)),), selective_state_space


@case
def a_selective_state_space_at_once():
    def model(params, x):
        decay, put, c = state_space_inputs(params, x)

        def combine(one, other):
            return one[0] * other[0], one[1] * other[0] + other[1]

        _, h = jax.lax.associative_scan(combine, (decay, put), axis=1)
        return (h * c[:, :, None]).sum(axis=-1) @ params["out"]

    return model, state_space_params(), (jnp.ones((2, 7, 4)),), selective_state_space


@case
def features_by_pairs_read_twice():
    def fun(x):
        pairs = flat(jnp.einsum("bi,bj->bij", nn.Dense(3)(x), nn.Dense(4)(x)))
        return nn.Dense(2)(pairs), nn.Dense(5)(pairs)

    def reference(p, a):
        x, pairs = a.units(5), a.units(12)
        for name, units in (("Dense_0", x), ("Dense_1", x), ("Dense_2", pairs), ("Dense_3", pairs)):
            a.layer(units, p[name]["kernel"])

    return *linen(fun, jnp.ones((2, 5))), reference


@case
def pairs_whose_positions_are_mixed():
    def model(params, x):
        pairs = (x @ params["w"])[..., None] * (x @ params["in"])[..., None, :]
        return jnp.einsum("btrd,ts->bsrd", pairs, params["mix"]).sum(axis=2) @ params["out"]

    def reference(p, a):
        x = a.units(4)
        a.layer(x, p["w"])
        a.layer(a.layer(x, p["in"]), p["out"])

    params = random_params(**{"w": (4, 3), "in": (4, 6), "mix": (7, 5), "out": (6, 2)})
    return model, params, (jnp.ones((2, 7, 4)),), reference


@case
def a_statistic_of_pairs_in_each_head():
    def model(params, x):
        a, b = (x @ params["a"]).reshape(2, 2, 3, 1), (x @ params["b"]).reshape(2, 2, 1, 4)
        return (a * b).sum(axis=(2, 3)) @ params["out"]

    def reference(p, a):
        x = a.units(4)
        a.layer(x, p["a"])
        a.layer(x, p["b"])
        a.layer(a.units(2), p["out"])

    return model, random_params(a=(4, 6), b=(4, 8), out=(2, 3)), (jnp.ones((2, 4)),), reference


@case
def a_statistic_by_a_fixed_matrix():
    def fun(x):
        return nn.Dense(3, name="out")(nn.Dense(1)(x) + nn.Dense(6)(x) @ jnp.ones((6, 1)))

    def reference(p, a):
        x = a.units(5)
        a.layer(a.layer(x, p["Dense_0"]["kernel"]), p["out"]["kernel"])
        a.layer(x, p["Dense_1"]["kernel"])

    return *linen(fun, jnp.ones((2, 5))), reference


@case
def a_statistic_of_pairs():
    def fun(x):
        pairs = nn.Dense(3)(x)[:, :, None] * nn.Dense(4)(x)[:, None]
        return nn.Dense(2)(pairs.sum(axis=(1, 2))[:, None])

    def reference(p, a):
        x = a.units(5)
        a.layer(x, p["Dense_0"]["kernel"])
        a.layer(x, p["Dense_1"]["kernel"])
        a.layer(a.units(1), p["Dense_2"]["kernel"])

    return *linen(fun, jnp.ones((2, 5))), reference


@case
def maxout_with_a_scalar_gate_and_a_mask():
    def fun(x, mask):
        pieces = nn.DenseGeneral((6, 2))(x).max(axis=-1)
        return nn.Dense(3, name="out")(pieces * nn.sigmoid(nn.Dense(1)(x)) * mask[..., None])

    def reference(p, a):
        x = a.units(4)
        pieces = a.layer(x, np.abs(p["DenseGeneral_0"]["kernel"]).reshape(4, 6, 2).sum(axis=-1))
        a.layer(x, p["Dense_0"]["kernel"])
        a.layer(pieces, p["out"]["kernel"])

    return *linen(fun, jnp.ones((2, 7, 4)), jnp.ones((2, 7))), reference


@case
def maxout_attended_to():
    def fun(x):
        pieces = nn.DenseGeneral((6, 2))(x).max(axis=-1)
        return nn.Dense(3)(nn.softmax(jnp.einsum("btc,bsc->bts", x, x)) @ pieces)

    def reference(p, a):
        pieces = a.layer(a.units(4), np.abs(p["DenseGeneral_0"]["kernel"]).reshape(4, 6, 2).sum(axis=-1))
        a.layer(pieces, p["Dense_0"]["kernel"])

    return *linen(fun, jnp.ones((2, 7, 4))), reference


@case
def experts_behind_a_gate_that_end_in_an_energy():
    def model(params, x):
        gates = jax.nn.softmax(x @ params["gates"])
        mixed = jnp.einsum("bte,bted->btd", gates, jnp.einsum("btc,ecd->bted", x, params["experts"]))
        return ((mixed * jax.nn.sigmoid(x @ params["gate"]) + x @ params["beside"]) ** 2).sum()

    def reference(p, a):
        x = a.units(4)
        a.layer(x, p["gates"])
        a.layer(x, p["gate"])
        mixed = a.layer(x, np.abs(p["experts"]).sum(axis=0))
        a.join(x, mixed, p["beside"])

    params = random_params(gates=(4, 3), experts=(3, 4, 5), gate=(4, 1), beside=(4, 5))
    return model, params, (jnp.ones((2, 7, 4)),), reference


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
def attention_linear_with_a_column_of_ones():
    def fun(x):
        q, k, v = nn.Dense(6)(x), nn.Dense(6)(x), nn.Dense(5)(x)
        v = jnp.concatenate([v, jnp.ones((2, 7, 1))], axis=-1)
        mixed = jnp.einsum("btd,bde->bte", q, jnp.einsum("btd,bte->bde", k, v))
        return nn.Dense(3, name="out")(mixed[..., :-1] / mixed[..., -1:])

    return *linen(fun, jnp.ones((2, 7, 4))), linear_attention


@case
def a_state_read_before_it_is_written():
    def fun(x):
        q, k, v = (jnp.swapaxes(nn.Dense(size)(x), 0, 1) for size in (6, 6, 5))

        def step(state, now):
            q, k, v = now
            return state + k[..., None] * v[:, None], jnp.einsum("bd,bde->be", q, state)

        _, out = jax.lax.scan(step, jnp.zeros((2, 6, 5)), (q, k, v))
        return nn.Dense(3, name="out")(out)

    return *linen(fun, jnp.ones((2, 7, 4))), linear_attention


@case
def a_memory_that_is_given():
    def fun(x, memory):
        weights = nn.softmax(jnp.einsum("bd,bnd->bn", nn.Dense(6)(x), memory))
        return nn.Dense(3, name="out")(jnp.einsum("bn,bnd->bd", weights, nn.Dense(5)(memory)))

    def reference(p, a):
        a.layer(a.units(4), p["Dense_0"]["kernel"])
        a.layer(a.layer(a.units(6), p["Dense_1"]["kernel"]), p["out"]["kernel"])

    return *linen(fun, jnp.ones((2, 4)), jnp.ones((2, 7, 6))), reference


@case
def a_scalar_gate_on_an_input():
    def fun(x, z):
        return nn.Dense(3, name="out")(nn.sigmoid(nn.Dense(1)(z)) * x)

    def reference(p, a):
        a.layer(a.units(5), p["Dense_0"]["kernel"])
        a.layer(a.units(4), p["out"]["kernel"])

    return *linen(fun, jnp.ones((2, 4)), jnp.ones((2, 5))), reference


@case
def a_series_of_one_feature_on_a_residual():
    def model(params, x, z):
        return (x + z @ params["z"]) @ params["out"]

    def reference(p, a):
        x = a.units(1)
        a.join(a.units(4), x, p["z"])
        a.layer(x, p["out"])

    return model, random_params(z=(4, 1), out=(1, 3)), (jnp.ones((2, 7, 1)), jnp.ones((2, 7, 4))), reference


@case
def features_of_an_input_mixed_by_a_fixed_matrix():
    def model(params, x):
        y = x @ jnp.arange(1.0, 13.0).reshape(4, 3)
        return y @ params["a"], y @ params["b"]

    def reference(p, a):
        mixed = a.units(3)
        a.layer(mixed, p["a"])
        a.layer(mixed, p["b"])

    return model, random_params(a=(3, 5), b=(3, 2)), (jnp.ones((2, 7, 4)),), reference


@case
def positions_of_an_input_mixed_by_a_fixed_matrix():
    def model(params, x):
        return (jnp.arange(1.0, 26.0).reshape(5, 5) @ x) @ params["a"] + x @ params["b"]

    def reference(p, a):
        x = a.units(4)
        a.join(x, a.layer(x, p["a"]), p["b"])

    return model, random_params(a=(4, 3), b=(4, 3)), (jnp.ones((5, 4)),), reference


@case
def tokens_of_an_input_weighted_by_a_layer():
    def model(params, x, z):
        return jnp.einsum("bv,bvd->bd", jax.nn.softmax(z @ params["w"]), x) @ params["out"]

    def reference(p, a):
        a.layer(a.units(5), p["w"])
        a.layer(a.units(6), p["out"])

    return model, random_params(w=(5, 3), out=(6, 2)), (jnp.ones((2, 3, 6)), jnp.ones((2, 5))), reference


def pairs_of_maxouts(params: Any, x: jax.Array) -> jax.Array:
    k, v = ((x @ params[name]).reshape(2, 7, -1, 2).max(axis=-1) for name in "kv")
    return jnp.einsum("btd,bte->bde", k, v)


@case
def features_by_pairs_of_maxouts():
    def reference(p, a):
        x = a.units(4)
        # The pieces of neither go on through what is made of them.
        a.layer(x, p["k"])
        a.layer(x, p["v"])
        a.layer(a.units(15), p["out"])

    params = random_params(k=(4, 6), v=(4, 10), out=(15, 2))
    return (
        lambda params, x: flat(pairs_of_maxouts(params, x)) @ params["out"],
        params,
        (jnp.ones((2, 7, 4)),),
        reference,
    )


@case
def attention_linear_of_maxouts():
    def model(params, x):
        return jnp.einsum("btd,bde->bte", x @ params["q"], pairs_of_maxouts(params, x)) @ params["out"]

    def reference(p, a):
        x = a.units(4)
        a.layer(x, p["k"])
        a.layer(x, p["q"])
        a.layer(a.layer(x, np.abs(p["v"]).reshape(4, 5, 2).sum(axis=-1)), p["out"])

    return model, random_params(q=(4, 3), k=(4, 6), v=(4, 10), out=(5, 2)), (jnp.ones((2, 7, 4)),), reference


@pytest.mark.parametrize("name", CASES)
def test_a_traced_product(name: str) -> None:
    check(*CASES[name]())


def test_a_fixed_matrix_that_mixes_units_is_named() -> None:
    def fun(x):
        return nn.Dense(3, name="out")(
            nn.Dense(4)(x) @ jnp.array([[1.0, 1, 1, 1], [1, -1, 1, -1], [1, 1, -1, -1], [1, -1, -1, 1]])
        )

    model, variables, inputs = linen(fun, jnp.ones((2, 5)))
    graph = fj.graph_from_model(model, variables, *inputs)
    assert graph.not_understood == ("a product of units with a fixed matrix at units of Dense_0",)
    with pytest.raises(fj.errors.NotUnderstoodError, match="a product of units with a fixed matrix"):
        fj.graph_from_model(model, variables, *inputs, strict=True)


def test_a_fourier_transform_of_units_is_named() -> None:
    def fun(x):
        return nn.Dense(3, name="out")(jnp.fft.fft(nn.Dense(4)(x)).real)

    model, variables, inputs = linen(fun, jnp.ones((2, 5)))
    with pytest.raises(fj.errors.NotUnderstoodError, match="a Fourier transform of units at units of Dense_0"):
        fj.graph_from_model(model, variables, *inputs, strict=True)


def test_an_outer_product_of_too_many_units_is_named() -> None:
    def model(params, x):
        return jnp.einsum("bi,bj->bij", x @ params["a"], x @ params["b"]).sum(axis=1) @ params["out"]

    shapes = {"a": (1, 4097), "b": (1, 4097), "out": (4097, 1)}
    params = {name: jax.ShapeDtypeStruct(shape, jnp.float32) for name, shape in shapes.items()}
    (named,) = fj.graph_from_model(model, params, jnp.ones((1, 1))).not_understood
    assert named.startswith("an outer product of more than 16777216 elements at units of a, b")


def test_mixed_positions_of_pairs_are_counted() -> None:
    model, params, inputs, _ = CASES["pairs_whose_positions_are_mixed"]()
    (left_out,) = fj.graph_from_model(model, params, *inputs).left_out
    assert left_out.reason.startswith("mixes positions and is shared by 18 units")
