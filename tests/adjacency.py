"""Adjacencies written by hand, for networks that are no chains."""

import numpy as np


class Adjacency:
    """Units and the absolute weights between them."""

    def __init__(self) -> None:
        self.matrix = np.zeros((0, 0))

    def units(self, *shape: int) -> np.ndarray:
        """New units, numbered, in an array of this shape."""
        old, new = len(self.matrix), int(np.prod(shape))
        grown = np.zeros((old + new, old + new))
        grown[:old, :old] = self.matrix
        self.matrix = grown
        return old + np.arange(new).reshape(shape)

    def join(self, rows: np.ndarray, columns: np.ndarray, weights: np.ndarray) -> None:
        """Edges |w| from rows[i] to columns[j]; a pair may occur several times."""
        rows, columns = np.ravel(rows), np.ravel(columns)
        absolute = np.abs(np.asarray(weights, np.float64)).reshape(len(rows), len(columns))
        directed = np.zeros_like(self.matrix)
        np.add.at(directed, (rows[:, None], columns[None, :]), absolute)
        np.fill_diagonal(directed, 0)
        self.matrix += directed + directed.T

    def layer(self, rows: np.ndarray, weights: np.ndarray) -> np.ndarray:
        """New units for the columns of a kernel (rows, columns)."""
        columns = self.units(np.asarray(weights).shape[-1])
        self.join(rows, columns, weights)
        return columns
