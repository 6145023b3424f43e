"""The Laplacian of a weighted graph given block by block, never formed as an n x n array."""

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from fiedler_jax._checks import flag, holds_reals, rows_of_vertices
from fiedler_jax._rows import largest, stable_sum
from fiedler_jax._sharding import on_automatic_axes, replicated
from fiedler_jax.edges import compute_dtype, edge_blocks, without_diagonal
from fiedler_jax.errors import AdjacencyError, ArgumentTypeError
from fiedler_jax.graph import NetworkGraph, check_graph

Range = tuple[int, int]

# Roots of degrees are taken times this power of two, with which no sum of their squares over- or underflows in float32.
ROOT_UNIT = 2**-16


class Placement(NamedTuple):
    """Where an edge block stands in the adjacency: its vertex ranges, and whether it holds both triangles."""

    source: Range
    target: Range
    symmetric: bool = False


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Laplacian:
    """A graph Laplacian as an operator on rows of vertex values; build it with `laplacian`.

    Combinatorial: ``L = D - A``. Normalized: ``L = I - D^-1/2 A D^-1/2``, with zero rows at isolated vertices, as in
    SciPy and NetworkX. Here ``A`` is the adjacency, ``D`` the diagonal matrix of degrees. It is a pytree whose arrays
    are differentiable, computed in float32 or float64. A vector is an array of shape (n,), several are rows (b, n).

    Attributes:
        blocks: nonnegative edge weights of each block, (rows, columns) or (blocks, rows, columns).
        degrees: degree of each vertex, shape (n,).
        placements: where each block stands.
        groups: vertex range of each group of units.
        normalized: which of the two Laplacians this is.

    Example:
        >>> import jax.numpy as jnp, fiedler_jax as fj
        >>> path = fj.laplacian_from_adjacency(jnp.array([[0.0, 2.0, 0.0], [2.0, 0.0, 1.0], [0.0, 1.0, 0.0]]))
        >>> print(path.matvec(jnp.array([1.0, 0.0, 0.0])))
        [ 2. -2.  0.]
        >>> print(path.quadratic_form(jnp.array([1.0, 0.0, 0.0])))
        2.0
    """

    blocks: tuple[jax.Array, ...]
    degrees: jax.Array
    placements: tuple[Placement, ...] = dataclasses.field(metadata={"static": True})
    groups: tuple[Range, ...] = dataclasses.field(metadata={"static": True})
    normalized: bool = dataclasses.field(metadata={"static": True})

    @property
    def num_vertices(self) -> int:
        """Number of vertices n."""
        return self.degrees.shape[-1]

    @property
    def dtype(self) -> jnp.dtype:
        """The dtype of values and vectors."""
        return self.degrees.dtype

    @property
    def connected(self) -> jax.Array:
        """Which vertices have an edge, shape (n,); a degree below the root of the smallest normal number has none."""
        return has_edges(self.degrees)

    @property
    def inverse_root_degrees(self) -> jax.Array:
        """``D^-1/2`` as a vector: zero (so is its derivative) at isolated vertices, NaN where a degree is infinite."""
        # The inner `where` keeps the derivative finite: that of the outer one alone is 0 * inf at a zero degree.
        roots = jnp.where(self.connected, jax.lax.rsqrt(jnp.where(self.connected, self.degrees, 1)), 0)
        return jnp.where(jnp.isinf(self.degrees), jnp.nan, roots)

    @property
    def diagonal(self) -> jax.Array:
        """The diagonal of L, shape (n,); not finite where a degree is not."""
        if not self.normalized:
            return self.degrees
        return jnp.where(jnp.isfinite(self.degrees), self.connected.astype(self.dtype), jnp.nan)

    @property
    def upper_bound(self) -> jax.Array:
        """An upper bound of the largest eigenvalue: 2 if normalized, else twice the largest degree.

        Infinite where a degree is not finite.
        """
        return jnp.asarray(2, self.dtype) if self.normalized else 2 * largest(self.degrees)

    @property
    def null_vector(self) -> jax.Array:
        """The unit vector of eigenvalue 0: constant, or proportional to the roots of the degrees if normalized."""
        constant = jnp.full_like(self.degrees, max(self.num_vertices, 1) ** -0.5)
        if self.normalized:
            root = ROOT_UNIT * self.degrees * self.inverse_root_degrees
            squared = jnp.vdot(root, root, precision="highest")
            # Without any edge every vector is null.
            return jnp.where(squared > 0, root * jax.lax.rsqrt(jnp.where(squared > 0, squared, 1)), constant)
        return constant

    def matvec(self, x: jax.Array) -> jax.Array:
        """``L x`` for a vector (n,) or for each row of (b, n), with two products per edge block.

        Raises:
            VectorError: there is not one real entry for each vertex.

        Example:
            >>> import jax.numpy as jnp, fiedler_jax as fj
            >>> edge = fj.laplacian_from_adjacency(jnp.array([[0.0, 4.0], [4.0, 0.0]]), normalized=True)
            >>> print(edge.matvec(jnp.eye(2)))
            [[ 1. -1.]
             [-1.  1.]]
        """
        return on_automatic_axes(_product, self, self._checked(x))

    def quadratic_form(self, x: jax.Array) -> jax.Array:
        """``xᵀ L x`` in the edge form: a scalar for (n,), shape (b,) for (b, n).

        The sum over edges of ``a_ij (y_i - y_j)²``, with ``y = x`` or ``y = D^-1/2 x`` if normalized. Each term is
        nonnegative, so nothing cancels: small values come out with full relative accuracy, unlike ``x · (L x)``.

        Raises:
            VectorError: there is not one real entry for each vertex.
        """
        return on_automatic_axes(_edge_form, self, self._checked(x))

    def to_dense(self) -> jax.Array:
        """L as an (n, n) array, for small graphs and for tests.

        Example:
            >>> import jax.numpy as jnp, fiedler_jax as fj
            >>> print(fj.laplacian_from_adjacency(1 - jnp.eye(3)).to_dense())
            [[ 2. -1. -1.]
             [-1.  2. -1.]
             [-1. -1.  2.]]
        """
        return self.matvec(jnp.eye(self.num_vertices, dtype=self.dtype))

    def _checked(self, x: jax.Array) -> jax.Array:
        check_laplacian(self)
        return rows_of_vertices(x, self.num_vertices)

    def _adjacency_product(self, x: jax.Array) -> jax.Array:
        to_target: list[tuple[Range, jax.Array]] = []
        to_source: list[tuple[Range, jax.Array]] = []
        for block, (source, target, symmetric) in zip(self.blocks, self.placements, strict=True):
            to_target.append((target, product_with_block(x[..., slice(*source)], block)))
            if not symmetric:
                to_source.append((source, columns_of_transposed(x[..., slice(*target)], block)))
        return _sum_both_ways(self.groups, to_target, to_source)

    def _edge_sum(self, y: jax.Array) -> jax.Array:
        by_row = []
        for block, (source, target, symmetric) in zip(self.blocks, self.placements, strict=True):
            rows = replicated(y[slice(*source)]).reshape(*block.shape[:-1], 1)
            columns = replicated(y[slice(*target)]).reshape(*block.shape[:-2], 1, block.shape[-1])
            apart = rows - columns
            # In this order, since the square alone underflows in float32 where degrees are above 1e30.
            by_row.append(jnp.sum(block * apart * apart, axis=-1).ravel() / (2 if symmetric else 1))
        return stable_sum(jnp.concatenate(by_row))


