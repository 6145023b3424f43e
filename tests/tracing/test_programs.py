"""Models as JAX programs: loops, maps, branches, derivatives of their own, against adjacencies by hand."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from traced import KEY, cases, check, filled, linen, through

CASES, case = cases()


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


@pytest.mark.parametrize("name", CASES)
def test_a_model(name: str) -> None:
    check(*CASES[name]())
