"""Bounds of the Fiedler value, against the dense oracle and brute force."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import networkx as nx
import numpy as np
import pytest
import reference
from hypothesis import given, settings
from hypothesis import strategies as st
from networks import SMALL, chain_laplacian
from rationals import random_adjacency, seeds
from spectra import BOTH

import fiedler_jax as fj
from fiedler_jax import errors


def dense_pair(adjacency: np.ndarray, normalized: bool, inside: np.ndarray | None = None) -> fj.FiedlerPair:
    """The Fiedler pair of the graph of some vertices by the oracle, as far as `bounds` looks at it."""
    inside = np.ones(len(adjacency), bool) if inside is None else inside
    values, columns = np.linalg.eigh(reference.dense_laplacian(adjacency[np.ix_(inside, inside)], normalized))
    vector = np.zeros(len(adjacency))
    vector[inside] = columns[:, 1]
    fields: dict[str, Any] = dict.fromkeys(fj.FiedlerPair._fields, np.nan)
    fields |= {"vector": vector, "next_value": values[2] if len(values) > 2 else np.inf, "next_residual": 1e-14}
    return fj.FiedlerPair(**fields)


def conductance(adjacency: np.ndarray) -> float:
    """By trying every set of vertices."""
    n, degrees, least = len(adjacency), adjacency.sum(axis=1), 1.0
    for bits in range(1, 2 ** (n - 1)):
        inside = np.array([(bits >> i) & 1 for i in range(n)], bool)
        cut, volume = adjacency[inside][:, ~inside].sum(), min(degrees[inside].sum(), degrees[~inside].sum())
        least = min(least, cut / volume if cut else 0.0)
    return least


@BOTH
@settings(max_examples=100, deadline=None)
@given(
    seed=seeds,
    density=st.sampled_from([0.3, 0.6, 1.0]),
    decades=st.sampled_from([0, 3]),
    noise=st.sampled_from([0, 1e-3, 0.1, 10]),
    offset=st.sampled_from([0, 1e3, 1e14]),
    ignore_isolated=st.booleans(),
)
def test_bounds_hold(
    normalized: bool, seed: int, density: float, decades: float, noise: float, offset: float, ignore_isolated: bool
) -> None:
    adjacency = random_adjacency(seed, 7, density, decades, bipartite=False)
    inside = (adjacency.sum(axis=1) > 0) | (not ignore_isolated)
    part = adjacency[np.ix_(inside, inside)]
    if len(part) < 2:
        return
    with jax.enable_x64(True):
        lap = fj.laplacian_from_adjacency(adjacency, normalized=normalized)
    pair = dense_pair(adjacency, normalized, inside)
    # Far along the null vector, little is left beside it.
    null = np.sqrt(adjacency.sum(axis=1)) if normalized else np.ones(7)
    pair = pair._replace(vector=pair.vector + noise * np.random.default_rng(seed).normal(size=7) + offset * null)
    values, h = reference.spectrum(part, normalized), conductance(part)
    rows = {bound.name: bound for bound in fj.bounds(lap, pair, ignore_isolated=ignore_isolated).rows}
    assert list(rows) == ["trace" if normalized else "least degree", "Rayleigh", "Temple", "Cheeger", "sweep cut"]
    for bound in rows.values():
        quantity = values[1] if bound.quantity == "λ2" else h
        slack = 1e-13 * values[-1] if bound.quantity == "λ2" else 1e-13
        assert bound.lower <= quantity + slack, bound
        assert bound.upper >= quantity - slack, bound
    # Where zero is a multiple eigenvalue, the oracle's second vector may be the null vector.
    if noise == 0 and offset == 0 and values[1] > 1e-6:
        np.testing.assert_allclose(rows["Rayleigh"].upper, values[1], rtol=1e-8)
        if len(values) > 2 and values[2] > 1.01 * values[1]:
            np.testing.assert_allclose(rows["Temple"].lower, values[1], rtol=1e-8)


@BOTH
def test_bounds_are_sharp_where_they_can_be(normalized: bool, x64: None) -> None:
    complete = fj.laplacian_from_adjacency(1 - np.eye(5), normalized=normalized)
    rows = {bound.name: bound for bound in fj.bounds(complete, dense_pair(1 - np.eye(5), normalized)).rows}
    np.testing.assert_allclose(rows["trace" if normalized else "least degree"].upper, 1.25 if normalized else 5)
    barbell = nx.to_numpy_array(nx.barbell_graph(6, 0))
    lap = fj.laplacian_from_adjacency(barbell, normalized=normalized)
    rows = {bound.name: bound for bound in fj.bounds(lap, dense_pair(barbell, normalized)).rows}
    np.testing.assert_allclose(rows["sweep cut"].upper, conductance(barbell))
    np.testing.assert_allclose(rows["sweep cut"].upper, 1 / 31)
    assert 0 < rows["Cheeger"].lower <= 1 / 31 <= rows["Cheeger"].upper < 1


@BOTH
def test_bounds_of_a_network_in_single_precision(normalized: bool) -> None:
    kernels = [kernel.astype("float32") for kernel in reference.random_kernels(SMALL)]
    values = reference.spectrum(reference.chain_adjacency([k.astype("float64") for k in kernels]), normalized)
    lap = chain_laplacian(kernels, normalized, "float32")
    pair = jax.jit(functools.partial(fj.fiedler_pair, solver=fj.Dense()))(lap)
    rows = {bound.name: bound for bound in fj.bounds(lap, pair).rows}
    assert rows["Temple"].lower <= values[1] <= rows["Rayleigh"].upper
    np.testing.assert_allclose(rows["Rayleigh"].upper, values[1], rtol=1e-5)
    np.testing.assert_allclose(rows["Temple"].lower, values[1], rtol=1e-4)


def test_bounds_without_a_usable_vector_say_nothing(x64: None) -> None:
    path = nx.to_numpy_array(nx.path_graph(4))
    lap, pair = fj.laplacian_from_adjacency(path), dense_pair(path, False)
    for entries in (np.nan, 0.0, 1.0):
        rows = {bound.name: bound for bound in fj.bounds(lap, pair._replace(vector=jnp.full(4, entries))).rows}
        assert rows["Rayleigh"].upper >= 1
        assert rows["Temple"].lower == 0
        assert 1 / 3 <= rows["sweep cut"].upper <= 1
    with pytest.raises(errors.VectorError, match=r"a vector \(4,\)"):
        fj.bounds(lap, pair._replace(vector=jnp.ones(3)))


@pytest.mark.parametrize("scale", [1e-200, 1e200])
def test_temples_bound_holds_where_squares_under_or_overflow(scale: float, x64: None) -> None:
    upper = np.triu(np.random.default_rng(0).random((14, 14)), 1)
    adjacency = scale * (upper + upper.T)
    lap = fj.laplacian_from_adjacency(adjacency)
    vector = np.asarray(dense_pair(adjacency / scale, False).vector)
    vector += 1e-2 * np.random.default_rng(5).normal(size=14)
    pair = fj.fiedler_pair(lap)._replace(vector=jnp.asarray(vector / np.linalg.norm(vector)))
    value = scale * reference.spectrum(adjacency / scale, False)[1]
    rows = {bound.name: bound for bound in fj.bounds(lap, pair).rows}
    assert 0.98 * value < rows["Temple"].lower <= value <= rows["Rayleigh"].upper


def test_bounds_print_as_a_table(x64: None) -> None:
    path = nx.to_numpy_array(nx.path_graph(4))
    table = str(fj.bounds(fj.laplacian_from_adjacency(path), dense_pair(path, False))).splitlines()
    assert table[0].split() == ["bound", "quantity", "lower", "upper", "assumes"]
    assert [line.split()[0] for line in table[1:]] == ["least", "Rayleigh", "Temple", "Cheeger", "sweep"]
    assert "0.585786" in table[2]
    assert len({line.index("λ2") for line in table[1:4]}) == 1
