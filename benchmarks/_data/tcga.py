"""TCGA PANCAN: gene expression of tumours of five kinds, from the two CSV files of the UCI repository."""

import contextlib
import math
import os
import tempfile
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from benchmarks._data.dataset import Dataset
from benchmarks._errors import DataError

# The first rows, as in the experiments of Tam and Dunson.
_TRAIN_ROWS = 600
_CLASSES = 5
_CACHE_VERSION = 1


class _Table(NamedTuple):
    """Rows of data.csv: names of the samples and float32 values (samples, genes)."""

    samples: Sequence[str]
    values: np.ndarray


class _Labels(NamedTuple):
    samples: Sequence[str]
    classes: Sequence[str]


def load_tcga(folder: Path) -> Dataset:
    """Loads TCGA PANCAN from a folder, the first 600 samples for training and the others for testing.

    Parsing takes seconds, so the values are kept beside ``data.csv`` where the folder can be written.

    Args:
        folder: holds ``data.csv`` and ``labels.csv``.

    Returns:
        The data, not scaled; classes are numbered in the order of their names.

    Raises:
        DataError: a file is missing, damaged, or does not fit the other.
    """
    data_path, labels_path = folder / "data.csv", folder / "labels.csv"
    for path in (data_path, labels_path):
        if not path.is_file():
            raise DataError(f"{path} is missing; put the TCGA file there or name another folder with --data-dir")
    labels = _read_labels(labels_path)
    names = sorted(set(labels.classes))
    if len(labels.samples) <= _TRAIN_ROWS:
        raise DataError(
            f"{labels_path} holds {len(labels.samples)} samples; the first {_TRAIN_ROWS} are for training and the "
            f"others for testing, so there must be at least {_TRAIN_ROWS + 1}"
        )
    if len(names) != _CLASSES:
        raise DataError(f"{labels_path} holds {len(names)} classes ({', '.join(names)}), not {_CLASSES}")
    table = _read_table(data_path, len(labels.samples))
    _check_samples(data_path, table.samples, labels_path, labels.samples)
    numbers = np.array([names.index(name) for name in labels.classes], np.int32)
    return Dataset(
        table.values[:_TRAIN_ROWS],
        numbers[:_TRAIN_ROWS],
        table.values[_TRAIN_ROWS:],
        numbers[_TRAIN_ROWS:],
        _CLASSES,
    )


def _read_labels(path: Path) -> _Labels:
    rows = _rows(path)
    if _header(path, rows) != ["", "Class"]:
        raise DataError(f"{path}, line 1: the header must be ',Class'; is it the right file?")
    samples, classes = [], []
    for number, fields in rows:
        if len(fields) != 2 or not all(fields):
            raise DataError(f"{path}, line {number}: {','.join(fields)!r} is not of the form sample,class")
        samples.append(fields[0])
        classes.append(fields[1])
    return _Labels(samples, classes)


def _read_table(path: Path, samples: int) -> _Table:
    """The table in data.csv, from its cache if that is of this very file."""
    cache, stamp = path.with_name(f"{path.name}.npz"), _stamp(path)
    table = _read_cache(cache, stamp)
    if table is None:
        table = _parse_table(path, samples)
        # Without a cache, as in a folder that is read-only, the next run parses again.
        with contextlib.suppress(OSError):
            _write_cache(cache, stamp, table)
    return table


def _parse_table(path: Path, samples: int) -> _Table:
    rows = _rows(path)
    header = _header(path, rows)
    if header[0] or len(header) < 2:
        raise DataError(f"{path}, line 1: the header must be an empty field and the genes; is it the right file?")
    names = []
    values = np.empty((samples, len(header) - 1), np.float32)
    for number, fields in rows:
        if len(fields) != len(header):
            raise DataError(f"{path}, line {number}: {len(fields)} columns, the header has {len(header)}")
        if len(names) == samples:
            raise DataError(f"{path}, line {number}: there are labels for {samples} samples only")
        with np.errstate(over="ignore"):
            values[len(names)] = _numbers(fields[1:])
        wrong = np.flatnonzero(~np.isfinite(values[len(names)]))
        if wrong.size:
            column = 1 + int(wrong[0])
            raise DataError(
                f"{path}, line {number}: {header[column]} is {fields[column]!r}, not a finite float32 number"
            )
        names.append(fields[0])
    if len(names) < samples:
        raise DataError(f"{path} ends after {len(names)} samples, but there are labels for {samples}")
    return _Table(names, values)


def _check_samples(data_path: Path, data: Sequence[str], labels_path: Path, labels: Sequence[str]) -> None:
    if len(data) != len(labels):
        raise DataError(f"{data_path} holds {len(data)} samples but {labels_path} {len(labels)} labels")
    for number, (sample, label) in enumerate(zip(data, labels, strict=True), start=2):
        if sample != label:
            raise DataError(f"{labels_path}, line {number}: sample {label!r}, but {data_path} has {sample!r} there")


def _rows(path: Path) -> Iterator[tuple[int, list[str]]]:
    """Line numbers and fields; each line must end as one."""
    try:
        # Bytes that are no text make fields that are no numbers, and are reported as such.
        with path.open(encoding="utf-8", errors="replace") as stream:
            for number, line in enumerate(stream, start=1):
                if not line.endswith("\n"):
                    raise DataError(
                        f"{path}, line {number}: the last line has no line break, so the file is probably truncated; "
                        "fetch it again"
                    )
                yield number, line[:-1].split(",")
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error}") from error


def _header(path: Path, rows: Iterator[tuple[int, list[str]]]) -> list[str]:
    for _, fields in rows:
        return fields
    raise DataError(f"{path} is empty; fetch it again")


def _numbers(fields: Sequence[str]) -> list[float]:
    """The fields as numbers, NaN for what is none."""
    try:
        return [float(field) for field in fields]
    except ValueError:
        return [_number(field) for field in fields]


def _number(field: str) -> float:
    try:
        return float(field)
    except ValueError:
        return math.nan


def _stamp(path: Path) -> np.ndarray:
    """What tells one state of a file from another."""
    found = path.stat()
    return np.array([_CACHE_VERSION, found.st_size, found.st_mtime_ns])


def _read_cache(cache: Path, stamp: np.ndarray) -> _Table | None:
    try:
        with cache.open("rb") as stream, np.load(stream, allow_pickle=False) as stored:
            if not np.array_equal(stored["stamp"], stamp):
                return None
            return _Table(stored["samples"].tolist(), stored["values"])
    # Missing, unreadable, or not what this module wrote.
    except (OSError, EOFError, KeyError, TypeError, ValueError, zipfile.BadZipFile):
        return None


def _write_cache(cache: Path, stamp: np.ndarray, table: _Table) -> None:
    # Under another name until it is whole: an interrupted run leaves no half of a cache.
    with tempfile.NamedTemporaryFile(dir=cache.parent, prefix=f"{cache.name}.", delete=False) as stream:
        try:
            np.savez(stream, stamp=stamp, samples=np.array(table.samples), values=table.values)
            stream.close()
            os.replace(stream.name, cache)
        except BaseException:
            os.unlink(stream.name)
            raise
