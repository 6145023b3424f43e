"""Block generalized Davidson with locally optimal restart (GD+k), the default solver."""

import dataclasses
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from fiedler_jax._rows import lengths, squares
from fiedler_jax.eigen._basis import (
    RitzPairs,
    orthonormalize,
    rayleigh_ritz,
    rows_or_none,
    scattered_rows,
)
from fiedler_jax.eigen._corrections import corrections, is_vague, loosest, pairs_of, reach_of
from fiedler_jax.eigen._missing import LOOSE_PRODUCTS, Evidence, given_at_start, is_shown
from fiedler_jax.eigen._operator import SymmetricOperator
from fiedler_jax.eigen._result import (
    Assessment,
    EigenResult,
    RitzReport,
    absent_value,
    accuracy_floor,
    assess,
    check_settings,
    conclude,
    default_tolerance,
    is_present,
    settled_residual,
)
from fiedler_jax.eigen._varying import varying_alike

# Fewer start rows than this are filled up with scattered ones. On half of a network, given parts of higher eigenvectors
# and none of the Fiedler vector, two more of them led to none instead of two wrong values in 3,000 solves.
_START_ROWS = 8

# A row of `init` joins the basis when this share of it was found without it; then no eigenvector of about its value is
# likely to be missing. Of 200 random networks of 100-75-75 units whose λ2 and λ3 differ by half a per cent, λ3's vector
# was taken for the answer in 7, and with λ4's in 77, when rows joined after two products; with a share of 0.9 in none
# and 2. In 1,200 sparse graphs of 250 vertices it was in one with 0.99, and in none with 0.999
# (tests/test_misleading_starts.py draws dense and layered ones).
_SEEN = 0.999

# So many pairs are corrected besides the targets: the guard, and what may come down furthest. With targets, guard and
# one row of `init` they fill the block of eight. On 20531 inputs in training, combinatorial, three took up to 8
# products and four take 4 or 5. Where all pairs of the basis were corrected, those that mislead turned sharp before
# what was missed showed.
_FURTHER = 4

# Each time so many products have been made, and residuals are within so many floors, the lowest Ritz vectors are
# multiplied anew: their products, mixed from others at each restart, drift from what the operator makes of them.
# Normalized in float32, λ2 and λ3 of 784-500-500-500-10 were not found in 300 products without it, and in 22 with it.
# Where residuals are still large it costs directions: a path of 400 vertices was not done after 300 products instead of
# 244.
_PRODUCTS_LAST = 16
_NEAR_THE_FLOOR = 8


class _State(NamedTuple):
    """An orthonormal basis V (m, n), its products A V, what the one before gave, and what joins it next.

    Row 0 of V is the null vector, so that whatever is made orthogonal to V is orthogonal to it. Rows that do not exist
    are zero. What joins are rows of V itself where these begin `anew`, and the others are left behind. `waiting` says
    which rows of `init` have not joined.
    """

    basis: jax.Array
    products: jax.Array
    joining: jax.Array
    anew: jax.Array
    report: RitzReport
    found: Assessment
    evidence: Evidence
    init: jax.Array
    waiting: jax.Array
    developed: jax.Array
    matvecs: jax.Array
    finite: jax.Array
    done: jax.Array


class _Shape(NamedTuple):
    """How many rows are what: to the null vector and `kept` Ritz vectors, `block` more may come.

    Of the Ritz vectors the first `wanted` are the targets and the guard; `corrected` of them are corrected at a time.
    Each time as many rows come as at the start, zeros mostly: whatever has another shape would be compiled as well,
    which takes as long as some hundred solves.
    """

    wanted: int
    corrected: int
    block: int
    kept: int


