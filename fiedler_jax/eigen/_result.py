"""What a solver returns, and the one rule by which all of them stop."""

import enum
import numbers
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from fiedler_jax._rows import squares
from fiedler_jax.eigen._operator import SymmetricOperator
from fiedler_jax.errors import ArgumentTypeError, HyperparameterError, SolveFailedError

# A residual this many times eps * (bound of the spectrum) cannot be told from rounding.
_FLOOR_FACTOR = 16.0

# Above this many floors from zero a residual at the floor shows enough. Below, it may still hold much of an eigenvector
# of a smaller value, so pairs are followed down to this share of the floor. Of 54,000 nets in float32 (34 to 40
# vertices, weights over 5 to 10 decades, half to a fifth of them kept) 11 were wrong by 1.3 to 2.4 floors without it,
# and with fewer pairs corrected 17 by up to 9, at 1.2 to 11 floors from zero; none with it (tests/test_properties.py
# draws such ones). Of 2,160 power iteration, on two rows, took 8 wrong. Nor is the gap known before: one of 9,000
# graphs with heavy cliques was CONVERGED 1.7e-4 off while λ3 hid in its residual (tests/test_misleading_starts.py has
# it).
_NEAR_ZERO = 32.0
_FURTHER_DOWN = 0.25

# The guard only has to show where the next eigenvalue lies, so it may be far less accurate than the targets.
_GUARD_TOLERANCE = 0.03

# Less accurate yet where it must lie clear of the targets as well. On four layers of 4096 units, combinatorial in
# float64, the targets are accurate after three products; with 3 % for all pairs 7 and 8 were made.
_CLEAR_TOLERANCE = 0.06

# Where pairs were given or known before, what was not must lie this many residuals above the targets: a pair whose
# residual is short beside its distance from an eigenvalue holds little of that, and the smallest come first. With eight
# exact higher eigenvectors as start, dense graphs of 120 vertices, 20 of 800 were wrong with 3 residuals and none with
# 5; with none, but at least four or eight block products, it was 72 (tests/test_misleading_starts.py draws such ones).
APART = 5

_SMALLEST_BASIS = 8


class Status(enum.IntEnum):
    """How a solve ended.

    CONVERGED: the estimated error of every value is below the tolerance.
    ITERATION_LIMIT: it is not, after the allowed number of iterations.
    ACCURACY_FLOOR: residuals are at the rounding level of the dtype, which does not reach the tolerance: the values
        are only known to an absolute accuracy of that level (a disconnected graph's zero, for one).
    NOT_FINITE: the operator holds NaN or infinite numbers, or its bound is one; values and vectors are NaN.
    TOO_FEW_VERTICES: there is no eigenvalue besides the null vector's, or, where a graph in two colours is solved on
        the smaller half of its vertices, too few of these have an edge; values and vectors are zero.
    NOT_SOLVED: of a transformation before its first update: there was no solve yet, and what it has of one is zero.
    """

    CONVERGED = 0
    ITERATION_LIMIT = 1
    ACCURACY_FLOOR = 2
    NOT_FINITE = 3
    TOO_FEW_VERTICES = 4
    NOT_SOLVED = 5


class EigenResult(NamedTuple):
    """The k smallest eigenpairs, null vector left out.

    Attributes:
        values: shape (k,), ascending.
        vectors: orthonormal rows (k, n).
        residuals: ``|A v - θ v|``, shape (k,).
        error: estimated absolute error of the values, shape (k,): the residual, or its square over the gap. The
            rounding of the values themselves, of the order of `floor`, comes on top.
        next_value: estimate of the next eigenvalue, infinite if there is none; only an upper bound where all `values`
            are zero to rounding, since nothing can lie below these.
        next_residual: the residual of that estimate.
        floor: the residual below which the dtype resolves nothing.
        matvecs: how many vectors were multiplied (int32).
        iterations: how many block products that took (int32).
        status: a `Status` (int32).
    """

    values: jax.Array
    vectors: jax.Array
    residuals: jax.Array
    error: jax.Array
    next_value: jax.Array
    next_residual: jax.Array
    floor: jax.Array
    matvecs: jax.Array
    iterations: jax.Array
    status: jax.Array


