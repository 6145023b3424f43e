"""Thick-restart Lanczos with full reorthogonalization."""

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from fiedler_jax._rows import lengths, squares
from fiedler_jax.eigen._basis import (
    orthonormalize,
    rayleigh_ritz,
    residuals_of,
    rows_or_none,
    scattered_row,
)
from fiedler_jax.eigen._operator import SymmetricOperator
from fiedler_jax.eigen._result import (
    EigenResult,
    RitzReport,
    accuracy_floor,
    assess,
    check_settings,
    conclude,
    default_tolerance,
    first_pairs,
    is_finite,
    is_present,
    stands_clear,
)
from fiedler_jax.eigen._varying import varying_alike

# A pair counts as known if its residual was at most this share of its value when the last fresh direction came. One of
# six per cent that did not count, so seemed to be found from there, led to a wrong value (tests/test_properties.py).
_NEARLY_KNOWN = 0.3

# So many of the pairs kept are the lowest that were not known, lest known ones leave a fresh direction no room.
_ROOM = 2


class _State(NamedTuple):
    """A basis (m + w, n) of which `size` rows have been multiplied, and the projected operator (m, m).

    After these `width` rows wait, at most w: what is left of products, and fresh directions. `known` are the vectors
    (k, n) of the pairs that were nearly known when the last fresh direction came; the others are zero.
    """

    basis: jax.Array
    projected: jax.Array
    size: jax.Array
    width: jax.Array
    report: RitzReport
    found: jax.Array
    known: jax.Array
    iterations: jax.Array
    matvecs: jax.Array
    done: jax.Array


@dataclasses.dataclass(frozen=True)
class Lanczos:
    """Thick-restart Lanczos, one product at a time, every new row made orthogonal to all others.

    Where the recurrence breaks down (an invariant subspace is found) it goes on from a fresh direction. One start
    shows one copy of a multiple eigenvalue, and may hide others in rounding; so when all was found, a fresh direction
    joins what is under way, whose products are then made in turn, until it shows a pair that was not known.

    Attributes:
        tol: relative accuracy asked of the values; by default 1e-6 in float32 and 1e-9 in float64.
        max_iterations: restarts allowed.
        basis_size: rows of the basis before it is restarted, raised to six for each target and the guard.

    Source: Wu & Simon, "Thick-restart Lanczos method for large symmetric eigenvalue problems", SIMAX 22 (2000).

    Example:
        >>> import jax.numpy as jnp, fiedler_jax as fj
        >>> lap = fj.laplacian_from_adjacency(1 - jnp.eye(5))
        >>> print(f"{fj.fiedler_pair(lap, solver=fj.Lanczos(basis_size=16)).value:.4f}")
        5.0000
    """

    tol: float | None = None
    max_iterations: int = 300
    basis_size: int = 24

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
        """The `num` smallest eigenpairs, from the sum of all rows made orthonormal."""
        block = num + 1
        size = max(self.basis_size, 6 * block)
        count = size // 3
        widest = num + 2
        n, dtype = len(operator.diagonal), operator.diagonal.dtype
        tol = default_tolerance(self.tol, dtype)

        def unfinished(state: _State) -> jax.Array:
            return ~state.done & (state.iterations <= self.max_iterations)

        def cycle(state: _State) -> _State:
            basis, projected = jax.lax.fori_loop(
                state.size,
                size,
                lambda j, carry: _step(operator, j, state.width, *carry),
                (state.basis, state.projected),
            )
            valid = jnp.any(basis[:size] != 0, axis=1)
            ritz = rayleigh_ritz(operator, projected, valid)
            known = squares(ritz.coefficients.T @ (basis[:size] @ state.known.T)) > 0.5
            chosen = _chosen(operator, ritz.values, known, count)
            values, known = ritz.values[chosen], known[chosen]
            exists = is_present(operator, values)
            kept = jnp.where(exists[:, None], ritz.coefficients[:, chosen].T @ basis[:size], 0)
            products = operator.matvec(kept)
            residuals = lengths(residuals_of(operator, values, kept, products))
            report = RitzReport(values, residuals, residuals)
            # A breakdown goes on from a fresh direction, so only a basis of all there is has rows to spare.
            assessed = assess(operator, first_pairs(report, block), num, tol, complete=True)
            found = assessed.accurate | assessed.resolved
            again = found & ~state.found
            nearly_known = residuals <= _NEARLY_KNOWN * values
            shown = assessed.lowest | _shown(operator, report, known, num, tol)
            change = jnp.abs(report.values[:num] - state.report.values[:num])
            same = jnp.all(change <= jnp.maximum(tol * report.values[:num], accuracy_floor(operator)))
            # The Ritz vectors kept and the rows to go on from make the next basis; its border is filled by `_step`.
            waiting = basis[size:]
            fresh = orthonormalize(
                scattered_row(operator, size + state.iterations)[None],
                _with_null_vector(operator, jnp.concatenate([kept, waiting])),
            )
            joins = (np.arange(widest) == state.width) & again
            waiting = jnp.where(joins[:, None], fresh, waiting)
            return _State(
                basis=jnp.zeros_like(basis).at[:count].set(kept).at[count : count + widest].set(waiting),
                projected=jnp.zeros_like(projected).at[:count, :count].set(kept @ products.T),
                size=varying_alike(jnp.asarray(count, jnp.int32), state.size),
                width=jnp.minimum(state.width + again, widest),
                report=report,
                found=found,
                known=jnp.where(again, jnp.where(nearly_known[:, None], kept, 0), state.known),
                iterations=state.iterations + 1,
                matvecs=state.matvecs + (size - state.size) + count,
                done=found & state.found & same & shown,
            )

        given = [rows_or_none(operator, init), rows_or_none(operator, start), scattered_row(operator)[None]]
        rows = orthonormalize(jnp.concatenate(given), operator.null_vector[None])
        first = orthonormalize(jnp.sum(rows, axis=0)[None], operator.null_vector[None])
        state = _State(
            basis=jnp.zeros((size + widest, n), dtype).at[0].set(first[0]),
            projected=jnp.zeros((size, size), dtype),
            size=jnp.zeros((), jnp.int32),
            width=jnp.ones((), jnp.int32),
            report=RitzReport(*[jnp.zeros(count, dtype)] * 3),
            found=jnp.zeros((), bool),
            known=jnp.zeros((count, n), dtype),
            iterations=jnp.zeros((), jnp.int32),
            matvecs=jnp.zeros((), jnp.int32),
            done=~is_finite(operator),
        )
        state = jax.lax.while_loop(unfinished, cycle, varying_alike(state, operator.diagonal))
        report = first_pairs(state.report, block)
        found = assess(operator, report, num, tol, complete=True)
        return conclude(
            operator, report, found, state.basis[:num], state.matvecs, state.iterations, complete=state.done
        )


