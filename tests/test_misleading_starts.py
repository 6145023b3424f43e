"""Starts that hold higher eigenvectors and none of the Fiedler vector, as a level crossing in training leaves them."""

import functools
import itertools
import operator
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import networkx as nx
import numpy as np
import pytest
import reference
from spectra import BOTH, EACH, assert_never_wrong_in_silence, communities, eigenpairs, fiedler, solve, tolerance

import fiedler_jax as fj
from benchmarks.misleading import cliques, islands
from fiedler_jax import Status, eigen
from fiedler_jax.eigen._basis import scattered_rows

pytestmark = pytest.mark.crossed


def with_weak_leaves(length: int = 37) -> np.ndarray:
    """A weighted path of so many vertices, three of which bear a leaf of tiny weight.

    The leaves are the vertices of least degree, and each is nearly an eigenvector of the normalized Laplacian.
    """
    upper = np.diag([*(1.0 + np.arange(length - 1) % 3), 0, 0, 0], 1)
    for leaf, vertex in enumerate((5, 17, 30)):
        upper[vertex, length + leaf] = 1e-7
    return upper + upper.T


WARM = {
    "the second": {1: 1.0},
    "the third": {2: 1.0},
    "the fourth": {3: 1.0},
    "the eleventh": {10: 1.0},
    "the last": {39: 1.0},
    "the third and the fourth": {2: 1.0, 3: 1.0},
    "the third and the last": {2: 1.0, 39: 1.0},
    "all but the second": dict.fromkeys(range(2, 40), 1.0),
}


@BOTH
@EACH
@pytest.mark.parametrize(
    ("kind", "warm"),
    [(kind, warm) for kind in ("communities", "leaves", "decades") for warm in WARM],
)
def test_a_warm_start_without_a_part_of_the_fiedler_vector(
    kind: str, warm: str, solver: fj.Davidson | fj.Lanczos, normalized: bool, dtype: str
) -> None:
    decades = np.triu(10 ** -np.random.default_rng(3).uniform(0, 8, (40, 40)), 1)
    adjacency = {"communities": communities(1e-4, 2), "leaves": with_weak_leaves(), "decades": decades + decades.T}
    stored = adjacency[kind].astype(dtype).astype(float)
    values, columns = np.linalg.eigh(reference.dense_laplacian(stored, normalized))
    init = columns @ [WARM[warm].get(at, 0.0) for at in range(40)]
    pair = fiedler(stored, normalized, dtype, init, solver=solver)
    # Lanczos, which has no preconditioner, may run out of iterations and says so.
    assert bool(pair.usable) or solver == fj.Lanczos()
    assert_never_wrong_in_silence(pair, values, dtype, solver.max_iterations)


@pytest.mark.parametrize("length", [37, 100])
def test_a_mixture_of_two_eigenvectors_is_not_taken_for_the_answer_among_leaves(length: int, dtype: str) -> None:
    stored = with_weak_leaves(length).astype(dtype).astype(float)
    values, columns = np.linalg.eigh(reference.dense_laplacian(stored, True))
    pair = fiedler(stored, True, dtype, columns[:, 2] + columns[:, 3])
    np.testing.assert_allclose(pair.value, values[1], rtol=1e-5)


def path_like(rng: np.random.Generator) -> nx.Graph:
    return nx.path_graph(120)


def grid_like(rng: np.random.Generator) -> nx.Graph:
    return nx.convert_node_labels_to_integers(nx.grid_2d_graph(4, 30))


def tree_like(rng: np.random.Generator) -> nx.Graph:
    return nx.Graph([(i, int(rng.integers(max(0, i - 4), i))) for i in range(1, 120)])


def with_random_leaves(graph: nx.Graph, rng: np.random.Generator, leaves: int) -> np.ndarray:
    """The graph with weights from 1/2 to 3, and leaves of weights over eight decades."""
    n = len(graph)
    upper = np.triu(nx.to_numpy_array(graph, nodelist=range(n)), 1) * rng.uniform(0.5, 3, (n, n))
    upper = np.pad(upper, (0, leaves))
    upper[rng.choice(n, leaves, replace=False), n + np.arange(leaves)] = 10 ** -rng.uniform(0, 8, leaves)
    return upper + upper.T


