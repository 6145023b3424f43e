"""The A/B experiment: every method on every seed, epoch by epoch in turn."""

from collections.abc import Callable, Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import fiedler_jax as fj
from benchmarks._config import CompareConfig
from benchmarks._data import Dataset
from benchmarks._errors import ConfigError
from benchmarks._methods import parse_method
from benchmarks._training import (
    FiedlerPoint,
    PenaltyPoint,
    Trainer,
    TrainState,
    batch_order,
    compile_trainer,
    dropout_key,
    fiedler_pairs,
    fiedler_point,
    initial_params,
    layer_sizes,
    near_zero_share,
    penalty_points,
    score,
    scoring_keys,
    timed_epoch,
)


class ActiveDropout(NamedTuple):
    """Accuracies of a network whose dropout stays active, as in the experiments of Tam and Dunson."""

    train_accuracy: float
    test_accuracy: float


class EpochPoint(NamedTuple):
    """A network after an epoch; epoch 0 is the initial network. Dropout is off, if not said otherwise.

    ``seconds`` is the time of the epoch's steps alone, None at epoch 0. ``active_dropout`` is None for methods without.
    """

    epoch: int
    train_loss: float
    train_accuracy: float
    test_accuracy: float
    normalized: FiedlerPoint
    combinatorial: FiedlerPoint
    penalties: dict[str, PenaltyPoint]
    seconds: float | None
    active_dropout: ActiveDropout | None = None


class Run(NamedTuple):
    """One method on one seed; of its last network the normalized Fiedler vector, a row a layer."""

    method: str
    seed: int
    points: tuple[EpochPoint, ...]
    near_zero_share: float
    fiedler_vector: tuple[np.ndarray, ...] = ()


class _Measure(NamedTuple):
    strengths: Mapping[str, float]
    sizes: tuple[int, ...]
    graph: fj.NetworkGraph
    data: Dataset


class _Contestant(NamedTuple):
    trainer: Trainer
    state: TrainState
    vectors: tuple[jax.Array, jax.Array]
    points: tuple[EpochPoint, ...]


def steps_per_epoch(config: CompareConfig, data: Dataset) -> int:
    """Steps in an epoch; an error if there is not one full batch."""
    examples = len(data.train_labels)
    if examples < config.batch_size:
        raise ConfigError(f"--batch {config.batch_size} is more than the {examples} training examples")
    return examples // config.batch_size


def run_experiment(
    config: CompareConfig,
    data: Dataset,
    on_compile: Callable[[str], None] = lambda method: None,
    on_epoch: Callable[[str, int, int], None] = lambda method, seed, epoch: None,
) -> list[Run]:
    """Trains every method on every seed.

    Methods take turns epoch by epoch, so that a machine that slows down for a while
    slows all of them alike.

    Args:
        config: the comparison.
        data: training and test examples.
        on_compile: told the method before it is compiled.
        on_epoch: told method, seed and epoch after each epoch.

    Returns:
        The runs, ordered by method, then seed.
    """
    steps_per_epoch(config, data)
    data = Dataset(*(jnp.asarray(array) for array in data[:-1]), classes=data.classes)
    sizes = layer_sizes(config, data)
    trainers = []
    for name in config.methods:
        on_compile(name)
        trainers.append(compile_trainer(parse_method(name), config, data))
    measure = _Measure(config.strengths, sizes, fj.graph_from_params(initial_params(sizes, 0)), data)
    runs = [run for seed in range(config.seeds) for run in _run_seed(config, trainers, measure, seed, on_epoch)]
    return sorted(runs, key=lambda run: config.methods.index(run.method))


def _run_seed(
    config: CompareConfig,
    trainers: list[Trainer],
    measure: _Measure,
    seed: int,
    on_epoch: Callable[[str, int, int], None],
) -> list[Run]:
    params = initial_params(measure.sizes, seed)
    vectors = _start_vectors(measure.sizes, seed)
    contestants = [
        _measured(_Contestant(trainer, trainer.init(params), vectors, ()), measure, seed, None) for trainer in trainers
    ]
    for epoch in range(1, config.epochs + 1):
        order = jnp.asarray(batch_order(seed, epoch, len(measure.data.train_labels), config.batch_size))
        arguments = (
            measure.data.train_inputs,
            measure.data.train_labels,
            order,
            dropout_key(seed, epoch),
        )
        for index, contestant in enumerate(contestants):
            state, seconds = timed_epoch(contestant.trainer, contestant.state, *arguments)
            contestant = contestant._replace(state=state)
            contestants[index] = _measured(contestant, measure, seed, seconds)
            on_epoch(contestant.trainer.method.name, seed, epoch)
    return [_finished(contestant, measure.sizes, seed) for contestant in contestants]


def _finished(contestant: _Contestant, sizes: tuple[int, ...], seed: int) -> Run:
    vector, _ = contestant.vectors
    layers = np.split(np.asarray(vector), np.cumsum(sizes)[:-1])
    share = near_zero_share(contestant.state.params)
    return Run(contestant.trainer.method.name, seed, contestant.points, share, tuple(layers))


def _start_vectors(sizes: tuple[int, ...], seed: int) -> tuple[jax.Array, jax.Array]:
    start = np.random.default_rng(seed).standard_normal((2, sum(sizes)))
    normalized, combinatorial = jnp.asarray(start, jnp.float32)
    return normalized, combinatorial


def _measured(contestant: _Contestant, measure: _Measure, seed: int, seconds: float | None) -> _Contestant:
    params, data = contestant.state.params, measure.data
    train = score(measure.sizes, params, data.train_inputs, data.train_labels)
    test = score(measure.sizes, params, data.test_inputs, data.test_labels)
    normalized, combinatorial = fiedler_pairs(measure.graph, params, *contestant.vectors)
    point = EpochPoint(
        epoch=len(contestant.points),
        train_loss=float(train.loss),
        train_accuracy=float(train.accuracy),
        test_accuracy=float(test.accuracy),
        normalized=fiedler_point(normalized),
        combinatorial=fiedler_point(combinatorial),
        penalties=penalty_points(contestant.trainer, contestant.state),
        seconds=seconds,
        active_dropout=_active_dropout(contestant, measure, seed),
    )
    return contestant._replace(
        vectors=(normalized.vector, combinatorial.vector),
        points=(*contestant.points, point),
    )


def _active_dropout(contestant: _Contestant, measure: _Measure, seed: int) -> ActiveDropout | None:
    if "dropout" not in contestant.trainer.method.regularizers:
        return None
    rate, data = contestant.trainer.method.dropout_rate(measure.strengths), measure.data
    train_key, test_key = scoring_keys(seed, len(contestant.points))
    params = contestant.state.params
    train = score(measure.sizes, params, data.train_inputs, data.train_labels, rate, train_key)
    test = score(measure.sizes, params, data.test_inputs, data.test_labels, rate, test_key)
    return ActiveDropout(float(train.accuracy), float(test.accuracy))
