"""The whole spectrum by a dense factorization: the reference, for small operators."""

import dataclasses

import jax
import jax.numpy as jnp

from fiedler_jax._rows import inner_products, lengths
from fiedler_jax.eigen._basis import residuals_of
from fiedler_jax.eigen._operator import SymmetricOperator
from fiedler_jax.eigen._result import (
    EigenResult,
    RitzReport,
    absent_value,
    assess,
    conclude,
    default_tolerance,
    is_present,
)


@dataclasses.dataclass(frozen=True)
class Dense:
    """A dense eigendecomposition of the (n, n) matrix; O(n³) time and O(n²) memory, and no start is needed.

    Example:
        >>> import jax.numpy as jnp, fiedler_jax as fj
        >>> path = jnp.diag(jnp.ones(3), 1) + jnp.diag(jnp.ones(3), -1)
        >>> print(f"{fj.fiedler_pair(fj.laplacian_from_adjacency(path), solver=fj.Dense()).value:.4f}")
        0.5858
    """

    @jax.default_matmul_precision("highest")
    def solve(
        self,
        operator: SymmetricOperator,
        num: int = 1,
        *,
        init: jax.Array | None = None,
        start: jax.Array | None = None,
    ) -> EigenResult:
        """The `num` smallest eigenpairs; `init` and `start` only give the calling convention."""
        del init, start
        n, dtype = len(operator.diagonal), operator.diagonal.dtype
        matrix = operator.matvec(jnp.eye(n, dtype=dtype))
        away = jnp.outer(operator.null_vector, operator.null_vector) + jnp.diag(~operator.support)
        shifted = jnp.where(jnp.isfinite(matrix), (matrix + matrix.T) / 2, 0) + absent_value(operator) * away
        values, columns = jnp.linalg.eigh(jnp.where(jnp.isfinite(shifted), shifted, 0))
        values = jnp.pad(values[: num + 1], (0, max(0, num + 1 - n)), constant_values=jnp.inf)
        vectors = jnp.pad(columns.T[: num + 1], ((0, max(0, num + 1 - n)), (0, 0)))
        products = vectors @ matrix
        # Of a matrix without entries the shift leaves eigenvalues of its rounding.
        values = jnp.where(is_present(operator, values), inner_products(products, vectors), values)
        residuals = lengths(residuals_of(operator, values, vectors, products))
        report = RitzReport(values, residuals, residuals)
        found = assess(operator, report, num, default_tolerance(None, dtype), complete=True)
        return conclude(operator, report, found, vectors[:num], jnp.asarray(n), jnp.asarray(1))
