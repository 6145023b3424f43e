"""Optax gradient transformations that regularize the Fiedler value."""

from collections.abc import Iterable
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.core import Tracer

from fiedler_jax._paths import canonical_path, is_masked
from fiedler_jax.eigen import Davidson, EigenResult, Solver, is_usable
from fiedler_jax.errors import HyperparameterError, MissingParamsError, StateNotFoundError
from fiedler_jax.fiedler import (
    block_coefficients,
    check_num_eigenvalues,
    coefficient_rows,
    laplacian_eigenpairs,
)
from fiedler_jax.graph import NetworkGraph, compute_dtype, graph_from_params, kernel_leaves, pull_back
from fiedler_jax.laplacian import Laplacian, laplacian

Strength = jax.typing.ArrayLike | optax.Schedule
Scale = Literal["vertices", "unit"]
Refresh = jax.typing.ArrayLike | Literal["auto"]

# With refresh_every="auto": the share of the Fiedler value by which the Rayleigh quotient of the last vector may exceed
# it when the next one is found, and the most updates from one to the next.
_DRIFT = 0.01
_LONGEST_INTERVAL = 100


class FiedlerPenaltyState(NamedTuple):
    """State of `add_fiedler_penalty`: arrays of fixed shape, none of parameter size.

    Values are those of the last refresh that gave a usable vector. Floating fields are float32, or float64 where a
    kernel is.

    Attributes:
        count: updates so far.
        vectors: rows y (k, n) from which the edge coefficients are made: the eigenvectors of λ2 to λ(k+1), times
            ``D^-1/2`` if normalized.
        values: the eigenvalues λ2 to λ(k+1), shape (k,).
        residual: the residual of the Fiedler pair.
        ipr: inverse participation ratio of the Fiedler vector.
        mean_coefficient: mean over the edges of ``|d(λ2 + … + λ(k+1))/d|W_ij||``, times the scale.
        strength: the strength used in the last update.
        status: `Status` of the last solve.
        skipped: updates left without a penalty, because the strength was not finite or no usable vector was found.
        refreshes: solves so far.
        interval: with ``refresh_every="auto"``, the updates from the last refresh to the next.
        next_refresh: with ``refresh_every="auto"``, the count at which that is due.
    """

    count: jax.Array  # pyright: ignore[reportIncompatibleMethodOverride]
    vectors: jax.Array
    values: jax.Array
    residual: jax.Array
    ipr: jax.Array
    mean_coefficient: jax.Array
    strength: jax.Array
    status: jax.Array
    skipped: jax.Array
    refreshes: jax.Array
    interval: jax.Array
    next_refresh: jax.Array


class FiedlerMetrics(NamedTuple):
    """What to log of a Fiedler transformation, each a scalar array.

    Attributes:
        value: the Fiedler value at the last refresh.
        ipr: inverse participation ratio of its vector, from 1/n (spread out) to 1 (one vertex).
        residual: the residual of the pair.
        l1_coefficient: the mean effective L1 coefficient, ``|strength| · scale · mean |dλ2/d|W_ij||``: the L1 strength
            that would pull as hard on an average edge (with several eigenvalues, of their sum).
        status: `Status` of the last solve.
        skipped: updates left without a penalty.
        refreshes: solves so far.
        count: updates so far.
    """

    value: jax.Array
    ipr: jax.Array
    residual: jax.Array
    l1_coefficient: jax.Array
    status: jax.Array
    skipped: jax.Array
    refreshes: jax.Array
    count: jax.Array  # pyright: ignore[reportIncompatibleMethodOverride]


