"""The tuned comparison and the comparison at equal sparsity from their command lines."""

import contextlib
import io
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from stepping import dense_by_default

from benchmarks import sparsity, tune
from benchmarks._study import problems, trial
from benchmarks._study.task import Recipe

OPTIONS = ("--tasks", "digits-100", "--methods", "none,l2,fiedler", "--budget", "2", "--draws", "1", "--folds", "2")
SMALL = (*OPTIONS, "--seeds", "2")


class Ended(NamedTuple):
    """How a run from the command line ended."""

    status: int
    folder: Path
    shown: str
    errors: str


def run(folder: Path, *options: str, main: Callable[[list[str]], int] = tune.main) -> Ended:
    shown, errors = io.StringIO(), io.StringIO()
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(shown), contextlib.redirect_stderr(errors):
        patch.setattr(problems, "_DIGITS", Recipe(hidden=(8,), steps=20, batch_size=16, learning_rate=0.1))
        status = main([*options, "--out", str(folder)])
    return Ended(status, folder, shown.getvalue(), errors.getvalue())


def lines(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "trials.jsonl").read_text(encoding="utf-8").splitlines()]


@pytest.fixture(scope="module")
def ended(tmp_path_factory: pytest.TempPathFactory) -> Ended:
    """One small study."""
    return run(tmp_path_factory.mktemp("tune") / "results", *SMALL)


def test_a_study_end_to_end(ended: Ended) -> None:
    assert ended.status == 0
    records = lines(ended.folder)
    # One draw and two folds for one and twice two strengths, then two seeds for three methods.
    assert len(records) == 2 * (1 + 2 + 2) + 3 * 2
    assert len({record["key"] for record in records}) == len(records)
    for record in records:
        circumstances = {"recipe", "examples", "code", "versions", "device"}
        assert set(record) == {"schema", "key", "trial", *circumstances, "measured"}
        assert record["schema"] == 2
        assert set(record["trial"]) == {"task", "method", "strengths", "seed", "fold", "folds"}
        measured = record["measured"]
        assert {"loss", "accuracy", "ece", "train_loss", "shifts", "penalties", "zero_share"} <= set(measured)
        assert 0 <= measured["accuracy"] <= 1
        assert len(measured["penalties"]) == (record["trial"]["method"] == "fiedler")
        assert ("fiedler" in measured) == (record["trial"]["fold"] is None)
    report = (ended.folder / "report.md").read_text(encoding="utf-8")
    assert "| task | l2 | fiedler |" in report
    assert report.count("| digits-100 | fiedler |") == 1
    assert "**Task digits-100**" in report
    assert "100 training examples, 899 to test; network 64-8-10, 20 steps of 16 examples" in report
    for name in ("differences.png", "strengths-digits-100.png"):
        assert (ended.folder / name).read_bytes().startswith(b"\x89PNG")
        assert name in ended.shown


def test_the_report_holds_what_the_trials_say(ended: Ended) -> None:
    final = {
        method: [
            record["measured"]["accuracy"]
            for record in lines(ended.folder)
            if record["trial"]["method"] == method and record["trial"]["fold"] is None
        ]
        for method in ("none", "l2")
    }
    report = (ended.folder / "report.md").read_text(encoding="utf-8")
    [row] = [line for line in report.splitlines() if line.startswith("| l2 |")]
    assert f"{100 * np.mean(final['l2']):.2f} ± {100 * np.std(final['l2'], ddof=1):.2f}" in row
    difference = 100 * np.mean(np.subtract(final["l2"], final["none"]))
    assert f"| digits-100 | {difference:+z.2f} [" in report


def test_same_command_same_numbers_and_nothing_run_twice(
    ended: Ended, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert run(tmp_path, *SMALL).status == 0
    assert lines(tmp_path) == lines(ended.folder)
    monkeypatch.setattr(trial, "_run", lambda *_: pytest.fail("a finished trial ran again"))
    again = run(tmp_path, *SMALL)
    assert again.status == 0
    assert (tmp_path / "report.md").read_text() == (ended.folder / "report.md").read_text()


def test_an_interrupted_study_goes_on_where_it_was(
    ended: Ended, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, calls = trial._run, []

    def interrupted(*arguments):
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return real(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(trial, "_run", interrupted)
        stopped = run(tmp_path, *SMALL)
    assert (stopped.status, stopped.errors) == (130, "interrupted\n")
    kept = lines(tmp_path)
    assert 0 < len(kept) < len(lines(ended.folder))
    assert run(tmp_path, *SMALL).status == 0
    assert lines(tmp_path)[: len(kept)] == kept
    assert (tmp_path / "report.md").read_text() == (ended.folder / "report.md").read_text()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--tasks", "moons"), "unknown task 'moons'"),
        ((*OPTIONS, "--seeds", "1"), "--seeds must be at least 2"),
        (("--tasks", "mnist-500"), "mnist needs --data-dir"),
        (("--tasks", "digits-100", "--methods", "none,l4"), "unknown method 'l4'"),
        (("--tasks", "digits-100", "--folds", "20"), "--folds 20 is too many for task digits-100"),
    ],
)
def test_mistakes_end_with_a_message(tmp_path: Path, options: tuple[str, ...], message: str) -> None:
    found = run(tmp_path, *options)
    assert found.status == 2
    assert message in found.errors


def test_an_output_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    found = run(tmp_path / "file" / "results", *SMALL)
    assert found.status == 2
    assert "cannot write to the output folder" in found.errors


def test_sparsity_end_to_end(tmp_path: Path) -> None:
    methods = "none,l1-shrinkage,fiedler-combinatorial-shrinkage,pruning"
    options = ("--task", "digits-100", "--methods", methods, "--budget", "3", "--seeds", "2")
    with dense_by_default():
        ended = run(tmp_path, *options, main=sparsity.main)
    assert ended.status == 0
    records = lines(tmp_path)
    assert len(records) == 2 * (1 + 3 * 3)
    report = (tmp_path / "report.md").read_text(encoding="utf-8")
    for share in (0.499, 0.95, 0.995):
        found = [r["measured"] for r in records if r["trial"]["strengths"] == [["pruning", share]]]
        zeros = [one["zero_share"] for one in found]
        np.testing.assert_allclose(zeros, share, atol=1 / (64 * 8 + 80))
        accuracy = 100 * np.array([one["accuracy"] for one in found])
        assert f"| {share:g} | {100 * np.mean(zeros):.2f} ± 0.00 | {accuracy.mean():.2f} ±" in report
    assert (tmp_path / "sparsity.png").read_bytes().startswith(b"\x89PNG")
    # A strong enough shrinkage leaves nothing; no method leaves all its zeros to the others.
    strongest = [r["measured"] for r in records if r["trial"]["strengths"] == [["l1-shrinkage", 1.0]]]
    assert all(one["zero_share"] > 0.9 for one in strongest)
    assert run(tmp_path, *options, main=sparsity.main).status == 0
    assert lines(tmp_path) == records


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--methods", "none,fiedler+l2"), "methods with one strength, not 'fiedler\\+l2'"),
        (("--seeds", "1"), "--seeds must be at least 2"),
        (("--methods", "l3"), "unknown method 'l3'"),
    ],
)
def test_mistakes_in_sparsity_end_with_a_message(tmp_path: Path, options: tuple[str, ...], message: str) -> None:
    ended = run(tmp_path, "--task", "digits-100", *options, main=sparsity.main)
    assert ended.status == 2
    assert re.search(message, ended.errors)
