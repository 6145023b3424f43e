"""Attention and loops over time in several writings: one function has one graph."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import pytest
from jax import lax
from traced import assert_one_graph, writings

WRITINGS, written_as = writings(2, 5, 4)


def over_time(step: Callable, carry: Any, *sequences: jax.Array) -> jax.Array:
    """What a loop over the second axis gives out at each step."""
    _, out = lax.scan(lambda carry, now: step(carry, *now), carry, tuple(jnp.moveaxis(s, 1, 0) for s in sequences))
    return jnp.moveaxis(out, 0, 1)


@written_as(q=(4, 8), k=(4, 8), v=(4, 8), o=(8, 3))
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

    def heads_in_the_batch(p, x):
        q, k, v = (jnp.concatenate(jnp.split(x @ p[name], 2, axis=-1)) for name in "qkv")
        return jnp.concatenate(jnp.split(jax.nn.softmax(q @ k.mT) @ v, 2), axis=-1) @ p["o"]

    def heads_merged_with_the_batch(p, x):
        q, k, v = ((x @ p[name]).swapaxes(0, 1).reshape(5, 4, 4).swapaxes(0, 1) for name in "qkv")
        return (jax.nn.softmax(q @ k.mT) @ v).swapaxes(0, 1).reshape(5, 2, 8).swapaxes(0, 1) @ p["o"]

    def heads_of_outputs(p, x):
        q, k, v = ((x @ p[name]).reshape(2, 5, 2, 4) for name in "qkv")
        weights = jax.nn.softmax(jnp.einsum("bthd,bshd->bhts", q, k))
        return jnp.einsum("bhts,bshd,hdo->bto", weights, v, p["o"].reshape(2, 4, 3))

    in_the_batch = [heads_in_the_batch, heads_merged_with_the_batch]
    apart = [head_by_head, heads_summed, mapped, kernels_joined, heads_of_outputs]
    return [heads_beside_features, heads_in_front, *in_the_batch, *apart]


@written_as(w=(4, 8), a=(2, 4), b=(2, 4))
def attention_by_added_scores():
    def scored_by(score):
        def attend(p, x):
            h = (x @ p["w"]).reshape(2, 5, 2, 4)
            scores = score(h, p["a"])[:, :, None] + score(h, p["b"])[:, None]
            return jnp.einsum("bqkh,bkhd->bqhd", jax.nn.softmax(jax.nn.leaky_relu(scores), axis=2), h)

        return attend

    return [
        scored_by(lambda h, kernel: jnp.einsum("bthd,hd->bth", h, kernel)),
        scored_by(lambda h, kernel: (h * kernel).sum(axis=-1)),
        scored_by(lambda h, kernel: jnp.stack([h[:, :, i] @ kernel[i] for i in range(2)], axis=-1)),
    ]


@written_as(q=(4, 8), k=(4, 4), v=(4, 4), o=(8, 3))
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


@written_as(q=(4, 4), k=(4, 4), v=(4, 4), o=(4, 3))
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


@written_as(x=(4, 8), dt=(4, 2), B=(4, 3), C=(4, 3), o=(8, 3))
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


@written_as(q=(4, 4), k=(4, 4), v=(4, 6), o=(6, 3))
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


@written_as(a=(4, 8), o=(8, 3))
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


@written_as(w=(4, 6), k=(6, 6), o=(6, 3))
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


@written_as(q=(4, 8), k=(4, 8), v=(4, 8), o=(8, 3))
def attention_block_by_block():
    def at_once(p, x):
        q, k, v = (x @ p[name] for name in "qkv")
        return (jax.nn.softmax(q @ k.mT) @ v) @ p["o"]

    def by_blocks(p, x):
        q, k, v = (x @ p[name] for name in "qkv")

        def step(carry, block):
            most, total, out = carry
            scores = q @ block[0].mT
            now = jnp.maximum(most, scores.max(-1, keepdims=True))
            faded, weights = jnp.exp(most - now), jnp.exp(scores - now)
            total = total * faded + weights.sum(-1, keepdims=True)
            return (now, total, out * faded + weights @ block[1]), None

        blocks = [one.reshape(2, 5, 1, 8).swapaxes(0, 1) for one in (k, v)]
        start = jnp.full((2, 5, 1), -1e30), jnp.zeros((2, 5, 1)), jnp.zeros((2, 5, 8))
        (_, total, out), _ = lax.scan(step, start, tuple(blocks))
        return (out / total) @ p["o"]

    return [at_once, by_blocks]


@written_as(e=(4, 3), k=(3, 3, 5), o=(5, 2))
def a_causal_convolution():
    def at_once(p, x):
        layout = ("NWC", "WIO", "NWC")
        return lax.conv_general_dilated(x @ p["e"], p["k"], (1,), [(2, 0)], dimension_numbers=layout) @ p["o"]

    def from_a_buffer(p, x):
        def step(buffer, x):
            buffer = jnp.concatenate([buffer[:, 1:], x[:, None]], axis=1)
            return buffer, jnp.einsum("bkc,kco->bo", buffer, p["k"])

        return over_time(step, jnp.zeros((2, 3, 3)), x @ p["e"]) @ p["o"]

    return [at_once, from_a_buffer]


@written_as(queries=(3, 6), k=(4, 6), v=(4, 6), o=(6, 2))
def queries_repeated_over_a_batch():
    def model(repeated):
        def attend(p, x):
            scores = repeated(p["queries"]) @ (x @ p["k"]).mT
            return (jax.nn.softmax(scores) @ (x @ p["v"])).mean(axis=1) @ p["o"]

        return attend

    return [
        model(lambda queries: jnp.broadcast_to(queries, (2, 3, 6))),
        model(lambda queries: jnp.tile(queries, (2, 1, 1))),
        model(lambda queries: jnp.repeat(queries[None], 2, axis=0)),
        model(lambda queries: jnp.zeros((2, 3, 6)) + queries),
        model(lambda queries: queries - jnp.zeros((2, 1, 1))),
        model(lambda queries: jnp.stack([queries] * 2)),
        model(lambda queries: jnp.concatenate([queries[None]] * 2)),
        model(lambda queries: queries[jnp.broadcast_to(jnp.arange(3), (2, 3))]),
    ]


@written_as(w=(4, 8), q=(8, 8), k=(8, 8), v=(8, 8), o=(8, 3))
def kernels_repeated_over_a_batch():
    def attend(p, x):
        h = jnp.tanh(x @ p["w"])
        q, k, v = (h @ p[name] for name in "qkv")
        return (jax.nn.softmax(q @ k.mT) @ v) @ p["o"]

    def multiplied(p, x):
        w, q, k, v, o = (jnp.broadcast_to(p[name], (2, *p[name].shape)) for name in "wqkvo")
        h = jnp.tanh(jnp.matmul(x, w))
        scores = jnp.einsum("btc,bcd,bsd->bts", h, q, h @ k)
        return jax.nn.softmax(scores) @ jnp.einsum("bsc,bcd->bsd", h, v) @ o

    def mapped(p, x):
        return jax.vmap(attend)({name: jnp.stack([kernel] * 2) for name, kernel in p.items()}, x)

    return [attend, multiplied, mapped]


@written_as(memory=(3, 4), k=(4, 6), v=(4, 6), o=(6, 2))
def a_memory_repeated_over_a_batch():
    def model(memory, scores, read):
        def attend(p, x):
            tokens = memory(p["memory"])
            return (
                jnp.einsum(read, jax.nn.softmax(jnp.einsum(scores, x @ p["k"], tokens @ p["k"])), tokens @ p["v"])
                @ p["o"]
            )

        return attend

    return [
        model(lambda memory: memory, "btc,mc->btm", "btm,mc->btc"),
        model(lambda memory: jnp.tile(memory, (2, 1, 1)), "btc,bmc->btm", "btm,bmc->btc"),
    ]


@written_as(q=(3, 4), o=(4, 2))
def queries_of_an_input_itself():
    def model(repeated):
        def attend(p, x):
            weights = jax.nn.softmax(jnp.einsum("bqc,btc->bqt", repeated(p["q"]), x))
            return jnp.einsum("bqt,btc->bqc", weights, x).mean(axis=1) @ p["o"]

        return attend

    def summed(p, x):
        weights = jax.nn.softmax(jnp.einsum("bqc,btc->bqt", jnp.stack([p["q"]] * 2), x))
        return (weights[..., None] * x[:, None]).sum(axis=2).mean(axis=1) @ p["o"]

    return [model(lambda q: jnp.broadcast_to(q, (2, 3, 4))), model(lambda q: jnp.stack([q, q])), summed]


@written_as(r=(4, 3), w=(3, 4, 6), u=(3, 6, 4), o=(4, 2))
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


@written_as(w=(4, 4, 3), gains=(2, 4), o=(3, 2))
def experts_of_one_input_two_of_which_share_gains():
    def at_once(p, x):
        kernels = p["w"] * jnp.repeat(p["gains"], 2, axis=0)[:, :, None]
        h = jnp.tanh(jnp.broadcast_to(x @ p["w"][0] @ p["w"][1][:3], (4, *x.shape[:2], 3)))
        return jnp.einsum("ebtc,ecf->ebtf", h, kernels[:, :3]).sum(axis=0) @ p["o"]

    def one_by_one(p, x):
        h = jnp.tanh(x @ p["w"][0] @ p["w"][1][:3])
        return sum(h @ (p["w"][e] * p["gains"][e // 2][:, None])[:3] for e in range(4)) @ p["o"]

    return [at_once, one_by_one]


@pytest.mark.parametrize("name", WRITINGS)
def test_one_function_has_one_graph(name: str) -> None:
    assert_one_graph(*WRITINGS[name]())
