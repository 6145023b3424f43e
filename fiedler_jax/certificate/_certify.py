"""Whether a value is the Fiedler value."""

import dataclasses
import enum
import math
import numbers
from typing import Any, NamedTuple

import jax
import numpy as np

from fiedler_jax._checks import is_real, on_the_host
from fiedler_jax.certificate._elimination import Parts, count_beside, partition
from fiedler_jax.certificate._graph import Graph, graph_of, search
from fiedler_jax.errors import ArgumentTypeError, HyperparameterError
from fiedler_jax.laplacian import Laplacian


class Verdict(enum.StrEnum):
    """What a certificate says of a value."""

    PROVED = "proved λ2"
    REFUTED = "proved not λ2"
    UNDECIDED = "undecided"


class Count(NamedTuple):
    """A number of eigenvalues, known to lie in ``[least, most]``."""

    least: int
    most: int

    def __str__(self) -> str:
        return f"{self.least}" if self.least == self.most else f"{self.least} to {self.most}"


@dataclasses.dataclass(frozen=True)
class Certificate:
    """What `certify` found out about a value.

    Attributes:
        verdict: whether the value is λ2.
        value: the value in question.
        tol: the relative accuracy asked for.
        lower: the shift below the value; one eigenvalue lies below it if the value is λ2.
        upper: the shift above the value; two eigenvalues or more lie below it if the value is λ2.
        below_lower: how many eigenvalues lie below `lower`.
        below_upper: how many eigenvalues lie below `upper`. No more is counted than the verdict needs, so either range
            may be wide.
        margin: bound on how far rounding moved an eigenvalue, absolute; infinite if no bound was found.
        components: number of connected components.
        method: ``"bipartite elimination"``, ``"group elimination"``, ``"dense"``, or ``"graph search"`` where the
            components decide.
        order: order of the matrix that was factorized, zero if none was.
    """

    verdict: Verdict
    value: float
    tol: float
    lower: float
    upper: float
    below_lower: Count
    below_upper: Count
    margin: float
    components: int
    method: str
    order: int

    def __str__(self) -> str:
        apart = ", so λ2 is 0" if self.components > 1 else ""
        return (
            f"{self.value:.10g} is {self.verdict} to within {self.tol:.3g}\n"
            f"  eigenvalues below {self.lower:.10g}: {self.below_lower}\n"
            f"  eigenvalues below {self.upper:.10g}: {self.below_upper}\n"
            f"  margin {self.margin:.2g}, components {self.components}{apart}, {self.method}, order {self.order}"
        )


def certify(
    lap: Laplacian, value: float | jax.Array, *, tol: float = 1e-6, ignore_isolated: bool = False
) -> Certificate:
    """Prove or refute that a value is the Fiedler value λ2, by counting the eigenvalues on either side.

    λ2 lies in ``[value (1 - tol), value (1 + tol))`` exactly when one eigenvalue, the null one, lies below the lower
    shift and two or more below the upper one. An eigenvalue that rounding could move across a shift leaves the verdict
    undecided. The Laplacian is rebuilt in float64 from its edge blocks, taken as exact, with degrees summed anew; an
    adjacency matrix is read as the mean of its triangles.

    The eigenvalues below s are the negative ones of ``L - s``. With a set E of vertices that no edge joins, and the
    others O, they are those of ``D_E - s``, which is diagonal, and of ``S = L_OO - s - L_OE (D_E - s)^-1 L_EO``. E is
    the larger colour class of a bipartite graph, such as every other layer of a chain, else groups of units that no
    block joins, and empty for an adjacency matrix that is not bipartite. The signs of S are those of its ``L D Lᵀ``.

    Zero has no relative accuracy. With two components or more λ2 is exactly 0, and values within the rounding margin
    of it are proved, with shifts that far from zero. With one component λ2 > 0, and values below are refuted.

    Args:
        lap: from `laplacian` or `laplacian_from_adjacency`, combinatorial or normalized, in float32 or float64.
        value: the value in question, such as ``fiedler_pair(lap).value``. Infinite values and NaN are refuted.
        tol: relative accuracy, between 0 and 1.
        ignore_isolated: leave out the vertices without edges, as in `fiedler_pair`. A degree below the root of the
            smallest normal number of the Laplacian's dtype counts as none, as in `Laplacian.connected`.

    Returns:
        The verdict with its evidence. Print it.

    Raises:
        CertificateSizeError: S has more than 6000 rows.
        NoFiedlerValueError: fewer than two vertices, or weights that are not finite.
        AdjacencyError: a weight is negative.
        ArgumentTypeError: no Laplacian, no number, or one of several or under jit.
        HyperparameterError: `tol` out of range, or `ignore_isolated` not True or False.

    Source: Sylvester's law of inertia; E. V. Haynsworth, "Determination of the inertia of a partitioned Hermitian
    matrix", Linear Algebra Appl. 1 (1968); J. R. Bunch & L. Kaufman, Math. Comp. 31 (1977).

    Example:
        >>> import jax.numpy as jnp, fiedler_jax as fj
        >>> path = fj.laplacian_from_adjacency(jnp.array([[0.0, 1.0, 0.0], [1.0, 0.0, 1.0], [0.0, 1.0, 0.0]]))
        >>> print(fj.certify(path, 1.0).verdict)
        proved λ2
        >>> print(fj.certify(path, 3.0))
        3 is proved not λ2 to within 1e-06
          eigenvalues below 2.999997: 2
          eigenvalues below 3.000003: 3
          margin 2.7e-14, components 1, bipartite elimination, order 1
    """
    on_the_host("certify", lap, value)
    if not (isinstance(tol, numbers.Real) and 0 < tol < 1):
        raise HyperparameterError(f"tol is a relative accuracy between 0 and 1, not {tol!r}.")
    value = _number(value)
    graph = graph_of(lap, ignore_isolated)
    n, margin = len(graph.degrees), graph.entry_error
    components, colours = search(graph)
    if components > 1 or not 0 < value < math.inf:
        near_zero = components > 1 and abs(value) <= margin
        verdict = Verdict.PROVED if near_zero else Verdict.REFUTED
        lower, upper = (-margin, margin) if near_zero else sorted((value * (1 - tol), value * (1 + tol)))
        below_lower, below_upper = (_count_of_components(shift, components, n) for shift in (lower, upper))
        method, order = "graph search", 0
    else:
        lower, upper = value * (1 - tol), value * (1 + tol)
        eliminated, method = _eliminated(lap, graph, colours)
        parts = partition(graph, eliminated)
        verdict, below_lower, below_upper, margin = _verdict(parts, lower, upper)
        order = len(parts.diagonal)
    return Certificate(verdict, value, tol, lower, upper, below_lower, below_upper, margin, components, method, order)


