"""Noise, masks, scalars, step numbers and empty batches: what is given to a model besides features."""

from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from traced import KEY, assert_one_graph, random_params, writings

import fiedler_jax as fj
from fiedler_jax import errors

WRITINGS, written_as = writings(2, 5, 4)


@pytest.mark.parametrize("name", WRITINGS)
def test_one_function_has_one_graph(name: str) -> None:
    assert_one_graph(*WRITINGS[name]())


def over_time(step: Callable, carry, *sequences: jax.Array):
    return lax.scan(step, carry, sequences)


@written_as(w=(4, 3), u=(3, 3), o=(3, 2))
def a_first_step_of_its_own():
    def begun(p, x):
        return jnp.tanh(x @ p["w"])

    def gone_on(p, h, x):
        return jnp.tanh(x @ p["w"] + h @ p["u"])

    def by_number(p, x):
        def step(h, now):
            i, x = now
            return lax.cond(i == 0, lambda: begun(p, x), lambda: gone_on(p, h, x)), None

        return over_time(step, jnp.zeros((2, 3)), jnp.arange(5), jnp.swapaxes(x, 0, 1))[0] @ p["o"]

    def by_counter(p, x):
        def step(carry, now):
            h, i = carry
            (x,) = now
            return (lax.cond(i == 0, lambda: begun(p, x), lambda: gone_on(p, h, x)), i + 1), None

        return over_time(step, (jnp.zeros((2, 3)), 0), jnp.swapaxes(x, 0, 1))[0][0] @ p["o"]

    return [by_number, by_counter]


@written_as(q=(4, 6), k=(4, 6), v=(4, 6), o=(6, 3))
def decoding_with_a_cache():
    def decoded(by_number: bool) -> Callable:
        def model(p, x):
            def step(carry, now):
                keys, values, counted = carry
                number, x = now
                at = number if by_number else counted
                keys, values = keys.at[:, at].set(x @ p["k"]), values.at[:, at].set(x @ p["v"])
                scores = jnp.einsum("bd,bsd->bs", x @ p["q"], keys)
                weights = jax.nn.softmax(jnp.where(jnp.arange(5) <= at, scores, -1e9))
                return (keys, values, counted + 1), jnp.einsum("bs,bsd->bd", weights, values)

            empty = jnp.zeros((2, 5, 6))
            return over_time(step, (empty, empty, 0), jnp.arange(5), jnp.swapaxes(x, 0, 1))[1] @ p["o"]

        model.__name__ = "by_number" if by_number else "by_counter"
        return model

    return [decoded(True), decoded(False)]


@written_as(e=(4, 3), d=(3, 3, 1, 3), o=(3, 2))
def a_depthwise_convolution():
    dimensions = ("NHWC", "HWIO", "NHWC")

    def grouped(p, x):
        h = (x[:, :, None] * jnp.ones((5, 1))) @ p["e"]
        kernel = p["d"]
        return (
            lax.conv_general_dilated(h, kernel, (1, 1), "SAME", dimension_numbers=dimensions, feature_group_count=3)
            @ p["o"]
        )

    def channel_by_channel(p, x):
        def one(h, kernel):
            h, kernel = h[..., None], kernel[..., None]
            return lax.conv_general_dilated(h, kernel, (1, 1), "SAME", dimension_numbers=dimensions)[..., 0]

        h = (x[:, :, None] * jnp.ones((5, 1))) @ p["e"]
        return jax.vmap(one, (-1, -1), -1)(h, p["d"]) @ p["o"]

    return [grouped, channel_by_channel]


def test_units_picked_by_the_number_of_a_step_are_named() -> None:
    params = random_params(a=(4, 6), w=(1, 3), u=(3, 3))

    def model(p, x):
        h = jnp.tanh(x @ p["a"])

        def step(c, i):
            return jnp.tanh(h[:, i][:, None] @ p["w"] + c @ p["u"]), None

        return lax.scan(step, jnp.zeros((2, 3)), jnp.arange(6))[0]

    with pytest.raises(errors.NotUnderstoodError, match="dynamic_slice of units by a computed index at units of a"):
        fj.graph_from_model(model, params, jnp.ones((2, 4)), strict=True)