def in_units(result: EigenResult, unit: jax.Array) -> EigenResult:
    """The result of an operator that was given in a unit."""
    # In one order, or the program would differ from process to process, and none be found in JAX's persistent cache.
    scaled = ("values", "residuals", "error", "next_value", "next_residual", "floor")
    return result._replace(**{name: getattr(result, name) * unit for name in scaled})


_REMEDIES = {
    Status.ITERATION_LIMIT: "the allowed iterations did not reach the accuracy asked for, and the value is only an "
    "upper bound. Allow more (max_iterations), ask for less (tol), or use float64",
    Status.NOT_FINITE: "a weight, or a vertex's sum of weights, is NaN or infinite. Look for the training step that "
    "made it so; or for a negative entry of an adjacency, which becomes NaN under jit",
    Status.TOO_FEW_VERTICES: "there is no eigenvalue to be had. The graph has too few vertices (with ignore_isolated, "
    "too few that have an edge), or every other of its layers has, for as many eigenvalues",
    Status.NOT_SOLVED: "no solve was made yet. Make an update first",
}


def is_usable(status: jax.Array) -> jax.Array:
    """Whether vectors with this status mean something: converged, or as good as the dtype allows.

    Example:
        >>> from fiedler_jax import eigen
        >>> print(eigen.is_usable(eigen.Status.ITERATION_LIMIT))
        False
    """
    return (status == Status.CONVERGED) | (status == Status.ACCURACY_FLOOR)


def raise_if_failed(status: jax.Array | int) -> None:
    """Raise SolveFailedError, with a remedy, unless a solve converged or reached the accuracy of the dtype.

    Of one solve, outside jit; ArgumentTypeError otherwise.

    Example:
        >>> from fiedler_jax import eigen
        >>> eigen.raise_if_failed(eigen.Status.CONVERGED)
    """
    if isinstance(status, Tracer) or np.ndim(status):
        raise ArgumentTypeError(
            "raise_if_failed looks at the status of one solve, outside jit and vmap. Inside look at is_usable(status); "
            "take several solves one after the other."
        )
    if isinstance(status, jax.ShapeDtypeStruct) or not any(status == known for known in Status):
        raise ArgumentTypeError(f"A status is one of {', '.join(known.name for known in Status)}, not {status!r}.")
    remedy = _REMEDIES.get(Status(int(status)))
    if remedy is not None:
        raise SolveFailedError(f"{Status(int(status)).name}: {remedy}.")


class Solver(Protocol):
    """Anything that finds the k smallest eigenpairs of an operator.

    From rows `init` (b, n) that the caller takes for near eigenvectors, which may be higher ones and mislead, and rows
    `start` (m, n) that hold a little of many eigenvectors, such as the structure of a graph suggests.
    """

    def solve(
        self,
        operator: SymmetricOperator,
        num: int = 1,
        *,
        init: jax.Array | None = None,
        start: jax.Array | None = None,
    ) -> EigenResult: ...


class RitzReport(NamedTuple):
    """What an assessment needs of Ritz pairs, ascending: the k targets, a guard, and maybe more.

    Attributes:
        values: Ritz values, at least k + 1 of them; the absent value where there is none.
        residuals: their residuals.
        reach: how far below its value a pair may come when it is corrected: at most the residual, or all of its value
            where the residual says nothing yet.
    """

    values: jax.Array
    residuals: jax.Array
    reach: jax.Array


def first_pairs(report: RitzReport, count: int) -> RitzReport:
    """The report of the lowest pairs."""
    return RitzReport(*(x[:count] for x in report))


class Assessment(NamedTuple):
    """How accurate the targets of a `RitzReport` are, and whether one was missed; `lowest` if none can have been."""

    error: jax.Array
    accurate: jax.Array
    resolved: jax.Array
    lowest: jax.Array


def check_settings(tol: float | None, max_iterations: int, basis_size: int | None = None) -> None:
    """Raise HyperparameterError for settings of a solver that lie outside their range."""
    if tol is not None and not (isinstance(tol, numbers.Real) and 0 < tol < 1):
        raise HyperparameterError(f"tol must be a number between 0 and 1, not {tol!r}.")
    most = np.iinfo(np.int32).max
    if not (is_whole(max_iterations) and 1 <= max_iterations < most):
        raise HyperparameterError(f"max_iterations must be an integer from 1 to {most - 1}, not {max_iterations!r}.")
    if basis_size is not None and not (is_whole(basis_size) and basis_size >= _SMALLEST_BASIS):
        raise HyperparameterError(f"basis_size must be an integer of at least {_SMALLEST_BASIS}, not {basis_size!r}.")


