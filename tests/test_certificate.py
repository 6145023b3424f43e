"""Certificates and bounds, against exact arithmetic, the dense oracle and brute force."""

import dataclasses
import functools
import itertools
from collections.abc import Iterable
from fractions import Fraction
from typing import Any

import jax
import jax.numpy as jnp
import networkx as nx
import numpy as np
import pytest
import reference
import scipy.linalg
from hypothesis import given, settings
from hypothesis import strategies as st
from networks import NETS, each_net
from spectra import BOTH

import fiedler_jax as fj
from fiedler_jax import Verdict, errors
from fiedler_jax.certificate import _elimination, _graph

SMALL = (300, 120, 90, 10)

seeds = st.integers(0, 10_000)


def network(kernels: reference.Kernels, normalized: bool, dtype: str = "float64") -> fj.Laplacian:
    params = reference.chain_params(kernels, dtype)
    return fj.laplacian(fj.graph_from_params(params), params, normalized=normalized)


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


def assert_true(certificate: fj.Certificate, adjacency: np.ndarray, normalized: bool) -> None:
    """The ranges hold the exact counts, and a verdict is what the exact counts say."""
    counts = [exact_count(adjacency, normalized, shift) for shift in (certificate.lower, certificate.upper)]
    for count, (least, most) in zip(counts, (certificate.below_lower, certificate.below_upper), strict=True):
        assert least <= count <= most, certificate
    if certificate.verdict is not Verdict.UNDECIDED:
        assert (counts[0] <= 1 < counts[1]) == (certificate.verdict is Verdict.PROVED), certificate


def assert_undecided_for_a_reason(certificate: fj.Certificate, values: np.ndarray) -> None:
    """Only an eigenvalue near a shift, as far as rounding is bounded, keeps a verdict from being given."""
    if certificate.verdict is Verdict.UNDECIDED:
        distances = np.abs(values[:, None] - [certificate.lower, certificate.upper])
        assert distances.min() <= 3 * certificate.margin + 1e-14 * values[-1], certificate


@functools.cache
def papers_network(sizes: tuple[int, ...], normalized: bool) -> tuple[fj.Laplacian, float, float]:
    """A network, its Fiedler value by an oracle that is not the code under test, and an estimate of the next one."""
    kernels = reference.random_kernels(sizes)
    with jax.enable_x64(True):
        lap = network(kernels, normalized)
        if sum(sizes) < 3000:
            values = reference.spectrum(reference.chain_adjacency(kernels), normalized)
            return lap, float(values[1]), float(values[2])
        pair = jax.jit(fj.fiedler_pair)(lap)
    value, exceeds = float(pair.value), reference.fiedler_value_exceeds(kernels, normalized)
    assert exceeds(value * (1 - 1e-8))
    assert not exceeds(value * (1 + 1e-8))
    return lap, value, float(pair.next_value)


@each_net((SMALL, True), (NETS[2], False))
def test_the_papers_networks(sizes: tuple[int, ...], normalized: bool) -> None:
    lap, value, next_value = papers_network(sizes, normalized)
    certificate = fj.certify(lap, value, tol=1e-7)
    assert certificate.verdict is Verdict.PROVED, certificate
    assert certificate.order == sum(sizes[1::2]), certificate
    assert certificate.margin < 2e-8 * value
    for distance in (-1e-6, 1e-6):
        moved = value * (1 + distance)
        assert fj.certify(lap, moved, tol=0.9e-6).verdict is Verdict.REFUTED
        assert fj.certify(lap, moved, tol=1.1e-6).verdict is Verdict.PROVED
    assert fj.certify(lap, next_value).verdict is Verdict.REFUTED


@BOTH
@pytest.mark.parametrize(
    "sizes", [pytest.param(NETS[2], marks=pytest.mark.slow), SMALL], ids=lambda sizes: str(sizes[0])
)
def test_a_value_that_is_off_is_refuted_and_proved_to_a_looser_tolerance(
    sizes: tuple[int, ...], normalized: bool
) -> None:
    lap, value, _ = papers_network(sizes, normalized)
    for size, sign in itertools.product((1e-2, 1e-3, 1e-4, 1e-5, 1e-6), (-1, 1)):
        moved = value * (1 + sign * size)
        assert fj.certify(lap, moved, tol=0.9 * size).verdict is Verdict.REFUTED
        assert fj.certify(lap, moved, tol=1.1 * size).verdict is Verdict.PROVED


