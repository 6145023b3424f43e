"""Block generalized Davidson with locally optimal restart (GD+k), the default solver."""

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp

from fiedler_jax.eigen._basis import RitzPairs, orthonormalize, rayleigh_ritz, residuals_of, start_basis
from fiedler_jax.eigen._operator import SymmetricOperator
from fiedler_jax.eigen._result import EigenResult, assess, check_settings, conclude, default_tolerance, is_finite


class _State(NamedTuple):
    """A basis V (m, n), its products A V, the projected operator, and the k + 1 lowest Ritz pairs."""

    basis: jax.Array
    products: jax.Array
    projected: jax.Array
    valid: jax.Array
    size: jax.Array
    ritz: RitzPairs
    previous: jax.Array
    vectors: jax.Array
    residual_rows: jax.Array
    iterations: jax.Array
    matvecs: jax.Array
    done: jax.Array


@dataclasses.dataclass(frozen=True)
class Davidson:
    """Block generalized Davidson with locally optimal restart, preconditioned by the diagonal.

    Each iteration multiplies one block (the k targets and a guard) by the operator and takes the best pairs from all
    directions kept so far.

    Attributes:
        tol: relative accuracy asked of the values; by default 1e-6 in float32 and 1e-9 in float64.
        max_iterations: block products allowed after the first.
        basis_size: rows of the basis before it is restarted; raised where the start rows need more.

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
    basis_size: int = 20

    def __post_init__(self) -> None:
        check_settings(self.tol, self.max_iterations, self.basis_size)

    def solve(self, operator: SymmetricOperator, start: jax.Array, num: int = 1) -> EigenResult:
        """The `num` smallest eigenpairs, from start rows (m, n), none of which need be accurate or independent."""
        block = num + 1
        size = max(self.basis_size, len(start) + 1 + 2 * block, 5 * block)
        tol = default_tolerance(self.tol, operator.diagonal.dtype)

        def unfinished(state: _State) -> jax.Array:
            return ~state.done & (state.iterations <= self.max_iterations)

        def step(state: _State) -> _State:
            rows = _correct(operator, state, block)
            state = jax.lax.cond(state.size + block > size, lambda s: _restart(s, block), lambda s: s, state)
            rows = orthonormalize(rows, state.basis, operator.null_vector)
            return _improve(operator, _extend(operator, state, rows), block, tol)

        first = _extend(operator, _empty(operator, size, block), start_basis(operator, start))
        state = _improve(operator, first, block, tol)
        state = jax.lax.while_loop(unfinished, step, state._replace(done=state.done | ~is_finite(operator)))
        return conclude(
            operator,
            state.ritz.values[:block],
            state.vectors,
            state.residual_rows,
            tol,
            state.matvecs,
            state.iterations,
        )


def _empty(operator: SymmetricOperator, size: int, block: int) -> _State:
    n, dtype = len(operator.diagonal), operator.diagonal.dtype
    return _State(
        basis=jnp.zeros((size, n), dtype),
        products=jnp.zeros((size, n), dtype),
        projected=jnp.zeros((size, size), dtype),
        valid=jnp.zeros(size, bool),
        size=jnp.zeros((), jnp.int32),
        ritz=RitzPairs(jnp.zeros(size, dtype), jnp.zeros((size, size), dtype)),
        previous=jnp.zeros((block, size), dtype),
        vectors=jnp.zeros((block, n), dtype),
        residual_rows=jnp.zeros((block, n), dtype),
        iterations=jnp.zeros((), jnp.int32),
        matvecs=jnp.zeros((), jnp.int32),
        done=jnp.zeros((), bool),
    )


def _extend(operator: SymmetricOperator, state: _State, rows: jax.Array) -> _State:
    """Append orthonormal rows, multiply them, and border the projected operator."""
    at, zero = state.size, jnp.zeros_like(state.size)
    new_products = operator.matvec(rows)
    basis = jax.lax.dynamic_update_slice(state.basis, rows, (at, zero))
    products = jax.lax.dynamic_update_slice(state.products, new_products, (at, zero))
    border = new_products @ basis.T
    projected = jax.lax.dynamic_update_slice(state.projected, border, (at, zero))
    projected = jax.lax.dynamic_update_slice(projected, border.T, (zero, at))
    fresh = jnp.any(rows != 0, axis=1)
    return state._replace(
        basis=basis,
        products=products,
        projected=projected,
        valid=jax.lax.dynamic_update_slice(state.valid, fresh, (at,)),
        size=at + len(rows),
        iterations=state.iterations + 1,
        matvecs=state.matvecs + len(rows),
        # Nothing new to look at: what the basis holds is all there is, or all that rounding allows.
        done=~jnp.any(fresh),
    )


def _improve(operator: SymmetricOperator, state: _State, block: int, tol: float) -> _State:
    """The best pairs the basis holds, and whether they will do."""
    ritz = rayleigh_ritz(operator, state.projected, state.valid)
    mixing = ritz.coefficients[:, :block].T
    vectors = mixing @ state.basis
    rows = residuals_of(operator, ritz.values[:block], vectors, mixing @ state.products)
    done = assess(operator, ritz.values[:block], jnp.linalg.norm(rows, axis=1), tol)
    return state._replace(
        ritz=ritz,
        previous=state.ritz.coefficients[:, :block].T,
        vectors=vectors,
        residual_rows=rows,
        done=state.done | done.accurate | done.resolved,
    )


def _correct(operator: SymmetricOperator, state: _State, block: int) -> jax.Array:
    """Preconditioned residuals, made orthogonal to their vectors in the preconditioner's sense (Olsen)."""
    diagonal, values = operator.diagonal, state.ritz.values[:block, None]
    distance = jnp.maximum(jnp.abs(diagonal - values), 0.1 * diagonal)
    inverse = jnp.where(distance > 0, 1 / jnp.where(distance > 0, distance, 1), 0)
    x, r = state.vectors, state.residual_rows
    weight = jnp.sum(x * inverse * x, axis=1, keepdims=True)
    shift = jnp.sum(x * inverse * r, axis=1, keepdims=True) / jnp.where(weight > 0, weight, 1)
    return inverse * (r - shift * x)


def _restart(state: _State, block: int) -> _State:
    """Keep the lowest Ritz vectors and the best vectors of the iteration before."""
    size = len(state.basis)
    kept = state.ritz.coefficients[:, : 3 * block].T
    earlier = orthonormalize(state.previous, kept, jnp.zeros_like(kept[0]))
    count = 4 * block
    mixing = jnp.concatenate([kept, earlier])
    rest = jnp.zeros((size - count, size), mixing.dtype)
    mixing = jnp.concatenate([mixing, rest])
    return state._replace(
        basis=mixing @ state.basis,
        products=mixing @ state.products,
        projected=mixing @ state.projected @ mixing.T,
        valid=mixing**2 @ state.valid.astype(mixing.dtype) > 0.5,
        size=jnp.asarray(count, jnp.int32),
        # In the new basis the kept Ritz vectors are its first rows.
        ritz=state.ritz._replace(coefficients=jnp.eye(size, dtype=mixing.dtype)),
    )
