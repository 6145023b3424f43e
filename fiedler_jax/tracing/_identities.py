"""Arrays of unit identities by themselves: along which axes they vary, and whether they hold units.

Identities are an integer array with as many axes as the activation, of size one along every axis on which they do not
depend; -1 is an element that is no unit (a statistic, a constant), and less is a pool or an outer product.
"""

import numpy as np

NO_UNIT = -1


def no_units(rank: int) -> np.ndarray:
    """The identities of an array of this rank that holds no units."""
    return np.full((1,) * rank, NO_UNIT, np.int32)


def varied(ids: np.ndarray) -> frozenset[int]:
    """The axes along which identities vary."""
    return frozenset(axis for axis, size in enumerate(ids.shape) if size > 1)


def varied_among(chosen: np.ndarray, ids: np.ndarray) -> frozenset[int]:
    """The axes along which identities vary from one chosen element to another."""
    limits = np.iinfo(ids.dtype)
    most, least = np.where(chosen, ids, limits.min), np.where(chosen, ids, limits.max)
    return frozenset(axis for axis in range(ids.ndim) if np.any(most.max(axis=axis) > least.min(axis=axis)))


def holds_any(ids: np.ndarray) -> bool:
    """Whether any element is a unit, a pool or an outer product."""
    return bool(np.any(ids != NO_UNIT))


def has_units(ids: np.ndarray) -> bool:
    """Whether any element is a unit."""
    return bool(np.any(ids >= 0))