@BOTH
@pytest.mark.parametrize("count", [50, pytest.param(400, marks=pytest.mark.slow)])
@pytest.mark.parametrize("leaves", [pytest.param(0, marks=pytest.mark.slow), 8])
@pytest.mark.parametrize("kind", [path_like, grid_like, tree_like])
def test_mixtures_of_few_eigenvectors_are_not_taken_for_the_answer_where_the_gap_is_small(
    kind: Callable[[np.random.Generator], nx.Graph], leaves: int, count: int, normalized: bool, dtype: str
) -> None:
    rng = np.random.default_rng(5)
    graphs = np.array([with_random_leaves(kind(rng), rng, leaves) for _ in range(count)])

    def mixture(columns: np.ndarray) -> np.ndarray:
        return columns[:, 2 : 2 + (few := rng.integers(1, 9))] @ rng.normal(size=few)

    assert_none_is_misled(graphs, mixture, normalized, dtype)


@BOTH
@pytest.mark.parametrize("count", [100, pytest.param(1000, marks=pytest.mark.slow)])
@pytest.mark.parametrize("given", [(2,), pytest.param((2, 2, 2), marks=pytest.mark.slow), (2, 3, 4)])
def test_exact_higher_eigenvectors_are_not_taken_for_the_answer_with_weights_over_eight_decades(
    given: tuple[int, ...], count: int, normalized: bool, dtype: str
) -> None:
    upper = np.triu(10 ** -np.random.default_rng(8).uniform(0, 8, (count, 24, 24)), 1)
    assert_none_is_misled(upper + upper.mT, lambda columns: columns[:, list(given)].T, normalized, dtype)


def complete(rng: np.random.Generator, count: int) -> np.ndarray:
    return np.triu(np.abs(rng.normal(size=(count, 120, 120))), 1)


def layered(rng: np.random.Generator, count: int) -> np.ndarray:
    blocks = np.zeros((count, 250, 250))
    blocks[:, :100, 100:175] = np.abs(rng.normal(size=(count, 100, 75))) / 10
    blocks[:, 100:175, 175:] = np.abs(rng.normal(size=(count, 75, 75))) / 75**0.5
    return blocks


@BOTH
@pytest.mark.parametrize("count", [60, pytest.param(600, marks=pytest.mark.slow)])
@pytest.mark.parametrize(
    ("kind", "given"),
    [
        (complete, (2, 3)),
        (layered, (2,)),
        pytest.param(complete, (2,), marks=pytest.mark.slow),
        pytest.param(layered, (2, 3), marks=pytest.mark.slow),
    ],
)
def test_exact_higher_eigenvectors_are_not_taken_for_the_answer_where_its_neighbours_are_near(
    kind: Callable[[np.random.Generator, int], np.ndarray],
    given: tuple[int, ...],
    count: int,
    normalized: bool,
    dtype: str,
) -> None:
    # Normalized, λ2 and λ3 of dense random graphs differ by half a per cent.
    upper = kind(np.random.default_rng(6), count)
    assert_none_is_misled(upper + upper.mT, lambda columns: columns[:, list(given)].T, normalized, dtype)


def couples(rng: np.random.Generator, count: int) -> np.ndarray:
    """Sparse graphs with three pairs of vertices that hang together, and little on the rest."""
    upper = np.triu(np.abs(rng.normal(size=(count, 60, 60))) * (rng.random((count, 60, 60)) < 0.3), 1)
    ties = np.ones((count, 60))
    ties[:, :6] = np.repeat(10 ** -rng.uniform(3, 5, (count, 3)), 2, axis=1)
    upper *= ties[:, :, None] * ties[:, None]
    for first in (0, 2, 4):
        upper[:, first, first + 1] = rng.uniform(2, 6, count)
    return upper


@pytest.mark.parametrize("count", [200, pytest.param(4000, marks=pytest.mark.slow)])
def test_a_couple_of_least_degree_is_not_taken_for_the_answer(count: int, dtype: str) -> None:
    # The rows that a solve starts from hold both vertices, and so the couple's own small eigenvalue.
    upper = couples(np.random.default_rng(9), count)
    assert_none_is_misled(upper + upper.mT, lambda _: np.zeros(60), False, dtype)


def with_light_ties(upper: np.ndarray, degrees: np.ndarray, heavy: float) -> np.ndarray:
    """Graphs whose first vertices have about these degrees, of which the last two hang together by a heavy edge."""
    whole = upper + upper.mT
    first = degrees.shape[1]
    ties = np.ones(whole.shape[:2])
    top = whole.sum(axis=2).max(axis=1)
    ties[:, :first] = degrees * top[:, None] / whole.sum(axis=2)[:, :first]
    whole *= ties[:, :, None] * ties[:, None]
    whole[:, first - 2, first - 1] = whole[:, first - 1, first - 2] = heavy * top
    return whole