@dataclasses.dataclass(frozen=True)
class Davidson:
    """Block generalized Davidson with locally optimal restart, preconditioned by the diagonal.

    Each iteration multiplies one block by the operator: corrections of the k targets, of a guard above them, and of
    the pairs whose residuals leave most room for an eigenvalue that was missed, and where targets and guard were
    before; where the diagonal is uneven, the last of each give way to rows towards what hangs together heavily. The
    basis is then restarted from the lowest Ritz vectors. It ends when the targets are accurate and no other pair can
    come down to them; where start rows happened to be eigenvectors, not before what the scattered rows found, which
    hold a part of every eigenvector, lies clear of them. What the caller gives, which may be a higher eigenvector,
    joins only when nearly all of it has been found without it: it saves the last products, not the first.

    Attributes:
        tol: relative accuracy asked of the values; by default 1e-6 in float32 and 1e-9 in float64.
        max_iterations: block products allowed after the first.
        basis_size: rows of the basis, but for those that are zero; raised where the start rows need more.

    Source: Stathopoulos & Saad, "Restarting techniques for the (Jacobi-)Davidson symmetric eigenvalue methods",
    ETNA 7 (1998); the correction is Olsen's.

    Example:
        >>> import jax.numpy as jnp, fiedler_jax as fj
        >>> lap = fj.laplacian_from_adjacency(1 - jnp.eye(5))
        >>> print(f"{fj.fiedler_pair(lap, solver=fj.Davidson(max_iterations=50)).value:.4f}")
        5.0000
    """

    tol: float | None = None
    max_iterations: int = 300
    basis_size: int = 19

    def __post_init__(self) -> None:
        check_settings(self.tol, self.max_iterations, self.basis_size)

    @jax.default_matmul_precision("highest")
    def solve(
        self,
        operator: SymmetricOperator,
        num: int = 1,
        *,
        init: jax.Array | None = None,
        start: jax.Array | None = None,
    ) -> EigenResult:
        """The `num` smallest eigenpairs; no row of `init` or `start` need be accurate or independent of the others.

        Near eigenvectors belong in `init`: eight rows of `start` that were exact higher eigenvectors, beside two
        scattered ones, have been seen to hide the smallest value.
        """
        start, init = rows_or_none(operator, start), rows_or_none(operator, init)
        tol = default_tolerance(self.tol, operator.diagonal.dtype)
        scattered = scattered_rows(operator, max(num + 1, _START_ROWS - len(start)))
        wanted, corrected = num + 1, num + _FURTHER
        # Corrections, and where targets and guard were.
        joining = corrected + wanted
        block = max(len(start) + len(scattered), joining + len(init))
        shape = _Shape(wanted, corrected, block, kept=max(block, self.basis_size - 1 - joining))

        def unfinished(state: _State) -> jax.Array:
            return ~state.done & (state.evidence.iterations <= self.max_iterations)

        def step(state: _State) -> _State:
            return varying_alike(_improve(operator, _expand(operator, state), shape, tol), operator.diagonal)

        first = _begin(operator, jnp.concatenate([start, scattered]), init, shape)
        state = jax.lax.while_loop(unfinished, step, varying_alike(first, operator.diagonal))
        return conclude(
            operator,
            state.report,
            state.found,
            state.basis,
            state.matvecs,
            state.evidence.iterations,
            finite=state.finite,
            complete=state.developed,
            first=1,
        )


def _units_beside(rows: jax.Array, basis: jax.Array) -> jax.Array:
    """What these rows hold beside an orthonormal basis, of length one."""
    rest = rows - (rows @ basis.T) @ basis
    return rest / jnp.maximum(lengths(rest), jnp.finfo(rest.dtype).tiny)[:, None]


def _begin(operator: SymmetricOperator, rows: jax.Array, init: jax.Array, shape: _Shape) -> _State:
    """Nothing but the null vector, and the start rows to join it."""
    dtype, n = rows.dtype, rows.shape[1]
    # What the first step replaces before it is looked at.
    none = jnp.full(shape.kept, absent_value(operator))
    return _State(
        basis=jnp.pad(operator.null_vector[None], ((0, shape.kept), (0, 0))),
        products=jnp.zeros((1 + shape.kept, n), dtype),
        joining=_filled([rows], shape.block),
        anew=jnp.zeros((), bool),
        report=RitzReport(none, none, none),
        found=Assessment(none[: shape.wanted - 1], *[jnp.zeros((), bool)] * 3),
        evidence=Evidence(
            given=none,
            falling=jnp.zeros((), bool),
            fell=jnp.zeros((), bool),
            iterations=jnp.zeros((), jnp.int32),
        ),
        init=init,
        waiting=jnp.ones(len(init), bool),
        developed=jnp.zeros((), bool),
        matvecs=jnp.zeros((), jnp.int32),
        finite=jnp.ones((), bool),
        done=jnp.zeros((), bool),
    )


def _filled(rows: Sequence[jax.Array], count: int) -> jax.Array:
    """Rows under one another, and zeros up to a count of them."""
    together = jnp.concatenate(rows)
    return jnp.pad(together, ((0, count - len(together)), (0, 0)))


