"""What the penalty costs on the device at hand: `python -m benchmarks.device`.

Whole training steps against weight decay, the first step's compiling, temporary memory, cold and warm solves, and
products with a block against reading it once. With `--against` an earlier result, a table of both.
"""

import argparse
import json
import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
from rich.console import Console

from benchmarks._errors import ConfigError, DataError
from benchmarks._prices import Figure, PriceConfig, figures
from benchmarks._report import (
    TextTable,
    check_kept,
    markdown_table,
    package_versions,
    prepare_output,
    read_earlier,
    rich_table,
)
from benchmarks._terminal import comma_separated, leave, run_command

SCHEMA_VERSION = 1
# From one run to the next on a shared machine, ratios were seen to change by so much without any cause in the code.
NOTABLE = 0.1


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line.

    Returns:
        The exit status: 0, or 2 after a mistake of the user's.
    """
    default = PriceConfig()
    parser = argparse.ArgumentParser(prog="python -m benchmarks.device", description=__doc__)
    add = parser.add_argument
    add("--widths", default=",".join(map(str, default.widths)), help="layers, the inputs first (%(default)s)")
    add("--batch", type=int, default=default.batch, help="examples a step (%(default)s)")
    add("--refresh-every", type=int, default=default.refresh_every, help="steps a refresh (%(default)s)")
    add("--rounds", type=int, default=default.rounds, help="rounds, of one refresh each (%(default)s)")
    add("--side", type=int, default=default.side, help="rows and columns of the block for products (%(default)s)")
    add("--dtypes", default=",".join(default.dtypes), help="of the parameters (%(default)s)")
    add("--against", type=Path, help="device.json of an earlier run, to show both")
    add("--markdown", action="store_true", help="print the table as Markdown")
    add("--out", type=Path, default=Path("device-results"), help="folder for device.json (%(default)s)")
    arguments = parser.parse_args(argv)
    return run_command(lambda console: _measure(arguments, console))


def _measure(arguments: argparse.Namespace, console: Console) -> None:
    config = PriceConfig(
        widths=_numbers(arguments.widths),
        batch=arguments.batch,
        refresh_every=arguments.refresh_every,
        rounds=arguments.rounds,
        side=arguments.side,
        dtypes=comma_separated(arguments.dtypes),
    )
    check_kept(arguments.against, arguments.out / "device.json")
    earlier = read_record(arguments.against) if arguments.against else None
    prepare_output(arguments.out)
    with console.status("starting") as status:
        found = tuple(figures(config, status.update))
    record = device_record(config, found)
    (arguments.out / "device.json").write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    table = price_table(record, earlier)
    print(markdown_table(table)) if arguments.markdown else console.print(rich_table(table))


def device_record(config: PriceConfig, found: Sequence[Figure]) -> dict[str, Any]:
    """The result as it is written: the device, versions, settings and figures."""
    device = jax.devices()[0]
    return {
        "schema": SCHEMA_VERSION,
        "device": {"kind": device.device_kind, "platform": device.platform, "cores": os.cpu_count()},
        "versions": package_versions(),
        "config": {**vars(config)},
        "figures": [figure._asdict() for figure in found],
    }


def read_record(path: Path) -> dict[str, Any]:
    """An earlier result.

    Raises:
        DataError: the file cannot be read or is no such result.
    """
    record = read_earlier(path, "device.json", ("schema", "figures"))
    if record["schema"] != SCHEMA_VERSION:
        raise DataError(f"{path} is of schema {record['schema']}, not {SCHEMA_VERSION}; measure it again")
    return record


def price_table(record: Mapping[str, Any], earlier: Mapping[str, Any] | None) -> TextTable:
    """The table of all figures, beside those of an earlier run if there is one."""
    old = {(one["name"], one["unit"]): one["value"] for one in earlier["figures"]} if earlier else {}
    rows = []
    for figure in (Figure(**one) for one in record["figures"]):
        before = old.get((figure.name, figure.unit))
        compared = _compared(figure, before) if earlier else ()
        rows.append((figure.name, _digits(figure.value), *compared, figure.unit))
    headers = ("what", "new", "old", "new / old", "unit") if earlier else ("what", "value", "unit")
    return TextTable("What the penalty costs", headers, tuple(rows), _notes(record, earlier))


def _compared(figure: Figure, before: float | None) -> tuple[str, str]:
    if before is None:
        return "", ""
    change = figure.value / before if before else math.nan
    mark = " !" if figure.guarded and change > 1 + NOTABLE else ""
    return _digits(before), f"{change:.2f}{mark}"


def _notes(record: Mapping[str, Any], earlier: Mapping[str, Any] | None) -> tuple[str, ...]:
    def of(one: Mapping[str, Any]) -> str:
        versions = ", ".join(f"{name} {version}" for name, version in one["versions"].items())
        return f"{one['device']['kind']} ({one['device']['platform']}, {one['device']['cores']} cores), {versions}"

    notes = [f"On {of(record)}.", "Medians; ratios are medians of those within a round."]
    if earlier:
        notes += [f"Old: {of(earlier)}.", f"! worse by more than {100 * NOTABLE:.0f} %."]
        if earlier["config"] != json.loads(json.dumps(record["config"])):
            notes.append(f"The old run had other settings: {earlier['config']}.")
    return tuple(notes)


def _numbers(text: str) -> tuple[int, ...]:
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError as error:
        raise ConfigError(f"--widths must be whole numbers with commas, such as 784,500,10, not {text!r}") from error


def _digits(number: float) -> str:
    return f"{number:.3g}"


if __name__ == "__main__":
    leave(main())
