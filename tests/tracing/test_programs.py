"""Models as JAX programs: loops, maps, branches, derivatives of their own, against adjacencies by hand."""

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from jax.sharding import AbstractMesh, AxisType
from jax.sharding import PartitionSpec as P
from traced import KEY, assert_one_graph, cases, check, filled, linen, random_params, through, writings

import fiedler_jax as fj

CASES, case = cases()
WRITINGS, written_as = writings(3, 2, 4)


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


def recurrent(p: Any, x: jax.Array, step: Callable[..., Any], *sequences: jax.Array) -> Any:
    """Hidden units of the last step, and what else a step gives from these."""
    (h, carried), given = lax.scan(
        lambda carry, now: step(jnp.tanh(now[0] @ p["w"] + carry[0] @ p["u"]), carry[1], *now[1:]),
        (jnp.zeros((2, 4)), jnp.zeros_like(p["o"])),
        (x, *sequences),
    )
    return h, carried, given


@written_as(w=(4, 4), u=(4, 4), o=(4, 2))
def a_kernel_out_of_a_loop_over_time():
    def plain(p, x):
        return recurrent(p, x, lambda h, c: ((h, c), None))[0] @ (2 * p["o"])

    def given_out(p, x):
        h, _, kernels = recurrent(p, x, lambda h, c: ((h, c), 2 * p["o"]))
        return h @ kernels[-1]

    def carried(p, x):
        h, kernel, _ = recurrent(p, x, lambda h, c: ((h, 2 * p["o"]), None))
        return h @ kernel

    return [plain, given_out, carried]


@written_as(w=(4, 4), u=(4, 4), o=(4, 2))
def dropout_at_each_step():
    def plain(p, x):
        return recurrent(p, x, lambda h, c: ((h, c), None))[0] @ p["o"]

    def kept(key):
        # So small a rate drops nothing here.
        return jax.random.bernoulli(key, 1 - 1e-6, (2, 4))

    def a_key_for_each(p, x):
        keys = jax.random.split(KEY, 3)
        return recurrent(p, x, lambda h, c, key: ((h * kept(key), c), None), keys)[0] @ p["o"]

    def a_key_given_out(p, x):
        h, _, keys = recurrent(p, x, lambda h, c: ((h, c), KEY))
        return h * kept(keys[0]) @ p["o"]

    return [plain, a_key_for_each, a_key_given_out]


def test_a_kernel_with_noise_of_each_step_is_named() -> None:
    params = random_params(w=(4, 4), u=(4, 4), o=(4, 2))

    def model(p, x):
        def step(h, c, key):
            kernel = p["o"] + jax.random.normal(key, p["o"].shape)
            return (h, c), h @ jnp.concatenate([kernel, kernel], axis=1)

        return recurrent(p, x, step, jax.random.split(KEY, 3))[2]

    graph = fj.graph_from_model(model, params, jnp.ones((3, 2, 4)))
    assert [block.kernel for block in graph.blocks] == ["w", "u"]
    assert graph.not_understood == (
        "a kernel made with an input, noise, a step of a loop, or state that was given without values on o",
    )


@written_as(w=(3, 4, 4), u=(3, 4, 4), o=(4, 2))
def layers_that_give_something_out():
    def plain(p, x):
        h, given = jnp.zeros((2, 4)), jnp.zeros((2, 4))
        for i in range(3):
            h = jnp.tanh(h @ p["w"][i] + x[i] @ p["u"][i])
            given += h
        for i in (2, 1, 0):
            h = jnp.tanh(h @ (2 * p["u"][i].T))
        return (h + given) @ p["o"]

    def step(h, now):
        w, u, x = now
        h = jnp.tanh(h @ w + x @ u)
        return h, (h, 2 * u.T)

    def looped(p, x):
        h, (given, back) = lax.scan(step, jnp.zeros((2, 4)), (p["w"], p["u"], x))
        h, _ = lax.scan(lambda h, u: (jnp.tanh(h @ u), None), h, back, reverse=True)
        return (h + given.sum(axis=0)) @ p["o"]

    def from_the_last(p, x):
        h, (given, back) = lax.scan(step, jnp.zeros((2, 4)), (p["w"][::-1], p["u"][::-1], x[::-1]), reverse=True)
        for u in back:
            h = jnp.tanh(h @ u)
        return (h + given.sum(axis=0)) @ p["o"]

    return [plain, looped, from_the_last]