def _expand(operator: SymmetricOperator, state: _State) -> _State:
    """The basis with all that joins it, and their products."""
    rows = orthonormalize(state.joining, state.basis, held=~state.anew | (np.arange(len(state.basis)) == 0))
    return state._replace(
        basis=jnp.concatenate([state.basis, rows]),
        products=jnp.concatenate([state.products, operator.matvec(rows)]),
        evidence=state.evidence._replace(iterations=state.evidence.iterations + 1),
    )


def _is_worn(operator: SymmetricOperator, report: RitzReport, evidence: Evidence, num: int) -> jax.Array:
    """Whether the drift of the products may be what keeps the targets from the accuracy of the dtype.

    Not where values are rounding: the order in which they are held apart would be lost.
    """
    iterations, floor = evidence.iterations, accuracy_floor(operator)
    near = (jnp.max(report.residuals[:num]) <= _NEAR_THE_FLOOR * floor) & (report.values[0] > floor)
    # What falls would be lost among the directions that are left behind: so were 3 of 6,799 graphs with heavy cliques,
    # given higher eigenvectors or mixtures of them, and none of 7,872 with this rule.
    near &= ~evidence.is_awaited | (iterations > LOOSE_PRODUCTS)
    return near & (jax.lax.rem(iterations, jnp.int32(_PRODUCTS_LAST)) == 0)


def _improve(operator: SymmetricOperator, state: _State, shape: _Shape, tol: float) -> _State:
    """The best pairs the basis holds, and whether they will do; the basis restarted from them, and what is to join.

    What a basis that began anew left behind must come back before anything is concluded from it.
    """
    wanted, kept, num = shape.wanted, shape.kept, shape.wanted - 1
    projected = state.basis @ state.products.T
    place = np.arange(len(state.basis))
    valid = (squares(state.basis) > 0.5) & (place > 0) & (~state.anew | (place > kept))
    fresh = jnp.sum(valid[1 + kept :], dtype=jnp.int32)
    # A NaN or infinite weight shows in the products of the start rows, or in the bound of the spectrum.
    finite = jnp.all(jnp.isfinite(projected)) & jnp.isfinite(operator.upper_bound)
    # Nothing new to look at: what the basis holds is all there is, or all that rounding allows.
    stuck = fresh == 0
    exhausted = stuck | _holds_all(operator, valid)
    values, coefficients = rayleigh_ritz(operator, projected, valid, state.report.residuals, final=exhausted)
    # Nothing of rows that are left behind. The null vector stays, for what it holds leads nowhere.
    ritz = RitzPairs(values, jnp.where((valid | (place == 0))[:, None], coefficients, 0))
    there = _those_there(operator, ritz)
    mixing = _restart(there, shape)
    basis, products = mixing @ state.basis, mixing @ state.products
    values, vectors = ritz.values[:kept], basis[1 : 1 + kept]
    pairs = pairs_of(operator, values, vectors, products[1 : 1 + kept])
    report = RitzReport(values, lengths(pairs.residuals), reach_of(pairs))
    iterations = state.evidence.iterations
    given, init = jax.lax.cond(
        iterations == 1,
        lambda: _given_and_rest(operator, report, vectors, state.init),
        lambda: (state.evidence.given, state.init),
    )
    # With a single row as the left factor XLA copies the transposed basis.
    parts = (state.basis @ init.T).T
    seen = state.waiting & (squares(parts) >= _SEEN)
    vague = is_vague(operator, pairs, shape.corrected)
    cautious = report._replace(reach=jnp.where(vague, values, report.reach))
    # Where nothing is left to look at, nothing smaller can hide in a residual at the floor.
    settled = jnp.where(exhausted, accuracy_floor(operator), settled_residual(operator, values[:num]))
    found = assess(operator, cautious, num, tol, exhausted, settled)
    loose = None
    # Corrections by an even diagonal find what is loose as well as the rest.
    if operator.even is None:
        loose = loosest(operator, ritz, state.basis, state.products, projected, report, wanted)
    falling = jnp.zeros((), bool) if loose is None else loose.falling
    evidence = Evidence(given, falling, state.evidence.falling, iterations)
    developed = exhausted | found.lowest | is_shown(operator, report, evidence, num, tol, settled)
    chosen = _most_needed(operator, report, settled, shape)
    corrected = corrections(operator, pairs, chosen)
    # What former targets and guard hold that the new basis does not is the direction in which these moved.
    former = state.basis[1 : 1 + wanted]
    last = jnp.concatenate([corrected[-1:], former[-1:]])
    if loose is not None:
        # The last of each give way to what is loose.
        last = jnp.where(loose.hides, loose.rows, last)
        # And the highest pairs to what these rows lead on from, without which it comes down as slowly as by a power
        # iteration: of the same 240 solves in float32, 53 were wrong so, and 10 now.
        basis, products = jax.lax.cond(
            loose.hides & evidence.is_awaited & (iterations < LOOSE_PRODUCTS),
            lambda: _ending_in(loose.mixing, there[kept - len(loose.mixing) :], state, basis, products),
            lambda: (basis, products),
        )
    joining = _filled([corrected[:-1], former[:-1], last, jnp.where(seen[:, None], init, 0)], shape.block)
    anew = _is_worn(operator, report, evidence, num)
    return _State(
        basis=basis,
        products=products,
        joining=jnp.where(anew, basis[1 : 1 + shape.block], joining),
        anew=anew,
        report=report,
        found=found,
        evidence=evidence,
        init=init,
        waiting=state.waiting & ~seen,
        developed=developed,
        matvecs=state.matvecs + fresh,
        finite=finite,
        # A basis that holds all there is may leave more than the floor, which a second look at it takes away.
        done=stuck | ~finite | (developed & (found.accurate | found.resolved) & ~state.anew),
    )


