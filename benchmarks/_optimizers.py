"""From a method to the optimizer it trains with."""

import jax
import jax.numpy as jnp
import optax

import fiedler_jax as fj
from benchmarks._config import CompareConfig
from benchmarks._methods import Method


def add_sign_decay(coefficient: float) -> optax.GradientTransformation:
    """Adds ``coefficient * sign(w)`` to the gradient: the L1 penalty's subgradient."""

    def update(grads, params):
        return jax.tree.map(lambda g, w: g + coefficient * jnp.sign(w), grads, params)

    return optax.stateless(update)


def build_optimizer(method: Method, config: CompareConfig) -> optax.GradientTransformationExtraArgs:
    """Chains the method's gradient terms with the optimizer all methods share.

    The Fiedler penalties come first, one per member of
    ``method.fiedler_regularizers``, so their states are the first of the chain's.

    Args:
        method: what to regularize with.
        config: strengths, Fiedler options and the optimizer's settings.

    Returns:
        The transformation to train with.
    """
    penalties = [
        _penalty(regularizer, method, config) for regularizer in method.regularizers if regularizer != "dropout"
    ]
    return optax.chain(*penalties, _base_optimizer(config))


def _penalty(regularizer: str, method: Method, config: CompareConfig) -> optax.GradientTransformation:
    strength = config.strengths[regularizer]
    if regularizer == "l2":
        return optax.add_decayed_weights(strength)
    if regularizer == "l1":
        return add_sign_decay(strength)
    return fj.add_fiedler_penalty(
        strength,
        normalized=regularizer == "fiedler",
        refresh_every=method.refresh_every or config.refresh_every,
        scale=config.scale,
    )


def _base_optimizer(config: CompareConfig) -> optax.GradientTransformation:
    if config.optimizer == "adam":
        return optax.adam(config.learning_rate)
    return optax.sgd(config.learning_rate, momentum=config.momentum)