def add_fiedler_penalty(
    strength: Strength,
    graph: NetworkGraph | None = None,
    *,
    normalized: bool = True,
    num_eigenvalues: int | None = None,
    refresh_every: Refresh = 100,
    solver: Solver = Davidson(),
    scale: Scale = "vertices",
    ignore_isolated: bool = True,
) -> optax.GradientTransformationExtraArgs:
    """Add the gradient of ``strength · λ2`` to the updates, as `optax.add_decayed_weights` adds that of an L2 penalty.

    Every `refresh_every` updates the Fiedler pair is found anew, starting from the last one. In between, the edges
    keep the effective L1 coefficients ``c_ij = dλ2/d|W_ij|`` of the last refresh and the update gains
    ``strength · c_ij · sign(W_ij)``: one elementwise pass over the kernels. With ``refresh_every=1`` that is the
    gradient of ``strength · λ2`` exactly.

    Args:
        strength: a number, a traced scalar (`optax.inject_hyperparams`) or a schedule of the update count. A negative
            one raises connectivity instead. An update at which it is not finite is left without a penalty and
            counted in the state's `skipped`.
        graph: what is connected to what; None reads a Dense chain off the parameters (`graph_from_params`).
        normalized: which Laplacian. The combinatorial one tends to localize on single inputs; see the state's `ipr`.
        num_eigenvalues: k, to penalize λ2 + … + λ(k+1) instead of λ2 alone. That keeps acting after the graph has
            fallen apart once, and does not follow one localized vertex. `optax.inject_hyperparams` must be told to
            leave it alone (``static_args="num_eigenvalues"``).
        refresh_every: updates from one solve to the next, or "auto": as many as leave the Rayleigh quotient of the last
            vector, at the present weights, about one per cent above the Fiedler value, at most 100. Each solve sets the
            interval to the next one, from 1 at the start; see the metrics' `refreshes`.
        solver: any solver of `fiedler_jax.eigen`.
        scale: "vertices" multiplies by the number of vertices n, so that ``n (v_i - v_j)²`` is of order 1 and strength
            reads like an L1 coefficient at any size; "unit" is the paper's unit vector.
        ignore_isolated: leave vertices without edges out of the graph. Otherwise the first unit to lose all its
            edges makes λ2 = 0, and a combinatorial penalty stops acting.

    Returns:
        A transformation to put before the optimizer's scaling, as in ``optax.chain(add_fiedler_penalty(...),
        optax.sgd(...))``; read its quantities with `fiedler_metrics`. Under `jax.vmap` every member solves at
        every update, unless `refresh_every` is a number and the state's `count` is left unmapped (``in_axes`` and
        ``out_axes`` None for it).

    Raises:
        HyperparameterError: a setting out of range, such as a strength (or a schedule's first value) that is NaN.
        MissingParamsError: update was called without parameters.
        FiedlerError: the graph cannot be read off the parameters, or does not fit them.

    Source: Tam & Dunson, ICML 2020, algorithm 1 (arXiv 2003.00992).

    Example:
        >>> import jax, jax.numpy as jnp, optax, fiedler_jax as fj
        >>> params = {"Dense_0": {"kernel": jnp.array([[1.0, -2.0], [0.5, 2.0]])}}
        >>> tx = optax.chain(fj.add_fiedler_penalty(0.01), optax.sgd(0.1))
        >>> state = tx.init(params)
        >>> gradient = jax.tree.map(jnp.zeros_like, params)
        >>> updates, state = jax.jit(tx.update)(gradient, state, params)
        >>> print(f"{fj.fiedler_metrics(state).value:.4f}")
        0.8509
    """
    _check_settings(strength, refresh_every, scale)
    num = 1 if num_eigenvalues is None else check_num_eigenvalues(num_eigenvalues)
    adaptive = isinstance(refresh_every, str)

    def network(params: Any) -> NetworkGraph:
        return graph_from_params(params) if graph is None else graph

    def factor(net: NetworkGraph) -> int:
        return net.num_vertices if scale == "vertices" else 1

    def init_fn(params: optax.Params) -> FiedlerPenaltyState:
        # Optax probes the structure of a state with a placeholder for the parameters that has no leaves.
        if not jax.tree.leaves(params, is_leaf=is_masked):
            return _initial_state(graph.num_vertices if graph else 0, num, jnp.dtype(jnp.float32))
        net = network(params)
        return _initial_state(net.num_vertices, num, compute_dtype(kernel_leaves(net, params).values()))

    def update_fn(
        updates: optax.Updates, state: Any, params: optax.Params | None = None, **extra_args: Any
    ) -> tuple[optax.Updates, FiedlerPenaltyState]:
        del extra_args
        if params is None:
            raise MissingParamsError(
                "add_fiedler_penalty needs the parameters. Call tx.update(updates, state, params)."
            )
        net = network(params)

        def refreshed(state: FiedlerPenaltyState) -> FiedlerPenaltyState:
            lap = laplacian(net, params, normalized=normalized)
            init = _warm_start(lap, state.vectors)
            pairs = laplacian_eigenpairs(lap, num, init, solver=solver, ignore_isolated=ignore_isolated)
            found = _refreshed_state(net, lap, pairs, factor(net), state)
            return _scheduled(found, lap, pairs, init) if adaptive else found

        # A stop gradient keeps a derivative of the whole update from being asked of the solver's loop.
        params = jax.lax.stop_gradient(params)
        due = state.count >= state.next_refresh if adaptive else state.count % refresh_every == 0
        if isinstance(refresh_every, int) and refresh_every == 1:
            state = refreshed(state)
        else:
            state = jax.lax.cond(due, refreshed, lambda same: same, state)
        now = jnp.asarray(strength(state.count) if callable(strength) else strength, state.values.dtype)
        # The inverse participation ratio of a vector is positive, so it is zero until one has been found.
        usable = jnp.isfinite(now) & (state.ipr > 0)
        weight = jnp.where(usable, now * factor(net), 0)
        coefficients = block_coefficients(net, state.vectors, _shared_values(state.values, normalized))
        updates = _add_to_kernels(updates, net, params, [weight * block for block in coefficients])
        return updates, state._replace(
            count=optax.safe_increment(state.count),
            strength=now,
            skipped=state.skipped + jnp.where(usable, 0, 1).astype(jnp.int32),
        )

    return optax.GradientTransformationExtraArgs(init_fn, update_fn)


