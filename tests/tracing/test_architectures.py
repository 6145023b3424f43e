"""Residuals, gates, encoders and decoders, experts and whole modules, against adjacencies by hand."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from traced import KEY, cases, check, flat, linen, taps, through

CASES, case = cases()


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


@case
def a_scalar_gate_on_an_input():
    def fun(x, z):
        return nn.Dense(3, name="out")(nn.sigmoid(nn.Dense(1)(z)) * x)

    def reference(p, a):
        a.layer(a.units(5), p["Dense_0"]["kernel"])
        a.layer(a.units(4), p["out"]["kernel"])

    return *linen(fun, jnp.ones((2, 4)), jnp.ones((2, 5))), reference


@case
def positions_of_a_layer_that_meet_a_condition_before_a_convolution():
    def fun(z):
        scale, shift = nn.Dense(6)(z)[:, None, None], nn.Dense(6)(z)[:, None, None]
        x = nn.Dense(4 * 4 * 6)(z).reshape(2, 4, 4, 6)
        return nn.Conv(3, (3, 3))(nn.relu(x * (1 + scale) + shift))

    def reference(p, a):
        z = a.units(4)
        channels = a.layer(z, np.abs(p["Dense_2"]["kernel"]).reshape(4, 16, 6).sum(axis=1))
        for name in ("Dense_0", "Dense_1"):
            a.join(z, channels, p[name]["kernel"])
        a.layer(channels, taps(p["Conv_0"]["kernel"]))

    return *linen(fun, jnp.ones((2, 4))), reference


@pytest.mark.parametrize("name", CASES)
def test_a_model(name: str) -> None:
    check(*CASES[name]())
