"""The benchmark of sizes: every network in a process of its own, slopes from the measurements."""

import json
import math
from pathlib import Path
from typing import Any

import pytest
from stepping import dense_by_default

from benchmarks import scale
from benchmarks._scaling import measured, slope, square, wide


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("scale")


@pytest.fixture(scope="module")
def record(out: Path) -> dict[str, Any]:
    assert scale.main(["--edges", "300,1200", "--vertices", "none", "--repeats", "1", "--out", str(out)]) == 0
    return json.loads((out / "scale.json").read_text())


def test_the_record_says_what_was_measured(record: dict[str, Any], out: Path) -> None:
    assert record["schema"] == scale.SCHEMA_VERSION
    assert record["normalized"] is True
    assert record["versions"]["jax"]
    small, large = record["measurements"]
    assert (small["name"], small["vertices"], small["edges"], small["weights"]) == ("10-10-10-10", 40, 300, 1200)
    assert (large["edges"], large["status"]) == (1200, "converged")
    assert small["peak_memory"] > 2**24
    assert small["solve_memory"] < large["solve_memory"]
    assert set(record["slopes"]) == {"square"}
    assert record["slopes"]["square"]["temporary memory"] > 0
    assert (out / "scale.png").stat().st_size > 10_000


def test_a_traced_model_can_be_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    import flax.linen as nn
    import jax
    import jax.numpy as jnp

    spec = jax.ShapeDtypeStruct((2, 6), jnp.float32)
    monkeypatch.setitem(scale.ARCHITECTURES, "tiny", lambda: (nn.Sequential([nn.Dense(5), nn.Dense(3)]), spec))
    with dense_by_default():
        found = measured(scale.Net("tiny"), normalized=False, repeats=1)
    assert (found.name, found.vertices, found.edges) == ("tiny", 6 + 5 + 3, 6 * 5 + 5 * 3)
    assert scale.scale_record([found], False)["slopes"] == {}


def test_the_families_have_the_sizes_asked_for() -> None:
    assert sum(wide(1e6).widths) == 1_000_000
    assert square(3e6).widths == (1000,) * 4


def test_a_slope_is_the_exponent() -> None:
    assert slope([1, 10, 100], [2, 2 * 10**1.5, 2 * 10**3]) == pytest.approx(1.5)
    assert math.isnan(slope([10, 10], [1, 2]))


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--edges", "many"], "--edges must be numbers"),
        (["--edges", "2"], "at least 3"),
        (["--vertices", "inf"], "at least 61"),
        (["--models", "gpt9"], "gpt9"),
        (["--repeats", "0"], "--repeats"),
        (["--edges", "none", "--vertices", "none"], "nothing to measure"),
    ],
)
def test_a_wrong_option_says_so(options: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert scale.main(options) == 2
    assert said in capsys.readouterr().err


def test_a_folder_that_cannot_be_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").write_text("")
    assert scale.main(["--out", str(tmp_path / "file" / "results")]) == 2
    assert "cannot write" in capsys.readouterr().err
