import contextlib
import io
import json
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

from benchmarks import _paper, _terminal, paper
from benchmarks._config import DATASETS
from benchmarks._experiment import ActiveDropout, EpochPoint, Run
from benchmarks._paper import ROWS, paper_config, refresh_interval, with_active_dropout
from benchmarks._statistics import mean_sd, paired_difference
from benchmarks._training import FiedlerPoint

TRAINED = ("none", "l1", "l2", "dropout", "fiedler-combinatorial", "fiedler")
SHOWN = ("none", "l1", "l2", "dropout-active", "dropout", "fiedler-combinatorial", "fiedler")


class Results(NamedTuple):
    folder: Path
    record: dict[str, Any]
    shown: str


@pytest.fixture(scope="module")
def mnist_like(tmp_path_factory, idx_bytes) -> Path:
    """A folder like MNIST's, with twelve batches to train on: ten blurred clusters of images of 3 by 3 pixels."""
    rng = np.random.default_rng(4)
    folder = tmp_path_factory.mktemp("mnist")
    centres = rng.uniform(40, 215, (10, 3, 3))
    for prefix, count in (("train", 1210), ("t10k", 200)):
        labels = rng.integers(0, 10, count)
        images = np.clip(centres[labels] + rng.normal(0, 15, (count, 3, 3)), 0, 255)
        (folder / f"{prefix}-images-idx3-ubyte").write_bytes(idx_bytes(images))
        (folder / f"{prefix}-labels-idx1-ubyte").write_bytes(idx_bytes(labels))
    return folder


def run(folder: Path, mnist: Path, *options: str) -> Results:
    """Runs the command line with a network that compiles in no time, and a rate at which it learns in two epochs."""
    small = replace(DATASETS["mnist"], hidden=(20, 12), learning_rate=0.1)
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(io.StringIO()) as shown:
        patch.setattr(_paper, "DATASETS", {"mnist": small})
        status = paper.main(["--dataset", "mnist", "--data-dir", str(mnist), *options, "--out", str(folder)])
    assert status == 0
    return Results(folder, json.loads((folder / "results.json").read_text(encoding="utf-8")), shown.getvalue())


@pytest.fixture(scope="module")
def results(tmp_path_factory, mnist_like, dense_solver) -> Results:
    """What one small run from the command line wrote and showed."""
    return run(tmp_path_factory.mktemp("paper") / "results", mnist_like, "--seeds", "2", "--epochs", "2")


def final_points(record: dict[str, Any], method: str) -> list[dict[str, Any]]:
    return [run["points"][-1] for run in record["runs"] if run["method"] == method]


def test_json_has_every_run_and_row(results):
    record = results.record
    assert [(run["method"], run["seed"]) for run in record["runs"]] == [(m, s) for m in TRAINED for s in (0, 1)]
    assert tuple(record["summary"]) == SHOWN
    assert tuple(record["difference_to_none_in_test_accuracy"]) == SHOWN[1:]
    assert record["data"] == {"train_examples": 1210, "test_examples": 200, "features": 9, "classes": 10}
    assert record["schema_version"] == 1
    assert record["config"]["methods"] == list(TRAINED)
    assert record["config"]["refresh_every"] == 12
    assert record["config"]["dataset"] == "mnist"
    for run in record["runs"]:
        assert [point["epoch"] for point in run["points"]] == [0, 1, 2]
        for point in run["points"]:
            assert (point["active_dropout"] is None) == (run["method"] != "dropout")


def test_rows_follow_from_the_runs(results):
    record = results.record
    none = [point["test_accuracy"] for point in final_points(record, "none")]
    for row in SHOWN:
        points = final_points(record, "dropout" if row == "dropout-active" else row)
        if row == "dropout-active":
            points = [point["active_dropout"] for point in points]
        test, train = ([point[f"{part}_accuracy"] for point in points] for part in ("test", "train"))
        assert record["summary"][row]["test_accuracy"] == pytest.approx(mean_sd(test)._asdict())
        assert record["summary"][row]["train_accuracy"] == pytest.approx(mean_sd(train)._asdict())
        if row != "none":
            expected = paired_difference(test, none)._asdict()
            assert record["difference_to_none_in_test_accuracy"][row] == pytest.approx(expected)


def test_dropout_that_stays_active_costs_accuracy(results):
    active, off = (results.record["summary"][row]["test_accuracy"]["mean"] for row in ("dropout-active", "dropout"))
    assert off > 0.3
    assert active < off - 0.03
    for point in (point["active_dropout"] for point in final_points(results.record, "dropout")):
        for part, examples in (("train", 1210), ("test", 200)):
            right = examples * point[f"{part}_accuracy"]
            assert right == pytest.approx(round(right), abs=0.01)


def test_penalties_are_refreshed_at_the_start_of_each_epoch(results):
    for method, penalty in (("fiedler", "fiedler"), ("fiedler-combinatorial", "fiedler-combinatorial")):
        for seed_points in (run["points"] for run in results.record["runs"] if run["method"] == method):
            assert [point["penalties"][penalty]["refreshes"] for point in seed_points] == [0, 1, 2]
    assert "refreshed every 12 steps, and so at the start of each epoch of 12" in results.shown


