"""Connected components: of what pairs join, and of the units of a graph, whatever its weights are."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components


def joined_by(pairs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """What stands in some pairs (2, m), each once and in ascending order, and the number of its connected component."""
    nodes, ends = np.unique(pairs, return_inverse=True)
    graph = coo_array((np.ones(ends.shape[1]), (ends[0], ends[1])), shape=(len(nodes), len(nodes)))
    _, component = connected_components(graph, directed=False)
    return nodes, component


def components(blocks: Sequence[Any], ranges: dict[str, tuple[int, int]]) -> tuple[dict[str, int], ...]:
    """The connected components of a graph of edge blocks: of each, how many units of which group.

    Args:
        blocks: the `EdgeBlock`s.
        ranges: first vertex and one past the last vertex of each group.
    """
    firsts = {name: start for name, (start, _) in ranges.items()}
    spanning = [pairs for block in blocks for pairs in _spanning(block, firsts[block.source], firsts[block.target])]
    vertices, component = joined_by(np.concatenate([np.zeros((2, 0), int), *spanning], axis=1))
    # What a vertex is joined to may be itself only.
    alone = np.bincount(component)[component] == 1
    vertices, component = vertices[~alone], component[~alone]
    _, first = np.unique(component, return_index=True)
    found = []
    for number in component[np.sort(first)]:
        own = vertices[component == number]
        counts = {name: int(((own >= start) & (own < stop)).sum()) for name, (start, stop) in ranges.items()}
        found.append({name: count for name, count in counts.items() if count})
    return tuple(found)


def _spanning(block: Any, source: int, target: int) -> Iterator[np.ndarray]:
    """Pairs of vertices (2, m) that are in one component by a block, enough of them to join all that it joins."""
    *several, rows, columns = block.shape
    if block.arrangement is not None and block.arrangement.scattered is not None:
        places = np.broadcast_arrays(*block.arrangement.scattered.indices)
        inside = (places[0] < rows) & (places[1] < columns)
        yield np.stack([source + places[0][inside], target + places[1][inside]])
        return
    for number in range(several[0] if several else 1) if rows and columns else ():
        own_rows = source + number * rows + np.arange(rows)
        own_columns = target + number * columns + np.arange(columns)
        yield np.stack([own_rows, np.full(rows, own_columns[0])])
        yield np.stack([np.full(columns, own_rows[0]), own_columns])