@pytest.mark.parametrize("count", [40, pytest.param(1000, marks=pytest.mark.slow)])
def test_exact_vectors_of_the_values_above_do_not_hide_that_of_a_couple_among_them(count: int, dtype: str) -> None:
    # Among the given vectors is that of the highest of three values, and those above it, one of which is the guard.
    rng = np.random.default_rng(1)
    weights = 10 ** -rng.uniform(0, 4, (count, 120, 120))
    upper = np.triu(weights * ((rng.random(weights.shape) < 0.03) | np.eye(120, k=1, dtype=bool)), 1)
    leaves = rng.uniform([5.4, 4.4, 3.5, 3.4, 3.3], [5.8, 4.8, 3.6, 3.5, 3.4], (count, 5))
    couple = rng.uniform(4.1, 4.4, (count, 1))
    graphs = with_light_ties(upper, 10 ** -np.concatenate([leaves, couple, couple], axis=1), heavy=0.014)
    stored = graphs.astype(dtype).astype(float)
    spectra = [np.linalg.eigh(reference.dense_laplacian(adjacency, False)) for adjacency in stored]
    given = jnp.asarray(np.array([columns[:, 3:6].T for _, columns in spectra]), dtype)
    solve_each = jax.vmap(lambda adjacency, init: eigenpairs(adjacency, False, 3, init=init))
    found = jax.device_get(solve_each(jnp.asarray(stored, dtype), given))
    assert np.mean(eigen.is_usable(found.status)) > 0.9
    for at, (values, _) in enumerate(spectra):
        assert_never_wrong_in_silence(jax.tree.map(operator.itemgetter(at), found), values, dtype)


# In float32 the clique shows only after the leaf, and its neighbour, have been known for some products.
LATE = [1424, 3438, 3718, 5555, 6631, 7153, 8202]
# Beside a clique another one of about its value, which took its place, or hid in its residual.
BESIDE = [(11857, (-3.7, -2)), (175, (-4, -2.3))]


@pytest.mark.parametrize("count", [50, pytest.param(2000, marks=pytest.mark.slow)])
def test_a_heavy_clique_is_found_beside_leaves(count: int, dtype: str) -> None:
    drawn = [cliques(np.random.default_rng(seed)) for seed in [*LATE, *range(count)]]
    drawn += [cliques(np.random.default_rng(seed), decades) for seed, decades in BESIDE]
    graphs = np.array([graph for (graph,) in drawn])
    assert_none_is_misled(graphs, lambda _: np.zeros(120), False, dtype)


# Found in 4,000 each: without a row towards the clique these were CONVERGED at another value, up to ten times as large,
# 229, 1242 and 1691 from nothing in float32, and all but 1691 given a mixture.
ISLANDS = [229, 271, 1242, 1691, 1753, 2026, 2183, 2191, 2254, 2445, 2552, 3058]


@pytest.mark.parametrize("count", [30, pytest.param(2000, marks=pytest.mark.slow)])
@pytest.mark.parametrize("most", [0, 4])
def test_a_heavy_clique_is_found_far_above_zero(most: int, count: int, dtype: str) -> None:
    rngs = [np.random.default_rng(seed) for seed in [*ISLANDS, *range(count)]]
    graphs, draws = np.array([islands(rng)[0] for rng in rngs]), iter(rngs)

    def mixture(columns: np.ndarray) -> np.ndarray:
        rng = next(draws)
        few = min(int(rng.integers(1, 5)), most)
        return columns[:, 2 : 2 + few] @ rng.normal(size=few)

    assert_none_is_misled(graphs, mixture, False, dtype)


