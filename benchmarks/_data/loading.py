"""A data set by its name."""

from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

import numpy as np

from benchmarks._data.cifar10 import load_cifar10
from benchmarks._data.dataset import Dataset
from benchmarks._data.digits import load_digits
from benchmarks._data.mnist import MNIST_FILES, load_mnist
from benchmarks._data.tcga import load_tcga
from benchmarks._errors import DataError

_SUBSET_SEED = 0


class _Source(NamedTuple):
    load: Callable[[Path], Dataset]
    files: str


_FROM_FILES: Mapping[str, _Source] = MappingProxyType(
    {
        "mnist": _Source(load_mnist, f"the files {', '.join(MNIST_FILES)} (plain or with .gz)"),
        "cifar10": _Source(
            load_cifar10,
            "the files data_batch_1 to data_batch_5 and test_batch (the Python version) or the same with .bin (the "
            "binary version), or the folder unpacked with them in it",
        ),
        "tcga": _Source(load_tcga, "the files data.csv and labels.csv"),
    }
)


def load_dataset(name: str, data_dir: Path | None, train_size: int | None) -> Dataset:
    """Loads a data set by name.

    Args:
        name: ``"digits"``, ``"mnist"``, ``"cifar10"`` or ``"tcga"``.
        data_dir: folder of the files; must be None for digits.
        train_size: number of training examples to keep; None for all.

    Returns:
        The data, scaled as is usual for the set, with a fixed training and test part.

    Raises:
        DataError: the files are missing or damaged, or there are too few examples.
    """
    data = _load_files(name, data_dir) if name in _FROM_FILES else _load_bundled(name, data_dir)
    return data if train_size is None else _subset(data, train_size)


def _load_files(name: str, data_dir: Path | None) -> Dataset:
    source = _FROM_FILES[name]
    if data_dir is None:
        raise DataError(f"{name} needs --data-dir, a folder with {source.files}")
    if not data_dir.is_dir():
        raise DataError(f"data folder {data_dir} does not exist; --data-dir must name a folder with {source.files}")
    return source.load(data_dir)


def _load_bundled(name: str, data_dir: Path | None) -> Dataset:
    if data_dir is not None:
        raise DataError(f"--data-dir is for {', '.join(_FROM_FILES)}; {name} comes with scikit-learn")
    return load_digits()


def _subset(data: Dataset, size: int) -> Dataset:
    available = len(data.train_labels)
    if size > available:
        raise DataError(f"{size} training examples are asked for, and there are {available}")
    # A prefix of one fixed order: a smaller subset is part of every larger one.
    rows = np.random.default_rng(_SUBSET_SEED).permutation(available)[:size]
    return data._replace(train_inputs=data.train_inputs[rows], train_labels=data.train_labels[rows])
