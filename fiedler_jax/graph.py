"""From a parameter tree to a weighted graph: units are vertices, absolute weights are edges."""

import dataclasses
import difflib
import math
from collections.abc import Iterable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from fiedler_jax._arrangement import Arrangement, arranged
from fiedler_jax._chain import order_chain
from fiedler_jax._components import components
from fiedler_jax._effective import evaluate
from fiedler_jax._paths import Path, display, is_masked, leaf_shape, leaves_by_path, named, natural_key, parse_path
from fiedler_jax._report import summary, to_dot
from fiedler_jax.errors import (
    ArgumentTypeError,
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
    by ``|W_ij| + |W_ji|`` and the diagonal drops out. A shape (blocks, rows, columns) stands for as many blocks of
    edges, each between its own part of the source and its own part of the target (a grouped convolution).

    Attributes:
        kernel: path of the kernel; several, joined by commas, where the model makes one kernel of them.
        source: name of the group of the rows.
        target: name of the group of the columns.
        shape: (rows, columns), or (blocks, rows, columns).
        arrangement: how the block comes from the kernel; None where it is the kernel.
    """

    kernel: str
    source: str
    target: str
    shape: tuple[int, ...]
    arrangement: Arrangement | None = None

    @property
    def leaves(self) -> dict[Path, tuple[int, ...]]:
        """The parameter leaves the block is made of, with their shapes."""
        if self.arrangement is None:
            return {parse_path(self.kernel): self.shape}
        return self.arrangement.effective.leaves


@dataclasses.dataclass(frozen=True)
class LeftOut:
    """A parameter leaf that gives the graph no edges, and why."""

    path: str
    shape: tuple[int, ...]
    reason: str


@jax.tree_util.register_static
@dataclasses.dataclass(frozen=True)
class NetworkGraph:
    """What is connected to what: static, hashable, without arrays; as an argument under `jax.jit` it is static too.

    Build one with `graph_from_params`, `graph_from_model` or `graph_from_edges`; ``print(graph)`` shows what is in it
    and what is left out. Vertices are numbered group by group, in the order of `groups`.

    Attributes:
        groups: the groups of units.
        blocks: the edge blocks, one per use of a kernel.
        left_out: every parameter leaf without edges, with the reason.
        not_understood: what `graph_from_model` could not follow, in words; edges may be missing there.
    """

    groups: tuple[UnitGroup, ...]
    blocks: tuple[EdgeBlock, ...]
    left_out: tuple[LeftOut, ...] = ()
    not_understood: tuple[str, ...] = ()

    @property
    def num_vertices(self) -> int:
        """Number of units in all groups."""
        return sum(group.size for group in self.groups)

    @property
    def num_edges(self) -> int:
        """Number of pairs of units joined by all blocks: kernel entries, those that join the same pair once."""
        return sum(math.prod(block.shape) for block in self.blocks)

    @property
    def ranges(self) -> dict[str, tuple[int, int]]:
        """First vertex and one past the last vertex of each group, by its name."""
        stops = np.cumsum([group.size for group in self.groups]).tolist()
        return {group.name: (stop - group.size, stop) for group, stop in zip(self.groups, stops, strict=True)}

    @property
    def components(self) -> tuple[dict[str, int], ...]:
        """The connected components, whatever the weights are: of each, how many of its units are in which group.

        With several, λ2 is zero. A unit that is joined to none is in no component.
        """
        return components(self.blocks, self.ranges)

    def __str__(self) -> str:
        return self.summary()

    def summary(self) -> str:
        """Tables of the groups of units and where they come from, of the edge blocks, and of what is left out and why.

        Example:
            >>> import jax.numpy as jnp, fiedler_jax as fj
            >>> print(fj.graph_from_params({"Dense_0": {"kernel": jnp.ones((4, 2))}}).summary())
            NetworkGraph: 6 vertices, 8 edges
            groups
              input    4  -> Dense_0
              Dense_0  2  of Dense_0/kernel
            edge blocks
              Dense_0/kernel  (4, 2)  input -> Dense_0
        """
        return summary(self)

    def to_dot(self) -> str:
        """The graph of groups and edge blocks in the DOT language of Graphviz.

        Example:
            >>> import jax.numpy as jnp, fiedler_jax as fj
            >>> print(fj.graph_from_params({"Dense_0": {"kernel": jnp.ones((4, 2))}}).to_dot())
            digraph {
              rankdir=LR
              node [shape=box]
              "input" [label="input\\n4 units"]
              "Dense_0" [label="Dense_0\\n2 units"]
              "input" -> "Dense_0" [label="Dense_0/kernel\\n(4, 2)"]
            }
        """
        return to_dot(self)


def graph_from_params(params: Any) -> NetworkGraph:
    """The graph of a plain chain of Dense kernels, read off the names and shapes of its parameters.

    Kernels are the leaves named ``kernel``. Numbered names give their order (``Dense_2`` before ``Dense_10``,
    ``layers/0`` before ``layers/1``); where names are not numbered the shapes must leave exactly one order. Names are
    trusted: Flax numbers layers in the order of their *creation*, so a model whose nested calls create the last
    layer first needs `graph_from_model`, as does any model that is no chain.

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
          input     4  -> layers_0
          layers_0  8  of layers_0/kernel
          layers_2  3  of layers_2/kernel
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
                f"The mask hides {named(path)}, which is or may hold a kernel. Let the mask include every kernel, or "
                "pass the graph of the visible ones, built from the whole parameters with fj.graph_from_edges."
            )
    kernels = sorted((path for path in leaves if path[-1:] == ("kernel",)), key=natural_key)
    if not kernels:
        raise NoKernelsError(
            f"No leaf named 'kernel' among {_names(leaves)}. Trace the model: fj.graph_from_model(model, params, "
            "inputs); or state the edges by hand: fj.graph_from_edges(params, [('path/of/the/leaf', 'source', "
            "'target'), ...])."
        )
    for path in kernels:
        shape = leaf_shape(leaves[path])
        if len(shape) != 2:
            raise UnsupportedKernelError(
                f"{display(path)} has shape {shape}; names and shapes only place 2-D Dense kernels. Trace the model: "
                "fj.graph_from_model(model, params, inputs); or state those to use by hand: "
                "fj.graph_from_edges(params, [('Dense_0/kernel', 'source', 'target'), ...])."
            )
    chain = order_chain({path: leaf_shape(leaves[path]) for path in kernels})
    layers = [display(path[:-1]) or display(path) for path in chain]
    inputs = "input"
    while inputs in layers:
        inputs += "s"
    return graph_from_edges(params, list(zip(chain, [inputs, *layers[:-1]], layers, strict=True)))


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
        if not (isinstance(kernel, Iterable) and isinstance(source, str) and isinstance(target, str)):
            raise EdgeError(f"A path and two names of groups are strings (a path a tuple of them, too), not {edge!r}.")
        path = parse_path(kernel)
        if path not in leaves or is_masked(leaves[path]):
            raise EdgeError(f"No leaf {named(path)!r} among {_names(leaves, near=path)}.")
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
        LeftOut(display(path), leaf_shape(leaves[path]), reason_by_name(path) or "not stated as an edge block")
        for path in sorted(leaves, key=natural_key)
        if path not in used and not is_masked(leaves[path])
    )
    return NetworkGraph(tuple(UnitGroup(name, size) for name, size in sizes.items()), tuple(blocks), left_out)


