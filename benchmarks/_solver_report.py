"""Tables, Markdown and JSON of the eigensolver benchmark."""

import json
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import fields
from importlib import metadata
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from benchmarks._cases import ACCURACY, CaseResult, SolverConfig
from benchmarks._hard_graphs import HardResult
from benchmarks._judging import Result
from benchmarks._report import TextTable, markdown_table, package_versions, plain

SCHEMA_VERSION = 1
_PACKAGES = ("scipy", "matfree", "networkx")
_SHORT = {"combinatorial": "comb.", "normalized": "norm.", "float32": "f32", "float64": "f64"}


class SilentWrong(NamedTuple):
    """A solver said that it succeeded, and was wrong; the errors are relative."""

    case: str
    solver: str
    setting: str
    error: float | None
    promise: float | None


def timing_table(config: SolverConfig, results: Sequence[CaseResult]) -> TextTable:
    """Median milliseconds of every solver on every case, with the ratio to ours."""
    compiling = "ours" in config.solvers
    headers = ["case", *[c.name for c in config.contenders]]
    if compiling:
        headers.insert(2, "compile s")
    rows = []
    for found in results:
        cells = [_cell(result, ratio_to_ours(result, found.results)) for result in found.results]
        if compiling:
            cells.insert(1, f"{found.compile_seconds:.2f}")
        rows.append((" ".join(_SHORT.get(part, part) for part in found.case), *cells))
    return TextTable("Fiedler value, milliseconds a solve", tuple(headers), tuple(rows), _notes(config, results))


def hard_table(config: SolverConfig, results: Sequence[HardResult]) -> TextTable:
    """Median milliseconds of every solver on every hard graph, or how it failed."""
    rows = tuple((h.graph, f"{h.reference.value:.4g}", *[_cell(r, math.nan) for r in h.results]) for h in results)
    note = (
        f"Combinatorial Laplacian in float64, cold start, relative error demanded {config.rules('float64').accuracy:g} "
        "(of the bound of the spectrum where λ2 is 0). Each solver in a process of its own."
    )
    headers = ("graph", "λ2", *[c.name for c in config.contenders])
    return TextTable("Hard graphs, milliseconds a solve", headers, rows, (note,))


def silent_table(silent: Sequence[SilentWrong]) -> TextTable:
    """The wrong answers that came with a claim of success."""
    rows = tuple((s.case, s.solver, s.setting, f"{_number(s.error):.1e}", f"{_number(s.promise):.1e}") for s in silent)
    return TextTable(
        "Silent wrong answers",
        ("case", "solver", "setting", "error", "promised"),
        rows,
        (
            "The solver claimed success, with a relative error above ten times both the target and what its tolerance "
            "promises; of several settings the tightest. Settings on the way to the one that was timed count too.",
        ),
    )


def silent_wrong_answers(results: Sequence[CaseResult], hard: Sequence[HardResult]) -> list[SilentWrong]:
    """All silent wrong answers, those on the way to a tolerance included; per solver and case the tightest setting."""
    judged = [(str(r.case), r.results) for r in results] + [(h.graph, h.results) for h in hard]
    found = []
    for name, entries in judged:
        for entry in entries:
            silent = [attempt for attempt in entry.attempts if attempt.silent]
            if silent:
                tightest = min(silent, key=lambda attempt: attempt.promise or 0.0)
                found.append(SilentWrong(name, entry.solver, tightest.setting, tightest.error, tightest.promise))
    return sorted(found, key=lambda wrong: _number(wrong.promise))


def ratio_to_ours(result: Result, results: Sequence[Result]) -> float:
    """How many times longer than ours a solver took: the median over the rounds in which both ran."""
    ours = next((r.seconds for r in results if r.solver == "ours"), ())
    ratios = [theirs / own for theirs, own in zip(result.seconds, ours, strict=False)]
    return float(np.median(ratios)) if ratios else math.nan


def solver_record(
    config: SolverConfig,
    results: Sequence[CaseResult],
    hard: Sequence[HardResult],
    silent: Sequence[SilentWrong],
    command: str,
) -> dict[str, Any]:
    """Everything measured, as what JSON can hold; numbers that are not finite are None."""
    record = {
        "schema_version": SCHEMA_VERSION,
        "command": command,
        "config": {f.name: getattr(config, f.name) for f in fields(config)},
        "accuracy": {dtype: config.rules(dtype).accuracy for dtype in ACCURACY},
        "versions": solver_versions(),
        "device": {
            "platform": jax.devices()[0].platform,
            "cpu_cores": os.cpu_count(),
            "load_average": os.getloadavg() if hasattr(os, "getloadavg") else None,
        },
        "cases": [_case_record(found) for found in results],
        "hard_graphs": [
            {
                "graph": h.graph,
                "reference": {"value": h.reference.value, "method": h.reference.method},
                "results": [_result_record(result, ()) for result in h.results],
            }
            for h in hard
        ],
        "silent_wrong_answers": silent,
    }
    return plain(record)


