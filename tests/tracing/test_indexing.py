"""Gathers and scatters with axes of a batch: each head has places of its own."""

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


def heads_of(p, x):
    return jnp.tanh(x @ p["w"]).reshape(2, 5, 2, 3)


def averaged(reordered):
    """A model that averages the positions, of each example and head in an order of its own."""

    def model(p, x):
        heads = heads_of(p, x)
        order = jnp.argsort(heads.sum(axis=-1), axis=1)
        return reordered(heads, order).mean(axis=1).reshape(2, 6) @ p["o"]

    return model


@written_as(w=(4, 6), o=(6, 3))
def positions_of_each_head_gathered_in_another_order():
    def along_an_axis(heads, order):
        return jnp.take_along_axis(heads, order[..., None], axis=1)

    def mapped(heads, order):
        return jax.vmap(jax.vmap(lambda one, places: one[places], (1, 1), 1))(heads, order)

    def axes_of_the_batch_changed(heads, order):
        numbers = lax.GatherDimensionNumbers((3,), (1,), (1,), (0, 2), (1, 0))
        gathered = lax.gather(heads, order.transpose(2, 0, 1)[..., None], numbers, (1, 1, 1, 3))
        return gathered.transpose(1, 2, 0, 3)

    return [averaged(lambda heads, order: heads), *map(averaged, [along_an_axis, mapped, axes_of_the_batch_changed])]


@written_as(w=(4, 6), o=(6, 3))
def positions_of_each_head_scattered_in_another_order():
    def mapped(heads, order):
        def one(heads, places):
            return jnp.zeros((5, 3)).at[places].set(heads)

        return jax.vmap(jax.vmap(one, (1, 1), 1))(heads, order)

    def axes_of_the_batch_changed(add):
        def scattered(heads, order):
            numbers = lax.ScatterDimensionNumbers((3,), (1,), (1,), (0, 2), (1, 0))
            places, updates = order.transpose(2, 0, 1)[..., None], heads.transpose(2, 0, 1, 3)
            return add(jnp.zeros((2, 5, 2, 3)), places, updates, numbers)

        return scattered

    others = [mapped, axes_of_the_batch_changed(lax.scatter), axes_of_the_batch_changed(lax.scatter_add)]
    return [averaged(lambda heads, order: heads), *map(averaged, others)]


@written_as(w=(4, 6), o=(6, 3))
def features_of_each_head_in_another_order():
    places = np.array([[2, 0, 1], [1, 2, 0]])

    def listed(p, x):
        return jnp.tanh(x @ p["w"])[..., np.array([2, 0, 1, 4, 5, 3])] @ p["o"]

    def along_an_axis(p, x):
        return jnp.take_along_axis(heads_of(p, x), places[None, None], axis=3).reshape(2, 5, 6) @ p["o"]

    def mapped(p, x):
        reorder = jax.vmap(lambda one, places: one[..., places], (2, 0), 2)
        return reorder(heads_of(p, x), jnp.asarray(places)).reshape(2, 5, 6) @ p["o"]

    def axes_of_the_batch_changed(p, x):
        numbers = lax.GatherDimensionNumbers((3,), (3,), (3,), (0, 2), (1, 0))
        repeated = np.repeat(places[:, None], 2, axis=1)[..., None]
        gathered = lax.gather(heads_of(p, x), repeated, numbers, (1, 5, 1, 1))
        return gathered.transpose(1, 3, 0, 2).reshape(2, 5, 6) @ p["o"]

    return [listed, along_an_axis, mapped, axes_of_the_batch_changed]


@written_as(w=(4, 6), o=(6, 3))
def a_cache_with_a_length_for_each_example():
    def plain(p, x):
        return jnp.tanh(x @ p["w"]).sum(axis=1) @ p["o"]

    def written(p, x):
        def one(cache, new, length):
            return lax.dynamic_update_slice(cache, new, (length, 0))

        lengths = jnp.arange(2) + jnp.argmax(x[:, 0, :1], axis=-1)
        return jax.vmap(one)(jnp.zeros((2, 8, 6)), jnp.tanh(x @ p["w"]), lengths).sum(axis=1) @ p["o"]

    return [plain, written]


def test_features_of_each_head_at_computed_places_are_named() -> None:
    params = random_params(w=(4, 6), o=(6, 3))
    x = jnp.ones((2, 5, 4))

    def model(reordered):
        def apply(p, x):
            heads = heads_of(p, x)
            places = jnp.argsort(heads.sum(axis=(0, 1)), axis=-1)
            return reordered(heads, places).reshape(2, 5, 6) @ p["o"]

        return apply

    def picked(heads, places):
        return jnp.take_along_axis(heads, places[None, None], axis=3)

    def written(heads, places):
        return jax.vmap(lambda one, places: jnp.zeros_like(one).at[..., places].set(one), (2, 0), 2)(heads, places)

    def written_in_part(heads, places):
        def one(heads, places):
            return lax.dynamic_update_slice(jnp.zeros((2, 5, 3)), heads[..., :2], (0, 0, places[0]))

        return jax.vmap(one, (2, 0), 2)(heads, places)

    def written_over(heads, places):
        return jax.vmap(lambda one, places: one.at[..., places[:2]].set(0), (2, 0), 2)(heads, places)

    def written_at_known_places(heads, places):
        return written(heads, jnp.array([[2, 0, 1], [1, 2, 0]]))

    for reordered in (picked, written, written_in_part, written_over, written_at_known_places):
        with pytest.raises(errors.NotUnderstoodError, match="of units by a computed index at units of w"):
            fj.graph_from_model(model(reordered), params, x, strict=True)