def _number(value: Any) -> float:
    if not is_real(value):
        raise ArgumentTypeError(
            f"certify takes one real number, not {type(value).__name__}. Of a FiedlerPair pass the value, of several "
            "values one after the other."
        )
    try:
        return float(value)
    except OverflowError:
        raise ArgumentTypeError("certify counts in float64. This integer is larger than all of its numbers.") from None


def _count_of_components(shift: float, components: int, n: int) -> Count:
    """How many eigenvalues lie below a shift as far as the components tell: L is positive semidefinite."""
    if shift <= 0:
        return Count(0, 0)
    return Count(components, n) if shift < math.inf else Count(0 if math.isnan(shift) else n, n)


def _eliminated(lap: Laplacian, graph: Graph, colours: np.ndarray | None) -> tuple[np.ndarray, str]:
    """Which vertices to eliminate: many, with no edge among them."""
    if colours is not None:
        return colours == (2 * np.sum(colours) >= len(colours)), "bipartite elimination"
    # Groups by size, each unless a block joins it to itself or to one chosen before.
    chosen: list[tuple[int, int]] = []
    for group in sorted(lap.groups, key=lambda group: group[0] - group[1]):
        joined = {b if a == group else a for a, b, _ in lap.placements if group in (a, b)}
        if joined.isdisjoint([group, *chosen]):
            chosen.append(group)
    eliminated = np.zeros(lap.num_vertices, bool)
    for start, stop in chosen:
        eliminated[start:stop] = True
    return eliminated[graph.vertices], "group elimination" if chosen else "dense"


def _verdict(parts: Parts, lower: float, upper: float) -> tuple[Verdict, Count, Count, float]:
    """The verdict on a connected graph, the counts below both shifts, and the margin of the tests."""
    n = len(parts.diagonal) + len(parts.eliminated_diagonal)
    least, margin = count_beside(parts, upper, -1, parts.usual_margin)
    if least is None or least < 2:
        most, margin = count_beside(parts, upper, 1, margin)
        below = _range(None, most, n)
        return Verdict.REFUTED if below.most == 1 else Verdict.UNDECIDED, below, below, margin
    below_upper = Count(least, n)
    most, margin = count_beside(parts, lower, 1, margin)
    if most is not None and most < 2:
        return Verdict.PROVED, Count(1, 1), below_upper, margin
    least, margin = count_beside(parts, lower, -1, margin)
    below_lower = _range(least, most, n)
    return Verdict.REFUTED if below_lower.least > 1 else Verdict.UNDECIDED, below_lower, below_upper, margin


def _range(least: int | None, most: int | None, n: int) -> Count:
    """The range between two counts, either of which may be missing, where the null eigenvalue is known to count."""
    return Count(max(1, least or 0), n if most is None else max(1, most))
