"""Scripts of the tests in processes of their own, with several devices on the CPU; what they print last is JSON."""

import json
import os
import subprocess
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

_ROOT = Path(__file__).parent.parent
_SECONDS = 1200


def run_with_devices(count: int, *arguments: str) -> Any:
    """What a script finds with so many devices; it and its arguments are given, as after `python`."""
    return run_together(count, [arguments])[0]


def run_together(count: int, commands: Iterable[Sequence[str]]) -> list[Any]:
    """What scripts find that run at the same time, with so many devices each."""
    started = [
        subprocess.Popen(
            [sys.executable, "-W", "error", *command],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=_ROOT,
            env=_environment(count),
        )
        for command in commands
    ]
    try:
        ended = [process.communicate(timeout=_SECONDS) for process in started]
    finally:
        for process in started:
            process.kill()
    for process, (_, errors) in zip(started, ended, strict=True):
        assert process.returncode == 0, errors[-3000:]
    return [json.loads(output.splitlines()[-1]) for output, _ in ended]


def _environment(count: int) -> dict[str, str]:
    flags = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count={count}"
    return os.environ | {"PYTHONPATH": str(_ROOT), "JAX_PLATFORMS": "cpu", "XLA_FLAGS": flags}
