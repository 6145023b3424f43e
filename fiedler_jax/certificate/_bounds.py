"""Bounds of the Fiedler value and of the conductance that cost next to nothing."""

import dataclasses
import math
from typing import NamedTuple

import numpy as np

from fiedler_jax._checks import on_the_host
from fiedler_jax.certificate._graph import Graph, graph_of
from fiedler_jax.errors import ArgumentTypeError, VectorError
from fiedler_jax.fiedler import FiedlerPair
from fiedler_jax.laplacian import Laplacian


class Bound(NamedTuple):
    """One row of `Bounds`: the quantity lies between `lower` and `upper`, if what it assumes is true."""

    name: str
    quantity: str
    lower: float
    upper: float
    assumes: str


@dataclasses.dataclass(frozen=True)
class Bounds:
    """Bounds of λ2 and of the conductance, a table when printed."""

    rows: tuple[Bound, ...]

    def __str__(self) -> str:
        cells = [(b.name, b.quantity, f"{b.lower:.6g}", f"{b.upper:.6g}", b.assumes) for b in self.rows]
        table = [("bound", "quantity", "lower", "upper", "assumes"), *cells]
        widths = [max(map(len, column)) for column in zip(*table, strict=True)]
        return "\n".join(
            "  ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)).rstrip() for row in table
        )


def bounds(lap: Laplacian, pair: FiedlerPair, *, ignore_isolated: bool = False) -> Bounds:
    """Bounds of λ2 and of the conductance h at the cost of a few products, to within rounding in float64.

    The conductance is the least ``cut(S) / min(vol S, vol not-S)`` over sets S of vertices, where ``vol`` sums
    degrees; it is 0 for a graph that is not connected, and at most 1. With θ and r the Rayleigh quotient and the
    residual of the pair's vector made orthogonal to the null vector, and ν = ``next_value - next_residual``:

    - least degree: ``λ2 <= n / (n - 1) · d_min``; trace, if normalized: ``λ2 <= n / (n - 1)``.
    - Rayleigh: ``λ2 <= θ``.
    - Temple: ``λ2 >= θ - r² / (ν - θ)``, vacuous unless ``θ < ν``. It is wrong if ν lies above λ3.
    - Cheeger: ``λ2 / 2 <= h <= sqrt(2 λ2)`` if normalized, else ``λ2 / (2 d_max) <= h <= sqrt(2 λ2 / d_min)``, with
      Temple's bound for λ2 below and Rayleigh's above.
    - sweep cut: the least conductance among the sets of vertices where ``D^-1/2 v`` (or ``v``) lies below a threshold.

    Args:
        lap: the Laplacian, combinatorial or normalized.
        pair: from `fiedler_pair` of that Laplacian; only `vector`, `next_value` and `next_residual` are used. Entries
            of the vector that are not finite count as zero.
        ignore_isolated: bounds of the graph of the vertices with edges, as in `fiedler_pair`. Otherwise an isolated
            vertex is a component of its own, and λ2 and h are 0.

    Raises:
        ArgumentTypeError: no Laplacian, no pair, or one of several or under jit.
        VectorError: the pair's vector does not have one entry per vertex.
        NoFiedlerValueError: fewer than two vertices, or weights that are not finite.
        AdjacencyError: a weight is negative.

    Source: M. Fiedler, Czech. Math. J. 23 (1973); G. Temple, Proc. R. Soc. A 119 (1928); F. Chung, "Spectral Graph
    Theory" (1997), chapters 1 and 2; B. Mohar, "Isoperimetric numbers of graphs", J. Combin. Theory B 47 (1989).

    Example:
        >>> import jax.numpy as jnp, fiedler_jax as fj
        >>> path = fj.laplacian_from_adjacency(jnp.eye(4, k=1) + jnp.eye(4, k=-1))
        >>> print(fj.bounds(path, fj.fiedler_pair(path, solver=fj.Dense())))
        bound         quantity     lower     upper     assumes
        least degree  λ2           0         1.33333   nothing
        Rayleigh      λ2           0         0.585786  nothing
        Temple        λ2           0.585786  inf       next_value is λ3 to within next_residual
        Cheeger       conductance  0.146447  1         below as Temple, above nothing
        sweep cut     conductance  0         0.333333  nothing
    """
    if not isinstance(pair, FiedlerPair):
        raise ArgumentTypeError(f"bounds takes the FiedlerPair that fj.fiedler_pair gives, not {type(pair).__name__}.")
    on_the_host("bounds", lap, pair)
    graph = graph_of(lap, ignore_isolated)
    if np.shape(pair.vector) != (lap.num_vertices,):
        raise VectorError(f"Expected a vector ({lap.num_vertices},), one entry a vertex, not {np.shape(pair.vector)}.")
    n, degrees = len(graph.vertices), graph.degrees
    least, largest = (1.0, 1.0) if graph.normalized else (float(degrees.min()), float(degrees.max()))
    vector = _without_null(graph, np.asarray(pair.vector, np.float64)[graph.vertices])
    rayleigh, temple = math.inf, 0.0
    if np.any(vector):
        rayleigh = graph.edge_sum(graph.scale * vector)
        temple = _temple(rayleigh, graph.residual(vector, rayleigh), float(pair.next_value), float(pair.next_residual))
    return Bounds(
        (
            Bound("trace" if graph.normalized else "least degree", "λ2", 0.0, n / (n - 1) * least, "nothing"),
            Bound("Rayleigh", "λ2", 0.0, rayleigh, "nothing"),
            Bound("Temple", "λ2", temple, math.inf, "next_value is λ3 to within next_residual"),
            Bound(
                "Cheeger",
                "conductance",
                temple / (2 * largest) if largest else 0.0,
                min(1.0, math.sqrt(2 * rayleigh / least)) if least else 1.0,
                "below as Temple, above nothing",
            ),
            Bound("sweep cut", "conductance", 0.0, _sweep_cut(graph, graph.scale * vector), "nothing"),
        )
    )


