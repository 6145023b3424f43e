"""Branches that are stacked and reduced, maxout and ensembles, against adjacencies by hand."""

from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from traced import KEY, cases, check, linen, random_params, taps, through

CASES, case = cases()


def two_branches(join: Callable[[jax.Array, jax.Array], jax.Array]):
    """Two kernels beside each other, whose units are one."""

    def fun(x):
        x = nn.Dense(5)(x)
        return through(join(nn.relu(nn.Dense(4)(x)), nn.relu(nn.Dense(4)(x))), nn.Dense(3))

    def reference(p, a):
        below = a.layer(a.units(6), p["Dense_0"]["kernel"])
        both = a.layer(below, p["Dense_1"]["kernel"])
        a.join(below, both, p["Dense_2"]["kernel"])
        a.layer(both, p["Dense_3"]["kernel"])

    return *linen(fun, jnp.ones((2, 6))), reference


@case
def branches_stacked_and_summed():
    return two_branches(lambda a, b: jnp.stack([a, b]).sum(axis=0))


@case
def branches_stacked_and_averaged():
    return two_branches(lambda a, b: jnp.tanh(2 * jnp.stack([a, b], axis=-1).mean(axis=-1)) + 1)


@case
def branches_stacked_and_weighed():
    return two_branches(lambda a, b: jnp.einsum("i,ibn->bn", jnp.array([0.25, 0.75]), jnp.stack([a, b])))


@case
def branches_pooled_twice():
    return two_branches(lambda a, b: jnp.stack([a, b]).max(axis=0) - jnp.stack([a, b]).min(axis=0))


@case
def branches_pooled_and_pooled_again():
    def join(a, b):
        return jnp.stack([jnp.stack([a, b]).max(axis=0), jnp.stack([b, a]).min(axis=0)]).sum(axis=0)

    return two_branches(join)


@case
def a_stacked_sum_on_a_residual():
    def fun(x):
        x = nn.Dense(4)(x)
        x = x + jnp.stack([nn.Dense(4)(x), nn.Dense(4)(x)]).sum(axis=0)
        return nn.Dense(3)(x)

    def reference(p, a):
        stream = a.layer(a.units(6), p["Dense_0"]["kernel"])
        for name in ("Dense_1", "Dense_2"):
            a.join(stream, stream, p[name]["kernel"])
        a.layer(stream, p["Dense_3"]["kernel"])

    return *linen(fun, jnp.ones((2, 6))), reference


@case
def maxout_beside_a_layer():
    def fun(x):
        pieces = nn.Dense(8)(x).reshape(*x.shape[:-1], 4, 2).max(axis=-1)
        return through(jnp.concatenate([pieces, nn.Dense(2)(x)], axis=-1), nn.Dense(3))

    def reference(p, a):
        x = a.units(6)
        pieces = a.layer(x, np.abs(p["Dense_0"]["kernel"]).reshape(6, 4, 2).sum(axis=-1))
        a.layer(np.concatenate([pieces, a.layer(x, p["Dense_1"]["kernel"])]), p["Dense_2"]["kernel"])

    return *linen(fun, jnp.ones((2, 6))), reference


@case
def maxout_of_channels():
    def fun(x):
        pieces = nn.Conv(6, (3, 3))(x).reshape(*x.shape[:-1], 2, 3).max(axis=-2)
        return nn.Conv(2, (3, 3))(pieces)

    def reference(p, a):
        pieces = a.layer(a.units(2), taps(p["Conv_0"]["kernel"]).reshape(2, 2, 3).sum(axis=1))
        a.layer(pieces, taps(p["Conv_1"]["kernel"]))

    return *linen(fun, jnp.ones((2, 6, 6, 2))), reference


@case
def selective_kernels():
    def fun(x):
        both = jnp.stack([nn.Conv(4, (3, 3))(x), nn.Conv(4, (5, 5))(x)], axis=1)
        scores = through(both.sum(axis=1).mean(axis=(1, 2)), nn.Dense(5), nn.relu, nn.Dense(8))
        weights = nn.softmax(scores.reshape(-1, 2, 1, 1, 4), axis=1)
        return nn.Conv(3, (1, 1))((both * weights).sum(axis=1))

    def reference(p, a):
        x = a.units(2)
        both = a.layer(x, taps(p["Conv_0"]["kernel"]))
        a.join(x, both, taps(p["Conv_1"]["kernel"]))
        squeezed = a.layer(both, p["Dense_0"]["kernel"])
        a.join(squeezed, both, np.abs(p["Dense_1"]["kernel"]).reshape(5, 2, 4).sum(axis=1))
        a.layer(both, taps(p["Conv_2"]["kernel"]))

    return *linen(fun, jnp.ones((2, 6, 6, 2))), reference


