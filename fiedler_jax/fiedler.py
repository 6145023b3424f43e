"""The Fiedler pair of a Laplacian, and its value as a function of parameters."""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.core import Tracer

from fiedler_jax._checks import flag, rows_of_vertices
from fiedler_jax._folding import fold
from fiedler_jax._rows import participation
from fiedler_jax._sharding import on_automatic_axes
from fiedler_jax._starting import half_start_rows, joined, start_rows
from fiedler_jax.eigen import Davidson, EigenResult, Solver, Status, SymmetricOperator, is_usable, raise_if_failed
from fiedler_jax.eigen._result import in_units, is_whole
from fiedler_jax.errors import ArgumentTypeError, HyperparameterError, NoFiedlerValueError
from fiedler_jax.graph import NetworkGraph
from fiedler_jax.laplacian import Laplacian, check_laplacian, laplacian


class FiedlerPair(NamedTuple):
    """The second-smallest eigenvalue of a Laplacian, its vector, and how far both can be trusted.

    Attributes:
        value: the Fiedler value λ2 in the edge form, a scalar; differentiable with respect to the Laplacian.
        vector: the unit Fiedler vector, shape (n,); its sign is arbitrary.
        residual: ``|L v - λ2 v|``.
        error: estimated absolute error of the value: the residual, or its square over the gap to the next eigenvalue.
        next_value: estimate of λ3, infinite if there is none, only an upper bound if λ2 is zero to rounding.
        next_residual: the residual of that estimate.
        ipr: inverse participation ratio ``Σ v_i⁴``, from 1/n (spread out) to 1 (localized on one vertex).
        floor: the residual below which the dtype resolves nothing.
        matvecs: how many vectors were multiplied.
        iterations: how many block products that took.
        status: a `Status`, as an int32.
    """

    value: jax.Array
    vector: jax.Array
    residual: jax.Array
    error: jax.Array
    next_value: jax.Array
    next_residual: jax.Array
    ipr: jax.Array
    floor: jax.Array
    matvecs: jax.Array
    iterations: jax.Array
    status: jax.Array

    @property
    def converged(self) -> jax.Array:
        """Whether the estimated error is below the solver's tolerance."""
        return self.status == Status.CONVERGED

    @property
    def usable(self) -> jax.Array:
        """Whether the vector means something: converged, or as good as the dtype allows."""
        return is_usable(self.status)

    def raise_if_failed(self) -> None:
        """Raise unless the pair is usable; outside jit, where a status can be looked at.

        Raises:
            SolveFailedError: any status but CONVERGED and ACCURACY_FLOOR, with what to do about it.

        Example:
            >>> import jax.numpy as jnp, fiedler_jax as fj
            >>> fj.fiedler_pair(fj.laplacian_from_adjacency(1 - jnp.eye(5))).raise_if_failed()
        """
        raise_if_failed(self.status)

    def __str__(self) -> str:
        if isinstance(self.status, Tracer | jax.ShapeDtypeStruct) or jnp.ndim(self.status):
            return repr(self)
        status, n = Status(int(self.status)), len(self.vector)
        rows = [
            ("λ2", f"{self.value:.8g} ± {self.error:.1e}"),
            ("λ3", f"{self.next_value:.4g} ± {self.next_residual:.1e}"),
            ("residual", f"{self.residual:.1e} (rounding: up to {self.floor:.1e})"),
            ("IPR", f"{self.ipr:.4f} (one vertex: 1, an even spread over {n}: {1 / n:.4f})"),
            ("work", f"{self.iterations} block products, {self.matvecs} vectors"),
        ]
        return "\n".join([f"Fiedler pair, {status.name}", *(f"  {name:<9}{text}" for name, text in rows)])


