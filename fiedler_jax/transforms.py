"""Optax gradient transformations that regularize the Fiedler value."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from fiedler_jax._refresh import Frozen, Penalty, Refresh, Scale, Scheduled, map_kernels
from fiedler_jax._state import FiedlerPenaltyState
from fiedler_jax.edges import pull_back
from fiedler_jax.eigen import Davidson, Solver
from fiedler_jax.errors import StateNotFoundError
from fiedler_jax.graph import NetworkGraph
from fiedler_jax.penalty import leaf_coefficients


class FiedlerMetrics(NamedTuple):
    """What to log of a Fiedler transformation, each a scalar array.

    Attributes:
        value: the Fiedler value at the last refresh.
        ipr: inverse participation ratio of its vector, from 1/n (spread out) to 1 (one vertex).
        residual: the residual of the pair.
        l1_coefficient: the mean effective L1 coefficient, ``|strength| · scale · mean |dλ2/d|W_ij||``: the L1 strength
            that would pull as hard on an average edge (with several eigenvalues, of their sum).
        status: `Status` of the last solve. Before the first one it is NOT_SOLVED, and what is said of a solve zero.
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
    strength: Scheduled,
    graph: NetworkGraph | None = None,
    *,
    normalized: bool = True,
    num_eigenvalues: int | None = None,
    refresh_every: Refresh = 100,
    solver: Solver = Davidson(),
    scale: Scale = "vertices",
    ignore_isolated: bool = True,
) -> optax.GradientTransformationExtraArgs:
    """Add the gradient of ``strength · n λ2`` to the updates, as `optax.add_decayed_weights` adds that of L2.

    Here n is the number of vertices, or 1 with ``scale="unit"``. Every `refresh_every` updates the Fiedler pair is
    found anew, starting from the last one. In between, the edges keep the effective L1 coefficients
    ``n c_ij = n dλ2/d|W_ij|`` of the last refresh and the update gains ``strength · n c_ij · sign(W_ij)``: one
    elementwise pass over the kernels. With ``refresh_every=1`` that is the gradient of ``strength · n λ2`` exactly. A
    derivative of the update itself leaves out how the Fiedler vector changes. A line search after it (`optax.lbfgs`)
    would judge steps by the loss without the penalty: there put `fiedler_value` into the loss instead.

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
        ``out_axes`` None for it). Sharded parameters stay as they are, in explicit sharding mode too; where axes are
        automatic, train under `jax.set_mesh`, which keeps vectors whole and saves some two hundred small exchanges a
        refresh.

    Raises:
        ArgumentTypeError: no graph, no solver, or at an update no state of this transformation.
        HyperparameterError: a setting out of range, such as a strength (or a schedule's first value) that is NaN.
        MissingParamsError: update was called without parameters.
        DisconnectedGraphError: the graph falls into more components than `num_eigenvalues`, whatever its weights.
        FiedlerError: the graph cannot be read off the parameters, or does not fit them, the updates or the state.

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
    penalty = Penalty(
        "add_fiedler_penalty",
        strength,
        graph,
        normalized,
        num_eigenvalues,
        refresh_every,
        solver,
        scale,
        ignore_isolated,
    )
    return penalty.transformation(_with_gradients)


def fiedler_shrinkage(
    strength: Scheduled,
    learning_rate: Scheduled,
    graph: NetworkGraph | None = None,
    *,
    normalized: bool = True,
    num_eigenvalues: int | None = None,
    refresh_every: Refresh = 100,
    solver: Solver = Davidson(),
    scale: Scale = "vertices",
    ignore_isolated: bool = True,
) -> optax.GradientTransformationExtraArgs:
    """Shrink weights by the proximal step of ``strength · λ2`` after the optimizer's own: pruned ones are exactly zero.

    The counterpart of `add_fiedler_penalty` that stands last in a chain, where it meets the final updates u. The
    weights w do not go to x = w + u but to the minimum of ``½ |z - x|² + Σ t_ij |z_ij|``, that is to

        ``z = sign(x) · max(|x| - t, 0)``  with  ``t_ij = learning_rate · strength · n · c_ij``

    where ``c_ij = dλ2/d|W_ij|`` are the effective L1 coefficients of the last refresh, also for entries which are zero:
    those stay zero unless an update outweighs their threshold. Where no entry changes its sign, that is what
    `add_fiedler_penalty` before ``optax.sgd(learning_rate)`` does. Momentum and adaptive scaling do not touch the
    thresholds, as they do not touch the decay of `optax.adamw`.

    With ``normalized=False`` no coefficient is negative: every edge shrinks, and those across the weakest cut most. A
    vertex that has lost all its edges is left out from the next refresh on, and λ2 is that of the rest. Once the graph
    has fallen into parts of several vertices, λ2 = 0 and all its coefficients inside the parts are zero: what is zero
    between them stays zero, but nothing more is pruned. With ``num_eigenvalues=k`` that comes after k such splits.

    With ``normalized=True`` coefficients have both signs and ``Σ c_ij |W_ij| = 0``, so thresholds act relative to one
    another: edges across the weakest cut shrink to zero while those inside the parts grow, and to first order the sum
    of squares of all stays. A negative threshold, of a coefficient or a strength below zero, moves an entry away from
    zero; one exactly at zero stays there, although by symmetry either side is as good.

    After a line search (`optax.lbfgs`) take value and gradient from `jax.value_and_grad` at each step: those that
    `optax.value_and_grad_from_state` finds in the state are of the point before it was shrunk. Zeros are exact in the
    weights that are updated; a wrapper's second copy, such as the averages of `optax.lookahead` or
    `optax.contrib.schedule_free`, loses them.

    Args:
        strength: as in `add_fiedler_penalty`.
        learning_rate: the one that the optimizer was given: a number, a traced scalar or a schedule of the update
            count. An update at which it is negative or not finite is left as it is and counted in the state's
            `skipped`.
        graph: as in `add_fiedler_penalty`. Where it makes a kernel of several leaves, the proximal step is taken for
            each entry of each leaf by itself: of what the penalty is near it (``c |w|``, at zero ``c |w| + s w``), the
            derivative s without a kink is followed as a gradient. A zero in such a leaf need not be a missing edge.
        normalized: as in `add_fiedler_penalty`.
        num_eigenvalues: as in `add_fiedler_penalty`.
        refresh_every: as in `add_fiedler_penalty`.
        solver: as in `add_fiedler_penalty`.
        scale: as in `add_fiedler_penalty`; without the n above if "unit".
        ignore_isolated: as in `add_fiedler_penalty`.

    Returns:
        A transformation to put after all others, as in ``optax.chain(optax.sgd(lr), fiedler_shrinkage(..., lr))``; read
        its quantities with `fiedler_metrics`. Updates keep their dtype unless it is narrower than the parameter's, in
        which an update of exactly -w might not exist. A derivative of the update holds the c_ij fixed.

    Raises:
        ArgumentTypeError: no graph, no solver, or at an update no state of this transformation.
        HyperparameterError: a setting out of range, such as a learning rate (or a schedule's first value) that is NaN
            or negative.
        MissingParamsError: update was called without parameters.
        DisconnectedGraphError: the graph falls into more components than `num_eigenvalues`, whatever its weights.
        FiedlerError: the graph cannot be read off the parameters, or does not fit them, the updates or the state.

    Source: Parikh & Boyd, "Proximal Algorithms", Foundations and Trends in Optimization 1 (2014), section 4.2, applied
    to the structurally weighted L1 penalty of Tam & Dunson, ICML 2020, section 4.3 (arXiv 2003.00992).

    Example:
        >>> import jax, jax.numpy as jnp, optax, fiedler_jax as fj
        >>> params = {"Dense_0": {"kernel": jnp.array([[2.0, 0.3], [0.2, -1.0]])}}
        >>> tx = optax.chain(optax.sgd(0.1), fj.fiedler_shrinkage(0.5, 0.1, normalized=False))
        >>> state, gradient = tx.init(params), jax.tree.map(jnp.zeros_like, params)
        >>> for _ in range(2):
        ...     updates, state = jax.jit(tx.update)(gradient, state, params)
        ...     params = optax.apply_updates(params, updates)
        >>> print(params["Dense_0"]["kernel"] == 0)
        [[False  True]
         [ True False]]
    """
    penalty = Penalty(
        "fiedler_shrinkage",
        strength,
        graph,
        normalized,
        num_eigenvalues,
        refresh_every,
        solver,
        scale,
        ignore_isolated,
        learning_rate,
    )
    return penalty.transformation(_with_shrunk_weights)


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
        remedy = (
            "Pass the part of the state that belongs to the one to read."
            if found
            else "Pass the state of an optimizer with one of them. What nnx.state or nnx.split gives has no types: "
            "nnx.merge it, and pass the optimizer's opt_state. Nor do the bare dicts of a checkpoint: restore into the "
            "structure of tx.init(params)."
        )
        raise StateNotFoundError(
            f"The optimizer state holds {len(found)} states of add_fiedler_penalty or fiedler_shrinkage, not one. "
            f"{remedy}"
        )
    # An nnx.Optimizer wraps each array in a Variable, whose only leaf it is.
    state = jax.tree.map(lambda field: jax.tree.leaves(field)[0], found[0], is_leaf=lambda n: n is not found[0])
    return FiedlerMetrics(
        value=state.values[..., 0],
        ipr=state.ipr,
        residual=state.residual,
        l1_coefficient=jnp.abs(state.last_strength) * state.mean_coefficient,
        status=state.status,
        skipped=state.skipped,
        refreshes=state.refreshes,
        count=state.count,
    )


def _with_gradients(updates: optax.Updates, frozen: Frozen) -> optax.Updates:
    gradients = pull_back(*frozen)
    return map_kernels(lambda update, gradient: update + gradient.astype(update.dtype), updates, gradients)


def _with_shrunk_weights(updates: optax.Updates, frozen: Frozen) -> optax.Updates:
    thresholds, slopes = leaf_coefficients(*frozen)
    return map_kernels(_shrunk, updates, frozen.leaves, thresholds, slopes)


def _shrunk(update: jax.Array, weight: jax.Array, threshold: jax.Array, slope: jax.Array) -> jax.Array:
    """The update after which w + u has moved by -s and then by t towards zero (away, if negative), at most to zero."""
    # No update in a narrower dtype than the parameter's is sure to hold -w, which alone leaves an exact zero.
    dtype = jnp.result_type(update, weight)
    wide = jnp.result_type(dtype, threshold)
    w = weight.astype(wide)
    u = update.astype(wide) - slope
    # Bounds on the update, not on the point: -w is exact, and rounding to the update's dtype crosses no zero.
    at_most_to_zero = [jnp.maximum(u - threshold, -w), jnp.minimum(u + threshold, -w)]
    return jnp.select([w + u > 0, w + u < 0], at_most_to_zero, u).astype(dtype)