@case
def a_stacked_sum_in_another_on_a_residual():
    def fun(x):
        inner = jnp.stack([nn.Dense(4)(x), nn.Dense(4)(x)]).sum(axis=0) + nn.Dense(4)(x)
        return nn.Dense(3)(jnp.stack([inner, nn.Dense(4)(x)]).sum(axis=0))

    def reference(p, a):
        x = a.units(5)
        all_four = a.layer(x, p["Dense_0"]["kernel"])
        for name in ("Dense_1", "Dense_2", "Dense_4"):
            a.join(x, all_four, p[name]["kernel"])
        a.layer(all_four, p["Dense_3"]["kernel"])

    return *linen(fun, jnp.ones((2, 5))), reference


@case
def experts_gated_for_two_tasks():
    def fun(x):
        experts = jnp.stack([nn.Dense(4)(x), nn.Dense(4)(x), nn.Dense(4)(x)], axis=1)
        gates = [nn.softmax(nn.Dense(3)(x)) for _ in range(2)]
        return [nn.Dense(1)((gate[..., None] * experts).sum(axis=1)) for gate in gates]

    def reference(p, a):
        x = a.units(5)
        experts = a.layer(x, p["Dense_0"]["kernel"])
        for name in ("Dense_1", "Dense_2"):
            a.join(x, experts, p[name]["kernel"])
        for gate, task in (("Dense_3", "Dense_5"), ("Dense_4", "Dense_6")):
            a.layer(x, p[gate]["kernel"])
            a.layer(experts, p[task]["kernel"])

    return *linen(fun, jnp.ones((2, 5))), reference


@case
def members_of_an_ensemble_averaged():
    def fun(x):
        members = nn.vmap(nn.Dense, variable_axes={"params": 0}, split_rngs={"params": True}, axis_size=3, in_axes=0)
        return through(jnp.broadcast_to(x, (3, *x.shape)), members(4), lambda x: x.mean(axis=0), nn.Dense(2))

    def reference(p, a):
        x = a.units(5)
        (members,) = (layer["kernel"] for name, layer in p.items() if name != "Dense_0")
        a.layer(a.layer(x, np.abs(members).sum(axis=0)), p["Dense_0"]["kernel"])

    return *linen(fun, jnp.ones((2, 5))), reference


@case
def layers_mixed_by_learned_weights():
    def model(params, x):
        layers = [x @ params["v"]]
        for w in params["w"]:
            layers.append(jnp.tanh(layers[-1] @ w))
        return jnp.einsum("l,lbn->bn", jax.nn.softmax(params["mix"]), jnp.stack(layers)) @ params["out"]

    def reference(p, a):
        stream = a.layer(a.units(5), p["v"])
        for w in p["w"]:
            a.join(stream, stream, w)
        a.layer(stream, p["out"])

    keys = jax.random.split(KEY, 3)
    shapes = {"v": (5, 4), "w": (2, 4, 4), "out": (4, 3)}
    params = {name: jax.random.normal(key, shape) for key, (name, shape) in zip(keys, shapes.items(), strict=True)}
    return model, {**params, "mix": jnp.ones(3)}, (jnp.ones((2, 5)),), reference


@case
def experts_with_a_gate_each_given_out():
    def fun(x):
        experts = jnp.stack([nn.Dense(4)(x), nn.Dense(4)(x), nn.Dense(4)(x)], axis=1)
        return jnp.einsum("be,bed->bd", nn.softmax(nn.Dense(3)(x)), experts)

    def reference(p, a):
        x = a.units(5)
        experts = a.layer(x, p["Dense_0"]["kernel"])
        for name in ("Dense_1", "Dense_2"):
            a.join(x, experts, p[name]["kernel"])
        a.layer(x, p["Dense_3"]["kernel"])

    return *linen(fun, jnp.ones((2, 5))), reference