def with_heavy_groups(rng: np.random.Generator) -> np.ndarray:
    """A sparse network of 60-40-40-10 units; up to three groups in neighbouring layers hang on the rest lightly."""
    sizes = (60, 40, 40, 10)
    offsets = np.cumsum((0, *sizes))
    kernels = [
        np.abs(rng.normal(size=(a, b))) / a**0.5 * (rng.random((a, b)) < rng.choice([0.1, 0.3, 1]))
        for a, b in itertools.pairwise(sizes)
    ]
    whole = reference.chain_adjacency(kernels)
    top = whole.sum(axis=1).max()
    for _ in range(rng.integers(1, 4)):
        first = int(rng.integers(0, 3))
        below = offsets[first] + rng.choice(sizes[first], rng.integers(1, 4), replace=False)
        above = offsets[first + 1] + rng.choice(sizes[first + 1], rng.integers(1, 4), replace=False)
        units = np.concatenate([below, above])
        own = np.ix_(units, units)
        heavy = top * rng.choice([0.3, 1, 3, 10])
        whole[own] = 0
        light = heavy * 10 ** rng.uniform(-4, -1) * len(units) / max(whole[units].sum(), 1e-30)
        whole[units] *= light
        whole[:, units] *= light
        inside = np.triu(rng.uniform(0.5, 1.2, (len(units), len(units))), 1)
        joined = (units[:, None] < offsets[first + 1]) != (units < offsets[first + 1])
        whole[own] = (inside + inside.T) * joined * heavy
    return whole


