"""Trials on disk: what makes them the same, and what damage does."""

import ast
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from blobs import blobs

import benchmarks
import fiedler_jax as fj
from benchmarks._errors import OutputError
from benchmarks._study import store
from benchmarks._study.store import CODE, TrialStore, circumstances_of, digest_of_code, trial_key
from benchmarks._study.task import Recipe
from benchmarks._study.trial import Trial


def test_finished_trials_are_found_again(tmp_path: Path) -> None:
    task, trial = blobs(), Trial("blobs", "l2", (("l2", 0.1),), 1, None, 4)
    TrialStore(tmp_path / "trials.jsonl").add(task, [(trial, {"accuracy": 0.5, "loss": float("nan")})])
    again = TrialStore(tmp_path / "trials.jsonl")
    assert again.get(task, trial) == {"accuracy": 0.5, "loss": None}
    assert again.get(task, trial._replace(seed=2)) is None
    # Another recipe is another result.
    assert again.get(blobs(recipe=Recipe((6,), 8, 4, 0.1)), trial) is None
    assert again.get(blobs(size=39), trial) is None
    # So are other examples under the same name.
    for name in ("inputs", "targets", "pool", "test"):
        changed = getattr(task, name).copy()
        changed[0] += 1
        assert again.get(task._replace(**{name: changed}), trial) is None
    assert again.get(blobs(), trial) is not None


def test_other_shifts_are_other_trials() -> None:
    shifted = [circumstances_of(blobs(shifts={"up": np.full(3, value)}))["examples"] for value in (0.0, 0.0, 1.0)]
    assert shifted[0] == shifted[1] != shifted[2]


def test_other_code_is_another_trial(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    real = digest_of_code()
    for package in (fj, benchmarks):
        folder = tmp_path / package.__name__
        shutil.copytree(package.__path__[0], folder, ignore=shutil.ignore_patterns("__pycache__"))
        monkeypatch.setattr(package, "__path__", [str(folder)])
    assert digest_of_code.__wrapped__() == real
    for path, counts in (("benchmarks/_study/plots.py", False), ("benchmarks/_training.py", True)):
        with (tmp_path / path).open("a") as file:
            file.write("# changed\n")
        assert (digest_of_code.__wrapped__() != real) == counts
    solver = tmp_path / "fiedler_jax" / "eigen" / "_davidson.py"
    before = digest_of_code.__wrapped__()
    solver.write_text(solver.read_text() + "# changed\n")
    assert digest_of_code.__wrapped__() != before


def test_the_code_of_a_trial_is_all_that_it_comes_down_to() -> None:
    folder = Path(benchmarks.__path__[0])
    listed = {path for pattern in CODE for path in folder.glob(pattern)}
    assert modules_below(folder / "_study" / "trial.py") == listed


def modules_below(path: Path) -> set[Path]:
    """A module of the benchmarks and all those that it imports, directly or not."""
    folder, found, waiting = Path(benchmarks.__path__[0]), set(), [path]
    while waiting:
        module = waiting.pop()
        if module in found:
            continue
        found.add(module)
        for node in ast.walk(ast.parse(module.read_text())):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("benchmarks."):
                place = folder.joinpath(*(node.module or "").split(".")[1:])
                waiting += [place / "__init__.py"] if place.is_dir() else [place.with_suffix(".py")]
    return found


def test_other_versions_are_other_trials(monkeypatch: pytest.MonkeyPatch) -> None:
    task, trial = blobs(), Trial("blobs", "none", (), 1, None, 4)
    before = trial_key(circumstances_of(task), trial)
    monkeypatch.setattr(store, "package_versions", lambda: {"jax": "0.1"})
    assert trial_key(circumstances_of(task), trial) != before


def test_half_a_line_at_the_end_is_dropped_and_written_over(tmp_path: Path) -> None:
    path, task = tmp_path / "trials.jsonl", blobs()
    one, two = (Trial("blobs", "l2", (("l2", 0.1),), seed, None, 4) for seed in (1, 2))
    first = TrialStore(path)
    first.add(task, [(one, {"loss": 1.0})])
    first.add(task, [(two, {"loss": 2.0})])
    path.write_bytes(path.read_bytes()[:-20])
    again = TrialStore(path)
    assert again.get(task, one) == {"loss": 1.0}
    assert again.get(task, two) is None
    again.add(task, [(two, {"loss": 3.0})])
    assert TrialStore(path).get(task, two) == {"loss": 3.0}
    assert len(path.read_text(encoding="utf-8").splitlines()) == 2


@pytest.mark.parametrize("line", ["no json", "[]", "{}", '{"schema": 0, "key": "a"}'])
def test_damage_elsewhere_is_an_error(tmp_path: Path, line: str) -> None:
    path, task = tmp_path / "trials.jsonl", blobs()
    TrialStore(path).add(task, [(Trial("blobs", "none", (), 1, None, 4), {"loss": 1.0})])
    path.write_text(line + "\n" + path.read_text(encoding="utf-8"), encoding="utf-8")
    with pytest.raises(OutputError, match=r"line 1 of .*trials.jsonl is not a trial"):
        TrialStore(path)


def test_a_file_that_cannot_be_written_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "trials.jsonl").mkdir()
    with pytest.raises(OutputError, match="cannot read"):
        TrialStore(tmp_path / "trials.jsonl")
    with pytest.raises(OutputError, match="cannot write"):
        TrialStore(tmp_path / "absent" / "trials.jsonl").add(blobs(), [(Trial("b", "none", (), 1, None, 4), {})])


def test_keys_are_the_same_on_every_run() -> None:
    trial = Trial("blobs", "l2", (("l2", 0.1),), 1, None, 4)
    record = store._record(circumstances_of(blobs()), trial, {"loss": 1.0})
    assert json.loads(json.dumps(record)) == record
    circumstances = {"recipe", "examples", "code", "versions", "device"}
    assert set(record) == {"schema", "key", "trial", *circumstances, "measured"}
    again = {name: value for name, value in json.loads(json.dumps(record)).items() if name in circumstances}
    assert trial_key(again, trial) == record["key"]
