"""Inputs that one kernel reads in part and another as a whole: the order of calls does not count."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import pytest
from jax import lax
from traced import assert_one_graph, cases, check, linen, writings

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


@written_as(a=(1, 4), b=(1, 4))
def the_past_and_all():
    def past(p, x):
        return (x[:, :-1, :1] @ p["a"]).sum(1)

    def every(p, x):
        return (x[..., :1] @ p["b"]).sum(1)

    return [lambda p, x: past(p, x) + every(p, x), lambda p, x: every(p, x) + past(p, x)]


@written_as(w=(3, 2))
def a_running_sum_of_an_input():
    return [lambda p, x: jnp.cumsum(x @ p["w"], axis=1), lambda p, x: jnp.cumsum(x, axis=1) @ p["w"]]


@written_as(s=(3, 2), w=(3, 2))
def a_skip_beside_a_running_sum():
    def skip(p, x):
        return x[:, -1] @ p["s"]

    def running(p, x):
        return (jnp.cumsum(x, axis=1) @ p["w"]).mean(1)

    return [lambda p, x: skip(p, x) + running(p, x), lambda p, x: running(p, x) + skip(p, x)]


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
        return (x * mask[..., None]) @ params["w"]

    def reference(p, a):
        a.layer(a.units(3), p["w"])

    return model, {"w": jnp.ones((3, 2))}, (jnp.ones((2, 7, 3)), jnp.ones((2, 7))), reference


@pytest.mark.parametrize("name", CASES)
def test_a_model(name: str) -> None:
    check(*CASES[name]())
