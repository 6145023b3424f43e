"""Units are followed through whatever moves them: random operations against the same ones on unit numbers."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from adjacency import Adjacency
from hypothesis import example, given, settings
from hypothesis import strategies as st
from reference import spectrum

import fiedler_jax as fj

WIDTH = 12
BATCH = 2


def _padded(x: Any, module: Any) -> Any:
    # On unit numbers the padding must be no unit.
    fill = -1 if module is np else 0
    return module.pad(x, ((0, 0), (1, 2)), constant_values=fill)


def _last_updated(x: Any, module: Any) -> Any:
    if module is np:
        return np.concatenate([x[:, :2], x[:, :3], x[:, 5:]], axis=1)
    return jax.lax.dynamic_update_slice(x, x[:, :3], (0, 2))


MOVES: list[Callable[[Any, Any], Any]] = [
    lambda x, m: x[:, ::-1],
    lambda x, m: m.roll(x, 5, axis=1),
    lambda x, m: x.reshape(len(x), 2, -1).swapaxes(1, 2).reshape(len(x), -1) if x.shape[1] % 2 == 0 else x,
    lambda x, m: x.reshape(len(x), 3, -1)[:, 1:].reshape(len(x), -1) if x.shape[1] % 3 == 0 and x.shape[1] > 8 else x,
    lambda x, m: x[:, 1::2] if x.shape[1] > 9 else x,
    lambda x, m: m.concatenate([x, x[:, 2:5]], axis=1),
    lambda x, m: m.repeat(x, 2, axis=1) if x.shape[1] < 20 else x,
    lambda x, m: m.tile(x, (1, 2)) if x.shape[1] < 20 else x,
    lambda x, m: x[:, np.array([3, 0, 3, 1, 4])] if x.shape[1] > 4 else x,
    _padded,
    _last_updated,
    lambda x, m: m.stack(m.split(x, 2, axis=1), axis=2).reshape(len(x), -1) if x.shape[1] % 2 == 0 else x,
    lambda x, m: m.broadcast_to(x[:, None, :], (len(x), 2, x.shape[1])).reshape(len(x), -1) if x.shape[1] < 20 else x,
    lambda x, m: m.flip(m.squeeze(m.expand_dims(x, 0), 0), 1),
]


# Rolling all the way round is made of empty parts.
@example(moves=[lambda x, m: m.roll(x, WIDTH, axis=1)], seed=0)
@settings(max_examples=25, deadline=None)
@given(moves=st.lists(st.sampled_from(MOVES), min_size=1, max_size=4), seed=st.integers(0, 1000))
def test_units_move_as_their_numbers_do(moves: list[Callable[[Any, Any], Any]], seed: int) -> None:
    def moved(x: Any, module: Any) -> Any:
        for move in moves:
            x = move(x, module)
        return x

    labels = moved(np.tile(np.arange(WIDTH), (BATCH, 1)), np)[0]
    rng = np.random.default_rng(seed)
    params = {"first": rng.normal(size=(5, WIDTH)), "second": rng.normal(size=(len(labels), 3))}

    def model(params: Any, x: jax.Array) -> jax.Array:
        return moved(jnp.tanh(x @ params["first"]), jnp) @ params["second"]

    graph = fj.graph_from_model(model, jax.tree.map(np.float32, params), np.ones((BATCH, 5), np.float32), strict=True)
    adjacency = Adjacency()
    hidden = adjacency.layer(adjacency.units(5), params["first"])
    unnamed = adjacency.units(int(np.sum(labels < 0)))
    rows = hidden[labels]
    rows[labels < 0] = unnamed
    adjacency.layer(rows, params["second"])
    lap = fj.laplacian(graph, jax.tree.map(np.float32, params), normalized=False)
    found = np.linalg.eigvalsh(np.asarray(lap.to_dense(), np.float64))
    np.testing.assert_allclose(found, spectrum(adjacency.matrix, False), rtol=0, atol=1e-4)


@settings(max_examples=25, deadline=None)
@given(moves=st.lists(st.sampled_from(MOVES), max_size=4))
def test_stacked_sums_move_as_sums_do(moves: list[Callable[[Any, Any], Any]]) -> None:
    def graph(join: Callable[..., jax.Array]) -> fj.NetworkGraph:
        def model(params: Any, x: jax.Array) -> jax.Array:
            x = moved = join(*(x @ kernel for kernel in params["branches"]))
            for move in moves:
                moved = move(moved, jnp)
            # What the moves leave out would stay apart where it was stacked.
            return moved @ params["last"] + x @ params["whole"]

        width = len(functools.reduce(lambda x, move: move(x, np), moves, np.zeros((BATCH, WIDTH)))[0])
        params = {"branches": [jnp.ones((5, WIDTH))] * 4, "last": jnp.ones((width, 3))}
        params["whole"] = jnp.ones((WIDTH, 3))
        return fj.graph_from_model(model, params, jnp.ones((BATCH, 5)), strict=True)

    stacked = graph(lambda a, b, c, d: jnp.stack([a, b]).sum(axis=0) + jnp.stack([c, d]).max(axis=0))
    assert stacked == graph(lambda a, b, c, d: a + b + jnp.maximum(c, d))