def test_what_is_the_same_at_every_step_is_known() -> None:
    params = random_params(w=(4, 3), u=(3, 3))

    def model(p, x):
        def step(h, now):
            half, x = now
            return jnp.tanh(x @ p["w"] + h @ (half * p["u"])), None

        return lax.scan(step, jnp.zeros((2, 3)), (jnp.full(5, 0.5), x))[0]

    graph = fj.graph_from_model(model, params, jnp.ones((5, 2, 4)), strict=True)
    (block,) = [b for b, at in zip(fj.edge_blocks(graph, params), graph.blocks, strict=True) if at.kernel == "u"]
    expected = 0.5 * np.abs(params["u"])
    np.testing.assert_allclose(block, expected - np.diag(np.diag(expected)), rtol=1e-6)


@pytest.mark.parametrize(
    "kernel",
    [
        lambda w, key: w + 0.1 * jax.random.normal(key, w.shape),
        lambda w, key: w * jax.random.bernoulli(key, 0.5, w.shape),
        lambda w, key: jnp.where(jax.random.bernoulli(key, 0.5, w.shape), w, 0),
        lambda w, key: (0.1 * jax.random.normal(key, w.shape) + w).T.T,
    ],
    ids=["added", "mask", "where", "moved"],
)
def test_a_kernel_with_noise_of_a_key_that_is_given_is_named(kernel: Callable) -> None:
    params = random_params(w=(4, 6), o=(6, 3))

    def model(p, x, key):
        return jnp.tanh(x @ kernel(p["w"], key)) @ p["o"]

    x = jnp.ones((2, 4))
    with pytest.raises(errors.NotUnderstoodError, match=r"a kernel made with an input, noise, .* on w"):
        fj.graph_from_model(model, params, x, KEY, strict=True)
    # A key that is part of the model is a number like any other.
    graph = fj.graph_from_model(lambda p, x: model(p, x, KEY), params, x, strict=True)
    expected = np.abs(kernel(params["w"], KEY))
    np.testing.assert_allclose(fj.edge_blocks(graph, params)[0], expected, rtol=1e-5, atol=1e-6)


def test_noise_in_linen_is_named() -> None:
    class Noisy(nn.Module):
        @nn.compact
        def __call__(self, x: jax.Array) -> jax.Array:
            w = self.param("w", nn.initializers.normal(), (4, 6))
            return nn.Dense(3)(jnp.tanh(x @ (w + 0.1 * jax.random.normal(self.make_rng("noise"), w.shape))))

    model, x = Noisy(), jnp.ones((2, 4))
    variables = model.init({"params": KEY, "noise": KEY}, x)
    graph = fj.graph_from_model(model, variables, x, rngs={"noise": KEY})
    assert [block.kernel for block in graph.blocks] == ["Dense_0/kernel"]
    assert len(graph.not_understood) == 1


def test_kernels_that_inputs_scale_are_named() -> None:
    params, x = random_params(a=(4, 6), w=(6, 3)), jnp.ones((2, 4))

    def model(p, x, scale):
        return jnp.tanh(x @ p["a"]) @ (p["w"] * scale)

    for scale, message in ((jnp.ones((6, 3)), "an input scales entry by entry on w"), (jnp.float32(2), "input, noise")):
        with pytest.raises(errors.NotUnderstoodError, match=message):
            fj.graph_from_model(model, params, x, scale, strict=True)


def test_noise_that_is_drawn_for_features_is_no_kernel() -> None:
    params = random_params(w=(4, 3), s=(3,), m=(1, 3), o=(3, 2))

    def model(p, x, key):
        noise = jax.random.normal(key, (2, 3))
        return (x @ p["w"] + jnp.exp(p["s"]) * noise + p["m"] * noise) @ p["o"]

    graph = fj.graph_from_model(model, params, jnp.ones((2, 4)), KEY, strict=True)
    assert [(group.name, group.size) for group in graph.groups] == [("input", 4), ("w", 3), ("o", 2)]


def test_the_largest_units_are_named_where_they_are_used_and_not_as_a_threshold() -> None:
    params = random_params(e=(4, 8), d=(8, 4))

    def written_back(p, x):
        values, places = lax.top_k(h := x @ p["e"], 2)
        return jnp.zeros_like(h).at[jnp.arange(3)[:, None], places].set(values) @ p["d"]

    def in_order(p, x):
        return jnp.sort(x @ p["e"], axis=-1) @ p["d"]

    def above_a_threshold(p, x):
        h = x @ p["e"]
        return jnp.where(h >= lax.top_k(h, 2)[0][..., -1:], h, 0) @ p["d"]

    for model in (written_back, in_order):
        with pytest.raises(errors.NotUnderstoodError, match="units combined with their neighbours on d"):
            fj.graph_from_model(model, params, jnp.ones((3, 4)), strict=True)
    assert fj.graph_from_model(above_a_threshold, params, jnp.ones((3, 4)), strict=True).num_vertices == 4 + 8 + 4


