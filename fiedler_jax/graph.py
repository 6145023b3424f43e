"""From a parameter tree to a graph: units are vertices, and kernels say what is connected to what."""

import dataclasses
import math
from collections.abc import Iterable, Sequence
from typing import Any

import jax
import numpy as np

from fiedler_jax._arrangement import Arrangement
from fiedler_jax._chain import order_chain
from fiedler_jax._components import components
from fiedler_jax._paths import (
    Path,
    display,
    is_masked,
    leaf_shape,
    leaves_by_path,
    listed,
    named,
    natural_key,
    parse_path,
)
from fiedler_jax._report import summary, to_dot
from fiedler_jax.errors import (
    ArgumentTypeError,
    EdgeError,
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
            f"No leaf named 'kernel' among {listed(leaves)}. Trace the model: fj.graph_from_model(model, params, "
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
            raise EdgeError(f"No leaf {named(path)!r} among {listed(leaves, near=path)}.")
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


def check_graph(graph: Any) -> None:
    """Raise ArgumentTypeError unless it is a `NetworkGraph`."""
    if not isinstance(graph, NetworkGraph):
        raise ArgumentTypeError(
            f"The graph must be a NetworkGraph, not {type(graph).__name__}. Build it with fj.graph_from_params, "
            "fj.graph_from_model or fj.graph_from_edges; it comes before the parameters."
        )


def reason_by_name(path: Path) -> str | None:
    """Why a leaf of this name has no edges in a chain."""
    return _REASONS.get(path[-1] if path else "")
