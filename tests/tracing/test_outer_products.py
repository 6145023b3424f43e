"""Outer products of units, linear attention and computed kernels, against adjacencies by hand."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from adjacency import Adjacency
from traced import cases, check, flat, linen, random_params

import fiedler_jax as fj

CASES, case = cases()


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
def attention_linear_whose_state_is_gated():
    def fun(x):
        q, k, v, gate = nn.Dense(6)(x), nn.Dense(6)(x), nn.Dense(5)(x), nn.sigmoid(nn.Dense(6)(x))

        def step(state, now):
            q, k, v, gate = now
            state = gate[..., None] * state + k[..., None] * v[..., None, :]
            return state, (q[..., None] * state).sum(axis=-2)

        _, mixed = jax.lax.scan(step, jnp.zeros((2, 6, 5)), jax.tree.map(lambda a: a.swapaxes(0, 1), (q, k, v, gate)))
        return nn.Dense(3, name="out")(mixed.swapaxes(0, 1))

    def reference(p, a):
        x = a.units(4)
        keys = a.layer(x, p["Dense_0"]["kernel"])
        a.join(x, keys, p["Dense_1"]["kernel"])
        a.join(x, keys, p["Dense_3"]["kernel"])
        a.layer(a.layer(x, p["Dense_2"]["kernel"]), p["out"]["kernel"])

    return *linen(fun, jnp.ones((2, 7, 4))), reference


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
def test_a_model(name: str) -> None:
    check(*CASES[name]())


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
