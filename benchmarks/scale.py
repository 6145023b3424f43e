"""How cost and memory grow with the network: `python -m benchmarks.scale`.

For Dense chains of more and more edges, and of more and more vertices: one Fiedler pair at initialization, an update
between refreshes against weight decay, and peak memory, each network in a process of its own.
"""

import argparse
import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import matplotlib as mpl
from matplotlib.figure import Figure
from rich.console import Console

from benchmarks._architectures import ARCHITECTURES
from benchmarks._errors import ConfigError
from benchmarks._report import TextTable, markdown_table, package_versions, prepare_output, rich_table
from benchmarks._scaling import Net, Scaling, measured_apart, slope, square, wide
from benchmarks._terminal import comma_separated, leave, run_command

SCHEMA_VERSION = 1
_EDGES = "1e5,3e5,1e6,3e6,1e7,3e7,1e8,2e8"
_VERTICES = "1e4,3e4,1e5,3e5,1e6"
# What grows with the size, and how to read it off a measurement.
_GROWING: Mapping[str, Callable[[Scaling], float]] = {
    "solve": lambda found: found.solve_seconds,
    "update": lambda found: found.update_seconds,
    "temporary memory": lambda found: max(found.solve_memory, found.update_memory),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line.

    Returns:
        The exit status: 0, or 2 after a mistake of the user's.
    """
    parser = argparse.ArgumentParser(prog="python -m benchmarks.scale", description=__doc__)
    add = parser.add_argument
    add("--edges", default=_EDGES, help="sizes of chains of three square kernels, or none (%(default)s)")
    add("--vertices", default=_VERTICES, help="sizes of chains of many inputs, or none (%(default)s)")
    add("--models", default="none", help=f"also of {', '.join(ARCHITECTURES)} (%(default)s)")
    add("--repeats", type=int, default=5, help="timed runs of each (%(default)s)")
    add("--combinatorial", action="store_true", help="the combinatorial Laplacian")
    add("--markdown", action="store_true", help="print the table as Markdown")
    add("--out", type=Path, default=Path("scale-results"), help="folder for scale.json and scale.png (%(default)s)")
    arguments = parser.parse_args(argv)
    return run_command(lambda console: _measure(arguments, console), pipe_width=200)


def _measure(arguments: argparse.Namespace, console: Console) -> None:
    nets = list(_nets(arguments))
    if not nets:
        raise ConfigError("nothing to measure: --edges, --vertices and --models are none")
    if arguments.repeats < 1:
        raise ConfigError(f"--repeats must be at least 1, not {arguments.repeats}")
    prepare_output(arguments.out)
    found = []
    for net in nets:
        with console.status(str(net)):
            found.append(measured_apart(net, not arguments.combinatorial, arguments.repeats))
    record = scale_record(found, not arguments.combinatorial)
    (arguments.out / "scale.json").write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    plot_scaling(found, arguments.out / "scale.png")
    table = scale_table(found, record["slopes"])
    print(markdown_table(table)) if arguments.markdown else console.print(rich_table(table))


def _nets(arguments: argparse.Namespace) -> Iterator[Net]:
    yield from map(square, _sizes("--edges", arguments.edges, least=3))
    yield from map(wide, _sizes("--vertices", arguments.vertices, least=61))
    for name in () if arguments.models == "none" else comma_separated(arguments.models):
        if name not in ARCHITECTURES:
            raise ConfigError(f"--models has no {name!r}; choose of {', '.join(ARCHITECTURES)}")
        yield Net(name)


def _sizes(option: str, text: str, least: int) -> list[float]:
    try:
        sizes = [] if text == "none" else [float(part) for part in comma_separated(text)]
    except ValueError as error:
        raise ConfigError(f"{option} must be numbers with commas, such as 1e5,1e6, not {text!r}") from error
    if any(not least <= size < math.inf for size in sizes):
        raise ConfigError(f"{option} must be at least {least} each, not {text}")
    return sizes


def scale_record(found: Sequence[Scaling], normalized: bool) -> dict[str, Any]:
    """The result as it is written: versions, measurements, and the slopes of each family of chains."""
    families = [name for name in ("square", "wide") if any(one.family == name for one in found)]
    return {
        "schema": SCHEMA_VERSION,
        "device": jax.devices()[0].device_kind,
        "versions": package_versions(),
        "normalized": normalized,
        "measurements": [one._asdict() for one in found],
        "slopes": {family: _slopes([one for one in found if one.family == family]) for family in families},
    }


def _slopes(found: Sequence[Scaling]) -> dict[str, float]:
    edges = [one.edges for one in found]
    return {name: slope(edges, [of(one) for one in found]) for name, of in _GROWING.items()}


def scale_table(found: Sequence[Scaling], slopes: Mapping[str, Mapping[str, float]]) -> TextTable:
    """One row a network."""

    def row(one: Scaling) -> tuple[str, ...]:
        return (
            one.name,
            f"{one.vertices:.3g}",
            f"{one.edges:.3g}",
            f"{one.compile_seconds:.1f}",
            f"{1e3 * one.solve_seconds:.3g}",
            f"{one.block_products} ({one.status})",
            f"{1e3 * one.update_seconds:.3g}",
            f"{one.update_ratio:.2f}",
            *(f"{size / 2**20:.0f}" for size in (one.weights, one.solve_memory, one.update_memory, one.peak_memory)),
        )

    headers = ("network", "vertices", "edges", "compile, s", "solve, ms", "block products", "update, ms", "x decay")
    headers += ("weights, MiB", "solve, MiB", "update, MiB", "process, MiB")
    notes = [
        "update: one between refreshes, with SGD, against the same with weight decay. solve, update, MiB: temporary "
        "memory of the compiled program (an update's holds its refresh). process: its peak, all included.",
        *(
            f"{family}: slopes against edges on logarithmic axes: "
            + ", ".join(f"{name} {value:.2f}" for name, value in of.items())
            + "."
            for family, of in slopes.items()
        ),
    ]
    return TextTable("Cost against size", headers, tuple(map(row, found)), tuple(notes))


def plot_scaling(found: Sequence[Scaling], path: Path) -> None:
    """Times and temporary memory against edges, one line a family."""
    with mpl.rc_context({"svg.fonttype": "none"}):
        figure = Figure(figsize=(11, 3.6), layout="constrained")
        for ax, (what, of) in zip(figure.subplots(1, len(_GROWING)), _GROWING.items(), strict=True):
            for family in dict.fromkeys(one.family for one in found):
                points = [one for one in found if one.family == family]
                edges, values = [one.edges for one in points], [of(one) for one in points]
                fitted = slope(edges, values)
                label = family if math.isnan(fitted) else f"{family}, slope {fitted:.2f}"
                ax.loglog(edges, values, "o-", label=label)
            ax.set(title=what, xlabel="edges", ylabel="bytes" if "memory" in what else "seconds")
            ax.legend(frameon=False)
        figure.savefig(path, dpi=150)


if __name__ == "__main__":
    leave(main())
