"""Certificates, against exact arithmetic and the dense oracle."""

import dataclasses
import functools
import itertools

import jax
import jax.numpy as jnp
import networkx as nx
import numpy as np
import pytest
import reference
from hypothesis import given, settings
from hypothesis import strategies as st
from networks import NETS, SMALL, chain_laplacian, each_net
from rationals import exact_count, random_adjacency, seeds
from spectra import BOTH

import fiedler_jax as fj
from fiedler_jax import Verdict, errors
from fiedler_jax.certificate import _elimination


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
        lap = chain_laplacian(kernels, normalized)
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
    lap = chain_laplacian(kernels, normalized, dtype)
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
        lap = chain_laplacian(kernels, normalized)
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
    assert "components 4, so λ2 is 0," in str(fj.certify(lap, 1e-3))
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
        certificate = fj.certify(lap, value, tol=0.5)
        assert certificate.verdict is Verdict.REFUTED
        assert [certificate.lower, certificate.upper] == pytest.approx(sorted([value / 2, value * 1.5]), nan_ok=True)


@BOTH
def test_a_margin_without_end_leaves_a_verdict_undecided(
    normalized: bool, x64: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    lap = chain_laplacian(reference.random_kernels((9, 6, 4)), normalized)
    monkeypatch.setattr(_elimination, "_count_below", lambda parts, point: (0, np.inf))
    certificate = fj.certify(lap, 0.5)
    assert certificate.verdict is Verdict.UNDECIDED
    assert certificate.below_lower == certificate.below_upper == (1, 19)


@BOTH
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_weights_that_are_not_finite_are_errors(bad: float, normalized: bool) -> None:
    kernels = reference.random_kernels((9, 6, 4))
    kernels[1][2, 3] = bad
    lap = chain_laplacian(kernels, normalized, "float32")
    with pytest.raises(errors.NoFiedlerValueError, match="not finite"):
        fj.certify(lap, 0.5)


@BOTH
def test_negative_weights_are_errors(normalized: bool) -> None:
    lap = fj.laplacian_from_adjacency(1 - np.eye(5), normalized=normalized)
    turned = dataclasses.replace(lap, blocks=tuple(block.at[0, 1].set(-3).at[1, 0].set(-3) for block in lap.blocks))
    for call in (lambda: fj.certify(turned, -3.0), lambda: fj.bounds(turned, fj.fiedler_pair(lap, solver=fj.Dense()))):
        with pytest.raises(errors.AdjacencyError, match="negative"):
            call()


@BOTH
def test_graphs_without_a_second_eigenvalue_are_errors(normalized: bool) -> None:
    for n in (1, 3):
        lap = fj.laplacian_from_adjacency(np.zeros((n, n), "float32"), normalized=normalized)
        with pytest.raises(errors.NoFiedlerValueError, match="0 vertices with edges"):
            fj.certify(lap, 0.0, ignore_isolated=True)
    assert fj.certify(lap, 0.0).verdict is Verdict.PROVED
    for n in (0, 1):
        with pytest.raises(errors.NoFiedlerValueError, match=f"{n} vertices"):
            fj.certify(fj.laplacian_from_adjacency(np.zeros((n, n)), normalized=normalized), 0.0)


@BOTH
def test_a_group_without_units_is_no_matter(normalized: bool, x64: None) -> None:
    params = {"w": jnp.asarray(reference.random_kernels((4, 3))[0]), "empty": jnp.ones((3, 0))}
    edges = [("w", "in", "out"), ("empty", "out", "none")]
    pairs = []
    for some in (edges[:1], edges):
        lap = fj.laplacian(fj.graph_from_edges(params, some), params, normalized=normalized)
        pairs.append(fj.fiedler_pair(lap, solver=fj.Dense()))
        assert fj.certify(lap, pairs[0].value).verdict is Verdict.PROVED
        assert str(fj.bounds(lap, pairs[0])) == str(fj.bounds(lap, pairs[-1]))
    np.testing.assert_allclose(pairs[0].value, pairs[1].value, rtol=1e-12)


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
    assert fj.certify(chain_laplacian(kernels, normalized), value).verdict is Verdict.PROVED
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
