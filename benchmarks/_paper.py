"""The protocol of Tam and Dunson (ICML 2020) as one comparison, and its table."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

from benchmarks._config import DATASETS, CompareConfig
from benchmarks._experiment import Run
from benchmarks._report import (
    DIFFERENCE_NOTE,
    INTERVAL,
    TextTable,
    accuracy_cell,
    convergence_notes,
    counted,
    difference_cells,
    refresh_notes,
    skip_notes,
)
from benchmarks._statistics import MethodSummary, PairedDifference

PAPER_DATASETS = ("mnist", "cifar10", "tcga")
PAPER_METHODS = ("none", "l1", "l2", "dropout", "fiedler-combinatorial", "fiedler")
ACTIVE_DROPOUT = "dropout-active"
# By method, in the order of the table.
ROWS: Mapping[str, str] = MappingProxyType(
    {
        "none": "none",
        "l1": "L1",
        "l2": "weight decay",
        ACTIVE_DROPOUT: "dropout, active when evaluated",
        "dropout": "dropout, off when evaluated",
        "fiedler-combinatorial": "Fiedler, combinatorial",
        "fiedler": "Fiedler, normalized",
    }
)
_LONGEST_INTERVAL = 100


def paper_config(dataset: str, data_dir: Path | None, epochs: int | None, seeds: int, out: Path) -> CompareConfig:
    """The protocol for a data set.

    Args:
        dataset: one of ``PAPER_DATASETS``.
        data_dir: folder of its files.
        epochs: epochs of a shortened run; None for the protocol's.
        seeds: number of runs.
        out: folder for the results.

    Returns:
        The comparison; the data may ask for other refreshes (`refresh_interval`).
    """
    defaults = DATASETS[dataset]
    return CompareConfig(
        dataset=dataset,
        data_dir=data_dir,
        train_size=None,
        hidden=defaults.hidden,
        epochs=defaults.epochs if epochs is None else epochs,
        batch_size=defaults.batch_size,
        optimizer="sgd",
        learning_rate=defaults.learning_rate,
        momentum=defaults.momentum,
        strengths=dict(defaults.strengths),
        scale=defaults.scale,
        refresh_every=defaults.refresh_every,
        methods=PAPER_METHODS,
        seeds=seeds,
        out=out,
    )


def refresh_interval(steps: int) -> int:
    """Steps between refreshes in the protocol: at the start of each epoch and every 100 steps of it.

    Args:
        steps: steps per epoch.

    Returns:
        The interval; if it is 100 and does not divide the steps, refreshes drift away from the starts of epochs.
    """
    return min(_LONGEST_INTERVAL, steps)


def with_active_dropout(runs: Sequence[Run]) -> list[Run]:
    """The runs and, of those with dropout, a second version each: the same networks with dropout active."""

    def active(run: Run) -> Run:
        points = [
            point._replace(**point.active_dropout._asdict()) for point in run.points if point.active_dropout is not None
        ]
        return Run(ACTIVE_DROPOUT, run.seed, tuple(points), run.near_zero_share)

    return [*runs, *(active(run) for run in runs if run.method == "dropout")]


def paper_table(
    config: CompareConfig,
    steps: int,
    runs: Sequence[Run],
    summaries: Mapping[str, MethodSummary],
    differences: Mapping[str, PairedDifference],
) -> TextTable:
    """The table of the protocol.

    Args:
        config: the comparison.
        steps: steps per epoch.
        runs: the runs as they were trained.
        summaries: by method, dropout active in evaluation among them.
        differences: to ``none``, by method.

    Returns:
        The table; its notes say what was done.
    """
    rows = tuple(
        (
            ROWS[method],
            accuracy_cell(summary.train_accuracy),
            accuracy_cell(summary.test_accuracy),
            *(difference_cells(differences[method]) if method in differences else ("", "")),
            ", ".join(f"{value:.2g}" for value in summary.l1_coefficients.values()),
        )
        for method, summary in summaries.items()
    )
    headers = ("method", "train acc. %", "test acc. %", "difference to none", INTERVAL, "mean effective L1 coefficient")
    notes = (
        f"Mean ± sd over {counted(config.seeds, 'seed')}, after {counted(config.epochs, 'epoch')} of "
        f"{counted(steps, 'step')}{_shortened_note(config)}. Differences in test accuracy, in points.",
        _settings_note(config),
        _interval_note(config, steps),
        DIFFERENCE_NOTE,
        *convergence_notes(runs),
        *refresh_notes(runs),
        *skip_notes(runs),
    )
    return TextTable(f"Protocol of Tam and Dunson (ICML 2020), {config.dataset}", headers, rows, notes)


def _shortened_note(config: CompareConfig) -> str:
    full = DATASETS[config.dataset].epochs
    return "" if config.epochs == full else f" (the protocol has {full} epochs)"


def _settings_note(config: CompareConfig) -> str:
    network = "-".join(str(width) for width in config.hidden)
    strengths = config.strengths
    return (
        f"ReLU network with hidden layers {network}, initial weights and biases uniform on ±1/sqrt(fan-in); SGD, "
        f"learning rate {config.learning_rate:g}, momentum {config.momentum:g}, batches of {config.batch_size}. "
        f"L1 {strengths['l1']:g} and weight decay {strengths['l2']:g}, on biases too; dropout rate "
        f"{strengths['dropout']:g}, its two rows one training (the authors left dropout active when they evaluated); "
        f"Fiedler {strengths['fiedler-combinatorial']:g} with a unit vector, without biases, combinatorial in the "
        f"paper, normalized with {strengths['fiedler']:g} for comparison. The mean effective L1 coefficient is that of "
        "the last refresh."
    )


def _interval_note(config: CompareConfig, steps: int) -> str:
    every = f"A Fiedler penalty is refreshed every {config.refresh_every} steps"
    if steps % refresh_interval(steps):
        return f"{every}, and not also at the start of each epoch of {steps}, as the protocol has it."
    return f"{every}, and so at the start of each epoch of {steps}."