def is_whole(number: Any) -> bool:
    """Whether it is an integer that is known before anything is traced, and no truth value."""
    return isinstance(number, numbers.Integral) and not isinstance(number, bool)


def default_tolerance(tol: float | None, dtype: jnp.dtype) -> float:
    """The relative accuracy asked of the values: 1e-6 in float32, 1e-9 in float64, unless given."""
    return tol if tol is not None else (1e-9 if jnp.finfo(dtype).bits == 64 else 1e-6)


def accuracy_floor(operator: SymmetricOperator) -> jax.Array:
    """The residual that cannot be told from rounding."""
    return _FLOOR_FACTOR * jnp.finfo(operator.diagonal.dtype).eps * operator.upper_bound


def settled_residual(operator: SymmetricOperator, targets: jax.Array) -> jax.Array:
    """The residual up to which a pair is left as it is: the floor, or less where the targets lie near zero."""
    floor, highest = accuracy_floor(operator), jnp.max(targets)
    return jnp.where((highest > floor) & (highest <= _NEAR_ZERO * floor), _FURTHER_DOWN, 1) * floor


def absent_value(operator: SymmetricOperator) -> jax.Array:
    """What stands for the Ritz value of a direction that does not exist: more than any eigenvalue, of their scale."""
    return jnp.where(operator.upper_bound > 0, 4 * operator.upper_bound, 1)


def is_present(operator: SymmetricOperator, values: jax.Array) -> jax.Array:
    """Which Ritz values are those of directions that exist."""
    return values < absent_value(operator) / 2


def sharpness(
    operator: SymmetricOperator, values: jax.Array, settled: jax.Array, share: float | jax.Array = _GUARD_TOLERANCE
) -> jax.Array:
    """The residual up to which a pair above the targets shows where an eigenvalue lies: a few per cent, or settled."""
    return jnp.maximum(share * operator.tolerance_scale(values) * values, settled)


def assess(
    operator: SymmetricOperator,
    report: RitzReport,
    num: int,
    tol: float,
    complete: bool | jax.Array = False,
    settled: jax.Array | None = None,
) -> Assessment:
    """Whether `num` targets are accurate and the pairs above them show that none was missed.

    The error of a Ritz value is at most its residual r, and at most r²/gap where the rest of the spectrum keeps a
    distance `gap`; a residual below the rounding of one product is not known. Rounding also mixes the vectors of
    several targets, which moves their values towards each other. The guard, the first pair above the targets, measures
    the gap, so it must be known to a few per cent. As long as a pair may come down to a target, an eigenvalue that was
    missed may hide in it. A guard that the basis does not hold yet shows nothing; if the basis is `complete`, one that
    it does not hold does not exist. Targets that cannot be told from zero, as of a graph in many parts, are `lowest`:
    no eigenvalue lies below them, whatever the guard shows. A residual up to `settled`, by default the accuracy floor,
    counts as none.
    """
    floor = accuracy_floor(operator)
    settled = floor if settled is None else settled
    present = is_present(operator, report.values)
    values, r = jnp.where(present, report.values, jnp.inf), report.residuals
    targets, guard, highest = values[:num], values[num], jnp.max(values[:num]) * (1 - tol)
    gap = jnp.clip(guard - r[num] - targets, 0, operator.upper_bound)
    known = jnp.maximum(r[:num], floor / _FLOOR_FACTOR)
    # Not the square over the gap: where weights are tiny, that would be zero in float32, and zero looks exact.
    error = known * jnp.where(known < gap, known / jnp.where(known < gap, gap, 1), 1)
    if num > 1:
        error = jnp.maximum(error, _mixing_error(targets, jnp.clip(r[:num], floor / _FLOOR_FACTOR, floor)))
    sharp = (r[num] <= sharpness(operator, guard, settled)) & ((r[num] <= settled) | (r[num] <= guard - highest))
    clear = (r <= settled) | (values - report.reach >= highest)
    guarded = (complete | present[num]) & sharp & jnp.all(clear[num:])
    # A value at the level of rounding has no digit that is right.
    accurate = error <= tol * operator.tolerance_scale(targets) * jnp.maximum(targets - floor, 0)
    # Nor is one accurate by its gap before it has been followed down.
    accurate &= (settled >= floor) | (r[:num] <= settled)
    lowest = jnp.all((targets <= floor) & (r[:num] <= floor))
    resolved = lowest | (guarded & jnp.all(accurate | (r[:num] <= settled)))
    return Assessment(error, guarded & jnp.all(accurate), resolved, lowest)


