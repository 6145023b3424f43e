"""What a trial learns: examples, a network, and how the two are drawn from a seed."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal, NamedTuple

import numpy as np
from sklearn.model_selection import KFold, StratifiedKFold, train_test_split

from benchmarks._errors import ConfigError, DataError
from benchmarks._methods import Refresh

# Apart from seeds of weights and batches, which are the plain numbers.
_DRAW, _NOISE, _FOLDS, _ORDER = 1, 2, 3, 4


@dataclass(frozen=True)
class Recipe:
    """How a network is trained; the same for every method of a task.

    Attributes:
        hidden: widths of the hidden layers.
        steps: optimizer steps.
        batch_size: examples per step.
        learning_rate: step size, constant over training.
        momentum: heavy-ball momentum.
        refresh_every: steps between two solves of a Fiedler penalty, unless a method has its own.
    """

    hidden: tuple[int, ...]
    steps: int
    batch_size: int
    learning_rate: float
    momentum: float = 0.9
    refresh_every: Refresh = 100

    @property
    def optimizer(self) -> str:
        """Gradient descent, the one of the paper."""
        return "sgd"

    @property
    def scale(self) -> Literal["vertices"]:
        """With one network, another scale would only be another unit of the strength."""
        return "vertices"


class Task(NamedTuple):
    """A problem to learn from few or noisy examples, by a ReLU network of Dense layers; `check_task` says what fits.

    Attributes:
        name: for tables and the store.
        recipe: how its networks are trained.
        inputs: all examples (examples, features), float32.
        targets: their classes (examples,), int32 from 0; or values (examples, outputs), float32, standardized: reports
            give errors in standard deviations.
        pool: numbers of the examples that training examples are drawn from.
        test: numbers of the examples to test on, none of them in `pool`.
        size: training examples in a draw.
        classes: number of classes; None for regression.
        label_noise: share of the training labels replaced by another class.
        shifts: further test inputs by name, the labels those of `test`.
        modules: for each input the number of the module it belongs to, if the truth has modules.
    """

    name: str
    recipe: Recipe
    inputs: np.ndarray
    targets: np.ndarray
    pool: np.ndarray
    test: np.ndarray
    size: int
    classes: int | None = None
    label_noise: float = 0.0
    shifts: Mapping[str, np.ndarray] = MappingProxyType({})
    modules: np.ndarray | None = None

    @property
    def sizes(self) -> tuple[int, ...]:
        """Units of each layer, the inputs first."""
        outputs = self.targets.shape[1] if self.classes is None else self.classes
        return (self.inputs.shape[1], *self.recipe.hidden, outputs)

    @property
    def measure(self) -> Literal["accuracy", "rmse"]:
        """What methods are judged by."""
        return "rmse" if self.classes is None else "accuracy"

    @property
    def sign(self) -> int:
        """1 if more of the measure is better, else -1."""
        return -1 if self.classes is None else 1


class Split(NamedTuple):
    """Examples to train on and to be judged by, and the targets as training sees them."""

    train: np.ndarray
    judged: np.ndarray
    targets: np.ndarray


def draw_split(task: Task, seed: int, fold: int | None, folds: int) -> Split:
    """Draws training examples, and the noise on their labels.

    Args:
        task: the task.
        seed: seed of the draw.
        fold: which part of the draw to be judged by, with its noise, as in cross-validation; None for the test
            examples, which have none.
        folds: number of parts.

    Returns:
        The split; the same draw and noise for every fold.
    """
    rows = _drawn(task, seed)
    targets = task.targets.copy()
    targets[rows] = _noisy(task, targets[rows], seed)
    if fold is None:
        return Split(rows, task.test, targets)
    kind = KFold if task.classes is None else StratifiedKFold
    shuffled = kind(folds, shuffle=True, random_state=_state(seed, _FOLDS))
    train, judged = list(shuffled.split(rows, targets[rows]))[fold]
    return Split(rows[train], rows[judged], targets)


def check_task(task: Task) -> None:
    """Raises DataError unless the arrays of a task fit one another, and no example is both learned from and tested on.

    What does not fit would end far from here, or in numbers that look like a result.
    """
    problem = next(_misfits(task), None)
    if problem:
        raise DataError(f"task {task.name}: {problem}")


def check_split(task: Task, folds: int) -> None:
    """Raises ConfigError unless draws can be parted into so many folds, the rest of which fill a batch."""
    if task.size - math.ceil(task.size / folds) < task.recipe.batch_size:
        raise ConfigError(
            f"task {task.name}: {task.size} training examples in {folds} folds leave less than a batch of "
            f"{task.recipe.batch_size} to train on"
        )
    if task.classes is None:
        return
    try:
        drawn = _drawn(task, 0)
    except ValueError as error:
        raise ConfigError(
            f"task {task.name}: no draw of {task.size} examples keeps the classes' shares: {error}"
        ) from error
    fewest = int(np.unique(task.targets[drawn], return_counts=True)[1].min())
    if fewest < folds:
        raise ConfigError(
            f"--folds {folds} is too many for task {task.name}: one of its classes has {fewest} training examples"
        )


def batch_rows(task: Task, split: Split, seed: int) -> np.ndarray:
    """Example numbers of all batches (steps, batch): epochs one after another, incomplete batches left out."""
    recipe, generator = task.recipe, np.random.default_rng([seed, _ORDER])
    steps_per_epoch = len(split.train) // recipe.batch_size
    epochs = [
        generator.permutation(split.train)[: steps_per_epoch * recipe.batch_size]
        for _ in range(math.ceil(recipe.steps / steps_per_epoch))
    ]
    return np.concatenate(epochs).reshape(-1, recipe.batch_size)[: recipe.steps].astype(np.int32)


def _misfits(task: Task) -> Iterator[str]:
    """What does not fit, in words. Each check relies on those before it."""
    inputs, targets = task.inputs, task.targets
    for name, array in (("inputs", inputs), ("targets", targets), *task.shifts.items()):
        if not isinstance(array, np.ndarray) or array.dtype.kind not in "iuf" or not np.isfinite(array).all():
            yield f"{name} must be a NumPy array of finite numbers"
    if inputs.ndim != 2:
        yield f"inputs must be (examples, features), not {inputs.shape}; flatten those of each example"
    if len(targets) != len(inputs):
        yield f"{len(inputs)} inputs but {len(targets)} targets"
    if task.classes is None and targets.ndim != 2:
        yield f"values to predict must be (examples, outputs), not {targets.shape}; for one output add an axis"
    if task.classes is not None and (targets.ndim != 1 or targets.dtype.kind == "f"):
        yield f"classes must be integers (examples,), not {targets.dtype} {targets.shape}"
    if task.classes is not None and not 0 <= targets.min() <= targets.max() < task.classes:
        yield f"classes must be numbered from 0 to {task.classes - 1}, but go from {targets.min()} to {targets.max()}"
    for name, rows in (("pool", task.pool), ("test", task.test)):
        numbers = isinstance(rows, np.ndarray) and rows.ndim == 1 and rows.dtype.kind in "iu"
        if not numbers or not np.isin(rows, np.arange(len(inputs))).all():
            yield f"{name} must be a NumPy array of numbers of examples, from 0 to {len(inputs) - 1}"
        if len(np.unique(rows)) < len(rows):
            yield f"{name} has an example twice"
    if shared := np.intersect1d(task.pool, task.test).size:
        yield f"{shared} examples are in both pool and test: what is learned by heart would be tested on"
    if not 0 < task.size <= len(task.pool):
        yield f"size is {task.size}, but pool has {len(task.pool)} examples to draw from"
    for name, array in task.shifts.items():
        if array.shape != inputs[task.test].shape:
            yield f"{name} has shape {array.shape}, but the test inputs {inputs[task.test].shape}"
    if task.modules is not None and np.shape(task.modules) != inputs.shape[1:]:
        yield f"modules must have a number for each of the {inputs.shape[1]} features"


def _drawn(task: Task, seed: int) -> np.ndarray:
    if task.size == len(task.pool):
        return task.pool
    labels = None if task.classes is None else task.targets[task.pool]
    drawn, _ = train_test_split(task.pool, train_size=task.size, stratify=labels, random_state=_state(seed, _DRAW))
    return np.asarray(drawn)


def _noisy(task: Task, labels: np.ndarray, seed: int) -> np.ndarray:
    if not task.classes:
        return labels
    generator = np.random.default_rng([seed, _NOISE])
    replaced = generator.permutation(len(labels)) < round(task.label_noise * len(labels))
    others = (labels + generator.integers(1, task.classes, len(labels))) % task.classes
    return np.where(replaced, others, labels).astype(labels.dtype)


def _state(seed: int, purpose: int) -> int:
    return int(np.random.default_rng([seed, purpose]).integers(2**31))
