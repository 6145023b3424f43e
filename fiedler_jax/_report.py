"""A graph of units as text: tables to read, and a description that Graphviz draws."""

from collections.abc import Iterable, Sequence
from typing import Any, Protocol


class _Graph(Protocol):
    @property
    def groups(self) -> Sequence[Any]: ...
    @property
    def blocks(self) -> Sequence[Any]: ...
    @property
    def left_out(self) -> Sequence[Any]: ...
    @property
    def not_understood(self) -> Sequence[str]: ...
    @property
    def components(self) -> Sequence[dict[str, int]]: ...
    @property
    def num_vertices(self) -> int: ...
    @property
    def num_edges(self) -> int: ...


def summary(graph: _Graph) -> str:
    """Tables of groups, edge blocks, parameters left out, and what was not understood."""
    lines = [f"NetworkGraph: {graph.num_vertices} vertices, {graph.num_edges} edges"]
    lines += _table("groups", [(group.name, str(group.size), _origin(graph, group.name)) for group in graph.groups])
    lines += _table(
        "edge blocks",
        [
            (block.kernel, str(block.shape), f"{block.source} -> {block.target}", str(block.arrangement or ""))
            for block in graph.blocks
        ],
    )
    lines += _table("left out", [(leaf.path, str(leaf.shape), leaf.reason) for leaf in graph.left_out])
    lines += _table("not understood", [(what,) for what in graph.not_understood])
    apart = listed(graph.components)
    lines += _table("components that no edge joins: λ2 is 0", [(own,) for own in apart] if len(apart) > 1 else [])
    return "\n".join(lines)


def listed(components: Sequence[dict[str, int]]) -> list[str]:
    """Each connected component in words, the first few by name."""
    lines = [f"{sum(own.values())} units of {_few(own)}" for own in components[:8]]
    return [*lines, f"and {len(components) - 8} more"] if len(components) > 8 else lines


def to_dot(graph: _Graph) -> str:
    """Groups as boxes, edge blocks as arrows, in the DOT language."""
    boxes = [f"{_quoted(group.name)} [label={_quoted(group.name, f'{group.size} units')}]" for group in graph.groups]
    arrows = [
        f"{_quoted(block.source)} -> {_quoted(block.target)} [label={_quoted(block.kernel, str(block.shape))}]"
        for block in graph.blocks
    ]
    return "\n".join(["digraph {", *("  " + line for line in ["rankdir=LR", "node [shape=box]", *boxes, *arrows]), "}"])


def _origin(graph: _Graph, name: str) -> str:
    """Whose columns the units of a group are, or, for inputs, who reads them."""
    made = dict.fromkeys(block.kernel for block in graph.blocks if block.target == name)
    if made:
        return "of " + _few(made)
    return "-> " + _few(dict.fromkeys(block.target for block in graph.blocks if block.source == name))


def _few(names: Iterable[str]) -> str:
    first, *others = names
    return ", ".join([first, *others[:1]]) + (f" and {len(others) - 1} more" if len(others) > 1 else "")


def _table(header: str, rows: Sequence[tuple[str, ...]]) -> list[str]:
    if not rows:
        return []
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ("  ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)).rstrip() for row in rows)
    return [header, *("  " + line for line in lines)]


def _quoted(*lines: str) -> str:
    return '"' + "\\n".join(line.replace("\\", "\\\\").replace('"', '\\"') for line in lines) + '"'
