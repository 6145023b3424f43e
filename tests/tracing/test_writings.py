"""One function has one graph, however it is written."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from reference import spectrum
from traced import KEY, random_params

import fiedler_jax as fj

Writing = Callable[..., jax.Array]
Group = tuple[dict[str, jax.Array], list[Writing]]

GROUPS: dict[str, Group] = {}

TOKENS = jax.random.normal(KEY, (2, 5, 4))
IMAGES = jax.random.normal(KEY, (2, 4, 4, 3))


def writings(**shapes: tuple[int, ...]) -> Callable[[Callable[[], list[Writing]]], Callable[[], list[Writing]]]:
    """Enters the functions of (params, inputs) that a function gives, with parameters of these shapes."""

    def enter(build: Callable[[], list[Writing]]) -> Callable[[], list[Writing]]:
        GROUPS[build.__name__] = random_params(**shapes), build()
        return build

    return enter


def conv(x: jax.Array, kernel: jax.Array, stride: int = 1, **more: Any) -> jax.Array:
    letters = "WHD"[: kernel.ndim - 2][::-1]
    layout = f"N{letters}C", f"{letters}IO", f"N{letters}C"
    return lax.conv_general_dilated(x, kernel, (stride,) * len(letters), "SAME", dimension_numbers=layout, **more)


def over_time(step: Callable, carry: Any, *sequences: jax.Array) -> jax.Array:
    """What a loop over the second axis gives out at each step."""
    _, out = lax.scan(lambda carry, now: step(carry, *now), carry, tuple(jnp.moveaxis(s, 1, 0) for s in sequences))
    return jnp.moveaxis(out, 0, 1)


@writings(q=(4, 8), k=(4, 8), v=(4, 8), o=(8, 3))
def attention_in_two_heads():
    def heads_beside_features(p, x):
        q, k, v = ((x @ p[name]).reshape(2, 5, 2, 4) for name in "qkv")
        weights = jax.nn.softmax(jnp.einsum("bthd,bshd->bhts", q, k))
        return jnp.einsum("bhts,bshd->bthd", weights, v).reshape(2, 5, 8) @ p["o"]

    def heads_in_front(p, x):
        q, k, v = ((x @ p[name]).reshape(2, 5, 2, 4).transpose(0, 2, 1, 3) for name in "qkv")
        return (jax.nn.softmax(q @ k.mT) @ v).transpose(0, 2, 1, 3).reshape(2, 5, 8) @ p["o"]

    def head_by_head(p, x):
        kernels = [[p[name][:, head : head + 4] for name in "qkv"] for head in (0, 4)]
        return jnp.concatenate([jax.nn.softmax((x @ q) @ (x @ k).mT) @ (x @ v) for q, k, v in kernels], -1) @ p["o"]

    def heads_summed(p, x):
        def head(first):
            q, k, v = (x @ p[name][:, first : first + 4] for name in "qkv")
            return (jax.nn.softmax(q @ k.mT) @ v) @ p["o"][first : first + 4]

        return head(0) + head(4)

    def mapped(p, x):
        def head(q, k, v):
            return jax.nn.softmax(q @ k.T) @ v

        def one(x):
            split = (jnp.moveaxis((x @ p[name]).reshape(5, 2, 4), 1, 0) for name in "qkv")
            return jnp.moveaxis(jax.vmap(head)(*split), 0, 1).reshape(5, 8) @ p["o"]

        return jax.vmap(one)(x)

    def kernels_joined(p, x):
        q, k, v = jnp.split(x @ jnp.concatenate([p[name] for name in "qkv"], axis=1), 3, axis=-1)
        q, k, v = (y.reshape(2, 5, 2, 4) for y in (2 * q, k, v))
        return jax.nn.dot_product_attention(q, k, v).reshape(2, 5, 8) @ p["o"]

    return [heads_beside_features, heads_in_front, head_by_head, heads_summed, mapped, kernels_joined]


@writings(q=(4, 8), k=(4, 4), v=(4, 4), o=(8, 3))
def attention_with_shared_keys():
    def grouped(p, x):
        q = (x @ p["q"]).reshape(2, 5, 2, 2, 2)
        k, v = ((x @ p[name]).reshape(2, 5, 2, 2) for name in "kv")
        weights = jax.nn.softmax(jnp.einsum("btgrd,bsgd->bgrts", q, k))
        return jnp.einsum("bgrts,bsgd->btgrd", weights, v).reshape(2, 5, 8) @ p["o"]

    def repeated(p, x):
        q = (x @ p["q"]).reshape(2, 5, 4, 2)
        k, v = (jnp.repeat((x @ p[name]).reshape(2, 5, 2, 2), 2, axis=2) for name in "kv")
        weights = jax.nn.softmax(jnp.einsum("bthd,bshd->bhts", q, k))
        return jnp.einsum("bhts,bshd->bthd", weights, v).reshape(2, 5, 8) @ p["o"]

    return [grouped, repeated]


@writings(q=(4, 4), k=(4, 4), v=(4, 4), o=(4, 3))
def attention_from_a_cache():
    def plain(p, x):
        return jax.nn.softmax((x @ p["q"]) @ (x @ p["k"]).mT) @ (x @ p["v"]) @ p["o"]

    def cached(write):
        def attention(p, x):
            keys, values = (write(jnp.zeros((2, 8, 4)), x @ p[name]) for name in "kv")
            scores = jnp.where(jnp.arange(8) < 5, (x @ p["q"]) @ keys.mT, -1e9)
            return jax.nn.softmax(scores) @ values @ p["o"]

        return attention

    return [
        plain,
        cached(lambda cache, new: cache.at[:, :5].set(new)),
        cached(lambda cache, new: lax.dynamic_update_slice(cache, new, (0, 0, 0))),
    ]


@writings(a=(4, 8), b=(4, 8), o=(8, 3))
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


@writings(x=(4, 8), dt=(4, 2), B=(4, 3), C=(4, 3), o=(8, 3))
def a_state_space_with_a_step_for_each_head():
    def by_head(p, x):
        def step(state, x, dt, b, c):
            state = jnp.exp(-dt)[..., None, None] * state + (dt[..., None] * x)[..., None] * b[:, None, None]
            return state, jnp.einsum("bhpn,bn->bhp", state, c)

        heads, dt = (x @ p["x"]).reshape(2, 5, 2, 4), jax.nn.softplus(x @ p["dt"])
        out = over_time(step, jnp.zeros((2, 2, 4, 3)), heads, dt, x @ p["B"], x @ p["C"])
        return out.reshape(2, 5, 8) @ p["o"]

    def repeated(p, x):
        def step(state, x, dt, b, c):
            state = jnp.exp(-dt)[..., None] * state + (dt * x)[..., None] * b[:, None]
            return state, jnp.einsum("bpn,bn->bp", state, c)

        dt = jnp.repeat(jax.nn.softplus(x @ p["dt"]), 4, axis=-1)
        return over_time(step, jnp.zeros((2, 8, 3)), x @ p["x"], dt, x @ p["B"], x @ p["C"]) @ p["o"]

    def as_attention(p, x):
        heads, dt = (x @ p["x"]).reshape(2, 5, 2, 4), jax.nn.softplus(x @ p["dt"])
        elapsed = jnp.cumsum(-dt, axis=1)
        decay = jnp.exp(elapsed[:, :, None] - elapsed[:, None]) * jnp.tril(jnp.ones((5, 5)))[None, :, :, None]
        scores = jnp.einsum("btn,bsn->bts", x @ p["C"], x @ p["B"])
        return jnp.einsum("bts,btsh,bsh,bshp->bthp", scores, decay, dt, heads).reshape(2, 5, 8) @ p["o"]

    return [by_head, repeated, as_attention]


@writings(q=(4, 4), k=(4, 4), v=(4, 6), o=(6, 3))
def retention():
    def in_a_loop(p, x):
        def step(state, q, k, v):
            state = 0.9 * state + k[:, :, None] * v[:, None, :]
            return state, jnp.einsum("bk,bkv->bv", q, state)

        return over_time(step, jnp.zeros((2, 4, 6)), *(x @ p[name] for name in "qkv")) @ p["o"]

    def as_attention(p, x):
        age = jnp.arange(5)[:, None] - jnp.arange(5)
        scores = jnp.einsum("btk,bsk->bts", x @ p["q"], x @ p["k"]) * jnp.where(age >= 0, 0.9**age, 0)
        return scores @ (x @ p["v"]) @ p["o"]

    def associative(p, x):
        def op(a, b):
            return a[0] * b[0], b[0] * a[1] + b[1]

        written = (x @ p["k"])[..., None] * (x @ p["v"])[..., None, :]
        _, state = lax.associative_scan(op, (jnp.full((2, 5, 1, 1), 0.9), written), axis=1)
        return jnp.einsum("btk,btkv->btv", x @ p["q"], state) @ p["o"]

    return [in_a_loop, as_attention, associative]


@writings(w=(3, 4, 6), o=(6, 3))
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


@writings(r=(4, 3), w=(3, 4, 6), u=(3, 6, 4), o=(4, 2))
def a_mixture_of_experts():
    def gates(p, x):
        return jax.nn.softmax(x @ p["r"])

    def at_once(p, x):
        hidden = jax.nn.relu(jnp.einsum("btc,ecf->btef", x, p["w"]))
        return jnp.einsum("btef,efc,bte->btc", hidden, p["u"], gates(p, x)) @ p["o"]

    def one_by_one(p, x):
        outputs, weights = [jax.nn.relu(x @ p["w"][e]) @ p["u"][e] for e in range(3)], gates(p, x)
        return sum(weights[..., e : e + 1] * out for e, out in enumerate(outputs)) @ p["o"]

    def mapped(p, x):
        outputs = jax.vmap(lambda w, u: jax.nn.relu(x @ w) @ u)(p["w"], p["u"])
        return jnp.einsum("ebtc,bte->btc", outputs, gates(p, x)) @ p["o"]

    return [at_once, one_by_one, mapped]


@writings(i=(4, 4), w=(3, 4, 4), o=(4, 2))
def residual_layers():
    def layer(x, w):
        return x + jnp.tanh(x @ w)

    return [
        lambda p, x: layer(layer(layer(x @ p["i"], p["w"][0]), p["w"][1]), p["w"][2]) @ p["o"],
        lambda p, x: lax.scan(lambda x, w: (layer(x, w), None), x @ p["i"], p["w"])[0] @ p["o"],
        lambda p, x: lax.scan(jax.checkpoint(lambda x, w: (layer(x, w), None)), x @ p["i"], p["w"])[0] @ p["o"],
    ]


@writings(a=(4, 8), o=(8, 3))
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


@writings(a=(4, 8), o=(8, 3))
def rotary_pairs():
    angle = jnp.arange(5.0)[:, None] * jnp.array([1.0, 0.5, 0.2, 0.1])

    def halves(p, x):
        a, b = jnp.split(x @ p["a"], 2, axis=-1)
        cos, sin = jnp.cos(angle), jnp.sin(angle)
        return jnp.concatenate([a * cos - b * sin, b * cos + a * sin], axis=-1) @ p["o"]

    def turned(p, x):
        h = x @ p["a"]
        a, b = jnp.split(h, 2, axis=-1)
        return (h * jnp.tile(jnp.cos(angle), 2) + jnp.concatenate([-b, a], -1) * jnp.tile(jnp.sin(angle), 2)) @ p["o"]

    def as_complex_numbers(p, x):
        h = x @ p["a"]
        z = lax.complex(h[..., :4], h[..., 4:]) * jnp.exp(1j * angle)
        return jnp.concatenate([z.real, z.imag], axis=-1) @ p["o"]

    return [halves, turned, as_complex_numbers]


@writings(a=(4, 3), b=(7, 3), c=(10, 2))
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


@writings(a=(4, 6), b=(4, 3), o=(6, 2))
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


@writings(w=(3, 4, 2), o=(6, 3))
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


@writings(a=(3, 3, 3, 4), b=(3, 3, 4, 5), c=(3, 3, 9, 2))
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


@writings(w=(4, 6), k=(6, 6), o=(6, 3))
def features_that_become_tokens():
    def attention(tokens, p):
        return (jax.nn.softmax(tokens @ (tokens @ p["k"]).mT) @ tokens).mean(axis=1) @ p["o"]

    def one_by_one(p, x):
        tokens = [x[:, 0, i, None] * p["w"][i] for i in range(4)]
        return attention(jnp.stack(tokens, axis=1), p)

    def mapped(p, x):
        return attention(jax.vmap(lambda x, w: x[:, None] * w, (1, 0), 1)(x[:, 0], p["w"]), p)

    return [
        lambda p, x: attention(jnp.einsum("bf,fd->bfd", x[:, 0], p["w"]), p),
        lambda p, x: attention(x[:, 0, :, None] * p["w"], p),
        one_by_one,
        mapped,
    ]


@writings(a=(2, 4), s=(4, 2), t=(4, 2), b=(2, 4), u=(4, 2))
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


@writings(c=(3, 3, 3, 4), w=(2, 2, 4, 5), o=(5, 3))
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


@writings(m=(8, 5), u=(9, 4), o=(4, 2))
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


@writings(w=(3, 3, 3, 5), o=(80, 3))
def an_image_flattened():
    def as_a_convolution(p, x):
        layout, kernel = ("NHWC", "HWIO", "NHWC"), p["o"].reshape(4, 4, 5, 3)
        return lax.conv_general_dilated(conv(x, p["w"]), kernel, (1, 1), "VALID", dimension_numbers=layout)[:, 0, 0]

    return [
        lambda p, x: conv(x, p["w"]).reshape(2, -1) @ p["o"],
        lambda p, x: jnp.einsum("bhwc,hwco->bo", conv(x, p["w"]), p["o"].reshape(4, 4, 5, 3)),
        as_a_convolution,
    ]


@pytest.mark.parametrize("name", GROUPS)
def test_one_function_has_one_graph(name: str) -> None:
    params, functions = GROUPS[name]
    x = IMAGES if any(leaf.ndim == 4 for leaf in params.values()) else TOKENS
    values, spectra = [], []
    for fun in functions:
        graph = fj.graph_from_model(fun, params, x, strict=True)
        dense = jax.jit(lambda params, graph=graph: fj.laplacian(graph, params, normalized=False).to_dense())
        values.append(np.asarray(jax.jit(fun)(params, x)))
        spectra.append(spectrum(-np.asarray(dense(params), np.float64), normalized=False))
    for fun, value, found in zip(functions, values, spectra, strict=True):
        np.testing.assert_allclose(value, values[0], rtol=1e-3, atol=1e-4, err_msg=fun.__name__)
        np.testing.assert_allclose(found, spectra[0], rtol=0, atol=1e-5 * spectra[0][-1], err_msg=fun.__name__)
