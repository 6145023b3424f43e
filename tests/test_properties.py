"""Never wrong in silence: on random graphs and nets, a value is right to the stated accuracy, or its status says why.

Also the building blocks of the solvers, on random input.
"""

import functools
from typing import Any, NamedTuple

import compiling
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import reference
from hypothesis import example, given, settings
from hypothesis import strategies as st
from spectra import BOTH, assert_never_wrong_in_silence, eigenpairs

import fiedler_jax as fj
from fiedler_jax import Status, eigen

# One shape for all random graphs, so that each solve is compiled once; vertices without edges make the small ones.
VERTICES = 24
# The second net is deeper than it is wide, so that its groups of units bring many start rows.
NETS = [(16, 12, 8, 4), (5,) * 7]
# The smaller half of the first net: its layers of 12 and 4 units. Normalized, only it is worked on.
FOLDED = np.r_[16:28, 36:40]

DTYPES = pytest.mark.parametrize("dtype", ["float32", "float64"])
LANCZOS = fj.Lanczos(max_iterations=60)
POWER = fj.PowerIteration(max_iterations=4000)


class Weights(NamedTuple):
    """A random weighted graph: `parts` communities, joined by edges `bridge` times as heavy."""

    seed: int
    density: float
    decades: int
    parts: int
    bridge: float
    vertices: int

    def adjacency(self) -> np.ndarray:
        rng = np.random.default_rng(self.seed)
        shape = (VERTICES, VERTICES)
        weights = 10 ** -rng.uniform(0, self.decades, shape) * rng.uniform(0.1 if self.decades else 1, 1, shape)
        part = rng.integers(self.parts, size=VERTICES)
        weights = np.where(part[:, None] == part, weights, self.bridge * weights)
        # In float32, a vertex whose degree is below 1e-19 counts as isolated.
        weights = np.where(weights > 0, np.maximum(weights, 1e-17), 0) * (rng.random(shape) < self.density)
        present = rng.permutation(VERTICES) < self.vertices
        upper = np.triu(weights, 1) * present * present[:, None]
        return upper + upper.T


class Net(NamedTuple):
    """A random layered net, some of its weights pruned."""

    seed: int
    sizes: tuple[int, ...]
    kept: float
    decades: int
    bfloat16: bool

    def kernels(self) -> reference.Kernels:
        rng = np.random.default_rng(self.seed)
        kernels = [k * 10 ** -rng.uniform(0, self.decades, k.shape) for k in reference.random_kernels(self.sizes)]
        kernels = [np.where(rng.random(k.shape) < self.kept, k, 0) for k in kernels]
        return [np.asarray(jnp.asarray(k, jnp.bfloat16), np.float64) for k in kernels] if self.bfloat16 else kernels


class Warm(NamedTuple):
    """A start: an eigenvector, a mixture of them, or nothing useful. A row of zeros is no start at all."""

    kind: str
    at: int

    def row(self, laplacian: np.ndarray) -> np.ndarray:
        n = len(laplacian)
        if self.kind in ("zeros", "nan"):
            return np.full((1, n), np.nan if self.kind == "nan" else 0.0)
        columns = np.linalg.eigh(laplacian)[1]
        at = self.at % n
        return (columns[:, at] if self.kind == "eigenvector" else columns[:, at:] @ np.arange(1, n - at + 1))[None]


# Two weights are left, of one unit, so that λ2 = 1 and the half of it that is worked on has no counterpart.
THREE_UNITS = Net(seed=274, sizes=NETS[0], kept=0.01, decades=3, bfloat16=False)
# Five units with an edge, of weights so small that the square of what rounding leaves is zero in float32.
TINY_WEIGHTS = Net(seed=1417, sizes=(5,) * 7, kept=0.01, decades=16, bfloat16=False)

