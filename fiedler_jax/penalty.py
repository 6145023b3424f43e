"""The penalties made from Fiedler pairs, and what they ask of each weight."""

import functools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp

from fiedler_jax._checks import is_real, rows_of_vertices
from fiedler_jax._paths import Path, canonical_path
from fiedler_jax._sharding import on_automatic_axes, replicated
from fiedler_jax.edges import kernel_leaves, pull_back, without_diagonal
from fiedler_jax.errors import HyperparameterError
from fiedler_jax.graph import NetworkGraph
from fiedler_jax.laplacian import Laplacian, Range, laplacian

# What stands for a zero weight where the derivative with respect to its magnitude is asked for.
_NUDGE = 1e-19


def variational_penalty(graph: NetworkGraph, params: Any, vectors: jax.Array, *, normalized: bool = True) -> jax.Array:
    """``Σ uᵀ L(params) u`` over frozen test vectors u: an upper bound of λ2 near the point where they were found.

    Args:
        graph: the graph.
        params: parameters, with respect to which the penalty is differentiable.
        vectors: one test vector (n,) or rows (b, n), such as ``fiedler_pair(...).vector``; held constant.
        normalized: which Laplacian.

    Raises:
        ArgumentTypeError: the graph is none.
        VectorError: a vector does not have one entry per vertex.
        KernelMismatchError: the parameters do not fit the graph.
        MaskedKernelError: `optax.masked` hides a kernel.

    Source: Tam & Dunson, ICML 2020, section 4.2.

    Example:
        >>> import jax.numpy as jnp, fiedler_jax as fj
        >>> params = {"Dense_0": {"kernel": jnp.array([[1.0, -2.0]])}}
        >>> graph = fj.graph_from_params(params)
        >>> print(fj.variational_penalty(graph, params, jnp.array([0.0, 1.0, 0.0]), normalized=False))
        1.0
    """
    lap = laplacian(graph, params, normalized=normalized)
    rows = rows_of_vertices(vectors, lap.num_vertices)
    return jnp.sum(lap.quadratic_form(jax.lax.stop_gradient(rows)))


def l1_coefficients(
    graph: NetworkGraph, params: Any, vectors: jax.Array, *, normalized: bool = True, strength: float | jax.Array = 1.0
) -> Any:
    """The penalty as a structurally weighted L1: the effective L1 coefficient of every kernel entry.

    ``strength · dλ2/d|W_ij|`` for unit eigenvectors; ``Σ c_ij |W_ij|`` with these coefficients held fixed has the
    same gradient as ``strength · λ2``. Normalized coefficients have both signs and ``Σ c_ij |W_ij| = 0``, since λ2 is
    then unchanged by scaling all weights.

    Args:
        graph: the graph.
        params: parameters.
        vectors: unit vector (n,) or rows (b, n), such as ``fiedler_pair(...).vector``.
        normalized: which Laplacian.
        strength: multiplies the coefficients.

    Returns:
        A tree like `params`: arrays of the kernel's shape where the graph has edges, scalar zeros elsewhere.

    Raises:
        ArgumentTypeError: the graph is none.
        HyperparameterError: `strength` is not one real number.
        VectorError: a vector does not have one entry per vertex.
        KernelMismatchError: the parameters do not fit the graph.
        MaskedKernelError: `optax.masked` hides a kernel.

    Source: Tam & Dunson, ICML 2020, section 4.3.

    Example:
        >>> import jax, jax.numpy as jnp, fiedler_jax as fj
        >>> params = {"Dense_0": {"kernel": jnp.array([[1.0, -2.0]]), "bias": jnp.zeros(2)}}
        >>> graph = fj.graph_from_params(params)
        >>> pair = fj.fiedler_pair(fj.laplacian(graph, params, normalized=False))
        >>> coefficients = fj.l1_coefficients(graph, params, pair.vector, normalized=False)
        >>> penalty = jax.tree.map(lambda c, w: jnp.sum(c * abs(w)), coefficients, params)
        >>> print(f"{sum(jax.tree.leaves(penalty)):.4f} {pair.value:.4f}")
        1.2679 1.2679
    """
    if not is_real(strength):
        raise HyperparameterError(f"strength must be one real number, not {strength!r}.")
    lap = laplacian(graph, params, normalized=normalized)
    rows = jnp.atleast_2d(rows_of_vertices(vectors, lap.num_vertices))
    by_leaf = _at_kernels(graph, lap, kernel_leaves(graph, params), rows, strength)
    zero = jnp.zeros((), lap.dtype)
    return jax.tree_util.tree_map_with_path(lambda key_path, _: by_leaf.get(canonical_path(key_path), zero), params)


