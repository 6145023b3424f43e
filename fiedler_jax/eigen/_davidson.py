"""Block generalized Davidson with locally optimal restart (GD+k), the default solver."""

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp

from fiedler_jax.eigen._basis import (
    RitzPairs,
    lengths,
    orthonormalize,
    rayleigh_ritz,
    residuals_of,
    scattered_rows,
    start_basis,
)
from fiedler_jax.eigen._operator import SymmetricOperator
from fiedler_jax.eigen._result import (
    EigenResult,
    RitzReport,
    absent_value,
    accuracy_floor,
    assess,
    check_settings,
    conclude,
    default_tolerance,
    is_finite,
    sharpness,
)

# Fewer start rows than this are filled up with scattered ones. On half of a network, given parts of higher eigenvectors
# and none of the Fiedler vector, two more of them led to none instead of two wrong values in 3,000 solves.
_START_ROWS = 8

# Ritz pairs of given start rows that are exact to this share of their value, though no scattered row took part, show
# nothing about what was missed; with vertices of a network's least degree the share is 1 / sqrt(fan).
_NEARLY_EXACT = 0.01

# After this many block products the scattered rows show what they hold, where the guard was given. On 24 vertices with
# random weights, two exact higher eigenvectors as start, 4 missed the smallest eigenvalue in 5 of 8,000 cases, 6 in 1,
# 8 in none.
_PATIENCE = 8

# The least distance of a value from the diagonal, as a share of the diagonal, that a correction counts with. Where
# thousands of inputs have nearly one degree, 0.01 took 6 block products and 0.1 took 29. The reach of a pair is an
# estimate to second order only, and with the smaller share would be so large that it holds up the end.
_CLOSEST = 0.01
_REACHED = 0.1


class _State(NamedTuple):
    """An orthonormal basis V (m, n), its products A V, and what the one before gave.

    Row 0 of V is the null vector, so that whatever is made orthogonal to V is orthogonal to it; it counts as not
    valid, as do rows that are zero. `scattered` holds the scattered rows in coordinates of the first basis; `given`
    the lower ends of the Ritz pairs that were nearly exact from the start without them, else infinity; `chosen` the
    pairs to correct next.
    """

    basis: jax.Array
    products: jax.Array
    valid: jax.Array
    report: RitzReport
    scattered: jax.Array
    given: jax.Array
    developed: jax.Array
    chosen: jax.Array
    iterations: jax.Array
    done: jax.Array


class _Shape(NamedTuple):
    """How many rows of the basis are what: after the null vector come `kept` Ritz vectors and `wanted` directions.

    Of the Ritz vectors the first `wanted` are the targets and the guard; `block` of them are corrected at a time.
    """

    wanted: int
    block: int
    kept: int

    @property
    def restarted(self) -> int:
        return 1 + self.kept + self.wanted

    @property
    def full(self) -> int:
        return self.restarted + self.block