def reordered(whole: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Such a network with the units of each layer in a random order."""
    bounds = itertools.pairwise((0, 60, 100, 140, 150))
    order = np.concatenate([first + rng.permutation(stop - first) for first, stop in bounds])
    return whole[np.ix_(order, order)]


# An order in which λ3, 110 times as large, was CONVERGED as long as what fell was not waited for once more.
STILLED = 10200603


@pytest.mark.parametrize("count", [20, pytest.param(2000, marks=pytest.mark.slow)])
def test_an_exact_higher_eigenvector_does_not_hide_a_heavy_group(count: int, dtype: str) -> None:
    graphs = [with_heavy_groups(np.random.default_rng(seed)) for seed in [2626, *range(count)]]
    # Once its λ3 lay more than a thousand floors above zero it was CONVERGED at that, 120 times as large.
    farther = graphs[0].copy()
    for unit in (41, 43):
        farther[unit] *= 1.15
        farther[:, unit] *= 1.15
    stilled = reordered(graphs[0], np.random.default_rng(STILLED))
    assert_none_is_misled(np.array([farther, stilled, *graphs]), lambda columns: columns[:, 2], False, dtype)


# Networks with several heavy groups, and orders of their units in which another value was CONVERGED, 1.08 and 18 times
# as large, as long as a single row led towards such groups.
SEVERAL = {10741: [12, 158, 186, 237], 11441: [327, 357]}


@pytest.mark.parametrize("count", [10, pytest.param(1000, marks=pytest.mark.slow)])
@pytest.mark.parametrize("seed", SEVERAL)
def test_one_heavy_group_does_not_hide_another(seed: int, count: int, dtype: str) -> None:
    whole = with_heavy_groups(np.random.default_rng(seed))
    graphs = np.array([reordered(whole, np.random.default_rng(at)) for at in [*SEVERAL[seed], *range(count)]])
    assert_none_is_misled(graphs, lambda columns: columns[:, 2], False, dtype)


def two_paths(size: int, heavy: float, light: float, leaves: int, others: int) -> np.ndarray:
    """Two heavy paths, each tied lightly by its end to complete others, which bear leaves of a little larger values."""
    n = others + 2 * size + leaves
    upper = np.triu(np.ones((n, n)), 1) * (np.arange(n) < others)
    for first in (others, others + size):
        upper[0, first] = light * size
        path = np.arange(first, first + size - 1)
        upper[path, path + 1] = heavy
    for leaf in range(leaves):
        upper[2 + leaf % (others - 2), others + 2 * size + leaf] = light * (2 + 0.3 * leaf)
    return upper + upper.T


def in_orders(whole: np.ndarray, count: int) -> np.ndarray:
    """The graph with its vertices in so many random orders."""
    orders = [np.random.default_rng(at).permutation(len(whole)) for at in range(count)]
    return np.array([whole[np.ix_(order, order)] for order in orders])


@pytest.mark.parametrize("settings_", [(21, 1000, 0.1, 3, 15), (24, 10, 1e-3, 8, 4)])
def test_heavy_paths_are_told_apart(settings_: tuple[int, float, float, int, int], dtype: str) -> None:
    # In float32 17 and 75 of 100 orders of the vertices gave up to twice λ2 when less was waited for. Of 500 of the
    # second 7 still do: these are evidence, not proof.
    graphs, failing = in_orders(two_paths(*settings_), 20), settings_[0] == 24 and dtype == "float32"
    assert_none_is_misled(graphs, lambda columns: 0 * columns[:, 0], False, dtype, but=int(failing))


@pytest.mark.parametrize("dtype", ["float64"], indirect=True)
@pytest.mark.parametrize("settings_", [(18, 1000, 0.03, 7, 17), (22, 100, 0.03, 6, 10), (20, 1000, 0.01, 5, 15)])
def test_an_exact_higher_eigenvector_does_not_hide_heavy_paths(
    settings_: tuple[int, float, float, int, int], dtype: str
) -> None:
    # In float64 75 of 120 orders of the vertices gave λ3, about twice λ2, when a path's modes passed for settled. One
    # of 100 of the second still does: these are evidence, not proof.
    graphs = in_orders(two_paths(*settings_), 20)
    assert_none_is_misled(graphs, lambda columns: columns[:, 2], False, dtype)


# Given the third of these with a little of the fifth, as a crossing may leave them, two values were called known to
# rounding after two products, the second of them up to 7,700 times too large.
CROSSED = [8151, 8921]


@pytest.mark.parametrize("count", [30, pytest.param(2000, marks=pytest.mark.slow)])
def test_a_given_vector_that_start_rows_hold_too_does_not_hide_another(count: int, dtype: str) -> None:
    drawn = [cliques(np.random.default_rng(seed), (-5, -2)) for seed in [*CROSSED, *range(count)]]
    stored = np.array([graph for (graph,) in drawn]).astype(dtype).astype(float)
    spectra = [np.linalg.eigh(reference.dense_laplacian(adjacency, False)) for adjacency in stored]
    given = jnp.asarray([columns[:, 3] + 0.03 * columns[:, 5] for _, columns in spectra], dtype)
    solve_each = jax.vmap(lambda adjacency, init: eigenpairs(adjacency, False, 2, init=init[None]))
    found = jax.device_get(solve_each(jnp.asarray(stored, dtype), given))
    assert np.mean(eigen.is_usable(found.status)) > 0.9
    for at, (values, _) in enumerate(spectra):
        assert_never_wrong_in_silence(jax.tree.map(operator.itemgetter(at), found), values, dtype)


def balanced(rng: np.random.Generator, count: int, n: int) -> np.ndarray:
    """Random square kernels whose rows and columns all have the mean 1: what is constant in layers maps to such."""
    kernels = np.abs(rng.normal(size=(count, n, n)))
    for _ in range(100):
        kernels = kernels / kernels.mean(axis=2, keepdims=True)
        kernels = kernels / kernels.mean(axis=1, keepdims=True)
    return kernels


def beside_the_mode_of_the_layers(rng: np.random.Generator, count: int, layers: int) -> list[np.ndarray]:
    """Kernels whose bulk of eigenvalues begins about where the mode that is constant in each layer lies.

    The kernels grow tenfold or so towards the middle one, whose bulk has the smallest eigenvalues.
    """
    kernels = [balanced(rng, count, 40) for _ in range(layers)]
    bulk = np.linalg.svd(kernels[layers // 2], compute_uv=False)[:, 1] / 40
    shares = bulk[:, None, None] * rng.uniform(0.9, 1.05, (count, 1, 1))
    return [kernel * shares ** -min(at, layers - 1 - at) for at, kernel in enumerate(kernels)]


@pytest.mark.parametrize("count", [100, pytest.param(800, marks=pytest.mark.slow)])
@pytest.mark.parametrize("layers", [3, pytest.param(5, marks=pytest.mark.slow), 8])
def test_an_exact_mode_of_the_layers_is_not_taken_for_the_answer(layers: int, count: int, dtype: str) -> None:
    # The rows that a solve starts from hold this mode exactly, and nothing of the Fiedler vector.
    kernels = [k.astype(dtype) for k in beside_the_mode_of_the_layers(np.random.default_rng(layers), count, layers)]
    batch = {f"Dense_{i}": {"kernel": jnp.asarray(k)} for i, k in enumerate(kernels)}
    graph = fj.graph_from_params(jax.tree.map(operator.itemgetter(0), batch))
    pairs = jax.jit(jax.vmap(lambda params: fj.fiedler_pair(fj.laplacian(graph, params))))(batch)
    adjacencies = [reference.chain_adjacency([k[at].astype(float) for k in kernels]) for at in range(count)]
    assert_never_misled(pairs, [np.linalg.eigvalsh(reference.dense_laplacian(a, True)) for a in adjacencies], dtype)


@BOTH
@pytest.mark.parametrize("given", [*(pytest.param(few, marks=pytest.mark.slow) for few in (1, 2)), 4])
def test_start_rows_that_are_exact_higher_eigenvectors_do_not_hide_the_smallest(
    given: int, normalized: bool, dtype: str
) -> None:
    upper = complete(np.random.default_rng(7), 60)
    stored = (upper + upper.mT).astype(dtype)
    spectra = [np.linalg.eigh(reference.dense_laplacian(adjacency, normalized)) for adjacency in stored.astype(float)]
    starts = np.array([columns[:, 2 : 2 + given].T for _, columns in spectra], dtype)

    def solved(adjacency: jax.Array, start: jax.Array) -> eigen.EigenResult:
        lap = fj.laplacian_from_adjacency(adjacency, normalized=normalized)
        whole = eigen.SymmetricOperator(
            lap.matvec, lap.diagonal, lap.upper_bound, lap.null_vector, jnp.ones_like(lap.connected)
        )
        return fj.Davidson().solve(whole, start=start)

    found = jax.device_get(jax.jit(jax.vmap(solved))(jnp.asarray(stored), jnp.asarray(starts)))
    assert np.mean(found.status == Status.CONVERGED) > 0.9
    expected = np.array([values[1] for values, _ in spectra])
    wrong = found.values[:, 0] > expected * (1 + 10 * tolerance(dtype))
    assert not np.any(wrong & (found.status == Status.CONVERGED))


def assert_none_is_misled(
    graphs: np.ndarray, given: Callable[[np.ndarray], np.ndarray], normalized: bool, dtype: str, but: int = 0
) -> None:
    """Solves each graph with what is given of its eigenvectors, columns of a matrix, as `init`; so many may fail."""
    stored = graphs.astype(dtype).astype(float)
    spectra = [np.linalg.eigh(reference.dense_laplacian(adjacency, normalized)) for adjacency in stored]
    starts = np.array([given(columns) for _, columns in spectra])
    solve_each = jax.vmap(functools.partial(solve, normalized=normalized))
    pairs = solve_each(jnp.asarray(stored, dtype), init=jnp.asarray(starts, dtype))
    assert_never_misled(pairs, [values for values, _ in spectra], dtype, but)


def assert_never_misled(pairs: fj.FiedlerPair, spectra: Sequence[np.ndarray], dtype: str, but: int = 0) -> None:
    """Holds a batch of pairs to the spectra of their graphs, but for so many."""
    pairs = jax.device_get(pairs)
    assert np.mean(pairs.usable) > 0.9
    for at, values in enumerate(spectra):
        try:
            assert_never_wrong_in_silence(jax.tree.map(operator.itemgetter(at), pairs), values, dtype)
        except AssertionError:
            if not but:
                raise
            but -= 1


@pytest.mark.parametrize("tol", [0.3, 0.1])
def test_power_iteration_is_not_done_with_what_start_rows_happen_to_show(tol: float) -> None:
    n = 300
    adjacency = np.ones((n, n))
    adjacency[:2] = adjacency[:, :2] = 0.1
    adjacency[0, 1] = adjacency[1, 0] = 0.9 * n
    np.fill_diagonal(adjacency, 0)
    pair = fj.fiedler_pair(fj.laplacian_from_adjacency(adjacency), solver=fj.PowerIteration(tol=tol))
    assert pair.converged
    np.testing.assert_allclose(pair.value, reference.spectrum(adjacency, False)[1], rtol=tol)


def test_of_a_graph_made_against_the_start_rows_nothing_false_is_proved(x64: None) -> None:
    n = 300
    hidden = np.sign(np.random.default_rng(3).normal(size=n))
    scattered = np.asarray(scattered_rows(eigen.operator_from_matrix(jnp.eye(n)), 30))
    seen, _ = np.linalg.qr(np.concatenate([np.ones((1, n)), scattered, np.eye(n)[:2]]).T)
    for _ in range(2):
        hidden -= seen @ (seen.T @ hidden)
    product = np.outer(hidden, hidden) * (1 - np.eye(n))
    adjacency = 1 + 0.9 / np.abs(product).max() * product
    adjacency[:2] = adjacency[:, :2] = 0.9
    np.fill_diagonal(adjacency, 0)
    lap = fj.laplacian_from_adjacency(adjacency)
    pair = fj.fiedler_pair(lap)
    # What the solver starts from holds nothing of the Fiedler vector, but for rounding. A proof starts from nothing.
    right = np.isclose(pair.value, reference.spectrum(adjacency, False)[1], rtol=1e-8)
    assert fj.certify(lap, pair.value).verdict == (fj.Verdict.PROVED if right else fj.Verdict.REFUTED)
