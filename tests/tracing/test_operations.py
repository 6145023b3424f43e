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


def conv(h: jax.Array, kernel: jax.Array, **settings: Any) -> jax.Array:
    settings = {"padding": "SAME", "window_strides": (1,), "dimension_numbers": ("NWC", "WIO", "NWC")} | settings
    return lax.conv_general_dilated(h, kernel, **settings)


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
        return conv(x, jnp.ones((3, 1, x.shape[-1])) / 3, feature_group_count=x.shape[-1])

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


@written_as(w=(4, 6), g=(4, 6), o=(6, 3))
def rows_gated_by_hand():
    def by_hand(gated):
        def model(p, x):
            rows, gate = jnp.tanh(x @ p["w"])[..., None] * p["o"], jax.nn.sigmoid(x @ p["g"])[..., None]
            return gated(rows, gate).sum(axis=-2)

        return model

    return [
        lambda p, x: (jnp.tanh(x @ p["w"]) * jax.nn.sigmoid(x @ p["g"])) @ p["o"],
        by_hand(lambda rows, gate: rows * gate),
        by_hand(lambda rows, gate: gate * rows),
        by_hand(lambda rows, gate: rows / (1 / gate)),
    ]


@written_as(w=(4, 6))
def kernels_in_few_bits():
    return [
        lambda p, x: x @ (jnp.trunc(8 * p["w"]) / 8),
        lambda p, x: x @ ((8 * p["w"]).astype(jnp.int8).astype(jnp.float32) / 8),
    ]


@written_as(q=(4, 8), k=(4, 4), v=(4, 8), t=(2, 2), o=(8, 3))
def scores_of_one_key_that_heads_exchange():
    def attend(p, x, scores):
        weights = jax.nn.softmax(scores @ p["t"], axis=2)
        return jnp.einsum("btsh,bshd->bthd", weights, (x @ p["v"]).reshape(2, 5, 2, 4)).reshape(2, 5, 8) @ p["o"]

    def shared(p, x):
        return attend(p, x, jnp.einsum("bthd,bsd->btsh", (x @ p["q"]).reshape(2, 5, 2, 4), x @ p["k"]))

    def repeated(p, x):
        keys = jnp.repeat((x @ p["k"])[:, :, None], 2, axis=2)
        return attend(p, x, jnp.einsum("bthd,bshd->btsh", (x @ p["q"]).reshape(2, 5, 2, 4), keys))

    return [shared, repeated]


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


X = jnp.ones((2, 5, 4))


def window(extents: tuple[int, ...], strides: tuple[int, ...], **settings: Any) -> Callable[[jax.Array], jax.Array]:
    return lambda h: lax.reduce_window(h, -jnp.inf, lax.max, extents, strides, "VALID", **settings)


# For each operation: the sizes of the groups if it is applied to an input, and to units if these are told apart.
APPLIED: dict[str, tuple[Callable[[jax.Array], jax.Array], list[int], list[int] | None]] = {
    "running sums of positions": (lambda h: jnp.cumsum(h, axis=1), [4], [4]),
    "running sums": (lambda h: jnp.cumsum(h, axis=2), [4], None),
    "sorted positions": (lambda h: jnp.sort(h, axis=1), [4], [4]),
    "sorted": (lambda h: jnp.sort(h, axis=2), [4], None),
    "largest": (lambda h: lax.top_k(h, 3)[0], [3], None),
    "positions transformed": (lambda h: jnp.fft.fft(h, axis=1).real, [4], [4]),
    "transformed": (lambda h: jnp.fft.fft(h, axis=2).real, [4], None),
    "windows of positions": (window((1, 2, 1), (1, 1, 1)), [4], [4]),
    "dilated windows of positions": (window((1, 2, 1), (1, 2, 1), window_dilation=(1, 2, 1)), [4], [4]),
    "windows": (window((1, 1, 2), (1, 1, 2)), [2], [2]),
    "padded windows": (lambda h: lax.reduce_window(h, -jnp.inf, lax.max, (1, 1, 3), (1, 1, 3), "SAME"), [2], [2]),
    "windows that overlap": (window((1, 1, 2), (1, 1, 1)), [1], None),
    "dilated windows": (window((1, 1, 2), (1, 1, 2), window_dilation=(1, 1, 2)), [1], None),
    "windows between": (window((1, 1, 2), (1, 1, 2), base_dilation=(1, 1, 2)), [1], None),
    "neighbours added": (lambda h: h + jnp.roll(h, 1, axis=2), [1], None),
    "a fixed kernel": (lambda h: conv(h, jnp.ones((1, 4, 2))), [2], None),
    "positions between": (
        lambda h: conv(h, jnp.ones((3, 1, 4)), padding=[(1, 1)], lhs_dilation=(2,), feature_group_count=4),
        [4],
        [4],
    ),
}


@pytest.mark.parametrize("name", APPLIED)
def test_inputs_and_units_that_are_mixed(name: str) -> None:
    apply, of_input, of_units = APPLIED[name]
    width = jax.eval_shape(apply, X).shape[-1]

    def model(p, x):
        return apply(x) @ p["o"]

    def on_units(p, x):
        return model(p, jnp.tanh(x @ p["w"]))

    assert sizes(model, X, o=(width, 3)) == [*of_input, 3]
    if of_units is None:
        with pytest.raises(fj.errors.NotUnderstoodError):
            sizes(on_units, X, w=(4, 4), o=(width, 3))
    else:
        assert sizes(on_units, X, w=(4, 4), o=(width, 3)) == [4, *of_units, 3]


