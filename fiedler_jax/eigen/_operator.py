"""The symmetric operators the solvers work on."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from fiedler_jax._rows import largest
from fiedler_jax.errors import ArgumentTypeError


class SymmetricOperator(NamedTuple):
    """A symmetric operator without negative eigenvalues, known by its products.

    Attributes:
        matvec: maps rows (b, n) to their products with the operator, row by row.
        diagonal: its diagonal, shape (n,), for preconditioning.
        upper_bound: a scalar no eigenvalue exceeds.
        null_vector: a unit eigenvector to be left out, shape (n,); zero if there is none.
        support: boolean (n,), the coordinates eigenvectors may use; the operator must map vectors supported there to
            vectors supported there.
        tolerance_scale: the share of a tolerance that is left for eigenvalues (k,) of this operator, where what is
            asked for are not these but numbers that follow from them.
        even: the number on the diagonal, where it is known to be one wherever it is not zero, as a normalized
            Laplacian's is.
    """

    matvec: Callable[[jax.Array], jax.Array]
    diagonal: jax.Array
    upper_bound: jax.Array
    null_vector: jax.Array
    support: jax.Array
    tolerance_scale: Callable[[jax.Array], jax.Array] = jnp.ones_like
    even: float | None = None


def operator_from_matrix(matrix: jax.Array, null_vector: jax.Array | None = None) -> SymmetricOperator:
    """A symmetric positive semidefinite matrix (n, n) as an operator, optionally without a known unit eigenvector.

    Args:
        matrix: of real numbers; float64 is kept, all else computes in float32. That it is symmetric is not looked at.
        null_vector: a unit eigenvector to be left out, shape (n,).

    Raises:
        ArgumentTypeError: not a square matrix of real numbers, or a null vector of another length.

    Example:
        >>> import jax.numpy as jnp
        >>> from fiedler_jax import eigen
        >>> operator = eigen.operator_from_matrix(jnp.diag(jnp.arange(1.0, 9.0)))
        >>> result = eigen.Davidson().solve(operator)
        >>> print(f"{result.values[0]:.4f}")
        1.0000
    """
    matrix = jnp.asarray(matrix)
    square = matrix.ndim == 2 and 0 < matrix.shape[0] == matrix.shape[1]
    if not square or jnp.issubdtype(matrix.dtype, jnp.complexfloating):
        raise ArgumentTypeError(
            f"The matrix must be square, (n, n), and of real numbers, not {matrix.dtype} of shape {matrix.shape}."
        )
    matrix = matrix.astype(jnp.float64 if matrix.dtype == jnp.float64 else jnp.float32)
    null_vector = jnp.zeros_like(matrix[0]) if null_vector is None else jnp.asarray(null_vector, matrix.dtype)
    if null_vector.shape != matrix[0].shape:
        raise ArgumentTypeError(f"The null vector must have shape {matrix[0].shape}, not {null_vector.shape}.")
    return SymmetricOperator(
        matvec=lambda rows: rows @ matrix,
        diagonal=jnp.diagonal(matrix),
        upper_bound=largest(jnp.sum(jnp.abs(matrix), axis=1)),
        null_vector=null_vector,
        support=jnp.ones(len(matrix), bool),
    )