@dataclasses.dataclass(frozen=True)
class Davidson:
    """Block generalized Davidson with locally optimal restart, preconditioned by the diagonal.

    Each iteration multiplies one block by the operator: corrections of the k targets, of a guard above them, and of
    the pair whose residual leaves most room for an eigenvalue that was missed. The basis is then restarted from the
    lowest Ritz vectors and from the directions in which targets and guard moved last. It ends when the targets are
    accurate and no other pair can come down to them; where start rows happened to be eigenvectors, not before the
    scattered rows, which hold a part of every eigenvector, have had time to show it.

    Attributes:
        tol: relative accuracy asked of the values; by default 1e-6 in float32 and 1e-9 in float64.
        max_iterations: block products allowed after the first.
        basis_size: rows of the basis; raised where the start rows need more.

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
    basis_size: int = 16

    def __post_init__(self) -> None:
        check_settings(self.tol, self.max_iterations, self.basis_size)

    @jax.default_matmul_precision("highest")
    def solve(self, operator: SymmetricOperator, start: jax.Array, num: int = 1) -> EigenResult:
        """The `num` smallest eigenpairs, from start rows (m, n), none of which need be accurate or independent."""
        tol = default_tolerance(self.tol, operator.diagonal.dtype)
        scattered = scattered_rows(operator, max(num + 1, _START_ROWS - len(start)))
        rows = start_basis(operator, start, scattered)
        wanted, block = num + 1, num + 2
        shape = _Shape(wanted, block, kept=max(self.basis_size - 1 - wanted - block, len(rows), block))

        def step(state: _State) -> _State:
            improved = _improve(operator, state, shape, tol)
            improved = improved._replace(done=improved.done | (state.iterations > self.max_iterations))
            return jax.lax.cond(improved.done, lambda same: same, lambda s: _expand(operator, s, shape), improved)

        state = jax.lax.while_loop(lambda state: ~state.done, step, _begin(operator, rows, scattered, shape))
        return conclude(
            operator,
            state.report,
            state.basis[1 : 1 + num],
            tol,
            len(rows) + block * (state.iterations - 1),
            state.iterations,
            complete=state.developed,
        )


def _begin(operator: SymmetricOperator, rows: jax.Array, scattered: jax.Array, shape: _Shape) -> _State:
    dtype, empty = rows.dtype, shape.full - 1 - len(rows)
    basis = jnp.concatenate([operator.null_vector[None], rows, jnp.zeros((empty, rows.shape[1]), dtype)])
    return _State(
        basis=basis,
        products=jnp.pad(operator.matvec(rows), ((1, empty), (0, 0))),
        valid=jnp.pad(lengths(rows) > 0.5, (1, empty)),
        report=RitzReport(
            values=jnp.full(shape.kept, absent_value(operator), dtype),
            residuals=jnp.zeros(shape.kept, dtype),
            reach=jnp.zeros(shape.kept, dtype),
        ),
        scattered=scattered @ basis.T / jnp.maximum(lengths(scattered)[:, None], jnp.finfo(dtype).tiny),
        given=jnp.full(shape.kept, jnp.inf, dtype),
        developed=jnp.zeros((), bool),
        chosen=jnp.zeros(shape.block, jnp.int32),
        iterations=jnp.ones((), jnp.int32),
        done=~is_finite(operator),
    )


def _improve(operator: SymmetricOperator, state: _State, shape: _Shape, tol: float) -> _State:
    """The best pairs the basis holds, and whether they will do; the basis restarted from them, its last rows free."""
    wanted, kept = shape.wanted, shape.kept
    ritz = _steadied(operator, rayleigh_ritz(operator, state.basis @ state.products.T, state.valid))
    mixing, valid = _restart(operator, ritz, shape)
    basis, products = mixing @ state.basis, mixing @ state.products
    rows = residuals_of(operator, ritz.values[:kept], basis[1 : 1 + kept], products[1 : 1 + kept])
    residuals = lengths(rows)
    # To second order a correction lowers the value by this much; no eigenvalue is more than the residual away.
    reach = jnp.minimum(residuals, jnp.sum(_preconditioner(operator, ritz.values[:kept], _REACHED) * rows**2, axis=1))
    report = RitzReport(ritz.values[:kept], residuals, reach)
    given = jnp.where(state.iterations == 1, _given(operator, report, state.scattered @ ritz.coefficients), state.given)
    found = assess(operator, report, wanted - 1, tol)
    developed = found.lowest | _developed(operator, report, given, wanted - 1, state.iterations)
    # Targets and guard come first, then what may come down furthest; a residual that is rounding needs no correction.
    order = jnp.where(jnp.arange(kept) < wanted, -jnp.inf, report.values - reach)
    order = jnp.where(residuals > accuracy_floor(operator), order, jnp.inf)
    return state._replace(
        basis=basis,
        products=products,
        valid=valid,
        report=report,
        given=given,
        developed=developed,
        chosen=jax.lax.top_k(-order, shape.block)[1],
        done=state.done | (developed & (found.accurate | found.resolved)),
    )


def _steadied(operator: SymmetricOperator, ritz: RitzPairs) -> RitzPairs:
    """The pairs, those whose values are rounding turned among themselves so that the first stays what it was.

    The order and the mixture in which such pairs come, as the parts of a disconnected graph do, is rounding too: each
    takes a share of what is wrong in the others, and none would converge before all do.
    """
    former = jnp.where(ritz.values <= accuracy_floor(operator), ritz.coefficients[1], 0)
    length = jnp.sqrt(jnp.sum(former**2))
    # The reflection that exchanges the first of them with what they hold of the former one.
    mirror = (former / jnp.where(length > 0, length, 1)).at[0].add(jnp.where(former[0] > 0, 1, -1) * (length > 0))
    squared = jnp.sum(mirror**2)
    turn = ritz.coefficients @ mirror / jnp.where(squared > 0, squared, 1)
    return ritz._replace(coefficients=ritz.coefficients - 2 * turn[:, None] * mirror)


def _restart(operator: SymmetricOperator, ritz: RitzPairs, shape: _Shape) -> tuple[jax.Array, jax.Array]:
    """How the rows of the next basis mix those of this one, and which of them are valid."""
    wanted, kept = shape.wanted, shape.kept
    exists = ritz.values < absent_value(operator) / 2
    # The part of targets and guard outside the former ones, in coordinates of the Ritz vectors that are not kept.
    former = ritz.coefficients[1 : 1 + wanted]
    moves = jnp.where(exists[kept:, None], former[:, kept:].T @ former[:, :wanted], 0)
    directions = jnp.linalg.qr(moves)[0].T
    mixing = jnp.concatenate(
        [
            jnp.where(exists[:kept, None], ritz.coefficients[:, :kept].T, 0),
            directions @ ritz.coefficients[:, kept:].T,
            jnp.zeros((shape.block, shape.full), directions.dtype),
        ]
    )
    directed = directions**2 @ exists[kept:].astype(directions.dtype) > 0.5
    # The null vector stays as it is, and nothing takes rounding from it.
    mixing = jnp.pad(mixing[:, 1:], ((1, 0), (1, 0))).at[0, 0].set(1)
    return mixing, jnp.concatenate([jnp.zeros(1, bool), exists[:kept], directed, jnp.zeros(shape.block, bool)])


def _given(operator: SymmetricOperator, report: RitzReport, scattered: jax.Array) -> jax.Array:
    """The lower ends of pairs that are nearly exact without the scattered rows, whose parts in them are given."""
    values, residuals, _ = report
    share = jnp.sum(scattered[:, : len(values)] ** 2, axis=0)
    close = operator.tolerance_scale(values) * values
    near = residuals <= jnp.maximum(_NEARLY_EXACT * close, accuracy_floor(operator))
    near &= (values < absent_value(operator) / 2) & (share < 0.5)
    # A little lower still, since rounding may move the pair in later bases.
    return jnp.where(near, values - residuals - 1e-3 * close - accuracy_floor(operator), jnp.inf)


def _developed(
    operator: SymmetricOperator, report: RitzReport, given: jax.Array, num: int, iterations: jax.Array
) -> jax.Array:
    """Whether a pair that was not given is sharp: the guard, or else one above it, and after some iterations."""
    values, residuals, _ = report
    # More pairs lie up to these than were given.
    found = jnp.arange(num, len(values)) >= jnp.sum(given <= values[num:, None], axis=1)
    first = jax.lax.argmax(found, 0, jnp.int32)
    sharp = residuals[num:] <= sharpness(operator, values[num:])
    return (sharp[first] & ((first == 0) | (iterations >= _PATIENCE))) | ~jnp.any(found)


def _expand(operator: SymmetricOperator, state: _State, shape: _Shape) -> _State:
    """The basis with a block of corrections, and their products, in its last rows."""
    rows = orthonormalize(_correct(operator, state), state.basis)
    fresh = lengths(rows) > 0.5
    # Nothing new to look at: what the basis holds is all there is, or all that rounding allows.
    exhausted = ~jnp.any(fresh)
    return state._replace(
        basis=state.basis.at[shape.restarted :].set(rows),
        products=state.products.at[shape.restarted :].set(operator.matvec(rows)),
        valid=state.valid.at[shape.restarted :].set(fresh),
        iterations=state.iterations + 1,
        developed=state.developed | exhausted,
        done=exhausted,
    )


def _correct(operator: SymmetricOperator, state: _State) -> jax.Array:
    """Preconditioned residuals, made orthogonal to their vectors in the preconditioner's sense (Olsen)."""
    x, values = state.basis[1 + state.chosen], state.report.values[state.chosen]
    r = residuals_of(operator, values, x, state.products[1 + state.chosen])
    inverse = _preconditioner(operator, values, _CLOSEST)
    weight = jnp.sum(x * inverse * x, axis=1, keepdims=True)
    shift = jnp.sum(x * inverse * r, axis=1, keepdims=True) / jnp.where(weight > 0, weight, 1)
    return jnp.where(
        state.report.residuals[state.chosen, None] > accuracy_floor(operator), inverse * (r - shift * x), 0
    )


def _preconditioner(operator: SymmetricOperator, values: jax.Array, least: float) -> jax.Array:
    """``1 / |d - θ|`` with distances of at least a share `least` of d, in a row for each value."""
    diagonal = operator.diagonal
    distance = jnp.maximum(jnp.abs(diagonal - values[:, None]), least * diagonal)
    return jnp.where(distance > 0, 1 / distance, 0)
