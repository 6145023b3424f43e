"""The Fiedler value that all solvers are held to: dense where that is possible, otherwise proved by counting."""

from typing import NamedTuple

import jax
import numpy as np
import scipy.linalg

import fiedler_jax as fj
from benchmarks._errors import BenchmarkError
from benchmarks._problems import BlockLaplacian, Problem, edge_form
from fiedler_jax.certificate import Verdict, certify
from fiedler_jax.errors import CertificateSizeError

DENSE_LIMIT = 3000
# The digits come from the residual; the count has to tell λ2 from its neighbours, as closely as rounding allows.
_TOLERANCES = (1e-9, 1e-6)
_TIGHT = 1e-13


class UnprovedError(BenchmarkError):
    """No value could be proved to be the Fiedler value, so nothing can be held to it."""


class Reference(NamedTuple):
    """The right value, a vector that has it, the largest eigenvalue's bound, and how the value was made certain."""

    value: float
    vector: np.ndarray
    upper_bound: float
    method: str


def reference(problem: Problem) -> Reference:
    """The Fiedler value in float64, from a dense solver or proved by a count of eigenvalues.

    Raises:
        UnprovedError: the value could not be proved.
    """
    wide = Problem(tuple(w.astype(np.float64) for w in problem.weights), problem.normalized, None, problem.symmetric)
    bound = BlockLaplacian(wide).upper_bound
    if wide.vertices <= DENSE_LIMIT:
        vector = scipy.linalg.eigh(BlockLaplacian(wide).to_dense(), subset_by_index=[1, 1])[1][:, 0]
        # The edge form of the dense vector keeps its relative accuracy where the dense eigenvalue does not.
        return Reference(edge_form(wide, vector), vector, bound, "dense float64")
    with jax.enable_x64(True):
        lap = jax_laplacian(wide)
        pair = fj.fiedler_pair(lap, solver=fj.Davidson(tol=_TIGHT, max_iterations=2000))
        value, vector = float(pair.value), np.asarray(pair.vector)
        return Reference(value, vector, bound, _proof(wide, lap, value))


def jax_laplacian(problem: Problem) -> fj.Laplacian:
    """The problem's Laplacian as the library builds it."""
    if problem.symmetric:
        return fj.laplacian_from_adjacency(np.abs(problem.weights[0]), normalized=problem.normalized)
    params = chain_params(problem)
    return fj.laplacian(fj.graph_from_params(params), params, normalized=problem.normalized)


def chain_params(problem: Problem) -> dict[str, dict[str, np.ndarray]]:
    """The kernels as the parameters of a chain of Dense layers."""
    return {f"Dense_{i}": {"kernel": kernel} for i, kernel in enumerate(problem.weights)}


def count_below(problem: Problem, shift: float) -> int:
    """How many eigenvalues of a chain's Laplacian lie below a shift, by eliminating layer after layer.

    Sylvester's law of inertia: they are the negative eigenvalues of the successive Schur complements of ``L - s``.
    """
    lap = BlockLaplacian(problem)
    ends = np.cumsum(problem.sizes)
    scales = np.split(np.ones_like(lap.degrees) if lap.scale is None else lap.scale, ends[:-1])
    diagonals = np.split(lap.diagonal - shift, ends[:-1])
    coupling = scales[0][:, None] * lap.blocks[0] * scales[1]
    count = int(np.sum(diagonals[0] < 0))
    complement = -coupling.T @ (coupling / diagonals[0][:, None])
    for i, diagonal in enumerate(diagonals[1:], start=1):
        complement[np.diag_indices_from(complement)] += diagonal
        last = i + 1 == len(diagonals)
        right = np.zeros((len(diagonal), 0)) if last else scales[i][:, None] * lap.blocks[i] * scales[i + 1]
        negative, complement = _eliminate(complement, right)
        count += negative
    return count


def _eliminate(matrix: np.ndarray, right: np.ndarray) -> tuple[int, np.ndarray]:
    """The number of negative eigenvalues of A, and ``-BᵀA⁻¹B``."""
    if not right.shape[1]:
        return _negative(matrix), right
    try:
        factor = scipy.linalg.cholesky(matrix, lower=True)
    except np.linalg.LinAlgError:
        return _negative(matrix), -right.T @ scipy.linalg.solve(matrix, right, assume_a="sym")
    half = scipy.linalg.solve_triangular(factor, right, lower=True)
    return 0, -half.T @ half


def _negative(matrix: np.ndarray) -> int:
    """How many eigenvalues are negative: as many as those of D in ``L D Lᵀ``, whose blocks are of order two at most."""
    blocks = scipy.linalg.ldl(matrix)[1]
    values = np.asarray(scipy.linalg.eigvalsh_tridiagonal(np.diag(blocks), np.diag(blocks, 1)))
    return int(np.sum(values < 0))


def _proof(problem: Problem, lap: fj.Laplacian, value: float) -> str:
    verdict = Verdict.UNDECIDED
    for tol in _TOLERANCES:
        try:
            verdict = certify(lap, value, tol=tol).verdict
        except CertificateSizeError:
            return _proof_by_layers(problem, value, tol)
        if verdict is Verdict.PROVED:
            return f"certified to {tol:g}"
        if verdict is Verdict.REFUTED:
            break
    raise UnprovedError(f"the tight float64 value {value!r} of a network with {problem.sizes} units is {verdict}")


def _proof_by_layers(problem: Problem, value: float, tol: float) -> str:
    below, above = (count_below(problem, value * (1 + side * tol)) for side in (-1, 1))
    if below == 1 and above > 1:
        return f"counted layer by layer to {tol:g}"
    raise UnprovedError(
        f"the tight float64 value {value!r} of a network with {problem.sizes} units is not λ2: {below} eigenvalues lie "
        f"below it and {above} up to it"
    )
