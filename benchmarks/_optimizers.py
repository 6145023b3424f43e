"""From a method to the optimizer it trains with."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import optax

import fiedler_jax as fj
from benchmarks._methods import FIEDLER_FORMS, Method, Refresh

Strengths = Mapping[str, float | jax.Array]

# Pruning goes on over this part of training, some steps apart.
_PRUNING_BEGINS, _PRUNING_ENDS, _PRUNING_INTERVAL = 0.25, 0.75, 25


class PruningState(NamedTuple):
    """Steps so far, and which kernel entries are left, as a tree like the parameters."""

    count: jax.Array  # pyright: ignore[reportIncompatibleMethodOverride]
    left: Any


class TrainingSettings(Protocol):
    """The settings all methods share: the optimizer's, and those of Fiedler penalties."""

    @property
    def optimizer(self) -> str:
        """``"sgd"`` or ``"adam"``."""
        ...

    @property
    def learning_rate(self) -> float:
        """Step size, constant over training."""
        ...

    @property
    def momentum(self) -> float:
        """Heavy-ball momentum of SGD."""
        ...

    @property
    def scale(self) -> Any:
        """As in `add_fiedler_penalty`."""
        ...

    @property
    def refresh_every(self) -> Refresh:
        """As in `add_fiedler_penalty`, unless a method has its own."""
        ...


def add_sign_decay(coefficient: float | jax.Array) -> optax.GradientTransformation:
    """Adds ``coefficient * sign(w)`` to the gradient: the L1 penalty's subgradient."""

    def update(grads, params):
        return jax.tree.map(lambda g, w: g + coefficient * jnp.sign(w), grads, params)

    return optax.stateless(update)


def shrink_kernels(threshold: float | jax.Array) -> optax.GradientTransformation:
    """Moves kernel entries towards zero by `threshold` after the optimizer's step, at most to zero: proximal L1."""

    def shrunk(update, weight):
        moved = weight + update
        return jnp.where(jnp.abs(moved) <= threshold, -weight, update - threshold * jnp.sign(moved))

    return optax.stateless(lambda updates, params: _map_kernels(shrunk, updates, params))


def add_uniform_counterpart(strength: float | jax.Array, **settings: Any) -> optax.GradientTransformationExtraArgs:
    """Adds ``c * sign(w)`` to the gradients of kernels, c the mean effective L1 coefficient of a Fiedler penalty.

    What is left of the penalty without its structure.

    Args:
        strength: that of the Fiedler penalty.
        settings: the others of `add_fiedler_penalty`.

    Returns:
        The transformation, with the penalty's state.
    """
    penalty = fj.add_fiedler_penalty(strength, **settings)

    def update(updates, state, params=None, **extra_args):
        del extra_args
        _, state = penalty.update(updates, state, params)
        coefficient = fj.fiedler_metrics(state).l1_coefficient
        return _map_kernels(lambda g, w: g + coefficient * jnp.sign(w), updates, params), state

    return optax.GradientTransformationExtraArgs(penalty.init, update)