# Three parts in a basis that holds all vertices, and the least value that is not zero is hardly more than rounding.
THREE_PARTS = Net(seed=70, sizes=NETS[0], kept=0.1, decades=8, bfloat16=False)
# Normalized, the basis holds all of the smaller half at once, with a residual between the floor and a quarter of it.
ALL_AT_ONCE = Net(seed=751, sizes=NETS[0], kept=0.1, decades=8, bfloat16=True)
# Twelve vertices have an edge, in four parts: in a basis that holds all, values that are rounding must be told apart.
FOUR_PARTS = Weights(seed=2909, density=0.05, decades=8, parts=1, bridge=1.0, vertices=24)
# λ3 = 3.9 λ2, normalized; power iteration took its vector, given as a start, for the answer.
HIDDEN = Weights(seed=30006, density=0.1, decades=8, parts=2, bridge=1e-3, vertices=22)
# Normalized, λ2 is 4e-4 too large where rounding mixes its vector with that of λ3.
MIXED = Weights(seed=3794, density=0.5, decades=16, parts=3, bridge=1e-8, vertices=24)
# Normalized, the first basis that holds all there is leaves a residual of more than the floor, and a second does not.
SECOND_LOOK = Weights(seed=1451, density=0.2, decades=16, parts=1, bridge=1e-8, vertices=24)

weights_drawn = st.builds(
    Weights,
    seed=st.integers(0, 10_000),
    density=st.sampled_from([1.0, 0.5, 0.2, 0.1, 0.05]),
    decades=st.sampled_from([0, 3, 8, 16]),
    parts=st.integers(1, 3),
    bridge=st.sampled_from([1.0, 1e-3, 1e-8, 0.0]),
    vertices=st.one_of(st.just(VERTICES), st.integers(2, VERTICES)),
)
nets_drawn = st.builds(
    Net,
    seed=st.integers(0, 10_000),
    sizes=st.sampled_from(NETS),
    kept=st.sampled_from([1.0, 0.3, 0.1, 0.01]),
    decades=st.sampled_from([0, 3, 8, 16]),
    bfloat16=st.booleans(),
)
warm_drawn = st.builds(
    Warm, kind=st.sampled_from(["zeros", "nan", "eigenvector", "mixture"]), at=st.integers(0, VERTICES - 1)
)


@functools.partial(
    jax.jit, static_argnames=("normalized", "ignore_isolated", "solver"), compiler_options=compiling.AS_USERS
)
def solve_graph(
    adjacency: jax.Array, init: jax.Array, normalized: bool, ignore_isolated: bool, solver: eigen.Solver
) -> fj.FiedlerPair:
    lap = fj.laplacian_from_adjacency(adjacency, normalized=normalized)
    return fj.fiedler_pair(lap, init, solver=solver, ignore_isolated=ignore_isolated)


@functools.partial(
    jax.jit, static_argnames=("graph", "normalized", "ignore_isolated", "solver"), compiler_options=compiling.AS_USERS
)
def solve_net(
    graph: fj.NetworkGraph,
    params: Any,
    init: jax.Array,
    normalized: bool,
    ignore_isolated: bool,
    solver: eigen.Solver,
) -> fj.FiedlerPair:
    lap = fj.laplacian(graph, params, normalized=normalized)
    return fj.fiedler_pair(lap, init, solver=solver, ignore_isolated=ignore_isolated)


def solve(
    drawn: Weights | Net, warm: Warm, normalized: bool, ignore_isolated: bool, dtype: str, solver: eigen.Solver
) -> tuple[fj.FiedlerPair, np.ndarray]:
    """The pair, and the adjacency in the dtype's precision that it is a pair of."""
    adjacency = drawn.adjacency() if isinstance(drawn, Weights) else reference.chain_adjacency(drawn.kernels())
    adjacency = adjacency.astype(dtype).astype("float64")
    init = warm.row(reference.dense_laplacian(adjacency, normalized)).astype(dtype)
    with jax.enable_x64(dtype == "float64"):
        if isinstance(drawn, Weights):
            pair = solve_graph(jnp.asarray(adjacency, dtype), init, normalized, ignore_isolated, solver)
        else:
            params = reference.chain_params(drawn.kernels(), dtype)
            graph = fj.graph_from_params(params)
            pair = solve_net(graph, params, init, normalized, ignore_isolated, solver)
        return jax.device_get(pair), adjacency


