"""From a parameter tree to a weighted graph: units are vertices, absolute weights are edges."""

import dataclasses
import difflib
from collections.abc import Iterable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from fiedler_jax._chain import order_chain
from fiedler_jax._paths import Path, display, is_masked, leaf_shape, leaves_by_path, natural_key, parse_path
from fiedler_jax.errors import (
    EdgeError,
    KernelMismatchError,
    MaskedKernelError,
    NoKernelsError,
    UnsupportedKernelError,
)

_REASONS = {
    "bias": "bias: joins no two units",
    "scale": "scale of a normalization: joins no two units",
    "embedding": "embedding table, not a Dense kernel",
}


@dataclasses.dataclass(frozen=True)
class UnitGroup:
    """A group of units (vertices) that appear together, such as the outputs of one layer."""

    name: str
    size: int


@dataclasses.dataclass(frozen=True)
class EdgeBlock:
    """All edges from one kernel: entry (i, j) joins unit i of `source` to unit j of `target`.

    Edges are undirected. Where `source` and `target` are one group (a recurrent kernel), units i and j are joined
    by ``|W_ij| + |W_ji|`` and the diagonal drops out.
    """

    kernel: str
    source: str
    target: str
    shape: tuple[int, int]


@dataclasses.dataclass(frozen=True)
class LeftOut:
    """A parameter leaf that gives the graph no edges, and why."""

    path: str
    shape: tuple[int, ...]
    reason: str


