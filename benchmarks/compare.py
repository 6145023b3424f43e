"""A/B test of regularizers, all else equal: ``python -m benchmarks.compare``."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from benchmarks._config import (
    ADAM_LEARNING_RATE,
    DATASETS,
    DEFAULT_METHODS,
    OPTIMIZERS,
    CompareConfig,
)
from benchmarks._data import Dataset, load_dataset
from benchmarks._errors import ConfigError
from benchmarks._experiment import Run, steps_per_epoch
from benchmarks._methods import Refresh, with_variants
from benchmarks._plots import plot_fiedler_curves, plot_fiedler_vectors, plot_learning_curves
from benchmarks._report import (
    difference_table,
    prepare_output,
    result_record,
    summary_table,
    write_results,
)
from benchmarks._statistics import differences_to_none, summarize
from benchmarks._terminal import comma_separated, leave, run_command, run_with_progress, show_results


def main(argv: Sequence[str] | None = None) -> int:
    """Runs a comparison from command-line arguments.

    Args:
        argv: the arguments; None for those of the process.

    Returns:
        The exit status: 0, or 2 if the arguments or the data do not allow a run.
    """
    arguments = build_parser().parse_args(argv)
    return run_command(lambda console: _compare(arguments, console))


def build_parser() -> argparse.ArgumentParser:
    """The command line's options; None stands for the data set's default."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.compare",
        description="Train the same network with different regularizers, same initial "
        "weights and same batches, and compare.",
        epilog=_defaults_text(),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--dataset", choices=tuple(DATASETS), default="digits")
    add("--data-dir", type=Path, help="folder of the files of mnist, cifar10 or tcga")
    add("--train-size", type=int, help="use this many training examples (all)")
    add(
        "--methods",
        default=",".join(DEFAULT_METHODS),
        help="comma-separated; join regularizers with +, and add @1, @auto and so on for another --refresh-every "
        "(%(default)s)",
    )
    add("--seeds", type=int, default=5, help="number of paired runs (%(default)s)")
    add("--hidden", type=_widths, help="widths of the hidden layers, as in 128,64")
    add("--epochs", type=int)
    add("--batch", type=int, help="examples per step")
    add("--optimizer", choices=OPTIMIZERS, default="sgd")
    add("--learning-rate", type=float)
    add("--momentum", type=float, help="momentum of sgd")
    add(
        "--strength",
        type=_strength,
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="strength of a regularizer (dropout: the rate); repeat for several",
    )
    add(
        "--scale",
        choices=("vertices", "unit"),
        help="length of the Fiedler penalty's test vector: vertices multiplies the "
        "strength by the number of units, unit is the paper's",
    )
    add("--refresh-every", type=_refresh, help="steps between solves of the Fiedler penalty, or auto")
    add(
        "--out",
        type=Path,
        default=Path("compare-results"),
        help="folder for the results (%(default)s)",
    )
    return parser


def config_from_arguments(arguments: argparse.Namespace) -> CompareConfig:
    """Fills what the user left open with the data set's defaults.

    Args:
        arguments: what ``build_parser`` parsed.

    Returns:
        The checked configuration.

    Raises:
        BenchmarkError: an option is out of range or contradicts another.
    """
    defaults = DATASETS[arguments.dataset]

    def chosen(value, default):
        return default if value is None else value

    if arguments.optimizer != "sgd" and arguments.momentum is not None:
        raise ConfigError(f"--momentum is for sgd; {arguments.optimizer} has its own")
    learning_rate = defaults.learning_rate if arguments.optimizer == "sgd" else ADAM_LEARNING_RATE
    return CompareConfig(
        dataset=arguments.dataset,
        data_dir=arguments.data_dir,
        train_size=arguments.train_size,
        hidden=chosen(arguments.hidden, defaults.hidden),
        epochs=chosen(arguments.epochs, defaults.epochs),
        batch_size=chosen(arguments.batch, defaults.batch_size),
        optimizer=arguments.optimizer,
        learning_rate=chosen(arguments.learning_rate, learning_rate),
        momentum=chosen(arguments.momentum, defaults.momentum),
        strengths=with_variants({**defaults.strengths, **dict(arguments.strength)}),
        scale=chosen(arguments.scale, defaults.scale),
        refresh_every=chosen(arguments.refresh_every, defaults.refresh_every),
        methods=comma_separated(arguments.methods),
        seeds=arguments.seeds,
        out=arguments.out,
    )


def _compare(arguments: argparse.Namespace, console: Console) -> None:
    config = config_from_arguments(arguments)
    prepare_output(config.out)
    data = load_dataset(config.dataset, config.data_dir, config.train_size)
    _report(config, data, run_with_progress(config, data, console), console)


def _report(config: CompareConfig, data: Dataset, runs: list[Run], console: Console) -> None:
    steps = steps_per_epoch(config, data)
    summaries = [summarize(runs, method, steps) for method in config.methods]
    differences = differences_to_none(runs, config.methods)
    tables = [summary_table(summaries, runs), difference_table(differences)]
    record = result_record(config, data, runs, summaries, differences)
    write_results(config.out, record, tables)
    plot_learning_curves(runs, config.methods, config.out / "learning_curves.png")
    plot_fiedler_curves(runs, config.methods, config.out / "fiedler_curves.png")
    plot_fiedler_vectors(runs, config.methods, config.out / "fiedler_vectors.png")
    files = ("summary.md", "results.json", "learning_curves.png", "fiedler_curves.png", "fiedler_vectors.png")
    show_results(console, tables, config.out, files)


def _widths(text: str) -> tuple[int, ...]:
    try:
        return tuple(int(width) for width in text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a list of widths such as 128,64") from None


def _refresh(text: str) -> Refresh:
    try:
        return "auto" if text == "auto" else int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is neither a number of steps nor auto") from None


def _strength(text: str) -> tuple[str, float]:
    name, _, value = text.partition("=")
    try:
        return name, float(value)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not of the form NAME=VALUE, such as l1=1e-3") from None


def _defaults_text() -> str:
    lines = ["defaults of each data set (with sgd):"]
    for name, d in DATASETS.items():
        hidden = ",".join(str(width) for width in d.hidden)
        lines += [
            f"  {name}: --hidden {hidden} --epochs {d.epochs} --batch {d.batch_size} "
            f"--learning-rate {d.learning_rate:g}",
            f"    --momentum {d.momentum:g} --scale {d.scale} --refresh-every {d.refresh_every}",
            "    " + " ".join(f"--strength {k}={v:g}" for k, v in d.strengths.items()),
        ]
    return "\n".join(lines)


if __name__ == "__main__":
    leave(main())
