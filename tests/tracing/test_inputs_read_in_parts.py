"""Inputs that one kernel reads in part and another as a whole: the order of calls does not count."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from traced import assert_one_graph, cases, check, linen, random_params, writings

import fiedler_jax as fj

CASES, case = cases()
WRITINGS, written_as = writings(2, 7, 3)


def recurrence(p: Any, x: jax.Array, h: jax.Array) -> jax.Array:
    h, _ = lax.scan(lambda h, x: (jnp.tanh(x @ p["a"] + h @ p["u"]), None), h, x.swapaxes(0, 1))
    return h


@written_as(s=(3, 2), a=(3, 4), u=(4, 4), o=(4, 2))
def a_skip_from_the_last_step():
    def skip(p, x):
        return x[:, -1] @ p["s"]

    def readout(p, x):
        return recurrence(p, x, jnp.zeros((2, 4))) @ p["o"]

    return [lambda p, x: skip(p, x) + readout(p, x), lambda p, x: readout(p, x) + skip(p, x)]


@written_as(k=(3, 1, 5), o=(5, 2))
def a_convolution_of_one_channel():
    def by_hand(p, x):
        padded = jnp.pad(x[..., :1], ((0, 0), (2, 0), (0, 0)))
        return (padded[:, :7] @ p["k"][0] + padded[:, 1:8] @ p["k"][1] + padded[:, 2:] @ p["k"][2]).sum(1) @ p["o"]

    def convolution(p, x):
        layout = ("NWC", "WIO", "NWC")
        h = lax.conv_general_dilated(x[..., :1], p["k"], (1,), [(2, 0)], dimension_numbers=layout)
        return h.sum(1) @ p["o"]

    return [convolution, by_hand]


@written_as(k=(3, 1, 5), o=(5, 2))
def a_padded_convolution_of_one_channel():
    def by_hand(p, x):
        padded = jnp.pad(x[..., :1], ((0, 0), (1, 1), (0, 0)))
        patches = jnp.stack([padded[:, i : i + 7] for i in range(3)], axis=2)
        return sum(patches[:, :, i] @ p["k"][i] for i in range(3)).sum(1) @ p["o"]  # pyright: ignore[reportAttributeAccessIssue]

    def convolution(p, x):
        layout = ("NWC", "WIO", "NWC")
        h = lax.conv_general_dilated(x[..., :1], p["k"], (1,), "SAME", dimension_numbers=layout)
        return h.sum(1) @ p["o"]

    return [convolution, by_hand]


@written_as(a=(1, 4), b=(1, 4))
def the_past_and_all():
    def past(p, x):
        return (x[:, :-1, :1] @ p["a"]).sum(1)

    def every(p, x):
        return (x[..., :1] @ p["b"]).sum(1)

    return [lambda p, x: past(p, x) + every(p, x), lambda p, x: every(p, x) + past(p, x)]


@written_as(a=(3, 4), u=(4, 4), w=(3, 4))
def a_recurrence_beside_a_running_sum():
    def running(p, x):
        return (jnp.cumsum(x, axis=1) @ p["w"]).mean(1)

    def steps(p, x):
        return recurrence(p, x, jnp.zeros((2, 4)))

    return [lambda p, x: steps(p, x) + running(p, x), lambda p, x: running(p, x) + steps(p, x)]


@written_as(s=(3, 2), w=(3, 2))
def a_skip_beside_attention_without_parameters():
    def skip(p, x):
        return x[:, 0] @ p["s"]

    def attention(p, x):
        return (jax.nn.softmax(x @ x.mT) @ x @ p["w"]).mean(1)

    return [lambda p, x: skip(p, x) + attention(p, x), lambda p, x: attention(p, x) + skip(p, x)]


@pytest.mark.parametrize("name", WRITINGS)
def test_one_function_has_one_graph(name: str) -> None:
    assert_one_graph(*WRITINGS[name]())


@case
def a_recurrence_that_starts_from_its_first_step():
    def fun(x):
        return nn.RNN(nn.SimpleCell(5))(x, initial_carry=nn.Dense(5)(x[:, 0]))

    def reference(p, a):
        x = a.units(3)
        h = a.layer(x, p["Dense_0"]["kernel"])
        a.join(x, h, p["SimpleCell_0"]["i"]["kernel"])
        a.join(h, h, p["SimpleCell_0"]["h"]["kernel"])

    return *linen(fun, jnp.ones((2, 6, 3))), reference


@case
def features_gated_at_each_position_by_another_input():
    def model(params, x, mask):
        return ((x * mask[..., None]) @ params["w"]).mean(1) + (x @ params["s"]).mean(1)

    def reference(p, a):
        x = a.units(3)
        a.join(x, a.layer(x, p["w"]), p["s"])

    return model, random_params(w=(3, 2), s=(3, 2)), (jnp.ones((2, 7, 3)), jnp.ones((2, 7))), reference


@case
def a_residual_around_what_is_scaled_by_another_input():
    def model(params, x, scale):
        return x + jax.nn.relu((scale[:, None] * x) @ params["a"]) @ params["b"]

    def reference(p, a):
        x = a.units(3)
        a.join(a.layer(x, p["a"]), x, p["b"])

    return model, random_params(a=(3, 6), b=(6, 3)), (jnp.ones((2, 3)), jnp.ones(2)), reference


@case
def positions_beside_steps_that_are_one_already():
    def model(params, x):
        def step(h, now):
            return jnp.tanh(now[0] @ params["i"] + now[1] + h @ params["u"]), None

        h, _ = lax.scan(step, jnp.zeros((2, 5)), ((x @ params["d"]).swapaxes(0, 1), params["positions"]))
        return h @ params["o"]

    def reference(p, a):
        h = a.layer(a.layer(a.units(3), p["d"]), p["i"])
        a.join(h, h, p["u"])
        a.layer(h, p["o"])

    params = random_params(d=(3, 4), i=(4, 5), u=(5, 5), positions=(7, 5), o=(5, 2))
    return model, params, (jnp.ones((2, 7, 3)),), reference


@case
def a_carry_gated_along_some_of_its_axes():
    def model(params, x):
        def step(h, x):
            return jax.nn.sigmoid(x @ params["g"])[:, :, None] * h + (x @ params["w"])[:, :, None], None

        h, _ = lax.scan(step, jnp.zeros((2, 5, 4)), x.swapaxes(0, 1))
        return h.mean(-1) @ params["o"]

    def reference(p, a):
        x = a.units(3)
        h = a.layer(x, p["w"])
        a.join(x, h, p["g"])
        a.layer(h, p["o"])

    return model, random_params(w=(3, 5), g=(3, 5), o=(5, 2)), (jnp.ones((2, 6, 3)),), reference


@case
def a_running_sum_of_an_input_whose_last_step_was_read():
    def model(params, x):
        return jnp.tanh(x[:, -1] @ params["a"]) @ params["o"], jnp.cumsum(x, axis=1) @ params["b"]

    def reference(p, a):
        x = a.units(3)
        a.layer(a.layer(x, p["a"]), p["o"])
        a.layer(x, p["b"])

    return model, random_params(a=(3, 4), o=(4, 2), b=(3, 5)), (jnp.ones((2, 7, 3)),), reference


@case
def channels_less_their_median():
    def model(params, x):
        x = x - jnp.median(x, axis=1, keepdims=True)
        return lax.conv_general_dilated(x, params["k"], (1, 1), "SAME")

    def reference(p, a):
        a.layer(a.units(3), np.abs(p["k"]).sum(axis=(2, 3)).T)

    return model, random_params(k=(6, 3, 3, 3)), (jnp.ones((2, 3, 8, 8)),), reference


@case
def a_table_of_positions_beside_one_unit():
    def model(params, x):
        return jnp.tanh((x @ params["w"])[:, None] * params["positions"] + params["shift"]) @ params["o"]

    def reference(p, a):
        a.layer(a.layer(a.units(3), p["w"]), p["o"])

    params = random_params(w=(3, 1), positions=(7, 1), shift=(7, 1), o=(1, 2))
    return model, params, (jnp.ones((4, 3)),), reference


@case
def experts_gated_by_the_largest_scores_written_back():
    def model(params, x):
        h = x @ params["w"]
        values, places = lax.top_k(jax.nn.softmax(h @ params["r"]), 2)
        gates = jnp.zeros((7, 4)).at[jnp.arange(7)[:, None], places].set(values)
        return jnp.einsum("be,bef->bf", gates, jnp.einsum("bd,edf->bef", h, params["e"])) @ params["o"]

    def reference(p, a):
        h = a.layer(a.units(3), p["w"])
        a.layer(h, p["r"])
        out = a.units(5)
        for kernel in p["e"]:
            a.join(h, out, kernel)
        a.layer(out, p["o"])

    return model, random_params(w=(3, 6), r=(6, 4), e=(4, 6, 5), o=(5, 2)), (jnp.ones((7, 3)),), reference


@pytest.mark.parametrize("name", CASES)
def test_a_model(name: str) -> None:
    check(*CASES[name]())


def test_a_kernel_that_mixes_positions_of_an_input_read_in_part_does_not_unite_its_features() -> None:
    params = random_params(a=(2, 3), w=(5, 6))

    def model(p, x):
        return jnp.tanh(x[..., :2] @ p["a"]), jnp.einsum("btf,to->bof", x, p["w"])

    graph = fj.graph_from_model(model, params, jnp.ones((2, 5, 4)), strict=True)
    assert [group.size for group in graph.groups] == [2, 3]
    assert [leaf.reason[:15] for leaf in graph.left_out] == ["mixes positions"]
