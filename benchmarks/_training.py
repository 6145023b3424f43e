"""Training one method by one epoch, and measuring what came out."""

import functools
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

import fiedler_jax as fj
from benchmarks._config import CompareConfig
from benchmarks._data import Dataset
from benchmarks._methods import Method
from benchmarks._model import MLP, Params
from benchmarks._optimizers import build_optimizer

# A weight is "near zero" below this; the shares in all reports refer to it.
NEAR_ZERO = 1e-3


class TrainState(NamedTuple):
    """What an epoch takes and gives back."""

    params: Params
    opt_state: optax.OptState


class Trainer(NamedTuple):
    """A method with its epoch, compiled once and used for every seed."""

    method: Method
    init: Callable[[Params], TrainState]
    epoch: Callable[..., TrainState]


class FiedlerPoint(NamedTuple):
    """One λ2 of the network, and how far to trust it: ``status`` names the outcome."""

    value: float
    error: float
    residual: float
    ipr: float
    status: str
    converged: bool


class PenaltyPoint(NamedTuple):
    """What a Fiedler penalty logged at its last refresh, how many steps went without it, and how many refreshes."""

    value: float
    l1_coefficient: float
    residual: float
    ipr: float
    status: str
    skipped: int
    refreshes: int


class Score(NamedTuple):
    """Mean cross-entropy, without regularizers, and accuracy."""

    loss: jax.Array
    accuracy: jax.Array


def batch_order(seed: int, epoch: int, examples: int, batch_size: int) -> np.ndarray:
    """Row numbers of an epoch's batches; the same for every method.

    Args:
        seed: the run's seed.
        epoch: number of the epoch.
        examples: size of the training set.
        batch_size: examples per step.

    Returns:
        int32 array (steps, batch_size); the incomplete last batch is left out.
    """
    steps = examples // batch_size
    order = np.random.default_rng([seed, epoch]).permutation(examples)
    return order[: steps * batch_size].reshape(steps, batch_size).astype(np.int32)


def layer_sizes(config: CompareConfig, data: Dataset) -> tuple[int, ...]:
    """Units of each layer, the inputs first."""
    return (data.train_inputs.shape[1], *config.hidden, data.classes)


def initial_params(sizes: tuple[int, ...], seed: int) -> Params:
    """Initial parameters of a seed; no method has a say in them."""
    return _initial_params(sizes, jax.random.key(seed))


@functools.partial(jax.jit, static_argnames="sizes")
def _initial_params(sizes: tuple[int, ...], key: jax.Array) -> Params:
    return MLP(sizes[1:]).init(key, jnp.zeros((1, sizes[0])), training=False)["params"]


def dropout_key(seed: int, epoch: int) -> jax.Array:
    """Key of an epoch's dropout masks; the same for every method with dropout."""
    # The shift keeps these keys apart from those of the initial parameters and of scoring.
    return jax.random.fold_in(jax.random.fold_in(jax.random.key(seed), 1), epoch)


def scoring_keys(seed: int, epoch: int) -> jax.Array:
    """Keys of the masks when a network is scored with dropout active, on training and on test examples."""
    return jax.random.split(jax.random.fold_in(jax.random.fold_in(jax.random.key(seed), 2), epoch))


def make_epoch(method: Method, config: CompareConfig, sizes: tuple[int, ...], steps: int) -> Callable[..., TrainState]:
    """Builds a method's epoch, a pure function of arrays.

    Args:
        method: what to regularize with.
        config: optimizer and strengths.
        sizes: units of each layer, the inputs first.
        steps: steps of an epoch.

    Returns:
        A function of (state, inputs, labels, order, key) that takes one step per row
        of ``order`` and returns the new state.
    """
    model = MLP(sizes[1:], method.dropout_rate(config.strengths))
    optimizer = _optimizer(method, config, steps)

    def loss(params, inputs, labels, key):
        logits = model.apply({"params": params}, inputs, training=True, rngs={"dropout": key})
        return _cross_entropy(logits, labels)

    def epoch(state, inputs, labels, order, key):
        def step(state, batch):
            rows, step_key = batch
            grads = jax.grad(loss)(state.params, inputs[rows], labels[rows], step_key)
            updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
            return TrainState(
                optax.apply_updates(state.params, updates),  # pyright: ignore[reportArgumentType]
                opt_state,
            ), None

        keys = jax.random.split(key, len(order))
        return jax.lax.scan(step, state, (order, keys))[0]

    return epoch


def compile_trainer(method: Method, config: CompareConfig, data: Dataset) -> Trainer:
    """Compiles a method's epoch for the shapes of the data.

    Args:
        method: what to regularize with.
        config: the comparison.
        data: gives the shapes; nothing of it stays in the compiled code.

    Returns:
        The method, ready to train any seed without further compilation.
    """
    order = batch_order(0, 0, len(data.train_labels), config.batch_size)
    optimizer = _optimizer(method, config, len(order))

    @jax.jit
    def init(params):
        # Copied, so that donating the state leaves the caller's arrays alone.
        params = jax.tree.map(jnp.copy, params)
        return TrainState(params, optimizer.init(params))

    sizes = layer_sizes(config, data)
    state = init(initial_params(sizes, 0))
    epoch = jax.jit(make_epoch(method, config, sizes, len(order)), donate_argnums=0)
    arguments = (data.train_inputs, data.train_labels, order, dropout_key(0, 0))
    return Trainer(method, init, epoch.lower(state, *arguments).compile())