def fiedler_pair(
    lap: Laplacian,
    init: jax.Array | None = None,
    *,
    solver: Solver = Davidson(),
    ignore_isolated: bool = False,
) -> FiedlerPair:
    """The Fiedler value and vector of a graph.

    Args:
        lap: from `laplacian` or `laplacian_from_adjacency`.
        init: a vector (n,) or rows (b, n) to start from, such as the Fiedler vector some steps ago. Entries that are
            not finite count as zero; nothing has a derivative with respect to it. `PowerIteration` and `Dense` leave it
            aside.
        solver: `Davidson`, `Lanczos`, `PowerIteration` or `Dense`.
        ignore_isolated: leave out the vertices without edges. Otherwise one isolated vertex makes λ2 = 0.

    Returns:
        The pair. Look at `converged` (or `status`): under jit nothing is raised. The derivative of the value is that
        of the Rayleigh quotient with the vector held fixed (Hellmann–Feynman), exact for a simple λ2; other fields
        have none. Only the first: a second one would need that of the vector.

    Raises:
        ArgumentTypeError: the Laplacian is none, holds several, or is in a precision that is switched off; or the
            solver is none.
        NoFiedlerValueError: the graph has no vertices.
        VectorError: `init` does not have one entry per vertex.

    Source: M. Fiedler, "Algebraic connectivity of graphs", Czech. Math. J. 23 (1973).

    Example:
        >>> import jax.numpy as jnp, fiedler_jax as fj
        >>> cycle = jnp.roll(jnp.eye(6), 1, axis=0) + jnp.roll(jnp.eye(6), -1, axis=0)
        >>> pair = fj.fiedler_pair(fj.laplacian_from_adjacency(cycle))
        >>> print(f"{pair.value:.4f}, then {pair.next_value:.4f}, {pair.usable}")
        1.0000, then 1.0000, True
    """
    return _first_of(laplacian_eigenpairs(lap, 1, init, solver=solver, ignore_isolated=ignore_isolated))


@jax.jit
def _first_of(result: EigenResult) -> FiedlerPair:
    vector = result.vectors[0]
    return FiedlerPair(
        value=result.values[0],
        vector=vector,
        residual=result.residuals[0],
        error=result.error[0],
        next_value=result.next_value,
        next_residual=result.next_residual,
        ipr=participation(result.vectors)[0],
        floor=result.floor,
        matvecs=result.matvecs,
        iterations=result.iterations,
        status=result.status,
    )


def laplacian_eigenpairs(
    lap: Laplacian,
    num_eigenvalues: int,
    init: jax.Array | None = None,
    *,
    solver: Solver = Davidson(),
    ignore_isolated: bool = False,
) -> EigenResult:
    """The k smallest eigenpairs of a graph besides the null vector's: λ2 to λ(k+1), copies of a multiple one included.

    Args:
        lap: from `laplacian` or `laplacian_from_adjacency`.
        num_eigenvalues: k, a static integer.
        init: as in `fiedler_pair`.
        solver: as in `fiedler_pair`.
        ignore_isolated: as in `fiedler_pair`.

    Returns:
        An `eigen.EigenResult`; its values (k,) are in the edge form and differentiable, each with its vector held
        fixed. They ascend, except where rounding cannot tell them apart. Their sum is differentiable also where some
        coincide, as long as λ(k+2) does not. One status stands for all pairs.

    Raises:
        ArgumentTypeError: the Laplacian is none, holds several, or is in a precision that is switched off; or the
            solver is none.
        NoFiedlerValueError: the graph has no vertices.
        VectorError: `init` does not have one entry per vertex.
        HyperparameterError: `num_eigenvalues` is not a positive integer, `ignore_isolated` not True or False.

    Example:
        >>> import jax.numpy as jnp, fiedler_jax as fj
        >>> cycle = jnp.roll(jnp.eye(6), 1, axis=0) + jnp.roll(jnp.eye(6), -1, axis=0)
        >>> print(fj.laplacian_eigenpairs(fj.laplacian_from_adjacency(cycle), 3).values.round(4))
        [1. 1. 3.]
    """
    num = check_num_eigenvalues(num_eigenvalues)
    check_laplacian(lap)
    check_solver(solver)
    if not lap.num_vertices:
        raise NoFiedlerValueError("The graph has no vertices, so there is no Fiedler value. See its summary().")
    if jax.dtypes.canonicalize_dtype(lap.dtype) != lap.dtype:
        raise ArgumentTypeError(
            f"The Laplacian is of {lap.dtype}, which is switched off here. Solve it where it was made: set "
            "jax_enable_x64, or stay inside jax.enable_x64; or make it of float32."
        )
    init = None if init is None else rows_of_vertices(init, lap.num_vertices)
    ignore_isolated = flag("ignore_isolated", ignore_isolated)
    solve = functools.partial(_solve, solver=solver, ignore_isolated=ignore_isolated, num=num)
    result = on_automatic_axes(solve, *jax.lax.stop_gradient((lap, init)))
    return result._replace(values=lap.quadratic_form(result.vectors))


def check_num_eigenvalues(num_eigenvalues: int) -> int:
    """The number of eigenvalues; HyperparameterError unless it is a static positive integer."""
    if not is_whole(num_eigenvalues) or num_eigenvalues < 1:
        raise HyperparameterError(
            f"num_eigenvalues must be a positive Python integer, not {num_eigenvalues!r}. Under "
            'optax.inject_hyperparams list it in static_args="num_eigenvalues".'
        )
    return int(num_eigenvalues)


