"""Eigenvalues counted by elimination, against exact arithmetic."""

import dataclasses

import jax
import networkx as nx
import numpy as np
import pytest
import reference
import scipy.linalg
from hypothesis import given, settings
from hypothesis import strategies as st
from rationals import exact_count, random_adjacency, rational, seeds
from spectra import BOTH

import fiedler_jax as fj
from fiedler_jax.certificate import _elimination, _graph


def parts_of(adjacency: np.ndarray, normalized: bool) -> _elimination.Parts:
    with jax.enable_x64(True):
        graph = _graph.graph_of(fj.laplacian_from_adjacency(adjacency, normalized=normalized), True)
    _, colours = _graph.search(graph)
    return _elimination.partition(graph, np.zeros(len(adjacency), bool) if colours is None else colours == 0)


@BOTH
@settings(max_examples=150, deadline=None)
@given(
    seed=seeds,
    n=st.integers(3, 8),
    decades=st.sampled_from([0, 3, 8]),
    bipartite=st.booleans(),
    at_pivot=st.booleans(),
    distance=st.sampled_from([0, 1e-16, -1e-14, 1e-12, -1e-9, 1e-6, -1e-4]),
    limit=st.sampled_from([0, _elimination.MAX_ORDER]),
)
def test_a_count_is_exact_within_its_error(
    normalized: bool,
    seed: int,
    n: int,
    decades: float,
    bipartite: bool,
    at_pivot: bool,
    distance: float,
    limit: int,
) -> None:
    adjacency = random_adjacency(seed, n, 1.0, decades, bipartite)
    if not nx.is_connected(nx.from_numpy_array(adjacency)):
        return
    parts = parts_of(adjacency, normalized)
    # Near a diagonal entry the elimination divides by next to nothing, unless it may keep the vertex.
    near = np.append(parts.eliminated_diagonal, 1.0) if at_pivot else reference.spectrum(adjacency, normalized)[1:]
    point = float(near[seed % len(near)] * (1 + distance))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_elimination, "MAX_ORDER", limit)
        count, error = _elimination._count_below(parts, point)
    if error < np.inf:
        least, most = (exact_count(adjacency, normalized, point + side * error) for side in (-1, 1))
        assert least <= count <= most
    if limit and decades == 0:
        assert error <= 1e-9 * parts.norm


@settings(max_examples=40, deadline=None)
@given(seed=seeds, decades=st.sampled_from([0, 4]), gap=st.sampled_from([1.0, 1e-6, 1e-12]))
def test_rounding_of_the_schur_complement_and_of_its_factors_is_bounded(seed: int, decades: float, gap: float) -> None:
    parts = parts_of(reference.chain_adjacency(reference.random_kernels((6, 3), seed)), False)
    parts = dataclasses.replace(
        parts,
        coupling=parts.coupling * 10 ** -np.linspace(0, decades, parts.coupling.size).reshape(parts.coupling.shape),
    )
    pivots = gap * np.random.default_rng(seed).uniform(-1, 1, len(parts.eliminated_diagonal))
    schur, error = _elimination._schur_complement(parts, 0.1, pivots, np.zeros(len(pivots), bool))
    expected = rational(np.diag(parts.diagonal - 0.1) - parts.inner)
    coupling = rational(parts.coupling)
    expected = expected - coupling.T @ (coupling / rational(pivots)[:, None])
    assert np.linalg.norm((rational(schur) - expected).astype(float), 2) <= error <= 1e-11 * np.abs(schur).max() / gap
    matrix = np.random.default_rng(seed).normal(size=(5, 5))
    matrix = matrix + matrix.T
    factor, blocks, _ = map(rational, scipy.linalg.ldl(matrix))
    _, error = _elimination._negative_eigenvalues(matrix, np.ones(5))
    assert np.linalg.norm((rational(matrix) - factor @ blocks @ factor.T).astype(float), 2) <= error <= 1e-11


@BOTH
def test_every_source_of_error_counts(normalized: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    parts = parts_of(reference.chain_adjacency(reference.random_kernels((5, 3, 2))), normalized)
    assert _elimination._count_below(parts, 0.3)[1] < 1e-12
    assert _elimination._count_below(dataclasses.replace(parts, entry_error=1.0), 0.3)[1] > 1
    for name in ("_schur_complement", "_negative_eigenvalues"):
        original = getattr(_elimination, name)
        with monkeypatch.context() as patch:
            patch.setattr(_elimination, name, lambda *a, of=original: (of(*a)[0], of(*a)[1] + 1))
            assert _elimination._count_below(parts, 0.3)[1] > 1
