"""Trials: one method with one strength on one draw, trained several at a time."""

import functools
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

import fiedler_jax as fj
from benchmarks._methods import Method, parse_method
from benchmarks._model import MLP, Params
from benchmarks._optimizers import build_optimizer
from benchmarks._study.measures import judge, share_of_zeros, structure
from benchmarks._study.task import Recipe, Split, Task, batch_rows, draw_split
from benchmarks._training import initial_params, near_zero_share, penalty_states

Strengths = tuple[tuple[str, float], ...]

# So many networks are trained in one program, which on two cores takes with dropout 0.6 of the time, with a Fiedler
# penalty 0.9, else as long; the last ones of a batch may be copies, so that there is one shape.
_LANES = 8
_DROPOUT = 5


class Trial(NamedTuple):
    """One training run, and what its network is judged by.

    Attributes:
        task: the task's name.
        method: the method's name.
        strengths: of its regularizers, by name.
        seed: fixes the draw of examples, initial weights, batches and dropout masks.
        fold: the part of the draw that judges; None for the test examples.
        folds: number of parts.
    """

    task: str
    method: str
    strengths: Strengths
    seed: int
    fold: int | None
    folds: int


class _Program(NamedTuple):
    """What is compiled once: all but strengths, seeds and examples."""

    method: Method
    recipe: Recipe
    sizes: tuple[int, ...]
    dropout_rate: float
    regression: bool


class _Lanes(NamedTuple):
    """What differs between the networks of one program."""

    strengths: Any
    params: Any
    key: jax.Array
    targets: Any
    order: Any


def run_trials(task: Task, trials: Sequence[Trial]) -> Iterator[list[tuple[Trial, dict[str, Any]]]]:
    """Trains and judges.

    Args:
        task: the task of all these trials.
        trials: of one method each or of several.

    Yields:
        Some trials and what was measured of each (see `benchmarks._study.measures`), in the order they were finished.
    """
    groups: dict[_Program, list[Trial]] = {}
    for trial in trials:
        groups.setdefault(_program(task, trial), []).append(trial)
    inputs = jnp.asarray(task.inputs)
    for program, members in groups.items():
        lanes = 1 if program.method.refresh_every == "auto" else _LANES
        for start in range(0, len(members), lanes):
            chunk = members[start : start + lanes]
            yield list(zip(chunk, _run(task, program, inputs, chunk, lanes), strict=True))


def _program(task: Task, trial: Trial) -> _Program:
    method = parse_method(trial.method)
    rate = method.dropout_rate(dict(trial.strengths))
    return _Program(method, task.recipe, task.sizes, rate, task.classes is None)


def _run(task: Task, program: _Program, inputs: jax.Array, trials: Sequence[Trial], lanes: int) -> list[dict[str, Any]]:
    splits = [draw_split(task, trial.seed, trial.fold, trial.folds) for trial in trials]
    members = [_lane(task, trial, split) for trial, split in zip(trials, splits, strict=True)]
    members += members[-1:] * (lanes - len(members))
    stacked = jax.tree.map(lambda *parts: jnp.stack(parts), *members)
    params, states = _train(program, stacked, inputs)
    outputs = np.asarray(_outputs(program.sizes, params, inputs))
    final = all(trial.fold is None for trial in trials)
    shifted = {name: np.asarray(_outputs(program.sizes, params, jnp.asarray(x))) for name, x in task.shifts.items()}
    pairs = _fiedler_pairs(fj.graph_from_params(members[0].params), params) if final else None

    def measured(at: int, split: Split) -> dict[str, Any]:
        own = jax.tree.map(lambda leaf: np.asarray(leaf[at]), params)
        return {
            **judge(task, outputs[at], split, {name: values[at] for name, values in shifted.items()}),
            "near_zero_share": near_zero_share(own),
            "zero_share": share_of_zeros(own),
            "penalties": [
                _penalty(name, state, at)
                for name, state in zip(program.method.fiedler_regularizers, states, strict=True)
            ],
            **({} if pairs is None else structure(task, own, jax.tree.map(lambda leaf: np.asarray(leaf[at]), pairs))),
        }

    return [measured(at, split) for at, split in enumerate(splits)]


def _lane(task: Task, trial: Trial, split: Split) -> _Lanes:
    strengths = {name: np.float32(value) for name, value in trial.strengths if name != "dropout"}
    return _Lanes(
        strengths=strengths,
        params=initial_params(task.sizes, trial.seed),
        key=jax.random.fold_in(jax.random.key(trial.seed), _DROPOUT),
        targets=split.targets,
        order=batch_rows(task, split, trial.seed),
    )


@functools.partial(jax.jit, static_argnums=0)
def _train(program: _Program, lanes: _Lanes, inputs: jax.Array) -> tuple[Any, list[fj.FiedlerPenaltyState]]:
    model = MLP(program.sizes[1:], program.dropout_rate)

    def loss(params, rows, targets, key):
        outputs: Any = model.apply({"params": params}, inputs[rows], training=True, rngs={"dropout": key})
        if program.regression:
            return jnp.mean(jnp.sum((outputs - targets[rows]) ** 2, axis=-1)) / 2
        return optax.softmax_cross_entropy_with_integer_labels(outputs, targets[rows]).mean()

    def one(lane: _Lanes):
        strengths = {**lane.strengths, "dropout": program.dropout_rate}
        optimizer = build_optimizer(program.method, program.recipe, strengths, program.recipe.steps)

        def step(carry, batch):
            params, state = carry
            rows, key = batch
            grads = jax.grad(loss)(params, rows, lane.targets, key)
            updates, state = optimizer.update(grads, state, params)
            return (optax.apply_updates(params, updates), state), None

        keys = jax.random.split(lane.key, program.recipe.steps)
        (params, state), _ = jax.lax.scan(step, (lane.params, optimizer.init(lane.params)), (lane.order, keys))
        return params, penalty_states(state)

    return jax.vmap(one)(lanes)


@functools.partial(jax.jit, static_argnums=0)
def _outputs(sizes: tuple[int, ...], params: Params, inputs: jax.Array) -> jax.Array:
    return jax.lax.map(lambda own: MLP(sizes[1:]).apply({"params": own}, inputs, training=False), params)  # pyright: ignore[reportReturnType]


@functools.partial(jax.jit, static_argnums=0)
def _fiedler_pairs(graph: fj.NetworkGraph, params: Params) -> fj.FiedlerPair:
    return jax.lax.map(lambda own: fj.fiedler_pair(fj.laplacian(graph, own)), params)


def _penalty(name: str, state: fj.FiedlerPenaltyState, at: int) -> dict[str, Any]:
    return {
        "regularizer": name,
        "value": float(state.values[at, 0]),
        "ipr": float(state.ipr[at]),
        "l1_coefficient": float(abs(state.last_strength[at]) * state.mean_coefficient[at]),
        "status": fj.Status(int(state.status[at])).name.lower().replace("_", " "),
        "skipped": int(state.skipped[at]),
        "refreshes": int(state.refreshes[at]),
    }
