"""The data sets: scikit-learn's digits, and MNIST from files in IDX format."""

import gzip
import math
import zlib
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np
from sklearn.datasets import load_digits as sklearn_digits
from sklearn.model_selection import train_test_split

from benchmarks._errors import DataError

MNIST_FILES = {
    "train images": "train-images-idx3-ubyte",
    "train labels": "train-labels-idx1-ubyte",
    "test images": "t10k-images-idx3-ubyte",
    "test labels": "t10k-labels-idx1-ubyte",
}
MNIST_MEAN, MNIST_STD = 0.1307, 0.3081
CLASSES = 10
_SPLIT_SEED = 0


class Dataset(NamedTuple):
    """Flat float32 inputs (examples, features) and int32 labels (examples,)."""

    train_inputs: np.ndarray | jax.Array
    train_labels: np.ndarray | jax.Array
    test_inputs: np.ndarray | jax.Array
    test_labels: np.ndarray | jax.Array


def load_dataset(name: str, data_dir: Path | None, train_size: int | None) -> Dataset:
    """Loads a data set by name.

    Args:
        name: ``"digits"`` or ``"mnist"``.
        data_dir: folder of the MNIST files; must be None for digits.
        train_size: number of training examples to keep; None for all.

    Returns:
        The data, scaled, with a fixed training and test part.

    Raises:
        DataError: the files are missing or damaged, or there are too few examples.
    """
    if name == "mnist":
        if data_dir is None:
            raise DataError(
                f"mnist needs --data-dir, a folder with the files {', '.join(MNIST_FILES.values())} (plain or with .gz)"
            )
        data = load_mnist(data_dir)
    else:
        if data_dir is not None:
            raise DataError(f"--data-dir is for mnist; {name} comes with scikit-learn")
        data = load_digits()
    return data if train_size is None else _subset(data, train_size)


def load_digits() -> Dataset:
    """Loads scikit-learn's 8x8 digits, half for training and half for testing.

    Half, because the set has 1797 images only: a fifth of them would resolve test
    accuracy to 0.28 points, more than most regularizers change it.
    """
    inputs, labels = sklearn_digits(return_X_y=True)
    train_rows, test_rows = train_test_split(
        np.arange(len(labels)), test_size=0.5, stratify=labels, random_state=_SPLIT_SEED
    )
    train_inputs, test_inputs = inputs[train_rows], inputs[test_rows]
    mean, std = train_inputs.mean(), train_inputs.std()
    return Dataset(
        ((train_inputs - mean) / std).astype(np.float32),
        labels[train_rows].astype(np.int32),
        ((test_inputs - mean) / std).astype(np.float32),
        labels[test_rows].astype(np.int32),
    )


def load_mnist(folder: Path) -> Dataset:
    """Loads MNIST, or any data in its four files, from a folder.

    Args:
        folder: holds the four IDX files, each plain or compressed as ``.gz``.

    Returns:
        The data, inputs scaled as ``(x / 255 - 0.1307) / 0.3081``.

    Raises:
        DataError: the folder or a file is missing, damaged, or does not fit the rest.
    """
    if not folder.is_dir():
        raise DataError(
            f"data folder {folder} does not exist; --data-dir must name the folder that holds the MNIST files"
        )
    paths = {role: _find_file(folder, stem) for role, stem in MNIST_FILES.items()}
    train_inputs, train_labels = _read_pair(paths["train images"], paths["train labels"])
    test_inputs, test_labels = _read_pair(paths["test images"], paths["test labels"])
    if train_inputs.shape[1:] != test_inputs.shape[1:]:
        raise DataError(
            f"{paths['train images']} has images of shape {train_inputs.shape[1:]}, "
            f"{paths['test images']} of shape {test_inputs.shape[1:]}; "
            "take both from the same data set"
        )
    return Dataset(_scale_mnist(train_inputs), train_labels, _scale_mnist(test_inputs), test_labels)


def read_idx(path: Path, dimensions: int) -> np.ndarray:
    """Reads an IDX file of unsigned bytes.

    Args:
        path: the file; decompressed if its name ends in ``.gz``.
        dimensions: number of array dimensions the file must have.

    Returns:
        The uint8 array.

    Raises:
        DataError: the file cannot be read, has another magic number, or another
            length than its header says.
    """
    content = _read_bytes(path)
    header = 4 + 4 * dimensions
    magic = bytes([0, 0, 0x08, dimensions])
    if content[:4] != magic[: len(content[:4])]:
        raise DataError(
            f"{path} starts with {content[:4].hex()}, not with the IDX magic number "
            f"{magic.hex()}; is it the right file, and its .gz suffix right?"
        )
    if len(content) < header:
        raise DataError(
            f"{path} is truncated: {len(content)} bytes, the header alone has {header}; fetch the file again"
        )
    shape = tuple(int(n) for n in np.frombuffer(content, ">u4", dimensions, offset=4))
    expected, found = math.prod(shape), len(content) - header
    if found != expected:
        fault = "is truncated" if found < expected else "is too long"
        raise DataError(
            f"{path} {fault}: its header announces shape {shape}, {expected} bytes, "
            f"but {found} follow; fetch the file again"
        )
    return np.frombuffer(content, np.uint8, offset=header).reshape(shape)


def _read_bytes(path: Path) -> bytes:
    try:
        content = path.read_bytes()
        return gzip.decompress(content) if path.suffix == ".gz" else content
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise DataError(f"{path} is truncated or not a gzip file ({error}); fetch the file again") from error
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error}") from error


def _find_file(folder: Path, stem: str) -> Path:
    for path in (folder / stem, folder / f"{stem}.gz"):
        if path.is_file():
            return path
    raise DataError(
        f"{folder / stem} is missing (and so is {stem}.gz); put the MNIST file there "
        "or name another folder with --data-dir"
    )


def _read_pair(images_path: Path, labels_path: Path) -> tuple[np.ndarray, np.ndarray]:
    images, labels = read_idx(images_path, 3), read_idx(labels_path, 1)
    if len(images) != len(labels):
        raise DataError(
            f"{images_path} holds {len(images)} images but {labels_path} "
            f"{len(labels)} labels; take both from the same data set"
        )
    if images.size == 0:
        raise DataError(f"{images_path} holds no pixels; fetch the file again")
    if labels.max() >= CLASSES:
        raise DataError(
            f"{labels_path} holds the label {labels.max()}; MNIST has 0 to "
            f"{CLASSES - 1}, so this is another data set's file"
        )
    return images, labels.astype(np.int32)


def _scale_mnist(images: np.ndarray) -> np.ndarray:
    flat = images.reshape(len(images), -1).astype(np.float32)
    return (flat / 255 - MNIST_MEAN) / MNIST_STD


def _subset(data: Dataset, size: int) -> Dataset:
    available = len(data.train_labels)
    if size > available:
        raise DataError(f"--train-size {size} is more than the {available} training examples")
    # A prefix of one fixed order: a smaller subset is part of every larger one.
    rows = np.random.default_rng(_SPLIT_SEED).permutation(available)[:size]
    return data._replace(train_inputs=data.train_inputs[rows], train_labels=data.train_labels[rows])