def fiedler_metrics(opt_state: Any) -> FiedlerMetrics:
    """The quantities to log, from any optimizer state that holds one `FiedlerPenaltyState`; usable under jit.

    Args:
        opt_state: the state of a chain, of `optax.inject_hyperparams`, `optax.MultiSteps` and the like, or of an
            `nnx.Optimizer`.

    Raises:
        StateNotFoundError: there is no such state, or more than one.

    Example:
        >>> import jax.numpy as jnp, optax, fiedler_jax as fj
        >>> tx = optax.chain(fj.add_fiedler_penalty(0.01), optax.adam(1e-3))
        >>> state = tx.init({"Dense_0": {"kernel": jnp.ones((3, 2))}})
        >>> int(fj.fiedler_metrics(state).count)
        0
    """
    found = [
        leaf
        for leaf in jax.tree.leaves(opt_state, is_leaf=lambda node: isinstance(node, FiedlerPenaltyState))
        if isinstance(leaf, FiedlerPenaltyState)
    ]
    if len(found) != 1:
        raise StateNotFoundError(
            f"The optimizer state holds {len(found)} states of add_fiedler_penalty, not one. Pass the part of the "
            "state that belongs to the one to read."
        )
    # An nnx.Optimizer wraps each array in a Variable, whose only leaf it is.
    state = jax.tree.map(lambda field: jax.tree.leaves(field)[0], found[0], is_leaf=lambda n: n is not found[0])
    return FiedlerMetrics(
        value=state.values[0],
        ipr=state.ipr,
        residual=state.residual,
        l1_coefficient=jnp.abs(state.strength) * state.mean_coefficient,
        status=state.status,
        skipped=state.skipped,
        refreshes=state.refreshes,
        count=state.count,
    )


def _check_settings(strength: Strength, refresh_every: Any, scale: str) -> None:
    if scale not in ("vertices", "unit"):
        raise HyperparameterError(f"scale must be 'vertices' or 'unit', not {scale!r}.")
    whole = refresh_every == "auto" if isinstance(refresh_every, str) else _is_whole(refresh_every)
    if not whole:
        raise HyperparameterError(f"refresh_every must be an integer of at least 1 or 'auto', not {refresh_every!r}.")
    first = strength(jnp.zeros((), jnp.int32)) if callable(strength) else strength
    if not isinstance(first, Tracer) and not np.isfinite(first):
        what = "The strength schedule's first value" if callable(strength) else "strength"
        raise HyperparameterError(f"{what} is {first}; it must be a finite number (a negative one is allowed).")


def _is_whole(number: Any) -> bool:
    return isinstance(number, Tracer) or (number == int(number) and number >= 1)


