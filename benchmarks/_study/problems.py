"""The tasks by name: small samples, noisy labels, modular truth, regression, shifted test images."""

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType

import numpy as np
from scipy import ndimage
from sklearn.datasets import load_diabetes
from sklearn.model_selection import train_test_split

from benchmarks._data import load_dataset
from benchmarks._errors import ConfigError, DataError
from benchmarks._study.task import Recipe, Task, check_task

_DIGITS = Recipe(hidden=(128, 64), steps=800, batch_size=32, learning_rate=0.05)
_MNIST = Recipe(hidden=(100, 100), steps=1000, batch_size=50, learning_rate=0.05)
_REGRESSION = Recipe(hidden=(64, 64), steps=1000, batch_size=32, learning_rate=0.01)
_MNIST_POOL = 10_000
_MODULES, _INPUTS_OF_MODULE, _OUTPUTS_OF_MODULE = 2, 20, 2
_TEACHER_HIDDEN, _TEACHER_NOISE = 8, 0.3
_TEACHER_POOL, _TEACHER_TEST = 5000, 5000
_IMAGE = (28, 28)
_SEED = 0


def make_task(name: str, data_dir: Path | None) -> Task:
    """Builds a task.

    Args:
        name: a key of ``TASKS``.
        data_dir: folder of the MNIST files, for tasks of MNIST.

    Returns:
        The task.

    Raises:
        ConfigError: the name is unknown.
        DataError: files are missing or damaged, or the arrays of the task do not fit.
    """
    if name not in TASKS:
        raise ConfigError(f"unknown task {name!r}; known: {', '.join(TASKS)}")
    task = TASKS[name](name, data_dir)._replace(name=name)
    check_task(task)
    return task


def _digits(size: int | None = None, noise: float = 0.0) -> Callable[[str, Path | None], Task]:
    def make(name: str, data_dir: Path | None) -> Task:
        del data_dir
        data = load_dataset("digits", None, None)
        inputs = np.concatenate([data.train_inputs, data.test_inputs])
        targets = np.concatenate([data.train_labels, data.test_labels])
        pool, test = _numbers(len(data.train_labels), len(data.test_labels))
        return Task(
            name, _DIGITS, inputs, targets, pool, test, size or len(pool), classes=data.classes, label_noise=noise
        )

    return make


def _mnist(size: int) -> Callable[[str, Path | None], Task]:
    def make(name: str, data_dir: Path | None) -> Task:
        data = load_dataset("mnist", data_dir, _MNIST_POOL)
        if data.train_inputs.shape[1] != math.prod(_IMAGE):
            raise DataError(f"task {name} needs images of 28 x 28 pixels, and these have {data.train_inputs.shape[1]}")
        inputs = np.concatenate([data.train_inputs, data.test_inputs])
        targets = np.concatenate([data.train_labels, data.test_labels])
        pool, test = _numbers(len(data.train_labels), len(data.test_labels))
        shifts = shifted_images(np.asarray(data.test_inputs))
        return Task(name, _MNIST, inputs, targets, pool, test, size, classes=data.classes, shifts=shifts)

    return make


def shifted_images(images: np.ndarray) -> dict[str, np.ndarray]:
    """Test images as they were not seen in training.

    Args:
        images: standardized images (examples, 784).

    Returns:
        By name: Gaussian noise of one standard deviation of all pixels, a Gaussian blur of 1.5 pixels, rotations by 30
        degrees to either side in turn, and a patch of 10 x 10 pixels left as background at a random place.
    """
    generator = np.random.default_rng(_SEED)
    square = images.reshape(-1, *_IMAGE)
    background = float(square.min())
    rotated = np.empty_like(square)
    for first, angle in enumerate((30, -30)):
        rotated[first::2] = ndimage.rotate(
            square[first::2], angle, axes=(2, 1), reshape=False, order=1, cval=background
        )
    occluded = square.copy()
    corners = generator.integers(0, _IMAGE[0] - 10, (len(square), 2))
    for image, (row, column) in zip(occluded, corners, strict=True):
        image[row : row + 10, column : column + 10] = background
    found = {
        "noise": square + generator.normal(size=square.shape),
        "blur": ndimage.gaussian_filter(square, (0, 1.5, 1.5), mode="nearest"),
        "rotation": rotated,
        "occlusion": occluded,
    }
    return {name: array.reshape(len(array), -1).astype(np.float32) for name, array in found.items()}


def _modular(size: int) -> Callable[[str, Path | None], Task]:
    """Outputs of which each half depends on one half of the inputs, by a network of its own."""

    def make(name: str, data_dir: Path | None) -> Task:
        del data_dir
        generator = np.random.default_rng(_SEED)
        examples = _TEACHER_POOL + _TEACHER_TEST
        inputs = generator.standard_normal((examples, _MODULES * _INPUTS_OF_MODULE))
        values = [_taught(part, generator) for part in np.split(inputs, _MODULES, axis=1)]
        targets = np.concatenate(values, axis=1)
        pool, test = _numbers(_TEACHER_POOL, _TEACHER_TEST)
        targets = (targets - targets[pool].mean(axis=0)) / targets[pool].std(axis=0)
        # What is tested is what there was to learn, not the noise.
        targets[pool] += _TEACHER_NOISE * generator.standard_normal(targets[pool].shape)
        modules = np.repeat(np.arange(_MODULES), _INPUTS_OF_MODULE)
        return Task(
            name,
            _REGRESSION,
            inputs.astype(np.float32),
            targets.astype(np.float32),
            pool,
            test,
            size,
            modules=modules,
        )

    return make


def _taught(inputs: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    first = generator.standard_normal((inputs.shape[1], _TEACHER_HIDDEN)) * (2 / inputs.shape[1]) ** 0.5
    second = generator.standard_normal((_TEACHER_HIDDEN, _OUTPUTS_OF_MODULE))
    return np.maximum(inputs @ first, 0) @ second


def _diabetes(name: str, data_dir: Path | None) -> Task:
    del data_dir
    inputs, values = load_diabetes(return_X_y=True)
    pool, test = map(np.asarray, train_test_split(np.arange(len(values)), test_size=0.5, random_state=_SEED))
    inputs = (inputs - inputs[pool].mean(axis=0)) / inputs[pool].std(axis=0)
    values = (values - values[pool].mean()) / values[pool].std()
    return Task(name, _REGRESSION, inputs.astype(np.float32), values.astype(np.float32)[:, None], pool, test, len(pool))


def _numbers(pool: int, test: int) -> tuple[np.ndarray, np.ndarray]:
    return np.arange(pool), np.arange(pool, pool + test)


TASKS: Mapping[str, Callable[[str, Path | None], Task]] = MappingProxyType(
    {
        "digits": _digits(),
        "digits-100": _digits(100),
        "digits-200": _digits(200),
        "digits-400": _digits(400),
        "digits-noise-20": _digits(noise=0.2),
        "digits-noise-40": _digits(noise=0.4),
        "digits-noise-60": _digits(noise=0.6),
        "mnist-100": _mnist(100),
        "mnist-500": _mnist(500),
        "mnist-2000": _mnist(2000),
        "modular-200": _modular(200),
        "modular-1000": _modular(1000),
        "diabetes": _diabetes,
    }
)
