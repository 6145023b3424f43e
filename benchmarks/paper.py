"""The protocol of Tam and Dunson (ICML 2020), with the baselines it lacks: ``python -m benchmarks.paper``."""

import argparse
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from rich.console import Console

from benchmarks._config import CompareConfig
from benchmarks._data import Dataset, load_dataset
from benchmarks._experiment import Run, steps_per_epoch
from benchmarks._paper import (
    PAPER_DATASETS,
    ROWS,
    paper_config,
    paper_table,
    refresh_interval,
    with_active_dropout,
)
from benchmarks._report import prepare_output, result_record, write_results
from benchmarks._statistics import differences_to_none, summarize
from benchmarks._terminal import leave, run_command, run_with_progress, show_results


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the protocol from command-line arguments.

    Args:
        argv: the arguments; None for those of the process.

    Returns:
        The exit status: 0, or 2 if the arguments or the data do not allow a run.
    """
    arguments = build_parser().parse_args(argv)
    return run_command(lambda console: _run(arguments, console))


def build_parser() -> argparse.ArgumentParser:
    """The command line's options."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.paper",
        description="Train the networks of Tam and Dunson (ICML 2020) as they did: with L1, weight decay, dropout and "
        "the Fiedler penalty; and, which they did not, without any regularization, with dropout off when evaluated, "
        "and with the Fiedler penalty of the normalized Laplacian.",
    )
    add = parser.add_argument
    add("--dataset", choices=PAPER_DATASETS, required=True)
    add("--data-dir", type=Path, help="folder of its files")
    add("--seeds", type=int, default=5, help="number of paired runs (%(default)s)")
    add("--epochs", type=int, help="for a shortened run (as in the paper: 10, tcga 5)")
    add("--out", type=Path, default=Path("paper-results"), help="folder for the results (%(default)s)")
    return parser


def _run(arguments: argparse.Namespace, console: Console) -> None:
    config = paper_config(**vars(arguments))
    prepare_output(config.out)
    data = load_dataset(config.dataset, config.data_dir, config.train_size)
    steps = steps_per_epoch(config, data)
    config = replace(config, refresh_every=refresh_interval(steps))
    _report(config, data, run_with_progress(config, data, console), console)


def _report(config: CompareConfig, data: Dataset, runs: list[Run], console: Console) -> None:
    steps = steps_per_epoch(config, data)
    rows = with_active_dropout(runs)
    summaries = {method: summarize(rows, method, steps) for method in ROWS}
    differences = differences_to_none(rows, tuple(ROWS))
    tables = [paper_table(config, steps, runs, summaries, differences)]
    record = result_record(config, data, runs, list(summaries.values()), differences)
    write_results(config.out, record, tables)
    show_results(console, tables, config.out, ("summary.md", "results.json"))


if __name__ == "__main__":
    leave(main())
