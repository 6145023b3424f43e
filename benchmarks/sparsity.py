"""What exact zeros cost, by how they are made: ``python -m benchmarks.sparsity``."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from benchmarks._errors import ConfigError
from benchmarks._methods import parse_method
from benchmarks._report import prepare_output, write_tables
from benchmarks._study.judgement import sparsity_points
from benchmarks._study.plan import candidates
from benchmarks._study.plots import plot_sparsity
from benchmarks._study.problems import TASKS, make_task
from benchmarks._study.report import sparsity_table
from benchmarks._study.run import finished_trials
from benchmarks._study.store import TrialStore
from benchmarks._study.trial import Trial
from benchmarks._terminal import comma_separated, leave, progress_bar, run_command, show_results

_METHODS = "none,l1-shrinkage,fiedler-combinatorial-shrinkage,fiedler-shrinkage,pruning"


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the experiment from command-line arguments.

    Args:
        argv: the arguments; None for those of the process.

    Returns:
        The exit status: 0; 2 if the arguments or the data do not allow a run; 130 if it was interrupted.
    """
    arguments = build_parser().parse_args(argv)
    return run_command(lambda console: _run(arguments, console))


def build_parser() -> argparse.ArgumentParser:
    """The command line's options."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.sparsity",
        description="Train with each method at a grid of strengths and show accuracy against the share of weights that "
        "are exactly zero. Nothing is chosen, so nothing is held out but the test examples. Finished trials are kept "
        "in OUT/trials.jsonl: the same command goes on where it was interrupted, unless examples, code or versions "
        "have changed since.",
        epilog=f"tasks: {', '.join(TASKS)}",
    )
    add = parser.add_argument
    add("--task", required=True)
    add("--data-dir", type=Path, help="folder of the MNIST files")
    add("--methods", type=comma_separated, default=comma_separated(_METHODS), help=f"comma-separated ({_METHODS})")
    add("--budget", type=int, default=13, help="strengths of each method (%(default)s)")
    add("--seeds", type=int, default=8, help="networks of each strength (%(default)s)")
    add("--out", type=Path, default=Path("sparsity-results"), help="folder for the results (%(default)s)")
    return parser


def _run(arguments: argparse.Namespace, console: Console) -> None:
    for name, least in (("budget", 2), ("seeds", 2)):
        if getattr(arguments, name) < least:
            raise ConfigError(f"--{name} must be at least {least}, got {getattr(arguments, name)}")
    if len(set(arguments.methods)) != len(arguments.methods):
        raise ConfigError(f"--methods names one twice: {', '.join(arguments.methods)}")
    for method in arguments.methods:
        if len(parse_method(method).regularizers) > 1:
            raise ConfigError(f"--methods takes methods with one strength, not {method!r}")
    prepare_output(arguments.out)
    task = make_task(arguments.task, arguments.data_dir)
    store = TrialStore(arguments.out / "trials.jsonl")
    trials = [
        Trial(task.name, method, strengths, seed, None, 1)
        for method in arguments.methods
        for strengths in candidates(method, arguments.budget)
        for seed in range(arguments.seeds)
    ]
    with progress_bar(console, len(trials), "trials") as advance:
        results = finished_trials(task, trials, store, lambda finished: advance("training", finished))
    points = sparsity_points(task, results)
    tables = [sparsity_table(task, points, arguments.seeds)]
    write_tables(arguments.out / "report.md", tables)
    plot_sparsity(task, points, arguments.out / "sparsity.png")
    show_results(console, tables, arguments.out, ("report.md", "trials.jsonl", "sparsity.png"))


if __name__ == "__main__":
    leave(main())
