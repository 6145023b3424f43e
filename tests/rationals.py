"""Eigenvalues counted in rational numbers, and graphs to count those of."""

import itertools
from collections.abc import Iterable
from fractions import Fraction

import numpy as np
from hypothesis import strategies as st

seeds = st.integers(0, 10_000)


def random_adjacency(seed: int, n: int, density: float, decades: float, bipartite: bool) -> np.ndarray:
    """Log-uniform weights; what a low density leaves may be isolated or in pieces."""
    rng = np.random.default_rng(seed)
    weights = rng.uniform(0.1, 1, (n, n)) * 10 ** -rng.uniform(0, decades, (n, n)) * (rng.random((n, n)) < density)
    if bipartite:
        sides = rng.random(n) < 0.4
        weights = weights * (sides[:, None] != sides)
    upper = np.triu(weights, 1)
    return upper + upper.T


def exact_count(adjacency: np.ndarray, normalized: bool, shift: float) -> int:
    """How many eigenvalues lie below a shift, by elimination in rational numbers.

    ``I - D^-1/2 A D^-1/2 - s`` has the signs of ``D - A - s D``, in which there are no roots.
    """
    n, s = len(adjacency), Fraction(shift)
    weights = [[Fraction(float(a)) for a in row] for row in adjacency]
    rows = [[-a for a in row] for row in weights]
    for i in range(n):
        degree = sum(weights[i], Fraction(0))
        rows[i][i] = degree - s * (degree if normalized and degree else 1)
    negative, left = 0, list(range(n))
    while left:
        pivots: Iterable[int] = [next((i for i in left if rows[i][i]), left[0])]
        first = next(iter(pivots))
        if rows[first][first]:
            negative += rows[first][first] < 0
            left.remove(first)
            for i, j in itertools.product(left, left):
                rows[i][j] -= rows[i][first] * rows[first][j] / rows[first][first]
            continue
        joined = next(((i, j) for i, j in itertools.combinations(left, 2) if rows[i][j]), None)
        if joined is None:
            break
        # Two vanishing diagonal entries, joined: one eigenvalue of each sign.
        p, q = joined
        negative += 1
        left = [i for i in left if i not in joined]
        for i, j in itertools.product(left, left):
            rows[i][j] -= (rows[i][p] * rows[q][j] + rows[i][q] * rows[p][j]) / rows[p][q]
    return negative


def rational(array: np.ndarray) -> np.ndarray:
    """The same numbers, to be computed with exactly."""
    return np.vectorize(lambda entry: Fraction(float(entry)), otypes=[object])(array)
