import os
from pathlib import Path

import numpy as np
import pytest

from benchmarks._data import tcga
from benchmarks._data.tcga import load_tcga
from benchmarks._errors import DataError

KINDS = ("PRAD", "LUAD", "BRCA", "KIRC", "COAD")
SAMPLES, GENES = 610, 3


def values_of(seed: int = 0) -> np.ndarray:
    values = np.random.default_rng(seed).gamma(2.0, 3.0, (SAMPLES, GENES))
    values[::7, 1] = 0.0
    return values


def data_lines(values: np.ndarray) -> list[str]:
    rows = [f"sample_{i}," + ",".join(repr(float(value)) for value in row) for i, row in enumerate(values)]
    return ["," + ",".join(f"gene_{j}" for j in range(values.shape[1])), *rows]


def write(path: Path, lines: list[str]) -> None:
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")


def label_lines() -> list[str]:
    return [",Class", *(f"sample_{i},{KINDS[i % 5]}" for i in range(SAMPLES))]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder like TCGA's, with 610 samples of 3 genes."""
    write(tmp_path / "data.csv", data_lines(values_of()))
    write(tmp_path / "labels.csv", label_lines())
    return tmp_path


@pytest.fixture
def parses(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The files that were parsed so far."""
    parsed, parse = [], tcga._parse_table
    monkeypatch.setattr(tcga, "_parse_table", lambda path, *rest: (parsed.append(path), parse(path, *rest))[1])
    return parsed


def test_first_600_samples_train_and_the_others_test(folder):
    data = load_tcga(folder)
    np.testing.assert_array_equal(data.train_inputs, values_of()[:600].astype(np.float32))
    np.testing.assert_array_equal(data.test_inputs, values_of()[600:].astype(np.float32))
    names = sorted(KINDS)
    assert [names[label] for label in data.train_labels[:6]] == [KINDS[i % 5] for i in range(6)]
    assert [names[label] for label in data.test_labels] == [KINDS[i % 5] for i in range(600, 610)]
    assert (data.train_inputs.dtype, data.train_labels.dtype, data.classes) == (np.float32, np.int32, 5)


def test_lines_may_end_as_on_windows(folder):
    for name in ("data.csv", "labels.csv"):
        (folder / name).write_bytes((folder / name).read_bytes().replace(b"\n", b"\r\n"))
    np.testing.assert_array_equal(load_tcga(folder).test_inputs, values_of()[600:].astype(np.float32))


@pytest.mark.parametrize("name", ["data.csv", "labels.csv"])
def test_missing_file_is_named(folder, name):
    (folder / name).unlink()
    with pytest.raises(DataError, match=f"{name} is missing"):
        load_tcga(folder)


def replace_line(path: Path, number: int, text: str | None) -> None:
    """Puts another text, or nothing, in the place of a line counted from 1."""
    lines = path.read_text(encoding="utf-8").splitlines()
    write(path, lines[: number - 1] + ([] if text is None else [text]) + lines[number:])


@pytest.mark.parametrize(
    ("name", "number", "text", "message"),
    [
        ("data.csv", 1, "gene_0,gene_1,gene_2", "data.csv, line 1: the header must be an empty field"),
        ("data.csv", 1, "", "data.csv, line 1: the header"),
        ("data.csv", 5, "sample_3,1.0,2.0", "data.csv, line 5: 3 columns, the header has 4"),
        ("data.csv", 5, "sample_3,1.0,2.0,3.0,4.0", "data.csv, line 5: 5 columns, the header has 4"),
        ("data.csv", 611, "", "data.csv, line 611: 1 columns"),
        ("data.csv", 7, "sample_5,1.0,two,3.0", "data.csv, line 7: gene_1 is 'two', not a finite"),
        ("data.csv", 7, "sample_5,1.0,2.0,", "data.csv, line 7: gene_2 is '', not a finite"),
        ("data.csv", 7, "sample_5,NaN,2.0,3.0", "data.csv, line 7: gene_0 is 'NaN', not a finite"),
        ("data.csv", 7, "sample_5,1.0,2.0,-inf", "data.csv, line 7: gene_2 is '-inf', not a finite"),
        ("data.csv", 7, "sample_5,1.0,2.0,1e39", "data.csv, line 7: gene_2 is '1e39', not a finite"),
        ("data.csv", 9, None, "data.csv ends after 609 samples, but there are labels for 610"),
        ("data.csv", 9, "other_7,1.0,2.0,3.0", "labels.csv, line 9: sample 'sample_7', but .*data.csv has 'other_7'"),
        ("labels.csv", 1, "sample_0,PRAD", "labels.csv, line 1: the header must be ',Class'"),
        ("labels.csv", 8, "sample_6", "labels.csv, line 8: 'sample_6' is not of the form sample,class"),
        ("labels.csv", 8, "sample_6,", "labels.csv, line 8: 'sample_6,' is not of the form"),
        ("labels.csv", 8, "sample_6,LUAD,1", "labels.csv, line 8: 'sample_6,LUAD,1' is not of the form"),
        ("labels.csv", 8, "sample_7,LUAD", "labels.csv, line 8: sample 'sample_7', but .*data.csv has 'sample_6'"),
        ("labels.csv", 8, "sample_6,luad", r"labels.csv holds 6 classes \(BRCA, COAD, KIRC, LUAD, PRAD, luad\), not 5"),
        ("labels.csv", 611, None, "data.csv, line 611: there are labels for 609 samples only"),
    ],
)
def test_damaged_files_are_refused_by_line(folder, name, number, text, message):
    replace_line(folder / name, number, text)
    with pytest.raises(DataError, match=message):
        load_tcga(folder)
    assert sorted(path.name for path in folder.iterdir() if path.suffix != ".npz") == ["data.csv", "labels.csv"]


@pytest.mark.parametrize(("name", "cut", "line"), [("data.csv", 1, 611), ("data.csv", 9, 611), ("labels.csv", 2, 611)])
def test_truncated_last_line_is_refused(folder, name, cut, line):
    content = (folder / name).read_bytes()
    (folder / name).write_bytes(content[:-cut])
    with pytest.raises(DataError, match=f"{name}, line {line}: the last line has no line break"):
        load_tcga(folder)


@pytest.mark.parametrize("name", ["data.csv", "labels.csv"])
def test_empty_file_is_refused(folder, name):
    (folder / name).write_bytes(b"")
    with pytest.raises(DataError, match=f"{name} is empty"):
        load_tcga(folder)


def test_bytes_that_are_no_text_are_refused(folder):
    (folder / "data.csv").write_bytes(bytes(range(256)) * 20)
    with pytest.raises(DataError, match=r"data\.csv, line 1"):
        load_tcga(folder)


def test_too_few_samples_are_refused(folder):
    write(folder / "data.csv", data_lines(values_of()[:600]))
    write(folder / "labels.csv", label_lines()[:601])
    with pytest.raises(DataError, match=r"labels\.csv holds 600 samples.*at least 601"):
        load_tcga(folder)


def test_second_load_parses_nothing_and_gives_the_same(folder, parses):
    first, second = load_tcga(folder), load_tcga(folder)
    assert parses == [folder / "data.csv"]
    np.testing.assert_array_equal(second.train_inputs, first.train_inputs)
    np.testing.assert_array_equal(second.test_inputs, first.test_inputs)
    np.testing.assert_array_equal(second.test_labels, first.test_labels)
    assert sorted(path.name for path in folder.iterdir()) == ["data.csv", "data.csv.npz", "labels.csv"]


def test_labels_are_checked_against_the_cache(folder, parses):
    load_tcga(folder)
    replace_line(folder / "labels.csv", 8, "sample_9,LUAD")
    with pytest.raises(DataError, match=r"labels\.csv, line 8: sample 'sample_9'"):
        load_tcga(folder)
    replace_line(folder / "labels.csv", 8, None)
    with pytest.raises(DataError, match=r"610 samples but .* 609 labels"):
        load_tcga(folder)
    assert len(parses) == 1


def test_data_of_another_size_is_parsed_again(folder, parses):
    load_tcga(folder)
    before = (folder / "data.csv").stat()
    replace_line(folder / "data.csv", 2, "sample_0,1.0,2.0,3.0")
    os.utime(folder / "data.csv", ns=(before.st_atime_ns, before.st_mtime_ns))
    np.testing.assert_array_equal(load_tcga(folder).train_inputs[0], [1, 2, 3])
    assert len(parses) == 2
    load_tcga(folder)
    assert len(parses) == 2


def test_data_of_the_same_size_but_another_time_is_parsed_again(folder, parses):
    path = folder / "data.csv"
    load_tcga(folder)
    content, before = path.read_bytes(), path.stat()
    row = content.splitlines()[1]
    digit = b"9" if row[-1:] != b"9" else b"8"
    changed = content.replace(row, row[:9] + digit + row[10:], 1)
    assert len(changed) == len(content)
    path.write_bytes(changed)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns + 1_000_000))
    value = float(changed.splitlines()[1].split(b",")[1])
    np.testing.assert_allclose(load_tcga(folder).train_inputs[0, 0], value, rtol=1e-6)
    assert len(parses) == 2


@pytest.mark.parametrize("content", [b"", b"not a cache", b"PK\x03\x04 cut", b"\x93NUMPY\x01\x00"])
def test_damaged_cache_is_made_anew(folder, parses, content):
    cache = folder / "data.csv.npz"
    cache.write_bytes(content)
    load_tcga(folder)
    load_tcga(folder)
    assert len(parses) == 1


@pytest.mark.parametrize("cut", [30, 2000, 1])
def test_truncated_cache_is_made_anew(folder, parses, cut):
    first = load_tcga(folder)
    cache = folder / "data.csv.npz"
    cache.write_bytes(cache.read_bytes()[:-cut])
    np.testing.assert_array_equal(load_tcga(folder).train_inputs, first.train_inputs)
    assert len(parses) == 2


def test_other_arrays_in_its_place_are_no_cache(folder, parses):
    np.savez(folder / "data.csv.npz", something=np.zeros(3))
    load_tcga(folder)
    with (folder / "data.csv.npz").open("wb") as stream:
        np.save(stream, np.zeros(3))
    load_tcga(folder)
    assert len(parses) == 2


def test_folder_without_room_for_a_cache(folder, parses):
    # A folder stands where the cache would be; taking away permissions does not stop every user.
    (folder / "data.csv.npz").mkdir()
    for _ in range(2):
        np.testing.assert_array_equal(load_tcga(folder).test_inputs, values_of()[600:].astype(np.float32))
    assert len(parses) == 2
    assert sorted(path.name for path in folder.iterdir()) == ["data.csv", "data.csv.npz", "labels.csv"]


def test_folder_that_takes_no_new_files(folder, monkeypatch):
    def refuse(*_, **__):
        raise PermissionError("read-only")

    monkeypatch.setattr(tcga.tempfile, "NamedTemporaryFile", refuse)
    assert len(load_tcga(folder).train_inputs) == 600
    assert not (folder / "data.csv.npz").exists()


@pytest.mark.parametrize("interruption", [KeyboardInterrupt, OSError])
def test_interrupted_run_leaves_no_half_cache(folder, parses, monkeypatch, interruption):
    def half(stream, **arrays):
        stream.write(b"half of it")
        raise interruption

    with monkeypatch.context() as patch:
        patch.setattr(np, "savez", half)
        if interruption is KeyboardInterrupt:
            with pytest.raises(KeyboardInterrupt):
                load_tcga(folder)
        else:
            load_tcga(folder)
    assert sorted(path.name for path in folder.iterdir()) == ["data.csv", "labels.csv"]
    load_tcga(folder)
    assert len(parses) == 2