@written_as(w=(4, 4), g=(3, 4), o=(4, 2))
def layers_of_one_kernel_with_vectors_of_their_own():
    def plain(p, x):
        h = x[0]
        for i in range(3):
            h = jnp.tanh(h @ p["w"] * p["g"][i])
        return h @ p["o"]

    return [
        plain,
        lambda p, x: lax.scan(lambda h, g: (jnp.tanh(h @ p["w"] * g), None), x[0], p["g"])[0] @ p["o"],
    ]


@written_as(w=(4, 4), o=(4, 2))
def a_kernel_through_branches():
    def plain(p, x):
        return jnp.abs(x[0]) @ (2 * p["w"]) @ p["o"]

    def given(p, x):
        positive, kernel = lax.cond(x.sum() > 0, lambda x: (x, p["w"]), lambda x: (-x, p["w"]), x[0])
        return jnp.abs(positive) @ (2 * kernel) @ p["o"]

    def made(p, x):
        positive, kernel = lax.cond(x.sum() > 0, lambda x: (x, 2 * p["w"]), lambda x: (-x, 2 * p["w"]), x[0])
        return jnp.abs(positive) @ kernel @ p["o"]

    return [plain, given, made]


@written_as(w=(4, 4), o=(4, 2))
def a_kernel_carried_as_it_is():
    def step(h, kernel):
        return jnp.tanh(h @ kernel)

    return [
        lambda p, x: lax.fori_loop(0, 3, lambda i, h: step(h, p["w"]), x[0]) @ p["o"],
        lambda p, x: lax.fori_loop(0, 3, lambda i, c: (step(*c), c[1]), (x[0], p["w"]))[0] @ p["o"],
    ]


@written_as(w=(4, 6), o=(6, 2))
def on_each_device_of_a_mesh_of_one():
    mesh = jax.make_mesh((1,), ("device",), devices=jax.devices()[:1], axis_types=(AxisType.Auto,))

    def layers(w, o, x):
        h = x @ w
        return jnp.tanh(h - h.mean()) @ o

    def mapped(function, kernels, features=P()):
        each = jax.shard_map(function, mesh=mesh, in_specs=(*kernels, features), out_specs=P())
        return lambda p, x: each(p["w"], p["o"], x)

    def on_parts_of_the_batch(w, o, x):
        h = x @ w
        out = jnp.tanh(h - lax.pmean(h.mean(), "device")) @ o
        return lax.psum(jnp.where(lax.axis_index("device") == 0, out, 0), "device")

    def on_parts_of_the_layer(w, o, x):
        h = x @ w
        return lax.psum(jnp.tanh(h - lax.pmean(h.mean(), "device")) @ o, "device")

    def with_kernels_gathered(w, o, x):
        w, o = (lax.all_gather(kernel, "device", tiled=True) for kernel in (w, o))
        return lax.psum(layers(w, o, x), "device")

    return [
        lambda p, x: layers(p["w"], p["o"], x),
        mapped(on_parts_of_the_batch, (P(), P()), P("device")),
        mapped(on_parts_of_the_layer, (P(None, "device"), P("device"))),
        mapped(with_kernels_gathered, (P("device"), P("device"))),
    ]


@pytest.mark.parametrize("name", WRITINGS)
def test_one_function_has_one_graph(name: str) -> None:
    assert_one_graph(*WRITINGS[name]())


def test_what_several_devices_do_is_named_with_what_to_do() -> None:
    mesh = AbstractMesh((2,), ("device",), axis_types=(AxisType.Auto,))
    each = jax.shard_map(lambda w, x: x @ w, mesh=mesh, in_specs=(P(), P("device")), out_specs=P("device"))
    params = random_params(w=(4, 6), o=(6, 2))
    with pytest.raises(
        fj.errors.NotUnderstoodError, match="over several devices \\(a mesh of one is understood\\) on w"
    ):
        fj.graph_from_model(lambda p, x: each(p["w"], x) @ p["o"], params, jnp.ones((2, 4)), strict=True)


def test_vectors_that_a_loop_starts_from_or_carries_are_listed() -> None:
    params = random_params(w=(4, 4), u=(4, 4), start=(2, 4), again=(2, 4))

    def model(p, x):
        return lax.scan(lambda h, x: (p["again"], jnp.tanh(x @ p["w"] + h @ p["u"])), p["start"], x)[1]

    graph = fj.graph_from_model(model, params, jnp.ones((3, 2, 4)), strict=True)
    assert {leaf.path: leaf.reason for leaf in graph.left_out} == {
        "start": "is where a loop starts: joins no two units",
        "again": "is carried through a loop: joins no two units",
    }