def prune_gradually(share: float | jax.Array, steps: int) -> optax.GradientTransformationExtraArgs:
    """Sets the smallest kernel entries to zero, more and more of them, while the others go on learning.

    Of all kernel entries together the share ``share (1 - (1 - p)^3)`` is zero, p growing from 0 to 1 in the middle half
    of training. An entry at zero stays there.

    Args:
        share: of zeros at the end.
        steps: steps of the whole training.

    Returns:
        A transformation to put after all others.

    Source: Zhu & Gupta, "To prune, or not to prune", 2017 (arXiv 1710.01878), equation 1.
    """
    begin, end = round(_PRUNING_BEGINS * steps), round(_PRUNING_ENDS * steps)

    def init(params):
        return PruningState(jnp.zeros((), jnp.int32), jax.tree.map(lambda w: jnp.ones(w.shape, bool), params))

    def pruned(left, moved, count):
        progress = (count - begin) / max(end - begin, 1)
        magnitudes = jax.tree.map(jnp.abs, moved)
        kernels = [layer["kernel"].ravel() for layer in magnitudes.values()]
        number = sum(kernel.size for kernel in kernels)
        zeros = jnp.round(share * (1 - (1 - progress) ** 3) * number).astype(jnp.int32)
        in_order = jnp.concatenate([jnp.zeros(1), jnp.sort(jnp.concatenate(kernels))])
        return _map_kernels(lambda old, magnitude: old & (magnitude > in_order[zeros]), left, magnitudes)

    def update(updates, state, params=None, **extra_args):
        del extra_args
        moved = jax.tree.map(jnp.add, params, updates)
        moved = jax.tree.map(lambda w, left: jnp.where(left, w, 0), moved, state.left)
        # Counted back from the end, at which the whole share is due.
        due = ((end - state.count) % _PRUNING_INTERVAL == 0) & (state.count >= begin) & (state.count <= end)
        left = jax.lax.cond(due, pruned, lambda left, moved, count: left, state.left, moved, state.count)
        kept = jax.tree.map(lambda u, w, here: jnp.where(here, u, -w), updates, params, left)
        return kept, PruningState(state.count + 1, left)

    return optax.GradientTransformationExtraArgs(init, update)


def build_optimizer(
    method: Method, settings: TrainingSettings, strengths: Strengths, steps: int
) -> optax.GradientTransformationExtraArgs:
    """Chains the method's terms with the optimizer all methods share.

    The states of its Fiedler penalties stand in the chain's state in the order of ``method.fiedler_regularizers``.

    Args:
        method: what to regularize with.
        settings: what all methods share.
        strengths: by regularizer; they may be traced.
        steps: steps of the whole training.

    Returns:
        The transformation to train with.
    """
    before = [_gradient_term(name, method, settings, strengths[name]) for name in method.regularizers]
    after = [_last_term(name, method, settings, strengths[name], steps) for name in method.regularizers]
    base = _base_optimizer(settings)
    return optax.chain(*filter(None, before), base, *filter(None, after))


def _gradient_term(
    name: str, method: Method, settings: TrainingSettings, strength: float | jax.Array
) -> optax.GradientTransformation | None:
    if name == "l2":
        return optax.add_decayed_weights(strength)
    if name == "l1":
        return add_sign_decay(strength)
    if name not in FIEDLER_FORMS or FIEDLER_FORMS[name].form == "shrinkage":
        return None
    make = add_uniform_counterpart if FIEDLER_FORMS[name].form == "uniform" else fj.add_fiedler_penalty
    return make(FIEDLER_FORMS[name].sign * strength, **_fiedler_settings(name, method, settings))


def _last_term(
    name: str, method: Method, settings: TrainingSettings, strength: float | jax.Array, steps: int
) -> optax.GradientTransformation | None:
    if name == "l1-shrinkage":
        return shrink_kernels(settings.learning_rate * strength)
    if name == "pruning":
        return prune_gradually(strength, steps)
    if name not in FIEDLER_FORMS or FIEDLER_FORMS[name].form != "shrinkage":
        return None
    return fj.fiedler_shrinkage(strength, settings.learning_rate, **_fiedler_settings(name, method, settings))


def _fiedler_settings(name: str, method: Method, settings: TrainingSettings) -> dict[str, Any]:
    form = FIEDLER_FORMS[name]
    return {
        "normalized": form.normalized,
        "num_eigenvalues": form.num_eigenvalues,
        "refresh_every": method.refresh_every or settings.refresh_every,
        "scale": settings.scale,
    }


def _base_optimizer(settings: TrainingSettings) -> optax.GradientTransformation:
    if settings.optimizer == "adam":
        return optax.adam(settings.learning_rate)
    return optax.sgd(settings.learning_rate, momentum=settings.momentum)


def _map_kernels(change: Callable[..., jax.Array], updates: Any, params: Any) -> Any:
    return jax.tree_util.tree_map_with_path(
        lambda path, u, w: change(u, w) if jax.tree_util.keystr(path[-1:], simple=True) == "kernel" else u,
        updates,
        params,
    )