def assert_the_vector_is_as_described(
    pair: fj.FiedlerPair, adjacency: np.ndarray, normalized: bool, folded: bool
) -> None:
    """Unit, orthogonal to the null vector, and with the residual that is stated, all to rounding."""
    eps, vector = float(np.finfo(pair.vector.dtype).eps), pair.vector.astype("float64")
    degrees = adjacency.sum(axis=1)
    null = np.sqrt(degrees) if normalized else np.ones(len(degrees))
    matrix = reference.dense_laplacian(adjacency, normalized)
    bound = 2.0 if normalized else 2 * degrees.max()
    assert abs(vector @ vector - 1) <= 16 * eps
    assert abs(vector @ null) <= 16 * eps * np.linalg.norm(null)
    rest = np.linalg.norm(matrix @ vector - float(pair.value) * vector)
    # What is known of half of a graph to rounding is known of the whole to rounding / σ, and of σ its square is known.
    singular = max(1 - float(pair.value), eps**0.5) if folded else 1.0
    assert abs(rest - float(pair.residual)) <= 16 * eps * bound / singular


def check(
    drawn: Weights | Net,
    warm: Warm,
    normalized: bool,
    ignore_isolated: bool,
    dtype: str,
    solver: fj.Davidson | fj.Lanczos | fj.PowerIteration = fj.Davidson(),
) -> None:
    pair, adjacency = solve(drawn, warm, normalized, ignore_isolated, dtype, solver)
    if ignore_isolated:
        connected = adjacency.sum(axis=1) > 0
        assert np.all(pair.vector[~connected] == 0)
        values = reference.spectrum(adjacency[connected][:, connected], normalized)
    else:
        values = reference.spectrum(adjacency, normalized)
    if (
        normalized
        and isinstance(drawn, Net)
        and drawn.sizes == NETS[0]
        and np.sum(adjacency[FOLDED].sum(axis=1) > 0) < 2
    ):
        # One unit is left of the half that the solver works on, whose only vector is the null vector.
        assert pair.status == Status.TOO_FEW_VERTICES
        return
    assert_never_wrong_in_silence(pair, values, dtype, solver.max_iterations)
    if len(values) > 1:
        folded = normalized and isinstance(drawn, Net) and drawn.sizes == NETS[0]
        assert_the_vector_is_as_described(pair, adjacency, normalized, folded)


def both(few: int, many: int) -> pytest.MarkDecorator:
    """The same few examples by default, many new ones in the slow mark."""
    return pytest.mark.parametrize("examples", [few, pytest.param(many, marks=pytest.mark.slow)])


@both(50, 600)
@BOTH
@DTYPES
def test_random_graphs(dtype: str, normalized: bool, examples: int) -> None:
    @settings(max_examples=examples, deadline=None, derandomize=examples < 200)
    @given(drawn=weights_drawn, warm=warm_drawn, ignore_isolated=st.booleans())
    @example(drawn=FOUR_PARTS, warm=Warm("zeros", 0), ignore_isolated=True)
    def property_(drawn: Weights, warm: Warm, ignore_isolated: bool) -> None:
        check(drawn, warm, normalized, ignore_isolated, dtype)

    property_()


@functools.partial(jax.jit, static_argnames="normalized", compiler_options=compiling.AS_USERS)
def solve_for_three(adjacency: jax.Array, init: jax.Array, normalized: bool) -> eigen.EigenResult:
    return eigenpairs(adjacency, normalized, 3, ignore_isolated=True, init=init)


