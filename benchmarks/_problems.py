"""One eigenproblem as every solver gets it, and what the NumPy solvers make of it."""

import itertools
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from scipy import sparse

_SEED = 0


@dataclass(frozen=True, eq=False)
class Problem:
    """The weights of a graph whose Fiedler value is asked for.

    Attributes:
        weights: the signed kernels of a chain of Dense layers, or one symmetric adjacency.
        normalized: which Laplacian.
        start: a unit vector (n,) near the Fiedler vector, or None for a cold start.
        symmetric: whether `weights` is an adjacency.
    """

    weights: tuple[np.ndarray, ...]
    normalized: bool
    start: np.ndarray | None = None
    symmetric: bool = False

    @property
    def sizes(self) -> tuple[int, ...]:
        """Vertices of each group."""
        if self.symmetric:
            return (len(self.weights[0]),)
        return (len(self.weights[0]), *(kernel.shape[1] for kernel in self.weights))

    @property
    def vertices(self) -> int:
        """Number of vertices n."""
        return sum(self.sizes)

    @property
    def dtype(self) -> np.dtype:
        """The precision asked for."""
        return self.weights[0].dtype

    @cached_property
    def edges(self) -> int:
        """Number of edges."""
        stored = sum(int(np.count_nonzero(block)) for block in self.weights)
        return stored // 2 if self.symmetric else stored

    @cached_property
    def pattern(self) -> "Pattern":
        """Where the entries of the sparse Laplacian stand; training changes none of it."""
        return _pattern(self)

    def start_block(self, width: int) -> np.ndarray:
        """Columns (n, width) to start from: the start vector if there is one, the rest random but always the same."""
        block = np.random.default_rng(_SEED).standard_normal((self.vertices, width))
        if self.start is not None:
            block[:, 0] = self.start
        return block.astype(self.dtype)


class BlockLaplacian:
    """The Laplacian as block products in NumPy: what a careful user of SciPy would write.

    Attributes:
        blocks: nonnegative edge weights.
        degrees: degree of each vertex.
        scale: ``D^-1/2``, or None if combinatorial.
        diagonal: the diagonal of the Laplacian.
        null_vector: the unit vector of eigenvalue 0.
        upper_bound: a bound of the spectrum.
    """

    def __init__(self, problem: Problem) -> None:
        self._symmetric = problem.symmetric
        self._offsets = np.cumsum([0, *problem.sizes])
        self.blocks = [np.abs(weight) for weight in problem.weights]
        self.degrees = self._degrees(problem.dtype)
        self.scale = _inverse_root(self.degrees) if problem.normalized else None
        self.diagonal = self.degrees if self.scale is None else (self.degrees > 0).astype(problem.dtype)
        null = np.ones_like(self.degrees) if self.scale is None else np.sqrt(self.degrees)
        self.null_vector = null / np.linalg.norm(null)
        self.upper_bound = 2.0 if problem.normalized else 2 * float(self.degrees.max())

    def matmat(self, columns: np.ndarray) -> np.ndarray:
        """``L X`` for columns (n, b)."""
        if self.scale is None:
            return self.degrees[:, None] * columns - self._adjacency_product(columns)
        scale = self.scale[:, None]
        return self.diagonal[:, None] * columns - scale * self._adjacency_product(scale * columns)

    def matvec(self, vector: np.ndarray) -> np.ndarray:
        """``L x`` for one vector, of shape (n,) or (n, 1)."""
        return self.matmat(vector.reshape(-1, 1)).reshape(vector.shape)

    def to_dense(self) -> np.ndarray:
        """The Laplacian as an array (n, n)."""
        at, n = self._offsets, len(self.degrees)
        dense = np.zeros((n, n), self.degrees.dtype)
        if self._symmetric:
            dense -= self.blocks[0]
        else:
            for i, block in enumerate(self.blocks):
                source, target = slice(at[i], at[i + 1]), slice(at[i + 1], at[i + 2])
                dense[source, target], dense[target, source] = -block, -block.T
        if self.scale is not None:
            dense *= self.scale[:, None]
            dense *= self.scale
        np.fill_diagonal(dense, self.diagonal)
        return dense

    def to_sparse(self, pattern: "Pattern") -> sparse.csc_array:
        """The Laplacian as a sparse matrix, its entries put where the pattern says."""
        scale = np.ones_like(self.degrees) if self.scale is None else self.scale
        entries = -np.concatenate([block.ravel() for block in self.blocks])[pattern.stored]
        entries *= scale[pattern.rows] * scale[pattern.columns]
        entries = np.concatenate([entries, self.diagonal])[pattern.order]
        n = len(self.degrees)
        return sparse.csc_array((entries, pattern.indices, pattern.indptr), shape=(n, n))

    def _degrees(self, dtype: np.dtype) -> np.ndarray:
        at, total = self._offsets, np.zeros(self._offsets[-1], dtype)
        for i, block in enumerate(self.blocks):
            total[at[i] : at[i + 1]] += block.sum(axis=1)
            if not self._symmetric:
                total[at[i + 1] : at[i + 2]] += block.sum(axis=0)
        return total

    def _adjacency_product(self, columns: np.ndarray) -> np.ndarray:
        if self._symmetric:
            return self.blocks[0] @ columns
        at, product = self._offsets, np.zeros_like(columns)
        for i, block in enumerate(self.blocks):
            source, target = slice(at[i], at[i + 1]), slice(at[i + 1], at[i + 2])
            product[source] += block @ columns[target]
            product[target] += block.T @ columns[source]
        return product


