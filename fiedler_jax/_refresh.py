"""What the transformations share: a penalty frozen from one refresh to the next, and its state."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.core import Tracer

from fiedler_jax._checks import flag, is_real
from fiedler_jax._paths import Path, canonical_path, is_masked, leaf_shape, named
from fiedler_jax._report import listed
from fiedler_jax._rows import participation
from fiedler_jax._sharding import on_automatic_axes, placed_like
from fiedler_jax._state import FiedlerPenaltyState, check_is_state, check_state_fits, initial_state
from fiedler_jax.edges import compute_dtype, edge_blocks, kernel_leaves
from fiedler_jax.eigen import EigenResult, Solver, is_usable
from fiedler_jax.eigen._result import is_whole
from fiedler_jax.eigen._varying import varying_alike
from fiedler_jax.errors import (
    DisconnectedGraphError,
    HyperparameterError,
    KernelMismatchError,
    MissingParamsError,
)
from fiedler_jax.fiedler import (
    check_num_eigenvalues,
    check_solver,
    laplacian_eigenpairs,
)
from fiedler_jax.graph import NetworkGraph, check_graph, graph_from_params
from fiedler_jax.laplacian import Laplacian, laplacian
from fiedler_jax.penalty import block_coefficients, coefficient_rows

Scheduled = jax.typing.ArrayLike | optax.Schedule
Scale = Literal["vertices", "unit"]
Refresh = jax.typing.ArrayLike | Literal["auto"]

# With refresh_every="auto": the share of the Fiedler value by which the Rayleigh quotient of the last vector may exceed
# it when the next one is found, and the most updates from one to the next.
_DRIFT = 0.01
_LONGEST_INTERVAL = 100


class Frozen(NamedTuple):
    """The penalty at one update: ``Σ c_ij a_ij`` over the edges of a graph.

    Attributes:
        graph: the graph.
        leaves: the parameter leaves its edges are made of, by path.
        coefficients: the c_ij of each edge block, scaled by all there is to scale them; zero if the update is skipped.
    """

    graph: NetworkGraph
    leaves: dict[Path, Any]
    coefficients: list[jax.Array]


class _Now(NamedTuple):
    """What one update depends on besides its arrays: scalars, which a transform may trace."""

    strength: jax.Array
    learning_rate: jax.Array
    due: jax.Array


@dataclasses.dataclass(frozen=True, eq=False)
class Penalty:
    """The settings of a transformation, checked: those of `add_fiedler_penalty`, and two more.

    Attributes:
        name: that of the transformation, for messages.
        learning_rate: multiplies the penalty but is not part of its strength; an update at which it is negative or not
            finite is skipped.
    """

    name: str
    strength: Scheduled
    graph: NetworkGraph | None
    normalized: bool
    num_eigenvalues: int | None
    refresh_every: Refresh
    solver: Solver
    scale: Scale
    ignore_isolated: bool
    learning_rate: Scheduled = 1.0

    def __post_init__(self) -> None:
        if self.graph is not None:
            check_graph(self.graph)
        check_solver(self.solver)
        if not isinstance(self.scale, str) or self.scale not in ("vertices", "unit"):
            raise HyperparameterError(f"scale must be 'vertices' or 'unit', not {self.scale!r}.")
        every = self.refresh_every
        if not (every == "auto" if isinstance(every, str) else _is_interval(every)):
            raise HyperparameterError(f"refresh_every must be an integer of at least 1 or 'auto', not {every!r}.")
        _check_scheduled("strength", self.strength, "it must be a finite number (a negative one is allowed).")
        _check_scheduled(
            "learning_rate",
            self.learning_rate,
            "it must be a finite number of at least 0, and comes second, before the graph. Pass the one that the "
            "optimizer before it was given, such as optax.sgd(learning_rate); the sign of the step is the optimizer's "
            "business.",
            least=0,
        )
        if self.num_eigenvalues is not None:
            check_num_eigenvalues(self.num_eigenvalues)

    def transformation(
        self, change: Callable[[optax.Updates, Frozen], optax.Updates]
    ) -> optax.GradientTransformationExtraArgs:
        """The transformation that changes updates by what the penalty is at each; `change` is a module's function."""
        program = self._program()
        run = functools.partial(_update, program=program, change=change)

        def update(
            updates: optax.Updates, state: Any, params: optax.Params | None = None, **extra_args: Any
        ) -> tuple[optax.Updates, FiedlerPenaltyState]:
            del extra_args
            if params is None:
                raise MissingParamsError(f"{self.name} needs the parameters. Call tx.update(updates, state, params).")
            check_is_state(self.name, state)
            return on_automatic_axes(run, updates, state, params, self._now(state), placed_like=updates)

        return optax.GradientTransformationExtraArgs(program.init, update)

    def _program(self) -> "_Program":
        every = self.refresh_every
        return _Program(
            name=self.name,
            graph=self.graph,
            normalized=flag("normalized", self.normalized),
            num_eigenvalues=1 if self.num_eigenvalues is None else int(self.num_eigenvalues),
            refresh="auto" if isinstance(every, str) else "always" if isinstance(every, int) and every == 1 else "due",
            solver=self.solver,
            scale=self.scale,
            ignore_isolated=flag("ignore_isolated", self.ignore_isolated),
        )

    def _now(self, state: FiedlerPenaltyState) -> _Now:
        every = self.refresh_every
        due = state.count >= state.next_refresh if isinstance(every, str) else state.count % every == 0
        dtype = state.values.dtype
        return _Now(_at(state.count, self.strength, dtype), _at(state.count, self.learning_rate, dtype), due)


