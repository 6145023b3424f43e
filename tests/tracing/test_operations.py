"""Operations that move, pick, mix and scale: by which one they are written makes no other graph."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from traced import assert_one_graph, random_params, writings

import fiedler_jax as fj

WRITINGS, written_as = writings(2, 5, 4)


@written_as(w=(4, 6), a=(3, 2), b=(2, 2), c=(2, 2))
def parts_at_known_places():
    def out(p, h, *places):
        return sum(part @ p[name] for part, name in zip(places, "abc", strict=True))

    def sliced(p, x):
        h = jnp.tanh(x @ p["w"])
        return out(p, h, h[..., 2:5], h[..., 4:], h[..., :2])

    def dynamic(p, x):
        h = jnp.tanh(x @ p["w"])
        return out(p, h, *(lax.dynamic_slice(h, (0, 0, at), (2, 5, n)) for at, n in ((2, 3), (9, 2), (-9, 2))))

    def picked(p, x):
        h = jnp.tanh(x @ p["w"])
        return out(p, h, h[..., jnp.array([2, 3, 4])], *jnp.split(h, [2, 4], axis=-1)[::-2])

    return [sliced, dynamic, picked]


@written_as(w=(4, 4), a=(4, 2))
def padded_and_cropped():
    def beside(p, x):
        h, none = jnp.tanh(x @ p["w"])[..., 1:3], jnp.zeros((2, 5, 1))
        return jnp.concatenate([none, h[..., :1], none, h[..., 1:]], axis=-1) @ p["a"]

    def between(p, x):
        h = lax.pad(jnp.tanh(x @ p["w"]), 0.0, ((0, 0, 0), (0, 0, 0), (-1, -1, 0)))
        return lax.pad(h, 0.0, ((0, 0, 0), (0, 0, 0), (1, 0, 1))) @ p["a"]

    return [beside, between]


@written_as(w=(4, 6), a=(6, 2), b=(6, 2))
def twice_side_by_side():
    def plain(p, x):
        h = jnp.tanh(x @ p["w"])
        return h @ p["a"] + h @ p["b"]

    def tiled(p, x):
        return jnp.tile(jnp.tanh(x @ p["w"]), (1, 1, 2)) @ jnp.concatenate([p["a"], p["b"]])

    return [plain, tiled]


@written_as(w=(4, 6), a=(6, 2))
def one_by_one():
    def unstacked(p, x):
        rows = jnp.unstack(jnp.tanh(x @ p["w"]), axis=1)
        columns = jnp.unstack(jnp.stack(rows, axis=1), axis=2)
        return jnp.stack(columns[::-1], axis=2) @ p["a"][::-1]

    return [lambda p, x: jnp.tanh(x @ p["w"]) @ p["a"], unstacked]


@written_as(w=(4, 3))
def taps_of_flattened_positions():
    def by_hand(p, x):
        padded = jnp.pad(x, ((0, 0), (2, 2), (0, 0)))
        taps = [padded[:, start : start + 5 : 2] for start in (0, 2, 4)]
        h = jnp.stack(taps, axis=-1)[..., 1:]
        return h.reshape(2, -1) @ jnp.tile(p["w"], (6, 1))

    def patches(p, x):
        h = lax.conv_general_dilated_patches(
            x, (3,), (2,), [(2, 2)], rhs_dilation=(2,), dimension_numbers=("NWC", "WIO", "NWC")
        )
        return h.reshape(2, 3, 4, 3)[..., 1:].reshape(2, -1) @ jnp.tile(p["w"], (6, 1))

    return [by_hand, patches]


@written_as(w=(4, 3), o=(3, 2))
def blurred_positions():
    def blurred(x):
        kernel = jnp.ones((3, 1, x.shape[-1])) / 3
        numbers = ("NWC", "WIO", "NWC")
        return lax.conv_general_dilated(
            x, kernel, (1,), "SAME", dimension_numbers=numbers, feature_group_count=x.shape[-1]
        )

    def shifted(x):
        return sum(jnp.pad(x, ((0, 0), (1, 1), (0, 0)))[:, i : i + 5] for i in range(3)) / 3

    return [
        lambda p, x: shifted(jnp.tanh(shifted(x) @ p["w"])) @ p["o"],
        lambda p, x: blurred(jnp.tanh(blurred(x) @ p["w"])) @ p["o"],
    ]


@written_as(w=(3, 6), o=(6, 2))
def inputs_mixed_by_a_fixed_matrix():
    mix = np.arange(1.0, 13).reshape(4, 3)

    def out(p, h):
        return jnp.tanh(h @ p["w"]) @ p["o"]

    return [
        lambda p, x: out(p, x @ mix),
        lambda p, x: out(p, lax.dot_general(mix, x, (((0,), (2,)), ((), ()))).transpose(1, 2, 0)),
        lambda p, x: out(p, jnp.einsum("btj,bji->bti", x, jnp.stack([mix, mix]))),
    ]


@written_as(w=(4, 6), o=(12, 2))
def experts_of_one_input():
    def out(p, *experts):
        return jnp.concatenate([jnp.tanh(h) for h in experts], axis=-1) @ p["o"]

    def batched(kernels):
        return lambda p, x: out(p, *jnp.einsum("ebti,eio->ebto", jnp.broadcast_to(x, (2, *x.shape)), kernels(p)))

    return [
        lambda p, x: out(p, x @ p["w"], x @ (2 * p["w"])),
        batched(lambda p: jnp.stack([p["w"], 2 * p["w"]])),
        batched(lambda p: p["w"] * jnp.array([1.0, 2.0])[:, None, None]),
        batched(lambda p: jnp.stack([2 * p["w"], p["w"]])[jnp.array([1, 0])]),
    ]


@written_as(w=(4, 4), k=(2, 3), o=(6, 2))
def one_kernel_for_each_group():
    def plain(p, x):
        h = jnp.tanh(x @ p["w"])
        return jnp.concatenate([h[..., :2] @ p["k"], h[..., 2:] @ p["k"]], axis=-1) @ p["o"]

    def batched(p, x):
        h = jnp.tanh(x @ p["w"]).reshape(2, 5, 1, 2, 2)
        kernels = jnp.broadcast_to(p["k"], (1, 2, 2, 3))
        return jnp.einsum("btzgi,zgio->btzgo", h, kernels).reshape(2, 5, 6) @ p["o"]

    return [plain, batched]


@written_as(w=(4, 6), o=(6, 2), g=(6,))
def rows_scaled_by_hand():
    def by_hand(weighted):
        return lambda p, x: weighted(jnp.tanh(x @ p["w"])[..., None] * p["o"], p).sum(axis=-2)

    return [
        lambda p, x: jnp.tanh(x @ p["w"]) @ (p["o"] / 4),
        by_hand(lambda rows, p: rows / 4),
        by_hand(lambda rows, p: rows / jnp.full((6, 1), 4.0)),
        by_hand(lambda rows, p: jnp.where(jnp.arange(6)[:, None] < 9, rows, 0) / 4),
        by_hand(lambda rows, p: jnp.where(jnp.arange(6)[:, None] > 9, 0, rows) / 4),
        by_hand(lambda rows, p: rows * (0 * p["g"][:, None] + 0.25)),
    ]


@written_as(w=(4, 6))
def kernels_in_few_bits():
    return [
        lambda p, x: x @ (jnp.trunc(8 * p["w"]) / 8),
        lambda p, x: x @ ((8 * p["w"]).astype(jnp.int8).astype(jnp.float32) / 8),
    ]


@pytest.mark.parametrize("name", WRITINGS)
def test_one_function_has_one_graph(name: str) -> None:
    assert_one_graph(*WRITINGS[name]())


def sizes(model: Callable[..., Any], *inputs: jax.Array, **shapes: tuple[int, ...]) -> list[int]:
    graph = fj.graph_from_model(model, random_params(**shapes), *inputs, strict=True)
    return [group.size for group in graph.groups]


def test_an_input_that_is_scaled_or_shifted_by_another_keeps_its_features() -> None:
    x = jnp.ones((2, 5, 4))

    def read(combine):
        return lambda p, x, other: combine(x, other) @ p["w"]

    # A mask of groups of features, and one of positions.
    assert sizes(read(lambda x, m: x * jnp.repeat(m, 2, axis=-1)), x, jnp.ones((2, 5, 2)), w=(4, 3)) == [4, 3]
    assert sizes(read(lambda x, m: jnp.repeat(m, 2, axis=-1) * x), x, jnp.ones((2, 5, 2)), w=(4, 3)) == [4, 3]
    assert sizes(read(lambda x, m: x * m), x, jnp.ones((2, 5, 1)), w=(4, 3)) == [4, 3]

    # Features of each position, with a vector that is the same at all.
    def flattened(p, x, other):
        return (x + other).reshape(2, -1) @ p["w"]

    assert sizes(flattened, x, jnp.ones(4), w=(20, 3)) == [20, 3]

    # A number for each example is one unit.
    def offset(p, x, other):
        return jnp.tanh((x @ p["w"])[:, 0] + other)[:, None] @ p["o"]

    assert sizes(offset, x[:, 0], jnp.ones(2), w=(4, 1), o=(1, 3)) == [4, 1, 3]