@functools.partial(jax.jit, static_argnums=0)
def _at_kernels(
    graph: NetworkGraph, lap: Laplacian, leaves: dict[Path, Any], rows: jax.Array, strength: float | jax.Array
) -> dict[Path, jax.Array]:
    def weighed(leaves: dict[Path, Any], rows: jax.Array, values: jax.Array) -> tuple[dict[Path, jax.Array], None]:
        weights = [strength * block for block in block_coefficients(graph, rows, values)]
        return leaf_coefficients(graph, leaves, weights)[0], None

    weighing, values = on_automatic_axes(coefficient_rows, lap, rows), coefficient_values(lap, rows)
    return on_automatic_axes(weighed, leaves, weighing, values, placed_like=leaves)[0]


def leaf_coefficients(
    graph: NetworkGraph, leaves: dict[Path, Any], blocks: Sequence[jax.Array]
) -> tuple[dict[Path, jax.Array], dict[Path, jax.Array]]:
    """What ``Σ c_ij a_ij`` is near each entry w of each of the `kernel_leaves`: ``c |w| + s w`` with these c and s.

    A nonzero entry has the derivative with respect to its magnitude, and no slope s. At a zero one the derivatives to
    both sides, all zeros of the leaves nudged at once, tell a kink (c, what a plain kernel has there) from a slope
    (s, what B of ``W + B A`` has where W is not zero).
    """

    def beside_zero(sign: int) -> dict[Path, jax.Array]:
        # A nudge so small that it changes no sign, and so large that its products do not underflow.
        nudged = {
            path: jnp.where(leaf == 0, sign * max(float(jnp.finfo(leaf.dtype).tiny), _NUDGE), leaf)
            for path, leaf in leaves.items()
        }
        return pull_back(graph, nudged, blocks)

    above, below = beside_zero(1), beside_zero(-1)
    kinks, slopes = {}, {}
    for path, leaf in leaves.items():
        up, down = above[path], below[path]
        kinks[path] = jnp.where(leaf == 0, (up - down) / 2, up * jnp.sign(leaf))
        slopes[path] = jnp.where(leaf == 0, (up + down) / 2, 0)
    return kinks, slopes


def coefficient_rows(lap: Laplacian, vectors: jax.Array) -> jax.Array:
    """The rows y whose differences weigh the edges: the vectors, or ``D^-1/2 v`` if normalized."""
    return vectors * lap.inverse_root_degrees if lap.normalized else vectors


def coefficient_values(lap: Laplacian, vectors: jax.Array) -> jax.Array:
    """The λ in ``(y_i - y_j)² - λ (y_i² + y_j²)``, shape (b,): Rayleigh quotients if normalized, else zero."""
    return lap.quadratic_form(vectors) if lap.normalized else jnp.zeros(len(vectors), lap.dtype)


def block_coefficients(graph: NetworkGraph, rows: jax.Array, values: jax.Array) -> tuple[jax.Array, ...]:
    """``Σ (y_i - y_j)² - λ (y_i² + y_j²)`` over rows (b, n) and values (b,), for each edge block."""
    ranges = graph.ranges

    def of_block(source: Range, target: Range, shape: tuple[int, ...]) -> jax.Array:
        y = replicated(rows[:, slice(*source)]).reshape(len(rows), *shape[:-1], 1)
        z = replicated(rows[:, slice(*target)]).reshape(len(rows), *shape[:-2], 1, shape[-1])
        weight = values.reshape(len(rows), *[1] * len(shape))
        return jnp.sum((y - z) ** 2 - (weight * y**2 + weight * z**2), axis=0)

    # A self-loop drops out of the Laplacian, whatever its coefficient would be.
    return tuple(
        without_diagonal(of_block(ranges[b.source], ranges[b.target], b.shape), b.source == b.target)
        for b in graph.blocks
    )
