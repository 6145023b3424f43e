"""CIFAR-10 from its batches, in the Python version (pickles) or the binary one."""

import io
import pickle
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np

from benchmarks._data.dataset import Dataset
from benchmarks._data.files import Published, check_labels, check_published, read_bytes
from benchmarks._errors import DataError

# Of the Python version.
CIFAR10_FILES: Mapping[str, Published] = MappingProxyType(
    {
        "data_batch_1": Published(31_035_704, "c99cafc152244af753f735de768cd75f"),
        "data_batch_2": Published(31_035_320, "d4bba439e000b95fd0a9bffe97cbabec"),
        "data_batch_3": Published(31_035_999, "54ebc095f3ab1f0389bbae665268c751"),
        "data_batch_4": Published(31_035_696, "634d18415352ddfa80567beed471001a"),
        "data_batch_5": Published(31_035_623, "482c414d41f54cd18b22e5b47cb7c3cb"),
        "test_batch": Published(31_035_526, "40351d587109b95175f43aff81a1287e"),
    }
)
_CLASSES = 10
_CHANNELS, _CHANNEL_PIXELS = 3, 32 * 32
_PIXELS = _CHANNELS * _CHANNEL_PIXELS
_MEAN = np.array([125.3, 123.0, 113.9], np.float32)[:, None] / 255
_STD = np.array([63.0, 62.1, 66.7], np.float32)[:, None] / 255


class Batch(NamedTuple):
    """Images (examples, 3072) as bytes, one channel after the other, and their labels."""

    images: np.ndarray
    labels: np.ndarray


class _Version(NamedTuple):
    folder: str
    suffix: str
    read: Callable[[Path], Batch]


def load_cifar10(folder: Path) -> Dataset:
    """Loads CIFAR-10, or data of other sizes in its six batches, from a folder.

    Args:
        folder: holds the batches, or the folder they are unpacked in: ``cifar-10-batches-py`` or
            ``cifar-10-batches-bin``.

    Returns:
        The data; of ``x / 255`` each channel is centred and scaled by fixed numbers.

    Raises:
        DataError: a file is missing, damaged, or more than plain data.
    """
    paths, read = _find_batches(folder)
    *train, test = [read(path) for path in paths]
    return Dataset(
        _scaled([batch.images for batch in train]),
        np.concatenate([batch.labels for batch in train]),
        _scaled([test.images]),
        test.labels,
        _CLASSES,
    )


def read_binary(path: Path) -> Batch:
    """Reads a batch of the binary version: a byte for the label before each image.

    Raises:
        DataError: the file cannot be read, is no whole number of examples, or has a wrong label.
    """
    content = read_bytes(path)
    if not content or len(content) % (1 + _PIXELS):
        raise DataError(
            f"{path} is truncated or no binary CIFAR-10 batch: {len(content)} bytes are not a whole number of "
            f"examples of {1 + _PIXELS}; fetch the file again"
        )
    records = np.frombuffer(content, np.uint8).reshape(-1, 1 + _PIXELS)
    return _checked(path, records[:, 1:], records[:, 0])


def read_pickle(path: Path) -> Batch:
    """Reads a batch of the Python version; nothing that it names is imported or called.

    Raises:
        DataError: the file cannot be read, refers to anything but an array of bytes, or is no batch of images.
    """
    content = read_bytes(path)
    if path.name in CIFAR10_FILES:
        check_published(path, content, CIFAR10_FILES[path.name])
    try:
        batch = _BatchUnpickler(io.BytesIO(content), encoding="bytes").load()
    # A crafted or damaged pickle can make the unpickler fail in any way.
    except Exception as error:
        raise DataError(
            f"{path} is damaged or no pickled CIFAR-10 batch ({type(error).__name__}: {error}); fetch the file again"
        ) from error
    array, labels = (batch.get(b"data"), batch.get(b"labels")) if isinstance(batch, dict) else (None, None)
    images = array.values if isinstance(array, _Array) else None
    if images is None or images.shape[1:] != (_PIXELS,) or not isinstance(labels, list):
        raise DataError(
            f"{path} is no pickled CIFAR-10 batch: it must be a dict with b'data', bytes of shape (examples, "
            f"{_PIXELS}), and b'labels', a list; fetch the file again"
        )
    if len(labels) != len(images) or not labels:
        raise DataError(f"{path} holds {len(images)} images but {len(labels)} labels; fetch the file again")
    if wrong := [label for label in labels if type(label) is not int]:
        raise DataError(f"{path} holds a label of type {type(wrong[0]).__name__}, not int; fetch the file again")
    return _checked(path, images, np.array(labels))


