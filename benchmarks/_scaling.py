"""What one network costs at its size: a solve, an update, and the most memory that either takes."""

import concurrent.futures
import itertools
import math
import multiprocessing
import resource
import statistics
import sys
import time
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

import fiedler_jax as fj
from benchmarks._architectures import ARCHITECTURES
from benchmarks._compiling import compiled_anew

# Three kernels of one side, or the wide inputs, hidden units and classes of a gene expression data set.
_KERNELS = 3
_NARROW = (50, 10)


class Net(NamedTuple):
    """A network to measure: layer sizes of a Dense chain, or the name of an architecture."""

    family: str
    widths: tuple[int, ...] = ()

    def __str__(self) -> str:
        return "-".join(map(str, self.widths)) or self.family


class Scaling(NamedTuple):
    """What was measured on one network: seconds and bytes.

    Attributes:
        update_ratio: an update between refreshes over one with weight decay, the median of ratios.
        solve_memory: temporary memory of the compiled solve.
        update_memory: temporary memory of the compiled update, its refresh included.
        peak_memory: the most the whole process had, JAX itself and the parameters included.
    """

    family: str
    name: str
    vertices: int
    edges: int
    compile_seconds: float
    solve_seconds: float
    block_products: int
    status: str
    update_seconds: float
    update_ratio: float
    weights: int
    solve_memory: int
    update_memory: int
    peak_memory: int


def square(edges: float) -> Net:
    """A chain of three kernels of one side with about so many edges."""
    return Net("square", (round(math.sqrt(edges / _KERNELS)),) * (_KERNELS + 1))


def wide(vertices: float) -> Net:
    """A chain with so many vertices, most of them inputs."""
    return Net("wide", (round(vertices) - sum(_NARROW), *_NARROW))


def measured_apart(net: Net, normalized: bool, repeats: int) -> Scaling:
    """The measurement in a process of its own, whose peak memory is that of this network alone."""
    with concurrent.futures.ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(measured, net, normalized, repeats).result()


def measured(net: Net, normalized: bool, repeats: int) -> Scaling:
    """What the network costs, at initialization."""
    graph, params = _network(net)
    solve = jax.jit(lambda p: fj.fiedler_pair(fj.laplacian(graph, p, normalized=normalized)))
    compiled, compile_seconds = compiled_anew(solve, params)
    pair = jax.block_until_ready(compiled(params))
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        jax.block_until_ready(compiled(params))
        times.append(time.perf_counter() - start)
    solve_memory = _temporary(compiled)
    weights = sum(leaf.nbytes for leaf in jax.tree.leaves(params))
    # The strength is so small that the weights stay what they were.
    penalty = fj.add_fiedler_penalty(1e-6, graph, normalized=normalized, refresh_every=10**6)
    ours, theirs, update_memory = _updates(penalty, optax.add_decayed_weights(1e-6), params, repeats)
    return Scaling(
        family=net.family,
        name=str(net),
        vertices=graph.num_vertices,
        edges=graph.num_edges,
        compile_seconds=compile_seconds,
        solve_seconds=statistics.median(times),
        block_products=int(pair.iterations),
        status=fj.Status(int(pair.status)).name.lower().replace("_", " "),
        update_seconds=statistics.median(ours),
        update_ratio=statistics.median(a / b for a, b in zip(ours, theirs, strict=True)),
        weights=weights,
        solve_memory=solve_memory,
        update_memory=update_memory,
        peak_memory=_peak_memory(),
    )


def slope(sizes: Sequence[float], values: Sequence[float]) -> float:
    """The exponent p of the power law ``value ~ size^p`` that fits best on logarithmic axes; NaN for one size."""
    if len(set(sizes)) < 2:
        return math.nan
    return float(np.polyfit(np.log(sizes), np.log(values), 1)[0])


def _network(net: Net) -> tuple[fj.NetworkGraph, Any]:
    if net.widths:
        rng = np.random.default_rng(0)
        kernels = [
            rng.standard_normal((m, n), dtype=np.float32) / np.float32(m**0.5)
            for m, n in itertools.pairwise(net.widths)
        ]
        params = {f"Dense_{i}": {"kernel": jnp.asarray(kernel)} for i, kernel in enumerate(kernels)}
        return fj.graph_from_params(params), params
    model, spec = ARCHITECTURES[net.family]()
    inputs = jax.ShapeDtypeStruct((1, *spec.shape[1:]), spec.dtype)
    params = jax.jit(model.init)(jax.random.key(0), jnp.zeros(inputs.shape, inputs.dtype))["params"]
    return fj.graph_from_model(model, params, inputs), params


def _updates(
    ours: optax.GradientTransformation, theirs: optax.GradientTransformation, params: Any, repeats: int
) -> tuple[list[float], list[float], int]:
    """Seconds of updates with each, one by one after the other, and the temporary memory of ours."""
    seconds: tuple[list[float], list[float]] = [], []
    memory, runs = 0, []
    for one in (ours, theirs):
        tx = optax.chain(one, optax.sgd(1e-6))

        def step(params: Any, state: Any, tx: optax.GradientTransformation = tx) -> Any:
            updates, state = tx.update(jax.tree.map(lambda w: 1e-6 * w, params), state, params)
            return optax.apply_updates(params, updates), state

        state = tx.init(params)
        run = jax.jit(step, donate_argnums=(0, 1)).lower(params, state).compile()
        memory = memory or _temporary(run)
        runs.append((run, state))
    # The first update of ours refreshes and does not count; parameters are handed on, one copy for both.
    states: list[Any] = []
    for run, state in runs:
        params, state = jax.block_until_ready(run(params, state))
        states.append(state)
    for _ in range(max(repeats, 5)):
        for i, (run, _) in enumerate(runs):
            start = time.perf_counter()
            params, states[i] = jax.block_until_ready(run(params, states[i]))
            seconds[i].append(time.perf_counter() - start)
    return *seconds, memory


def _temporary(compiled: Any) -> int:
    analysis = compiled.memory_analysis()
    return int(analysis.temp_size_in_bytes) if analysis is not None else 0


def _peak_memory() -> int:
    # Linux counts in KiB, macOS in bytes.
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
