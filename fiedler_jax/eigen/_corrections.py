"""What the diagonal of the operator says of Ritz pairs: where to look next, and how far they may come down."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from fiedler_jax.eigen._basis import RitzPairs
from fiedler_jax.eigen._operator import SymmetricOperator
from fiedler_jax.eigen._result import RitzReport, absent_value, accuracy_floor
from fiedler_jax.eigen._rows import diagonal, inner_products, lengths

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

# Of 6,000 reorderings of two graphs with several such groups, one row, towards the mixture of the least quotient, left
# 41 CONVERGED at another value or at the floor of one, in float64 too; towards the mixture that is chosen now 21, and
# two rows none, in 10 to 20 % fewer products (tests/test_misleading_starts.py draws such ones).
_LOOSE_ROWS = 2

# A pair that can come down by no more than this share of its value takes no part in a loose mixture. The modes of a
# heavy path come down by little at a time and by much in all: of 240 solves with two such paths, given λ3's exact
# vector, 76 were wrong in silence in float64 with a share of 0.1, and 3 now (tests/test_misleading_starts.py has some).
_DEVELOPED = 0.01

# Rows of a basis are told apart in the norm of the diagonal as far as float32 can; where it cannot, they count less.
_RIDGE = 1e-4


class Loose(NamedTuple):
    """What of a basis (m, n) hangs together by heavy edges and on the rest by light ones.

    Attributes:
        mixing: how the rows of the basis mix to it, (2, m).
        rows: rows (2, n) towards more of it.
        hides: whether a target may be such: not where the diagonal is about even, nor below targets that are rounding.
        falling: whether it may, and its value may come down to nothing.
    """

    mixing: jax.Array
    rows: jax.Array
    hides: jax.Array
    falling: jax.Array


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
    difference = rows**2 - (_VAGUE * values[:, None] * vectors) ** 2
    return jnp.sum(_preconditioned(operator, values, difference, least=1), axis=1) > 0


def is_uneven(operator: SymmetricOperator) -> jax.Array:
    """Whether the diagonal differs enough for corrections by it to miss what is loose."""
    least = jnp.min(jnp.where(operator.support, operator.diagonal, jnp.inf))
    return jnp.max(operator.diagonal) > _UNEVEN * least


def loosest(
    operator: SymmetricOperator,
    ritz: RitzPairs,
    basis: jax.Array,
    products: jax.Array,
    projected: jax.Array,
    report: RitzReport,
    wanted: int,
) -> Loose:
    """The two mixtures that hang together by the heaviest edges and on the rest by the lightest, and where they lead.

    Such a vector has a small value beside large degrees, by which no correction finds it, and at a restart its parts
    are lost in Ritz vectors of larger values. So all pairs but the `wanted` first and those of the report that are
    developed are mixed to vectors v that A and D both leave apart. Of the two whose ``D⁻¹A v`` is furthest from the
    basis, in the norm of D, ``v - D⁻¹A v`` is taken, which keeps such parts alone. Beyond 45° one is falling: its
    quotient ``vᵀA v / vᵀD v`` may come down to nothing. What of ``D⁻¹A v`` the basis holds leads nowhere: with the
    angle to v alone an LSTM, whose embedded words are light beside its units, took 100 products instead of 3 (`python
    -m benchmarks.models --models lstm --combinatorial`).
    """
    developed = report.reach <= _DEVELOPED * report.values
    developed |= jnp.minimum(report.values, report.residuals) <= accuracy_floor(operator)
    number, exists = np.arange(len(basis)), ritz.values < absent_value(operator) / 2
    free = exists & (number >= wanted) & ~jnp.pad(developed, (0, len(basis) - len(developed)))
    scale = jnp.where(free, jax.lax.rsqrt(jnp.maximum(ritz.values, accuracy_floor(operator))), 0)
    mixing = scale[:, None] * ritz.coefficients.T
    # Divided by the roots of their values all have ``vᵀA v = 1``, and any rotation of them too.
    gram = (operator.diagonal * basis) @ basis.T
    weights = mixing @ gram @ mixing.T
    weights, rotation = jnp.linalg.eigh(weights, symmetrize_input=False)
    mixing = rotation.T @ mixing
    steps = _preconditioned(operator, jnp.zeros(len(basis), scale.dtype), products, least=1)
    # The squared tangent of the angle.
    bent = weights * jnp.sum((mixing @ (steps @ products.T)) * mixing, axis=1) - 1
    # In a basis turned alike, so that one decomposition waits for the other: under vmap both are of batches, and two
    # such at once wait for each other for ever where XLA has two threads (jax 0.10.2).
    turned = rotation.T @ ritz.coefficients.T
    bent = jax.lax.cond(
        jnp.max(bent) > 1,
        lambda: bent + 1 - weights * _held(turned @ gram @ turned.T, turned @ projected @ mixing.T),
        lambda: bent,
    )
    most, place = jax.lax.top_k(bent, _LOOSE_ROWS)
    mixing = (place[:, None] == number).astype(scale.dtype) @ mixing
    hides = is_uneven(operator) & (jnp.max(report.values[: wanted - 1]) > accuracy_floor(operator))
    return Loose(mixing, mixing @ (basis - steps), hides, hides & (most[0] > 1))


def _held(gram: jax.Array, columns: jax.Array) -> jax.Array:
    """What a basis holds of vectors, ``cᵀ G⁻¹ c``, from its Gram matrix and its inner products with each of them."""
    size = diagonal(gram)
    inverse = jnp.where(size > 0, jax.lax.rsqrt(jnp.where(size > 0, size, 1)), 0)
    sizes, turn = jnp.linalg.eigh(gram * inverse * inverse[:, None], symmetrize_input=False)
    parts = turn.T @ (inverse[:, None] * columns)
    return jnp.sum(parts**2 / (jnp.maximum(sizes, 0) + _RIDGE)[:, None], axis=0)


def _preconditioned(operator: SymmetricOperator, values: jax.Array, rows: jax.Array, least: float) -> jax.Array:
    """``rows / |d - θ|`` with distances of at least a share `least` of d, in a row for each value."""
    diagonal = operator.diagonal
    distance = jnp.maximum(jnp.abs(diagonal - values[:, None]), least * diagonal)
    return jnp.where(distance > 0, rows / distance, 0)