def _without_null(graph: Graph, vector: np.ndarray) -> np.ndarray:
    """The unit vector orthogonal to the null vector, or zero if nothing is left."""
    null = graph.null_vector if np.any(graph.degrees) else np.ones(len(vector))
    null = null / np.linalg.norm(null)
    vector = np.where(np.isfinite(vector), vector, 0)
    # What is left of a vector close to the null vector is orthogonal to it at a later pass only.
    for _ in range(3):
        vector = vector - null * (null @ vector)
        vector = vector / (np.linalg.norm(vector) or 1)
    return vector


def _temple(rayleigh: float, residual: float, next_value: float, next_residual: float) -> float:
    beyond = next_value - next_residual if next_value < math.inf else math.inf
    # Not the square over the gap: where weights are tiny that is zero, and zero looks exact.
    return max(0.0, rayleigh - residual * (residual / (beyond - rayleigh))) if beyond > rayleigh else 0.0


def _sweep_cut(graph: Graph, y: np.ndarray) -> float:
    """The least conductance of the sets ``{i : y_i <= t}``."""
    n, order = len(y), np.argsort(y, kind="stable")
    rank = np.empty(n, int)
    rank[order] = np.arange(n)
    to_earlier = np.zeros(n)
    for rows, columns, weights in graph.each_way():
        to_earlier[rows] += np.sum(weights * (rank[rows, None] > rank[columns]), axis=1)
    sorted_degrees = graph.degrees[order]
    cuts = np.cumsum(sorted_degrees - 2 * to_earlier[order])[:-1]
    volumes = np.minimum(np.cumsum(sorted_degrees)[:-1], np.cumsum(sorted_degrees[::-1])[-2::-1])
    best = np.argmin(np.divide(cuts, volumes, out=np.zeros(n - 1), where=volumes > 0))
    # Summed anew, since a small cut is lost among the running sums.
    inside = rank <= best
    cut = sum(np.sum(w * (inside[rows, None] != inside[columns])) for rows, columns, w in graph.edges)
    return float(cut / min(graph.degrees[inside].sum(), graph.degrees[~inside].sum())) if cut > 0 else 0.0