def test_markdown_has_a_row_for_each_evaluation(results):
    text = (results.folder / "summary.md").read_text(encoding="utf-8")
    rows = [line[2:-2].split(" | ") for line in text.splitlines() if line[:2] == "| "]
    assert [row[0] for row in rows] == ["method", "---", *ROWS.values()]
    shown = {row[0]: dict(zip(rows[0], row, strict=True)) for row in rows[2:]}
    for method, label in ROWS.items():
        summary, row = results.record["summary"][method], shown[label]
        accuracy = summary["test_accuracy"]
        assert row["test acc. %"] == f"{100 * accuracy['mean']:.2f} ± {100 * accuracy['sd']:.2f}"
        coefficients = list(summary["l1_coefficients"].values())
        assert row["mean effective L1 coefficient"] == (f"{coefficients[0]:.2g}" if coefficients else "")
        assert len(coefficients) == method.startswith("fiedler")
        assert row["95 % interval"].startswith("[") == (method != "none")
    assert "after 2 epochs of 12 steps (the protocol has 10 epochs)" in text


def test_terminal_shows_the_table(results):
    assert "Protocol of Tam and Dunson (ICML 2020), mnist" in results.shown
    assert all(f"│ {label} " in results.shown for label in ROWS.values())
    assert str(results.folder) in results.shown


@pytest.mark.slow
def test_same_seeds_give_same_numbers(tmp_path, mnist_like, results):
    again = run(tmp_path / "again", mnist_like, "--seeds", "1", "--epochs", "1")
    first = {run["method"]: run["points"] for run in results.record["runs"] if run["seed"] == 0}
    for found in again.record["runs"]:
        for point, before in zip(found["points"], first[found["method"]], strict=False):
            assert {**point, "seconds": None} == {**before, "seconds": None}
    assert again.record["difference_to_none_in_test_accuracy"]["l1"]["low"] is None


@pytest.mark.parametrize(("steps", "interval"), [(600, 100), (500, 100), (100, 100), (99, 99), (6, 6), (1, 1)])
def test_refreshes_are_at_the_start_of_each_epoch_and_every_100_steps(steps, interval):
    assert refresh_interval(steps) == interval
    assert steps % interval == 0


def test_refreshes_that_drift_are_told():
    config = replace(paper_config("mnist", None, None, 1, Path("out")), refresh_every=refresh_interval(250))
    assert config.refresh_every == 100
    assert "not also at the start of each epoch of 250" in _paper.paper_table(config, 250, [], {}, {}).notes[2]


@pytest.mark.parametrize(
    ("dataset", "hidden", "epochs", "dropout"),
    [("mnist", 500, 10, 0.4), ("cifar10", 500, 10, 0.5), ("tcga", 50, 5, 0.5)],
)
def test_config_is_the_published_protocol(dataset, hidden, epochs, dropout):
    config = paper_config(dataset, None, None, 5, Path("out"))
    assert (config.hidden, config.epochs, config.batch_size) == ((hidden,) * 3, epochs, 100)
    assert (config.optimizer, config.learning_rate, config.momentum) == ("sgd", 1e-3, 0.9)
    assert (config.scale, config.methods) == ("unit", TRAINED)
    assert config.strengths == {
        "l1": 1e-3,
        "l2": 0.01,
        "dropout": dropout,
        "fiedler": 0.01,
        "fiedler-combinatorial": 0.01,
    }
    assert paper_config(dataset, None, 3, 5, Path("out")).epochs == 3


def test_active_dropout_makes_a_row_of_its_own():
    pair = FiedlerPoint(0.5, 0.0, 0.0, 0.1, "converged", True)
    point = EpochPoint(0, 1.0, 0.9, 0.8, pair, pair, {}, None, ActiveDropout(0.6, 0.5))
    runs = [Run("none", 0, (point._replace(active_dropout=None),), 0.2), Run("dropout", 3, (point,), 0.2)]
    *same, active = with_active_dropout(runs)
    assert same == runs
    assert (active.method, active.seed) == ("dropout-active", 3)
    assert (active.points[0].train_accuracy, active.points[0].test_accuracy) == (0.6, 0.5)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--dataset", "mnist"), "mnist needs --data-dir"),
        (("--dataset", "cifar10"), "cifar10 needs --data-dir"),
        (("--dataset", "tcga", "--data-dir", "no/such/folder"), "no/such/folder does not exist"),
        (("--dataset", "mnist", "--epochs", "0"), "--epochs must be at least 1"),
        (("--dataset", "mnist", "--seeds", "0"), "--seeds must be at least 1"),
    ],
)
def test_bad_input_ends_with_a_message(tmp_path, capsys, options, message):
    assert paper.main([*options, "--out", str(tmp_path)]) == 2
    captured = capsys.readouterr()
    assert captured.err.startswith("error: ")
    assert message in captured.err
    assert captured.out == ""


def test_fewer_examples_than_a_batch_end_with_a_message(tmp_path, capsys, mnist_folder):
    assert paper.main(["--dataset", "mnist", "--data-dir", str(mnist_folder), "--out", str(tmp_path)]) == 2
    assert "--batch 100 is more than the 60 training examples" in capsys.readouterr().err


def test_output_is_checked_before_the_data_are_read(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(paper, "load_dataset", lambda *_: pytest.fail("data were read"))
    monkeypatch.setattr(_terminal, "run_experiment", lambda *_: pytest.fail("training started"))
    (tmp_path / "file").write_text("")
    assert paper.main(["--dataset", "mnist", "--out", str(tmp_path / "file")]) == 2
    assert "cannot write to the output folder" in capsys.readouterr().err


@pytest.mark.parametrize("options", [(), ("--dataset", "digits"), ("--dataset", "mnist", "--epochs", "many")])
def test_unreadable_options_end_with_usage(capsys, options):
    with pytest.raises(SystemExit) as stop:
        paper.main(options)
    assert stop.value.code == 2
    assert "usage: python -m benchmarks.paper" in capsys.readouterr().err
