"""The benchmark of one device: its figures are of what they say, its table shows what became worse."""

import json
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import pytest
from stepping import dense_by_default

from benchmarks import device
from benchmarks._errors import DataError
from benchmarks._prices import PriceConfig, Step, _interleaved_steps, product_figures, step_figures

TINY = [
    "--widths",
    "12,8,4",
    "--rounds",
    "1",
    "--refresh-every",
    "2",
    "--side",
    "16",
    "--batch",
    "4",
    "--dtypes",
    "bfloat16",
]
FIGURE = {"name": "step", "value": 1.5, "unit": "ms", "guarded": True}


@pytest.fixture(scope="module")
def record(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    out = tmp_path_factory.mktemp("device")
    with dense_by_default():
        assert device.main([*TINY, "--out", str(out)]) == 0
    return json.loads((out / "device.json").read_text())


def test_the_record_says_what_was_measured_on_what(record: dict[str, Any]) -> None:
    assert record["schema"] == device.SCHEMA_VERSION
    assert record["device"]["platform"] == "cpu"
    assert record["versions"]["jax"]
    assert record["config"]["widths"] == [12, 8, 4]
    names = [(one["name"], one["unit"]) for one in record["figures"]]
    assert len(set(names)) == len(names)
    assert all(one["value"] == one["value"] for one in record["figures"])
    for kind in ("normalized", "combinatorial"):
        for what in (
            "step with refreshes",
            "step between refreshes",
            "first step compiled",
            "first step, persistent cache",
        ):
            assert (f"{what}, bfloat16, {kind}", "x weight decay") in names
        assert (f"cold solve, bfloat16, {kind}", "block products") in names
    assert not any("float32" in name for name, _ in names)
    assert {("4 seeds, count unmapped", "x one by one"), ("4 seeds, count mapped", "x one by one")} <= set(names)


def test_a_step_holds_one_refresh_a_round(monkeypatch: pytest.MonkeyPatch) -> None:
    # What the steps cost is the ratio of clock readings: with a clock that counts its readings every one is 1.
    readings = iter(range(10_000))
    monkeypatch.setattr("benchmarks._prices.time.perf_counter", lambda: float(next(readings)))
    monkeypatch.setattr("benchmarks._prices.COMPILATIONS", 1)
    config = PriceConfig(widths=(6, 4, 2), batch=2, refresh_every=2, rounds=2, side=8)
    found = {(figure.name, figure.unit): figure.value for figure in step_figures(config, "float32")}
    assert found["step with refreshes, float32, normalized", "x weight decay"] == 1
    assert found["step, float32, weight decay", "ms"] == 1000
    assert found["step, float32, weight decay again", "x weight decay"] == 1


def test_no_kind_of_step_always_follows_the_same_one() -> None:
    begun: list[str] = []

    def step(name: str) -> Step:
        def run(calls: int, *_: Any) -> tuple[int, None]:
            if calls % 3 == 0:
                begun.append(name)
            return calls + 1, None

        return Step(run, (0, None), (jnp.zeros(1), jnp.zeros(1)), 0.0, 0.0, 0)

    config = PriceConfig(rounds=2, refresh_every=3)
    refreshing, between = _interleaved_steps(config, {name: step(name) for name in "abc"})
    assert begun == list("abcbcacab")
    assert {len(found) for found in (*refreshing.values(), *between.values())} == {2}


def test_products_are_measured_in_reads_of_the_block(monkeypatch: pytest.MonkeyPatch) -> None:
    readings = iter(range(10_000))
    monkeypatch.setattr("benchmarks._prices.time.perf_counter", lambda: float(next(readings)))
    found = [figure for figure in product_figures(PriceConfig(rounds=1, side=8)) if figure.unit == "GB/s"]
    assert found[0].value == pytest.approx(8 * 8 * 4 / 1e9)


def test_a_table_of_old_and_new_marks_what_became_worse() -> None:
    def record_of(value: float, **more: Any) -> dict[str, Any]:
        return {
            "device": {"kind": "cpu", "platform": "cpu", "cores": 2},
            "versions": {"jax": "1"},
            "config": {"rounds": 1},
            "figures": [FIGURE | {"value": value}, *more.get("figures", [])],
        }

    table = device.price_table(record_of(3.0), record_of(1.5))
    assert table.rows == (("step", "3", "1.5", "2.00 !", "ms"),)
    assert device.price_table(record_of(1.5), record_of(1.5)).rows[0][3] == "1.00"
    added = device.price_table(record_of(1.5, figures=[FIGURE | {"name": "new"}]), record_of(1.5))
    assert added.rows[1] == ("new", "1.5", "", "", "ms")
    assert device.price_table(record_of(1.5), None).headers == ("what", "value", "unit")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--widths", "12"], "at least two layers"),
        (["--widths", "a,b"], "whole numbers"),
        (["--rounds", "0"], "--rounds"),
        (["--refresh-every", "1"], "--refresh-every must be at least 2"),
        (["--dtypes", "float16"], "--dtypes"),
        (["--against", "nowhere.json"], "nowhere.json"),
    ],
)
def test_a_wrong_option_says_so(options: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert device.main([*TINY, *options]) == 2
    assert said in capsys.readouterr().err


def test_a_result_of_another_schema_is_not_compared(tmp_path: Path) -> None:
    path = tmp_path / "other.json"
    path.write_text('{"schema": 0, "figures": []}')
    with pytest.raises(DataError, match=r"other\.json is of schema 0, not 1; measure it again"):
        device.read_record(path)


def test_an_earlier_result_is_not_written_over(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "device.json").write_text("{}")
    assert device.main([*TINY, "--against", str(tmp_path / "device.json"), "--out", str(tmp_path)]) == 2
    assert "would be written over; name another folder with --out" in capsys.readouterr().err
    assert (tmp_path / "device.json").read_text() == "{}"


def test_a_folder_that_cannot_be_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").write_text("")
    assert device.main([*TINY, "--out", str(tmp_path / "file" / "results")]) == 2
    assert "cannot write" in capsys.readouterr().err