NOT_UNDERSTOOD: dict[str, tuple[Callable[..., Any], dict[str, tuple[int, ...]], str]] = {
    "a blur of positions that are units": (
        lambda p, h: conv((h.reshape(2, 20) @ p["u"]).reshape(2, 5, 2), jnp.ones((3, 1, 2)), feature_group_count=2),
        {"u": (20, 10)},
        "a convolution of units with a fixed kernel at units of u",
    ),
    "a kernel of activations": (
        lambda p, h: conv(h, h.transpose(0, 2, 1)[:, :, :4]),
        {},
        "a convolution with a kernel made of activations at units of w",
    ),
    "an image of parameters": (
        lambda p, h: conv(p["u"], h.transpose(1, 2, 0)[:3]),
        {"u": (1, 5, 4)},
        "of what depends on no input on u at units of w",
    ),
    "an image of numbers": (
        lambda p, h: conv(jnp.ones((1, 5, 4)), h.transpose(1, 2, 0)[:3]),
        {},
        "of what depends on no input at units of w",
    ),
    "groups of the batch": (
        lambda p, h: conv(h, p["u"], batch_group_count=2),
        {"u": (3, 4, 2)},
        "a convolution over groups of the batch, .* on u at units of w",
    ),
    "an entry of a table": (
        lambda p, h: h * p["u"][h[:, 0, 0].astype(int), 0, :4][:, None],
        {"u": (7, 2, 5)},
        "index on u",
    ),
    "a layer of a stack": (
        lambda p, h: h @ lax.dynamic_index_in_dim(p["u"], jnp.argmax(h), keepdims=False),
        {"u": (7, 4, 3)},
        "parameters picked by a computed index on u",
    ),
}


@pytest.mark.parametrize("name", NOT_UNDERSTOOD)
def test_what_is_not_understood_is_named(name: str) -> None:
    apply, shapes, message = NOT_UNDERSTOOD[name]
    params = random_params(w=(4, 4), **shapes)
    with pytest.raises(fj.errors.NotUnderstoodError, match=message):
        fj.graph_from_model(lambda p, x: apply(p, jnp.tanh(x @ p["w"])), params, X, strict=True)


REASONS: dict[str, tuple[Callable[..., Any], tuple[int, ...]]] = {
    "is a number for each index": (lambda h, u, i: h + u[i][:, None, None], (7,)),
    "picked by a computed index": (lambda h, u, i: h + lax.dynamic_index_in_dim(u, i[0], keepdims=False), (7, 3)),
    "enters scatter": (lambda h, u, i: h.at[:, i[0]].set(u), (3,)),
    "enters dynamic_update_slice": (lambda h, u, i: lax.dynamic_update_slice(h, u, (0, i[0], 0)), (2, 1, 3)),
    "enters gt": (lambda h, u, i: h * (h > u), (3,)),
    "enters max with units": (lambda h, u, i: jnp.maximum(h, u), (3,)),
    "scales units": (lambda h, u, i: h * u, (3,)),
    "makes queries that are repeated over a batch": (
        lambda h, u, i: jnp.einsum("bqt,btd->bqd", jax.nn.softmax(jnp.broadcast_to(u, (2, *u.shape)) @ h.mT), h),
        (4, 3),
    ),
}


@pytest.mark.parametrize("reason", REASONS)
def test_a_leaf_is_left_out_with_the_reason(reason: str) -> None:
    apply, shape = REASONS[reason]
    params = random_params(w=(4, 3), u=shape)
    places = jnp.zeros(2, int)
    graph = fj.graph_from_model(lambda p, x, i: apply(x @ p["w"], p["u"], i), params, X, places, strict=True)
    assert [(leaf.path, leaf.reason) for leaf in graph.left_out] == [("u", f"{reason}: joins no two units")]


def test_branches_that_a_vector_weighs_are_one_layer() -> None:
    def model(p, x):
        return jnp.einsum("btkf,k->btf", jnp.einsum("bti,kif->btkf", x, p["w"]), p["u"]) @ p["o"]

    params = random_params(w=(2, 4, 3), u=(2,), o=(3, 2))
    graph = fj.graph_from_model(model, params, X, strict=True)
    assert [group.size for group in graph.groups] == [4, 3, 2]
    assert [leaf.reason for leaf in graph.left_out] == ["weighs branches of units: joins no two units"]


def test_attention_to_the_steps_of_a_loop_with_a_learned_start_is_understood() -> None:
    def model(p, x):
        def step(h, x):
            h = jnp.tanh(x @ p["w"] + h @ p["u"])
            return h, h

        h = lax.scan(step, jnp.broadcast_to(p["start"], (2, 4)), x.swapaxes(0, 1))[1].swapaxes(0, 1)
        return jax.nn.softmax(x @ x.mT) @ (jax.nn.softmax((h @ p["q"]) @ (h @ p["k"]).mT) @ h) @ p["o"]

    shapes = {name: (4, 4) for name in "wuqk"}
    assert sizes(model, X, **shapes, start=(4,), o=(4, 3)) == [4, 4, 4, 4, 3]


@pytest.mark.parametrize(("padding", "after"), [("SAME", [4, 6, 3]), ("VALID", [4, 6, 24, 3])])
def test_units_are_known_after_a_kernel_that_mixes_them_if_all_are_still_there(padding: str, after: list[int]) -> None:
    def model(p, x):
        h = jnp.tanh(x @ p["w"])[..., None]
        h = conv(h, p["k"], window_strides=(1, 1), padding=padding, dimension_numbers=("NHWC", "HWIO", "NHWC"))
        return h.reshape(2, -1) @ p["o"]

    params = random_params(w=(4, 6), k=(3, 3, 1, 2), o=(60 if padding == "SAME" else 24, 3))
    graph = fj.graph_from_model(model, params, X, strict=True)
    assert [group.size for group in graph.groups] == after
    assert [leaf.reason[:15] for leaf in graph.left_out] == ["mixes positions"]
