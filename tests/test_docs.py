"""Every example runs: docstrings as doctests, and the code blocks of the README."""

import doctest
import importlib
import pkgutil
import re
from pathlib import Path

import pytest

import fiedler_jax

ROOT = Path(__file__).parent.parent
MODULES = [name for _, name, _ in pkgutil.walk_packages(fiedler_jax.__path__, "fiedler_jax.")]
README = (ROOT / "README.md").read_text(encoding="utf-8")
SNIPPETS = re.findall(r"^```python\n(.*?)^```", README, flags=re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("name", MODULES)
def test_docstring_examples(name: str) -> None:
    result = doctest.testmod(importlib.import_module(name))
    assert result.failed == 0


@pytest.mark.parametrize("name", [n for n in fiedler_jax.__all__ if n[0].islower() and n not in ("eigen", "errors")])
def test_every_public_function_shows_an_example(name: str) -> None:
    assert ">>> " in (getattr(fiedler_jax, name).__doc__ or "")


@pytest.mark.parametrize("snippet", SNIPPETS, ids=lambda s: s.strip().splitlines()[0])
def test_readme_snippets(snippet: str) -> None:
    exec(compile(snippet, "README.md", "exec"), {"__name__": "readme"})


def test_the_readme_shows_both_flavours_in_few_lines() -> None:
    linen = [s for s in SNIPPETS if "flax.linen" in s]
    nnx = [s for s in SNIPPETS if "nnx.Optimizer" in s]
    assert linen
    assert nnx
    for snippet in (linen[0], nnx[0]):
        assert len([line for line in snippet.splitlines() if line.strip()]) <= 16


def test_readme_commands_name_what_exists() -> None:
    commands = "\n".join(re.findall(r"^```(?:sh|bash)\n(.*?)^```", README, flags=re.MULTILINE | re.DOTALL))
    for module in set(re.findall(r"python -m (benchmarks\.\w+)", commands)):
        assert (ROOT / (module.replace(".", "/") + ".py")).exists()
    assert ".[test]" in commands
    assert ".[bench]" in commands
