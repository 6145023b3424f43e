import contextlib
import io
import json
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib.image
import numpy as np
import pytest
from matplotlib.figure import Figure

import benchmarks
from benchmarks import _plots, _terminal, compare
from benchmarks._config import DATASETS
from benchmarks._errors import BenchmarkError
from benchmarks._statistics import paired_difference

SMALL = ("--hidden", "8,6", "--epochs", "2", "--seeds", "2", "--batch", "64", "--train-size", "256")
METHODS = ("none", "l1", "fiedler+dropout")


class Results(NamedTuple):
    folder: Path
    record: dict[str, Any]
    shown: str


@pytest.fixture(scope="module")
def results(tmp_path_factory) -> Results:
    """What one small run from the command line wrote and showed."""
    folder = tmp_path_factory.mktemp("compare") / "results"
    with contextlib.redirect_stdout(io.StringIO()) as shown:
        status = compare.main([*SMALL, "--methods", ",".join(METHODS), "--out", str(folder)])
    assert status == 0
    record = json.loads((folder / "results.json").read_text(encoding="utf-8"))
    return Results(folder, record, shown.getvalue())


def test_json_has_every_run_and_epoch(results):
    record = results.record
    assert [(run["method"], run["seed"]) for run in record["runs"]] == [(m, s) for m in METHODS for s in (0, 1)]
    for run in record["runs"]:
        assert [point["epoch"] for point in run["points"]] == [0, 1, 2]
        assert 0 <= run["near_zero_share"] <= 1
        for point in run["points"]:
            assert 0 <= point["test_accuracy"] <= 1
            assert point["train_loss"] > 0
            assert point["normalized"]["converged"]
            assert 0 < point["normalized"]["value"] < 1
            assert point["combinatorial"]["value"] > 0
            assert (point["seconds"] is None) == (point["epoch"] == 0)
    assert record["data"]["train_examples"] == 256
    assert record["data"]["test_examples"] == 899
    assert record["near_zero_threshold"] == 1e-3


def test_json_summary_follows_from_the_runs(results):
    record = results.record
    final = {m: [run["points"][-1] for run in record["runs"] if run["method"] == m] for m in METHODS}
    accuracy = {m: [point["test_accuracy"] for point in points] for m, points in final.items()}
    for method in METHODS:
        np.testing.assert_allclose(record["summary"][method]["test_accuracy"]["mean"], np.mean(accuracy[method]))
        np.testing.assert_allclose(
            record["summary"][method]["normalized"]["mean"],
            np.mean([point["normalized"]["value"] for point in final[method]]),
        )
    for method in METHODS[1:]:
        expected = paired_difference(accuracy[method], accuracy["none"])._asdict()
        assert record["difference_to_none_in_test_accuracy"][method] == pytest.approx(expected)


def test_seeds_are_paired(results):
    record = results.record
    starts = {(run["method"], run["seed"]): run["points"][0] for run in record["runs"]}
    for seed in (0, 1):
        assert len({starts[m, seed]["train_loss"] for m in METHODS}) == 1
        assert len({starts[m, seed]["normalized"]["value"] for m in METHODS}) == 1
    assert starts["none", 0]["train_loss"] != starts["none", 1]["train_loss"]


def test_markdown_has_both_tables(results):
    rows = [
        line for line in (results.folder / "summary.md").read_text(encoding="utf-8").splitlines() if line[:2] == "| "
    ]
    assert [row.split(" | ")[0][2:] for row in rows] == ["method", "---", *METHODS, "method", "---", *METHODS[1:]]


@pytest.mark.parametrize("name", ["learning_curves.png", "fiedler_curves.png", "fiedler_vectors.png"])
def test_plots_are_images_with_content(results, name):
    image = matplotlib.image.imread(results.folder / name)
    assert min(image.shape[:2]) > 300
    assert len(np.unique(image[::3, ::3, :3].reshape(-1, 3), axis=0)) > 20