@dataclasses.dataclass(frozen=True)
class _Program:
    """What is the same at every update, and hashable: outside jit too, a transformation is compiled once."""

    name: str
    graph: NetworkGraph | None
    normalized: bool
    num_eigenvalues: int
    refresh: Literal["auto", "always", "due"]
    solver: Solver
    scale: Scale
    ignore_isolated: bool

    def init(self, params: optax.Params) -> FiedlerPenaltyState:
        """The state before the first update."""
        # Optax probes the structure of a state with a placeholder for the parameters that has no leaves.
        if not jax.tree.leaves(params, is_leaf=is_masked):
            num_vertices = self.graph.num_vertices if self.graph else 0
            return initial_state(num_vertices, self.num_eigenvalues, jnp.dtype(jnp.float32))
        net = self._network(params)
        _check_eigenvalues(net, self.num_eigenvalues)
        leaves = kernel_leaves(net, params).values()
        return varying_alike(initial_state(net.num_vertices, self.num_eigenvalues, compute_dtype(leaves)), *leaves)

    def step(self, state: FiedlerPenaltyState, params: optax.Params, now: _Now) -> tuple[Frozen, FiedlerPenaltyState]:
        """The penalty for one update, found anew if that is due, and the state after it."""
        net = self._network(params)
        leaves = kernel_leaves(net, params)
        check_state_fits(self.name, state, self.num_eigenvalues, net.num_vertices, compute_dtype(leaves.values()))
        state = varying_alike(state, *leaves.values())
        # A stop gradient keeps a derivative of the whole update from being asked of the solver's loop.
        fixed = jax.lax.stop_gradient(params)
        if self.refresh == "always":
            state = self._refreshed(net, fixed, state)
        else:
            state = jax.lax.cond(now.due, lambda old: self._refreshed(net, fixed, old), lambda same: same, state)
        strength, rate, _ = now
        # The inverse participation ratio of a vector is positive, so it is zero until one has been found.
        usable = jnp.isfinite(strength) & jnp.isfinite(rate) & (rate >= 0) & (state.ipr > 0)
        weight = jnp.where(usable, rate * strength * self._factor(net), 0)
        blocks = block_coefficients(net, state.vectors, _shared_values(state.values, self.normalized))
        after = state._replace(
            count=optax.safe_increment(state.count),
            last_strength=strength,
            skipped=state.skipped + jnp.where(usable, 0, 1).astype(jnp.int32),
        )
        return Frozen(net, leaves, [weight * block for block in blocks]), varying_alike(after)

    def _network(self, params: Any) -> NetworkGraph:
        return graph_from_params(params) if self.graph is None else self.graph

    def _factor(self, net: NetworkGraph) -> int:
        return net.num_vertices if self.scale == "vertices" else 1

    def _refreshed(self, net: NetworkGraph, params: Any, state: FiedlerPenaltyState) -> FiedlerPenaltyState:
        lap = laplacian(net, params, normalized=self.normalized)
        init = _warm_start(lap, state.vectors)
        pairs = laplacian_eigenpairs(
            lap, self.num_eigenvalues, init, solver=self.solver, ignore_isolated=self.ignore_isolated
        )
        found = _refreshed_state(net, edge_blocks(net, params), lap, pairs, self._factor(net), state)
        return _scheduled(found, lap, pairs, init) if self.refresh == "auto" else found


@functools.partial(jax.jit, static_argnames=("program", "change"))
def _update(
    updates: optax.Updates,
    state: FiedlerPenaltyState,
    params: optax.Params,
    now: _Now,
    program: _Program,
    change: Callable[[optax.Updates, Frozen], optax.Updates],
) -> tuple[optax.Updates, FiedlerPenaltyState]:
    frozen, state = program.step(state, params, now)
    return change(updates, frozen), state


