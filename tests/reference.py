"""The oracle: dense float64 Laplacians and spectra in plain NumPy, written without the library."""

import itertools
from collections.abc import Callable, Sequence

import numpy as np

Kernels = list[np.ndarray]


def random_kernels(sizes: Sequence[int], seed: int = 0) -> Kernels:
    """Kernels uniform in ±1/sqrt(fan_in), the initialization of the paper."""
    rng = np.random.default_rng(seed)
    return [rng.uniform(-1, 1, (a, b)) / np.sqrt(a) for a, b in itertools.pairwise(sizes)]


def chain_params(kernels: Kernels, dtype: str = "float32") -> dict:
    """Kernels as the parameters of a linen chain, rounded to a dtype."""
    return {
        f"Dense_{i}": {"kernel": k.astype(dtype), "bias": np.zeros(k.shape[1], dtype)} for i, k in enumerate(kernels)
    }


def chain_adjacency(kernels: Kernels) -> np.ndarray:
    """The adjacency of a chain."""
    sizes = [kernels[0].shape[0], *(k.shape[1] for k in kernels)]
    offsets = np.cumsum([0, *sizes])
    adjacency = np.zeros((offsets[-1], offsets[-1]))
    for i, kernel in enumerate(kernels):
        adjacency[offsets[i] : offsets[i + 1], offsets[i + 1] : offsets[i + 2]] = np.abs(kernel)
    return adjacency + adjacency.T


def dense_laplacian(adjacency: np.ndarray, normalized: bool) -> np.ndarray:
    """The Laplacian with zero rows at isolated vertices."""
    adjacency = np.asarray(adjacency, np.float64) * (1 - np.eye(len(adjacency)))
    degrees = adjacency.sum(axis=1)
    if not normalized:
        return np.diag(degrees) - adjacency
    with np.errstate(divide="ignore"):
        scale = np.where(degrees > 0, 1 / np.sqrt(degrees), 0)
    return np.diag((degrees > 0).astype(float)) - scale[:, None] * adjacency * scale


def spectrum(adjacency: np.ndarray, normalized: bool) -> np.ndarray:
    """All eigenvalues, ascending."""
    return np.linalg.eigvalsh(dense_laplacian(adjacency, normalized))


def fiedler_value_exceeds(kernels: Kernels, normalized: bool) -> Callable[[float], bool]:
    """Whether the Fiedler value of a chain with a wide input lies above a shift, by eliminating the input units.

    Below the least diagonal entry of the input units, λ2 > s exactly when the Schur complement of ``L - s``, with the
    null vector lifted out of the way, is positive definite. Above it, Sylvester's law of inertia: the eigenvalues
    below s are as many as the negative pivots of the input units plus those of the Schur complement.
    """
    first, rest = np.abs(kernels[0]), chain_adjacency(kernels[1:])
    degrees_in = first.sum(axis=1)
    degrees = rest.sum(axis=1)
    degrees[: first.shape[1]] += first.sum(axis=0)
    coupling, diagonal_in, inner = first, degrees_in, np.diag(degrees) - rest
    null_in, null_inner = np.ones_like(degrees_in), np.ones_like(degrees)
    if normalized:
        a, b = 1 / np.sqrt(degrees_in), 1 / np.sqrt(degrees)
        coupling = a[:, None] * first * b[: first.shape[1]]
        diagonal_in, inner = np.ones_like(degrees_in), np.eye(len(b)) - b[:, None] * rest * b
        null_in, null_inner = 1 / a, 1 / b

    def exceeds(shift: float) -> bool:
        pivots, width = diagonal_in - shift, coupling.shape[1]
        schur = inner - shift * np.eye(len(inner))
        schur[:width, :width] -= coupling.T @ (coupling / pivots[:, None])
        if np.any(pivots <= 0):
            return int((pivots < 0).sum() + (np.linalg.eigvalsh(schur) < 0).sum()) <= 1
        lifted = null_inner.copy()
        lifted[:width] += coupling.T @ (null_in / pivots)
        try:
            np.linalg.cholesky(schur + np.outer(lifted, lifted) / (null_in @ (null_in / pivots)))
        except np.linalg.LinAlgError:
            return False
        return True

    return exceeds
