"""Thick-restart Lanczos with full reorthogonalization."""

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp

from fiedler_jax.eigen._basis import (
    orthonormalize,
    rayleigh_ritz,
    residuals_of,
    scattered_row,
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
)
from fiedler_jax.eigen._rows import lengths


class _State(NamedTuple):
    """A basis (m + 1, n) whose last filled row starts the next step, and the projected operator (m, m)."""

    basis: jax.Array
    projected: jax.Array
    size: jax.Array
    report: RitzReport
    found: jax.Array
    iterations: jax.Array
    matvecs: jax.Array
    done: jax.Array


@dataclasses.dataclass(frozen=True)
class Lanczos:
    """Thick-restart Lanczos, one product at a time, every new row made orthogonal to all others.

    Where the recurrence breaks down (an invariant subspace is found) it goes on from a fresh direction. One start
    shows one copy of a multiple eigenvalue, so what was found is looked for once more from a fresh direction.

    In float32, on combinatorial graphs with weights over many decades, it has been seen to miss the smallest value
    without saying so, some tens of accuracy floors from zero; `Davidson` follows pairs further there.

    Attributes:
        tol: relative accuracy asked of the values; by default 1e-6 in float32 and 1e-9 in float64.
        max_iterations: restarts allowed.
        basis_size: rows of the basis before it is restarted.

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
        size = max(self.basis_size, 4 * block)
        count = size // 3
        n, dtype = len(operator.diagonal), operator.diagonal.dtype
        tol = default_tolerance(self.tol, dtype)

        def unfinished(state: _State) -> jax.Array:
            return ~state.done & (state.iterations <= self.max_iterations)

        def cycle(state: _State) -> _State:
            basis, projected = jax.lax.fori_loop(
                state.size, size, lambda j, carry: _step(operator, j, *carry), (state.basis, state.projected)
            )
            valid = jnp.any(basis[:size] != 0, axis=1)
            ritz = rayleigh_ritz(operator, projected, valid)
            exists = ritz.values[:count] < absent_value(operator) / 2
            kept = jnp.where(exists[:, None], ritz.coefficients[:, :count].T @ basis[:size], 0)
            rows = residuals_of(operator, ritz.values[:block], kept[:block], operator.matvec(kept[:block]))
            report = RitzReport(ritz.values[:block], lengths(rows), lengths(rows))
            # A breakdown goes on from a fresh direction, so only a basis of all there is has rows to spare.
            assessed = assess(operator, report, num, tol, complete=True)
            found = assessed.accurate | assessed.resolved
            change = jnp.abs(report.values[:num] - state.report.values[:num])
            same = jnp.all(change <= jnp.maximum(tol * report.values[:num], accuracy_floor(operator)))
            # The Ritz vectors kept and the row to go on from make the next basis; its border is filled by `_step`.
            fresh = orthonormalize(
                scattered_row(operator, size + state.iterations)[None], _with_null_vector(operator, kept)
            )
            following = jnp.where(found, fresh[0], basis[size])
            return _State(
                basis=jnp.zeros_like(basis).at[:count].set(kept).at[count].set(following),
                projected=jnp.diag(jnp.pad(ritz.values[:count], (0, size - count))),
                size=jnp.asarray(count, jnp.int32),
                report=report,
                found=found,
                iterations=state.iterations + 1,
                matvecs=state.matvecs + (size - state.size) + block,
                done=found & state.found & same,
            )

        rows = start_basis(operator, init, start, scattered_rows(operator, 1))
        first = orthonormalize(jnp.sum(rows, axis=0)[None], operator.null_vector[None])
        state = _State(
            basis=jnp.zeros((size + 1, n), dtype).at[0].set(first[0]),
            projected=jnp.zeros((size, size), dtype),
            size=jnp.zeros((), jnp.int32),
            report=RitzReport(*(jnp.zeros(length, dtype) for length in (block, block, block))),
            found=jnp.zeros((), bool),
            iterations=jnp.zeros((), jnp.int32),
            matvecs=jnp.zeros((), jnp.int32),
            done=~is_finite(operator),
        )
        state = jax.lax.while_loop(unfinished, cycle, state)
        found = assess(operator, state.report, num, tol, complete=True)
        return conclude(operator, state.report, found, state.basis[:num], state.matvecs, state.iterations)


def _with_null_vector(operator: SymmetricOperator, basis: jax.Array) -> jax.Array:
    return jnp.concatenate([operator.null_vector[None], basis])


def _step(
    operator: SymmetricOperator, j: jax.Array, basis: jax.Array, projected: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Multiply row j, record its coefficients, and append what is left of it as row j + 1."""
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
    return basis.at[j + 1].set(following), projected.at[j].set(column).at[:, j].set(column)
