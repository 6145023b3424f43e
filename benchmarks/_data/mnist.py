"""MNIST from its four files in IDX format."""

import math
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

import numpy as np

from benchmarks._data.dataset import Dataset
from benchmarks._data.files import Published, check_labels, check_published, read_bytes
from benchmarks._errors import DataError

TRAIN_IMAGES, TRAIN_LABELS = "train-images-idx3-ubyte", "train-labels-idx1-ubyte"
TEST_IMAGES, TEST_LABELS = "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"

# Of the content, not of the .gz files: those have been compressed anew by several who hand them on.
MNIST_FILES: Mapping[str, Published] = MappingProxyType(
    {
        TRAIN_IMAGES: Published(47_040_016, "6bbc9ace898e44ae57da46a324031adb"),
        TRAIN_LABELS: Published(60_008, "a25bea736e30d166cdddb491f175f624"),
        TEST_IMAGES: Published(7_840_016, "2646ac647ad5339dbf082846283269ea"),
        TEST_LABELS: Published(10_008, "27ae3e4e09519cfbb04c329615203637"),
    }
)
_MEAN, _STD = 0.1307, 0.3081
_CLASSES = 10


def load_mnist(folder: Path) -> Dataset:
    """Loads MNIST, or data of other sizes in its four files, from a folder.

    Args:
        folder: holds the four IDX files, each plain or compressed as ``.gz``.

    Returns:
        The data, inputs scaled as ``(x / 255 - 0.1307) / 0.3081``.

    Raises:
        DataError: a file is missing, damaged, or does not fit the rest.
    """
    paths = {stem: _find_file(folder, stem) for stem in MNIST_FILES}
    train_inputs, train_labels = _read_pair(paths, TRAIN_IMAGES, TRAIN_LABELS)
    test_inputs, test_labels = _read_pair(paths, TEST_IMAGES, TEST_LABELS)
    if train_inputs.shape[1:] != test_inputs.shape[1:]:
        raise DataError(
            f"{paths[TRAIN_IMAGES]} has images of shape {train_inputs.shape[1:]}, "
            f"{paths[TEST_IMAGES]} of shape {test_inputs.shape[1:]}; "
            "take both from the same data set"
        )
    return Dataset(_scaled(train_inputs), train_labels, _scaled(test_inputs), test_labels, _CLASSES)


def read_idx(path: Path, dimensions: int, published: Published | None = None) -> np.ndarray:
    """Reads an IDX file of unsigned bytes.

    Args:
        path: the file; decompressed if its name ends in ``.gz``.
        dimensions: number of array dimensions the file must have.
        published: the content the file must have if it has that size.

    Returns:
        The uint8 array.

    Raises:
        DataError: the file cannot be read, has another magic number, another length than its header says, or not
            the published content.
    """
    content = read_bytes(path)
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
    if published:
        check_published(path, content, published)
    return np.frombuffer(content, np.uint8, offset=header).reshape(shape)


def _find_file(folder: Path, stem: str) -> Path:
    for path in (folder / stem, folder / f"{stem}.gz"):
        if path.is_file():
            return path
    raise DataError(
        f"{folder / stem} is missing (and so is {stem}.gz); put the MNIST file there "
        "or name another folder with --data-dir"
    )


def _read_pair(paths: Mapping[str, Path], images_stem: str, labels_stem: str) -> tuple[np.ndarray, np.ndarray]:
    images_path, labels_path = paths[images_stem], paths[labels_stem]
    images = read_idx(images_path, 3, MNIST_FILES[images_stem])
    labels = read_idx(labels_path, 1, MNIST_FILES[labels_stem])
    if len(images) != len(labels):
        raise DataError(
            f"{images_path} holds {len(images)} images but {labels_path} "
            f"{len(labels)} labels; take both from the same data set"
        )
    if images.size == 0:
        raise DataError(f"{images_path} holds no pixels; fetch the file again")
    check_labels(labels_path, labels, _CLASSES)
    return images, labels.astype(np.int32)


def _scaled(images: np.ndarray) -> np.ndarray:
    flat = images.reshape(len(images), -1).astype(np.float32)
    return (flat / 255 - _MEAN) / _STD
