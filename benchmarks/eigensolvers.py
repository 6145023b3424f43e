"""Fiedler-value solvers, ours against peers, at the same accuracy: ``python -m benchmarks.eigensolvers``."""

import argparse
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from benchmarks._cases import (
    DTYPES,
    KINDS,
    SOLVERS,
    STARTS,
    STATES,
    CaseResult,
    SolverConfig,
    cases,
    run_cases,
)
from benchmarks._hard_graphs import GRAPHS, HardResult, run_hard
from benchmarks._report import TextTable, check_kept, prepare_output
from benchmarks._solver_plots import plot_times
from benchmarks._solver_report import (
    hard_table,
    silent_table,
    silent_wrong_answers,
    solver_record,
    timing_table,
    write_report,
)
from benchmarks._spectra import NETS, QUICK_NETS
from benchmarks._terminal import leave, run_command, show_results

_PIPE_WIDTH = 200
_EVERYTHING = ("all", "both")


class Outcome(NamedTuple):
    """Everything found: the cases, and the hard graphs."""

    results: list[CaseResult]
    hard: list[HardResult]


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the benchmark from command-line arguments.

    Args:
        argv: the arguments; None for those of the process.

    Returns:
        The exit status: 0, or 2 if the arguments do not allow a run.
    """
    arguments = build_parser().parse_args(argv)
    command = shlex.join(["python", "-m", "benchmarks.eigensolvers", *(sys.argv[1:] if argv is None else argv)])
    return run_command(lambda console: _solve(arguments, console, command), _PIPE_WIDTH)


def build_parser() -> argparse.ArgumentParser:
    """The command line's options."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.eigensolvers",
        description="Compute Fiedler values with different solvers, to the same accuracy, and compare their times.",
        epilog="Lists are comma-separated; all (or both) stands for everything.",
    )
    add = parser.add_argument
    add("--nets", default="all", help=f"of {', '.join(NETS)}; with --quick of {', '.join(QUICK_NETS)}")
    add("--states", default="all", help=f"of {', '.join(STATES)}")
    add("--kinds", default="all", help=f"of {', '.join(KINDS)}")
    add("--dtypes", default="all", help=f"of {', '.join(DTYPES)}")
    add("--starts", default="all", help=f"of {', '.join(STARTS)}; warm is for trained networks only")
    add("--solvers", default="all", help=f"of {', '.join(SOLVERS)}")
    add("--graphs", default="all", help=f"hard graphs, none or of {', '.join(GRAPHS)}")
    add("--accuracy", type=float, help="relative error demanded (1e-5 in float32, 1e-8 in float64)")
    add("--repeats", type=int, default=50, help="most timed runs of a solver on a case (%(default)s)")
    add("--cap", type=float, default=6.0, help="seconds for a solver to find its tolerance on a case (%(default)s)")
    add("--budget", type=float, default=0.5, help="seconds of timed runs of a solver on a case (%(default)s)")
    add("--data-dir", type=Path, help="folder of the MNIST files, to train the net of 784 inputs on (random teacher)")
    add(
        "--settings-of", type=Path, help="eigensolvers.json of an earlier run: one setting for all cases of a precision"
    )
    add("--quick", action="store_true", help="tiny networks, to see that everything runs")
    add("--out", type=Path, default=Path("eigensolver-results"), help="folder for the results (%(default)s)")
    return parser


def config_from_arguments(arguments: argparse.Namespace) -> SolverConfig:
    """The checked configuration.

    Raises:
        BenchmarkError: an option is out of range or names something unknown.
    """
    return SolverConfig(
        nets=_names(arguments.nets, tuple(QUICK_NETS if arguments.quick else NETS)),
        states=_names(arguments.states, STATES),
        kinds=_names(arguments.kinds, KINDS),
        dtypes=_names(arguments.dtypes, DTYPES),
        starts=_names(arguments.starts, STARTS),
        solvers=_names(arguments.solvers, SOLVERS),
        graphs=() if arguments.graphs == "none" else _names(arguments.graphs, tuple(GRAPHS)),
        accuracy=arguments.accuracy,
        repeats=arguments.repeats,
        cap=arguments.cap,
        budget=arguments.budget,
        quick=arguments.quick,
        data_dir=arguments.data_dir,
        out=arguments.out,
        settings_of=arguments.settings_of,
    )


def _solve(arguments: argparse.Namespace, console: Console, command: str) -> None:
    config = config_from_arguments(arguments)
    check_kept(config.settings_of, config.out / "eigensolvers.json")
    prepare_output(config.out)
    _report(config, _run_with_progress(config, console, command), console, command)


def _names(text: str, everything: tuple[str, ...]) -> tuple[str, ...]:
    return everything if text in _EVERYTHING else tuple(name.strip() for name in text.split(",") if name.strip())


def _run_with_progress(config: SolverConfig, console: Console, command: str) -> Outcome:
    outcome = Outcome([], [])
    with Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("elapsed"),
        TimeElapsedColumn(),
        console=console,
    ) as progress:
        solvers = [contender.name for contender in config.contenders]
        task = progress.add_task("starting", total=len(list(cases(config))) + len(solvers) * bool(config.graphs))

        def tell(text: str) -> None:
            progress.update(task, description=text)

        def advance() -> None:
            progress.advance(task)

        for result in run_cases(config, tell):
            outcome.results.append(result)
            # The run is long: what is done stays, should it be interrupted.
            _write(config, outcome, command)
            advance()
        hard = run_hard(config.graphs, solvers, config.rules("float64"), tell, advance)
    return outcome._replace(hard=hard)


def _write(config: SolverConfig, outcome: Outcome, command: str) -> list[TextTable]:
    silent = silent_wrong_answers(*outcome)
    hard = [hard_table(config, outcome.hard)] if outcome.hard else []
    tables = [timing_table(config, outcome.results), *hard, silent_table(silent)]
    write_report(config.out, solver_record(config, *outcome, silent, command), tables)
    return tables


def _report(config: SolverConfig, outcome: Outcome, console: Console, command: str) -> None:
    tables = _write(config, outcome, command)
    plot_times(outcome.results, [contender.name for contender in config.contenders], config.out / "eigensolvers.png")
    show_results(console, tables, config.out, ("eigensolvers.md", "eigensolvers.json", "eigensolvers.png"))


if __name__ == "__main__":
    leave(main())
