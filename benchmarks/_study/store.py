"""Trials on disk: one JSON object a line, found again by what it is a result of."""

import functools
import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

import benchmarks
import fiedler_jax
from benchmarks._errors import OutputError
from benchmarks._report import package_versions, plain
from benchmarks._study.task import Task
from benchmarks._study.trial import Trial

SCHEMA = 2

# What a trial runs, besides the library: the modules of `benchmarks` that its own comes down to.
CODE = (
    "_config.py", "_data/*.py", "_errors.py", "_methods.py", "_model.py", "_optimizers.py", "_training.py",
    "_study/measures.py", "_study/task.py", "_study/trial.py",
)  # fmt: skip


class TrialStore:
    """A file of finished trials, read once and then appended to.

    An interrupted run loses no finished trial: a line is written as a whole or, if the machine stops in the middle,
    found damaged at the end of the file and dropped.
    """

    def __init__(self, path: Path) -> None:
        """Opens the file, or begins one.

        Raises:
            OutputError: it cannot be read or written, or a line that is not the last one is damaged.
        """
        self._path = path
        try:
            text = path.read_text(encoding="utf-8") if path.exists() else ""
            found, whole = _read(path, text)
            if whole < len(text):
                os.truncate(path, len(text[:whole].encode()))
        except OSError as error:
            raise OutputError(f"cannot read {path}: {error.strerror}; name another folder with --out") from error
        self._found = found
        # Tasks as they are, lest another one takes the place of one that is gone.
        self._tasks: list[tuple[Task, Mapping[str, Any]]] = []

    def get(self, task: Task, trial: Trial) -> dict[str, Any] | None:
        """What was measured of a trial, if it was run with these examples, this recipe, code and versions."""
        record = self._found.get(trial_key(self._of(task), trial))
        return None if record is None else record["measured"]

    def add(self, task: Task, results: Sequence[tuple[Trial, dict[str, Any]]]) -> None:
        """Writes finished trials.

        Raises:
            OutputError: they cannot be written.
        """
        records = [_record(self._of(task), trial, measured) for trial, measured in results]
        lines = [json.dumps(record, allow_nan=False, ensure_ascii=False) + "\n" for record in records]
        try:
            with self._path.open("a", encoding="utf-8") as file:
                file.write("".join(lines))
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise OutputError(f"cannot write {self._path}: {error.strerror}; what it holds is kept") from error
        self._found |= {record["key"]: record for record in records}

    def _of(self, task: Task) -> Mapping[str, Any]:
        for known, circumstances in self._tasks:
            if known is task:
                return circumstances
        self._tasks.append((task, circumstances_of(task)))
        return self._tasks[-1][1]


def circumstances_of(task: Task) -> dict[str, Any]:
    """What the result of a task's trials depends on besides the trial: examples, recipe, code, versions, device."""
    return plain(
        {
            "recipe": {**vars(task.recipe), "size": task.size, "label_noise": task.label_noise, "sizes": task.sizes},
            "examples": _digest_of_examples(task),
            "code": digest_of_code(),
            "versions": package_versions(),
            "device": jax.devices()[0].device_kind,
        }
    )


def trial_key(circumstances: Mapping[str, Any], trial: Trial) -> str:
    """Hash of everything that a trial's result depends on: itself and its circumstances."""
    text = json.dumps(plain({"trial": trial, **circumstances}), sort_keys=True)
    return _short(hashlib.sha256(text.encode()))


@functools.cache
def digest_of_code() -> str:
    """Hash of the library's modules and of those in ``CODE``."""
    found = hashlib.sha256()
    for package, patterns in ((fiedler_jax, ("**/*.py",)), (benchmarks, CODE)):
        folder = Path(package.__path__[0])
        for path in sorted(path for pattern in patterns for path in folder.glob(pattern)):
            found.update(f"{path.relative_to(folder).as_posix()}\n".encode())
            found.update(path.read_bytes())
    return _short(found)


def _digest_of_examples(task: Task) -> str:
    arrays = {name: value for name, value in task._asdict().items() if isinstance(value, np.ndarray)}
    found = hashlib.sha256()
    for name, array in sorted({**arrays, **{f"shifts/{name}": array for name, array in task.shifts.items()}}.items()):
        found.update(f"{name} {array.dtype.str} {array.shape}\n".encode())
        found.update(np.ascontiguousarray(array).data)
    return _short(found)


def _short(found: Any) -> str:
    return found.hexdigest()[:16]


def _record(circumstances: Mapping[str, Any], trial: Trial, measured: dict[str, Any]) -> dict[str, Any]:
    key = trial_key(circumstances, trial)
    return plain({"schema": SCHEMA, "key": key, "trial": trial, **circumstances, "measured": measured})


def _read(path: Path, text: str) -> tuple[dict[str, dict[str, Any]], int]:
    """The records by key, and how much of the text they take."""
    found, whole = {}, 0
    lines = text.splitlines(keepends=True)
    for number, line in enumerate(lines, 1):
        try:
            record = json.loads(line)
            if not line.endswith("\n") or record["schema"] != SCHEMA:
                raise ValueError
            found[record["key"]] = record
        except (ValueError, KeyError, TypeError):
            if number == len(lines) and not line.endswith("\n"):
                break
            raise OutputError(
                f"line {number} of {path} is not a trial of this version of the benchmarks; remove the line or name "
                "another folder with --out"
            ) from None
        whole += len(line)
    return found, whole
