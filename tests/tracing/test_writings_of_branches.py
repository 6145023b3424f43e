"""Branches, experts and their gates in several writings: one function has one graph."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from traced import assert_one_graph, random_params, writings

import fiedler_jax as fj
from fiedler_jax import errors

WRITINGS, written_as = writings(2, 5, 4)


@pytest.mark.parametrize("name", WRITINGS)
def test_one_function_has_one_graph(name: str) -> None:
    assert_one_graph(*WRITINGS[name]())


@written_as(r=(4, 3), w=(3, 4, 6), o=(6, 2))
def the_branch_of_the_highest_score():
    def gated(p, x):
        gates = jax.nn.one_hot(jnp.argmax(x @ p["r"], axis=-1), 3)
        return jnp.einsum("btef,bte->btf", jnp.tanh(jnp.einsum("btc,ecf->btef", x, p["w"])), gates) @ p["o"]

    def picked(p, x):
        branches = jnp.stack([jnp.tanh(x @ kernel) for kernel in p["w"]], axis=2)
        best = jnp.argmax(x @ p["r"], axis=-1)
        return jnp.take_along_axis(branches, best[..., None, None], axis=2)[:, :, 0] @ p["o"]

    def picked_by_example(p, x):
        branches = jnp.stack([jnp.tanh(x @ kernel) for kernel in p["w"]])

        def one(branches, best):
            return branches[best]

        return jax.vmap(jax.vmap(one, (1, 0)), (1, 0))(branches, jnp.argmax(x @ p["r"], axis=-1)) @ p["o"]

    return [gated, picked, picked_by_example]


@written_as(r=(4, 3), g=(3, 4, 6), u=(3, 4, 6), d=(3, 6, 4), o=(4, 2))
def experts_of_the_rows_sent_to_them():
    def routed(p, x):
        weights, chosen = lax.top_k(jax.nn.softmax(x @ p["r"]), 2)
        return weights, chosen

    def to_all(p, x):
        weights, chosen = routed(p, x)
        gates = (jax.nn.one_hot(chosen, 3) * weights[..., None]).sum(axis=-2)
        hidden = jax.nn.silu(jnp.einsum("btc,ecf->btef", x, p["g"])) * jnp.einsum("btc,ecf->btef", x, p["u"])
        return (x + jnp.einsum("btef,efc,bte->btc", hidden, p["d"], gates)) @ p["o"]

    def of_groups(p, rows, sizes):
        return lax.ragged_dot(
            jax.nn.silu(lax.ragged_dot(rows, p["g"], sizes)) * lax.ragged_dot(rows, p["u"], sizes), p["d"], sizes
        )

    def sent_back_in_order(p, x):
        weights, chosen = routed(p, x)
        order = jnp.argsort(chosen.ravel())
        rows = jnp.repeat(x.reshape(-1, 4), 2, axis=0)[order]
        out = of_groups(p, rows, jnp.bincount(chosen.ravel(), length=3))[jnp.argsort(order)]
        return (x + jnp.einsum("btkc,btk->btc", out.reshape(*chosen.shape, 4), weights)) @ p["o"]

    def added_where_they_came_from(p, x):
        weights, chosen = routed(p, x)
        order = jnp.argsort(chosen.ravel())
        out = of_groups(p, x.reshape(-1, 4)[order // 2], jnp.bincount(chosen.ravel(), length=3))
        out = out * weights.reshape(-1, 1)[order]
        return (x + jnp.zeros((10, 4)).at[order // 2].add(out).reshape(x.shape)) @ p["o"]

    return [to_all, sent_back_in_order, added_where_they_came_from]


@written_as(r=(4, 3), w=(3, 4, 6), o=(6, 2))
def experts_with_a_gate_for_each_example():
    def gates(p, x):
        return jax.nn.softmax(x.mean(1) @ p["r"])

    def experts(p, x):
        return jnp.tanh(jnp.einsum("btc,ecd->bted", x, p["w"]))

    def multiplied_and_summed(p, x):
        return (gates(p, x)[:, None, :, None] * experts(p, x)).sum(2) @ p["o"]

    def one_einsum(p, x):
        return jnp.einsum("be,bted->btd", gates(p, x), experts(p, x)) @ p["o"]

    def mapped(p, x):
        return jax.vmap(lambda g, y: jnp.tensordot(y, g, (1, 0)))(gates(p, x), experts(p, x)) @ p["o"]

    def one_by_one(p, x):
        g = gates(p, x)
        return sum(g[:, e, None, None] * jnp.tanh(x @ p["w"][e]) for e in range(3)) @ p["o"]

    return [multiplied_and_summed, one_einsum, mapped, one_by_one]


@written_as(a=(4, 6), b=(4, 6), h=(4, 6), z=(4, 6), o=(6, 2))
def selective_kernels():
    def gates(p, x):
        return jax.nn.softmax(jnp.stack([x @ p["a"], x @ p["b"]]), 0)

    def branches(p, x):
        return jnp.tanh(jnp.stack([x @ p["h"], x @ p["z"]]))

    def multiplied_and_summed(p, x):
        return (gates(p, x) * branches(p, x)).sum(0) @ p["o"]

    def one_einsum(p, x):
        return jnp.einsum("kbtc,kbtc->btc", gates(p, x), branches(p, x)) @ p["o"]

    return [multiplied_and_summed, one_einsum]


@written_as(a=(4, 6), b=(4, 6), q=(4, 6), o=(6, 2))
def attention_over_branches():
    def branches(p, x):
        return jnp.stack([jnp.tanh(x @ p["a"]), jnp.tanh(x @ p["b"])], 2)

    def weighted(p, scores, h):
        return jnp.einsum("bti,btid->btd", jax.nn.softmax(scores), h) @ p["o"]

    def one_einsum(p, x):
        h = branches(p, x)
        return weighted(p, jnp.einsum("btid,btd->bti", h, x @ p["q"]), h)

    def matrix_times_vector(p, x):
        h = branches(p, x)
        return weighted(p, (h @ (x @ p["q"])[..., None])[..., 0], h)

    def one_by_one(p, x):
        h, query = branches(p, x), x @ p["q"]
        return weighted(p, jnp.stack([jnp.einsum("btd,btd->bt", h[:, :, i], query) for i in range(2)], -1), h)

    return [one_einsum, matrix_times_vector, one_by_one]


@written_as(a=(4, 1), b=(4, 1), c=(4, 2), o=(4, 3))
def heads_side_by_side():
    def written(write):
        def model(p, x):
            z, i = jnp.zeros((2, 5, 4)), 0
            for name in "abc":
                head = jnp.tanh(x @ p[name])
                z, i = write(z, i, head), i + head.shape[-1]
            return z @ p["o"]

        return model

    def concatenated(p, x):
        return jnp.concatenate([jnp.tanh(x @ p[name]) for name in "abc"], -1) @ p["o"]

    return [
        concatenated,
        written(lambda z, i, head: z.at[..., i : i + head.shape[-1]].set(head)),
        written(lambda z, i, head: lax.dynamic_update_slice(z, head, (0, 0, i))),
    ]


@written_as(a=(4, 6), b=(4, 6), u=(6, 6), o=(6, 2))
def a_sum_of_branches_that_goes_on():
    def steps(p, z):
        return lax.fori_loop(0, 3, lambda _, z: z + 0.1 * jnp.tanh(z @ p["u"]), z)

    def added(p, x):
        return steps(p, x @ p["a"] + x @ p["b"]) @ p["o"]

    def stacked(p, x):
        return steps(p, jnp.stack([x @ p["a"], x @ p["b"]]).sum(0)) @ p["o"]

    return [added, stacked]


@written_as(a=(4, 6), b=(4, 6), u=(6, 5), o=(5, 2))
def a_sum_of_branches_times_a_kernel():
    def stacked(p, x):
        return jnp.stack([x @ p["a"], x @ p["b"]]).sum(0)

    def product(p, x):
        return jnp.tanh(stacked(p, x) @ p["u"]) @ p["o"]

    def by_hand(p, x):
        return jnp.tanh((stacked(p, x)[..., None] * p["u"]).sum(-2)) @ p["o"]

    return [product, by_hand]


@written_as(z=(4, 24), o=(6, 2))
def a_kernel_made_for_each_example():
    def kernel(p, x):
        return (x.mean(1) @ p["z"]).reshape(2, 4, 6)

    def one_einsum(p, x):
        return jnp.tanh(jnp.einsum("bti,bio->bto", x, kernel(p, x))) @ p["o"]

    def by_hand(p, x):
        return jnp.tanh((x[..., None] * kernel(p, x)[:, None]).sum(-2)) @ p["o"]

    return [one_einsum, by_hand]


def test_an_unknown_operation_on_a_sum_of_branches_is_named() -> None:
    params = random_params(a=(4, 6), b=(4, 6), o=(6, 2))

    def model(p, x):
        h = jnp.stack([x @ p["a"], x @ p["b"]]).sum(0)
        shape = jax.ShapeDtypeStruct(h.shape, h.dtype)
        return jax.pure_callback(np.asarray, shape, h, vmap_method="sequential") @ p["o"]

    with pytest.raises(errors.NotUnderstoodError, match="operation 'pure_callback'"):
        fj.graph_from_model(model, params, jnp.ones((2, 4)), strict=True)


def test_a_kernel_for_each_group_of_rows_is_named_where_it_is_not_understood() -> None:
    params = random_params(w=(3, 4, 6), o=(6, 2))

    def model(p, rows):
        return lax.ragged_dot(rows, p["w"], jnp.array([1, 0, 1])) @ p["o"]

    with pytest.raises(errors.NotUnderstoodError, match="traced with fewer rows than groups on w"):
        fj.graph_from_model(model, params, jnp.ones((2, 4)), strict=True)
    of_columns = lax.RaggedDotDimensionNumbers((((0,), (0,)), ((), ())), (0,), ())
    with pytest.raises(errors.NotUnderstoodError, match="a ragged product other than of rows with a kernel for each"):
        fj.graph_from_model(
            lambda p, x: lax.ragged_dot_general(x, p["o"], jnp.array([1, 5]), of_columns),
            params,
            jnp.ones((6, 4)),
            strict=True,
        )
