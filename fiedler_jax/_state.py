"""The state of the transformations: what it holds, how it begins, and whether it fits an update."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from fiedler_jax.eigen import Status
from fiedler_jax.errors import ArgumentTypeError, KernelMismatchError


class FiedlerPenaltyState(NamedTuple):
    """State of `add_fiedler_penalty` and of `fiedler_shrinkage`: arrays of fixed shape, none of parameter size.

    Values are those of the last refresh that gave a usable vector. Floating fields are float32, or float64 where a
    kernel is. Nothing in it tells networks with as many vertices apart: with the state of another one the update goes
    on with that one's vectors up to the next refresh.

    Attributes:
        count: updates so far.
        vectors: rows y (k, n) from which the edge coefficients are made: the eigenvectors of λ2 to λ(k+1), times
            ``D^-1/2`` if normalized.
        values: the eigenvalues λ2 to λ(k+1), shape (k,).
        residual: the residual of the Fiedler pair.
        ipr: inverse participation ratio of the Fiedler vector.
        mean_coefficient: mean over the edges of ``|d(λ2 + … + λ(k+1))/d|W_ij||``, times the scale.
        last_strength: the strength used in the last update.
        status: `Status` of the last solve, NOT_SOLVED before the first.
        skipped: updates left without a penalty, because the strength (or the learning rate that `fiedler_shrinkage`
            takes) was out of range or no usable vector was found.
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
    last_strength: jax.Array
    status: jax.Array
    skipped: jax.Array
    refreshes: jax.Array
    interval: jax.Array
    next_refresh: jax.Array


def initial_state(num_vertices: int, num_eigenvalues: int, dtype: jnp.dtype) -> FiedlerPenaltyState:
    """The state before the first update."""
    # One array per field, since donating the state would give away a shared one twice.
    return FiedlerPenaltyState(
        count=jnp.zeros((), jnp.int32),
        vectors=jnp.zeros((num_eigenvalues, num_vertices), dtype),
        values=jnp.zeros(num_eigenvalues, dtype),
        residual=jnp.zeros((), dtype),
        ipr=jnp.zeros((), dtype),
        mean_coefficient=jnp.zeros((), dtype),
        last_strength=jnp.zeros((), dtype),
        status=jnp.asarray(Status.NOT_SOLVED, jnp.int32),
        skipped=jnp.zeros((), jnp.int32),
        refreshes=jnp.zeros((), jnp.int32),
        interval=jnp.ones((), jnp.int32),
        next_refresh=jnp.zeros((), jnp.int32),
    )


def check_is_state(name: str, state: Any) -> None:
    """Raise ArgumentTypeError unless it is a state of one of the transformations, of which one has this name."""
    if not isinstance(state, FiedlerPenaltyState):
        raise ArgumentTypeError(
            f"{name} got {type(state).__name__} as its state, not the FiedlerPenaltyState of tx.init(params). A "
            "restored state takes its structure from that."
        )


def check_state_fits(
    name: str, state: FiedlerPenaltyState, num_eigenvalues: int, num_vertices: int, dtype: jnp.dtype
) -> None:
    """Raise KernelMismatchError unless the arrays have the shapes and the precision of these vertices."""
    if state.vectors.shape != (num_eigenvalues, num_vertices) or state.vectors.dtype != dtype:
        raise KernelMismatchError(
            f"The state of {name} has vectors of shape {state.vectors.shape} in {state.vectors.dtype}, but "
            f"{num_eigenvalues} of {num_vertices} vertices in {dtype} are needed. Make a new state with "
            "tx.init(params)."
        )
    for field, value in state._asdict().items():
        needed = {"vectors": state.vectors.shape, "values": (num_eigenvalues,)}.get(field, ())
        if jnp.shape(value) != needed:
            raise KernelMismatchError(
                f"The state of {name} has a {field} of shape {jnp.shape(value)}, not {needed}. Make a new state with "
                "tx.init(params); several that are stacked belong under jax.vmap."
            )
