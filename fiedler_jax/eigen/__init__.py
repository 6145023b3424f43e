"""Eigensolvers for the smallest eigenpairs of a symmetric operator; they know nothing of graphs."""

from fiedler_jax.eigen._davidson import Davidson
from fiedler_jax.eigen._dense import Dense
from fiedler_jax.eigen._lanczos import Lanczos
from fiedler_jax.eigen._operator import SymmetricOperator, operator_from_matrix
from fiedler_jax.eigen._power import PowerIteration
from fiedler_jax.eigen._result import EigenResult, Solver, Status, is_usable, raise_if_failed

__all__ = [
    "Davidson",
    "Dense",
    "EigenResult",
    "Lanczos",
    "PowerIteration",
    "Solver",
    "Status",
    "SymmetricOperator",
    "is_usable",
    "operator_from_matrix",
    "raise_if_failed",
]