def write_report(folder: Path, record: Mapping[str, Any], tables: Sequence[TextTable]) -> None:
    """Writes ``eigensolvers.json`` and ``eigensolvers.md``."""
    text = json.dumps(record, indent=1, allow_nan=False, ensure_ascii=False)
    (folder / "eigensolvers.json").write_text(text + "\n", encoding="utf-8")
    versions = ", ".join(f"{name} {version}" for name, version in record["versions"].items())
    tail = f"{versions}; {record['device']['cpu_cores']} CPU cores.\n\n`{record['command']}`\n"
    markdown = "\n".join([*(markdown_table(table) for table in tables), tail])
    (folder / "eigensolvers.md").write_text(markdown, encoding="utf-8")


def solver_versions() -> dict[str, str | None]:
    """Versions of Python and of all packages that take part."""
    return {**package_versions(), **{package: metadata.version(package) for package in _PACKAGES}}


def _cell(result: Result, ratio: float) -> str:
    if result.outcome in ("skipped", "failed", "ended"):
        return "n/a" if result.outcome == "skipped" else result.outcome
    error = "" if result.error is None else f" {result.error:.0e}"
    if result.outcome == "slow":
        return f"too slow{error}"
    time = _digits(1e3 * result.median)
    if result.outcome == "wrong":
        return f"wrong{error}, {time}"
    return time if result.solver == "ours" or math.isnan(ratio) else f"{time} ({_digits(ratio)}x)"


def _digits(number: float) -> str:
    return f"{number:.0f}" if number >= 100 else f"{number:.1f}" if number >= 10 else f"{number:.2f}"


def _notes(config: SolverConfig, results: Sequence[CaseResult]) -> tuple[str, ...]:
    targets = ", ".join(f"{config.rules(dtype).accuracy:g} in {dtype}" for dtype in config.dtypes)
    return (
        "Median time; in brackets the ratio to ours in the same round, above 1 where ours is faster. Relative error "
        f"demanded: {targets}. Ours is given that as its tolerance; {_others(config)}. wrong: no tolerance met the "
        "demand (with the least error, then the time); too slow: none did within the time allowed.",
        *_left_out(results),
    )


def _others(config: SolverConfig) -> str:
    if config.settings_of is not None:
        return (
            "the others have one setting for all cases of a precision, as if they did not know them: the tightest that "
            "any case needed in an earlier run"
        )
    return (
        "the others the loosest of a ladder whose actual error meets the demand, so they are told the answer; matfree "
        "is told its number of steps"
    )


def _left_out(results: Sequence[CaseResult]) -> list[str]:
    where: dict[str, list[str]] = {}
    for found in results:
        for result in found.results:
            if result.outcome in ("skipped", "failed"):
                label = f"{result.solver}, {result.reason}"
                where.setdefault(label, []).append(found.case.net)
    listed = [f"{label} ({', '.join(dict.fromkeys(nets))})" for label, nets in where.items()]
    return [f"Left out or failed: {'; '.join(listed)}."] if listed else []


def _case_record(found: CaseResult) -> dict[str, Any]:
    return {
        **found.case._asdict(),
        "sizes": found.sizes,
        "vertices": sum(found.sizes),
        "edges": found.edges,
        "reference": {"value": found.reference.value, "method": found.reference.method},
        "compile_seconds": found.compile_seconds,
        "results": [_result_record(result, found.results) for result in found.results],
    }


def _result_record(result: Result, results: Sequence[Result]) -> dict[str, Any]:
    times = np.array(result.seconds or (math.nan,))
    return {
        **{k: v for k, v in result._asdict().items() if k != "attempts"},
        "median": result.median,
        "quartiles": [float(q) for q in np.quantile(times, (0.25, 0.75))],
        "fastest": float(times.min()),
        "ratio_to_ours": ratio_to_ours(result, results) if result.outcome == "ok" else math.nan,
        "attempts": result.attempts,
    }


def _number(value: float | None) -> float:
    return math.nan if value is None else value