def _chosen(operator: SymmetricOperator, values: jax.Array, known: jax.Array, count: int) -> jax.Array:
    """Which pairs are kept, in their order: the lowest, and the lowest of those that were not known."""
    number = np.arange(len(values))
    # Behind the others come known ones, and last those that do not exist.
    behind = (number >= count - _ROOM) & known
    absent = ~is_present(operator, values)
    return jnp.sort(jnp.argsort(number + len(values) * behind + 2 * len(values) * absent)[:count])


def _shown(operator: SymmetricOperator, report: RitzReport, known: jax.Array, num: int, tol: float) -> jax.Array:
    """Whether what was not known shows itself: all pairs up to the first such one stand clear of the targets."""
    number = np.arange(len(report.values))
    first = jnp.min(jnp.where((number >= num) & ~known, number, len(number)))
    clear = stands_clear(operator, report, num, tol, accuracy_floor(operator))
    return jnp.all(clear | (number < num) | (number > first))


def _with_null_vector(operator: SymmetricOperator, basis: jax.Array) -> jax.Array:
    return jnp.concatenate([operator.null_vector[None], basis])


def _step(
    operator: SymmetricOperator, j: jax.Array, width: jax.Array, basis: jax.Array, projected: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Multiply row j, record its coefficients, and append what is left of it behind the rows that wait."""
    size = len(projected)
    product = operator.matvec(basis[j][None])[0]
    coefficients = basis @ product
    rest = product - coefficients @ basis
    # A rest at the rounding level is a breakdown: its direction would be noise, so another one is taken instead.
    noise = 8 * jnp.finfo(basis.dtype).eps * operator.upper_bound
    fresh = scattered_row(operator, j + 1)
    rest = jnp.where(jnp.linalg.norm(rest) > noise, rest, fresh)
    following = orthonormalize(rest[None], _with_null_vector(operator, basis))[0]
    column = coefficients[:size]
    return basis.at[j + width].set(following), projected.at[j].set(column).at[:, j].set(column)
