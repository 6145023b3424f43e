"""The figures of the study."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from benchmarks._study.judgement import Comparison, Outcome, SparsityPoint
from benchmarks._study.task import Task

_COLOURS = {"helps": "tab:green", "no difference": "tab:gray", "hurts": "tab:red", "diverged": "tab:red"}

_POINTS_SHOWN, _SHARE_SHOWN = 8, 0.2


def plot_strengths(task: Task, outcomes: Sequence[Outcome], path: Path) -> None:
    """The validation measure against strength, a curve a method with one strength; none as a line.

    What is far worse than none is left out of sight: strengths at which nothing is learnt would hide all else.
    """
    figure = Figure(figsize=(8, 5), layout="constrained")
    axes = figure.add_subplot()
    factor = 100 if task.classes else 1
    for one in outcomes:
        if one.method == "none":
            axes.axhline(factor * one.choice.validation, color="black", linestyle="--", label="none")
        elif len(one.choice.strengths) == 1:
            strengths, values = zip(*((s[0][1], value) for s, value in one.choice.curve), strict=True)
            axes.plot(strengths, factor * np.array(values), marker="o", markersize=3, label=one.method)
    base = next(one.choice.validation for one in outcomes if one.method == "none")
    _leave_out_of_sight(axes, task, factor * base, 1)
    axes.set_xscale("log")
    axes.set_xlabel("strength (dropout: rate)")
    axes.set_ylabel("validation accuracy, %" if task.classes else "validation rmse")
    axes.set_title(task.name)
    axes.legend(fontsize="small")
    figure.savefig(path, dpi=120)


def plot_differences(tasks: Mapping[str, Task], comparisons: Sequence[Comparison], path: Path) -> None:
    """Gains over none with their intervals, a panel a task; to the right is better."""
    names = list(dict.fromkeys(one.task for one in comparisons))
    largest = max(sum(one.task == name for one in comparisons) for name in names)
    figure = Figure(figsize=(8, len(names) * (0.8 + 0.22 * largest)), layout="constrained")
    for axes, name in zip(np.atleast_1d(figure.subplots(len(names))), names, strict=True):
        task = tasks[name]
        here = [one for one in comparisons if one.task == name]
        factor = 100 if task.classes else -1
        for row, one in enumerate(here):
            ends = sorted((factor * one.difference.low, factor * one.difference.high))
            axes.plot(ends, [row, row], color=_COLOURS[one.verdict])
            axes.plot(factor * one.difference.mean, row, "o", color=_COLOURS[one.verdict])
        axes.axvline(0, color="black", linewidth=0.8)
        axes.set_yticks(range(len(here)), [one.method for one in here], fontsize="small")
        axes.invert_yaxis()
        gained = "points of accuracy gained over" if task.classes else "rmse reduced against"
        axes.set_title(f"{name}: {gained} none", fontsize="medium")
    figure.savefig(path, dpi=120)


def plot_sparsity(task: Task, points: Sequence[SparsityPoint], path: Path) -> None:
    """The measure against the share of weights left, a curve a method; none as a line."""
    figure = Figure(figsize=(8, 5), layout="constrained")
    axes = figure.add_subplot()
    factor = 100 if task.classes else 1
    for method in dict.fromkeys(one.method for one in points):
        own = [one for one in points if one.method == method]
        values = factor * np.array([one.value.mean for one in own])
        left = 100 * (1 - np.array([one.zero_share.mean for one in own]))
        if method == "none":
            axes.axhline(values[0], color="black", linestyle="--", label="none")
            _leave_out_of_sight(axes, task, values[0], 3)
            continue
        # A logarithmic axis has no place for networks without any weight.
        some = left > 0
        spread = factor * np.array([one.value.sd for one in own])[some]
        axes.errorbar(left[some], values[some], spread, marker="o", markersize=3, capsize=2, label=method)
    axes.set_xscale("log")
    axes.invert_xaxis()
    axes.set_xlabel("weights that are not zero, %")
    axes.set_ylabel("test accuracy, %" if task.classes else "test rmse")
    axes.set_title(task.name)
    axes.legend(fontsize="small")
    figure.savefig(path, dpi=120)


def _leave_out_of_sight(axes: Axes, task: Task, base: float, times: float) -> None:
    if task.classes:
        axes.set_ylim(bottom=base - times * _POINTS_SHOWN)
    else:
        axes.set_ylim(top=(1 + times * _SHARE_SHOWN) * base)