def _given_and_rest(
    operator: SymmetricOperator, report: RitzReport, vectors: jax.Array, init: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Which pairs of the first basis start rows gave, and what rows of `init` hold beside the others."""
    given = given_at_start(operator, report, vectors)
    # What start rows gave was not found by scattered ones, and by itself lets no row of `init` join: with it 3 of 2,000
    # graphs with leaves and cliques were wrong in silence (tests/test_misleading_starts.py has them).
    found = jnp.concatenate([operator.null_vector[None], jnp.where(jnp.isinf(given)[:, None], 0, vectors)])
    return given, _units_beside(init, found)


def _ending_in(
    loose: jax.Array, above: jax.Array, state: _State, basis: jax.Array, products: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """The restarted basis and its products, the last rows of which give way to what is loose.

    That is taken in the pairs `above` those that stay.
    """
    count = len(loose)
    held = jnp.linalg.qr(above @ loose.T)[0].T @ above
    return basis.at[-count:].set(held @ state.basis), products.at[-count:].set(held @ state.products)


def _holds_all(operator: SymmetricOperator, valid: jax.Array) -> jax.Array | bool:
    """Whether the valid rows and the null vector span the support."""
    if len(valid) < len(operator.support):
        return False
    return jnp.sum(valid) + (squares(operator.null_vector[None])[0] > 0.5) >= jnp.sum(operator.support)


def _most_needed(operator: SymmetricOperator, report: RitzReport, settled: jax.Array, shape: _Shape) -> jax.Array:
    """Rows (corrected, kept) with a one for a pair to correct: targets and guard, then what may come down furthest.

    A settled residual needs no correction.
    """
    below = (report.values - report.reach) / absent_value(operator)
    order = jnp.where(report.residuals > settled, below, jnp.inf)
    order = jnp.where((np.arange(shape.kept) < shape.wanted) & (order < jnp.inf), -jnp.inf, order)
    # In float32 XLA selects, in float64 it sorts; which of nearly equal ones is chosen is no matter.
    urgency, place = jax.lax.top_k(-order.astype(jnp.float32), shape.corrected)
    chosen = (place[:, None] == np.arange(shape.kept)) & (urgency[:, None] > -jnp.inf)
    return chosen.astype(order.dtype)


def _restart(there: jax.Array, shape: _Shape) -> jax.Array:
    """How the rows of the next basis mix those of this one: the null vector stays as it is, before the lowest pairs."""
    null = np.eye(1, there.shape[1], dtype=there.dtype)
    return jnp.concatenate([null, there[: shape.kept]])


def _those_there(operator: SymmetricOperator, ritz: RitzPairs) -> jax.Array:
    """How pairs mix the rows of the basis, in a row each: zero if they do not exist, and nothing of the null vector.

    That is one of those that do not exist. Taken up with what is loose, it was called λ2's of most combinatorial graphs
    of ten vertices; and what of these was taken up in parts left rows that were neither of length one nor orthogonal.
    """
    rows = ritz.coefficients.T
    exists = is_present(operator, ritz.values)
    return jnp.where(exists[:, None] & (np.arange(len(rows)) > 0), rows, 0)