@jax.jit
def _product(lap: Laplacian, x: jax.Array) -> jax.Array:
    if not lap.normalized:
        return lap.degrees * x - lap._adjacency_product(x)
    scale = lap.inverse_root_degrees
    return lap.connected * x - scale * lap._adjacency_product(scale * x)


@jax.jit
def _edge_form(lap: Laplacian, x: jax.Array) -> jax.Array:
    y = lap.inverse_root_degrees * x if lap.normalized else x
    # XLA's code for these sums over a batch of rows took ten times as long in float32 as for one row.
    return lap._edge_sum(y) if y.ndim == 1 else jax.lax.map(lap._edge_sum, y)


def laplacian(graph: NetworkGraph, params: Any, *, normalized: bool = True) -> Laplacian:
    """The Laplacian of a network's graph at the given parameters.

    Args:
        graph: from `graph_from_params`, `graph_from_model` or `graph_from_edges`.
        params: parameters of the same model, in any floating dtype; float64 is kept, all else computes in float32.
        normalized: the normalized Laplacian ``I - D^-1/2 A D^-1/2`` if true, else ``D - A``.

    Returns:
        A matrix-free operator, differentiable with respect to the parameters, also at zero weights and dead units.

    Raises:
        ArgumentTypeError: the graph is none, or the parameters are shapes without numbers.
        HyperparameterError: `normalized` is not True or False.
        KernelMismatchError: the parameters do not fit the graph.
        MaskedKernelError: `optax.masked` hides a kernel.

    Source: Tam & Dunson, "Fiedler Regularization: Learning Neural Networks with Graph Sparsity", ICML 2020, section 3.

    Example:
        >>> import jax.numpy as jnp, fiedler_jax as fj
        >>> params = {"Dense_0": {"kernel": jnp.array([[1.0, -2.0]]), "bias": jnp.zeros(2)}}
        >>> lap = fj.laplacian(fj.graph_from_params(params), params, normalized=False)
        >>> print(lap.degrees)
        [3. 1. 2.]
    """
    check_graph(graph)
    normalized = flag("normalized", normalized)
    ranges = graph.ranges
    # Kernels that join the same units, such as the gates of a cell, are one block from here on.
    sums: dict[tuple[Placement, tuple[int, ...]], jax.Array] = {}
    for block, weights in zip(graph.blocks, edge_blocks(graph, params), strict=True):
        key = Placement(ranges[block.source], ranges[block.target]), block.shape
        sums[key] = sums[key] + weights if key in sums else weights
    placements = tuple(placement for placement, _ in sums)
    return _from_blocks(tuple(sums.values()), placements, tuple(ranges.values()), normalized)


