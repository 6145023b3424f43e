"""Learning curves and λ2 curves as PNG."""

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from benchmarks._experiment import EpochPoint, Run
from benchmarks._statistics import curve

# Okabe and Ito's colours, which stay apart for colour-blind readers; grey is left to
# the baseline.
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#8C564B")
_DASHES = ("-", "--", "-.", ":")


class _Panel(NamedTuple):
    title: str
    read: Callable[[EpochPoint], float]
    log: bool = False
    accuracy: bool = False


_LEARNING = (
    _Panel("training loss", lambda p: p.train_loss, log=True),
    _Panel("training accuracy, %", lambda p: 100 * p.train_accuracy, accuracy=True),
    _Panel("test accuracy, %", lambda p: 100 * p.test_accuracy, accuracy=True),
)
_FIEDLER = (
    _Panel("λ2, normalized Laplacian", lambda p: p.normalized.value),
    _Panel("λ2, combinatorial Laplacian", lambda p: p.combinatorial.value),
    _Panel("localization (IPR), normalized", lambda p: p.normalized.ipr, log=True),
    _Panel("localization (IPR), combinatorial", lambda p: p.combinatorial.ipr, log=True),
)


def plot_learning_curves(runs: Sequence[Run], methods: Sequence[str], path: Path) -> None:
    """Draws loss and accuracies by epoch, mean and sd band over seeds.

    Args:
        runs: all runs.
        methods: the order of the legend.
        path: the PNG to write.
    """
    _plot(runs, methods, _LEARNING, path)


def plot_fiedler_curves(runs: Sequence[Run], methods: Sequence[str], path: Path) -> None:
    """Draws both Fiedler values, and how far their vectors localize, by epoch, mean and sd band over seeds.

    Args:
        runs: all runs.
        methods: the order of the legend.
        path: the PNG to write.
    """
    _plot(runs, methods, _FIEDLER, path)


def plot_fiedler_vectors(runs: Sequence[Run], methods: Sequence[str], path: Path) -> None:
    """Draws the normalized Fiedler vector of each method's last network, unit by unit, layer after layer.

    Args:
        runs: all runs; the first of each method is drawn.
        methods: one panel each.
        path: the PNG to write.
    """
    figure = Figure(figsize=(9, 1.5 * len(methods) + 0.6), layout="constrained")
    axes = figure.subplots(len(methods), 1, squeeze=False, sharex=True)[:, 0]
    for ax, method in zip(axes, methods, strict=True):
        layers = next(run.fiedler_vector for run in runs if run.method == method)
        start = 0
        for index, layer in enumerate(layers):
            # The sign of an eigenvector is arbitrary: inputs are mostly above zero.
            sign = np.sign(np.sum(layers[0])) or 1.0
            ax.plot(np.arange(start, start + len(layer)), sign * layer, ".", markersize=2, color=_COLOURS[index % 2])
            start += len(layer)
        ax.axhline(0, color="#444444", linewidth=0.6)
        ax.set_title(method, fontsize=9)
        ax.grid(alpha=0.25)
    axes[-1].set_xlabel("unit, inputs first; colours change from layer to layer")
    figure.suptitle("Fiedler vector of the normalized Laplacian, first seed", fontsize=10)
    figure.savefig(path, dpi=150)


def _plot(runs: Sequence[Run], methods: Sequence[str], panels: Sequence[_Panel], path: Path) -> None:
    # A bare Figure draws with Agg and leaves pyplot's global state alone.
    figure = Figure(figsize=(4.6 * len(panels), 4.4), layout="constrained")
    axes = figure.subplots(1, len(panels), squeeze=False)[0]
    for ax, panel in zip(axes, panels, strict=True):
        _draw(ax, runs, methods, panel)
    handles, labels = axes[0].get_legend_handles_labels()
    rows = math.ceil(len(labels) / (2.5 * len(panels)))
    figure.legend(
        handles,
        labels,
        loc="outside lower center",
        ncols=math.ceil(len(labels) / rows),
        frameon=False,
    )
    seeds = len({run.seed for run in runs})
    figure.suptitle(f"mean ± sd over {seeds} seed{'s' * (seeds > 1)}", fontsize=10)
    figure.savefig(path, dpi=150)


def _draw(ax: Axes, runs: Sequence[Run], methods: Sequence[str], panel: _Panel) -> None:
    curves = {method: curve(runs, method, panel.read) for method in methods}
    others = [method for method in methods if method != "none"]
    for method, values in curves.items():
        epochs, mean, spread = np.arange(values.shape[1]), *_mean_spread(values)
        index = others.index(method) if method in others else -1
        colour = "#444444" if index < 0 else _COLOURS[index % len(_COLOURS)]
        ax.plot(
            epochs,
            mean,
            label=method,
            color=colour,
            linestyle="-" if index < 0 else _DASHES[index % len(_DASHES)],
            linewidth=1.6,
        )
        low, high = mean - spread, mean + spread
        if panel.log:
            # A band that reaches below zero would stretch a logarithmic axis for ever.
            low = np.maximum(low, mean / 3)
        ax.fill_between(epochs, low, high, color=colour, alpha=0.12, linewidth=0)
    if panel.log:
        ax.set_yscale("log")
    if panel.accuracy:
        _zoom(ax, list(curves.values()))
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    ax.set_title(panel.title, fontsize=11)
    ax.set_xlabel("epoch")
    ax.grid(alpha=0.25)


def _mean_spread(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    mean = values.mean(axis=0)
    spread = values.std(axis=0, ddof=1) if len(values) > 1 else np.zeros_like(mean)
    return mean, spread


def _zoom(ax: Axes, curves: Sequence[np.ndarray]) -> None:
    # Accuracy starts at a tenth; on that scale the methods would end in one line.
    epochs = curves[0].shape[1]
    # The last two points at least, of which a curve takes as many.
    first = max(0, min(math.ceil(epochs / 4), epochs - 2))
    late = [_mean_spread(values[:, first:]) for values in curves]
    low = min(float((mean - spread).min()) for mean, spread in late)
    high = max(float((mean + spread).max()) for mean, spread in late)
    margin = 0.05 * max(high - low, 1.0)
    ax.set_ylim(max(low - margin, 0.0), min(high + margin, 100.0 + margin))
