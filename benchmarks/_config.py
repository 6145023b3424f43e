"""Everything one comparison is told, and the defaults that belong to each data set."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType
from typing import Literal

from benchmarks._errors import ConfigError
from benchmarks._methods import REGULARIZERS, Refresh, parse_method

Scale = Literal["vertices", "unit"]

OPTIMIZERS = ("sgd", "adam")
DEFAULT_METHODS = (
    "none",
    "l2",
    "l1",
    "dropout",
    "fiedler",
    "fiedler-combinatorial",
    "fiedler+dropout",
)
# The per-data-set rates are meant for SGD; they are far too large for Adam.
ADAM_LEARNING_RATE = 1e-3


@dataclass(frozen=True)
class DatasetDefaults:
    """The options that a data set sets unless the user does."""

    hidden: tuple[int, ...]
    epochs: int
    batch_size: int
    learning_rate: float
    momentum: float
    scale: Scale
    refresh_every: int
    strengths: Mapping[str, float] = field(hash=False)


# The protocol of Tam and Dunson (ICML 2020), as for MNIST. They have no normalized variant: it gets the strength of
# their combinatorial one.
_PROTOCOL = DatasetDefaults(
    hidden=(500, 500, 500),
    epochs=10,
    batch_size=100,
    learning_rate=1e-3,
    momentum=0.9,
    scale="unit",
    refresh_every=100,
    strengths=MappingProxyType(
        {
            "l2": 0.01,
            "l1": 1e-3,
            "dropout": 0.4,
            "fiedler": 0.01,
            "fiedler-combinatorial": 0.01,
        }
    ),
)


def _with_dropout(rate: float) -> DatasetDefaults:
    return replace(_PROTOCOL, strengths=MappingProxyType({**_PROTOCOL.strengths, "dropout": rate}))


DATASETS: Mapping[str, DatasetDefaults] = MappingProxyType(
    {
        "digits": DatasetDefaults(
            hidden=(128, 64),
            epochs=30,
            batch_size=32,
            learning_rate=0.05,
            momentum=0.9,
            scale="vertices",
            refresh_every=100,
            # Chosen by `python -m benchmarks.tune --tasks digits` (RESULTS.md). The best values of all methods lie
            # within a point of each other, less than folds differ by: digits does not tell methods apart.
            strengths=MappingProxyType(
                {
                    "l2": 3.2e-3,
                    "l1": 1e-5,
                    "dropout": 0.36,
                    "fiedler": 1e-4,
                    "fiedler-combinatorial": 3.2e-4,
                }
            ),
        ),
        "mnist": _PROTOCOL,
        "cifar10": _with_dropout(0.5),
        # 600 examples are six steps an epoch: the refresh at the start of each epoch is the only one.
        "tcga": replace(_with_dropout(0.5), hidden=(50, 50, 50), epochs=5, refresh_every=6),
    }
)


@dataclass(frozen=True)
class CompareConfig:
    """One comparison, fully spelled out.

    Attributes:
        dataset: a key of ``DATASETS``.
        data_dir: folder of the data files; None for a data set that needs none.
        train_size: number of training examples to use; None for all.
        hidden: widths of the hidden layers.
        epochs: passes over the training set.
        batch_size: examples per step; the last incomplete batch of an epoch is dropped.
        optimizer: ``"sgd"`` or ``"adam"``.
        learning_rate: step size, constant over training.
        momentum: heavy-ball momentum of SGD.
        strengths: regularizer name to strength (for dropout: the rate).
        scale: length of the Fiedler test vector, as in ``add_fiedler_penalty``.
        refresh_every: steps between two solves of the Fiedler penalty, or ``"auto"``; a method may have its own.
        methods: method names, ``"none"`` among them.
        seeds: number of seeds; seed ``s`` fixes initial weights, batch order and
            dropout masks.
        out: folder the results go to.
    """

    dataset: str
    data_dir: Path | None
    train_size: int | None
    hidden: tuple[int, ...]
    epochs: int
    batch_size: int
    optimizer: str
    learning_rate: float
    momentum: float
    strengths: Mapping[str, float] = field(hash=False)
    scale: Scale
    refresh_every: Refresh
    methods: tuple[str, ...]
    seeds: int
    out: Path

    def __post_init__(self) -> None:
        if self.dataset not in DATASETS:
            raise ConfigError(f"unknown data set {self.dataset!r}; known: {', '.join(DATASETS)}")
        if self.optimizer not in OPTIMIZERS:
            raise ConfigError(f"unknown optimizer {self.optimizer!r}; known: {', '.join(OPTIMIZERS)}")
        if self.scale not in ("vertices", "unit"):
            raise ConfigError(f"unknown scale {self.scale!r}; known: vertices, unit")
        for name in ("epochs", "batch_size", "refresh_every", "seeds"):
            if getattr(self, name) != "auto" and getattr(self, name) < 1:
                raise ConfigError(f"{_option(name)} must be at least 1, got {getattr(self, name)}")
        if self.train_size is not None and self.train_size < 1:
            raise ConfigError(f"--train-size must be at least 1, got {self.train_size}")
        if not self.hidden or min(self.hidden) < 1:
            raise ConfigError(f"--hidden needs positive widths, got {self.hidden}")
        if not (math.isfinite(self.learning_rate) and self.learning_rate > 0):
            raise ConfigError(f"--learning-rate must be positive and finite, got {self.learning_rate}")
        if not 0 <= self.momentum < 1:
            raise ConfigError(f"--momentum must be in [0, 1), got {self.momentum}")
        check_methods(self.methods)
        check_strengths(self.strengths)
        for name in self.methods:
            for regularizer in parse_method(name).regularizers:
                if regularizer not in self.strengths:
                    raise ConfigError(f"method {name!r} needs --strength {regularizer}=VALUE")


def check_methods(names: tuple[str, ...]) -> None:
    """Refuses unknown methods, repeated ones, and a comparison without a baseline."""
    for name in names:
        parse_method(name)
    if len(set(names)) != len(names):
        raise ConfigError(f"--methods names a method twice: {', '.join(names)}")
    if "none" not in names:
        raise ConfigError("--methods must contain 'none': differences are taken to it")


def check_strengths(strengths: Mapping[str, float]) -> None:
    """Refuses strengths of unknown regularizers and values out of range."""
    for name, value in strengths.items():
        if name not in REGULARIZERS:
            raise ConfigError(f"--strength names an unknown regularizer {name!r}; known: {', '.join(REGULARIZERS)}")
        if not math.isfinite(value):
            raise ConfigError(f"--strength {name} must be finite, got {value}")
        if name in ("dropout", "pruning") and not 0 <= value < 1:
            raise ConfigError(f"--strength {name} is a share in [0, 1), got {value}")
        if name in ("l1", "l1-shrinkage", "l2") and value < 0:
            raise ConfigError(f"--strength {name} must not be negative, got {value}")


def _option(name: str) -> str:
    return "--" + {"batch_size": "batch"}.get(name, name).replace("_", "-")
