"""What a comparison leaves behind in numbers: tables, Markdown and JSON."""

import json
import math
import os
import platform
import tempfile
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import fields
from importlib import metadata
from pathlib import Path
from typing import Any, NamedTuple

import jax
from rich.table import Table

from benchmarks._config import CompareConfig
from benchmarks._data import Dataset
from benchmarks._errors import ConfigError, DataError, OutputError
from benchmarks._experiment import Run
from benchmarks._statistics import (
    CONFIDENCE,
    MeanSd,
    MethodSummary,
    PairedDifference,
    failures,
)
from benchmarks._training import NEAR_ZERO

SCHEMA_VERSION = 1
INTERVAL = f"{100 * CONFIDENCE:.0f} % interval"
DIFFERENCE_NOTE = (
    "Same initial weights and batch order within a pair. Student-t interval over "
    "seeds, each row on its own (no correction for several methods); the split "
    "into training and test examples is fixed."
)
_PACKAGES = ("fiedler_jax", "jax", "jaxlib", "flax", "optax", "numpy", "scipy", "scikit-learn")


class TextTable(NamedTuple):
    """A table ready to be shown; the first column holds names, the others numbers."""

    title: str
    headers: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    notes: tuple[str, ...]


def prepare_output(folder: Path) -> None:
    """Makes the output folder and proves that files can be written there.

    Raises:
        OutputError: it cannot be made or written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise OutputError(
            f"cannot write to the output folder {folder}: {error.strerror}; name another with --out"
        ) from error


def check_kept(earlier: Path | None, result: Path) -> None:
    """Raises ConfigError if the result would be written over the earlier one that is read."""
    if earlier is not None and earlier.resolve() == result.resolve():
        raise ConfigError(f"{earlier} is read and would be written over; name another folder with --out")


def read_earlier(path: Path, name: str, entries: Sequence[str]) -> dict[str, Any]:
    """What an earlier run wrote as JSON.

    Args:
        path: the file.
        name: what such files are called.
        entries: what must be in it.

    Raises:
        DataError: the file cannot be read or holds something else.
    """
    remedy = f"name the {name} of an earlier run"
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"cannot read {path}: {error}; {remedy}") from error
    if not isinstance(record, dict) or not set(entries) <= set(record):
        raise DataError(f"{path} is no {name}: it lacks {', '.join(entries)}; {remedy}")
    return record


def summary_table(summaries: Sequence[MethodSummary], runs: Sequence[Run]) -> TextTable:
    """The table of methods.

    Args:
        summaries: one per method, one row each.
        runs: all runs, to count the λ2 solves that failed on the way.

    Returns:
        The table; its notes say what a reader must know about the numbers.
    """
    seeds = summaries[0].n
    rows = tuple(
        (
            s.method,
            accuracy_cell(s.train_accuracy),
            accuracy_cell(s.test_accuracy),
            accuracy_cell(s.gap),
            _format(s.normalized, 1, 3) + _doubt(s.normalized_failures, s.n),
            _format(s.combinatorial, 1, 3) + _doubt(s.combinatorial_failures, s.n),
            _format(s.near_zero_share, 100, 1),
            f"{s.ms_per_step:.3f}",
        )
        for s in summaries
    )
    notes = [
        f"Mean ± sd over {counted(seeds, 'seed')}. Gap: train minus test accuracy. "
        f"Near zero: kernel weights with |w| < {NEAR_ZERO:g}. "
        f"ms per step: {_timing_text(runs)}.",
        *_coefficient_notes(summaries),
        *convergence_notes(runs),
        *refresh_notes(runs),
        *skip_notes(runs),
    ]
    return TextTable(
        "After training",
        (
            "method",
            "train acc. %",
            "test acc. %",
            "gap, points",
            "λ2 normalized",
            "λ2 combinatorial",
            "near zero %",
            "ms per step",
        ),
        rows,
        tuple(notes),
    )


def difference_table(differences: Mapping[str, PairedDifference]) -> TextTable:
    """The table of paired differences in test accuracy to ``none``."""
    return TextTable(
        "Test accuracy, difference to none in points",
        ("method", "difference", INTERVAL, "n"),
        tuple((method, *difference_cells(d), str(d.n)) for method, d in differences.items()),
        (DIFFERENCE_NOTE,),
    )


def accuracy_cell(value: MeanSd) -> str:
    """An accuracy, or a difference of two, in per cent, with its spread if it has one."""
    return _format(value, 100, 2)


def difference_cells(difference: PairedDifference) -> tuple[str, str]:
    """A difference of accuracies and its interval, in points."""
    interval = f"[{100 * difference.low:+z.2f}, {100 * difference.high:+z.2f}]"
    return f"{100 * difference.mean:+z.2f}", "n/a" if difference.n < 2 else interval


def rich_table(table: TextTable) -> Table:
    """The table for a terminal."""
    shown = Table(title=table.title, caption="\n".join(table.notes), caption_justify="left")
    for index, header in enumerate(table.headers):
        shown.add_column(header, justify="right" if index else "left", no_wrap=not index)
    for row in table.rows:
        shown.add_row(*row)
    return shown


def markdown_table(table: TextTable) -> str:
    """The table as Markdown, title first and notes last."""
    rule = ["---", *["---:"] * (len(table.headers) - 1)]
    # A bar inside a cell would end it.
    notes = [note.replace("|", "\\|") for note in table.notes]
    lines = ["| " + " | ".join(row) + " |" for row in (table.headers, rule, *table.rows)]
    return "\n\n".join([f"**{table.title}**", "\n".join(lines), *notes]) + "\n"


def result_record(
    config: CompareConfig,
    data: Dataset,
    runs: Sequence[Run],
    summaries: Sequence[MethodSummary],
    differences: Mapping[str, PairedDifference],
) -> dict[str, Any]:
    """Everything measured, as what JSON can hold; numbers that are not finite are None.

    Args:
        config: the comparison.
        data: its examples, for their counts.
        runs: all runs.
        summaries: one per method.
        differences: to ``none``, by method.

    Returns:
        A tree of dicts, lists, strings and numbers.
    """
    record = {
        "schema_version": SCHEMA_VERSION,
        "config": {f.name: getattr(config, f.name) for f in fields(config)},
        "data": {
            "train_examples": len(data.train_labels),
            "test_examples": len(data.test_labels),
            "features": data.train_inputs.shape[1],
            "classes": data.classes,
        },
        "near_zero_threshold": NEAR_ZERO,
        "confidence": CONFIDENCE,
        "versions": package_versions(),
        "device": {
            "platform": jax.devices()[0].platform,
            "kind": jax.devices()[0].device_kind,
            "cpu_cores": os.cpu_count(),
        },
        # A vector of every network would outgrow all else.
        "runs": [{key: value for key, value in run._asdict().items() if key != "fiedler_vector"} for run in runs],
        "summary": {s.method: s for s in summaries},
        "difference_to_none_in_test_accuracy": differences,
    }
    return plain(record)


def write_results(folder: Path, record: Mapping[str, Any], tables: Sequence[TextTable]) -> None:
    """Writes ``results.json`` and ``summary.md``."""
    text = json.dumps(record, indent=1, allow_nan=False, ensure_ascii=False)
    (folder / "results.json").write_text(text + "\n", encoding="utf-8")
    write_tables(folder / "summary.md", tables)


def write_tables(path: Path, tables: Sequence[TextTable]) -> None:
    """Writes tables as Markdown."""
    path.write_text("\n".join(markdown_table(table) for table in tables), encoding="utf-8")


def package_versions() -> dict[str, str | None]:
    """Versions of Python and the packages that matter; None where not installed."""

    def version(package: str) -> str | None:
        try:
            return metadata.version(package)
        except metadata.PackageNotFoundError:
            return None

    versions = {package: version(package) for package in _PACKAGES}
    return {"python": platform.python_version(), **versions}


def _format(value: MeanSd, factor: float, digits: int) -> str:
    mean = f"{factor * value.mean:z.{digits}f}"
    return mean if math.isnan(value.sd) else f"{mean} ± {factor * value.sd:.{digits}f}"


def _doubt(counts: Mapping[str, int], n: int) -> str:
    return "".join(f" ({count} of {n}: {status})" for status, count in counts.items())


def _timing_text(runs: Sequence[Run]) -> str:
    if len(runs[0].points) > 2:
        return "median over epochs, the first of each seed left out"
    return "of the only epoch, which runs slower than later ones would"


def counted(n: int, noun: str) -> str:
    """A number and what it counts."""
    return f"{n} {noun}" + ("" if n == 1 else "s")


def _coefficient_notes(summaries: Sequence[MethodSummary]) -> list[str]:
    coefficients = [
        (s.method if s.method == regularizer else f"{s.method} ({regularizer})", value)
        for s in summaries
        for regularizer, value in s.l1_coefficients.items()
    ]
    if not coefficients:
        return []
    listed = ", ".join(f"{name} {value:.2g}" for name, value in coefficients)
    return [f"Mean effective L1 coefficient at the last refresh: {listed}."]


def convergence_notes(runs: Sequence[Run]) -> list[str]:
    """Whether the λ2 solves along the curves converged."""
    solves = [pair for run in runs for point in run.points for pair in (point.normalized, point.combinatorial)]
    failed = failures(solves)
    if not failed:
        return [f"All {len(solves)} λ2 solves along the curves converged."]
    listed = ", ".join(f"{count} {status}" for status, count in failed.items())
    return [
        f"Of {len(solves)} λ2 solves along the curves, {sum(failed.values())} did not "
        f"converge ({listed}); results.json says which."
    ]


def refresh_notes(runs: Sequence[Run]) -> list[str]:
    """How often Fiedler penalties were refreshed."""
    counts: dict[str, list[int]] = {}
    for run in runs:
        for penalty in run.points[-1].penalties.values():
            counts.setdefault(run.method, []).append(penalty.refreshes)
    listed = ", ".join(f"{method} {sum(found) / len(found):.4g}" for method, found in counts.items())
    return [f"Refreshes of a Fiedler penalty in a run, on average: {listed}."] if listed else []


def skip_notes(runs: Sequence[Run]) -> list[str]:
    """How many steps went without their Fiedler penalty."""
    skipped = Counter()
    for run in runs:
        skipped[run.method] += sum(penalty.skipped for penalty in run.points[-1].penalties.values())
    listed = ", ".join(f"{method} {count}" for method, count in skipped.items() if count)
    return [f"Steps without the Fiedler penalty, for want of a usable vector: {listed}."] if listed else []


def plain(value: Any) -> Any:
    """A tree of what JSON can hold; numbers that are not finite are None."""
    if isinstance(value, tuple) and hasattr(value, "_asdict"):
        return plain(value._asdict())  # pyright: ignore[reportAttributeAccessIssue]
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
