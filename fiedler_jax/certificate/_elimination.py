"""Counting eigenvalues by elimination, with every rounding error bounded."""

import dataclasses
import math

import numpy as np
import scipy.linalg

from fiedler_jax.certificate._graph import EPS, Graph
from fiedler_jax.errors import CertificateSizeError

MAX_ORDER = 6000
"""The largest matrix that is factorized; it costs some GB and minutes there."""

# Terms summed at a time: rounding then grows with a slab and their number, not with all terms. That of the factors
# weighs more.
_SLAB, _FACTOR_SLAB = 1024, 128

# An eliminated vertex multiplies rounding errors by up to diagonal / pivot; one that does so by more is kept instead.
_MOST_AMPLIFIED = 1e3


@dataclasses.dataclass(frozen=True)
class Parts:
    """L cut in two, the k vertices kept and the e to be eliminated, no two of which are joined.

    Attributes:
        inner: adjacency among the vertices kept, shape (k, k), scaled as in L.
        coupling: adjacency between the two parts, shape (e, k), scaled as in L.
        diagonal: the diagonal of L at the vertices kept.
        eliminated_diagonal: the diagonal of L at the others.
        null: the null vector at the vertices kept, positive, of any norm.
        eliminated_null: the null vector at the others.
        norm: bound on the norm of L with all signs positive.
        entry_error: how far rounding of the entries moves an eigenvalue.
    """

    inner: np.ndarray
    coupling: np.ndarray
    diagonal: np.ndarray
    eliminated_diagonal: np.ndarray
    null: np.ndarray
    eliminated_null: np.ndarray
    norm: float
    entry_error: float

    @property
    def usual_margin(self) -> float:
        """What the rounding errors usually come to, for a first try."""
        return 2 * self.entry_error + 4 * EPS * len(self.diagonal) ** 1.5 * self.norm


def partition(graph: Graph, eliminated: np.ndarray) -> Parts:
    """A connected graph cut in two, the second part where the mask is true."""
    kept, gone = np.flatnonzero(~eliminated), np.flatnonzero(eliminated)
    if len(kept) > MAX_ORDER:
        raise CertificateSizeError(
            f"Of {len(eliminated)} vertices {len(kept)} are left to factorize, more than {MAX_ORDER}, since edges join "
            "most of them among one another. Use fj.bounds, or certify a smaller network of the same kind."
        )
    return Parts(
        inner=graph.adjacency(kept, kept),
        coupling=graph.adjacency(gone, kept),
        diagonal=graph.diagonal[kept],
        eliminated_diagonal=graph.diagonal[gone],
        null=graph.null_vector[kept],
        eliminated_null=graph.null_vector[gone],
        norm=graph.norm,
        entry_error=graph.entry_error,
    )


def count_beside(parts: Parts, shift: float, side: int, margin: float) -> tuple[int | None, float]:
    """How many eigenvalues lie below a point so far to one side of the shift that rounding reaches no further.

    Returns the count, none if rounding reaches too far, and that distance, at least the given margin.
    """
    tries = 4
    while tries and margin < math.inf:
        tries -= 1
        point = shift + side * margin
        if point <= 0:
            # L is positive semidefinite.
            return 0, margin
        count, error = _count_below(parts, point)
        if error <= margin:
            return count, margin
        margin = 2 * error
    return None, math.inf


