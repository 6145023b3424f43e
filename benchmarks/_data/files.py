"""What the loaders of files ask of every file."""

import gzip
import hashlib
import zlib
from pathlib import Path
from typing import NamedTuple

import numpy as np

from benchmarks._errors import DataError


class Published(NamedTuple):
    """Size in bytes and MD5 of a file as its authors published it, decompressed."""

    size: int
    md5: str


def read_bytes(path: Path) -> bytes:
    """The content of a file, decompressed if its name ends in ``.gz``.

    Raises:
        DataError: it cannot be read or decompressed.
    """
    try:
        content = path.read_bytes()
        return gzip.decompress(content) if path.suffix == ".gz" else content
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise DataError(f"{path} is truncated or not a gzip file ({error}); fetch the file again") from error
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error}") from error


def check_published(path: Path, content: bytes, published: Published) -> None:
    """Refuses a file of the published one's size but not its content; own data of another size passes.

    Raises:
        DataError: the checksums differ.
    """
    if len(content) != published.size:
        return
    found = hashlib.md5(content, usedforsecurity=False).hexdigest()
    if found != published.md5:
        raise DataError(
            f"{path} has the size of the published file but another content: MD5 {found}, not {published.md5}; "
            "it is damaged, or another data set's: fetch the file again"
        )


def check_labels(path: Path, labels: np.ndarray, classes: int) -> None:
    """Refuses labels that are not among ``0, ..., classes - 1``.

    Raises:
        DataError: it names the first wrong one.
    """
    wrong = labels[(labels < 0) | (labels >= classes)]
    if wrong.size:
        raise DataError(
            f"{path} holds the label {wrong[0]}; there are 0 to {classes - 1}, so this is another data set's file"
        )