@case
def an_average_of_members_given_out():
    def fun(x):
        return jnp.stack([nn.Dense(4)(x), nn.Dense(4)(x)]).mean(axis=0)

    def reference(p, a):
        x = a.units(5)
        a.join(x, a.layer(x, p["Dense_0"]["kernel"]), p["Dense_1"]["kernel"])

    return *linen(fun, jnp.ones((2, 5))), reference


@case
def soft_experts_on_a_residual():
    def model(params, x):
        x = x @ params["in"]
        logits = jnp.einsum("btd,des->btes", x, params["slots"])
        slots = jnp.einsum("btd,btes->besd", x, jax.nn.softmax(logits, axis=1))
        slots = jnp.einsum(
            "besf,efd->besd", jax.nn.relu(jnp.einsum("besd,edf->besf", slots, params["up"])), params["down"]
        )
        x = x + jnp.einsum("btes,besd->btd", jax.nn.softmax(logits, axis=(2, 3)), slots)
        return x @ params["out"]

    def reference(p, a):
        x = a.layer(a.units(4), p["in"])
        a.layer(x, p["slots"].reshape(5, 6))
        for up, down in zip(p["up"], p["down"], strict=True):
            a.join(a.layer(x, up), x, down)
        a.layer(x, p["out"])

    params = random_params(**{"in": (4, 5), "slots": (5, 2, 3), "up": (2, 5, 6), "down": (2, 6, 5), "out": (5, 3)})
    return model, params, (jnp.ones((2, 7, 4)),), reference


@case
def maxout_with_a_scalar_gate_and_a_mask():
    def fun(x, mask):
        pieces = nn.DenseGeneral((6, 2))(x).max(axis=-1)
        return nn.Dense(3, name="out")(pieces * nn.sigmoid(nn.Dense(1)(x)) * mask[..., None])

    def reference(p, a):
        x = a.units(4)
        pieces = a.layer(x, np.abs(p["DenseGeneral_0"]["kernel"]).reshape(4, 6, 2).sum(axis=-1))
        a.layer(x, p["Dense_0"]["kernel"])
        a.layer(pieces, p["out"]["kernel"])

    return *linen(fun, jnp.ones((2, 7, 4)), jnp.ones((2, 7))), reference


@case
def maxout_attended_to():
    def fun(x):
        pieces = nn.DenseGeneral((6, 2))(x).max(axis=-1)
        return nn.Dense(3)(nn.softmax(jnp.einsum("btc,bsc->bts", x, x)) @ pieces)

    def reference(p, a):
        pieces = a.layer(a.units(4), np.abs(p["DenseGeneral_0"]["kernel"]).reshape(4, 6, 2).sum(axis=-1))
        a.layer(pieces, p["Dense_0"]["kernel"])

    return *linen(fun, jnp.ones((2, 7, 4))), reference


@case
def experts_behind_a_gate_that_end_in_an_energy():
    def model(params, x):
        gates = jax.nn.softmax(x @ params["gates"])
        mixed = jnp.einsum("bte,bted->btd", gates, jnp.einsum("btc,ecd->bted", x, params["experts"]))
        return ((mixed * jax.nn.sigmoid(x @ params["gate"]) + x @ params["beside"]) ** 2).sum()

    def reference(p, a):
        x = a.units(4)
        a.layer(x, p["gates"])
        a.layer(x, p["gate"])
        mixed = a.layer(x, np.abs(p["experts"]).sum(axis=0))
        a.join(x, mixed, p["beside"])

    params = random_params(gates=(4, 3), experts=(3, 4, 5), gate=(4, 1), beside=(4, 5))
    return model, params, (jnp.ones((2, 7, 4)),), reference


@case
def pieces_of_a_maxout_that_have_a_kernel_each():
    def model(params, x):
        h = jnp.einsum("bi,itd->btd", x, params["pieces"]).max(axis=-1)
        return jnp.einsum("bt,tu->btu", h, params["out"])

    def reference(p, a):
        h = a.layer(a.units(5), np.abs(p["pieces"]).sum(axis=-1))
        for unit, row in zip(h, p["out"], strict=True):
            a.layer(np.array([unit]), row[None])

    return model, random_params(pieces=(5, 4, 3), out=(4, 2)), (jnp.ones((3, 5)),), reference


@pytest.mark.parametrize("name", CASES)
def test_a_model(name: str) -> None:
    check(*CASES[name]())