@BOTH
def test_false_convergence_is_refuted(normalized: bool, dtype: str) -> None:
    kernels = [kernel.astype("float32") for kernel in reference.random_kernels((60, 30, 20, 5), seed=2)]
    values = reference.spectrum(reference.chain_adjacency([k.astype("float64") for k in kernels]), normalized)
    lap = network(kernels, normalized, dtype)
    # A float32 Laplacian is certified in float64, far beyond its own rounding.
    for at, value in enumerate(values):
        expected = Verdict.PROVED if at == 1 else Verdict.REFUTED
        assert fj.certify(lap, value, tol=1e-9).verdict is expected, at


@BOTH
@settings(max_examples=100, deadline=None)
@given(
    seed=seeds,
    n=st.integers(2, 8),
    density=st.sampled_from([0.25, 0.6, 1.0]),
    decades=st.sampled_from([0, 3, 8]),
    bipartite=st.booleans(),
    near=st.sampled_from([0, 1, 1, 1, 1, 2, 3]),
    distance=st.sampled_from([0, 1e-15, -1e-13, 1e-11, -1e-9, 1e-7, -1e-7, 1e-5, -1e-3, 0.1]),
    tol=st.sampled_from([1e-2, 1e-6, 1e-10, 1e-12, 1e-14]),
    ignore_isolated=st.booleans(),
)
def test_no_verdict_contradicts_exact_arithmetic(
    normalized: bool,
    seed: int,
    n: int,
    density: float,
    decades: float,
    bipartite: bool,
    near: int,
    distance: float,
    tol: float,
    ignore_isolated: bool,
) -> None:
    adjacency = random_adjacency(seed, n, density, decades, bipartite)
    part = adjacency[np.ix_(*[adjacency.any(axis=1)] * 2)] if ignore_isolated else adjacency
    with jax.enable_x64(True):
        lap = fj.laplacian_from_adjacency(adjacency, normalized=normalized)
    if len(part) < 2:
        with pytest.raises(errors.NoFiedlerValueError, match="vertices with edges"):
            fj.certify(lap, 1.0, ignore_isolated=True)
        return
    values = reference.spectrum(part, normalized)
    value = float(values[min(near, len(values) - 1)] * (1 + distance))
    certificate = fj.certify(lap, value, tol=tol, ignore_isolated=ignore_isolated)
    assert_true(certificate, part, normalized)
    assert_undecided_for_a_reason(certificate, values)
    assert certificate.components == nx.number_connected_components(nx.from_numpy_array(part))
    if certificate.order:
        found = certificate.method == "bipartite elimination"
        assert found == nx.is_bipartite(nx.from_numpy_array(part))


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


def rational(array: np.ndarray) -> np.ndarray:
    """The same numbers, to be computed with exactly."""
    return np.vectorize(lambda entry: Fraction(float(entry)), otypes=[object])(array)


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


@BOTH
@settings(max_examples=60, deadline=None)
@given(
    seed=seeds,
    dead=st.booleans(),
    near=st.sampled_from([0, 1, 1, 2]),
    distance=st.sampled_from([0, 1e-12, -1e-8, 1e-8, 1e-3]),
    tol=st.sampled_from([1e-6, 1e-9, 1e-12]),
)
def test_small_networks_agree_with_exact_arithmetic(
    normalized: bool, seed: int, dead: bool, near: int, distance: float, tol: float
) -> None:
    kernels = reference.random_kernels((5, 3, 2), seed)
    if dead:
        kernels[0][1], kernels[0][:, 2], kernels[1][2] = 0, 0, 0
    adjacency = reference.chain_adjacency(kernels)
    adjacency = adjacency[np.ix_(*[adjacency.any(axis=1)] * 2)]
    value = reference.spectrum(adjacency, normalized)[near] * (1 + distance)
    with jax.enable_x64(True):
        lap = network(kernels, normalized)
    certificate = fj.certify(lap, value, tol=tol, ignore_isolated=True)
    assert_true(certificate, adjacency, normalized)
    if near == 1 and abs(distance) < tol / 2 and tol > 1e-10:
        assert certificate.verdict is Verdict.PROVED, certificate
    if dead:
        assert fj.certify(lap, value).components == 3


