"""Whether an eigenvalue may be missing below those found: what was given shows little, what still falls hides much."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from fiedler_jax.eigen._operator import SymmetricOperator
from fiedler_jax.eigen._result import APART, RitzReport, absent_value, accuracy_floor, stands_clear
from fiedler_jax.eigen._rows import inner_products, squares

# Ritz pairs of given start rows that are exact to this share of their value or of the diagonal, though no scattered row
# took part, show nothing about what was missed; with vertices of a network's least degree the share is 1 / sqrt(fan).
# Where two vertices of least degree hang together, and little on the rest, their sum is such a pair: of 4,000 graphs
# with three such couples 78 were wrong in silence as long as only the share of its small value counted, and none now
# (60 vertices, float32, combinatorial; tests/test_misleading_starts.py draws such ones).
_NEARLY_EXACT = 0.01

# A pair counts as given by start rows if scattered ones hold less than this share of it.
_FOUND = 0.9

# A pair above the targets counts as given where more than this share of it lies in rows of `init` that joined. Given
# the exact vectors of λ4 to λ6 when three values were asked for, λ4's of a heavy couple among vertices of least degree,
# that value was missed in 11 of 1,200 sparse graphs without this rule, and in none of 2,000 with it (120 vertices,
# float32; tests/test_misleading_starts.py draws such ones). With the row towards what is loose and without this rule
# it was still missed in one of 300 reorderings of such a graph.
_JOINED = 0.5

# Within so many floors of zero pairs may count as given by rows of `init` that joined. There, and where targets are
# such rows, what is loose is waited for on an even diagonal too; on an uneven one it is at any height. With the first
# rule everywhere 3072 inputs took up to 15 products in training instead of 6. With the wait near zero only, a layered
# graph was CONVERGED at its λ3, 120 times as large, given that vector, in float64 too (tests/test_misleading_starts.py
# has it).
_LOOSE_BELOW = 1000

# So many products are made where the loosest of what is not developed may still come down to nothing. Of 3,678 solves
# of graphs with leaves, and heavy cliques that hang on them lightly, 40 were wrong in silence without a row towards
# these, one CONVERGED at 4.5 times its value. With it 6 of 10,000 were, and with this rule too none (120 vertices,
# float32; tests/test_misleading_starts.py draws such ones). For these 24 products do. Two long heavy paths, tied alike
# and lightly to what bears leaves, take more: of 900 in float32 7 were wrong with 100 products and 2 with 300; but
# paths and trees, on which the loosest never comes to an end, took all of these.
LOOSE_PRODUCTS = 100

# And so many where targets lie within so many floors of zero: leaves, found at once, may be all that shows as yet. One
# of those 10,000 was wrong without this rule, a couple of common degree that showed after five products; and one of
# 4,000 with less light ties, as long as it held within 32 floors only: its λ3, at 35, was taken for the answer. With
# 20531 inputs, 380 floors above zero and more, four to six products do.
_LEAST_PRODUCTS = 8
_LEAST_BELOW = 200


class Evidence(NamedTuple):
    """What the Ritz pairs of a basis owe to the rows it began with, and what may still come out of it.

    Attributes:
        given: the lower ends of the pairs that were nearly exact from the start without the scattered rows, else
            infinity.
        joined: which pairs of the basis lie in rows of `init` that joined.
        falling: whether the loosest of what is not developed may come down to a target.
        fell: the same of one product before.
        iterations: how many block products were made.
    """

    given: jax.Array
    joined: jax.Array
    falling: jax.Array
    fell: jax.Array
    iterations: jax.Array

    @property
    def is_awaited(self) -> jax.Array:
        """Whether what is loose is waited for.

        For once it may not show, as when pairs that hold parts of it come to count as developed: of 2,000 reorderings
        of a network with a group of three, given λ3's exact vector, one was CONVERGED at that, 110 times as large, in
        float64 too, and of 2,000 solves with two heavy paths 25 were wrong instead of 13.
        """
        return self.falling | self.fell


def given_at_start(
    operator: SymmetricOperator, report: RitzReport, vectors: jax.Array, scattered: jax.Array, basis: jax.Array
) -> jax.Array:
    """The lower ends of pairs that are nearly exact though the scattered rows hold little of them, else infinity."""
    values, residuals, _ = report
    close = operator.tolerance_scale(values) * values
    # Beside a value far below the diagonal a residual may be long that the first correction takes away.
    scale = jnp.maximum(close, inner_products(operator.diagonal * vectors, vectors))
    near = residuals <= jnp.maximum(_NEARLY_EXACT * scale, accuracy_floor(operator))
    near &= (values < absent_value(operator) / 2) & (_shares(scattered, basis) < _FOUND)
    # A little lower still, since rounding may move the pair in later bases.
    return jnp.where(near, values - residuals - 1e-3 * close - accuracy_floor(operator), jnp.inf)


def _shares(rows: jax.Array, basis: jax.Array) -> jax.Array:
    """How much of each row of the basis but the first lies in the span of these rows, taken as orthogonal."""
    parts = (rows @ basis[1:].T) ** 2
    return jnp.sum(parts / jnp.maximum(squares(rows), jnp.finfo(rows.dtype).tiny)[:, None], axis=0)


def lies_in(parts: jax.Array) -> jax.Array:
    """Which pairs lie in rows of `init` that joined, from the parts (rows, pairs) these have in them."""
    # Of rows that are not orthogonal to each other the sum is too much, which is on the safe side.
    return squares(parts.T) >= _JOINED


def is_awaited(operator: SymmetricOperator, targets: jax.Array, joined: jax.Array) -> jax.Array:
    """Whether what is falling is waited for: may it come down to targets of these values, which have joined or not."""
    return _is_low(operator, targets, _LOOSE_BELOW) | jnp.any(joined)


def _is_low(operator: SymmetricOperator, targets: jax.Array, floors: float) -> jax.Array:
    return jnp.max(targets) <= floors * accuracy_floor(operator)


def is_shown(
    operator: SymmetricOperator, report: RitzReport, evidence: Evidence, num: int, tol: float, settled: jax.Array
) -> jax.Array:
    """Whether what was not given shows itself, and enough products were made to see it.

    All pairs up to the first one that was not given must be sharp and clear of the targets. Where none was given or
    joined that is the guard, and how far it must be clear is no matter here; where start rows gave some it also takes a
    second product, as the scattered rows alone show where most eigenvalues lie and not the smallest.
    """
    values, given = report.values, evidence.given
    none_given = jnp.all(jnp.isinf(given))
    joined = evidence.joined & _is_low(operator, values[:num], _LOOSE_BELOW)
    number = np.arange(len(values))
    # More pairs lie up to these than were given.
    shown = ~joined & (number >= num) & (number >= jnp.sum(given <= values[:, None], axis=1))
    first = jnp.min(jnp.where(shown, number, len(values)))
    clear = stands_clear(operator, report, num, tol, settled, apart=jnp.where(none_given & (first == num), 0, APART))
    above = (number >= num) & (number <= first)
    seen = (none_given | (evidence.iterations > 1)) & jnp.all(clear | ~above) | (first == len(values))
    least = jnp.where(_is_low(operator, values[:num], _LEAST_BELOW), _LEAST_PRODUCTS, 1)
    return seen & (evidence.iterations >= jnp.where(evidence.is_awaited, LOOSE_PRODUCTS, least))