def _optimizer(method: Method, config: CompareConfig, steps_per_epoch: int) -> optax.GradientTransformationExtraArgs:
    return build_optimizer(method, config, config.strengths, config.epochs * steps_per_epoch)


def timed_epoch(trainer: Trainer, state: TrainState, *arguments: Any) -> tuple[TrainState, float]:
    """Runs one epoch and returns the new state and the seconds it took."""
    jax.block_until_ready((state, arguments))
    start = time.perf_counter()
    state = jax.block_until_ready(trainer.epoch(state, *arguments))
    return state, time.perf_counter() - start


@functools.partial(jax.jit, static_argnames=("sizes", "dropout_rate"))
def score(
    sizes: tuple[int, ...],
    params: Params,
    inputs: jax.Array,
    labels: jax.Array,
    dropout_rate: float = 0.0,
    key: jax.Array | None = None,
) -> Score:
    """Scores a network.

    Args:
        sizes: units of each layer, the inputs first.
        params: the network's parameters.
        inputs: examples, one per row.
        labels: their classes.
        dropout_rate: rate of the dropout layers, if they are to be active.
        key: key of their masks; None leaves dropout off.

    Returns:
        Mean loss and accuracy.
    """
    active = key is not None
    rngs = {"dropout": key} if active else None
    logits: Any = MLP(sizes[1:], dropout_rate).apply({"params": params}, inputs, training=active, rngs=rngs)
    correct = jnp.argmax(logits, axis=-1) == labels
    return Score(_cross_entropy(logits, labels), jnp.mean(correct))


@functools.partial(jax.jit, static_argnames="graph")
def fiedler_pairs(
    graph: fj.NetworkGraph, params: Params, normalized_start: jax.Array, combinatorial_start: jax.Array
) -> tuple[fj.FiedlerPair, fj.FiedlerPair]:
    """Solves for both Fiedler pairs of a network.

    Args:
        graph: the network's graph.
        params: the network's parameters.
        normalized_start: vector the solve of the normalized Laplacian starts from.
        combinatorial_start: the same for the combinatorial one.

    Returns:
        The normalized and the combinatorial pair; the start vector takes the place of a vector that is not finite.
    """
    return (
        _pair_from(graph, params, True, normalized_start),
        _pair_from(graph, params, False, combinatorial_start),
    )


def _pair_from(graph: fj.NetworkGraph, params: Params, normalized: bool, start: jax.Array) -> fj.FiedlerPair:
    pair = fj.fiedler_pair(fj.laplacian(graph, params, normalized=normalized), init=start)
    # The vector starts the next solve, which NaNs would spoil for good.
    usable = jnp.isfinite(pair.vector).all()
    return pair._replace(vector=jnp.where(usable, pair.vector, start))


def fiedler_point(pair: fj.FiedlerPair) -> FiedlerPoint:
    """Brings a Fiedler pair's numbers to the host."""
    return FiedlerPoint(
        float(pair.value),
        float(pair.error),
        float(pair.residual),
        float(pair.ipr),
        _status_name(pair.status),
        bool(pair.converged),
    )


def penalty_points(trainer: Trainer, state: TrainState) -> dict[str, PenaltyPoint]:
    """Reads what each Fiedler penalty of a method logged, by regularizer."""
    states = zip(trainer.method.fiedler_regularizers, penalty_states(state.opt_state), strict=True)
    points = {}
    for regularizer, penalty_state in states:
        metrics = fj.fiedler_metrics(penalty_state)
        points[regularizer] = PenaltyPoint(
            float(metrics.value),
            float(metrics.l1_coefficient),
            float(metrics.residual),
            float(metrics.ipr),
            _status_name(metrics.status),
            int(metrics.skipped),
            int(metrics.refreshes),
        )
    return points


def penalty_states(opt_state: Any) -> list[fj.FiedlerPenaltyState]:
    """The states of all Fiedler penalties in an optimizer's, in the order of the chain."""
    leaves = jax.tree.leaves(opt_state, is_leaf=lambda node: isinstance(node, fj.FiedlerPenaltyState))
    return [leaf for leaf in leaves if isinstance(leaf, fj.FiedlerPenaltyState)]


def near_zero_share(params: Params) -> float:
    """Share of kernel weights with magnitude below ``NEAR_ZERO``."""
    kernels = [np.abs(layer["kernel"]) for layer in params.values()]
    return sum(int((k < NEAR_ZERO).sum()) for k in kernels) / sum(k.size for k in kernels)


def _status_name(status: jax.Array) -> str:
    return fj.Status(int(status)).name.lower().replace("_", " ")


def _cross_entropy(logits: Any, labels: jax.Array) -> jax.Array:
    losses = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
    return losses.mean()
