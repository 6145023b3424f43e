"""What a solver returns, and the one rule by which all of them stop."""

import enum
from typing import NamedTuple, Protocol

import jax
import jax.numpy as jnp

from fiedler_jax.eigen._operator import SymmetricOperator
from fiedler_jax.errors import HyperparameterError

# A residual this many times eps * (bound of the spectrum) cannot be told from rounding.
_FLOOR_FACTOR = 4.0

# The guard only has to show where the next eigenvalue lies, so it may be far less accurate than the targets.
_GUARD_TOLERANCE = 0.03

_SMALLEST_BASIS = 8


class Status(enum.IntEnum):
    """How a solve ended.

    CONVERGED: the estimated error of every value is below the tolerance.
    ITERATION_LIMIT: it is not, after the allowed number of iterations.
    ACCURACY_FLOOR: residuals are at the rounding level of the dtype, which does not reach the tolerance: the values
        are only known to an absolute accuracy of that level (a disconnected graph's zero, for one).
    NOT_FINITE: the operator holds NaN or infinite numbers; values and vectors are NaN.
    TOO_FEW_VERTICES: there is no eigenvalue besides the null vector's; values and vectors are zero.
    """

    CONVERGED = 0
    ITERATION_LIMIT = 1
    ACCURACY_FLOOR = 2
    NOT_FINITE = 3
    TOO_FEW_VERTICES = 4


class EigenResult(NamedTuple):
    """The k smallest eigenpairs, null vector left out.

    Attributes:
        values: shape (k,), ascending.
        vectors: orthonormal rows (k, n).
        residuals: ``|A v - θ v|``, shape (k,).
        error: estimated absolute error of the values, shape (k,): the residual, or its square over the gap. The
            rounding of the values themselves, of the order of `floor`, comes on top.
        next_value: estimate of the next eigenvalue, infinite if there is none.
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


class Solver(Protocol):
    """Anything that finds the k smallest eigenpairs of an operator, from start rows (m, n)."""

    def solve(self, operator: SymmetricOperator, start: jax.Array, num: int = 1) -> EigenResult: ...


class Assessment(NamedTuple):
    """How accurate k + 1 Ritz pairs (k targets and a guard) are."""

    error: jax.Array
    accurate: jax.Array
    resolved: jax.Array


def check_settings(tol: float | None, max_iterations: int, basis_size: int | None = None) -> None:
    """Raise HyperparameterError for settings of a solver that lie outside their range."""
    if tol is not None and not 0 < tol < 1:
        raise HyperparameterError(f"tol must lie between 0 and 1, not {tol}.")
    if max_iterations < 1:
        raise HyperparameterError(f"max_iterations must be at least 1, not {max_iterations}.")
    if basis_size is not None and basis_size < _SMALLEST_BASIS:
        raise HyperparameterError(f"basis_size must be at least {_SMALLEST_BASIS}, not {basis_size}.")


def default_tolerance(tol: float | None, dtype: jnp.dtype) -> float:
    """The relative accuracy asked of the values: 1e-6 in float32, 1e-9 in float64, unless given."""
    return tol if tol is not None else (1e-9 if jnp.finfo(dtype).bits == 64 else 1e-6)


def accuracy_floor(operator: SymmetricOperator) -> jax.Array:
    """The residual that cannot be told from rounding."""
    return _FLOOR_FACTOR * jnp.finfo(operator.diagonal.dtype).eps * operator.upper_bound


def absent_value(operator: SymmetricOperator) -> jax.Array:
    """What stands for the Ritz value of a direction that does not exist: more than any eigenvalue."""
    return 4 * operator.upper_bound + 1


def assess(
    operator: SymmetricOperator, values: jax.Array, residuals: jax.Array, tol: float, complete: bool = False
) -> Assessment:
    """Whether k targets are accurate and a guard shows that none was missed.

    The error of a Ritz value is at most its residual r, and at most r²/gap where the rest of the spectrum keeps a
    distance `gap`. The guard, one Ritz pair above the targets, measures that gap; it also exposes false convergence,
    since a pair below the guard's value would have shown up as the guard once that has converged. A guard that the
    basis does not hold yet shows nothing; if the basis is `complete`, one that it does not hold does not exist.
    """
    floor = accuracy_floor(operator)
    absent = values >= absent_value(operator) / 2
    values = jnp.where(absent, jnp.inf, values)
    targets, guard = values[:-1], values[-1]
    gap = jnp.clip(guard - residuals[-1] - targets, 0, operator.upper_bound)
    r = residuals[:-1]
    error = jnp.where(r < gap, r**2 / jnp.where(r < gap, gap, 1), r)
    # Where the guard's interval reaches below a target, an eigenvalue that was missed may hide in it.
    clearance = guard - jnp.max(targets) * (1 - tol)
    guarded = (complete | ~absent[-1]) & (
        residuals[-1] <= jnp.maximum(jnp.minimum(_GUARD_TOLERANCE * guard, clearance), floor)
    )
    accurate = error <= tol * targets
    return Assessment(error, guarded & jnp.all(accurate), guarded & jnp.all(accurate | (r <= floor)))


def is_finite(operator: SymmetricOperator) -> jax.Array:
    """Whether the operator can be worked with; a NaN or infinite weight shows in the degrees, so in the diagonal."""
    return jnp.isfinite(operator.upper_bound) & jnp.all(jnp.isfinite(operator.diagonal + operator.null_vector))


def conclude(
    operator: SymmetricOperator,
    values: jax.Array,
    vectors: jax.Array,
    residual_rows: jax.Array,
    tol: float,
    matvecs: jax.Array,
    iterations: jax.Array,
) -> EigenResult:
    """The result, with its status, from k targets and a guard: values (k + 1,), vectors and residuals (k + 1, n)."""
    residuals, vectors = jnp.linalg.norm(residual_rows, axis=1), vectors[:-1]
    length = jnp.linalg.norm(vectors, axis=1, keepdims=True)
    vectors = vectors / jnp.where(length > 0, length, 1)
    exists = values < absent_value(operator) / 2
    values = jnp.where(exists, values, jnp.inf)
    residuals = jnp.where(exists, residuals, 0)
    found = assess(operator, values, residuals, tol, complete=True)
    finite = is_finite(operator) & jnp.all(jnp.isfinite(vectors))
    enough = jnp.all(exists[:-1])
    status = jnp.select(
        [~finite, ~enough, found.accurate, found.resolved],
        [Status.NOT_FINITE, Status.TOO_FEW_VERTICES, Status.CONVERGED, Status.ACCURACY_FLOOR],
        Status.ITERATION_LIMIT,
    ).astype(jnp.int32)

    def settle(x: jax.Array) -> jax.Array:
        return jnp.where(finite, jnp.where(enough, x, 0), jnp.nan).astype(x.dtype)

    return EigenResult(
        values=settle(values[:-1]),
        vectors=settle(vectors),
        residuals=settle(residuals[:-1]),
        error=settle(found.error),
        next_value=values[-1],
        next_residual=residuals[-1],
        floor=accuracy_floor(operator),
        matvecs=jnp.asarray(matvecs, jnp.int32),
        iterations=jnp.asarray(iterations, jnp.int32),
        status=status,
    )