@BOTH
@pytest.mark.parametrize(
    ("joins", "method", "order"),
    [
        ([("x", "h"), ("h", "y")], "bipartite elimination", 7),
        ([("x", "h"), ("h", "y"), ("x", "h")], "bipartite elimination", 7),
        ([("x", "h"), ("h", "y"), ("x", "y")], "group elimination", 12),
        ([("x", "h"), ("h", "h"), ("h", "y")], "group elimination", 7),
        ([("x", "x"), ("h", "h"), ("y", "y"), ("x", "h"), ("h", "y")], "dense", 32),
    ],
)
def test_what_is_eliminated(joins: list[tuple[str, str]], method: str, order: int, normalized: bool, x64: None) -> None:
    groups = {"x": (0, 20), "h": (20, 27), "y": (27, 32)}
    rng = np.random.default_rng(0)
    params, adjacency = {}, np.zeros((32, 32))
    for i, (source, target) in enumerate(joins):
        rows, columns = slice(*groups[source]), slice(*groups[target])
        params[f"w{i}"] = rng.normal(size=adjacency[rows, columns].shape)
        adjacency[rows, columns] += np.abs(params[f"w{i}"])
    graph = fj.graph_from_edges(params, [(f"w{i}", *ends) for i, ends in enumerate(joins)])
    values = reference.spectrum(adjacency + adjacency.T, normalized)
    lap = fj.laplacian(graph, params, normalized=normalized)
    for at in (1, 2):
        certificate = fj.certify(lap, values[at], tol=1e-10)
        assert certificate.verdict is (Verdict.PROVED if at == 1 else Verdict.REFUTED), certificate
        assert (certificate.method, certificate.order) == (method, order)


@BOTH
@pytest.mark.parametrize(
    "graph",
    [nx.path_graph(41), nx.cycle_graph(40), nx.cycle_graph(41), nx.star_graph(40), nx.complete_bipartite_graph(3, 40)],
    ids=str,
)
def test_vertices_whose_pivots_vanish(graph: nx.Graph, normalized: bool, x64: None) -> None:
    # λ2 of a star, of a complete bipartite graph is the very diagonal entry that is divided by.
    adjacency = nx.to_numpy_array(graph)
    lap = fj.laplacian_from_adjacency(adjacency, normalized=normalized)
    values = reference.spectrum(adjacency, normalized)
    for tol in (1e-2, 1e-6, 1e-9):
        assert fj.certify(lap, values[1], tol=tol).verdict is Verdict.PROVED
        assert fj.certify(lap, values[1] * (1 - 2 * tol), tol=tol).verdict is Verdict.REFUTED
        assert fj.certify(lap, values[1] * (1 + 3 * tol), tol=tol).verdict is Verdict.REFUTED
    for value in (*np.unique(values.round(10))[2:], 1.0):
        assert fj.certify(lap, value).verdict is (
            Verdict.PROVED if np.isclose(value, values[1], rtol=1e-6) else Verdict.REFUTED
        )


@BOTH
def test_a_disconnected_graph_has_value_zero_exactly(normalized: bool, dtype: str) -> None:
    lap = fj.laplacian_from_adjacency(np.kron(np.eye(2), 1 - np.eye(6)).astype(dtype), normalized=normalized)
    for value in (0.0, -0.0, 1e-17, -1e-17):
        certificate = fj.certify(lap, value)
        assert certificate.verdict is Verdict.PROVED
        assert (certificate.components, certificate.method) == (2, "graph search")
        assert certificate.below_lower == (0, 0)
        assert certificate.below_upper == (2, 12)
    for value in (1e-9, -1e-9, 1.0, np.nan, np.inf, -np.inf):
        assert fj.certify(lap, value).verdict is Verdict.REFUTED


@BOTH
def test_isolated_vertices_count_as_components_unless_ignored(normalized: bool, dtype: str) -> None:
    adjacency = np.zeros((9, 9), dtype)
    adjacency[2:8, 2:8] = 1 - np.eye(6)
    lap = fj.laplacian_from_adjacency(adjacency, normalized=normalized)
    assert fj.certify(lap, 0.0).verdict is Verdict.PROVED
    assert fj.certify(lap, 0.0).components == 4
    assert fj.certify(lap, 0.0, ignore_isolated=True).verdict is Verdict.REFUTED
    assert fj.certify(lap, 1.2 if normalized else 6, ignore_isolated=True).verdict is Verdict.PROVED
    assert fj.certify(lap, 1.2 if normalized else 6).verdict is Verdict.REFUTED


