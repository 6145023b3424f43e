"""What tests of hard spectra share: whom they ask, how, and what they hold the answer to."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import fiedler_jax as fj
from fiedler_jax import Status, eigen

BOTH = pytest.mark.parametrize("normalized", [False, True])
# Where the two Laplacians share all that is tested, the normalized one stands for both by default.
NORMALIZED = pytest.mark.parametrize("normalized", [pytest.param(False, marks=pytest.mark.slow), True])
EACH = pytest.mark.parametrize(
    "solver",
    [pytest.param(fj.Davidson(), id="Davidson"), pytest.param(fj.Lanczos(), id="Lanczos", marks=pytest.mark.slow)],
)


def narrow(dtype: str) -> bool:
    return dtype == "float32"


def tolerance(dtype: str) -> float:
    """What a converged value promises."""
    return 1e-6 if narrow(dtype) else 1e-9


def rounding(dtype: str) -> float:
    """What comes on top of it, relative to the value."""
    return 8 * float(np.finfo(dtype).eps)


def oracle_error(values: np.ndarray) -> float:
    """How far the dense spectrum itself may be off."""
    return len(values) * float(np.finfo("float64").eps) * float(values[-1])


def assert_never_wrong_in_silence(
    found: fj.FiedlerPair | eigen.EigenResult,
    values: np.ndarray,
    dtype: str,
    max_iterations: int = fj.Davidson().max_iterations,
) -> None:
    """The promise, given the spectrum of the graph (of its connected vertices if isolated ones are left out)."""
    pair = isinstance(found, fj.FiedlerPair)
    value, residual = (found.value, found.residual) if pair else (found.values, found.residuals)
    value, residual, error = (np.atleast_1d(x).astype("float64") for x in (value, residual, found.error))
    status, floor, expected = Status(int(found.status)), float(found.floor), values[1 : 1 + len(value)]
    if len(expected) < len(value):
        assert status is Status.TOO_FEW_VERTICES
        return
    inexact = rounding(dtype) * value + oracle_error(values)
    if pair:
        assert value >= expected - inexact
    if status is Status.CONVERGED:
        assert np.all(abs(value - expected) <= tolerance(dtype) * expected + inexact)
        assert np.all(abs(value - expected) <= error + inexact)
    elif status is Status.ACCURACY_FLOOR:
        # Of several values some may be accurate, and those that cannot be told apart are in no order.
        assert np.all((residual <= floor) | ((len(value) > 1) & (error <= tolerance(dtype) * value)))
        assert np.all(abs(np.sort(value) - expected) <= error + floor + inexact)
    else:
        assert status is Status.ITERATION_LIMIT
        assert int(found.iterations) > max_iterations


@functools.partial(jax.jit, static_argnames=("normalized", "num", "solver", "ignore_isolated"))
def eigenpairs(
    adjacency: jax.Array,
    normalized: bool,
    num: int,
    solver: eigen.Solver = fj.Davidson(),
    ignore_isolated: bool = False,
    init: jax.Array | None = None,
) -> eigen.EigenResult:
    """The smallest eigenpairs of a graph, without its null vector."""
    lap = fj.laplacian_from_adjacency(adjacency, normalized=normalized)
    return fj.laplacian_eigenpairs(lap, num, init, solver=solver, ignore_isolated=ignore_isolated)


@functools.partial(jax.jit, static_argnames=("normalized", "solver", "ignore_isolated"))
def solve(
    adjacency: jax.Array,
    normalized: bool,
    init: jax.Array | None = None,
    solver: eigen.Solver = fj.Davidson(),
    ignore_isolated: bool = False,
) -> fj.FiedlerPair:
    lap = fj.laplacian_from_adjacency(adjacency, normalized=normalized)
    return fj.fiedler_pair(lap, init, solver=solver, ignore_isolated=ignore_isolated)


def fiedler(adjacency: np.ndarray, normalized: bool, dtype: str, init: np.ndarray | None = None, **how: Any) -> Any:
    start = None if init is None else jnp.asarray(np.atleast_2d(init), dtype)
    return solve(jnp.asarray(adjacency, dtype), normalized, start, **how)


def padded(adjacency: np.ndarray, n: int = 40) -> np.ndarray:
    """The graph among isolated vertices: one shape for all graphs, so one compilation."""
    return np.pad(np.asarray(adjacency, float), (0, n - len(adjacency)))


def communities(bridge: float, seed: int) -> np.ndarray:
    """Two dense communities and a few weak edges between them, the vertices shuffled."""
    rng = np.random.default_rng(seed)
    inside = np.kron(np.eye(2), np.ones((20, 20)))
    weights = np.where(inside > 0, rng.uniform(0.5, 1, (40, 40)), bridge * (rng.random((40, 40)) < 0.05))
    upper = np.triu(weights, 1)
    upper[19, 20] = bridge
    return (upper + upper.T)[(order := rng.permutation(40))][:, order]