def map_kernels(change: Callable[..., Any], updates: optax.Updates, *by_path: dict[Path, Any]) -> optax.Updates:
    """Updates with those of kernels changed: ``change(update, *what each of by_path holds for it)``.

    Raises:
        KernelMismatchError: a kernel has no update (one of None or masked is passed over, as Optax does), or one of
            another shape.
    """
    leaves, _ = jax.tree_util.tree_flatten_with_path(updates, is_leaf=lambda leaf: leaf is None or is_masked(leaf))
    held = {canonical_path(key_path) for key_path, _ in leaves}
    if missing := [named(path) for path in by_path[0] if path not in held]:
        raise KernelMismatchError(
            f"The updates hold nothing for {missing[0]}, a kernel of the graph. They need the parameters' structure."
        )

    def at_leaf(key_path: Any, update: Any) -> Any:
        path = canonical_path(key_path)
        if path not in by_path[0]:
            return update
        if leaf_shape(update) != leaf_shape(by_path[0][path]):
            raise KernelMismatchError(
                f"The update of {named(path)} has shape {leaf_shape(update)}, but the parameter "
                f"{leaf_shape(by_path[0][path])}. Updates need the shapes of the parameters."
            )
        return change(update, *(values[path] for values in by_path))

    return jax.tree_util.tree_map_with_path(at_leaf, updates)


def _check_eigenvalues(graph: NetworkGraph, num_eigenvalues: int) -> None:
    """Raise an error if the eigenvalues asked for do not exist, or are zero, whatever the weights."""
    if num_eigenvalues >= graph.num_vertices:
        raise HyperparameterError(
            f"num_eigenvalues is {num_eigenvalues}, but a graph of {graph.num_vertices} vertices has "
            f"{graph.num_vertices - 1} eigenvalues besides the null vector's. Pass no more than these."
        )
    found = graph.components
    if len(found) > num_eigenvalues:
        raise DisconnectedGraphError(
            f"The graph falls into {len(found)} components that no edge joins: {'; '.join(listed(found))}. Whatever "
            f"the weights, its {len(found)} smallest eigenvalues are 0, and a penalty on them does nothing. Pass "
            f"num_eigenvalues={len(found)} or more to reach those that are not; or, if the model joins them in a way "
            "that the graph does not show (print it), state the edges by hand with fj.graph_from_edges."
        )


def _check_scheduled(name: str, value: Scheduled, requirement: str, least: float = -np.inf) -> None:
    first: Any = value(jnp.zeros((), jnp.int32)) if callable(value) else value
    # An array is what a schedule gave, as under optax.inject_hyperparams: the update that it is for is skipped.
    settled = isinstance(first, Tracer) if callable(value) else isinstance(value, jax.Array)
    if not is_real(first) or not (settled or (np.isfinite(first) and first >= least)):
        what = f"The {name} schedule's first value" if callable(value) else name
        shown = f"a {type(first).__name__}" if isinstance(first, NetworkGraph) else first
        raise HyperparameterError(f"{what} is {shown}; {requirement}")


def _at(count: jax.Array, value: Scheduled, dtype: Any) -> jax.Array:
    return jnp.asarray(value(count) if callable(value) else value, dtype)


def _is_interval(number: Any) -> bool:
    if isinstance(number, Tracer):
        return True
    number = number.item() if isinstance(number, jax.Array | np.ndarray) and number.ndim == 0 else number
    return is_whole(number) and int(number) >= 1


def _warm_start(lap: Laplacian, rows: jax.Array) -> jax.Array:
    """Fiedler vectors near the last ones: ``D^1/2 y`` with the present degrees, if normalized."""
    return rows * jnp.sqrt(lap.degrees) if lap.normalized else rows


def _shared_values(values: jax.Array, normalized: bool) -> jax.Array:
    """The λ in ``(y_i - y_j)² - λ (y_i² + y_j²)``: only normalized coefficients have that term."""
    return values if normalized else jnp.zeros_like(values)


def _refreshed_state(
    graph: NetworkGraph,
    edges: tuple[jax.Array, ...],
    lap: Laplacian,
    pairs: EigenResult,
    factor: int,
    old: FiedlerPenaltyState,
) -> FiedlerPenaltyState:
    """The state after a solve; one that gave no usable vectors only changes the status."""
    rows = coefficient_rows(lap, pairs.vectors)
    values = _shared_values(pairs.values, lap.normalized)
    blocks = zip(block_coefficients(graph, rows, values), edges, strict=True)
    total = sum(jnp.sum(jnp.abs(placed_like(block, weights))) for block, weights in blocks)
    found = {
        "vectors": rows,
        "values": pairs.values,
        "residual": pairs.residuals[0],
        "ipr": participation(pairs.vectors)[0],
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