def laplacian_from_adjacency(adjacency: Any, *, normalized: bool = False) -> Laplacian:
    """The Laplacian of any weighted graph, from its adjacency matrix.

    Args:
        adjacency: symmetric, nonnegative array (n, n), of which the mean with its transpose is taken: they may differ
            by rounding. The diagonal (self-loops) drops out. NaN and infinite entries are let through, to be reported
            by the solver's status; so are negative ones under jit, which become NaN.
        normalized: as in `laplacian`; combinatorial by default, as in SciPy and NetworkX.

    Raises:
        AdjacencyError: not a dense real square matrix, and (outside jit) not symmetric or with a negative entry.
        HyperparameterError: `normalized` is not True or False.

    Example:
        >>> import jax.numpy as jnp, fiedler_jax as fj
        >>> star = jnp.zeros((4, 4)).at[0, 1:].set(1.0).at[1:, 0].set(1.0)
        >>> print(f"{fj.fiedler_pair(fj.laplacian_from_adjacency(star)).value:.4f}")
        1.0000
    """
    if not isinstance(adjacency, jax.Array | np.ndarray | Sequence):
        raise AdjacencyError(
            f"An adjacency is a dense array (n, n), not {type(adjacency).__name__}. Make one of a sparse matrix "
            "with its toarray() or todense()."
        )
    normalized = flag("normalized", normalized)
    adjacency = _real_square(adjacency)
    if not isinstance(adjacency, Tracer):
        _check_adjacency(np.asarray(adjacency))
    weigh = functools.partial(_weights_of, checked=not isinstance(adjacency, Tracer))
    # On the host, since integers of 64 bits wrap where JAX has 32.
    entries = adjacency if isinstance(adjacency, jax.Array) else jnp.asarray(adjacency, compute_dtype([adjacency]))
    weights, _ = on_automatic_axes(lambda entries: (weigh(entries), ()), entries, placed_like=entries)
    whole = (0, len(weights))
    return _from_blocks((weights,), (Placement(whole, whole, symmetric=True),), (whole,), normalized)


def _real_square(adjacency: Any) -> Any:
    """The adjacency as an array; AdjacencyError unless it is a square one of real numbers."""
    try:
        if isinstance(adjacency, np.ma.MaskedArray):
            raise TypeError
        array = adjacency if isinstance(adjacency, jax.Array) else np.asarray(adjacency)
        jnp.result_type(array)
    except (TypeError, ValueError):
        raise AdjacencyError(
            "An adjacency is an array (n, n) of numbers of at most 64 bits, without gaps: rows of one length, no "
            "masked entries, no objects or words."
        ) from None
    if jnp.issubdtype(array.dtype, jnp.complexfloating):
        raise AdjacencyError("An adjacency holds real weights, not complex ones. Take absolute values first.")
    if not holds_reals(array.dtype):
        raise AdjacencyError(f"An adjacency holds real weights, not {array.dtype}.")
    if array.ndim != 2 or array.shape[0] != array.shape[1]:
        raise AdjacencyError(f"An adjacency is a square matrix (n, n), not of shape {array.shape}.")
    return array


@functools.partial(jax.jit, static_argnames="checked")
def _weights_of(adjacency: jax.Array, checked: bool) -> jax.Array:
    """The edge weights, in one pass and without another matrix of their size."""
    entries = adjacency.astype(compute_dtype([adjacency]))
    # What nobody could look at shall not pass for a graph.
    entries = entries if checked else jnp.where(entries < 0, jnp.nan, entries)
    # Halves first, whose sum is no more than the larger one.
    return without_diagonal(entries / 2 + entries.T / 2, True)


def check_laplacian(lap: Any) -> None:
    """Raise ArgumentTypeError unless it is one `Laplacian`."""
    if not isinstance(lap, Laplacian):
        raise ArgumentTypeError(
            f"The Laplacian must be a fj.Laplacian, not {type(lap).__name__}. Make one of a network with fj.laplacian, "
            "of an adjacency with fj.laplacian_from_adjacency."
        )
    if jnp.ndim(lap.degrees) != 1:
        raise ArgumentTypeError(
            f"The Laplacian holds several, with degrees of shape {jnp.shape(lap.degrees)}, as one made under jax.vmap "
            "does. What is done with each belongs under jax.vmap too."
        )


