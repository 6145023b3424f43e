"""Which regularizer pays, each at its best strength: ``python -m benchmarks.tune``."""

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path

from rich.console import Console

from benchmarks._report import prepare_output, write_tables
from benchmarks._study.judgement import (
    Outcome,
    differences_to_best_other,
    differences_to_no_structure,
    differences_to_none,
    differences_to_the_rest,
)
from benchmarks._study.plan import TuneConfig
from benchmarks._study.plots import plot_differences, plot_strengths
from benchmarks._study.problems import TASKS, make_task
from benchmarks._study.report import study_tables
from benchmarks._study.run import run_study, total_trials
from benchmarks._study.store import TrialStore
from benchmarks._study.task import Task, check_split
from benchmarks._terminal import comma_separated, leave, progress_bar, run_command, show_results

_METHODS = "none,l2,l1,dropout,fiedler,fiedler-combinatorial,fiedler+dropout,fiedler+l2"


def main(argv: Sequence[str] | None = None) -> int:
    """Runs a study from command-line arguments.

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
        prog="python -m benchmarks.tune",
        description="Give every method the same number of strengths, choose by cross-validation on the training "
        "examples, then judge on the test examples with fresh seeds. Finished trials are kept in OUT/trials.jsonl: the "
        "same command goes on where it was interrupted, unless examples, code or versions have changed since.",
        epilog=f"tasks: {', '.join(TASKS)}",
    )
    add = parser.add_argument
    add("--tasks", type=comma_separated, required=True, help="comma-separated")
    add("--data-dir", type=Path, help="folder of the MNIST files")
    add("--methods", type=comma_separated, default=comma_separated(_METHODS), help=f"comma-separated ({_METHODS})")
    add("--budget", type=int, default=9, help="strengths tried for each method (%(default)s)")
    add("--draws", type=int, default=2, help="draws of training examples to choose strengths on (%(default)s)")
    add("--folds", type=int, default=4, help="parts of a draw for cross-validation (%(default)s)")
    add("--seeds", type=int, default=20, help="fresh seeds to judge by (%(default)s)")
    add("--first-seed", type=int, default=0, help="the first of them, to judge once more by others (%(default)s)")
    add("--out", type=Path, default=Path("tune-results"), help="folder for the results (%(default)s)")
    return parser


def _run(arguments: argparse.Namespace, console: Console) -> None:
    config = TuneConfig(**{field.name: getattr(arguments, field.name) for field in fields(TuneConfig)})
    prepare_output(config.out)
    tasks = {name: make_task(name, config.data_dir) for name in config.tasks}
    for task in tasks.values():
        check_split(task, config.folds)
    store = TrialStore(config.out / "trials.jsonl")
    with progress_bar(console, total_trials(config), "trials") as advance:
        outcomes = run_study(config, tasks, store, advance)
    _report(config, tasks, outcomes, console)


def _report(config: TuneConfig, tasks: Mapping[str, Task], outcomes: list[Outcome], console: Console) -> None:
    to_none = differences_to_none(tasks, outcomes)
    others = {
        "Fiedler methods against the best other method, by cross-validation": differences_to_best_other(
            tasks, outcomes
        ),
        "Fiedler methods against the same without structure (an L1 penalty), each at its best strength": (
            differences_to_no_structure(tasks, outcomes)
        ),
        "Combinations against the same without their Fiedler part": differences_to_the_rest(tasks, outcomes),
    }
    tables = study_tables(config, tasks, outcomes, to_none, others)
    write_tables(config.out / "report.md", tables)
    plot_differences(tasks, to_none, config.out / "differences.png")
    for name, task in tasks.items():
        plot_strengths(task, [one for one in outcomes if one.task == name], config.out / f"strengths-{name}.png")
    files = ("report.md", "trials.jsonl", "differences.png", *(f"strengths-{name}.png" for name in tasks))
    show_results(console, tables, config.out, files)


if __name__ == "__main__":
    leave(main())
