"""The one-way flow: a module imports only from those before it."""

import ast
import re
from pathlib import Path

import pytest

import fiedler_jax

PACKAGE = Path(fiedler_jax.__file__).parent

# Each room with the floor it stands on; rooms of one floor do not know one another.
FLOORS = {
    "errors": 0,
    "_checks": 1,
    "_paths": 1,
    "_rows": 1,
    "_sharding": 1,
    "_components": 1,
    "_chain": 2,
    "_report": 2,
    "_effective": 2,
    "_arrangement": 3,
    "graph": 4,
    "edges": 5,
    "tracing": 5,
    "laplacian": 6,
    "eigen": 6,
    "_folding": 7,
    "_state": 7,
    "_starting": 8,
    "fiedler": 9,
    "penalty": 9,
    "_refresh": 10,
    "certificate": 10,
    "transforms": 11,
    "__init__": 12,
}
FILES = sorted(PACKAGE.rglob("*.py"))


def room(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imported_rooms(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        names = []
        if isinstance(node, ast.ImportFrom) and node.module == "fiedler_jax":
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("fiedler_jax."):
            names = [(node.module or "").split(".")[1]]
        elif isinstance(node, ast.Import):
            names = [alias.name.split(".")[1] for alias in node.names if alias.name.startswith("fiedler_jax.")]
        found |= set(names)
    return found


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_imports_go_down_only(path: Path) -> None:
    own = room(path)
    for other in imported_rooms(path) - {own}:
        assert FLOORS[other] < FLOORS[own], f"{own} imports {other}"


def test_solvers_know_nothing_of_graphs() -> None:
    for path in (PACKAGE / "eigen").glob("*.py"):
        assert imported_rooms(path) <= {"_rows", "eigen", "errors"}


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_no_internal_modules_of_jax(path: Path) -> None:
    extensions = "" if path.name == "_jaxpr.py" else r"|jax\.extend"
    assert not re.search(r"jax\._src|jaxlib" + extensions, path.read_text(encoding="utf-8"))


def test_a_room_fits_one_look() -> None:
    sizes = {path.name: len(path.read_text(encoding="utf-8").splitlines()) for path in FILES}
    assert max(sizes.values()) <= 420, sizes


def test_the_public_face() -> None:
    for name in fiedler_jax.__all__:
        assert hasattr(fiedler_jax, name)
    assert (PACKAGE / "py.typed").exists()
