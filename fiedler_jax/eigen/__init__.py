"""Eigensolvers for the smallest eigenpairs of a symmetric operator; they know nothing of graphs."""

from fiedler_jax.eigen._davidson import Davidson as Davidson
from fiedler_jax.eigen._dense import Dense as Dense
from fiedler_jax.eigen._lanczos import Lanczos as Lanczos
from fiedler_jax.eigen._operator import SymmetricOperator as SymmetricOperator
from fiedler_jax.eigen._operator import operator_from_matrix as operator_from_matrix
from fiedler_jax.eigen._power import PowerIteration as PowerIteration
from fiedler_jax.eigen._result import EigenResult as EigenResult
from fiedler_jax.eigen._result import Solver as Solver
from fiedler_jax.eigen._result import Status as Status
