"""Trials on disk: one JSON object a line, found again by what it is a result of."""

import hashlib
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks._errors import OutputError
from benchmarks._report import package_versions, plain
from benchmarks._study.task import Task
from benchmarks._study.trial import Trial

SCHEMA = 1


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

    def get(self, task: Task, trial: Trial) -> dict[str, Any] | None:
        """What was measured of a trial, if it was run with this recipe and these versions."""
        record = self._found.get(trial_key(task, trial))
        return None if record is None else record["measured"]

    def add(self, task: Task, results: Sequence[tuple[Trial, dict[str, Any]]]) -> None:
        """Writes finished trials.

        Raises:
            OutputError: they cannot be written.
        """
        records = [_record(task, trial, measured) for trial, measured in results]
        lines = [json.dumps(record, allow_nan=False, ensure_ascii=False) + "\n" for record in records]
        try:
            with self._path.open("a", encoding="utf-8") as file:
                file.write("".join(lines))
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise OutputError(f"cannot write {self._path}: {error.strerror}; what it holds is kept") from error
        self._found |= {record["key"]: record for record in records}


def trial_key(task: Task, trial: Trial) -> str:
    """Hash of everything that a trial's result depends on: itself, the task's recipe, versions of packages."""
    text = json.dumps(_configuration(task, trial), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _record(task: Task, trial: Trial, measured: dict[str, Any]) -> dict[str, Any]:
    record = {"schema": SCHEMA, "key": trial_key(task, trial), **_configuration(task, trial), "measured": measured}
    return plain(record)


def _configuration(task: Task, trial: Trial) -> dict[str, Any]:
    recipe = {**vars(task.recipe), "size": task.size, "label_noise": task.label_noise, "sizes": task.sizes}
    return plain({"trial": trial, "recipe": recipe, "versions": package_versions()})


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
