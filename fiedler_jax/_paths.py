"""One name for each parameter leaf, whatever container it came in."""

import difflib
import re
from collections.abc import Iterable
from typing import Any

import jax
import numpy as np
import optax
from jax.tree_util import DictKey, FlattenedIndexKey, GetAttrKey, SequenceKey

from fiedler_jax.errors import AmbiguousLeafError

Path = tuple[str, ...]

_COLLECTION = "params"
_DIGITS = re.compile(r"(\d+)")


def _key_name(key: Any) -> str:
    match key:
        case DictKey(key=name) | FlattenedIndexKey(key=name):
            return str(name)
        case GetAttrKey(name=name):
            return name
        case SequenceKey(idx=index):
            return str(index)
        case _:
            return str(key)


def canonical_path(key_path: Iterable[Any]) -> Path:
    """The path of a leaf as plain strings, the same for every container of the same model.

    An `nnx.Variable` adds an attribute ``value`` below the leaf in `tx.init` but not in `tx.update`, and linen's
    ``model.init`` puts the parameters below a collection ``params`` that optimizers usually do not see: both are
    dropped. A key with slashes, as in flattened trees and Haiku's, is as many names as it has parts.
    """
    keys = tuple(key_path)
    if len(keys) > 1 and isinstance(keys[-1], GetAttrKey) and keys[-1].name == "value":
        keys = keys[:-1]
    names = tuple(part for key in keys for part in _key_name(key).split("/") if part)
    return names[1:] if len(names) > 1 and names[0] == _COLLECTION else names


def parse_path(path: str | Iterable[Any]) -> Path:
    """The canonical path of a leaf that a user named, as ``"Dense_0/kernel"`` or ``("Dense_0", "kernel")``."""
    return canonical_path(DictKey(name) for name in ([path] if isinstance(path, str) else path))


def is_masked(leaf: Any) -> bool:
    """Whether a leaf was hidden by `optax.masked`."""
    return isinstance(leaf, optax.MaskedNode)


def leaves_by_path(params: Any) -> dict[Path, Any]:
    """The leaves of a parameter tree under their canonical paths; masked leaves appear as `optax.MaskedNode`.

    Raises:
        AmbiguousLeafError: two leaves have one path.
    """
    leaves, _ = jax.tree_util.tree_flatten_with_path(params, is_leaf=is_masked)
    found = {canonical_path(key_path): leaf for key_path, leaf in leaves}
    if len(found) < len(leaves):
        raise AmbiguousLeafError(two_of_one_path([key_path for key_path, _ in leaves]))
    return found


def two_of_one_path(key_paths: Iterable[Any]) -> str:
    """Which two leaves have one path, in words."""
    known: dict[Path, str] = {}
    for key_path in key_paths:
        path, written = canonical_path(key_path), jax.tree_util.keystr(key_path)
        if path in known:
            return (
                f"{known[path]} and {written} are both named {named(path)}: slashes part names, and a collection "
                f"{_COLLECTION!r} around all others and the value of a variable have none of their own. Rename one, or "
                "pass only the part of the tree that is trained."
            )
        known[path] = written
    raise AssertionError("all paths differ")


def leaf_shape(leaf: Any) -> tuple[int, ...]:
    """The shape of an array, a `jax.ShapeDtypeStruct` or a number."""
    return tuple(leaf.shape) if hasattr(leaf, "shape") else np.shape(leaf)


def natural_key(path: Path) -> tuple[Any, ...]:
    """A sort key that puts ``Dense_2`` before ``Dense_10``."""
    return tuple(
        tuple((1, int(part), "") if part.isdecimal() else (0, 0, part) for part in _DIGITS.split(name)) for name in path
    )


def display(path: Path) -> str:
    """A path as users write it; empty where the tree is a single array."""
    return "/".join(path)


def named(path: Path) -> str:
    """A path in a message."""
    return display(path) or "the whole tree"


def listed(leaves: dict[Path, Any], near: Path | None = None) -> str:
    """A readable list of leaves, the ones most like `near` first."""
    names = [named(path) for path in sorted(leaves, key=natural_key)]
    if near is not None:
        close = difflib.get_close_matches(named(near), names, n=3)
        names = close + [name for name in names if name not in close]
    shown = ", ".join(names[:8]) or "no leaves at all"
    return shown + (f" and {len(names) - 8} more" if len(names) > 8 else "")
