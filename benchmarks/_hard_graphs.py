"""Graphs on which Fiedler solvers are known to fail or to hang, each solver in a process that can be ended."""

import multiprocessing
from collections.abc import Callable, Mapping, Sequence
from multiprocessing.connection import Connection
from types import MappingProxyType
from typing import NamedTuple

import jax
import networkx as nx
import numpy as np

from benchmarks._judging import Result, Rules, judge
from benchmarks._peers import CONTENDERS
from benchmarks._problems import Problem
from benchmarks._reference import Reference, reference

_REGULAR_SEEDS = range(5)
_COMMUNITY = 50
# Importing, compiling and what cannot be interrupted come on top of the time for solving.
_PATIENCE = 4
_GRACE = 30.0


class HardResult(NamedTuple):
    """All contenders on one graph."""

    graph: str
    reference: Reference
    results: tuple[Result, ...]


def _communities(bridge: float) -> np.ndarray:
    """Two dense random communities, and one edge between them."""
    rng, n = np.random.default_rng(0), 2 * _COMMUNITY
    weights = np.triu(rng.uniform(0.5, 1, (n, n)), 1)
    weights[:_COMMUNITY, _COMMUNITY:] = 0
    weights[0, -1] = bridge
    return weights + weights.T


def _regular(seed: int) -> Callable[[], np.ndarray]:
    return lambda: nx.to_numpy_array(nx.random_regular_graph(5, 100, seed=seed))


GRAPHS: Mapping[str, Callable[[], np.ndarray]] = MappingProxyType(
    {
        # NetworkX issue 2381.
        "tree-2381": lambda: nx.to_numpy_array(nx.Graph([(1, 2), (2, 3), (3, 4), (5, 3), (6, 2)])),
        # NetworkX issue 3418: some of these never came back.
        **{f"regular-3418-{seed}": _regular(seed) for seed in _REGULAR_SEEDS},
        "cycle-200": lambda: nx.to_numpy_array(nx.cycle_graph(200)),
        "barbell": lambda: nx.to_numpy_array(nx.barbell_graph(20, 10)),
        "bridge-1e-8": lambda: _communities(1e-8),
        "two-components": lambda: _communities(0.0),
    }
)


def run_hard(
    graphs: Sequence[str],
    solvers: Sequence[str],
    rules: Rules,
    report: Callable[[str], None],
    advance: Callable[[], None],
) -> list[HardResult]:
    """Judges solvers on hard graphs in float64, with the combinatorial Laplacian and a cold start.

    Args:
        graphs: names in ``GRAPHS``.
        solvers: names of contenders.
        rules: the accuracy demanded and the time allowed.
        report: told what is going on.
        advance: called after each solver.
    """
    if not graphs:
        return []
    references = {graph: reference(hard_problem(graph)) for graph in graphs}
    found: dict[str, list[Result]] = {graph: [] for graph in graphs}
    for solver in solvers:
        report(f"hard graphs: {solver}")
        for graph, result in zip(graphs, _in_process(solver, references, rules), strict=True):
            found[graph].append(result)
        advance()
    return [HardResult(graph, right, tuple(found[graph])) for graph, right in references.items()]


def hard_problem(graph: str) -> Problem:
    """The problem of a graph in ``GRAPHS``."""
    return Problem((GRAPHS[graph](),), normalized=False, symmetric=True)


def _in_process(solver: str, references: Mapping[str, Reference], rules: Rules) -> list[Result]:
    """One solver on all graphs, in a process that is ended and started anew where it gives no answer in time."""
    results, worker = [], None
    for graph, right in references.items():
        worker = worker or _Worker(solver, rules)
        result = worker.judge(graph, right)
        if result.outcome == "ended":
            worker.end()
            worker = None
        results.append(result)
    if worker is not None:
        worker.end()
    return results


class _Worker:
    def __init__(self, solver: str, rules: Rules) -> None:
        # A forked process would share the state of JAX's threads, which do not survive a fork.
        context = multiprocessing.get_context("spawn")
        self._solver, self._patience = solver, _PATIENCE * (rules.cap + rules.budget) + _GRACE
        self._connection, other = context.Pipe()
        self._process = context.Process(target=_work, args=(other, solver, rules), daemon=True)
        self._process.start()
        other.close()

    def judge(self, graph: str, right: Reference) -> Result:
        try:
            self._connection.send((graph, right))
            if self._connection.poll(self._patience):
                return self._connection.recv()
        except (EOFError, OSError):
            return Result(self._solver, "ended", "its process died")
        return Result(self._solver, "ended", f"no answer in {self._patience:.0f} s")

    def end(self) -> None:
        self._process.kill()
        self._process.join()
        self._connection.close()


def _work(connection: Connection, solver: str, rules: Rules) -> None:
    contender = next(contender for contender in CONTENDERS if contender.name == solver)
    jax.config.update("jax_enable_x64", True)
    while True:
        try:
            graph, right = connection.recv()
        except EOFError:
            return
        connection.send(judge((contender,), hard_problem(graph), right, rules)[0])
