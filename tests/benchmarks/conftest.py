"""Small configurations and data for the tests of the benchmarks."""

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from stepping import dense_by_default

from benchmarks._config import CompareConfig
from benchmarks._data import Dataset
from benchmarks._data.cifar10 import CIFAR10_FILES
from benchmarks.compare import build_parser, config_from_arguments


@pytest.fixture(scope="module")
def dense_solver() -> Iterator[None]:
    """The benchmarks solve densely from here to the end of the module, which is not about the solver."""
    with dense_by_default():
        yield


@pytest.fixture(scope="session")
def make_config() -> Callable[..., CompareConfig]:
    """Builds a small configuration from command-line options."""

    def make(*options: str) -> CompareConfig:
        small = ("--hidden", "7,5", "--epochs", "2", "--batch", "16", "--seeds", "1", "--refresh-every", "3")
        return config_from_arguments(build_parser().parse_args([*small, *options]))

    return make


@pytest.fixture(scope="session")
def small_data() -> Dataset:
    """Ten blurred clusters in nine dimensions, 70 examples to train on and 40 to test on."""
    rng = np.random.default_rng(3)
    labels = np.arange(110, dtype=np.int32) % 10
    inputs = rng.normal(size=(10, 9))[labels] + 0.3 * rng.normal(size=(110, 9))
    inputs = inputs.astype(np.float32)
    return Dataset(inputs[:70], labels[:70], inputs[70:], labels[70:], classes=10)


@pytest.fixture(scope="session")
def idx_bytes() -> Callable[[np.ndarray], bytes]:
    """Encodes a uint8 array in IDX format, written from the format's description."""

    def encode(array: np.ndarray) -> bytes:
        header = bytes([0, 0, 8, array.ndim])
        sizes = b"".join(size.to_bytes(4, "big") for size in array.shape)
        return header + sizes + array.astype(np.uint8).tobytes()

    return encode


@pytest.fixture
def mnist_folder(tmp_path: Path, idx_bytes: Callable[[np.ndarray], bytes]) -> Path:
    """A folder like MNIST's, with 60 and 30 images of 3 by 3 pixels."""
    rng = np.random.default_rng(5)
    folder = tmp_path / "mnist"
    folder.mkdir()
    for prefix, count in (("train", 60), ("t10k", 30)):
        images = rng.integers(0, 256, (count, 3, 3))
        (folder / f"{prefix}-images-idx3-ubyte").write_bytes(idx_bytes(images))
        (folder / f"{prefix}-labels-idx1-ubyte").write_bytes(idx_bytes(np.arange(count) % 10))
    return folder


@pytest.fixture
def cifar10_folder(tmp_path: Path) -> Path:
    """A folder like CIFAR-10's binary version, with 5 times 12 images to train on and 12 to test on."""
    rng = np.random.default_rng(6)
    folder = tmp_path / "cifar10"
    folder.mkdir()
    for name in CIFAR10_FILES:
        records = [bytes([i % 10]) + rng.bytes(3072) for i in range(12)]
        (folder / f"{name}.bin").write_bytes(b"".join(records))
    return folder


@pytest.fixture
def tcga_folder(tmp_path: Path) -> Path:
    """A folder like TCGA's, with 620 samples of 4 genes, of five kinds."""
    rng = np.random.default_rng(7)
    folder = tmp_path / "tcga"
    folder.mkdir()
    rows = [f"sample_{i},{','.join(f'{value:.6f}' for value in rng.gamma(2.0, 3.0, 4))}\n" for i in range(620)]
    (folder / "data.csv").write_text("".join([",gene_0,gene_1,gene_2,gene_3\n", *rows]))
    kinds = ("PRAD", "LUAD", "BRCA", "KIRC", "COAD")
    labels = [f"sample_{i},{kinds[i % 5]}\n" for i in range(620)]
    (folder / "labels.csv").write_text("".join([",Class\n", *labels]))
    return folder
