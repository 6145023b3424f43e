import io
import json
import math
from pathlib import Path

import pytest
from rich.console import Console

from benchmarks._errors import DataError, OutputError
from benchmarks._experiment import EpochPoint, Run
from benchmarks._report import (
    TextTable,
    difference_table,
    markdown_table,
    prepare_output,
    read_earlier,
    result_record,
    rich_table,
    summary_table,
    write_results,
)
from benchmarks._statistics import PairedDifference, differences_to_none, summarize
from benchmarks._training import FiedlerPoint, PenaltyPoint


def make_run(method, seed, status="converged", loss=0.5, epochs=3, skipped=0):
    pair = FiedlerPoint(0.5, 0.0, 0.0, 0.1, status, status == "converged")
    penalties = {"fiedler": PenaltyPoint(0.1, 2e-5, 0.0, 0.1, "converged", skipped, 3)} if "fiedler" in method else {}
    points = [
        EpochPoint(i, loss, 0.9, 0.8 + seed / 100, pair, pair, penalties, None if i == 0 else 0.1)
        for i in range(epochs + 1)
    ]
    return Run(method, seed, tuple(points), 0.25)


def make_tables(runs, methods):
    summaries = [summarize(runs, method, 10) for method in methods]
    differences = differences_to_none(runs, methods)
    return summaries, differences, [summary_table(summaries, runs), difference_table(differences)]


def test_summary_rows_are_in_percent_with_spread():
    runs = [make_run(method, seed) for method in ("none", "fiedler+l1") for seed in (0, 1)]
    _, _, (table, _) = make_tables(runs, ("none", "fiedler+l1"))
    row = dict(zip(table.headers, table.rows[1], strict=True))
    assert row["method"] == "fiedler+l1"
    assert row["test acc. %"] == "80.50 ± 0.71"
    assert row["gap, points"] == "9.50 ± 0.71"
    assert row["λ2 normalized"] == "0.500 ± 0.000"
    assert row["near zero %"] == "25.0 ± 0.0"
    assert row["ms per step"] == "10.000"
    notes = " ".join(table.notes)
    assert "|w| < 0.001" in notes
    assert "over 2 seeds" in notes
    assert "the first of each seed left out" in notes
    assert "fiedler+l1 (fiedler) 2e-05" in notes
    assert "All 32 λ2 solves along the curves converged" in notes


def test_one_seed_and_one_epoch_are_said_to_be_so():
    runs = [make_run("none", 0, epochs=1), make_run("l1", 0, epochs=1)]
    _, _, (table, differences) = make_tables(runs, ("none", "l1"))
    assert table.rows[0][1] == "90.00"
    assert "over 1 seed." in table.notes[0]
    assert "only epoch" in table.notes[0]
    assert differences.rows[0] == ("l1", "+0.00", "n/a", "1")


def test_unconverged_values_are_marked():
    runs = [make_run("none", 0), make_run("none", 1, "iteration limit")]
    _, _, (table, _) = make_tables(runs, ("none",))
    assert table.rows[0][4] == "0.500 ± 0.000 (1 of 2: iteration limit)"
    assert table.rows[0][5] == "0.500 ± 0.000 (1 of 2: iteration limit)"
    assert "Of 16 λ2 solves along the curves, 8 did not converge (8 iteration limit)" in " ".join(table.notes)


def test_steps_without_penalty_are_told():
    runs = [make_run("none", 0), make_run("fiedler", 0, skipped=3), make_run("fiedler", 1, skipped=4)]
    _, _, (table, _) = make_tables([*runs, make_run("none", 1)], ("none", "fiedler"))
    assert "Steps without the Fiedler penalty, for want of a usable vector: fiedler 7." in table.notes
    assert not any("without" in note for note in make_tables(runs[:1], ("none",))[2][0].notes)


