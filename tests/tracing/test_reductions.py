"""Reductions of units that stay statistics, against adjacencies by hand."""

from typing import Any

import flax.linen as nn
import jax.numpy as jnp
import pytest
from adjacency import Adjacency
from traced import cases, check, flat, linen, random_params, through

CASES, case = cases()


def two_layers_that_are_one(p: Any, a: Adjacency) -> None:
    """Two kernels from the input to the same units, and a layer on these."""
    x = a.units(5)
    both = a.layer(x, p["Dense_0"]["kernel"])
    a.join(x, both, p["Dense_1"]["kernel"])
    a.layer(both, p["Dense_2"]["kernel"])


@case
def a_stacked_sum_is_normalized_by_groups():
    def fun(x):
        both = jnp.stack([nn.Dense(6)(x), nn.Dense(6)(x)]).sum(axis=0)
        return through(both, nn.GroupNorm(2), nn.Dense(3))

    return *linen(fun, jnp.ones((2, 5))), two_layers_that_are_one


@case
def a_stacked_sum_after_the_largest_of_its_groups():
    def fun(x):
        groups = jnp.stack([nn.Dense(6)(x), nn.Dense(6)(x)]).sum(axis=0).reshape(-1, 2, 3)
        return nn.Dense(3)(flat(groups.max(axis=-1)[..., None] * groups))

    return *linen(fun, jnp.ones((2, 5))), two_layers_that_are_one


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


@pytest.mark.parametrize("name", CASES)
def test_a_model(name: str) -> None:
    check(*CASES[name]())