@pytest.mark.crossed
@both(15, 400)
@BOTH
@DTYPES
def test_several_eigenpairs_of_random_graphs(dtype: str, normalized: bool, examples: int) -> None:
    @settings(max_examples=examples, deadline=None, derandomize=examples < 200)
    @given(drawn=weights_drawn, warm=warm_drawn)
    @example(drawn=MIXED, warm=Warm("zeros", 0))
    @example(drawn=SECOND_LOOK, warm=Warm("zeros", 0))
    def property_(drawn: Weights, warm: Warm) -> None:
        adjacency = drawn.adjacency().astype(dtype).astype("float64")
        init = np.tile(warm.row(reference.dense_laplacian(adjacency, normalized)).astype(dtype), (3, 1))
        with jax.enable_x64(dtype == "float64"):
            found = jax.device_get(solve_for_three(jnp.asarray(adjacency, dtype), init, normalized))
        connected = adjacency.sum(axis=1) > 0
        values = reference.spectrum(adjacency[connected][:, connected], normalized)
        assert_never_wrong_in_silence(found, values, dtype)

    property_()


@functools.partial(jax.jit, static_argnames=("normalized", "num", "solver"), compiler_options=compiling.AS_USERS)
def solve_each(adjacencies: jax.Array, normalized: bool, num: int, solver: eigen.Solver) -> eigen.EigenResult:
    return jax.lax.map(lambda one: eigenpairs(one, normalized, num, solver, ignore_isolated=True), adjacencies)


# Ten or eleven connected vertices leave one pair or none above those that a basis keeps, and the null vector took the
# place: its value was called λ2 of two thirds of these combinatorial graphs of ten vertices, in float64 too. In a
# larger basis parts of pairs that do not exist took it, of up to 24 vertices.
@pytest.mark.parametrize(
    "solver",
    [
        pytest.param(fj.Davidson(), id="Davidson"),
        pytest.param(fj.Davidson(basis_size=28), id="larger basis"),
        pytest.param(fj.Lanczos(), id="Lanczos", marks=pytest.mark.slow),
    ],
)
@pytest.mark.parametrize("num", [1, 3])
@BOTH
@DTYPES
def test_graphs_of_every_number_of_vertices(dtype: str, normalized: bool, num: int, solver: eigen.Solver) -> None:
    drawn = [
        Weights(seed, density, decades=3, parts=3, bridge=1e-3, vertices=vertices)
        for vertices in range(2, VERTICES + 1)
        for density in (1.0, 0.5, 0.2)
        for seed in range(10)
    ]
    adjacencies = np.stack([weights.adjacency() for weights in drawn]).astype(dtype)
    with jax.enable_x64(dtype == "float64"):
        results = jax.device_get(solve_each(jnp.asarray(adjacencies), normalized, num, solver))
    for at, adjacency in enumerate(adjacencies.astype("float64")):
        connected = adjacency.sum(axis=1) > 0
        values = reference.spectrum(adjacency[connected][:, connected], normalized)
        assert_never_wrong_in_silence(jax.tree.map(lambda x, at=at: x[at], results), values, dtype)


# λ2 is zero to rounding and a value above it is small but not zero: held so far apart that this one's vector no longer
# gave back what it holds of λ2's, they came to no end.
@pytest.mark.parametrize(
    ("seed", "bridge", "num", "dtype"), [(516325, 1e-8, 2, "float64"), (47567, 1e-3, 3, "float32")]
)
def test_values_of_rounding_beside_small_ones_come_to_an_end(seed: int, bridge: float, num: int, dtype: str) -> None:
    adjacency = Weights(seed, density=0.1, decades=8, parts=3, bridge=bridge, vertices=24).adjacency().astype(dtype)
    with jax.enable_x64(dtype == "float64"):
        results = jax.device_get(solve_each(jnp.asarray(adjacency[None]), True, num, fj.Davidson()))
    result = jax.tree.map(lambda x: x[0], results)
    assert Status(int(result.status)) is Status.ACCURACY_FLOOR
    assert_never_wrong_in_silence(result, reference.spectrum(adjacency.astype("float64"), True), dtype)