@dataclasses.dataclass(frozen=True)
class NetworkGraph:
    """What is connected to what: static, hashable, without arrays.

    Build one with `graph_from_params` or `graph_from_edges`; ``print(graph)`` shows what is in it and what is left
    out. Vertices are numbered group by group, in the order of `groups`.

    Attributes:
        groups: the groups of units.
        blocks: the edge blocks, one per use of a kernel.
        left_out: every parameter leaf without edges, with the reason.
    """

    groups: tuple[UnitGroup, ...]
    blocks: tuple[EdgeBlock, ...]
    left_out: tuple[LeftOut, ...] = ()

    @property
    def num_vertices(self) -> int:
        """Number of units in all groups."""
        return sum(group.size for group in self.groups)

    @property
    def num_edges(self) -> int:
        """Number of kernel entries in all blocks."""
        return sum(rows * columns for rows, columns in (block.shape for block in self.blocks))

    @property
    def ranges(self) -> dict[str, tuple[int, int]]:
        """First vertex and one past the last vertex of each group, by its name."""
        stops = np.cumsum([group.size for group in self.groups]).tolist()
        return {group.name: (stop - group.size, stop) for group, stop in zip(self.groups, stops, strict=True)}

    def __str__(self) -> str:
        def table(header: str, rows: Sequence[tuple[str, ...]]) -> list[str]:
            widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
            lines = ("  ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)).rstrip() for row in rows)
            return [header, *("  " + line for line in lines)]

        lines = [f"NetworkGraph: {self.num_vertices} vertices, {self.num_edges} edges"]
        lines += table("groups", [(group.name, str(group.size)) for group in self.groups])
        blocks = [(block.kernel, str(block.shape), f"{block.source} -> {block.target}") for block in self.blocks]
        lines += table("edge blocks", blocks)
        if self.left_out:
            lines += table("left out", [(leaf.path, str(leaf.shape), leaf.reason) for leaf in self.left_out])
        return "\n".join(lines)


def graph_from_params(params: Any) -> NetworkGraph:
    """The graph of a plain chain of Dense kernels, read off the names and shapes of its parameters.

    Kernels are the leaves named ``kernel``. Numbered names give their order (``Dense_2`` before ``Dense_10``,
    ``layers/0`` before ``layers/1``); where names are not numbered the shapes must leave exactly one order. Names are
    trusted: Flax numbers layers in the order of their *creation*, so a model whose nested calls create the last
    layer first needs `graph_from_edges`.

    Args:
        params: a linen or nnx parameter tree (or the whole variables dict), of arrays or `jax.ShapeDtypeStruct`s.

    Returns:
        A graph with one group for the inputs and one for the outputs of each layer, named after the layer.

    Raises:
        NoKernelsError: there is no kernel.
        UnsupportedKernelError: a kernel is not 2-D, such as that of a convolution.
        BrokenChainError: consecutive shapes do not fit.
        AmbiguousChainError: neither names nor shapes decide the order.
        MaskedKernelError: `optax.masked` hides a kernel.

    Example:
        >>> import jax, flax.linen as nn, fiedler_jax as fj
        >>> model = nn.Sequential([nn.Dense(8), nn.relu, nn.Dense(3)])
        >>> params = jax.eval_shape(model.init, jax.random.key(0), jax.numpy.ones((1, 4)))
        >>> print(fj.graph_from_params(params))
        NetworkGraph: 15 vertices, 56 edges
        groups
          input     4
          layers_0  8
          layers_2  3
        edge blocks
          layers_0/kernel  (4, 8)  input -> layers_0
          layers_2/kernel  (8, 3)  layers_0 -> layers_2
        left out
          layers_0/bias  (8,)  bias: joins no two units
          layers_2/bias  (3,)  bias: joins no two units
    """
    leaves = leaves_by_path(params)
    for path, leaf in leaves.items():
        # A mask may hide a whole subtree at once, of which only the path is left.
        if is_masked(leaf) and path[-1:] not in [(name,) for name in _REASONS]:
            raise MaskedKernelError(
                f"The mask hides {display(path)}, which is or may hold a kernel. Let the mask include every kernel, or "
                "pass the graph of the visible ones, built from the whole parameters with fj.graph_from_edges."
            )
    kernels = sorted((path for path in leaves if path[-1:] == ("kernel",)), key=natural_key)
    if not kernels:
        raise NoKernelsError(
            f"No leaf named 'kernel' among {_names(leaves)}. State the edges by hand: "
            "fj.graph_from_edges(params, [('path/of/the/leaf', 'source', 'target'), ...])."
        )
    for path in kernels:
        shape = leaf_shape(leaves[path])
        if len(shape) != 2:
            raise UnsupportedKernelError(
                f"{display(path)} has shape {shape}; names and shapes only place 2-D Dense kernels. State those to "
                "use by hand: fj.graph_from_edges(params, [('Dense_0/kernel', 'source', 'target'), ...])."
            )
    chain = order_chain({path: leaf_shape(leaves[path]) for path in kernels})
    names = ["input", *(display(path[:-1]) or display(path) for path in chain)]
    return graph_from_edges(params, list(zip(chain, names[:-1], names[1:], strict=True)))


def graph_from_edges(params: Any, edges: Iterable[tuple[str | Iterable[Any], str, str]]) -> NetworkGraph:
    """A graph whose edge blocks are stated by hand, for anything that `graph_from_params` cannot read.

    Args:
        params: a parameter tree, of arrays or `jax.ShapeDtypeStruct`s.
        edges: triples (path of a 2-D leaf, name of the group of its rows, name of the group of its columns). A path
            is written ``"Dense_0/kernel"`` or ``("Dense_0", "kernel")``. Groups come into being when first named;
            one kernel may appear in several triples (weight tying), and two kernels may join the same groups.

    Returns:
        The graph; every other leaf is listed in `left_out`.

    Raises:
        EdgeError: no edges, no such leaf, a leaf that is not 2-D, or a group given two sizes.

    Example:
        >>> import jax.numpy as jnp, fiedler_jax as fj
        >>> params = {"skip": {"kernel": jnp.ones((4, 3))}, "head": {"kernel": jnp.ones((4, 3))}}
        >>> graph = fj.graph_from_edges(params, [("skip/kernel", "in", "out"), ("head/kernel", "in", "out")])
        >>> graph.num_vertices, graph.num_edges
        (7, 24)
    """
    leaves = leaves_by_path(params)
    sizes: dict[str, int] = {}
    stated_by: dict[str, str] = {}
    blocks: list[EdgeBlock] = []
    used: set[Path] = set()
    for edge in edges:
        if not isinstance(edge, Sequence) or isinstance(edge, str) or len(edge) != 3:
            raise EdgeError(f"An edge block is a triple (kernel path, source group, target group), not {edge!r}.")
        kernel, source, target = edge
        path = parse_path(kernel)
        if path not in leaves or is_masked(leaves[path]):
            raise EdgeError(f"No leaf {display(path)!r} among {_names(leaves, near=path)}.")
        shape = leaf_shape(leaves[path])
        if len(shape) != 2:
            raise EdgeError(f"{display(path)} has shape {shape}; an edge block needs a 2-D leaf (rows, columns).")
        for name, size in zip((source, target), shape, strict=True):
            if sizes.setdefault(name, size) != size:
                raise EdgeError(
                    f"Group {name!r} has {sizes[name]} units by {stated_by[name]} but {size} by {display(path)} of "
                    f"shape {shape}. Give one of them another group."
                )
            stated_by.setdefault(name, display(path))
        blocks.append(EdgeBlock(display(path), source, target, (shape[0], shape[1])))
        used.add(path)
    if not blocks:
        raise EdgeError("No edges given. Name at least one: [('Dense_0/kernel', 'input', 'output')].")
    left_out = tuple(
        LeftOut(display(path), leaf_shape(leaves[path]), _reason(path))
        for path in sorted(leaves, key=natural_key)
        if path not in used and not is_masked(leaves[path])
    )
    return NetworkGraph(tuple(UnitGroup(name, size) for name, size in sizes.items()), tuple(blocks), left_out)


def kernel_leaves(graph: NetworkGraph, params: Any) -> tuple[Any, ...]:
    """The kernel of each edge block, as it stands in the parameters, checked against the graph.

    Raises:
        KernelMismatchError: a kernel is missing, has another shape, or is not real.
        MaskedKernelError: `optax.masked` hides a kernel.
    """
    leaves = leaves_by_path(params)
    return tuple(_checked_kernel(block, leaves) for block in graph.blocks)


def edge_blocks(graph: NetworkGraph, params: Any) -> tuple[jax.Array, ...]:
    """The edge weights ``a_ij = |W_ij|`` of each block: nonnegative arrays of shape (source size, target size).

    Computed in float32, or in float64 where a kernel is float64. The derivative at a zero weight is zero.

    Raises:
        KernelMismatchError: a kernel is missing, has another shape, or is not real.
        MaskedKernelError: `optax.masked` hides a kernel.

    Example:
        >>> import jax.numpy as jnp, fiedler_jax as fj
        >>> params = {"Dense_0": {"kernel": jnp.array([[1.0, -2.0]])}}
        >>> print(fj.edge_blocks(fj.graph_from_params(params), params)[0])
        [[1. 2.]]
    """
    kernels = kernel_leaves(graph, params)
    dtype = compute_dtype(kernels)
    return tuple(
        without_diagonal(_magnitude(jnp.asarray(kernel, dtype)), block.source == block.target)
        for block, kernel in zip(graph.blocks, kernels, strict=True)
    )


def compute_dtype(kernels: Iterable[Any]) -> jnp.dtype:
    """The dtype to compute in: at least float32, and float64 where any kernel is."""
    return jnp.result_type(jnp.float32, *(kernel.dtype for kernel in kernels))


def without_diagonal(weights: jax.Array, joins_itself: bool) -> jax.Array:
    """Edge weights of a block with its self-loops, if it joins a group to itself, set to zero."""
    return jnp.where(jnp.eye(len(weights), dtype=bool), 0, weights) if joins_itself else weights


def _magnitude(weights: jax.Array) -> jax.Array:
    # The derivative of jnp.abs at zero is one, which would revive exact zeros; that of this product is zero.
    return weights * jnp.sign(weights)


def _checked_kernel(block: EdgeBlock, leaves: dict[Path, Any]) -> Any:
    path = parse_path(block.kernel)
    if path not in leaves:
        raise KernelMismatchError(
            f"The graph has an edge block {block.kernel} of shape {block.shape}, but the parameters hold only "
            f"{_names(leaves, near=path)}. Build the graph from the same parameters."
        )
    leaf = leaves[path]
    if is_masked(leaf):
        raise MaskedKernelError(
            f"The mask hides {block.kernel}, an edge block of the graph. Let the mask include every kernel of the "
            "graph, or build the graph from the visible ones with fj.graph_from_edges."
        )
    if leaf_shape(leaf) != block.shape:
        raise KernelMismatchError(
            f"{block.kernel} has shape {leaf_shape(leaf)} in the parameters but {block.shape} in the graph. Build the "
            "graph from the same parameters; under jax.vmap map over the whole update."
        )
    if not jnp.issubdtype(leaf.dtype, jnp.floating):
        raise KernelMismatchError(f"{block.kernel} is {leaf.dtype}; edge weights need a real floating dtype.")
    return leaf


def _reason(path: Path) -> str:
    return _REASONS.get(path[-1] if path else "", "not stated as an edge block")


def _names(leaves: dict[Path, Any], near: Path | None = None) -> str:
    """A readable list of leaves, the ones most like `near` first."""
    names = [display(path) for path in sorted(leaves, key=natural_key)]
    if near is not None:
        close = difflib.get_close_matches(display(near), names, n=3)
        names = close + [name for name in names if name not in close]
    shown = ", ".join(names[:8]) or "no leaves at all"
    return shown + (f" and {len(names) - 8} more" if len(names) > 8 else "")
