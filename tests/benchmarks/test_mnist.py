import gzip
import hashlib
import os
from pathlib import Path

import numpy as np
import pytest

from benchmarks._data import load_dataset, mnist
from benchmarks._data.files import Published
from benchmarks._data.mnist import MNIST_FILES, TRAIN_IMAGES, load_mnist, read_idx
from benchmarks._errors import DataError

REAL_MNIST = os.environ.get("FIEDLER_JAX_MNIST")


@pytest.mark.parametrize("suffix", ["", ".gz"])
@pytest.mark.parametrize("shape", [(5,), (4, 3, 2), (2, 300, 1)])
def test_idx_round_trip(tmp_path, idx_bytes, suffix, shape):
    array = np.random.default_rng(0).integers(0, 256, shape).astype(np.uint8)
    path = tmp_path / f"file{suffix}"
    content = idx_bytes(array)
    path.write_bytes(gzip.compress(content) if suffix else content)
    read = read_idx(path, len(shape))
    assert read.dtype == np.uint8
    np.testing.assert_array_equal(read, array)


def _damaged(kind: str, content: bytes) -> bytes:
    return {
        "no content": b"",
        "header cut": content[:9],
        "payload cut": content[:-1],
        "payload too long": content + b"\0",
        "wrong element type": content[:2] + b"\x0d" + content[3:],
        "labels for images": content[:3] + b"\x01" + content[4:],
        "text": b"<html>not found</html>",
    }[kind]


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("no content", "truncated"),
        ("header cut", "truncated"),
        ("payload cut", "truncated"),
        ("payload too long", "too long"),
        ("wrong element type", "magic number"),
        ("labels for images", "magic number"),
        ("text", "magic number"),
    ],
)
@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_damaged_idx_is_refused(tmp_path, idx_bytes, kind, message, suffix):
    content = _damaged(kind, idx_bytes(np.ones((2, 3, 4))))
    path = tmp_path / f"images{suffix}"
    path.write_bytes(gzip.compress(content) if suffix else content)
    with pytest.raises(DataError, match=message) as error:
        read_idx(path, 3)
    assert str(path) in str(error.value)


@pytest.mark.parametrize("cut", [5, 15, 40])
def test_truncated_gzip_is_refused(tmp_path, idx_bytes, cut):
    images = np.random.default_rng(0).integers(0, 256, (4, 8, 8))
    path = tmp_path / "images.gz"
    path.write_bytes(gzip.compress(idx_bytes(images))[:cut])
    with pytest.raises(DataError, match=r"images\.gz is truncated or not a gzip file"):
        read_idx(path, 3)


def test_plain_file_named_gz_is_refused(tmp_path, idx_bytes):
    path = tmp_path / "images.gz"
    path.write_bytes(idx_bytes(np.ones((2, 3, 4))))
    with pytest.raises(DataError, match="not a gzip file"):
        read_idx(path, 3)


def test_corrupt_gzip_is_refused(tmp_path, idx_bytes):
    images = np.random.default_rng(0).integers(0, 256, (4, 8, 8))
    content = bytearray(gzip.compress(idx_bytes(images)))
    content[20:40] = bytes(20)
    path = tmp_path / "images.gz"
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"images\.gz"):
        read_idx(path, 3)


def test_unreadable_file_is_refused(tmp_path):
    with pytest.raises(DataError, match="cannot be read"):
        read_idx(tmp_path, 3)


def test_mnist_is_scaled_and_flat(mnist_folder):
    data = load_mnist(mnist_folder)
    assert data.train_inputs.shape == (60, 9)
    assert data.test_inputs.shape == (30, 9)
    assert data.train_inputs.dtype == np.float32
    assert data.train_labels.dtype == np.int32
    raw = read_idx(mnist_folder / TRAIN_IMAGES, 3)
    np.testing.assert_allclose(data.train_inputs[7, 5], (raw[7, 1, 2] / 255 - 0.1307) / 0.3081, rtol=1e-5)
    np.testing.assert_array_equal(data.test_labels, np.arange(30) % 10)
    assert data.classes == 10


