"""The contenders that run on JAX: ours, JAX's LOBPCG, and matfree's Lanczos."""

import functools
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import matfree.decomp
import numpy as np
from jax.experimental.sparse.linalg import lobpcg_standard

import fiedler_jax as fj
from benchmarks._compiling import compiled_anew
from benchmarks._contenders import Answer, Base, Knob, Ladder, Lobpcg, Solve
from benchmarks._problems import Problem
from benchmarks._reference import chain_params

_MAX_ITERATIONS = 1000
_STEPS = (6, 8, 10, 12, 16, 20, 24, 32, 40, 48, 64, 80, 96, 128, 160, 192, 256, 320, 384, 512, 640, 768, 1024)


@dataclass(frozen=True)
class Ours(Base):
    """`fiedler_pair` with its default solver, asked for the accuracy that is demanded."""

    name: str = "ours"
    compiled: bool = True

    def ladders(self, problem: Problem, accuracy: float) -> tuple[Ladder, ...]:
        """The accuracy itself and nothing else: it is not told what a looser tolerance would have reached."""
        del problem
        return ((Knob(accuracy),),)

    def prepare(self, problem: Problem) -> Solve:
        """Put the weights on the device; compilation comes with the first call."""
        weights, start = _weights(problem), _start_vector(problem)

        def call(knob: Knob) -> Answer:
            pair = _pair(weights, start, knob.value)
            return Answer(pair.value, pair.vector, pair.status == fj.Status.CONVERGED)

        return call


@functools.partial(jax.jit, static_argnames="tol")
def _pair(weights: "_Weights", start: jax.Array | None, tol: float | None = None) -> fj.FiedlerPair:
    return fj.fiedler_pair(weights.laplacian(), init=start, solver=fj.Davidson(tol=tol))


def compile_seconds(problem: Problem, times: int) -> float:
    """Median seconds to trace and compile our solve anew, without the persistent cache."""
    return compiled_anew(_pair, _weights(problem), _start_vector(problem), times=times)[1]


def _start_vector(problem: Problem) -> jax.Array | None:
    return None if problem.start is None else jnp.asarray(problem.start, problem.dtype)


@dataclass(frozen=True)
class JaxLobpcg(Lobpcg):
    """JAX's LOBPCG, which has no preconditioner and only finds the largest: of ``bound - L``, without the null vector.

    It multiplies with our Laplacian.
    """

    name: str = "jax-lobpcg"
    compiled: bool = True

    def prepare(self, problem: Problem) -> Solve:
        """Put weights and starts on the device; compilation comes with the first call."""
        weights = _weights(problem)
        blocks = {width: jnp.asarray(problem.start_block(width)) for width in self.widths}

        def call(knob: Knob) -> Answer:
            # Its tolerance is relative to a residual of about 20 n times the largest eigenvalue.
            tol = problem.dtype.type(knob.value / (20 * problem.vertices))
            return Answer(*_lobpcg_of_shifted(weights, blocks[knob.option or 1], tol))

        return call


@jax.jit
def _lobpcg_of_shifted(weights: "_Weights", block: jax.Array, tol: jax.Array):
    lap = weights.laplacian()
    bound, null = lap.upper_bound, lap.null_vector

    def shifted(columns: jax.Array) -> jax.Array:
        rows = columns.T
        return (bound * (rows - (rows @ null)[:, None] * null) - lap.matvec(rows)).T

    block = block - null[:, None] * (null @ block)
    values, vectors, iterations = lobpcg_standard(shifted, block, _MAX_ITERATIONS, tol)
    return bound - values[0], vectors[:, 0], iterations < _MAX_ITERATIONS


@dataclass(frozen=True)
class Matfree(Base):
    """matfree's Lanczos with full reorthogonalization. It has no stopping rule: the number of steps is told to it.

    Only the one Ritz vector is formed, where `matfree.eig.eigh_partial` would form all. It multiplies with our
    Laplacian.
    """

    name: str = "matfree"
    compiled: bool = True

    def ladders(self, problem: Problem, accuracy: float) -> tuple[Ladder, ...]:
        """Numbers of steps."""
        del accuracy
        most = problem.vertices - 1
        return (tuple(Knob(steps) for steps in (*(s for s in _STEPS if s < most), min(most, _STEPS[-1]))),)

    def promise(self, problem: Problem, knob: Knob, value: float, bound: float) -> float:
        """It promises nothing."""
        del problem, knob, value, bound
        return np.inf

    def describe(self, knob: Knob) -> str:
        """The number of steps."""
        return f"{knob.value:.0f} steps"

    def prepare(self, problem: Problem) -> Solve:
        """Put weights and start on the device; compilation comes with the first call."""
        weights = _weights(problem)
        start = jnp.asarray(problem.start_block(1)[:, 0])

        def call(knob: Knob) -> Answer:
            return Answer(*_lanczos(weights, start, steps=int(knob.value)))

        return call


@functools.partial(jax.jit, static_argnames="steps")
def _lanczos(weights: "_Weights", start: jax.Array, *, steps: int):
    lap = weights.laplacian()
    bound, null = lap.upper_bound, lap.null_vector

    def lifted(x: jax.Array) -> jax.Array:
        return lap.matvec(x) + bound * (null @ x) * null

    tridiag = matfree.decomp.tridiag_sym(steps, custom_vjp=False)
    basis, projected, *_ = tridiag(lifted, start - null * (null @ start))
    values, vectors = jnp.linalg.eigh(projected)
    return values[0], vectors[:, 0] @ basis


@functools.partial(jax.tree_util.register_dataclass, data_fields=("arrays",), meta_fields=("graph", "normalized"))
@dataclass(frozen=True)
class _Weights:
    """Weights on the device; all contenders on JAX make our Laplacian of them, within what they compile."""

    arrays: Any
    graph: fj.NetworkGraph | None
    normalized: bool

    def laplacian(self) -> fj.Laplacian:
        if self.graph is None:
            return fj.laplacian_from_adjacency(self.arrays, normalized=self.normalized)
        return fj.laplacian(self.graph, self.arrays, normalized=self.normalized)


def _weights(problem: Problem) -> _Weights:
    if problem.symmetric:
        return _Weights(jnp.asarray(np.abs(problem.weights[0])), None, problem.normalized)
    params = jax.tree.map(jnp.asarray, chain_params(problem))
    return _Weights(params, fj.graph_from_params(params), problem.normalized)