@dataclass(frozen=True, eq=False)
class Pattern:
    """How the stored weights become the entries of a sparse matrix in compressed columns.

    Attributes:
        stored: for each off-diagonal entry, its place among all weights.
        rows: its row.
        columns: its column.
        order: the order of the off-diagonal entries followed by the diagonal, in the sparse matrix.
        indices: row indices of the sparse matrix.
        indptr: where its columns begin.
    """

    stored: np.ndarray
    rows: np.ndarray
    columns: np.ndarray
    order: np.ndarray
    indices: np.ndarray
    indptr: np.ndarray


def _pattern(problem: Problem) -> Pattern:
    at = np.cumsum([0, *problem.sizes])
    begins = np.cumsum([0, *(weight.size for weight in problem.weights)])
    stored, rows, columns = [], [], []
    for i, weight in enumerate(problem.weights):
        s, t = np.nonzero(weight)
        places = begins[i] + s * weight.shape[1] + t
        if problem.symmetric:
            off = s != t
            stored, rows, columns = [*stored, places[off]], [*rows, s[off]], [*columns, t[off]]
            continue
        s, t = s + at[i], t + at[i + 1]
        stored, rows, columns = [*stored, places, places], [*rows, s, t], [*columns, t, s]
    row, column, n = np.concatenate(rows), np.concatenate(columns), problem.vertices
    everyone = np.arange(n)
    all_rows, all_columns = np.concatenate([row, everyone]), np.concatenate([column, everyone])
    # Entries that hold their own number come out of the conversion in the order to remember.
    numbered = sparse.coo_array((np.arange(len(all_rows)), (all_rows, all_columns)), shape=(n, n)).tocsc()
    return Pattern(np.concatenate(stored), row, column, numbered.data, numbered.indices, numbered.indptr)


def _inverse_root(degrees: np.ndarray) -> np.ndarray:
    positive = np.where(degrees > 0, degrees, 1)
    return np.where(degrees > 0, 1 / np.sqrt(positive), 0).astype(degrees.dtype)


def edge_form(problem: Problem, vector: np.ndarray) -> float:
    """``Σ a_ij (y_i - y_j)²`` over the squared length, in float64, with full relative accuracy for a small value."""
    y = np.asarray(vector, np.float64)
    weights = [np.abs(weight.astype(np.float64)) for weight in problem.weights]
    wide = Problem(tuple(weights), problem.normalized, symmetric=problem.symmetric)
    scale = BlockLaplacian(wide).scale
    y, squared = y if scale is None else scale * y, float(y @ y)
    groups = np.split(y, np.cumsum(problem.sizes)[:-1])
    pairs = [(groups[0], groups[0])] if problem.symmetric else list(itertools.pairwise(groups))
    total = sum(
        float(np.sum(weight * np.subtract.outer(s, t) ** 2)) for weight, (s, t) in zip(weights, pairs, strict=True)
    )
    return (total / 2 if problem.symmetric else total) / squared