class _Array:
    """Takes the place of a NumPy array of bytes while it is unpickled: NumPy's own code trusts its input."""

    def __init__(self, *_: Any) -> None:
        self.values: np.ndarray | None = None

    def __setstate__(self, state: Any) -> None:
        _, shape, dtype, fortran_order, content = state
        if not isinstance(dtype, _ByteType):
            raise pickle.UnpicklingError("an array without a type")
        self.values = np.frombuffer(content, np.uint8).reshape(shape, order="F" if fortran_order else "C")


class _ByteType:
    """Takes the place of the type of an array of bytes."""

    def __init__(self, code: Any, *_: Any) -> None:
        if code not in (b"u1", "u1"):
            raise pickle.UnpicklingError(f"an array of type {code!r}, not of bytes")

    def __setstate__(self, state: Any) -> None:
        # It tells the byte order, which single bytes have none of.
        del state


def _encode(text: str, encoding: str | bytes) -> bytes:
    """The way a newer Python writes bytes for an older one."""
    if encoding not in ("latin1", b"latin1"):
        raise pickle.UnpicklingError(f"bytes encoded as {encoding!r}")
    return text.encode("latin1")


class _BatchUnpickler(pickle.Unpickler):
    """Knows only what a batch needs, by names of its own, so that a pickle can make it call nothing else."""

    _KNOWN: Mapping[tuple[str, str], Any] = MappingProxyType(
        {
            ("numpy.core.multiarray", "_reconstruct"): _Array,
            ("numpy._core.multiarray", "_reconstruct"): _Array,
            ("numpy", "ndarray"): None,
            ("numpy", "dtype"): _ByteType,
            ("_codecs", "encode"): _encode,
        }
    )

    def find_class(self, module: str, name: str) -> Any:
        """What stands for a name in the pickle."""
        if (module, name) not in self._KNOWN:
            raise pickle.UnpicklingError(f"it refers to {module}.{name}, which a batch does not need")
        return self._KNOWN[module, name]


_VERSIONS = (
    _Version("cifar-10-batches-py", "", read_pickle),
    _Version("cifar-10-batches-bin", ".bin", read_binary),
)


def _find_batches(folder: Path) -> tuple[list[Path], Callable[[Path], Batch]]:
    """The paths of all batches, the test batch last, and how to read them."""
    places = [(version, place) for version in _VERSIONS for place in (folder, folder / version.folder)]
    for version, place in places:
        paths = [place / f"{name}{version.suffix}" for name in CIFAR10_FILES]
        missing = [path for path in paths if not path.is_file()]
        if not missing:
            return paths, version.read
        if len(missing) < len(paths):
            raise DataError(
                f"{missing[0]} is missing, while {len(paths) - len(missing)} of the {len(paths)} CIFAR-10 batches are "
                "there; put it there too"
            )
    raise DataError(
        f"there are no CIFAR-10 batches in {folder}, neither {', '.join(CIFAR10_FILES)} nor the same with .bin; "
        "unpack the archive there or name another folder with --data-dir"
    )


def _checked(path: Path, images: np.ndarray, labels: np.ndarray) -> Batch:
    check_labels(path, labels, _CLASSES)
    return Batch(images, labels.astype(np.int32))


def _scaled(batches: Sequence[np.ndarray]) -> np.ndarray:
    # In place: the whole training set takes 600 MB.
    scaled = np.concatenate(batches, dtype=np.float32).reshape(-1, _CHANNELS, _CHANNEL_PIXELS)
    scaled /= 255
    scaled -= _MEAN
    scaled /= _STD
    return scaled.reshape(-1, _PIXELS)