def kernel_leaves(graph: NetworkGraph, params: Any) -> dict[Path, Any]:
    """The parameter leaves that the edge blocks are made of, checked against the graph.

    Raises:
        ArgumentTypeError: the graph is none.
        KernelMismatchError: a kernel is missing, has another shape, or is not real.
        MaskedKernelError: `optax.masked` hides a kernel.
    """
    check_graph(graph)
    leaves = leaves_by_path(params)
    return {
        path: _checked_kernel(path, shape, leaves) for block in graph.blocks for path, shape in block.leaves.items()
    }


def check_graph(graph: Any) -> None:
    """Raise ArgumentTypeError unless it is a `NetworkGraph`."""
    if not isinstance(graph, NetworkGraph):
        raise ArgumentTypeError(
            f"The graph must be a NetworkGraph, not {type(graph).__name__}. Build it with fj.graph_from_params, "
            "fj.graph_from_model or fj.graph_from_edges; it comes before the parameters."
        )


def edge_blocks(graph: NetworkGraph, params: Any) -> tuple[jax.Array, ...]:
    """The edge weights ``a_ij`` of each block: nonnegative arrays of the block's shape.

    The weight between two units is the sum of ``|W|`` over all entries of the effective kernel that join them.
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
    return _blocks_of_leaves(graph, _upcast(kernel_leaves(graph, params)))


def pull_back(graph: NetworkGraph, leaves: dict[Path, Any], coefficients: Sequence[jax.Array]) -> dict[Path, jax.Array]:
    """The derivative of ``Σ c_ij a_ij`` with respect to each of the `kernel_leaves`, the coefficients held fixed."""

    def blocks(leaves: dict[Path, jax.Array]) -> tuple[jax.Array, ...]:
        # So the derivative reads each leaf where it stands. XLA copies what is read elsewhere, such as the other way
        # round, before it updates it in place; but magnitudes of which parts are taken it would keep beside these.
        return _blocks_of_leaves(graph, leaves, {path: _magnitude(leaf) for path, leaf in leaves.items()})

    _, transposed = jax.vjp(blocks, _upcast(leaves))
    return transposed(tuple(coefficients))[0]


def _blocks_of_leaves(
    graph: NetworkGraph, leaves: dict[Path, jax.Array], magnitudes: dict[Path, jax.Array] | None = None
) -> tuple[jax.Array, ...]:
    """The edge blocks; given magnitudes are moved in place of the leaves where that is all that becomes of these."""
    dtype = compute_dtype(leaves.values())
    computed: dict[int, Any] = {}
    moved: dict[int, Any] = {}

    def weights(block: EdgeBlock) -> jax.Array:
        if block.arrangement is None:
            return _magnitude(leaves[parse_path(block.kernel)])
        effective = block.arrangement.effective
        if magnitudes is not None and effective.moved:
            entries = jnp.asarray(evaluate(effective, magnitudes, moved), dtype)
        else:
            # A complex kernel may be made of real leaves.
            entries = jnp.asarray(_magnitude(jnp.asarray(evaluate(effective, leaves, computed))), dtype)
        return arranged(entries, block.arrangement, block.shape)

    return tuple(without_diagonal(weights(block), block.source == block.target) for block in graph.blocks)


def _upcast(leaves: dict[Path, Any]) -> dict[Path, jax.Array]:
    dtype = compute_dtype(leaves.values())
    return {path: jnp.asarray(leaf, dtype) for path, leaf in leaves.items()}


def compute_dtype(kernels: Iterable[Any]) -> jnp.dtype:
    """The dtype to compute in: at least float32, and float64 where any kernel is."""
    return jnp.result_type(jnp.float64 if any(kernel.dtype == jnp.float64 for kernel in kernels) else jnp.float32)


def without_diagonal(weights: jax.Array, joins_itself: bool) -> jax.Array:
    """Edge weights of a block with its self-loops, if it joins a group to itself, set to zero."""
    return jnp.where(jnp.eye(weights.shape[-1], dtype=bool), 0, weights) if joins_itself else weights


def _magnitude(weights: jax.Array) -> jax.Array:
    # The derivative of jnp.abs at zero is one, which would revive exact zeros; that of this product is zero.
    return (weights * jnp.sign(weights).conj()).real


def _checked_kernel(path: Path, shape: tuple[int, ...], leaves: dict[Path, Any]) -> Any:
    name = named(path)
    if any(is_masked(leaves.get(path[:stop])) for stop in range(len(path) + 1)):
        raise MaskedKernelError(
            f"The mask hides {name}, which gives edges to the graph. Let the mask include every kernel of the "
            "graph, or build the graph from the visible ones with fj.graph_from_edges."
        )
    if path not in leaves:
        raise KernelMismatchError(
            f"The graph has edges from {name} of shape {shape}, but the parameters hold only "
            f"{_names(leaves, near=path)}. Build the graph from the same parameters."
        )
    leaf = leaves[path]
    if leaf_shape(leaf) != shape:
        raise KernelMismatchError(
            f"{name} has shape {leaf_shape(leaf)} in the parameters but {shape} in the graph. Build the "
            "graph from the same parameters; under jax.vmap map over the whole update."
        )
    if not jnp.issubdtype(leaf.dtype, jnp.floating):
        raise KernelMismatchError(f"{name} is {leaf.dtype}; edge weights need a real floating dtype.")
    return leaf


def reason_by_name(path: Path) -> str | None:
    """Why a leaf of this name has no edges in a chain."""
    return _REASONS.get(path[-1] if path else "")


def _names(leaves: dict[Path, Any], near: Path | None = None) -> str:
    """A readable list of leaves, the ones most like `near` first."""
    names = [named(path) for path in sorted(leaves, key=natural_key)]
    if near is not None:
        close = difflib.get_close_matches(named(near), names, n=3)
        names = close + [name for name in names if name not in close]
    shown = ", ".join(names[:8]) or "no leaves at all"
    return shown + (f" and {len(names) - 8} more" if len(names) > 8 else "")
