"""Shifted, deflated power iteration: the simplest solver, and the slowest."""

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp

from fiedler_jax._rows import lengths
from fiedler_jax.eigen._basis import orthonormalize, rayleigh_ritz, residuals_of, scattered_rows
from fiedler_jax.eigen._operator import SymmetricOperator
from fiedler_jax.eigen._result import (
    Assessment,
    EigenResult,
    RitzReport,
    assess,
    check_settings,
    conclude,
    default_tolerance,
    first_pairs,
    is_finite,
    settled_residual,
)
from fiedler_jax.eigen._varying import varying_alike

# At least so many rows are iterated. Of 3,840 random graphs in float32 (12 to 24 vertices, weights over up to 16
# decades) 17 were wrong in silence when given rows and those of the structure stood among two, and none with scattered
# ones alone (tests/test_properties.py draws such graphs). Eight took a third of the products of two.
_LEAST_ROWS = 8

# Targets count once their residuals, spread over all vertices, are within this share of their values, or within the
# tolerance if that is looser. Of 7,300 solves 90 were wrong in silence without this rule, by up to ten times with loose
# tolerances, and 3 with it (nearly complete graphs with a heavy couple or triple that hangs on them lightly, and mixed
# ones; 14 to 400 vertices, float32; tests/test_misleading_starts.py has one).
_TELLING = 0.1


class _State(NamedTuple):
    report: RitzReport
    vectors: jax.Array
    residual_rows: jax.Array
    iterations: jax.Array
    matvecs: jax.Array
    done: jax.Array


@dataclasses.dataclass(frozen=True)
class PowerIteration:
    """Power iteration on ``bound - A`` with the null vector projected out, for the k targets and some more at once.

    Attributes:
        tol: relative accuracy asked of the values; by default 1e-6 in float32 and 1e-9 in float64.
        max_iterations: block products allowed after the first; convergence is linear with rate
            ``(bound - λ_next) / (bound - λ)``, λ_next being the first eigenvalue above as many as there are rows (at
            least eight), so small gaps take thousands.

    Example:
        >>> import jax.numpy as jnp, fiedler_jax as fj
        >>> lap = fj.laplacian_from_adjacency(1 - jnp.eye(5))
        >>> print(f"{fj.fiedler_pair(lap, solver=fj.PowerIteration()).value:.4f}")
        5.0000
    """

    tol: float | None = None
    max_iterations: int = 20_000

    def __post_init__(self) -> None:
        check_settings(self.tol, self.max_iterations)

    @jax.default_matmul_precision("highest")
    def solve(
        self,
        operator: SymmetricOperator,
        num: int = 1,
        *,
        init: jax.Array | None = None,
        start: jax.Array | None = None,
    ) -> EigenResult:
        """The `num` smallest eigenpairs, from scattered rows alone: what is given may hide a smaller one."""
        del init, start
        block = max(num + 1, _LEAST_ROWS)
        tol = default_tolerance(self.tol, operator.diagonal.dtype)

        def project(rows: jax.Array, iterations: jax.Array, matvecs: jax.Array) -> _State:
            products = operator.matvec(rows)
            ritz = rayleigh_ritz(operator, rows @ products.T, jnp.any(rows != 0, axis=1))
            mixing = ritz.coefficients[:, :block].T
            values, vectors = ritz.values[:block], mixing @ rows
            residual_rows = residuals_of(operator, values, vectors, mixing @ products)
            report = RitzReport(values, lengths(residual_rows), lengths(residual_rows))
            found = _assessed(operator, report, num, tol)
            done = found.accurate | found.resolved
            return _State(report, vectors, residual_rows, iterations + 1, matvecs + len(rows), done)

        def unfinished(state: _State) -> jax.Array:
            return ~state.done & (state.iterations <= self.max_iterations)

        def step(state: _State) -> _State:
            # (bound - A) v from what is known: (bound - θ) v - (A v - θ v).
            rows = (operator.upper_bound - state.report.values)[:, None] * state.vectors - state.residual_rows
            rows = orthonormalize(rows, operator.null_vector[None])
            return project(rows, state.iterations, state.matvecs)

        zero = jnp.zeros((), jnp.int32)
        rows = orthonormalize(scattered_rows(operator, block), operator.null_vector[None])
        state = project(rows, zero, zero)
        state = varying_alike(state._replace(done=state.done | ~is_finite(operator)), operator.diagonal)
        state = jax.lax.while_loop(unfinished, step, state)
        found = _assessed(operator, state.report, num, tol)
        return conclude(operator, state.report, found, state.vectors[:num], state.matvecs, state.iterations)


def _assessed(operator: SymmetricOperator, report: RitzReport, num: int, tol: float) -> Assessment:
    targets, residuals = report.values[:num], report.residuals[:num]
    settled = settled_residual(operator, targets)
    # Rows that are mixed from one block lack parts of the same vectors, so in a cluster a value is off by r_i Σ r_j
    # over the gap. With r_i² alone values were off by more than the tolerance (tests/test_eigen.py has such clusters).
    shared = jnp.where(residuals <= settled, residuals, jnp.sqrt(residuals * jnp.sum(residuals)))
    together = report._replace(residuals=jnp.concatenate([shared, report.residuals[num:]]))
    # A pair that is absent does not exist.
    found = assess(operator, first_pairs(together, num + 1), num, tol, complete=True, settled=settled)
    # A pair with residual r holds at most r / d of an eigenvector whose value lies d below, and scattered rows hold
    # about 1 / √n of each.
    held = jax.lax.rsqrt(jnp.sum(operator.support, dtype=targets.dtype))
    tells = jnp.all((residuals <= settled) | (residuals <= held * max(_TELLING, tol) * targets))
    return found._replace(accurate=found.accurate & tells, resolved=found.resolved & tells)
