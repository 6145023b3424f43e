"""What the diagonal of the operator says of Ritz pairs: where to look next, and how far they may come down."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from fiedler_jax._rows import diagonal_of, inner_products, lengths, squares
from fiedler_jax.eigen._basis import RitzPairs, residuals_of
from fiedler_jax.eigen._operator import SymmetricOperator
from fiedler_jax.eigen._result import RitzReport, accuracy_floor, is_present

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


class Pairs(NamedTuple):
    """Ritz pairs: their values (k,), vectors and residual rows (k, n), and these preconditioned."""

    values: jax.Array
    vectors: jax.Array
    residuals: jax.Array
    steps: jax.Array


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


def pairs_of(operator: SymmetricOperator, values: jax.Array, vectors: jax.Array, products: jax.Array) -> Pairs:
    """Ritz pairs with their residuals, from the products of their vectors."""
    residuals = residuals_of(operator, values, vectors, products)
    return Pairs(values, vectors, residuals, _preconditioned(operator, values, residuals, _REACHED))


def corrections(operator: SymmetricOperator, pairs: Pairs, chosen: jax.Array) -> jax.Array:
    """Preconditioned residuals of the `chosen` pairs (c, m), in each row a one for one of them.

    Made orthogonal to the vectors in the preconditioner's sense (Olsen). Where the diagonal is even that gives the
    residuals back. Coordinates of a zero diagonal are left alike there: preconditioned they outweigh the rest beside
    values near zero.
    """
    if operator.even is not None:
        return chosen @ pairs.residuals
    values, x = chosen @ pairs.values, chosen @ pairs.vectors
    along = _preconditioned(operator, values, x, _CLOSEST)
    steps = _preconditioned(operator, values, chosen @ pairs.residuals, _CLOSEST)
    weight = inner_products(along, x)
    shift = inner_products(steps, x) / jnp.where(weight > 0, weight, 1)
    return steps - shift[:, None] * along


def reach_of(pairs: Pairs) -> jax.Array:
    """How far pairs may come down.

    To second order a correction lowers the value by so much; no eigenvalue is more than the residual away.
    """
    return jnp.minimum(lengths(pairs.residuals), inner_products(pairs.steps, pairs.residuals))


def is_vague(operator: SymmetricOperator, pairs: Pairs, count: int) -> jax.Array:
    """Whether residuals are so long beside ``θ v``, both in the preconditioner's norm, that they say nothing yet.

    Of the first `count` only: pairs further up may stay so to the end.
    """
    values, vectors, residuals, steps = pairs
    if operator.even is not None:
        distance = jnp.maximum(jnp.abs(operator.even - values), _REACHED * operator.even)
        long = distance * inner_products(steps, residuals) > (_VAGUE * values) ** 2
        return long & (np.arange(len(values)) < count)
    difference = (residuals**2 - (_VAGUE * values[:, None] * vectors) ** 2)[:count]
    long = jnp.sum(_preconditioned(operator, values[:count], difference, least=1), axis=1) > 0
    return jnp.pad(long, (0, len(values) - count))


def is_uneven(operator: SymmetricOperator) -> jax.Array:
    """Whether the diagonal differs enough for corrections by it to miss what is loose."""
    # Of a Laplacian the bound is twice the largest degree. A sum compiles to less than a least number.
    small = operator.support & (2 * _UNEVEN * operator.diagonal < operator.upper_bound)
    return squares(small.astype(operator.diagonal.dtype)[None])[0] > 0


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
    diagonal = operator.diagonal
    developed = report.reach <= _DEVELOPED * report.values
    developed |= jnp.minimum(report.values, report.residuals) <= accuracy_floor(operator)
    number, exists = np.arange(len(basis)), is_present(operator, ritz.values)
    free = exists & (number >= wanted) & ~jnp.pad(developed, (0, len(basis) - len(developed)))
    scale = jnp.where(free, jax.lax.rsqrt(jnp.maximum(ritz.values, accuracy_floor(operator))), 0)
    mixing = scale[:, None] * ritz.coefficients.T
    # Divided by the roots of their values all have ``vᵀA v = 1``, and any rotation of them too.
    gram = (diagonal * basis) @ basis.T
    weights = mixing @ gram @ mixing.T
    weights, rotation = jnp.linalg.eigh(weights, symmetrize_input=False)
    mixing = rotation.T @ mixing
    inverse = jnp.where(diagonal > 0, 1 / jnp.maximum(diagonal, jnp.finfo(diagonal.dtype).tiny), 0)
    # The squared tangent of the angle.
    bent = weights * jnp.sum((mixing @ ((inverse * products) @ products.T)) * mixing, axis=1) - 1
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
    return Loose(mixing, mixing @ basis - inverse * (mixing @ products), hides, hides & (most[0] > 1))


def _held(gram: jax.Array, columns: jax.Array) -> jax.Array:
    """What a basis holds of vectors, ``cᵀ G⁻¹ c``, from its Gram matrix and its inner products with each of them."""
    size = diagonal_of(gram)
    inverse = jnp.where(size > 0, jax.lax.rsqrt(jnp.where(size > 0, size, 1)), 0)
    sizes, turn = jnp.linalg.eigh(gram * inverse * inverse[:, None], symmetrize_input=False)
    parts = turn.T @ (inverse[:, None] * columns)
    return jnp.sum(parts**2 / (jnp.maximum(sizes, 0) + _RIDGE)[:, None], axis=0)


def _preconditioned(operator: SymmetricOperator, values: jax.Array, rows: jax.Array, least: float) -> jax.Array:
    """``rows / |d - θ|`` with distances of at least a share `least` of d, in a row for each value."""
    # The barrier keeps XLA from working out the share of d before the loop, in one more kernel.
    diagonal, values = jax.lax.optimization_barrier((operator.diagonal, values))
    distance = jnp.maximum(jnp.abs(diagonal - values[:, None]), least * diagonal)
    return jnp.where(distance > 0, rows / distance, 0)