@pytest.mark.parametrize(("epochs", "shown_from"), [(1, 0), (2, 1), (8, 3)])
def test_accuracy_axes_show_the_end_of_the_curve_and_of_a_short_one_all(epochs, shown_from):
    axes, curve = Figure().add_subplot(), np.linspace(10, 90, epochs + 1)
    _plots._zoom(axes, [curve[None]])
    low, high = axes.get_ylim()
    assert [low <= value <= high for value in curve] == [at >= shown_from for at in range(epochs + 1)]


def test_terminal_shows_both_tables(results):
    assert "After training" in results.shown
    assert "difference to none" in results.shown
    assert "|w| < 0.001" in results.shown
    assert str(results.folder) in results.shown
    assert all(results.shown.count(f"│ {method} ") == 2 for method in METHODS[1:])


@pytest.mark.parametrize(
    ("name", "counts"),
    [
        ("mnist", {"train_examples": 60, "test_examples": 30, "features": 9, "classes": 10}),
        pytest.param(
            *("tcga", {"train_examples": 600, "test_examples": 20, "features": 4, "classes": 5}), marks=pytest.mark.slow
        ),
    ],
)
def test_data_from_files(tmp_path, request, name, counts):
    folder = request.getfixturevalue(f"{name}_folder")
    options = ("--hidden", "7,5", "--epochs", "1", "--seeds", "1", "--batch", "20", "--methods", "none,l2")
    out = tmp_path / "out"
    assert compare.main(["--dataset", name, "--data-dir", str(folder), *options, "--out", str(out)]) == 0
    record = json.loads((out / "results.json").read_text(encoding="utf-8"))
    assert record["data"] == counts
    assert record["difference_to_none_in_test_accuracy"]["l2"]["low"] is None


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--methods", "none,ridge"), "unknown method 'ridge'; known: none, fiedler"),
        (("--methods", ""), "unknown method ''"),
        (("--methods", "l1"), "must contain 'none'"),
        (("--dataset", "mnist"), "mnist needs --data-dir"),
        (("--dataset", "mnist", "--data-dir", "no/such/folder"), "no/such/folder does not exist"),
        (("--data-dir", "."), "--data-dir is for mnist"),
        (("--epochs", "0"), "--epochs must be at least 1"),
        (("--batch", "100000"), "--batch 100000 is more than the 898"),
        (("--train-size", "100000"), "there are 898"),
        (("--strength", "l3=1"), "unknown regularizer 'l3'"),
        (("--strength", "fiedler=nan"), "finite"),
        (("--refresh-every", "0"), "--refresh-every"),
    ],
)
def test_bad_input_ends_with_a_message(tmp_path, capsys, options, message):
    assert compare.main([*options, "--out", str(tmp_path)]) == 2
    captured = capsys.readouterr()
    assert captured.err.startswith("error: ")
    assert message in captured.err
    assert "Traceback" not in captured.err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--dataset", "cifar"), "cifar"),
        (("--optimizer", "newton"), "newton"),
        (("--hidden", "10,x"), "'10,x' is not a list of widths"),
        (("--strength", "l1"), "'l1' is not of the form NAME=VALUE"),
        (("--epochs", "many"), "many"),
        (("--scale", "edges"), "edges"),
    ],
)
def test_unreadable_options_end_with_usage(capsys, options, message):
    with pytest.raises(SystemExit) as error:
        compare.main(options)
    assert error.value.code == 2
    assert message in capsys.readouterr().err


def test_damaged_data_ends_with_a_message(tmp_path, capsys, mnist_folder):
    path = mnist_folder / "train-images-idx3-ubyte"
    path.write_bytes(path.read_bytes()[:-1])
    options = ("--dataset", "mnist", "--data-dir", str(mnist_folder), "--out", str(tmp_path / "out"))
    assert compare.main(options) == 2
    assert f"{path} is truncated" in capsys.readouterr().err