@BOTH
def test_a_value_that_rounding_could_make_zero_is_undecided(normalized: bool, x64: None) -> None:
    adjacency = np.kron(np.eye(2), 1 - np.eye(6))
    adjacency[0, 6] = adjacency[6, 0] = bridge = 1e-17
    lap = fj.laplacian_from_adjacency(adjacency, normalized=normalized)
    value = bridge * (1 / 15 if normalized else 1 / 3)
    assert exact_count(adjacency, normalized, value * 0.999) == 1
    assert exact_count(adjacency, normalized, value * 1.001) == 2
    assert fj.certify(lap, value, tol=0.01).verdict is Verdict.UNDECIDED
    assert fj.certify(lap, 1e-9).verdict is Verdict.REFUTED
    for value in (0.0, -1e-18, -1.0, np.nan, np.inf):
        assert fj.certify(lap, value).verdict is Verdict.REFUTED


@BOTH
def test_a_margin_without_end_leaves_a_verdict_undecided(
    normalized: bool, x64: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    lap = network(reference.random_kernels((9, 6, 4)), normalized)
    monkeypatch.setattr(_elimination, "_count_below", lambda parts, point: (0, np.inf))
    certificate = fj.certify(lap, 0.5)
    assert certificate.verdict is Verdict.UNDECIDED
    assert certificate.below_lower == certificate.below_upper == (1, 19)


@BOTH
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_weights_that_are_not_finite_are_errors(bad: float, normalized: bool) -> None:
    kernels = reference.random_kernels((9, 6, 4))
    kernels[1][2, 3] = bad
    lap = network(kernels, normalized, "float32")
    with pytest.raises(errors.NoFiedlerValueError, match="not finite"):
        fj.certify(lap, 0.5)


@BOTH
def test_graphs_without_a_second_eigenvalue_are_errors(normalized: bool) -> None:
    for n in (1, 3):
        lap = fj.laplacian_from_adjacency(np.zeros((n, n), "float32"), normalized=normalized)
        with pytest.raises(errors.NoFiedlerValueError, match="0 vertices with edges"):
            fj.certify(lap, 0.0, ignore_isolated=True)
    assert fj.certify(lap, 0.0).verdict is Verdict.PROVED
    with pytest.raises(errors.NoFiedlerValueError, match="1 vertices"):
        fj.certify(fj.laplacian_from_adjacency(np.zeros((1, 1)), normalized=normalized), 0.0)


@pytest.mark.parametrize("tol", [0.0, 1.0, -1e-6, np.nan])
def test_a_tolerance_out_of_range_is_an_error(tol: float) -> None:
    with pytest.raises(errors.HyperparameterError, match="between 0 and 1"):
        fj.certify(fj.laplacian_from_adjacency(1 - np.eye(3)), 3.0, tol=tol)


@BOTH
def test_a_matrix_too_large_to_factorize_is_an_error(
    normalized: bool, x64: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_elimination, "MAX_ORDER", 6)
    kernels = reference.random_kernels((40, 6, 4))
    value = reference.spectrum(reference.chain_adjacency(kernels), normalized)[1]
    # The limit holds for what is left of the network, here the layer between.
    assert fj.certify(network(kernels, normalized), value).verdict is Verdict.PROVED
    with pytest.raises(errors.CertificateSizeError, match=r"Of 7 vertices 7 are left.*fj\.bounds"):
        fj.certify(fj.laplacian_from_adjacency(1 - np.eye(7), normalized=normalized), 7.0)


def test_certificates_print_their_evidence(x64: None) -> None:
    lap = fj.laplacian_from_adjacency(nx.to_numpy_array(nx.path_graph(3)))
    lines = str(fj.certify(lap, 1.0, tol=1e-3)).splitlines()
    assert lines[:3] == [
        "1 is proved λ2 to within 0.001",
        "  eigenvalues below 0.999: 1",
        "  eigenvalues below 1.001: 2 to 3",
    ]
    assert lines[3].endswith("components 1, bipartite elimination, order 1")


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
    lap = network(kernels, normalized, "float32")
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


def test_bounds_print_as_a_table(x64: None) -> None:
    path = nx.to_numpy_array(nx.path_graph(4))
    table = str(fj.bounds(fj.laplacian_from_adjacency(path), dense_pair(path, False))).splitlines()
    assert table[0].split() == ["bound", "quantity", "lower", "upper", "assumes"]
    assert [line.split()[0] for line in table[1:]] == ["least", "Rayleigh", "Temple", "Cheeger", "sweep"]
    assert "0.585786" in table[2]
    assert len({line.index("λ2") for line in table[1:4]}) == 1
