"""Times of the eigensolver benchmark as PNG."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from benchmarks._cases import CaseResult
from benchmarks._judging import Result

# Okabe and Ito's colours; ours is the black one.
_STYLES: Mapping[str, tuple[str, str]] = {
    "ours": ("#000000", "o"),
    "lobpcg": ("#0072B2", "s"),
    "eigsh": ("#D55E00", "^"),
    "eigsh-invert": ("#E69F00", "v"),
    "networkx": ("#CC79A7", "D"),
    "networkx-lanczos": ("#8C564B", "d"),
    "jax-lobpcg": ("#56B4E9", "P"),
    "matfree": ("#009E73", "X"),
    "dense": ("#777777", "*"),
}
_SPREAD = 0.7


def plot_times(results: Sequence[CaseResult], solvers: Sequence[str], path: Path) -> None:
    """Draws the median time of every solver on every case, one panel for each Laplacian and precision.

    Args:
        results: all cases.
        solvers: the order within a case and in the legend, which leaves out who was never timed.
        path: the PNG to write.
    """
    drawn = {r.solver for case in results for r in case.results if r.seconds}
    solvers = [solver for solver in solvers if solver in drawn]
    kinds, dtypes = _distinct(results, "kind"), _distinct(results, "dtype")
    rows = max(
        sum(r.case.kind == kind and r.case.dtype == dtype for r in results) for kind in kinds for dtype in dtypes
    )
    figure = Figure(figsize=(2.6 + max(0.62 * rows, 3) * len(dtypes), 1.6 + 3.6 * len(kinds)), layout="constrained")
    axes = figure.subplots(len(kinds), len(dtypes), squeeze=False, sharey=True)
    for row, kind in zip(axes, kinds, strict=True):
        for ax, dtype in zip(row, dtypes, strict=True):
            chosen = [r for r in results if (r.case.kind, r.case.dtype) == (kind, dtype)]
            _draw(ax, chosen, solvers)
            ax.set_title(f"{kind}, {dtype}", fontsize=11)
        row[0].set_ylabel("median time of a solve")
    handles = [*(_mark(solver) for solver in solvers), _mark("ours", hollow=True)]
    handles[-1].set_label("hollow, crossed: wrong or too slow")
    figure.legend(handles=handles, loc="outside lower center", ncols=1 + 2 * len(dtypes), frameon=False)
    figure.savefig(path, dpi=150)


def _draw(ax: Axes, results: Sequence[CaseResult], solvers: Sequence[str]) -> None:
    for place, found in enumerate(results):
        if place % 2:
            ax.axvspan(place - 0.5, place + 0.5, color="#f2f2f2", linewidth=0, zorder=0)
        for result in found.results:
            if result.seconds:
                _point(ax, place + _SPREAD * _offset(solvers.index(result.solver), len(solvers)), result)
    ax.set_yscale("log")
    ax.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    ax.yaxis.set_major_formatter(FuncFormatter(_duration))
    ax.yaxis.set_minor_formatter(NullFormatter())
    ax.set_xlim(-0.5, len(results) - 0.5)
    labels = [f"{r.case.net} {r.case.state}{' warm' * (r.case.start == 'warm')}" for r in results]
    ax.set_xticks(range(len(results)), labels, rotation=40, ha="right", fontsize=8)
    ax.grid(axis="y", alpha=0.3)


def _point(ax: Axes, x: float, result: Result) -> None:
    colour, marker = _STYLES[result.solver]
    right = result.outcome == "ok"
    ax.plot(x, result.median, marker, color=colour, markerfacecolor=colour if right else "none", markersize=6)
    if not right:
        ax.plot(x, result.median, "x", color=colour, markersize=9, markeredgewidth=0.9)


def _mark(solver: str, hollow: bool = False) -> Line2D:
    colour, marker = _STYLES[solver]
    return Line2D(
        [], [], linestyle="", marker=marker, color=colour, markerfacecolor="none" if hollow else colour, label=solver
    )


def _offset(index: int, count: int) -> float:
    return (index + 0.5) / count - 0.5


def _duration(seconds: float, _: int) -> str:
    return f"{seconds:g} s" if seconds >= 1 else f"{1e3 * seconds:g} ms"


def _distinct(results: Sequence[CaseResult], field: str) -> list[str]:
    return list(dict.fromkeys(getattr(result.case, field) for result in results))