def test_output_is_checked_before_training(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(_terminal, "run_experiment", lambda *_: pytest.fail("training started"))
    (tmp_path / "file").write_text("")
    assert compare.main(["--out", str(tmp_path / "file")]) == 2
    assert "cannot write to the output folder" in capsys.readouterr().err


def test_help_lists_the_defaults(capsys):
    with pytest.raises(SystemExit) as stop:
        compare.main(["--help"])
    assert stop.value.code == 0
    shown = capsys.readouterr().out
    for defaults in DATASETS.values():
        for name, value in defaults.strengths.items():
            assert f"--strength {name}={value:g}" in shown


@pytest.mark.parametrize(
    ("name", "hidden", "epochs", "dropout", "refresh_every"),
    [
        ("mnist", (500, 500, 500), 10, 0.4, 100),
        ("cifar10", (500, 500, 500), 10, 0.5, 100),
        ("tcga", (50, 50, 50), 5, 0.5, 6),
    ],
)
def test_defaults_are_the_published_protocol(name, hidden, epochs, dropout, refresh_every):
    config = compare.config_from_arguments(compare.build_parser().parse_args(["--dataset", name]))
    assert (config.hidden, config.epochs) == (hidden, epochs)
    assert (config.optimizer, config.learning_rate, config.momentum) == ("sgd", 1e-3, 0.9)
    assert config.batch_size == 100
    assert (config.scale, config.refresh_every) == ("unit", refresh_every)
    published = {
        "l2": 0.01,
        "l1": 1e-3,
        "dropout": dropout,
        "fiedler": 0.01,
        "fiedler-combinatorial": 0.01,
    }
    assert published.items() <= config.strengths.items()


def test_options_override_every_default():
    options = [
        *("--dataset", "mnist", "--data-dir", "d", "--hidden", "3", "--epochs", "4", "--batch", "5"),
        *("--learning-rate", "0.6", "--momentum", "0.7", "--scale", "vertices", "--refresh-every", "8"),
        *("--strength", "l1=9", "--strength", "l2=10", "--seeds", "11", "--train-size", "12", "--methods", "l1, none"),
    ]
    config = compare.config_from_arguments(compare.build_parser().parse_args(options))
    assert (config.data_dir, config.hidden, config.epochs, config.batch_size) == (Path("d"), (3,), 4, 5)
    assert (config.learning_rate, config.momentum, config.scale, config.refresh_every) == (0.6, 0.7, "vertices", 8)
    assert (config.strengths["l1"], config.strengths["l2"]) == (9, 10)
    assert (config.seeds, config.train_size, config.methods) == (11, 12, ("l1", "none"))


def test_unforeseen_errors_are_not_swallowed(tmp_path, monkeypatch):
    def fail(*_):
        raise RuntimeError("a defect")

    monkeypatch.setattr(_terminal, "run_experiment", fail)
    assert not issubclass(RuntimeError, BenchmarkError)
    with pytest.raises(RuntimeError, match="a defect"):
        compare.main(["--out", str(tmp_path)])


@pytest.mark.parametrize("status", [0, 2, 130])
def test_an_interrupted_command_ends_at_once(status):
    # The end that follows Ctrl-C while XLA compiles: whatever is still to be done at the exit is a crash.
    crash = f"import atexit, os; atexit.register(os.abort) if {status} == 130 else None"
    leave = f"from benchmarks._terminal import leave; print('shown', end=''); leave({status})"
    ended = subprocess.run([sys.executable, "-c", f"{crash}; {leave}"], capture_output=True, text=True, check=False)
    assert (ended.returncode, ended.stdout, ended.stderr) == (status, "shown", "")


def test_all_commands_end_alike():
    commands = [path.read_text(encoding="utf-8") for path in Path(benchmarks.__path__[0]).glob("*.py")]
    ends = [text.split('__name__ == "__main__":')[1].strip() for text in commands if "__main__" in text]
    assert len(ends) > 5
    assert set(ends) == {"leave(main())"}
