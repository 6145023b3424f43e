import hashlib
import io
import os
import pickle
import struct
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks._data import cifar10
from benchmarks._data.cifar10 import CIFAR10_FILES, load_cifar10, read_binary, read_pickle
from benchmarks._data.files import Published
from benchmarks._errors import DataError


def images_and_labels(seed: int, count: int) -> tuple[np.ndarray, list[int]]:
    rng = np.random.default_rng(seed)
    return rng.integers(0, 256, (count, 3072)).astype(np.uint8), rng.integers(0, 10, count).tolist()


def old_pickle(images: np.ndarray, labels: list[int], type_code: bytes = b"u1") -> bytes:
    """A batch as Python 2's cPickle wrote it, opcode by opcode: no Python 3 writes its strings."""

    def string(text: bytes) -> bytes:
        return pickle.SHORT_BINSTRING + bytes([len(text)]) + text

    def integer(number: int) -> bytes:
        return pickle.BININT + struct.pack("<i", number)

    count, pixels = images.shape
    content = images.tobytes()
    array = (
        *(b"cnumpy.core.multiarray\n_reconstruct\n", b"cnumpy\nndarray\n", integer(0), pickle.TUPLE1),
        *(string(b"b"), pickle.TUPLE3, pickle.REDUCE, pickle.MARK),
        *(integer(1), integer(count), integer(pixels), pickle.TUPLE2),
        *(b"cnumpy\ndtype\n", string(type_code), integer(0), integer(1), pickle.TUPLE3, pickle.REDUCE, pickle.MARK),
        *(integer(3), string(b"|"), pickle.NONE * 3, integer(-1), integer(-1), integer(0), pickle.TUPLE, pickle.BUILD),
        *(pickle.NEWFALSE, pickle.BINSTRING, struct.pack("<i", len(content)), content, pickle.TUPLE, pickle.BUILD),
    )
    items = (
        *(string(b"batch_label"), string(b"training batch 1 of 5")),
        *(string(b"labels"), pickle.EMPTY_LIST, pickle.MARK, *map(integer, labels), pickle.APPENDS),
        *(string(b"data"), *array),
    )
    return b"".join((pickle.PROTO, b"\2", pickle.EMPTY_DICT, pickle.MARK, *items, pickle.SETITEMS, pickle.STOP))


def new_pickle(protocol: int) -> Callable[[np.ndarray, list[int]], bytes]:
    """The way to write a batch with this Python and this NumPy."""
    return lambda images, labels: pickle.dumps({b"data": images, b"labels": labels}, protocol)


def binary(images: np.ndarray, labels: list[int]) -> bytes:
    return b"".join(bytes([label]) + image.tobytes() for image, label in zip(images, labels, strict=True))


def write_batches(folder: Path, encode: Callable[[np.ndarray, list[int]], bytes], suffix: str = "") -> Path:
    """Six batches of 3 to 8 images."""
    folder.mkdir(parents=True)
    for seed, name in enumerate(CIFAR10_FILES):
        (folder / f"{name}{suffix}").write_bytes(encode(*images_and_labels(seed, 3 + seed)))
    return folder


@pytest.mark.parametrize(
    ("encode", "suffix"),
    [(old_pickle, ""), *((new_pickle(protocol), "") for protocol in (0, 1, 2, 3, 4)), (binary, ".bin")],
    ids=["Python 2", "0", "1", "2", "3", "4", "binary"],
)
@pytest.mark.parametrize("unpacked", [False, True])
def test_all_versions_hold_the_same_data(tmp_path, encode, suffix, unpacked):
    subfolder = "cifar-10-batches-bin" if suffix else "cifar-10-batches-py"
    write_batches(tmp_path / "data" / (subfolder if unpacked else ""), encode, suffix)
    data = load_cifar10(tmp_path / "data")
    batches = [images_and_labels(seed, 3 + seed) for seed in range(6)]
    images = np.concatenate([images for images, _ in batches])
    centred = images.reshape(-1, 3, 1024) / 255 - np.array([125.3, 123.0, 113.9])[:, None] / 255
    expected = (centred / (np.array([63.0, 62.1, 66.7])[:, None] / 255)).reshape(-1, 3072)
    np.testing.assert_allclose(np.concatenate([data.train_inputs, data.test_inputs]), expected, atol=2e-6)
    np.testing.assert_array_equal(data.train_labels, np.concatenate([labels for _, labels in batches[:5]]))
    np.testing.assert_array_equal(data.test_labels, batches[5][1])
    assert data.train_inputs.shape == (3 + 4 + 5 + 6 + 7, 3072)
    assert data.test_inputs.shape == (8, 3072)
    assert (data.train_inputs.dtype, data.train_labels.dtype, data.classes) == (np.float32, np.int32, 10)