def check_solver(solver: Any) -> None:
    """Raise ArgumentTypeError unless it has the method of a `Solver`."""
    if isinstance(solver, type) or not callable(getattr(solver, "solve", None)):
        raise ArgumentTypeError(
            f"The solver must be one of fiedler_jax.eigen with its settings, such as fj.Davidson(), not {solver!r}."
        )


def fiedler_value(
    graph: NetworkGraph,
    params: Any,
    *,
    normalized: bool = True,
    num_eigenvalues: int = 1,
    solver: Solver = Davidson(),
    ignore_isolated: bool = False,
) -> jax.Array:
    """The Fiedler value λ2 of a network, a differentiable scalar for use inside a loss; or the sum of λ2 to λ(k+1).

    Its derivative with respect to an edge weight is ``(v_i - v_j)²`` (combinatorial), or
    ``(y_i - y_j)² - λ2 (y_i² + y_j²)`` with ``y = D^-1/2 v`` (normalized). The vector is held fixed, so a second
    derivative is not that of λ2. Each call solves from scratch, and nothing says whether it converged, as in
    `fiedler_pair`; in a training loop `add_fiedler_penalty` is faster. The sum of several eigenvalues
    (`num_eigenvalues`) keeps a derivative after the graph has fallen apart once, and does not follow one localized
    vertex.

    Raises:
        ArgumentTypeError: the graph or the solver is none.
        HyperparameterError: `num_eigenvalues` is not a positive integer.
        KernelMismatchError: the parameters do not fit the graph.
        MaskedKernelError: `optax.masked` hides a kernel.

    Source: Tam & Dunson, ICML 2020, section 4 (arXiv 2003.00992).

    Example:
        >>> import jax, jax.numpy as jnp, fiedler_jax as fj
        >>> params = {"Dense_0": {"kernel": jnp.array([[1.0, -2.0], [0.5, 1.0]])}}
        >>> graph = fj.graph_from_params(params)
        >>> gradient = jax.grad(lambda p: fj.fiedler_value(graph, p, normalized=False))(params)
        >>> print(gradient["Dense_0"]["kernel"].shape)
        (2, 2)
    """
    lap = laplacian(graph, params, normalized=normalized)
    pairs = laplacian_eigenpairs(lap, num_eigenvalues, solver=solver, ignore_isolated=ignore_isolated)
    return jnp.sum(pairs.values)


@functools.partial(jax.jit, static_argnames=("solver", "ignore_isolated", "num"))
@jax.default_matmul_precision("highest")
def _solve(lap: Laplacian, init: jax.Array | None, solver: Solver, ignore_isolated: bool, num: int) -> EigenResult:
    given = [] if init is None else [jnp.atleast_2d(init)]
    half = fold(lap, num, ignore_isolated)
    if half is None:
        # Of weights that are not finite NaN, which spreads to all products.
        unit = jnp.where(lap.upper_bound < jnp.inf, jnp.maximum(lap.upper_bound, jnp.finfo(lap.dtype).tiny), jnp.nan)
        operator = _operator(lap, ignore_isolated, unit)
        start = joined(start_rows(lap, operator.support, num), operator.support, lap.dtype)
        given = joined(given, operator.support, lap.dtype)
        return in_units(solver.solve(operator, num, init=given, start=start), unit)
    start = joined(half_start_rows(lap, half, num), half.support, lap.dtype)
    given = joined([half.restrict(rows) for rows in given], half.support, lap.dtype)
    return half.lift(solver.solve(half.operator, num, init=given, start=start))


def _operator(lap: Laplacian, ignore_isolated: bool, unit: jax.Array) -> SymmetricOperator:
    """The Laplacian in units of its bound, so that no square under- or overflows and all that follows is constant."""
    connected = lap.connected.astype(lap.dtype)
    constant_on_edges = connected * jax.lax.rsqrt(jnp.maximum(jnp.sum(connected), 1))
    return SymmetricOperator(
        matvec=lambda rows: lap.matvec(rows) / unit,
        diagonal=lap.diagonal / unit,
        upper_bound=jnp.ones((), lap.dtype),
        null_vector=constant_on_edges if ignore_isolated and not lap.normalized else lap.null_vector,
        support=lap.connected if ignore_isolated else jnp.ones_like(lap.connected),
        even=0.5 if lap.normalized else None,  # ones, in units of a bound of two
    )