def _from_blocks(
    blocks: tuple[jax.Array, ...], placements: tuple[Placement, ...], groups: tuple[Range, ...], normalized: bool
) -> Laplacian:
    degrees_of = functools.partial(_degrees, placements=placements, groups=groups)
    return Laplacian(blocks, on_automatic_axes(degrees_of, blocks), placements, groups, normalized)


@functools.partial(jax.jit, static_argnames=("placements", "groups"))
def _degrees(blocks: tuple[jax.Array, ...], placements: tuple[Placement, ...], groups: tuple[Range, ...]) -> jax.Array:
    pairs = list(zip(blocks, placements, strict=True))
    to_target = [(where.target, jnp.sum(block, axis=-2).ravel()) for block, where in pairs]
    to_source = [(where.source, jnp.sum(block, axis=-1).ravel()) for block, where in pairs if not where.symmetric]
    return _sum_both_ways(groups, to_target, to_source)


def has_edges(degrees: jax.Array) -> jax.Array:
    """Which vertices have an edge; a degree below the root of the smallest normal number has none."""
    return degrees > jnp.finfo(degrees.dtype).tiny ** 0.5


@jax.default_matmul_precision("highest")
def product_with_block(part: jax.Array, block: jax.Array, transposed: bool = False) -> jax.Array:
    """The product of vectors on one side of a block (rows, columns), or of each of (blocks, rows, columns).

    In full precision: an accelerator's default rounds what it multiplies to 11 or 8 bits.
    """
    if transposed:
        return columns_of_transposed(part, block).T
    part = replicated(part)
    if block.ndim == 2:
        return part @ block
    return _product_with_each(part, block)


@jax.default_matmul_precision("highest")
def columns_of_transposed(part: jax.Array, block: jax.Array) -> jax.Array:
    """The product of vectors on the other side with the transposed block, a column for each vector."""
    part = replicated(part)
    if block.ndim == 2:
        # XLA on CPU takes 3 times as long to multiply 8 rows by a transposed block of 4096 x 4096, and 15 for one.
        return jax.lax.optimization_barrier(block @ part.T)
    return _product_with_each(part, block.mT).T


def _product_with_each(part: jax.Array, block: jax.Array) -> jax.Array:
    parts = part.reshape(*part.shape[:-1], *block.shape[:-1])
    return jnp.einsum("...gr,grc->...gc", parts, block).reshape(*part.shape[:-1], -1)


def _sum_both_ways(
    groups: Sequence[Range],
    to_target: Sequence[tuple[Range, jax.Array]],
    to_source: Sequence[tuple[Range, jax.Array]],
) -> jax.Array:
    """What all blocks give to their targets, in rows, and to their sources, in columns.

    These are turned when they lie beside one another, all at once.
    """
    total = _placed(groups, to_target, axis=-1)
    return replicated(total + _placed(groups, to_source, axis=0).T if to_source else total)


def _placed(groups: Sequence[Range], parts: Sequence[tuple[Range, jax.Array]], axis: int) -> jax.Array:
    """The sums of what each group is given, beside one another, with zeros for groups that are given nothing.

    A concatenation rather than indexed additions, which XLA compiles to scatters.
    """
    sums: dict[Range, jax.Array] = {}
    for group, part in parts:
        sums[group] = sums[group] + part if group in sums else part
    places = [i for i, group in enumerate(groups) if group in sums]
    template = next(iter(sums.values()))

    def zeros(size: int) -> jax.Array:
        shape = list(template.shape)
        shape[axis] = size
        return jnp.zeros(shape, template.dtype)

    between = groups[places[0] : places[-1] + 1]
    found = [sums[group] if group in sums else zeros(group[1] - group[0]) for group in between]
    padding = [(0, 0)] * template.ndim
    padding[axis] = between[0][0] - groups[0][0], groups[-1][1] - between[-1][1]
    return jnp.pad(jnp.concatenate(found, axis=axis), padding)


def _check_adjacency(adjacency: np.ndarray) -> None:
    if np.any(adjacency < 0):
        i, j = np.argwhere(adjacency < 0)[0]
        raise AdjacencyError(
            f"Entry ({i}, {j}) is {adjacency[i, j]}, but edge weights are nonnegative. Take absolute values first."
        )
    asymmetric = ~np.isclose(adjacency, adjacency.T, rtol=1e-5, atol=0, equal_nan=True)
    if np.any(asymmetric):
        i, j = np.argwhere(asymmetric)[0]
        raise AdjacencyError(
            f"Entries ({i}, {j}) and ({j}, {i}) are {adjacency[i, j]} and {adjacency[j, i]}, but the edges of an "
            "undirected graph have one weight. Symmetrize first, such as (A + A.T) / 2."
        )