def _count_below(parts: Parts, point: float) -> tuple[int, float]:
    """How many eigenvalues of a matrix near L lie below a point, and a bound on the distance of the two in norm.

    The eigenvalues below s are the negative pivots ``D_E - s`` and those of ``S = L_OO - s - L_OE (D_E - s)^-1 L_EO``.
    All rounding is read as an error E of L, which moves eigenvalues by ``|E|`` at most (Weyl), so that a small pivot
    amplifies the error of S alone:

    - the entries of L: `Parts.entry_error`; ``d - s`` and s: ``u (norm + 2 s)``; a pivot below ``ε norm`` is replaced
      by that, with its sign, which changes it by ``2 ε norm`` at most;
    - an error of S is one of ``L_OO``: entry by entry below ``ε (slab + slabs + 8)`` times
      ``G = |L_OO - s| + |L_OE| |D_E - s|^-1 |L_EO|``;
    - the factors of S are exact for ``S - R``, with the computed residual R in the Frobenius norm, computed to within
      ``ε (slab + slabs + 8)`` times ``H = |S| + |L| |D| |Lᵀ|``.

    The norm of a nonnegative symmetric G is at most the largest ``(G v)_i / v_i``, whatever the positive v (Collatz
    and Wielandt), and the null vector is a good one. With u = ε / 2 for the unit roundoff, every term has a factor
    two to spare for its own evaluation.
    """
    with np.errstate(all="ignore"):
        floor = EPS * parts.norm
        pivots = parts.eliminated_diagonal - point
        pivots = np.where(np.abs(pivots) < floor, np.copysign(floor, pivots), pivots)
        # A vertex kept costs only one more row.
        kept = parts.eliminated_diagonal > _MOST_AMPLIFIED * np.abs(pivots)
        if len(parts.diagonal) + np.sum(kept) > MAX_ORDER:
            kept = np.zeros_like(kept)
        schur, schur_error = _schur_complement(parts, point, pivots, kept)
        if not np.all(np.isfinite(schur)):
            return 0, math.inf
        null = np.concatenate([parts.null, parts.eliminated_null[kept]])
        negative, factor_error = _negative_eigenvalues(schur, null)
        error = parts.entry_error + EPS * (4 * parts.norm + 2 * point) + schur_error + factor_error
    return int(np.sum(pivots[~kept] < 0)) + negative, error if math.isfinite(error) else math.inf


def _schur_complement(parts: Parts, point: float, pivots: np.ndarray, kept: np.ndarray) -> tuple[np.ndarray, float]:
    """S, with rows for the kept ones of the vertices to be eliminated, and the bound on its error."""
    k = len(parts.diagonal)
    schur = np.diag(np.concatenate([parts.diagonal - point, pivots[kept]]))
    schur[:k, :k] -= parts.inner
    schur[k:, :k] = -parts.coupling[kept]
    schur[:k, k:] = schur[k:, :k].T
    null = np.concatenate([parts.null, parts.eliminated_null[kept]])
    reach, slabs = np.abs(schur) @ null, 0
    for sign in (1, -1):
        vertices = np.flatnonzero(~kept & (sign * pivots > 0))
        for start in range(0, len(vertices), _SLAB):
            slab = vertices[start : start + _SLAB]
            half = parts.coupling[slab] / np.sqrt(np.abs(pivots[slab]))[:, None]
            # The transpose of an array times the array itself takes half the work.
            schur[:k, :k] -= sign * (half.T @ half)
            reach[:k] += (half @ parts.null) @ half
            slabs += 1
    terms = min(_SLAB, len(pivots)) + slabs
    return schur, EPS * (terms + 8) * float(np.max(reach / null, initial=0))


def _negative_eigenvalues(matrix: np.ndarray, null: np.ndarray) -> tuple[int, float]:
    """How many eigenvalues of a matrix near a symmetric one are negative, and the bound on the distance in norm."""
    if not len(matrix):
        return 0, 0.0
    factor, blocks, _ = scipy.linalg.ldl(matrix, check_finite=False)
    diagonal, beside = np.diag(blocks), np.diag(blocks, -1)
    first = np.flatnonzero(beside)
    single = np.ones(len(matrix), bool)
    single[first] = single[first + 1] = False
    # The pivoting makes the determinant of a 2 x 2 block clearly negative: one eigenvalue of each sign.
    if not np.all(np.abs(diagonal[first] * diagonal[first + 1]) < 0.9 * beside[first] ** 2):
        return 0, math.inf
    residual, product = matrix.copy(), _times_blocks(factor, diagonal, beside)
    slabs = range(0, len(matrix), _FACTOR_SLAB)
    for start in slabs:
        residual -= product[:, start : start + _FACTOR_SLAB] @ factor[:, start : start + _FACTOR_SLAB].T
    absolute = np.abs(factor)
    reach = np.abs(matrix) @ null + absolute @ _times_blocks(null @ absolute, np.abs(diagonal), np.abs(beside))
    terms = min(_FACTOR_SLAB, len(matrix)) + len(slabs)
    error = np.linalg.norm(residual) + EPS * (terms + 8) * np.max(reach / null)
    return int(np.sum(diagonal[single] < 0)) + len(first), float(error)


def _times_blocks(x: np.ndarray, diagonal: np.ndarray, beside: np.ndarray) -> np.ndarray:
    """Rows times the matrix of 1 x 1 and 2 x 2 blocks with this diagonal and this next to it."""
    out = x * diagonal
    out[..., :-1] += x[..., 1:] * beside
    out[..., 1:] += x[..., :-1] * beside
    return out
