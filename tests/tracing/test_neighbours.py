"""Units of a layer that meet others of it, and gates that are repeated, against adjacencies by hand."""

from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from traced import cases, check, flat, linen, random_params, taps, through

import fiedler_jax as fj

CASES, case = cases()


def beside(x: jax.Array, reach: int) -> list[jax.Array]:
    """Features moved along the last axis by up to so many places to either side."""
    padded = jnp.pad(x, [(0, 0)] * (x.ndim - 1) + [(reach, reach)])
    return [padded[..., i : i + x.shape[-1]] for i in range(2 * reach + 1)]


def plain_after(combine: Callable[[jax.Array], jax.Array]):
    """Two layers, between which units and their neighbours make a statistic only."""

    def reference(p, a):
        a.layer(a.layer(a.units(3), p["Dense_0"]["kernel"]), p["Dense_1"]["kernel"])

    return *linen(lambda x: through(x, nn.Dense(8), combine, nn.Dense(2)), jnp.ones((2, 3))), reference


@case
def channels_normalized_by_those_beside_them():
    def normalized(x):
        return x / (1 + 1e-4 * sum(beside(x**2, 2))) ** 0.75

    def reference(p, a):
        hidden = a.layer(a.units(3), taps(p["Conv_0"]["kernel"]))
        a.layer(hidden, taps(p["Conv_1"]["kernel"]))

    images = jnp.ones((2, 6, 6, 3))
    return *linen(lambda x: through(x, nn.Conv(8, (3, 3)), normalized, nn.Conv(2, (3, 3))), images), reference


@case
def a_moving_average_subtracted():
    return plain_after(lambda x: x - sum(beside(x, 1)) / 3)


@case
def subtracted_from_a_moving_average():
    return plain_after(lambda x: sum(beside(x, 2)) / 5 - x)


@case
def scaled_by_the_largest_neighbour():
    return plain_after(lambda x: x * jnp.maximum(x, jnp.maximum(*beside(x, 1)[::2])))


def gated(gate: Callable[[jax.Array], jax.Array], gates: int):
    """Units with gates, fewer than there are units, that join none of them."""

    def fun(x):
        return nn.Dense(2)(nn.Dense(8)(x) * nn.sigmoid(gate(nn.Dense(gates)(x))))

    def reference(p, a):
        x = a.units(3)
        hidden = a.layer(x, p["Dense_1"]["kernel"])
        a.layer(x, p["Dense_2"]["kernel"])
        a.layer(hidden, p["Dense_0"]["kernel"])

    return *linen(fun, jnp.ones((2, 3))), reference


@case
def a_gate_repeated_over_a_head():
    return gated(lambda g: jnp.repeat(g, 4, axis=-1), gates=2)


@case
def gates_tiled():
    return gated(lambda g: jnp.tile(g, 2), gates=4)


@case
def a_gate_for_each_half_of_rotated_pairs():
    """Rotated pairs are one unit each, at two places, and so are their gates; of the rest each has its own."""

    def fun(x):
        x0, x1, rest = jnp.split(nn.Dense(8, name="values")(x), [2, 4], axis=-1)
        rotated = jnp.concatenate([0.8 * x0 - 0.6 * x1, 0.6 * x0 + 0.8 * x1, rest], axis=-1)
        return nn.Dense(2, name="out")(rotated * nn.Dense(8, name="gates")(x))

    def reference(p, a):
        x, units = a.units(3), a.units(6)
        at = units[[0, 1, 0, 1, 2, 3, 4, 5]]
        a.join(x, at, p["values"]["kernel"])
        a.join(x, at, p["gates"]["kernel"])
        a.join(at, a.units(2), p["out"]["kernel"])

    return *linen(fun, jnp.ones((2, 3))), reference


@case
def a_quaternion_times_another():
    """Its four parts change places in pairs, so they are one unit."""

    def times_i_j_k(x):
        a, b, c, d = jnp.split(x, 4, axis=-1)
        turned = [(a, b, c, d), (-b, a, -d, c), (-c, d, a, -b), (-d, -c, b, a)]
        return sum(w * jnp.concatenate(parts, axis=-1) for w, parts in zip((0.1, 0.2, 0.3, 0.4), turned, strict=True))

    def reference(p, a):
        hidden = a.layer(a.units(3), np.abs(p["Dense_0"]["kernel"]).reshape(3, 4, 2).sum(axis=1))
        a.layer(hidden, np.abs(p["Dense_1"]["kernel"]).reshape(4, 2, 2).sum(axis=0))

    return *linen(lambda x: through(x, nn.Dense(8), times_i_j_k, nn.Dense(2)), jnp.ones((2, 3))), reference


@case
def positions_beside_one_another_are_one_unit():
    def fun(x):
        image = nn.Dense(24)(x).reshape(-1, 6, 4)
        return nn.Conv(2, (3,))(image + jnp.roll(image, 1, axis=1))

    def reference(p, a):
        channels = a.layer(a.units(3), np.abs(p["Dense_0"]["kernel"]).reshape(3, 6, 4).sum(axis=1))
        a.layer(channels, taps(p["Conv_0"]["kernel"]))

    return *linen(fun, jnp.ones((2, 3))), reference


@pytest.mark.parametrize("name", CASES)
def test_a_model(name: str) -> None:
    check(*CASES[name]())


@pytest.mark.parametrize(
    "combine",
    [
        lambda x: x + jnp.roll(x, 1, axis=-1),
        lambda x: x[..., 1:] - x[..., :-1],
        lambda x: sum(beside(x, 2)),
        lambda x: jnp.maximum(x[..., 1:], x[..., :-1]),
        lambda x: x + x[..., jnp.array([1, 2, 3, 4, 5, 0])],
        # The rest of the graph hangs together without these.
        lambda x: jnp.concatenate([x[..., :3] + jnp.roll(x[..., :3], 1, axis=-1), x[..., 3:]], axis=-1),
        lambda x: jnp.concatenate([x, x[..., 1:] * x[..., :-1]], axis=-1),
    ],
)
def test_what_a_kernel_reads_of_neighbours_is_named_and_joins_none_of_them(combine) -> None:
    model, variables, inputs = linen(lambda x: through(x, nn.Dense(6), combine, nn.Dense(2)), jnp.ones((2, 3)))
    graph = fj.graph_from_model(model, variables, *inputs)
    assert graph.not_understood == ("units combined with their neighbours on Dense_1/kernel",)
    assert sum(block.shape[1] for block in graph.blocks if "Dense_0" in block.kernel) == 6
    with pytest.raises(fj.errors.NotUnderstoodError, match="neighbours"):
        fj.graph_from_model(model, variables, *inputs, strict=True)


def test_factors_repeated_and_tiled_are_an_outer_product() -> None:
    def graph(product):
        params = random_params(a=(3, 4), b=(3, 2), out=(8, 2))
        model = lambda params, x: product(x @ params["a"], x @ params["b"]) @ params["out"]  # noqa: E731
        return str(fj.graph_from_model(model, params, jnp.ones((2, 3))))

    along_two_axes = graph(lambda a, b: flat(a[:, :, None] * b[:, None, :]))
    assert graph(lambda a, b: jnp.repeat(a, 2, axis=-1) * jnp.tile(b, 4)) == along_two_axes
