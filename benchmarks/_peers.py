"""The contenders, all called in the same way: ours, SciPy, NetworkX, JAX, matfree, and dense.

What is timed is what a training loop would repeat, since every call meets new weights; what it would do once is not.

Outside the timing: the graph's structure, compilation, moving weights and start vectors to the device, where weights
go in a sparse matrix, NetworkX's graph object (in its favour: it holds the weights), and looking for the tolerance.

Inside: absolute values, degrees, their inverse roots and the null vector; filling the sparse or the dense matrix; the
solve; value and vector, ready to use (NetworkX gives the value only). Ours and the other two on JAX build and multiply
with our Laplacian, those of SciPy with block products in NumPy.
"""

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import networkx as nx
import numpy as np
import scipy.linalg
from scipy import sparse
from scipy.sparse.linalg import LinearOperator, eigsh, lobpcg

from benchmarks._contenders import Answer, Base, Contender, Knob, Ladder, Lobpcg, Solve, tolerances, too_many_edges
from benchmarks._jax_peers import JaxLobpcg, Matfree, Ours
from benchmarks._problems import BlockLaplacian, Problem

_MAX_ITERATIONS = 1000


@dataclass(frozen=True)
class ScipyLobpcg(Lobpcg):
    """SciPy's LOBPCG, preconditioned by the diagonal and kept orthogonal to the null vector."""

    name: str = "lobpcg"

    def prepare(self, problem: Problem) -> Solve:
        """Nothing to prepare but the start."""

        def call(knob: Knob) -> Answer:
            lap = BlockLaplacian(problem)
            inverse = 1 / np.where(lap.diagonal > 0, lap.diagonal, 1)
            with warnings.catch_warnings(record=True) as complaints:
                warnings.simplefilter("always")
                values, vectors = lobpcg(
                    _operator(lap.matvec, lap.matmat, problem),
                    problem.start_block(knob.option or 1),
                    M=_operator(
                        lambda x: (inverse * x.ravel()).reshape(x.shape), lambda x: inverse[:, None] * x, problem
                    ),
                    Y=lap.null_vector[:, None],
                    tol=knob.value * lap.upper_bound,
                    maxiter=_MAX_ITERATIONS,
                    largest=False,
                )[:2]
            return Answer(values[0], vectors[:, 0], not complaints)

        return call


@dataclass(frozen=True)
class ScipyEigsh(Base):
    """ARPACK's smallest eigenvalue, the null vector lifted to the upper end of the spectrum."""

    name: str = "eigsh"
    bases: tuple[int, ...] = (20, 40)

    def ladders(self, problem: Problem, accuracy: float) -> tuple[Ladder, ...]:
        """Relative tolerances, with the default basis of twenty vectors and a larger one."""
        del accuracy
        bases = [basis for basis in self.bases if basis < problem.vertices] or [problem.vertices - 1]
        return tuple(tuple(k._replace(option=basis) for k in tolerances(problem, 1.0, 0.1)) for basis in bases)

    def describe(self, knob: Knob) -> str:
        """Tolerance and basis size."""
        return f"tol {knob.value:.0e}, ncv {knob.option}"

    def prepare(self, problem: Problem) -> Solve:
        """Nothing to prepare but the start."""
        start = problem.start_block(1)[:, 0]

        def call(knob: Knob) -> Answer:
            lap = BlockLaplacian(problem)
            lifted = lap.null_vector * problem.dtype.type(lap.upper_bound)

            def product(x: np.ndarray) -> np.ndarray:
                flat = x.ravel()
                return lap.matvec(flat) + lifted * (lap.null_vector @ flat)

            operator = _operator(product, None, problem)
            values, vectors = eigsh(operator, 1, which="SA", v0=start, ncv=knob.option, **_tolerance(knob))
            return Answer(values[0], vectors[:, 0], True)

        return call


@dataclass(frozen=True)
class ScipyShiftInvert(Base):
    """ARPACK on the inverse of the sparse Laplacian, shifted to slightly below zero."""

    name: str = "eigsh-invert"
    most_edges: int = 3_000_000

    def refusal(self, problem: Problem) -> str | None:
        """The factors of a larger matrix take minutes and tens of GB."""
        return too_many_edges(problem, self.most_edges)

    def ladders(self, problem: Problem, accuracy: float) -> tuple[Ladder, ...]:
        """Relative tolerances."""
        del accuracy
        return (tolerances(problem, 2.0, 0.1),)

    def prepare(self, problem: Problem) -> Solve:
        """Find where the weights go in the sparse matrix."""
        pattern, start = problem.pattern, problem.start_block(1)[:, 0]

        def call(knob: Knob) -> Answer:
            lap = BlockLaplacian(problem)
            shift = -1e-3 * float(lap.diagonal.mean())
            values, vectors = eigsh(lap.to_sparse(pattern), 2, sigma=shift, v0=start, **_tolerance(knob))
            return Answer(values[1], vectors[:, 1], True)

        return call


