"""From a graph and parameters to edge weights: nonnegative numbers, a pure function of both."""

from collections.abc import Iterable, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from fiedler_jax._arrangement import arranged
from fiedler_jax._effective import evaluate
from fiedler_jax._paths import Path, is_masked, leaf_shape, leaves_by_path, listed, named, parse_path
from fiedler_jax.errors import ArgumentTypeError, KernelMismatchError, MaskedKernelError
from fiedler_jax.graph import EdgeBlock, NetworkGraph, check_graph


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


def edge_blocks(graph: NetworkGraph, params: Any) -> tuple[jax.Array, ...]:
    """The edge weights ``a_ij`` of each block: nonnegative arrays of the block's shape.

    The weight between two units is the sum of ``|W|`` over all entries of the effective kernel that join them.
    Computed in float32, or in float64 where a kernel is float64. The derivative at a zero weight is zero.

    Raises:
        ArgumentTypeError: the graph is none, or the parameters are shapes without numbers.
        KernelMismatchError: a kernel is missing, has another shape, or is not real.
        MaskedKernelError: `optax.masked` hides a kernel.

    Example:
        >>> import jax.numpy as jnp, fiedler_jax as fj
        >>> params = {"Dense_0": {"kernel": jnp.array([[1.0, -2.0]])}}
        >>> print(fj.edge_blocks(fj.graph_from_params(params), params)[0])
        [[1. 2.]]
    """
    return _all_at_once(graph, _upcast(kernel_leaves(graph, params)))


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


# Outside jit each operation by itself would be compiled for each shape and run on its own.
_all_at_once = jax.jit(_blocks_of_leaves, static_argnums=0)


def _upcast(leaves: dict[Path, Any]) -> dict[Path, jax.Array]:
    for path, leaf in leaves.items():
        if isinstance(leaf, jax.ShapeDtypeStruct):
            raise ArgumentTypeError(
                f"{named(path)} is a shape without numbers, as jax.eval_shape gives. A graph can be built from those; "
                "edge weights need the parameters themselves, or a call inside jax.eval_shape."
            )
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
            f"{listed(leaves, near=path)}. Build the graph from the same parameters."
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
