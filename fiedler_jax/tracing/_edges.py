"""How a kernel joins units: which its entries lie between, in which layout, under which name."""

from collections.abc import Sequence

import numpy as np

from fiedler_jax._effective import Effective
from fiedler_jax._paths import display
from fiedler_jax.tracing._identities import has_units
from fiedler_jax.tracing._trace import Product, Trace, Value

# Axes of a batch and contracted ones.
Axes = tuple[Sequence[int], Sequence[int]]


def kernel_name(*kernels: Effective) -> str:
    """The layer that kernels belong to: what the paths of their leaves begin with, and the place in a stack."""
    paths = [path for kernel in kernels for path in kernel.leaves]
    common = paths[0][:-1] if len(paths[0]) > 1 else paths[0]
    while common and any(path[: len(common)] != common for path in paths):
        common = common[:-1]
    return display(common or paths[0][:-1] or paths[0]) + kernels[0].place


def placed(ids: np.ndarray, axes: Sequence[int], rank: int) -> np.ndarray:
    """Identities whose axis i stands at axes[i] among so many axes."""
    shape = [1] * rank
    for axis, size in zip(axes, ids.shape, strict=True):
        shape[axis] = size
    return ids.transpose(np.argsort(axes)).reshape(shape)


def contracted(ids: np.ndarray, axes: Sequence[int], batch: Sequence[int], shift: int, rank: int) -> np.ndarray:
    """Identities, not varying along the contracted axes, in the output of a product.

    Its axes are the batch axes, the other free axes of the first operand, those of the second; `shift` is how many of
    the other operand come before.
    """
    left = [axis for axis in range(ids.ndim) if axis not in axes]
    free = [axis for axis in left if axis not in batch]
    order = [*batch, *([None] * shift), *free]
    return placed(np.squeeze(ids, axis=tuple(axes)), [order.index(axis) for axis in left], rank)


def rows_of(trace: Trace, value: Value, axes: Sequence[int], sizes: Sequence[int], kernel: Effective) -> np.ndarray:
    """Identities for an array without any: a unit for each place along the axes that kernels read, the same for all."""
    key = id(value), tuple(axes), tuple(sizes)
    if key not in trace.rows:
        # While the array is held here, no other has its address.
        units = trace.units.fresh(sizes, f"{kernel_name(kernel)} rows")
        trace.rows[key] = value, placed(units, axes, len(value.shape))
    return trace.rows[key][1]


def source_units(trace: Trace, ids: np.ndarray, shape: Sequence[int], kernel: Effective) -> np.ndarray:
    """Units for every row of a kernel: new ones where the activation has none."""
    if not has_units(ids):
        return trace.units.fresh(shape, f"{kernel_name(kernel)} rows")
    missing = ids < 0
    if not np.any(missing):
        return ids
    filled = ids.copy()
    filled[missing] = trace.units.fresh([int(missing.sum())], f"{kernel_name(kernel)} rows")
    return filled


def joined(trace: Trace, kernel: Effective, ids: np.ndarray, of_kernel: Axes, of_ids: Axes) -> np.ndarray:
    """New units that a kernel joins to those it is multiplied with: along its batch axes, then its free ones."""
    (batch_w, contract_w), (batch_x, contract_x) = of_kernel, of_ids
    free_x = [axis for axis in range(ids.ndim) if axis not in (*batch_x, *contract_x)]
    free_w = [axis for axis in range(len(kernel.shape)) if axis not in (*batch_w, *contract_w)]
    rows = trace.units.united_over(ids, free_x).transpose(*batch_x, *contract_x, *free_x)
    rows = rows.reshape(rows.shape[: len(batch_x) + len(contract_x)])
    rows = source_units(trace, rows, [kernel.shape[axis] for axis in (*batch_w, *contract_w)], kernel)
    layers, units = ([kernel.shape[axis] for axis in axes] for axes in (batch_w, free_w))
    columns = trace.units.fresh(units, kernel_name(kernel), layers)
    rank = len(kernel.shape)
    source, target = placed(rows, [*batch_w, *contract_w], rank), placed(columns, [*batch_w, *free_w], rank)
    trace.multiply(Product(kernel, source, target))
    return columns


def with_units_for_pools(trace: Trace, ids: np.ndarray, kernel: Effective) -> np.ndarray:
    """Identities that a kernel reads, with units for pools and outer products."""
    if np.any(trace.units.are_of_neighbours(ids)):
        trace.not_understood("units combined with their neighbours", [kernel])
    return trace.units.standing_for(ids, f"{kernel_name(kernel)} rows")
