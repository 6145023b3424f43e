"""When the transformation solves anew: at fixed intervals, or where the last vector has drifted."""

# Optax types states and updates as any tree of anything, so nothing can be read from them without these.
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import reference
from spectra import BOTH

import fiedler_jax as fj
from fiedler_jax import Status

SIZES = (12, 8, 6, 4)


def network(seed: int = 0) -> Any:
    return jax.tree.map(jnp.asarray, reference.chain_params(reference.random_kernels(SIZES, seed), "float32"))


GRAPH = fj.graph_from_params(network())
# The solver is not the point, and the dense one compiles several times faster than the default.
auto = functools.partial(fj.add_fiedler_penalty, 0.1, GRAPH, refresh_every="auto", solver=fj.Dense())


def run(tx: optax.GradientTransformation, steps: Any, state: Any = None) -> list[fj.FiedlerPenaltyState]:
    """The states after updates with each of the parameters in turn."""
    update = jax.jit(tx.update)
    states = []
    for params in steps:
        state = tx.init(params) if state is None else state
        state = update(jax.tree.map(jnp.zeros_like, params), state, params)[1]
        states.append(state)
    return states


def excess(state: fj.FiedlerPenaltyState, params: Any, normalized: bool) -> float:
    """By what share the Rayleigh quotient of the state's vector exceeds λ2 now, in float64."""
    kernels = [np.asarray(params[f"Dense_{i}"]["kernel"], np.float64) for i in range(3)]
    adjacency = reference.chain_adjacency(kernels)
    row = np.asarray(state.vectors[0], np.float64)
    vector = row * np.sqrt(adjacency.sum(0)) if normalized else row
    dense = reference.dense_laplacian(adjacency, normalized)
    return float(vector @ dense @ vector / (vector @ vector) / reference.spectrum(adjacency, normalized)[1] - 1)


@BOTH
@pytest.mark.parametrize("num_eigenvalues", [1, 3])
def test_without_drift_the_interval_doubles_up_to_a_hundred(normalized: bool, num_eigenvalues: int) -> None:
    tx = auto(normalized=normalized, num_eigenvalues=num_eigenvalues)
    states = run(tx, [network()] * 228)
    counts = np.array([int(state.refreshes) for state in states])
    assert np.flatnonzero(np.diff(counts, prepend=0)).tolist() == [0, 1, 3, 7, 15, 31, 63, 127, 227]
    assert states[-1].interval == 100


@BOTH
def test_with_new_weights_at_every_step_so_is_the_vector(normalized: bool) -> None:
    states = run(auto(normalized=normalized), [network(seed) for seed in range(8)])
    assert [int(state.refreshes) for state in states] == list(range(1, 9))
    for seed, state in enumerate(states):
        assert abs(excess(state, network(seed), normalized)) < 1e-4


@BOTH
def test_the_last_vector_stays_near_the_fiedler_vector_at_few_refreshes(normalized: bool) -> None:
    ends, steps = (network(1), network(2)), 300
    path = [
        jax.tree.map(lambda a, b, t=t / steps: (1 - t) * a + t * b, *ends)  # pyright: ignore[reportArgumentType]
        for t in range(steps)
    ]
    drift = {}
    for refresh_every in ("auto", 100):
        tx = fj.add_fiedler_penalty(0.1, GRAPH, normalized=normalized, refresh_every=refresh_every, solver=fj.Dense())
        states = run(tx, path)
        drift[refresh_every] = [excess(s, p, normalized) for s, p in zip(states, path, strict=True)]
        if refresh_every == "auto":
            assert states[-1].refreshes <= steps / 4
    assert np.median(drift["auto"]) < 0.01
    assert np.quantile(drift["auto"], 0.95) < 0.03
    assert np.max(drift[100]) > 0.1


def test_a_level_crossing_shortens_the_interval() -> None:
    """The old vector stays an eigenvector, with a residual of zero, but another one is below it."""
    left = jnp.ones((4, 4)) - jnp.eye(4)
    graph = fj.graph_from_edges({"k": left}, [("k", "a", "b")])
    tx = fj.add_fiedler_penalty(0.1, graph, normalized=False, refresh_every="auto", solver=fj.Dense())
    cuts = [
        jnp.zeros((4, 4)).at[:2, :2].set(1).at[2:, 2:].set(1) * 9 + 1,
        jnp.tile(jnp.array([[10, 1], [1, 10]]), (2, 2)),
    ]
    first, second = ({"k": cut.astype(jnp.float32)} for cut in cuts)
    states = run(tx, [first] * 16)
    lap = fj.laplacian(graph, second, normalized=False)
    old = states[-1].vectors[0]
    np.testing.assert_allclose(lap.matvec(old), lap.quadratic_form(old) * old, atol=1e-5)
    assert states[-1].interval == 16
    states = run(tx, [second] * 16, states[-1])
    assert states[-1].interval == 2


@pytest.mark.parametrize("status", [Status.NOT_FINITE, Status.ITERATION_LIMIT])
def test_a_failed_solve_keeps_the_interval(status: Status) -> None:
    params = network()
    (*_, last) = run(auto(), [params] * 3)
    if status is Status.NOT_FINITE:
        tx, weights = auto(), jax.tree.map(lambda leaf: leaf.at[0].set(jnp.nan), params)
    else:
        tx, weights = auto(solver=fj.PowerIteration(max_iterations=1)), params
    (state,) = run(tx, [weights], last._replace(next_refresh=last.count))
    assert state.status == status
    assert (state.interval, state.next_refresh) == (last.interval, last.count + last.interval)


def test_inject_hyperparams_leaves_the_word_alone() -> None:
    tx = optax.inject_hyperparams(fj.add_fiedler_penalty)(0.1, GRAPH, refresh_every="auto", solver=fj.Dense())
    states = run(tx, [network()] * 8)
    assert fj.fiedler_metrics(states[-1]).refreshes == 4


def test_a_fixed_interval_counts_its_refreshes_too() -> None:
    tx = fj.add_fiedler_penalty(0.1, GRAPH, refresh_every=3, solver=fj.Dense())
    assert [int(state.refreshes) for state in run(tx, [network()] * 7)] == [1, 1, 1, 2, 2, 2, 3]


def test_a_second_step_does_not_compile_again() -> None:
    params = network()
    tx = auto()
    update = jax.jit(tx.update)
    state = tx.init(params)
    for _ in range(3):
        _, state = update(params, state, params)
    assert update._cache_size() == 1  # pyright: ignore[reportFunctionMemberAccess]