def test_differences_are_in_points():
    differences = {"l1": PairedDifference(-0.012, -0.02, 0.003, 5), "l2": PairedDifference(-1e-9, -0.01, 0.01, 5)}
    table = difference_table(differences)
    assert table.rows == (("l1", "-1.20", "[-2.00, +0.30]", "5"), ("l2", "+0.00", "[-1.00, +1.00]", "5"))
    assert table.headers[2] == "95 % interval"


def test_markdown():
    table = TextTable("Title", ("method", "value"), (("a", "1"), ("b", "2")), ("where |w| < 1",))
    assert markdown_table(table).splitlines() == [
        "**Title**",
        "",
        "| method | value |",
        "| --- | ---: |",
        "| a | 1 |",
        "| b | 2 |",
        "",
        "where \\|w\\| < 1",
    ]


def test_rich_table_shows_brackets_as_they_are():
    table = difference_table({"l1": PairedDifference(0.0, -0.01, 0.01, 3)})
    console = Console(width=100, record=True, file=io.StringIO())
    console.print(rich_table(table))
    assert "[-1.00, +1.00]" in console.export_text()


def test_json_holds_everything_and_no_nan(tmp_path, make_config, small_data):
    runs = [make_run("none", 0), make_run("fiedler", 0, "not finite", math.nan)]
    summaries, differences, tables = make_tables(runs, ("none", "fiedler"))
    config = make_config("--methods", "none,fiedler", "--out", str(tmp_path))
    write_results(tmp_path, result_record(config, small_data, runs, summaries, differences), tables)

    def refuse(constant):
        raise AssertionError(f"{constant} is not JSON")

    record = json.loads((tmp_path / "results.json").read_text(encoding="utf-8"), parse_constant=refuse)
    assert record["config"]["hidden"] == [7, 5]
    assert record["config"]["out"] == str(tmp_path)
    assert record["config"]["strengths"]["l1"] == config.strengths["l1"]
    assert record["data"] == {"train_examples": 70, "test_examples": 40, "features": 9, "classes": 10}
    assert record["versions"]["jax"]
    assert record["device"]["platform"]
    assert record["runs"][1]["points"][2]["train_loss"] is None
    assert record["runs"][1]["points"][2]["normalized"]["status"] == "not finite"
    assert record["runs"][1]["points"][2]["penalties"]["fiedler"]["l1_coefficient"] == 2e-5
    assert record["summary"]["fiedler"]["combinatorial_failures"] == {"not finite": 1}
    assert record["difference_to_none_in_test_accuracy"]["fiedler"] == {"mean": 0, "low": None, "high": None, "n": 1}
    assert (tmp_path / "summary.md").read_text(encoding="utf-8").count("| --- |") == 2


def test_output_folder_is_made(tmp_path):
    folder = tmp_path / "a" / "b"
    prepare_output(folder)
    assert folder.is_dir()
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize("below", ["", "deeper"])
def test_output_folder_that_cannot_be(tmp_path, below):
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match=r"cannot write to the output folder .*file.*--out"):
        prepare_output(tmp_path / "file" / below)


@pytest.mark.skipif(not Path("/proc/self").is_dir(), reason="needs a folder nobody can write to")
def test_output_folder_without_permission():
    with pytest.raises(OutputError, match="cannot write"):
        prepare_output(Path("/proc/self"))


def test_an_earlier_report_is_read(tmp_path):
    (tmp_path / "device.json").write_text('{"schema": 1, "figures": [2]}', encoding="utf-8")
    assert read_earlier(tmp_path / "device.json", "device.json", ("figures",)) == {"schema": 1, "figures": [2]}


@pytest.mark.parametrize("text", [None, "", "[]", '["schema", "figures"]', '"figures"', '{"schema": 1}', "\xff"])
def test_a_file_that_is_no_earlier_report_is_named_with_the_remedy(tmp_path, text):
    path = tmp_path / "other.json"
    if text is not None:
        path.write_bytes(text.encode("latin-1"))
    with pytest.raises(DataError, match=r"other\.json.*; name the device\.json of an earlier run"):
        read_earlier(path, "device.json", ("schema", "figures"))
