"""How the entries of an effective kernel become the block of edges between two groups of units."""

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from fiedler_jax._effective import Effective


@dataclasses.dataclass(frozen=True)
class Scattered:
    """Where each entry of a kernel without a regular arrangement goes in the (rows, columns) of its block.

    Both tables are those of int32 arrays that broadcast to the kernel's shape; an index out of range is left out.
    """

    rows: bytes
    columns: bytes
    row_shape: tuple[int, ...]
    column_shape: tuple[int, ...]

    @property
    def indices(self) -> tuple[np.ndarray, np.ndarray]:
        """Row and column of each entry."""
        rows = np.frombuffer(self.rows, np.int32).reshape(self.row_shape)
        return rows, np.frombuffer(self.columns, np.int32).reshape(self.column_shape)


class Span(NamedTuple):
    """The entries from `start` to before `stop`."""

    start: int
    stop: int


@dataclasses.dataclass(frozen=True)
class Arrangement:
    """The way from an effective kernel to its edge block.

    The absolute entries are picked along each axis, the axes split, some of the parts summed, the rest put in order:
    rows and columns, or, where the block falls into equal blocks along its diagonal, those first.

    Attributes:
        effective: the effective kernel.
        picked: for each axis everything (None), a span, or the entries listed.
        split: the shape after the axes are split.
        summed: the axes of that shape which are summed over, since their entries join the same units.
        order: the remaining axes as they stand in the block.
        scattered: where there is no such regular way, the place of each entry, and nothing of the above is done.
    """

    effective: Effective
    picked: tuple[Span | tuple[int, ...] | None, ...] = ()
    split: tuple[int, ...] = ()
    summed: tuple[int, ...] = ()
    order: tuple[int, ...] = ()
    scattered: Scattered | None = None

    def __str__(self) -> str:
        shape = self.effective.shape
        if self.scattered is not None:
            return f"{shape} entry by entry"
        parts = []
        if any(one is not None for one in self.picked):
            parts.append("part")
        if self.summed:
            parts.append(f"sums of {np.prod([self.split[i] for i in self.summed])}")
        return ", ".join([f"{shape}", *parts])


def arranged(magnitudes: jax.Array, how: Arrangement, shape: tuple[int, ...]) -> jax.Array:
    """The edge block of a kernel's absolute entries."""
    if how.scattered is not None:
        rows, columns = (np.broadcast_to(index, magnitudes.shape) for index in how.scattered.indices)
        return jnp.zeros(shape, magnitudes.dtype).at[rows, columns].add(magnitudes, mode="drop")
    for axis, picked in enumerate(how.picked):
        if picked is None:
            continue
        if isinstance(picked, Span):
            magnitudes = jax.lax.slice_in_dim(magnitudes, picked.start, picked.stop, axis=axis)
        else:
            magnitudes = jnp.take(magnitudes, np.array(picked), axis=axis, unique_indices=True)
    parts = jnp.sum(magnitudes.reshape(how.split), axis=how.summed)
    return parts.transpose(how.order).reshape(shape)
