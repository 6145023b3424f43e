"""Products of units with fixed matrices, against adjacencies by hand."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from traced import cases, check, flat, linen, random_params, taps, through

import fiedler_jax as fj

CASES, case = cases()


@case
def a_permutation_between_layers():
    places = np.array([3, 1, 4, 0, 5, 2])

    def fun(x):
        return nn.Dense(3, name="out")(nn.relu(nn.Dense(6)(x)) @ jnp.eye(6)[places])

    def reference(p, a):
        hidden = a.layer(a.units(4), p["Dense_0"]["kernel"])
        a.layer(hidden[np.argsort(places)], p["out"]["kernel"])

    return *linen(fun, jnp.ones((2, 4))), reference


@case
def a_permutation_of_the_input_from_the_left():
    places = np.array([2, 0, 3, 1])

    def fun(x):
        return through(2.0 * jnp.eye(4)[places] @ x.T, lambda x: x.T, nn.Dense(3))

    def reference(p, a):
        a.layer(a.units(4)[places], p["Dense_0"]["kernel"])

    return *linen(fun, jnp.ones((2, 4))), reference


@case
def a_matrix_that_selects_and_fills_up():
    def fun(x):
        chosen = nn.Dense(6)(x) @ jnp.zeros((6, 4)).at[(1, 5, 1), (0, 1, 3)].set(1.0)
        return nn.Dense(3)(chosen)

    def reference(p, a):
        hidden = a.layer(a.units(5), p["Dense_0"]["kernel"])
        a.layer(np.append(hidden, a.units(1))[[1, 5, 6, 1]], p["Dense_1"]["kernel"])

    return *linen(fun, jnp.ones((2, 5))), reference


@case
def a_matrix_that_adds_neighbours_but_one():
    sums = jnp.repeat(jnp.eye(3), 2, axis=0)[:5]

    def fun(x):
        return nn.Dense(3, name="out")(nn.relu(nn.Dense(5)(x)) @ sums)

    def reference(p, a):
        a.layer(a.layer(a.units(4), np.abs(p["Dense_0"]["kernel"]) @ np.asarray(sums)), p["out"]["kernel"])

    return *linen(fun, jnp.ones((2, 4))), reference


@case
def a_matrix_for_each_group():
    places = np.array([[1, 0, 2], [2, 1, 0]])

    def fun(x):
        groups = nn.DenseGeneral((2, 3))(x)
        return nn.Dense(3)(flat(jnp.einsum("bgi,gio->bgo", groups, jax.nn.one_hot(places, 3, axis=1))))

    def reference(p, a):
        groups = a.layer(a.units(4), p["DenseGeneral_0"]["kernel"].reshape(4, 6)).reshape(2, 3)
        a.layer(np.take_along_axis(groups, places, axis=1).ravel(), p["Dense_0"]["kernel"])

    return *linen(fun, jnp.ones((2, 4))), reference


@case
def features_of_an_input_mixed_by_a_fixed_matrix():
    def model(params, x):
        y = x @ jnp.arange(1.0, 13.0).reshape(4, 3)
        return y @ params["a"], y @ params["b"]

    def reference(p, a):
        mixed = a.units(3)
        a.layer(mixed, p["a"])
        a.layer(mixed, p["b"])

    return model, random_params(a=(3, 5), b=(3, 2)), (jnp.ones((2, 7, 4)),), reference


@case
def positions_of_an_input_mixed_by_a_fixed_matrix():
    def model(params, x):
        return (jnp.arange(1.0, 26.0).reshape(5, 5) @ x) @ params["a"] + x @ params["b"]

    def reference(p, a):
        x = a.units(4)
        a.join(x, a.layer(x, p["a"]), p["b"])

    return model, random_params(a=(4, 3), b=(4, 3)), (jnp.ones((5, 4)),), reference


@case
def channels_normalized_by_their_neighbours():
    def fun(x):
        x = nn.relu(nn.Conv(8, (3, 3))(x))
        energy = jax.lax.reduce_window(x**2, 0.0, jax.lax.add, (1, 1, 1, 5), (1, 1, 1, 1), "SAME")
        return nn.Conv(4, (3, 3))(x / (2 + 1e-4 * energy) ** 0.75)

    def reference(p, a):
        a.layer(a.layer(a.units(3), taps(p["Conv_0"]["kernel"])), taps(p["Conv_1"]["kernel"]))

    return *linen(fun, jnp.ones((2, 6, 6, 3))), reference


@case
def a_kernel_for_each_frequency():
    def model(params, x):
        h = x @ params["l"]
        kernels = params["real"] + 1j * params["imaginary"]
        low = jnp.einsum("bkc,kcd->bkd", jnp.fft.rfft(h, axis=1)[:, :3], kernels)
        low = jnp.zeros((2, 5, 4), jnp.complex64).at[:, :3].set(low)
        return nn.gelu(jnp.fft.irfft(low, n=8, axis=1) + h @ params["s"]) @ params["o"]

    def reference(p, a):
        h = a.layer(a.units(2), p["l"])
        out = a.layer(h, p["s"])
        a.join(h, out, np.hypot(p["real"], p["imaginary"]).sum(axis=0))
        a.layer(out, p["o"])

    shapes = {"real": (3, 4, 4), "imaginary": (3, 4, 4)}
    return model, random_params(l=(2, 4), s=(4, 4), o=(4, 2), **shapes), (jnp.ones((2, 8, 2)),), reference


@pytest.mark.parametrize("name", CASES)
def test_a_model(name: str) -> None:
    check(*CASES[name]())


def test_a_fixed_matrix_that_mixes_units_is_named() -> None:
    def fun(x):
        return nn.Dense(3, name="out")(
            nn.Dense(4)(x) @ jnp.array([[1.0, 1, 1, 1], [1, -1, 1, -1], [1, 1, -1, -1], [1, -1, -1, 1]])
        )

    model, variables, inputs = linen(fun, jnp.ones((2, 5)))
    graph = fj.graph_from_model(model, variables, *inputs)
    assert graph.not_understood == ("a product of units with a fixed matrix at units of Dense_0",)
    with pytest.raises(fj.errors.NotUnderstoodError, match="a product of units with a fixed matrix"):
        fj.graph_from_model(model, variables, *inputs, strict=True)


def test_a_fourier_transform_of_units_is_named() -> None:
    def fun(x):
        return nn.Dense(3, name="out")(jnp.fft.fft(nn.Dense(4)(x)).real)

    model, variables, inputs = linen(fun, jnp.ones((2, 5)))
    with pytest.raises(fj.errors.NotUnderstoodError, match="a Fourier transform of units at units of Dense_0"):
        fj.graph_from_model(model, variables, *inputs, strict=True)


@pytest.mark.parametrize("blur", [jnp.ones((3, 1, 1)), jnp.ones((3, 4, 4))], ids=["of one channel", "of several"])
def test_a_fixed_kernel_that_mixes_units_is_named(blur: jax.Array) -> None:
    def fun(x):
        h = nn.Dense(20)(x).reshape(2, 5, 4)
        layout = ("NWC", "WIO", "NWC")
        groups = 4 if blur.shape[1] == 1 else 1
        kernel = jnp.tile(blur, (1, 1, 4)) if groups > 1 else blur
        blurred = jax.lax.conv_general_dilated(
            h, kernel, (1,), "SAME", dimension_numbers=layout, feature_group_count=groups
        )
        return nn.Dense(3, name="out")(blurred.reshape(2, 20))

    model, variables, inputs = linen(fun, jnp.ones((2, 5)))
    with pytest.raises(fj.errors.NotUnderstoodError, match="units with a fixed kernel at units of Dense_0"):
        fj.graph_from_model(model, variables, *inputs, strict=True)


def test_overlapping_windows_of_units_are_named_where_a_kernel_reads_them() -> None:
    def fun(x):
        return nn.Dense(3, name="out")(nn.avg_pool(nn.Dense(8)(x)[..., None], (3,), padding="SAME")[..., 0])

    model, variables, inputs = linen(fun, jnp.ones((2, 5)))
    with pytest.raises(fj.errors.NotUnderstoodError, match="units combined with their neighbours on out/kernel"):
        fj.graph_from_model(model, variables, *inputs, strict=True)
    assert sorted(group.size for group in fj.graph_from_model(model, variables, *inputs).groups) == [3, 5, 8, 8]