def test_order_of_the_array_is_kept(tmp_path):
    images, labels = images_and_labels(0, 4)
    path = tmp_path / "batch"
    path.write_bytes(new_pickle(2)(np.asfortranarray(images), labels))
    np.testing.assert_array_equal(read_pickle(path).images, images)


@pytest.mark.parametrize("name", ["_core", "core"])
def test_both_names_of_numpys_module_are_known(tmp_path, name):
    content = pickle.dumps({b"data": np.zeros((1, 3072), np.uint8), b"labels": [1]}, 0)
    renamed = content.replace(b"numpy._core.multiarray", f"numpy.{name}.multiarray".encode())
    assert f"numpy.{name}.".encode() in renamed
    (tmp_path / "batch").write_bytes(renamed)
    assert read_pickle(tmp_path / "batch").images.shape == (1, 3072)


class Calls:
    """Pickles as a call of anything."""

    def __init__(self, function: Callable[..., Any], *arguments: Any) -> None:
        self.call = (function, arguments)

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return self.call


@pytest.mark.parametrize(
    ("function", "arguments", "name"),
    [
        (os.system, ("touch {}",), "posix.system"),
        (os.mkdir, ("{}",), "posix.mkdir"),
        (open, ("{}", "w"), "io.open"),
        (exec, ("open({!r}, 'w')",), "builtins.exec"),
        (getattr, ((), "__class__"), "builtins.getattr"),
        (subprocess.getoutput, ("touch {}",), "subprocess.getoutput"),
        (np.memmap, ("{}", "u1", "w+", 0, (1,)), "numpy.memmap"),
        (np.save, ("{}", 1), "numpy.save"),
        (bytearray, (10,), "builtins.bytearray"),
    ],
)
@pytest.mark.parametrize("protocol", [0, 2, 4])
def test_pickles_that_call_are_refused_and_nothing_is_called(tmp_path, function, arguments, name, protocol):
    mark = tmp_path / "called"
    filled = [a.format(str(mark)) if isinstance(a, str) else a for a in arguments]
    path = tmp_path / "data_batch_1"
    path.write_bytes(pickle.dumps({b"data": Calls(function, *filled), b"labels": [1]}, protocol))
    with pytest.raises(DataError, match=f"it refers to .*{name.split('.')[1]}, which a batch does not need") as error:
        read_pickle(path)
    assert str(path) in str(error.value)
    assert not mark.exists()


def test_such_pickles_do_call_without_the_restriction(tmp_path):
    pickle.loads(pickle.dumps(Calls(os.mkdir, str(tmp_path / "called"))))
    assert (tmp_path / "called").is_dir()


@pytest.mark.parametrize(
    "content",
    [
        b"cos\nsystem\n(S'true'\ntR.",
        b"(S'true'\nios\nsystem\n.",
        b"\x80\x04\x8c\x02os\x8c\x06system\x93\x8c\x04true\x85R.",
        b"\x80\x02cnumpy\nndarray\n(I9\ntR.",
        b"\x80\x02c_codecs\nencode\nX\x01\0\0\0aX\x03\0\0\0zip\x86R.",
        b"\x80\x02\x82\x01.",
        b"\x80\x02Pname\n.",
    ],
    ids=["GLOBAL", "INST", "STACK_GLOBAL", "ndarray called", "another encoding", "extension", "persistent"],
)
def test_other_ways_to_call_are_refused(tmp_path, content):
    (tmp_path / "batch").write_bytes(content)
    with pytest.raises(DataError, match="damaged or no pickled CIFAR-10 batch"):
        read_pickle(tmp_path / "batch")