def test_mnist_takes_gz_and_plain_files_together(mnist_folder):
    plain = load_mnist(mnist_folder)
    path = mnist_folder / TRAIN_IMAGES
    Path(f"{path}.gz").write_bytes(gzip.compress(path.read_bytes()))
    path.unlink()
    np.testing.assert_array_equal(load_mnist(mnist_folder).train_inputs, plain.train_inputs)


def test_missing_folder_is_refused(tmp_path):
    with pytest.raises(DataError, match=r"nowhere does not exist.*--data-dir"):
        load_dataset("mnist", tmp_path / "nowhere", None)


@pytest.mark.parametrize("stem", MNIST_FILES)
def test_missing_file_is_named(mnist_folder, stem):
    (mnist_folder / stem).unlink()
    with pytest.raises(DataError, match=f"{stem} is missing"):
        load_mnist(mnist_folder)


@pytest.mark.parametrize(
    ("stem", "array", "message"),
    [
        ("train-labels-idx1-ubyte", np.zeros(59), "60 images .* 59 labels"),
        ("t10k-labels-idx1-ubyte", np.full(30, 10), "label 10"),
        ("t10k-images-idx3-ubyte", np.zeros((30, 4, 4)), r"shape \(3, 3\).*shape \(4, 4\)"),
    ],
)
def test_files_that_do_not_fit_are_refused(mnist_folder, idx_bytes, stem, array, message):
    (mnist_folder / stem).write_bytes(idx_bytes(array))
    with pytest.raises(DataError, match=message) as error:
        load_mnist(mnist_folder)
    assert stem in str(error.value)


def test_empty_data_is_refused(mnist_folder, idx_bytes):
    (mnist_folder / "train-images-idx3-ubyte").write_bytes(idx_bytes(np.zeros((0, 3, 3))))
    (mnist_folder / "train-labels-idx1-ubyte").write_bytes(idx_bytes(np.zeros(0)))
    with pytest.raises(DataError, match="no pixels"):
        load_mnist(mnist_folder)


@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_file_of_the_published_size_must_be_the_published_one(mnist_folder, idx_bytes, suffix):
    (mnist_folder / "t10k-labels-idx1-ubyte").unlink()
    path = mnist_folder / f"t10k-labels-idx1-ubyte{suffix}"
    content = idx_bytes(np.zeros(10_000))
    path.write_bytes(gzip.compress(content) if suffix else content)
    with pytest.raises(
        DataError, match=r"published file but another content.*27ae3e4e09519cfbb04c329615203637"
    ) as error:
        load_mnist(mnist_folder)
    assert str(path) in str(error.value)


def test_file_of_the_published_size_and_content_is_taken(mnist_folder, monkeypatch):
    content = (mnist_folder / TRAIN_IMAGES).read_bytes()
    published = Published(len(content), hashlib.md5(content, usedforsecurity=False).hexdigest())
    monkeypatch.setattr(mnist, "MNIST_FILES", {**MNIST_FILES, TRAIN_IMAGES: published})
    assert len(load_mnist(mnist_folder).train_inputs) == 60


@pytest.mark.skipif(REAL_MNIST is None, reason="FIEDLER_JAX_MNIST names no MNIST folder")
def test_real_mnist():
    data = load_mnist(Path(REAL_MNIST or ""))
    assert data.train_inputs.shape == (60000, 784)
    assert data.test_inputs.shape == (10000, 784)
    assert np.bincount(data.train_labels)[[0, 1, 9]].tolist() == [5923, 6742, 5949]
    assert np.bincount(data.test_labels)[[0, 1, 9]].tolist() == [980, 1135, 1009]
    assert abs(data.train_inputs.mean()) < 1e-3
    assert abs(data.train_inputs.std() - 1) < 1e-3
