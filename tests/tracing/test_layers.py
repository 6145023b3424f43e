"""Single layers: dense, convolutions, norms, pooling, tables and low precision, against adjacencies by hand."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from traced import KEY, cases, check, filled, flat, linen, random_params, taps, through

CASES, case = cases()


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
def head_summed_by_hand_in_low_precision():
    def model(params, x):
        h = nn.relu(x @ params["w"])
        return (h * params["head"]).astype(jnp.bfloat16).sum(axis=-1)

    def reference(p, a):
        a.layer(a.layer(a.units(4), p["w"]), p["head"][:, None])

    return model, random_params(w=(4, 6), head=(6,)), (jnp.ones((2, 4)),), reference


@case
def names_against_the_order_of_calls():
    def fun(x):
        return nn.Dense(6)(nn.gelu(nn.Dense(6)(x)))

    def reference(p, a):
        a.layer(a.layer(a.units(6), p["Dense_1"]["kernel"]), p["Dense_0"]["kernel"])

    return *linen(fun, jnp.ones((2, 6))), reference


@case
def token_and_position_embedding():
    def fun(tokens):
        x = nn.Embed(7, 4)(tokens) + nn.Embed(3, 4)(jnp.arange(3))
        return nn.Dense(2)(x)

    def reference(p, a):
        a.layer(a.layer(a.units(7), p["Embed_0"]["embedding"]), p["Dense_0"]["kernel"])

    return *linen(fun, jnp.zeros((2, 3), int)), reference


@case
def norms_of_an_input():
    def fun(x):
        return nn.Dense(3)(nn.LayerNorm()(x) + nn.RMSNorm()(x))

    def reference(p, a):
        a.layer(a.units(6), p["Dense_0"]["kernel"])

    return *linen(fun, jnp.ones((2, 6))), reference


@case
def norms_of_networks_side_by_side():
    class Critic(nn.Module):
        @nn.compact
        def __call__(self, x: jax.Array) -> jax.Array:
            return through(x, nn.Dense(4), nn.LayerNorm(), nn.Dense(1))

    def fun(x):
        axes: Any = {"in_axes": None, "axis_size": 2, "variable_axes": {"params": 0}, "split_rngs": {"params": True}}
        return nn.vmap(Critic, **axes)()(x)

    def reference(p, a):
        p, x = p["VmapCritic_0"], a.units(3)
        for i in range(2):
            a.layer(a.layer(x, p["Dense_0"]["kernel"][i]), p["Dense_1"]["kernel"][i])

    return *linen(fun, jnp.ones((2, 3))), reference


@case
def a_norm_over_a_batch_that_is_mapped():
    def model(params, x):
        def one(x):
            h = x @ params["a"]
            return jnp.maximum(h - jax.lax.pmean(h, "batch"), -jax.lax.pmax(h, "batch")) @ params["b"]

        return jax.vmap(one, axis_name="batch")(x)

    def reference(p, a):
        a.layer(a.layer(a.units(4), p["a"]), p["b"])

    return model, random_params(a=(4, 6), b=(6, 2)), (jnp.ones((3, 4)),), reference


@case
def a_unit_times_a_vector():
    def model(params, x):
        h = [jnp.tanh(x @ params["a"][:, j]) for j in range(6)]
        return sum(h[j][:, None] * params["b"][j] for j in range(6))

    def reference(p, a):
        a.layer(a.layer(a.units(4), p["a"]), p["b"])

    return model, random_params(a=(4, 6), b=(6, 2)), (jnp.ones((3, 4)),), reference


@case
def factors_with_a_bias_of_each_item():
    def model(params, users, items):
        scores = (params["users"][users] * params["items"][items]).sum(-1)
        return scores + params["bias"][items]

    def reference(p, a):
        a.join(a.units(9), a.layer(a.units(7), p["users"]), p["items"])

    params = random_params(users=(7, 4), items=(9, 4), bias=(9,))
    return model, params, (jnp.zeros(3, int), jnp.zeros(3, int)), reference


@pytest.mark.parametrize("name", CASES)
def test_a_model(name: str) -> None:
    check(*CASES[name]())
