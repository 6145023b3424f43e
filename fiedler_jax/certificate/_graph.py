"""The weighted graph of a Laplacian in float64, on the host."""

import dataclasses
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from fiedler_jax._checks import flag
from fiedler_jax.errors import AdjacencyError, NoFiedlerValueError
from fiedler_jax.laplacian import Laplacian, check_laplacian

# Twice the unit roundoff: the slack pays for rounding while a bound on rounding is itself computed.
EPS = float(np.finfo(np.float64).eps)


class Edges(NamedTuple):
    """Edge weights (s, t) between the vertices in rows (s,) and in columns (t,), each edge once."""

    rows: np.ndarray
    columns: np.ndarray
    weights: np.ndarray

    @property
    def transposed(self) -> "Edges":
        return Edges(self.columns, self.rows, self.weights.T)


@dataclasses.dataclass(frozen=True)
class Graph:
    """The weighted graph behind a Laplacian; `vertices` are the numbers its vertices have there."""

    edges: tuple[Edges, ...]
    degrees: np.ndarray
    vertices: np.ndarray
    normalized: bool

    @property
    def scale(self) -> np.ndarray:
        """What the adjacency is multiplied by on either side: ``D^-1/2``, zero at isolated vertices, or one."""
        if not self.normalized:
            return np.ones_like(self.degrees)
        return np.where(self.degrees > 0, 1 / np.sqrt(np.where(self.degrees > 0, self.degrees, 1)), 0)

    @property
    def diagonal(self) -> np.ndarray:
        """The diagonal of L."""
        return (self.degrees > 0).astype(np.float64) if self.normalized else self.degrees

    @property
    def null_vector(self) -> np.ndarray:
        """A vector of eigenvalue zero, not of unit norm."""
        return np.sqrt(self.degrees) if self.normalized else np.ones_like(self.degrees)

    @property
    def norm(self) -> float:
        """A bound on the norm of ``D + A``, or of ``I + D^-1/2 A D^-1/2``."""
        return 2.0 if self.normalized else 2 * float(self.degrees.max())

    @property
    def entry_error(self) -> float:
        """How far rounding of the entries moves an eigenvalue.

        On its way into a degree or an entry of the adjacency, a weight of one of m blocks goes through n + 2 m
        additions at most, and the scaling by ``D^-1/2`` takes fewer than 8 operations. So entry by entry the error is
        below (n + 2 m + 8) u times ``D + A``, and its norm below that multiple of the norm.
        """
        n = len(self.degrees)
        return EPS * (n + 2 * len(self.edges) + 8) * self.norm + n * float(np.finfo(np.float64).tiny)

    def each_way(self) -> Iterator[Edges]:
        """The blocks, then the blocks transposed."""
        for edges in self.edges:
            yield edges
            yield edges.transposed

    def adjacency(self, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
        """``A``, or ``D^-1/2 A D^-1/2``, in these rows and columns."""
        out = np.zeros((len(rows), len(columns)))
        row_of, column_of = np.full((2, len(self.degrees)), -1)
        row_of[rows], column_of[columns] = np.arange(len(rows)), np.arange(len(columns))
        for sources, targets, weights in self.each_way():
            i, j = row_of[sources], column_of[targets]
            out[np.ix_(i[i >= 0], j[j >= 0])] += weights[i >= 0][:, j >= 0]
        return self.scale[rows, None] * out * self.scale[columns]

    def edge_sum(self, y: np.ndarray) -> float:
        """The sum over edges of ``a_ij (y_i - y_j)²``."""
        return float(sum(np.sum(w * (y[rows, None] - y[columns]) ** 2) for rows, columns, w in self.edges))

    def residual(self, x: np.ndarray, value: float) -> float:
        """``|L x - value x|``."""
        product, y = np.zeros_like(x), self.scale * x
        for rows, columns, weights in self.each_way():
            product[rows] += weights @ y[columns]
        rest = (self.diagonal - value) * x - self.scale * product
        # Squares of tiny weights underflow.
        unit = float(np.max(np.abs(rest), initial=0)) or 1.0
        return unit * float(np.linalg.norm(rest / unit))


def graph_of(lap: Laplacian, ignore_isolated: bool) -> Graph:
    """The graph of a Laplacian, its edge blocks taken as exact, its degrees summed anew."""
    check_laplacian(lap)
    ignore_isolated = flag("ignore_isolated", ignore_isolated)
    edges = []
    for block, (source, target, symmetric) in zip(lap.blocks, lap.placements, strict=True):
        weights = np.asarray(block, np.float64)
        # The two triangles may differ by rounding; the quadratic form takes their mean.
        weights = np.triu(weights + weights.T, 1) / 2 if symmetric else weights
        parts = weights if weights.ndim == 3 else weights[None]
        rows, columns = (np.arange(*ends).reshape(len(parts), -1) for ends in (source, target))
        edges += map(Edges, rows, columns, parts)
    vertices = np.arange(lap.num_vertices)
    degrees = _degrees(edges, len(vertices))
    # What is counted holds for these alone, wherever the Laplacian comes from.
    if any(np.any(weights < 0) for _, _, weights in edges):
        raise AdjacencyError("An edge weight of the Laplacian is negative. Take absolute values first.")
    if not np.all(np.isfinite(degrees)):
        raise NoFiedlerValueError("An edge weight, or a sum of them, is not finite, so there is no Fiedler value.")
    if lap.normalized or ignore_isolated:
        linked = degrees > float(np.finfo(lap.dtype).tiny) ** 0.5
        numbers = np.cumsum(linked) - 1 if ignore_isolated else vertices
        vertices = vertices[linked] if ignore_isolated else vertices
        edges = [
            Edges(numbers[rows[linked[rows]]], numbers[columns[linked[columns]]], w[linked[rows]][:, linked[columns]])
            for rows, columns, w in edges
        ]
        degrees = _degrees(edges, len(vertices))
    if len(vertices) < 2:
        kind = "with edges " if ignore_isolated else ""
        raise NoFiedlerValueError(f"λ2 is the second eigenvalue, but there are {len(vertices)} vertices {kind}here.")
    return Graph(tuple(edges), degrees, vertices, lap.normalized)


def _degrees(edges: list[Edges], n: int) -> np.ndarray:
    degrees = np.zeros(n)
    with np.errstate(over="ignore", invalid="ignore"):
        for rows, columns, weights in edges:
            degrees[rows] += weights.sum(axis=1)
            degrees[columns] += weights.sum(axis=0)
    return degrees


def search(graph: Graph) -> tuple[int, np.ndarray | None]:
    """The number of components, and a colour 0 or 1 for each vertex if no edge joins two of one colour."""
    colours = np.where(graph.degrees > 0, -1, 0)
    components = int(np.sum(colours == 0))
    while np.any(uncoloured := colours < 0):
        components += 1
        frontier, colour = np.array([np.argmax(uncoloured)]), 0
        while len(frontier):
            colours[frontier] = colour
            inside = np.zeros(len(colours), bool)
            inside[frontier] = True
            reached = np.zeros(len(colours), bool)
            for rows, columns, weights in graph.each_way():
                if np.any(here := inside[rows]):
                    reached[columns] |= np.any(weights[here] > 0, axis=0)
            frontier, colour = np.flatnonzero(reached & (colours < 0)), 1 - colour
    odd = any(np.any((w > 0) & (colours[rows, None] == colours[columns])) for rows, columns, w in graph.edges)
    return components, None if odd else colours