@dataclass(frozen=True)
class Networkx(Base):
    """`networkx.algebraic_connectivity`; its graph object counts as prepared. It computes in float64 only."""

    name: str = "networkx"
    accepts_start: bool = False
    method: Literal["tracemin_pcg", "lanczos"] = "tracemin_pcg"
    most_edges: int = 200_000

    def refusal(self, problem: Problem) -> str | None:
        """A larger graph takes minutes and GBs as Python objects."""
        return too_many_edges(problem, self.most_edges)

    def promise(self, problem: Problem, knob: Knob, value: float, bound: float) -> float:
        """TraceMIN bounds the residual by a part of the norm; ARPACK the error by a part of the value."""
        del problem
        return knob.value * (bound / value if self.method.startswith("tracemin") else 1)

    def ladders(self, problem: Problem, accuracy: float) -> tuple[Ladder, ...]:
        """Tolerances down to rounding in float64."""
        del problem, accuracy
        return (tuple(Knob(10.0**-i) for i in range(2, 12)),)

    def prepare(self, problem: Problem) -> Solve:
        """Make the graph object."""
        graph = nx.from_scipy_sparse_array(_adjacency(problem))

        def call(knob: Knob) -> Answer:
            value = nx.algebraic_connectivity(
                graph, normalized=problem.normalized, tol=knob.value, method=self.method, seed=0
            )
            return Answer(value, None, True)

        return call


@dataclass(frozen=True)
class Dense(Base):
    """LAPACK on the assembled matrix, for the second eigenvalue alone."""

    name: str = "dense"
    accepts_start: bool = False
    most_vertices: int = 4000

    def refusal(self, problem: Problem) -> str | None:
        """Its time grows with the cube of the vertices."""
        if problem.vertices <= self.most_vertices:
            return None
        return f"{problem.vertices:,} vertices, more than {self.most_vertices:,}"

    def ladders(self, problem: Problem, accuracy: float) -> tuple[Ladder, ...]:
        """There is nothing to set."""
        del accuracy
        return ((Knob(float(np.finfo(problem.dtype).eps)),),)

    def promise(self, problem: Problem, knob: Knob, value: float, bound: float) -> float:
        """Backward stability."""
        return problem.vertices * knob.value * bound / value

    def describe(self, knob: Knob) -> str:
        """There is nothing to set."""
        return f"eps {knob.value:.0e}"

    def prepare(self, problem: Problem) -> Solve:
        """Nothing to prepare."""

        def call(knob: Knob) -> Answer:
            del knob
            dense = BlockLaplacian(problem).to_dense()
            values, vectors = scipy.linalg.eigh(dense, subset_by_index=[1, 1], overwrite_a=True, check_finite=False)
            return Answer(values[0], vectors[:, 0], True)

        return call


CONTENDERS: tuple[Contender, ...] = (
    Ours(),
    ScipyLobpcg(),
    ScipyEigsh(),
    ScipyShiftInvert(),
    Networkx(),
    Networkx("networkx-lanczos", method="lanczos"),
    JaxLobpcg(),
    Matfree(),
    Dense(),
)


def _operator(matvec: Callable, matmat: Callable | None, problem: Problem) -> LinearOperator:
    n = problem.vertices
    return LinearOperator((n, n), matvec=matvec, matmat=matmat, dtype=problem.dtype)  # pyright: ignore[reportCallIssue]


def _tolerance(knob: Knob) -> dict[str, Any]:
    # SciPy's default of 0 makes type checkers take the tolerance for an integer.
    return {"tol": knob.value}


def _adjacency(problem: Problem) -> sparse.csc_array:
    plain = Problem(tuple(w.astype(np.float64) for w in problem.weights), False, symmetric=problem.symmetric)
    lap = BlockLaplacian(plain).to_sparse(plain.pattern)
    adjacency = -lap
    adjacency.setdiag(0)
    adjacency.eliminate_zeros()
    return adjacency
