"""Which trials to run: candidates of equal number for every method, folds to choose by, fresh seeds to judge by."""

import itertools
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

import numpy as np

from benchmarks._errors import ConfigError
from benchmarks._methods import FIEDLER_FORMS, parse_method
from benchmarks._study.trial import Strengths, Trial

# Powers of ten at the ends of a log grid; dropout rates are spaced evenly. Behind an optimizer with momentum m what
# shrinks acts 1 / (1 - m) times more weakly than what is added to gradients.
_DECADES: Mapping[str, tuple[float, float]] = MappingProxyType({"l2": (-4, 0), "l1": (-5, -1), "l1-shrinkage": (-4, 0)})
_PENALTY_DECADES, _SHRINKAGE_DECADES = (-4, 0), (-3, 1)
_DROPOUT_RATES = (0.1, 0.8)
_UNPRUNED_DECADES = (-0.3, -2.3)
# Choosing never sees a seed that judges.
_TUNING_SEEDS = 10_000
_SEARCH_SEED = 0


@dataclass(frozen=True)
class TuneConfig:
    """A tuned comparison.

    Attributes:
        tasks: names of tasks.
        data_dir: folder of MNIST files, if a task needs them.
        methods: names of methods, "none" among them.
        budget: strengths tried for each method.
        draws: draws of training examples to choose strengths on.
        folds: parts of a draw for cross-validation.
        seeds: number of fresh seeds to judge by.
        first_seed: the first of them; another one repeats the judgement on other draws with the same strengths.
        out: folder for the results.
    """

    tasks: tuple[str, ...]
    data_dir: Path | None
    methods: tuple[str, ...]
    budget: int
    draws: int
    folds: int
    seeds: int
    first_seed: int
    out: Path

    def __post_init__(self) -> None:
        for name, least in (("budget", 2), ("draws", 1), ("folds", 2), ("seeds", 2)):
            if getattr(self, name) < least:
                raise ConfigError(f"--{name} must be at least {least}, got {getattr(self, name)}")
        if self.first_seed < 0 or self.first_seed + self.seeds > _TUNING_SEEDS:
            raise ConfigError(f"seeds must lie between 0 and {_TUNING_SEEDS}, where those for tuning begin")
        for name, values in (("tasks", self.tasks), ("methods", self.methods)):
            if len(set(values)) != len(values):
                raise ConfigError(f"--{name} names one twice: {', '.join(values)}")
        for method in self.methods:
            parse_method(method)
        if "none" not in self.methods or len(self.methods) < 2:
            raise ConfigError("--methods must contain 'none', to which differences are taken, and one besides")


def candidates(method: str, budget: int) -> list[Strengths]:
    """The strengths to try: a grid for one regularizer, as many random points of the grids' product for several."""
    regularizers = parse_method(method).regularizers
    if not regularizers:
        return [()]
    grids = [strength_grid(name, budget) for name in regularizers]
    if len(grids) == 1:
        return [((regularizers[0], value),) for value in grids[0]]
    product = list(itertools.product(*grids))
    chosen = np.random.default_rng(_SEARCH_SEED).permutation(len(product))[:budget]
    return [tuple(zip(regularizers, product[index], strict=True)) for index in sorted(chosen)]


def strength_grid(regularizer: str, size: int) -> list[float]:
    """The strengths of one regularizer, weakest first, rounded; for dropout and pruning, shares."""
    if regularizer == "dropout":
        values = np.linspace(*_DROPOUT_RATES, size)
    elif regularizer == "pruning":
        values = 1 - np.logspace(*_UNPRUNED_DECADES, size)
    else:
        values = np.logspace(*_decades(regularizer), size)
    digits = 3 if regularizer == "pruning" else 2
    return [float(f"{value:.{digits}g}") for value in values]


def tuning_trials(task: str, method: str, config: TuneConfig) -> list[Trial]:
    """The trials that choose a method's strengths; those of "none" show what there is to gain."""
    return [
        Trial(task, method, strengths, _TUNING_SEEDS + draw, fold, config.folds)
        for strengths in candidates(method, config.budget)
        for draw in range(config.draws)
        for fold in range(config.folds)
    ]


def judging_trials(task: str, method: str, strengths: Strengths, config: TuneConfig) -> list[Trial]:
    """The trials on the test examples, one a fresh seed."""
    return [
        Trial(task, method, strengths, seed, None, config.folds)
        for seed in range(config.first_seed, config.first_seed + config.seeds)
    ]


def at_edge(strengths: Strengths, budget: int) -> list[str]:
    """Which of the strengths stand at an end of their grid, where a better one might lie beyond."""
    grids = {name: strength_grid(name, budget) for name, _ in strengths}
    return [
        f"{name} {'weakest' if value == grids[name][0] else 'strongest'}"
        for name, value in strengths
        if value in (grids[name][0], grids[name][-1])
    ]


def is_fiedler(method: str) -> bool:
    """Whether a method has a part with the structure of the Fiedler value."""
    return any(FIEDLER_FORMS[name].form != "uniform" for name in parse_method(method).fiedler_regularizers)


def _decades(regularizer: str) -> tuple[float, float]:
    if regularizer in _DECADES:
        return _DECADES[regularizer]
    return _SHRINKAGE_DECADES if FIEDLER_FORMS[regularizer].form == "shrinkage" else _PENALTY_DECADES
