"""What the diagonal of the operator says of Ritz pairs: where to look next, and how far they may come down."""

import jax
import jax.numpy as jnp
import numpy as np

from fiedler_jax.eigen._basis import RitzPairs
from fiedler_jax.eigen._operator import SymmetricOperator
from fiedler_jax.eigen._result import RitzReport, absent_value, accuracy_floor
from fiedler_jax.eigen._rows import inner_products, lengths

# The least distance of a value from the diagonal, as a share of the diagonal, that a correction counts with. Where
# thousands of inputs have nearly one degree, 0.1 took 29 block products and 0.01 took 6; where the two least differ by
# 5e-5 of it, 0.01 took 14, 0.003 took 7 and 0.0003 took 9. The reach of a pair is an estimate to second order only, and
# with the smaller share would be so large that it holds up the end.
_CLOSEST = 0.003
_REACHED = 0.1

# With a residual beyond this share of its value a pair may come down by all of it. Of 6,000 paths, grids and trees with
# leaves, mixtures of higher eigenvectors as start and the normalized Laplacian, 289 were wrong without this rule, one
# with a share of 1 and none with 0.7 (tests/test_misleading_starts.py draws such ones).
_VAGUE = 0.7

# Where no entry of the diagonal is more than so many times another, corrections find what hangs together on heavy
# vertices as well as what does not, and a row towards it would only repeat one. Elsewhere it counts at any value: of
# 4,000 graphs with one heavy clique, a mixture of higher eigenvectors given, 13 were CONVERGED at another value in
# float64 without the row, up to ten times as large, and none with it (benchmarks.misleading's islands).
_UNEVEN = 2

# A pair that can come down by no more than this share of its value takes no part in a loose mixture.
_DEVELOPED = 0.1


def corrections(operator: SymmetricOperator, values: jax.Array, x: jax.Array, r: jax.Array) -> jax.Array:
    """Preconditioned residuals r of vectors x, made orthogonal to these in the preconditioner's sense (Olsen)."""
    along = _preconditioned(operator, values, x, _CLOSEST)
    steps = _preconditioned(operator, values, r, _CLOSEST)
    weight = inner_products(along, x)
    shift = inner_products(steps, x) / jnp.where(weight > 0, weight, 1)
    return steps - shift[:, None] * along


def reach_of(operator: SymmetricOperator, values: jax.Array, rows: jax.Array) -> jax.Array:
    """How far pairs with these residual rows may come down.

    To second order a correction lowers the value by so much; no eigenvalue is more than the residual away.
    """
    return jnp.minimum(lengths(rows), inner_products(_preconditioned(operator, values, rows, _REACHED), rows))


def is_vague(operator: SymmetricOperator, values: jax.Array, vectors: jax.Array, rows: jax.Array) -> jax.Array:
    """Whether residuals are so long beside ``θ v``, both in the preconditioner's norm, that they say nothing yet."""

    def squared(x: jax.Array) -> jax.Array:
        return inner_products(_preconditioned(operator, values, x, least=1), x)

    return squared(rows) > (_VAGUE * values) ** 2 * squared(vectors)


def is_uneven(operator: SymmetricOperator) -> jax.Array:
    """Whether the diagonal differs enough for corrections by it to miss what is loose."""
    least = jnp.min(jnp.where(operator.support, operator.diagonal, jnp.inf))
    return jnp.max(operator.diagonal) > _UNEVEN * least


def loosest(
    operator: SymmetricOperator,
    ritz: RitzPairs,
    basis: jax.Array,
    products: jax.Array,
    report: RitzReport,
    wanted: int,
) -> tuple[jax.Array, jax.Array]:
    """A row (1, n) towards what hangs together by heavy edges and on the rest by light ones, and whether it is falling.

    Such a vector has a small value beside large degrees, by which no correction finds it, and at a restart its parts
    are lost in Ritz vectors of larger values. So of all pairs but the `wanted` first and those of the report that are
    developed, the mixture v with the least quotient ``vᵀA v / vᵀD v`` is taken, and of it ``v - D⁻¹A v``, which keeps
    such parts alone. With ``D = 1``, normalized, v is the first of these pairs. As long as ``D⁻¹A v`` is further than
    45° from v, in the norm of D, it is falling: the quotient may come down to nothing.
    """
    developed = report.reach <= jnp.maximum(_DEVELOPED * report.values, accuracy_floor(operator))
    number, exists = np.arange(len(basis)), ritz.values < absent_value(operator) / 2
    free = exists & (number >= wanted) & ~jnp.pad(developed, (0, len(basis) - len(developed)))
    scale = jnp.where(free, jax.lax.rsqrt(jnp.maximum(ritz.values, accuracy_floor(operator))), 0)
    mixing = scale[:, None] * ritz.coefficients.T
    # Divided by the roots of their values pairs have one quotient, and the largest weight is the least quotient.
    weights = mixing @ ((operator.diagonal * basis) @ basis.T) @ mixing.T
    _, mixtures = jnp.linalg.eigh(weights, symmetrize_input=False)
    mixture = mixtures[:, -1:].T @ mixing
    row, product = mixture @ basis, mixture @ products
    step = _preconditioned(operator, jnp.zeros(1, scale.dtype), product, least=1)
    squared = inner_products(step, product) * inner_products(operator.diagonal * row, row)
    return row - step, squared[0] > 2 * inner_products(row, product)[0] ** 2


def _preconditioned(operator: SymmetricOperator, values: jax.Array, rows: jax.Array, least: float) -> jax.Array:
    """``rows / |d - θ|`` with distances of at least a share `least` of d, in a row for each value."""
    diagonal = operator.diagonal
    distance = jnp.maximum(jnp.abs(diagonal - values[:, None]), least * diagonal)
    return jnp.where(distance > 0, rows / distance, 0)