def check_pruned(
    net: int, kept: float, decades: int, seed: int, solver: fj.Davidson | fj.Lanczos | fj.PowerIteration
) -> None:
    drawn = Net(seed=seed, sizes=NETS[net], kept=kept, decades=decades, bfloat16=False)
    check(drawn, Warm("zeros", 0), normalized=False, ignore_isolated=True, dtype="float32", solver=solver)


# Float32 found λ3 of these, as long as a residual at the accuracy floor was enough so near to zero.
@pytest.mark.parametrize(
    ("net", "kept", "decades", "seed"),
    [
        (0, 0.3, 7, 340),
        (0, 0.3, 8, 945),
        (0, 0.3, 10, 738),
        (0, 0.2, 5, 337),
        (0, 0.2, 6, 266),
        (0, 0.2, 7, 850),
        (0, 0.2, 9, 828),
        (1, 0.3, 6, 327),
        (1, 0.3, 6, 597),
    ],
)
def test_a_value_of_few_floors_is_the_smallest(net: int, kept: float, decades: int, seed: int) -> None:
    check_pruned(net, kept, decades, seed, fj.Davidson())


# The same of power iteration, with nets of its own, when it iterated two rows.
@pytest.mark.parametrize(
    ("net", "kept", "decades", "seed"),
    [(0, 0.3, 7, 33), (0, 0.3, 8, 41), (0, 0.2, 9, 46), (1, 0.5, 6, 14), (1, 0.3, 5, 10), (1, 0.2, 5, 5)],
)
def test_power_iteration_finds_a_value_of_few_floors(net: int, kept: float, decades: int, seed: int) -> None:
    check_pruned(net, kept, decades, seed, POWER)


# What one Lanczos run found at the accuracy floor was λ3 of these, or took λ4 for λ3: a fresh direction had come, but
# nothing was asked of it.
@pytest.mark.parametrize(
    ("net", "kept", "decades", "seed"),
    [
        (0, 0.5, 5, 22),
        (0, 0.3, 7, 108),
        (0, 0.3, 7, 109),
        (0, 0.3, 9, 108),
        (0, 0.3, 10, 20),
        (0, 0.2, 5, 42),
        (0, 0.2, 9, 46),
        (1, 0.5, 8, 343),
    ],
)
def test_a_fresh_direction_shows_lanczos_what_it_missed(net: int, kept: float, decades: int, seed: int) -> None:
    check_pruned(net, kept, decades, seed, LANCZOS)


@pytest.mark.crossed
@both(15, 600)
@BOTH
@DTYPES
def test_random_nets(dtype: str, normalized: bool, examples: int) -> None:
    @settings(max_examples=examples, deadline=None, derandomize=examples < 200)
    @given(drawn=nets_drawn, warm=warm_drawn)
    @example(drawn=THREE_UNITS, warm=Warm("zeros", 0))
    @example(drawn=TINY_WEIGHTS, warm=Warm("zeros", 0))
    @example(drawn=THREE_PARTS, warm=Warm("zeros", 0))
    @example(drawn=ALL_AT_ONCE, warm=Warm("zeros", 0))
    def property_(drawn: Net, warm: Warm) -> None:
        check(drawn, warm, normalized, True, dtype)

    property_()


@pytest.mark.crossed
@both(10, 200)
@BOTH
@DTYPES
@pytest.mark.parametrize("solver", [LANCZOS, POWER], ids=["Lanczos", "PowerIteration"])
def test_random_graphs_by_simpler_solvers(
    solver: fj.Lanczos | fj.PowerIteration, dtype: str, normalized: bool, examples: int
) -> None:
    @settings(max_examples=examples, deadline=None, derandomize=examples < 200)
    @given(drawn=weights_drawn, warm=warm_drawn)
    @example(drawn=HIDDEN, warm=Warm("eigenvector", 9))
    def property_(drawn: Weights, warm: Warm) -> None:
        check(drawn, warm, normalized, True, dtype, solver)

    property_()