def _mixing_error(targets: jax.Array, rounding: jax.Array) -> jax.Array:
    """How far values are off where rounding of this size mixes the vectors of targets: ``ρ²/gap``, at most the gap.

    Without it 43 of 8,640 solves for two or four values were wrong in silence, by up to 3e-5 of λ2: random graphs in
    float32 of 12 to 24 vertices, over up to 16 decades (tests/test_properties.py draws such ones). Their sum was right.
    """
    apart = jnp.abs(targets[:, None] - targets) + jnp.where(np.eye(len(targets), dtype=bool), jnp.inf, 0)
    gap = jnp.min(apart, axis=1)
    return jnp.where(rounding < gap, rounding * (rounding / jnp.where(rounding < gap, gap, 1)), gap)


def stands_clear(
    operator: SymmetricOperator,
    report: RitzReport,
    num: int,
    tol: float,
    settled: jax.Array,
    apart: float | jax.Array = APART,
) -> jax.Array:
    """Whether each pair is sharp and lies so many residuals above the targets, or is settled."""
    values, residuals, _ = report
    share = jnp.where(jnp.asarray(apart) > 0, _CLEAR_TOLERANCE, _GUARD_TOLERANCE)
    sharp = residuals <= sharpness(operator, values, settled, share)
    return sharp & ((residuals <= settled) | (values - apart * residuals >= jnp.max(values[:num]) * (1 - tol)))


def is_finite(operator: SymmetricOperator) -> jax.Array:
    """Whether the operator can be worked with; a NaN or infinite weight shows in the degrees, so in the diagonal."""
    # Sums carry what is not finite along, and compile to less than a test of each element.
    return jnp.isfinite(operator.upper_bound + operator.diagonal @ operator.null_vector)


def conclude(
    operator: SymmetricOperator,
    report: RitzReport,
    found: Assessment,
    rows: jax.Array,
    matvecs: jax.Array,
    iterations: jax.Array,
    finite: jax.Array | None = None,
    complete: bool | jax.Array = True,
    first: int = 0,
) -> EigenResult:
    """The result, with its status, from a report, what was found in it and rows, from the `first` on the k targets'.

    Unless the basis is `complete`, or held enough to stand for all there is, nothing is called found. Whether all is
    `finite` is read off the operator unless given.
    """
    num = len(found.error)
    exists = is_present(operator, report.values)
    finite = is_finite(operator) if finite is None else finite
    enough = jnp.all(exists[:num])
    squared = squares(rows)[first : first + num]
    inverse = jnp.where(squared > 0, jax.lax.rsqrt(squared), 0)
    status = jnp.where(found.resolved & complete, Status.ACCURACY_FLOOR, Status.ITERATION_LIMIT)
    status = jnp.where(found.accurate & complete, Status.CONVERGED, status)
    status = jnp.where(enough, status, Status.TOO_FEW_VERTICES)
    status = jnp.where(finite, status, Status.NOT_FINITE).astype(jnp.int32)

    def settle(x: jax.Array) -> jax.Array:
        return jnp.where(finite, jnp.where(enough, x, 0), jnp.nan).astype(x.dtype)

    return EigenResult(
        values=settle(report.values[:num]),
        # As a product, which XLA does not work out anew wherever a part of it is used.
        vectors=(settle(inverse)[:, None] * jnp.eye(num, len(rows), first, rows.dtype)) @ rows,
        residuals=settle(report.residuals[:num]),
        error=settle(found.error),
        next_value=jnp.where(finite, jnp.where(exists[num], report.values[num], jnp.inf), jnp.nan),
        next_residual=report.residuals[num],
        floor=accuracy_floor(operator),
        matvecs=jnp.asarray(matvecs, jnp.int32),
        iterations=jnp.asarray(iterations, jnp.int32),
        status=status,
    )
