"""Recurrent networks and state spaces, against adjacencies by hand."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from adjacency import Adjacency
from traced import KEY, cases, check, filled, linen, random_params, through

import fiedler_jax as fj

CASES, case = cases()


def gates(p: Any, names: str, side: str) -> np.ndarray:
    return np.sum([np.abs(p[side + name]["kernel"]) for name in names], axis=0)


@case
def lstm():
    def fun(x):
        return through(x, nn.RNN(nn.LSTMCell(3)), lambda x: x[:, -1], nn.Dense(2))

    def reference(p, a):
        x, hidden = a.units(5), a.units(3)
        a.join(x, hidden, gates(p["LSTMCell_0"], "ifgo", "i"))
        a.join(hidden, hidden, gates(p["LSTMCell_0"], "ifgo", "h"))
        a.layer(hidden, p["Dense_0"]["kernel"])

    return *linen(fun, jnp.ones((2, 4, 5))), reference


@case
def optimized_lstm_twice():
    def fun(x):
        return through(x, nn.RNN(nn.OptimizedLSTMCell(3)), nn.RNN(nn.OptimizedLSTMCell(4)))

    def reference(p, a):
        below = a.units(5)
        for i, size in enumerate((3, 4)):
            hidden, own = a.units(size), p[f"OptimizedLSTMCell_{i}"]
            a.join(below, hidden, gates(own, "ifgo", "i"))
            a.join(hidden, hidden, gates(own, "ifgo", "h"))
            below = hidden

    return *linen(fun, jnp.ones((2, 4, 5))), reference


@case
def gru_with_lengths():
    class Model(nn.Module):
        @nn.compact
        def __call__(self, x: jax.Array, lengths: jax.Array) -> jax.Array:
            carry, _ = nn.RNN(nn.GRUCell(3), return_carry=True)(x, seq_lengths=lengths)
            return nn.Dense(2)(carry)

    def reference(p, a):
        x, hidden = a.units(5), a.units(3)
        a.join(x, hidden, gates(p["GRUCell_0"], "rzn", "i"))
        a.join(hidden, hidden, gates(p["GRUCell_0"], "rzn", "h"))
        a.layer(hidden, p["Dense_0"]["kernel"])

    inputs = jnp.ones((2, 4, 5)), jnp.array([3, 4])
    return Model(), filled(Model(), *inputs), inputs, reference


@case
def running_mean_under_a_mask():
    def model(params, x, mask):
        def step(mean, row):
            mean = 0.9 * mean + 0.1 * row @ params["in"]
            return mean, mean

        _, x = jax.lax.scan(step, jnp.zeros(6), x)
        return (x * mask[:, None]) @ params["out"]

    def reference(p, a):
        a.layer(a.layer(a.units(5), p["in"]), p["out"])

    params = {"in": jax.random.normal(KEY, (5, 6)), "out": jax.random.normal(KEY, (6, 3))}
    return model, params, (jnp.ones((4, 5)), jnp.ones(4)), reference


@case
def bidirectional():
    def fun(x):
        return nn.Dense(2)(nn.Bidirectional(nn.RNN(nn.SimpleCell(3)), nn.RNN(nn.SimpleCell(4)))(x))

    def reference(p, a):
        x = a.units(5)
        hidden = []
        for i, size in enumerate((3, 4)):
            hidden.append(a.units(size))
            a.join(x, hidden[i], p[f"SimpleCell_{i}"]["i"]["kernel"])
            a.join(hidden[i], hidden[i], p[f"SimpleCell_{i}"]["h"]["kernel"])
        a.layer(np.concatenate(hidden), p["Dense_0"]["kernel"])

    return *linen(fun, jnp.ones((2, 4, 5))), reference


@case
def a_sum_carried_through_time():
    def model(params, xs):
        def step(h, x):
            h = jnp.tanh(jnp.stack([x @ params["w"], h @ params["u"]]).sum(axis=0))
            return h, None

        h, _ = jax.lax.scan(step, jnp.zeros((2, 4)), xs)
        return h @ params["out"]

    def reference(p, a):
        h = a.layer(a.units(5), p["w"])
        a.join(h, h, p["u"])
        a.layer(h, p["out"])

    keys = jax.random.split(KEY, 3)
    shapes = {"w": (5, 4), "u": (4, 4), "out": (4, 3)}
    params = {name: jax.random.normal(key, shape) for key, (name, shape) in zip(keys, shapes.items(), strict=True)}
    return model, params, (jnp.ones((7, 2, 5)),), reference


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
def a_memory_that_is_given():
    def fun(x, memory):
        weights = nn.softmax(jnp.einsum("bd,bnd->bn", nn.Dense(6)(x), memory))
        return nn.Dense(3, name="out")(jnp.einsum("bn,bnd->bd", weights, nn.Dense(5)(memory)))

    def reference(p, a):
        a.layer(a.units(4), p["Dense_0"]["kernel"])
        a.layer(a.layer(a.units(6), p["Dense_1"]["kernel"]), p["out"]["kernel"])

    return *linen(fun, jnp.ones((2, 4)), jnp.ones((2, 7, 6))), reference


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
def recurrence_with_learned_positions():
    def model(params, x):
        def step(h, now):
            x, position = now
            h = jnp.tanh((x @ params["i"]) + position + h @ params["h"])
            return h, h * position

        h, out = jax.lax.scan(step, jnp.zeros((2, 5)), (jnp.swapaxes(x, 0, 1), params["positions"]))
        return (h + out.sum(axis=0)) @ params["out"]

    def reference(p, a):
        h = a.layer(a.units(4), p["i"])
        a.join(h, h, p["h"])
        a.layer(h, p["out"])

    params = random_params(i=(4, 5), h=(5, 5), positions=(7, 5), out=(5, 2))
    return model, params, (jnp.ones((2, 7, 4)),), reference


@case
def a_recurrence_over_symbols():
    def fun(symbols):
        return nn.RNN(nn.GRUCell(4))(jax.nn.one_hot(symbols, 5))

    def reference(p, a):
        symbols, hidden = a.units(5), a.units(4)
        a.join(symbols, hidden, gates(p["GRUCell_0"], "rzn", "i"))
        a.join(hidden, hidden, gates(p["GRUCell_0"], "rzn", "h"))

    return *linen(fun, jnp.zeros((2, 6), int)), reference


@pytest.mark.parametrize("name", CASES)
def test_a_model(name: str) -> None:
    check(*CASES[name]())


def test_a_kernel_of_each_step_of_time_is_named() -> None:
    def model(params, x):
        def step(h, now):
            x, readout = now
            h = jnp.tanh(x @ params["i"] + h @ params["h"])
            return h, h @ readout

        _, out = jax.lax.scan(step, jnp.zeros((2, 5)), (jnp.swapaxes(x, 0, 1), params["readout"]))
        return out

    params, x = random_params(i=(4, 5), h=(5, 5), readout=(7, 5)), jnp.ones((2, 7, 4))
    assert len(fj.graph_from_model(model, params, x).blocks) == 2
    with pytest.raises(fj.errors.NotUnderstoodError, match="a step of a loop"):
        fj.graph_from_model(model, params, x, strict=True)