def test_a_running_sum_of_units_is_named_and_one_of_positions_is_none() -> None:
    params = random_params(a=(4, 6), o=(6, 2))

    def model(p, x, axis):
        return jnp.cumsum(jnp.tanh(x @ p["a"]), axis) @ p["o"]

    graph = fj.graph_from_model(lambda p, x: model(p, x, 1), params, jnp.ones((2, 5, 4)), strict=True)
    assert [(group.name, group.size) for group in graph.groups] == [("input", 4), ("a", 6), ("o", 2)]
    with pytest.raises(errors.NotUnderstoodError, match="cumsum over units at units of a"):
        fj.graph_from_model(lambda p, x: model(p, x, 2), params, jnp.ones((2, 5, 4)), strict=True)


@pytest.mark.parametrize("accumulate", [jnp.cumsum, lambda x, axis: lax.cummax(x, axis)], ids=["cumsum", "cummax"])
def test_what_runs_over_the_positions_of_an_input_has_its_features(accumulate: Callable) -> None:
    params = random_params(a=(4, 6), b=(4, 6), o=(6, 2))

    def model(p, x, axis):
        return jnp.tanh(accumulate(x, axis) @ p["a"]) @ p["o"], accumulate(x[:, ::-1], axis) @ p["b"]

    for axis, rows in ((1, [4]), (2, [4, 4])):
        graph = fj.graph_from_model(lambda p, x, axis=axis: model(p, x, axis), params, jnp.ones((2, 5, 4)), strict=True)
        assert sorted(group.size for group in graph.groups) == sorted([*rows, 6, 6, 2])


def test_a_batch_of_none_will_do() -> None:
    params = random_params(w=(4, 6), u=(6, 6), o=(6, 3))

    def model(p, x):
        h = lax.scan(lambda h, x: (jnp.tanh(x @ p["w"] + h @ p["u"]), None), jnp.zeros((len(x), 6)), x.swapaxes(0, 1))[
            0
        ]
        return h @ p["o"]

    graphs = [fj.graph_from_model(model, params, jnp.ones((n, 5, 4)), strict=True) for n in (0, 2)]
    assert [graph.num_edges for graph in graphs] == [4 * 6 + 6 * 6 + 6 * 3] * 2


def test_what_joins_no_units_is_listed_with_its_reason() -> None:
    params = random_params(a=(4, 6), o=(6, 2), token=(1, 1, 6)) | {"w": jnp.ones((2, 2), jnp.complex64)}

    def model(p, x):
        tokens = jnp.concatenate([jnp.broadcast_to(p["token"], (len(x), 1, 6)), x @ p["a"]], axis=1)
        return tokens @ p["o"] + jnp.abs(p["w"]).sum()

    graph = fj.graph_from_model(model, params, jnp.ones((2, 3, 4)), strict=True)
    assert {leaf.path: leaf.reason for leaf in graph.left_out} == {
        "token": "stands beside units: joins no two units",
        "w": "complex, and edge weights are real: give its parts as two leaves",
    }


def test_single_numbers_that_are_added_are_one_unit() -> None:
    params = random_params(a=(4,), b=(4,), o=(1, 3))

    def model(p, x):
        return jnp.tanh(x @ p["a"] + x @ p["b"])[None] @ p["o"]

    graph = fj.graph_from_model(model, params, jnp.ones(4), strict=True)
    assert [group.size for group in graph.groups] == [4, 1, 3]


def test_an_input_that_units_are_added_to_is_units() -> None:
    params = random_params(a=(4, 6), o=(6, 2))

    def model(p, x, y):
        return jnp.cumsum(y + x @ p["a"]) @ p["o"]

    with pytest.raises(errors.NotUnderstoodError, match="cumsum over units"):
        fj.graph_from_model(model, params, jnp.ones(4), jnp.ones(6), strict=True)
