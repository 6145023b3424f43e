"""Layers, images and messages in several writings: one function has one graph."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from traced import assert_one_graph, writings

TOKENS, of_tokens = writings(2, 5, 4)
IMAGES, of_images = writings(2, 4, 4, 3)


def conv(x: jax.Array, kernel: jax.Array, stride: int = 1) -> jax.Array:
    axes = "W" if kernel.ndim == 3 else "HW"
    layout = f"N{axes}C", f"{axes}IO", f"N{axes}C"
    return lax.conv_general_dilated(x, kernel, (stride,) * len(axes), "SAME", dimension_numbers=layout)


@of_tokens(a=(4, 8), b=(4, 8), o=(8, 3))
def gated_linear_units():
    def interleaved(p, x):
        both = (x @ jnp.stack([p["a"], p["b"]], axis=-1).reshape(4, 16)).reshape(2, 5, 8, 2)
        return (jax.nn.silu(both[..., 0]) * both[..., 1]) @ p["o"]

    def in_one_kernel(p, x):
        a, b = jnp.split(x @ jnp.concatenate([p["a"], p["b"]], axis=1), 2, axis=-1)
        return (jax.nn.silu(a) * b) @ p["o"]

    return [
        lambda p, x: (jax.nn.silu(x @ p["a"]) * (x @ p["b"])) @ p["o"],
        lambda p, x: jnp.einsum("btd,btd,do->bto", jax.nn.silu(x @ p["a"]), x @ p["b"], p["o"]),
        interleaved,
        in_one_kernel,
    ]


@of_tokens(a=(4, 8), g=(4, 8), o=(8, 3))
def channels_gated_by_a_mean():
    def parts(p, x):
        return x @ p["a"], jax.nn.sigmoid(x.mean(axis=1) @ p["g"])

    def gated_kernel(p, x):
        h, gate = parts(p, x)
        return jnp.einsum("btc,bco->bto", h, jnp.einsum("bc,co->bco", gate, p["o"]))

    def mapped(p, x):
        return jax.vmap(lambda h, gate: h @ (gate[:, None] * p["o"]))(*parts(p, x))

    def gated_units(p, x):
        h, gate = parts(p, x)
        return (h * gate[:, None]) @ p["o"]

    def summed(p, x):
        h, gate = parts(p, x)
        return (h[..., None] * gate[:, None, :, None] * p["o"]).sum(axis=-2)

    return [
        gated_units,
        lambda p, x: jnp.einsum("btc,bc,co->bto", *parts(p, x), p["o"]),
        gated_kernel,
        mapped,
        summed,
    ]


@of_tokens(a=(4, 8), o=(8, 3), head=(3,))
def products_by_hand():
    def summed(p, x):
        h = jnp.tanh((x[..., None] * p["a"]).sum(axis=-2))
        return (jnp.tanh((h[..., None] * p["o"]).sum(axis=-2)) * p["head"]).sum(axis=-1)

    return [lambda p, x: jnp.tanh(jnp.tanh(x @ p["a"]) @ p["o"]) @ p["head"], summed]


@of_tokens(a=(4, 8), o=(8, 3))
def products_by_hand_to_a_scale():
    def product(p, x):
        return jnp.tanh(x @ (p["a"] / 2)) @ (-3 * p["o"])

    def summed(p, x):
        h = jnp.tanh((x[..., None] * p["a"] / 2).sum(axis=-2))
        return (3 * -(h[..., None] * p["o"])).sum(axis=-2)

    return [product, summed]


@of_tokens(a=(4, 8), o=(8, 3))
def products_by_hand_with_a_mask():
    mask = np.arange(32).reshape(4, 8) % 3 > 0

    def masked(h, kernel, mask):
        return (h[..., None] * kernel * mask).sum(axis=-2)

    def of_the_sum(h, kernel, mask):
        return (h[..., None] * kernel).sum(axis=-2, where=mask)

    def chosen(h, kernel, mask):
        return jnp.where(mask, h[..., None] * kernel, 0).sum(axis=-2)

    def left_out(h, kernel, mask):
        return -jnp.where(~jnp.asarray(mask), 0.0, -(kernel.T * h[..., None, :]).mT).sum(axis=-2)

    def einsum(h, kernel, mask):
        return jnp.einsum("...i,io,io->...o", h, kernel, jnp.where(mask, 1.0, 0.0))

    def product(h, kernel, mask):
        return h @ (kernel * mask)

    def model(layer):
        return lambda p, x: jnp.tanh(layer(jnp.tanh(layer(x, p["a"], mask)), p["o"], mask.reshape(8, 4)[:, :3]))

    return list(map(model, [product, masked, of_the_sum, chosen, left_out, einsum]))


@of_tokens(a=(4, 8), o=(8, 3))
def positions_that_are_masked():
    def model(layer):
        return lambda p, x: layer(jnp.tanh(layer(x, p["a"], x[..., 0] > 0)), p["o"], jnp.arange(5) < 4)

    def after(h, kernel, here):
        return (h @ kernel) * here[..., None]

    def between(h, kernel, here):
        return jnp.where(here[..., None, None], h[..., None] * kernel, 0).sum(axis=-2)

    def scaled(h, kernel, here):
        return (h[..., None] * kernel * here[..., None, None]).sum(axis=-2)

    return list(map(model, [after, between, scaled]))


@of_tokens(a=(4, 8), b=(8, 8), weights=(2,), o=(8, 3))
def layers_that_are_weighed():
    def weighed_by(mix):
        def model(p, x):
            first = jnp.tanh(x @ p["a"])
            return mix(jnp.stack([first, jnp.tanh(first @ p["b"])]), p["weights"]) @ p["o"]

        return model

    return [
        weighed_by(lambda layers, weights: layers[0] * weights[0] + layers[1] * weights[1]),
        weighed_by(lambda layers, weights: jnp.tensordot(weights, layers, 1)),
        weighed_by(lambda layers, weights: (layers * weights[:, None, None, None]).sum(axis=0)),
    ]


@of_tokens(a=(4, 8), weights=(5,), o=(8, 3))
def positions_that_are_weighed():
    def weighed_by(mix):
        return lambda p, x: mix(jnp.tanh(x @ p["a"]), p["weights"]) @ p["o"]

    return [
        weighed_by(lambda h, weights: jnp.einsum("btc,t->bc", h, weights)),
        weighed_by(lambda h, weights: (h * weights[:, None]).sum(axis=1)),
        weighed_by(lambda h, weights: sum(h[:, i] * weights[i] for i in range(5))),
    ]


@of_tokens(a=(4, 1), weights=(5,))
def positions_of_one_unit_that_are_weighed():
    def unit(p, x):
        return jnp.tanh(x @ p["a"])[..., 0]

    return [lambda p, x: unit(p, x) @ p["weights"], lambda p, x: (unit(p, x) * p["weights"]).sum(axis=1)]


@of_tokens(w=(4, 6), q=(6, 6), o=(6, 3))
def features_that_are_tokens_and_summed():
    def with_sum(sum_of):
        def model(p, x):
            tokens = x[:, 0, :, None] * p["w"]
            attended = jax.nn.softmax((tokens @ p["q"]) @ tokens.mT) @ tokens
            return (attended.mean(axis=1) + sum_of(p, x, tokens)) @ p["o"]

        return model

    return [with_sum(lambda p, x, tokens: tokens.sum(axis=1)), with_sum(lambda p, x, tokens: x[:, 0] @ p["w"])]


@of_tokens(w=(3, 4, 6), o=(6, 3))
def a_convolution():
    def windows(x):
        padded = jnp.pad(x, ((0, 0), (1, 1), (0, 0)))
        return [padded[:, i : i + 5] for i in range(3)]

    def gathered(p, x):
        places = jnp.arange(5)[:, None] + jnp.arange(3)
        return jnp.einsum("btkc,kco->bto", jnp.pad(x, ((0, 0), (1, 1), (0, 0)))[:, places], p["w"]) @ p["o"]

    return [
        lambda p, x: conv(x, p["w"]) @ p["o"],
        lambda p, x: sum(part @ p["w"][i] for i, part in enumerate(windows(x))) @ p["o"],
        lambda p, x: jnp.concatenate(windows(x), axis=-1) @ p["w"].reshape(12, 6) @ p["o"],
        gathered,
    ]


@of_tokens(i=(4, 4), w=(3, 4, 4), o=(4, 2))
def residual_layers():
    def layer(x, w):
        return x + jnp.tanh(x @ w)

    return [
        lambda p, x: layer(layer(layer(x @ p["i"], p["w"][0]), p["w"][1]), p["w"][2]) @ p["o"],
        lambda p, x: lax.scan(lambda x, w: (layer(x, w), None), x @ p["i"], p["w"])[0] @ p["o"],
        lambda p, x: lax.scan(jax.checkpoint(lambda x, w: (layer(x, w), None)), x @ p["i"], p["w"])[0] @ p["o"],
    ]


@of_tokens(a=(4, 8), o=(8, 3))
def normalized_in_groups():
    def normal(x):
        return (x - x.mean(axis=-1, keepdims=True)) / (x.std(axis=-1, keepdims=True) + 1e-5)

    def repeated(p, x):
        h = x @ p["a"]
        groups = h.reshape(2, 5, 2, 4)
        mean, deviation = (jnp.repeat(s, 4, axis=-1) for s in (groups.mean(axis=-1), groups.std(axis=-1)))
        return (h - mean) / (deviation + 1e-5) @ p["o"]

    return [
        lambda p, x: normal((x @ p["a"]).reshape(2, 5, 2, 4)).reshape(2, 5, 8) @ p["o"],
        lambda p, x: jnp.concatenate([normal(half) for half in jnp.split(x @ p["a"], 2, axis=-1)], -1) @ p["o"],
        repeated,
    ]


@of_tokens(a=(4, 3), b=(7, 3), c=(10, 2))
def layers_that_see_all_before():
    def grown(p, x):
        h = jnp.concatenate([x, jnp.tanh(x @ p["a"])], axis=-1)
        return jnp.concatenate([h, jnp.tanh(h @ p["b"])], axis=-1) @ p["c"]

    def in_parts(p, x):
        u = jnp.tanh(x @ p["a"])
        v = jnp.tanh(x @ p["b"][:4] + u @ p["b"][4:])
        return x @ p["c"][:4] + u @ p["c"][4:7] + v @ p["c"][7:]

    def written(write):
        def fun(p, x):
            h = write(jnp.zeros((2, 5, 10)), slice(0, 4), x)
            h = write(h, slice(4, 7), jnp.tanh(h[..., :4] @ p["a"]))
            return write(h, slice(7, 10), jnp.tanh(h[..., :7] @ p["b"])) @ p["c"]

        return fun

    return [
        grown,
        in_parts,
        written(lambda h, at, new: h.at[..., at].set(new)),
        written(lambda h, at, new: h.at[..., at].add(new)),
    ]


@of_tokens(a=(4, 6), b=(4, 3), o=(6, 2))
def every_other_unit_changed():
    def stacked(p, x):
        h = x @ p["a"]
        return jnp.stack([h[..., ::2] + x @ p["b"], h[..., 1::2]], axis=-1).reshape(2, 5, 6) @ p["o"]

    def one_by_one(p, x):
        h, change = x @ p["a"], x @ p["b"]
        for i in range(3):
            h = h.at[..., 2 * i].add(change[..., i])
        return h @ p["o"]

    def set_anew(p, x):
        h = x @ p["a"]
        return h.at[..., jnp.array([0, 2, 4])].set(h[..., ::2] + x @ p["b"]) @ p["o"]

    return [stacked, one_by_one, set_anew, lambda p, x: (x @ p["a"]).at[..., ::2].add(x @ p["b"]) @ p["o"]]


@of_tokens(w=(3, 4, 2), o=(6, 3))
def heads_beside_one_another():
    def written(p, x):
        heads = jnp.zeros((2, 5, 3, 2))
        for i in range(3):
            heads = heads.at[:, :, i].set(x @ p["w"][i])
        return heads.reshape(2, 5, 6) @ p["o"]

    return [
        lambda p, x: jnp.stack([x @ p["w"][i] for i in range(3)], axis=2).reshape(2, 5, 6) @ p["o"],
        lambda p, x: jnp.einsum("btc,hcd->bthd", x, p["w"]).reshape(2, 5, 6) @ p["o"],
        written,
    ]


@of_tokens(a=(2, 4), s=(4, 2), t=(4, 2), b=(2, 4), u=(4, 2))
def a_flow_of_coupled_halves():
    def split(p, x):
        first, second = jnp.split(x, 2, axis=-1)
        hidden = jnp.tanh(first @ p["a"])
        second = second * jnp.exp(hidden @ p["s"]) + hidden @ p["t"]
        return jnp.concatenate([first + jnp.tanh(second @ p["b"]) @ p["u"], second], axis=-1)

    def written(p, x):
        hidden = jnp.tanh(x[..., :2] @ p["a"])
        x = x.at[..., 2:].set(x[..., 2:] * jnp.exp(hidden @ p["s"]) + hidden @ p["t"])
        return x.at[..., :2].add(jnp.tanh(x[..., 2:] @ p["b"]) @ p["u"])

    def masked(p, x):
        first, none = jnp.array([1.0, 1.0, 0.0, 0.0]), jnp.zeros((2, 4))
        hidden = jnp.tanh((first * x) @ jnp.concatenate([p["a"], none]))
        scale, shift = (hidden @ jnp.concatenate([none.T, p[name]], axis=1) for name in "st")
        x = first * x + (1 - first) * (x * jnp.exp(scale) + shift)
        hidden = jnp.tanh(((1 - first) * x) @ jnp.concatenate([none, p["b"]]))
        return x + hidden @ jnp.concatenate([p["u"], none.T], axis=1)

    return [split, written, masked]


@of_tokens(m=(8, 5), u=(9, 4), o=(4, 2))
def messages_between_nodes():
    senders, receivers = jnp.array([0, 1, 2, 3, 4, 0]), jnp.array([1, 2, 3, 4, 0, 3])

    def gathered(p, x):
        edges = jax.nn.relu(jnp.concatenate([x[:, senders], x[:, receivers]], axis=-1) @ p["m"])
        received = jnp.zeros((2, 5, 5)).at[:, receivers].add(edges)
        return (x + jnp.concatenate([x, received], axis=-1) @ p["u"]) @ p["o"]

    def by_incidence(p, x):
        send, receive = jax.nn.one_hot(senders, 5), jax.nn.one_hot(receivers, 5)
        edges = jax.nn.relu((send @ x) @ p["m"][:4] + (receive @ x) @ p["m"][4:])
        return (x + x @ p["u"][:4] + receive.T @ edges @ p["u"][4:]) @ p["o"]

    def mapped(p, x):
        def one(x):
            edges = jax.nn.relu(jnp.concatenate([x[senders], x[receivers]], axis=-1) @ p["m"])
            return (x + jnp.concatenate([x, jax.ops.segment_sum(edges, receivers, 5)], -1) @ p["u"]) @ p["o"]

        return jax.vmap(one)(x)

    return [gathered, by_incidence, mapped]


@of_tokens(a=(4, 4), c=(6, 4), width=(6,), o=(6, 2))
def distances_to_learned_centres():
    def basis(of):
        return lambda p, x: jnp.exp(-of(jnp.tanh(x @ p["a"]), p["c"]) * jnp.exp(p["width"])) @ p["o"]

    def expanded(x, c):
        return (x**2).sum(-1, keepdims=True) - 2 * x @ c.T + (c**2).sum(-1)

    def squares(x, c):
        return ((x[..., None, :] - c) ** 2).sum(axis=-1)

    def of_each_centre(x, c):
        return jnp.square(c.T[..., None, None] - jnp.moveaxis(x, -1, 0)[:, None]).sum(axis=0).transpose(1, 2, 0)

    def norms(x, c):
        return jnp.linalg.norm(x[..., None, :] - c, axis=-1) ** 2

    return [basis(expanded), basis(squares), basis(of_each_centre), basis(norms)]


@of_images(a=(3, 3, 3, 4), b=(3, 3, 4, 5), c=(3, 3, 9, 2))
def a_skip_beside_what_was_scaled_up():
    def below(p, x):
        skip = jax.nn.relu(conv(x, p["a"]))
        return skip, jax.nn.relu(conv(skip, p["b"], stride=2))

    def up(x):
        return jnp.repeat(jnp.repeat(x, 2, axis=1), 2, axis=2)

    def concatenated(p, x):
        skip, deep = below(p, x)
        return conv(jnp.concatenate([skip, up(deep)], axis=-1), p["c"])

    def added(p, x):
        skip, deep = below(p, x)
        return conv(skip, p["c"][:, :, :4]) + conv(up(deep), p["c"][:, :, 4:])

    def resized(p, x):
        skip, deep = below(p, x)
        return conv(jnp.concatenate([skip, jax.image.resize(deep, (2, 4, 4, 5), "nearest")], axis=-1), p["c"])

    return [concatenated, added, resized]


@of_images(c=(3, 3, 3, 4), w=(2, 2, 4, 5), o=(5, 3))
def patches_of_channels():
    def cut(x):
        return x.reshape(2, 2, 2, 2, 2, 4).transpose(0, 1, 3, 2, 4, 5).reshape(2, 2, 2, 16)

    def of_every_other_pixel(p, x):
        x = conv(x, p["c"])
        corners = [(i, j) for i in range(2) for j in range(2)]
        patches = jnp.concatenate([x[:, i::2, j::2] for i, j in corners], axis=-1)
        return patches @ jnp.concatenate([p["w"][corner] for corner in corners]) @ p["o"]

    return [
        lambda p, x: conv(conv(x, p["c"]), p["w"], stride=2) @ p["o"],
        lambda p, x: cut(conv(x, p["c"])) @ p["w"].reshape(16, 5) @ p["o"],
        lambda p, x: jnp.einsum("bhpwqc,pqcd->bhwd", conv(x, p["c"]).reshape(2, 2, 2, 2, 2, 4), p["w"]) @ p["o"],
        of_every_other_pixel,
    ]


@of_images(w=(3, 3, 3, 5), o=(80, 3))
def an_image_flattened():
    def as_a_convolution(p, x):
        layout, kernel = ("NHWC", "HWIO", "NHWC"), p["o"].reshape(4, 4, 5, 3)
        return lax.conv_general_dilated(conv(x, p["w"]), kernel, (1, 1), "VALID", dimension_numbers=layout)[:, 0, 0]

    return [
        lambda p, x: conv(x, p["w"]).reshape(2, -1) @ p["o"],
        lambda p, x: jnp.einsum("bhwc,hwco->bo", conv(x, p["w"]), p["o"].reshape(4, 4, 5, 3)),
        as_a_convolution,
    ]


WRITINGS = TOKENS | IMAGES


@pytest.mark.parametrize("name", WRITINGS)
def test_one_function_has_one_graph(name: str) -> None:
    assert_one_graph(*WRITINGS[name]())
