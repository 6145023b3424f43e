"""What the command lines share: a console, progress with an estimate of the end, and how a user's mistake ends."""

import contextlib
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NoReturn

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from benchmarks._config import CompareConfig
from benchmarks._data import Dataset
from benchmarks._errors import BenchmarkError
from benchmarks._experiment import Run, run_experiment
from benchmarks._report import TextTable, rich_table

# Narrower than this the tables wrap badly, and a pipe has no width of its own.
_PIPE_WIDTH = 140

_INTERRUPTED = 130


def run_command(command: Callable[[Console], None], pipe_width: int = _PIPE_WIDTH) -> int:
    """Runs a command with a console to show its results on.

    Args:
        command: what to do.
        pipe_width: columns of the console if it is no terminal.

    Returns:
        The exit status: 0; 2 after a mistake of the user's, which is shown as a message; 130 after Ctrl-C.
    """
    try:
        command(Console(width=None if sys.stdout.isatty() else pipe_width))
    except BenchmarkError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return _INTERRUPTED
    return 0


def leave(status: int) -> NoReturn:
    """Ends the process with a command's exit status.

    After Ctrl-C at once: where it came in the middle of a compilation, whose threads go on, an orderly end is a
    segmentation fault (jax 0.10).
    """
    if status == _INTERRUPTED:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)
    sys.exit(status)


def comma_separated(text: str) -> tuple[str, ...]:
    """The names in an option's text."""
    return tuple(name.strip() for name in text.split(","))


@contextlib.contextmanager
def progress_bar(console: Console, total: int, unit: str) -> Iterator[Callable[[str, int], None]]:
    """A bar with an estimate of the end; the function it gives is told what is at work and how many are finished."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn(f"{unit}, elapsed"),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console) as progress:
        bar = progress.add_task("starting", total=total)
        yield lambda label, finished: progress.update(bar, advance=finished, description=label)


def run_with_progress(config: CompareConfig, data: Dataset, console: Console) -> list[Run]:
    """Runs the experiment under a progress bar."""
    with progress_bar(console, len(config.methods) * config.seeds * config.epochs, "epochs") as advance:
        return run_experiment(
            config,
            data,
            lambda method: advance(f"compiling {method}", 0),
            lambda method, seed, epoch: advance(f"seed {seed}, epoch {epoch}, {method}", 1),
        )


def show_results(console: Console, tables: Sequence[TextTable], folder: Path, files: Sequence[str]) -> None:
    """Shows the tables, and where the files were written."""
    for table in tables:
        console.print(rich_table(table))
    console.print(f"Written to {folder}: {', '.join(files)}", soft_wrap=True, highlight=False)