def _initial_state(num_vertices: int, num_eigenvalues: int, dtype: jnp.dtype) -> FiedlerPenaltyState:
    # One array per field, since donating the state would give away a shared one twice.
    return FiedlerPenaltyState(
        count=jnp.zeros((), jnp.int32),
        vectors=jnp.zeros((num_eigenvalues, num_vertices), dtype),
        values=jnp.zeros(num_eigenvalues, dtype),
        residual=jnp.zeros((), dtype),
        ipr=jnp.zeros((), dtype),
        mean_coefficient=jnp.zeros((), dtype),
        strength=jnp.zeros((), dtype),
        status=jnp.zeros((), jnp.int32),
        skipped=jnp.zeros((), jnp.int32),
        refreshes=jnp.zeros((), jnp.int32),
        interval=jnp.ones((), jnp.int32),
        next_refresh=jnp.zeros((), jnp.int32),
    )


def _warm_start(lap: Laplacian, rows: jax.Array) -> jax.Array:
    """Fiedler vectors near the last ones: ``D^1/2 y`` with the present degrees, if normalized."""
    return rows * jnp.sqrt(lap.degrees) if lap.normalized else rows


def _shared_values(values: jax.Array, normalized: bool) -> jax.Array:
    """The λ in ``(y_i - y_j)² - λ (y_i² + y_j²)``: only normalized coefficients have that term."""
    return values if normalized else jnp.zeros_like(values)


def _refreshed_state(
    graph: NetworkGraph, lap: Laplacian, pairs: EigenResult, factor: int, old: FiedlerPenaltyState
) -> FiedlerPenaltyState:
    """The state after a solve; one that gave no usable vectors only changes the status."""
    rows = coefficient_rows(lap, pairs.vectors)
    values = _shared_values(pairs.values, lap.normalized)
    total = sum(jnp.sum(jnp.abs(block)) for block in block_coefficients(graph, rows, values))
    found = {
        "vectors": rows,
        "values": pairs.values,
        "residual": pairs.residuals[0],
        "ipr": jnp.sum(pairs.vectors[0] ** 4),
        "mean_coefficient": factor * total / graph.num_edges,
    }
    usable = is_usable(pairs.status)
    kept = {name: jnp.where(usable, new, getattr(old, name)) for name, new in found.items()}
    return old._replace(**kept, status=pairs.status, refreshes=optax.safe_increment(old.refreshes))


def _scheduled(state: FiedlerPenaltyState, lap: Laplacian, pairs: EigenResult, last: jax.Array) -> FiedlerPenaltyState:
    """The state with the next refresh set by how far the last vectors had drifted, as an integrator sets its step.

    What counts is the excess of their Rayleigh quotients over the eigenvalues: it grows with the square of the drift,
    sees a level crossing (which leaves a small residual), and does not mind which vector of a multiple eigenvalue the
    penalty follows.
    """
    squared = jnp.sum(last**2, axis=1)
    known = jnp.all(squared > 0)
    found = jnp.sum(pairs.values)
    excess = jnp.sum(lap.quadratic_form(last) / jnp.where(squared > 0, squared, 1)) - found
    allowed = _DRIFT * found + len(last) * pairs.floor
    change = 0.9 * jnp.sqrt(allowed / jnp.maximum(excess, jnp.finfo(lap.dtype).tiny))
    change = jnp.where(known, jnp.clip(change, 0.125, 2), 1)
    interval = jnp.where(is_usable(pairs.status), jnp.round(state.interval * change), state.interval)
    interval = jnp.clip(interval, 1, _LONGEST_INTERVAL).astype(jnp.int32)
    return state._replace(interval=interval, next_refresh=state.count + interval)


def _add_to_kernels(
    updates: optax.Updates, graph: NetworkGraph, params: Any, coefficients: Iterable[jax.Array]
) -> optax.Updates:
    """Updates with the derivative of ``Σ c_ij a_ij`` added at every kernel of the graph, in the updates' own dtypes."""
    added = pull_back(graph, kernel_leaves(graph, params), tuple(coefficients))

    def at_leaf(key_path: Any, update: Any) -> Any:
        gradient = added.get(canonical_path(key_path))
        return update if gradient is None else update + gradient.astype(update.dtype)

    return jax.tree_util.tree_map_with_path(at_leaf, updates, is_leaf=is_masked)
