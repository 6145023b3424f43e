"""The order of a chain of kernels, from their names and shapes."""

import itertools
import re

from fiedler_jax._paths import Path, display
from fiedler_jax.errors import AmbiguousChainError, BrokenChainError

_NUMBERED = re.compile(r"(.*?)(\d+)$")

# A chain is an Eulerian trail through layer sizes; a search that has not ended after this many steps has many of them.
_SEARCH_LIMIT = 20_000


def order_chain(shapes: dict[Path, tuple[int, ...]]) -> tuple[Path, ...]:
    """The one order in which kernels form a chain.

    Args:
        shapes: (rows, columns) of each kernel, the keys in natural order.

    Returns:
        The kernels' paths from the input to the output.

    Raises:
        BrokenChainError: no order agrees with both the numbered names and the shapes.
        AmbiguousChainError: several do.
    """
    numbered = {path: frozenset(other for other in shapes if _numbered_before(other, path)) for path in shapes}
    orders = _chains(shapes, numbered)
    if len(orders) == 1:
        return orders[0]
    if orders:
        raise AmbiguousChainError(
            f"Names and shapes leave more than one order: {_describe(orders[0], shapes)}, or "
            f"{_describe(orders[1], shapes)}. Number the layers (Dense_0, Dense_1, ...), or state the order: "
            f"{_remedy(orders[0])}."
        )
    raise BrokenChainError(_broken_message(shapes))


def _chains(shapes: dict[Path, tuple[int, ...]], before: dict[Path, frozenset[Path]]) -> list[tuple[Path, ...]]:
    """The first two orders (all, if fewer) in which every kernel's rows meet the columns before it."""
    found: list[tuple[Path, ...]] = []
    stack: list[tuple[Path, ...]] = [()]
    steps = 0
    while stack and len(found) < 2 and steps < _SEARCH_LIMIT:
        steps += 1
        chain = stack.pop()
        if len(chain) == len(shapes):
            found.append(chain)
            continue
        placed = set(chain)
        fits = [
            path
            for path in shapes
            if path not in placed and before[path] <= placed and (not chain or shapes[path][0] == shapes[chain[-1]][1])
        ]
        stack.extend((*chain, path) for path in reversed(fits))
    if stack and len(found) < 2:
        raise AmbiguousChainError(
            f"The order of {len(shapes)} kernels could not be settled from names and shapes. Number the layers "
            "(Dense_0, Dense_1, ...), trace the model with fj.graph_from_model(model, params, inputs), or state how "
            "they connect with fj.graph_from_edges."
        )
    return found


def _numbered_before(first: Path, second: Path) -> bool:
    """Whether numbered names put `first` before `second`: they part in one name, in its number alone."""
    for a, b in zip(first, second, strict=False):
        if a != b:
            one, two = _NUMBERED.match(a), _NUMBERED.match(b)
            return bool(one and two and one[1] == two[1] and int(one[2]) < int(two[2]))
    return False


def _describe(order: tuple[Path, ...], shapes: dict[Path, tuple[int, ...]]) -> str:
    return " -> ".join(f"{display(path)} {shapes[path]}" for path in order)


def _remedy(order: tuple[Path, ...]) -> str:
    groups = ["input", *(f"h{i}" for i in range(1, len(order))), "output"]
    triples = (f"({display(path)!r}, {groups[i]!r}, {groups[i + 1]!r})" for i, path in enumerate(order))
    return f"fj.graph_from_edges(params, [{', '.join(triples)}])"


def _broken_message(shapes: dict[Path, tuple[int, ...]]) -> str:
    order = tuple(shapes)
    misfit = next(((a, b) for a, b in itertools.pairwise(order) if shapes[a][1] != shapes[b][0]), None)
    what = "The kernels " + _describe(order, shapes) + " form no chain"
    if misfit:
        a, b = misfit
        what += f": {display(a)} {shapes[a]} has {shapes[a][1]} columns, {display(b)} {shapes[b]} {shapes[b][0]} rows"
    try:
        by_shape = _chains(shapes, dict.fromkeys(shapes, frozenset()))
    except AmbiguousChainError:  # Layers of one size have too many orders without their numbers.
        by_shape = []
    if len(by_shape) == 1:
        return f"{what}. Against their numbers, the shapes fit in another order; if it is right, state it: " + (
            f"{_remedy(by_shape[0])}."
        )
    return f"{what}. Trace the model with fj.graph_from_model(model, params, inputs), or state how they connect: " + (
        "fj.graph_from_edges(params, [(kernel path, source, target), ...])."
    )
