"""The benchmark of starts that mislead: what it gives solvers, and how it counts their answers."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks import misleading
from benchmarks._contenders import Answer
from benchmarks.misleading import SOLVERS, Trial, case_table, gap_table, run_trials

FEW = ("--graphs", "decades", "--solvers", "ours,lobpcg", "--count", "2")


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("misleading")
    assert misleading.main([*FEW, "--out", str(folder)]) == 0
    return folder


@pytest.fixture(scope="module")
def trials(out: Path) -> list[Trial]:
    return [Trial(**trial) for trial in json.loads((out / "misleading.json").read_text())["trials"]]


def test_ours_is_never_wrong_in_silence_and_a_block_of_one_vector_always_is(trials: list[Trial]) -> None:
    # Two graphs, Laplacians and precisions, each without a start, with an exact eigenvector, and with a mixture.
    assert len(trials) == 2 * 2 * 2 * 3 * 3
    assert {t.outcome for t in trials if t.solver == "ours"} == {"right"}
    exact = [t for t in trials if (t.solver, t.start) == ("lobpcg 1", "λ3")]
    assert {t.outcome for t in exact} == {"wrong"}
    for trial in exact:
        # What it returns is λ3.
        assert trial.error == pytest.approx(trial.gap, rel=1e-3)


def test_the_report_holds_the_tables_and_the_command(out: Path) -> None:
    report = (out / "misleading.md").read_text()
    assert "| decades normalized float64 λ3 |" in report
    assert "2 of 2" in report
    assert "python -m benchmarks.misleading --graphs decades" in report


@pytest.mark.parametrize("graph", misleading.GRAPHS)
def test_what_is_given_holds_nothing_of_the_fiedler_vector(graph: str, monkeypatch: pytest.MonkeyPatch) -> None:
    given = []

    class Spy:
        accepts_start, compiled = True, False

        def ladders(self, problem: Any, accuracy: float) -> Any:
            return SOLVERS["eigsh-invert"].ladders(problem, accuracy)

        def promise(self, *_: Any) -> float:
            return 0.0

        def describe(self, knob: Any) -> str:
            return str(knob)

        def prepare(self, problem: Any) -> Any:
            given.append(problem)
            return lambda knob: Answer(0.0, None, True)

    monkeypatch.setattr(misleading, "SOLVERS", {"spy": Spy()})
    (found,) = run_trials(graph, "normalized", "float64", ("spy",), 1)
    assert [t.outcome for t in found] == ["wrong"] * 3
    assert given[0].start is None
    for problem, highest in zip(given[1:], (3, 5), strict=True):
        lap = misleading.BlockLaplacian(problem)
        values, columns = np.linalg.eigh(lap.to_dense())
        parts = (columns.T @ problem.start) ** 2
        assert parts[:2].sum() < 1e-20
        assert parts[2:highest].sum() == pytest.approx(1, abs=1e-9)
        assert found[0].gap == pytest.approx(values[2] / values[1] - 1)


def test_every_trial_counts_once() -> None:
    def trial(gap: float, outcome: str, start: str = "λ3") -> Trial:
        return Trial("path", "normalized", "float64", start, gap, "x", outcome, None)

    trials = [trial(0.0, "wrong"), trial(1e-3, "said so"), trial(0.05, "failed"), trial(2.0, "right", "mixture")]
    assert case_table(trials).rows == (
        ("path normalized float64 λ3", "1.0e-03", "1 of 3 (2)"),
        ("path normalized float64 mixture", "2.0e+00", "0 of 1"),
    )
    assert [row[1] for row in gap_table(trials).rows] == ["1 of 1", "0 of 1 (1)", "0 of 1 (1)", "0 of 1"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--graphs", "ring"), "--graphs has no 'ring'; choose of dense"),
        (("--solvers", "matfree"), "--solvers has no 'matfree'; choose of ours"),
        (("--count", "0"), "--count must be at least 1, not 0"),
    ],
)
def test_bad_options_end_with_a_message(
    options: tuple[str, ...], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert misleading.main([*options, "--out", str(tmp_path)]) == 2
    assert message in capsys.readouterr().err