IMAGES, LABELS = images_and_labels(0, 2)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "damaged"),
        (b"<html>not found</html>", "damaged"),
        (old_pickle(IMAGES, LABELS)[:-1], "damaged"),
        (old_pickle(IMAGES, LABELS)[:5000], "damaged"),
        (old_pickle(IMAGES, LABELS, type_code=b"O8"), "type b'O8', not of bytes"),
        (pickle.dumps({b"data": IMAGES.astype(float), b"labels": LABELS}, 2), "type 'f8', not of bytes"),
        (pickle.dumps([1, 2], 2), "no pickled CIFAR-10 batch: it must be a dict"),
        (pickle.dumps({"data": IMAGES, "labels": LABELS}, 2), "it must be a dict with b'data'"),
        (pickle.dumps({b"data": IMAGES}, 2), "it must be a dict with b'data'"),
        (pickle.dumps({b"data": b"bytes", b"labels": LABELS}, 2), "it must be a dict with b'data'"),
        (pickle.dumps({b"data": IMAGES[:, 1:], b"labels": LABELS}, 2), "it must be a dict with b'data'"),
        (pickle.dumps({b"data": IMAGES, b"labels": b"12"}, 2), "it must be a dict with b'data'"),
        (pickle.dumps({b"data": IMAGES, b"labels": [1]}, 2), "2 images but 1 labels"),
        (pickle.dumps({b"data": IMAGES[:0], b"labels": []}, 4), "0 images but 0 labels"),
        (pickle.dumps({b"data": IMAGES, b"labels": [1, b"x"]}, 2), "label of type bytes"),
        (pickle.dumps({b"data": IMAGES, b"labels": [1, 10]}, 2), "label 10; there are 0 to 9"),
        (pickle.dumps({b"data": IMAGES, b"labels": [1, -1]}, 2), "label -1; there are 0 to 9"),
        (pickle.dumps({b"data": IMAGES, b"labels": [1, 2**80]}, 2), f"label {2**80}; there are 0 to 9"),
    ],
)
def test_damaged_pickle_is_refused(tmp_path, content, message):
    path = tmp_path / "data_batch_1"
    path.write_bytes(content)
    with pytest.raises(DataError, match=message) as error:
        read_pickle(path)
    assert str(path) in str(error.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "truncated"),
        (binary(IMAGES, LABELS)[:-1], r"truncated.*6145 bytes.*3073"),
        (binary(IMAGES, LABELS) + b"\0", "truncated"),
        (binary(IMAGES, [1, 10]), "label 10"),
    ],
)
def test_damaged_binary_is_refused(tmp_path, content, message):
    path = tmp_path / "data_batch_1.bin"
    path.write_bytes(content)
    with pytest.raises(DataError, match=message) as error:
        read_binary(path)
    assert str(path) in str(error.value)


@pytest.mark.parametrize("name", ["data_batch_3", "test_batch"])
@pytest.mark.parametrize(("encode", "suffix"), [(old_pickle, ""), (binary, ".bin")])
def test_missing_batch_is_named(tmp_path, name, encode, suffix):
    folder = write_batches(tmp_path / "data", encode, suffix)
    (folder / f"{name}{suffix}").unlink()
    with pytest.raises(DataError, match=f"{name}{suffix} is missing, while 5 of the 6"):
        load_cifar10(folder)


def test_folder_without_batches_is_refused(tmp_path):
    with pytest.raises(DataError, match=r"no CIFAR-10 batches in .*data_batch_1.*--data-dir"):
        load_cifar10(tmp_path)


def test_batch_of_the_published_size_must_be_the_published_one(tmp_path, monkeypatch):
    path = tmp_path / "data_batch_2"
    content = old_pickle(IMAGES, LABELS)
    path.write_bytes(content)
    checksum = hashlib.md5(content, usedforsecurity=False).hexdigest()
    monkeypatch.setattr(cifar10, "CIFAR10_FILES", {"data_batch_2": Published(len(content), checksum)})
    np.testing.assert_array_equal(read_pickle(path).images, IMAGES)
    damaged = bytearray(content)
    damaged[-100] ^= 1
    path.write_bytes(damaged)
    with pytest.raises(DataError, match=f"data_batch_2 has the size of the published .*{checksum}"):
        read_pickle(path)


def test_an_unrestricted_unpickler_agrees():
    # So that the batches above are what other readers of CIFAR-10 read.
    batch = pickle.load(io.BytesIO(old_pickle(IMAGES, LABELS)), encoding="bytes")
    np.testing.assert_array_equal(batch[b"data"], IMAGES)
    assert batch[b"labels"] == LABELS
    assert batch[b"batch_label"] == b"training batch 1 of 5"
