"""How often a solver takes a higher eigenvector for the Fiedler vector: ``python -m benchmarks.misleading``.

Each starts from the exact eigenvector of λ3, or from a mixture of those of λ3 to λ5, as a crossing of eigenvalues in
training leaves them, and from nothing, on random graphs whose λ2 and λ3 lie near each other, or whose λ2 is that of a
few heavy vertices among light ones.
"""

import argparse
import json
import shlex
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
import scipy.linalg
from rich.console import Console

from benchmarks._cases import ACCURACY, DTYPES, KINDS
from benchmarks._contenders import Contender, Knob
from benchmarks._errors import ConfigError
from benchmarks._judging import Attempt, Rules, attempt_at
from benchmarks._peers import CONTENDERS
from benchmarks._problems import BlockLaplacian, Problem
from benchmarks._reference import Reference
from benchmarks._report import TextTable, markdown_table, plain, prepare_output
from benchmarks._solver_report import solver_versions
from benchmarks._terminal import comma_separated, leave, progress_bar, run_command, show_results

SCHEMA_VERSION = 1
# Only who takes a start and says whether it succeeded can be misled in silence.
SOLVERS: Mapping[str, Contender] = {c.name: c for c in CONTENDERS if c.accepts_start and c.name != "matfree"}
# How much of the eigenvectors of λ3, λ4, ... each start holds.
STARTS: Mapping[str, Callable[[np.random.Generator], np.ndarray]] = {
    "none": lambda rng: np.zeros(0),
    "λ3": lambda rng: np.ones(1),
    "mixture": lambda rng: rng.normal(size=3),
}
GAPS = (1e-3, 1e-2, 1e-1)
_SECONDS = 10.0

Weights = tuple[np.ndarray, ...]


def dense(rng: np.random.Generator) -> Weights:
    """All pairs of 120 vertices, with half-normal weights."""
    return (_symmetric(np.abs(rng.normal(size=(120, 120)))),)


def sparse(rng: np.random.Generator) -> Weights:
    """A twentieth of the pairs of 250 vertices, with half-normal weights."""
    return (_symmetric(np.abs(rng.normal(size=(250, 250))) * (rng.random((250, 250)) < 0.05)),)


def decades(rng: np.random.Generator) -> Weights:
    """All pairs of 24 vertices, with weights over eight decades."""
    return (_symmetric(10 ** -rng.uniform(0, 8, (24, 24))),)


def path(rng: np.random.Generator) -> Weights:
    """A path of 120 vertices, with weights from 1/2 to 3."""
    return (_symmetric(np.diag(rng.uniform(0.5, 3, 119), 1)),)


def layered(rng: np.random.Generator) -> Weights:
    """A network of 100-75-75 units, as it is initialized."""
    return (rng.normal(size=(100, 75)) / 10, rng.normal(size=(75, 75)) / 75**0.5)


def cliques(rng: np.random.Generator, decades: tuple[float, float] = (-5, -2.8)) -> Weights:
    """120 vertices, a tenth of the pairs joined, on which leaves and heavy cliques hang by light edges.

    There are up to nine leaves and three cliques, of two to four vertices; their edges to the rest are lighter than
    those inside the cliques by a factor within so many decades, by default some hundred to hundred thousand times.
    """
    graph, heavy = _tenth(rng), rng.choice([0.1, 0.3, 1, 3])
    sizes = [*[1] * rng.integers(0, 10), *rng.choice([2, 2, 3, 4], rng.integers(1, 4))]
    return (_hung_on(graph, rng, sizes, heavy, decades),)


def islands(rng: np.random.Generator) -> Weights:
    """120 vertices, a tenth of the pairs joined, on which one heavy clique hangs.

    It has two to four vertices; their edges to the rest are ten to some hundred times as light as those inside it.
    """
    graph, heavy = _tenth(rng), rng.choice([0.3, 1, 3, 10])
    return (_hung_on(graph, rng, rng.choice([2, 2, 3, 4], 1), heavy, (-2.8, -1)),)


GRAPHS: Mapping[str, Callable[[np.random.Generator], Weights]] = {
    f.__name__: f for f in (dense, sparse, decades, path, layered, cliques, islands)
}


class Trial(NamedTuple):
    """One solver on one graph; `outcome` is right, wrong (in silence), said so, or failed."""

    graph: str
    kind: str
    dtype: str
    start: str
    gap: float
    solver: str
    outcome: str
    error: float | None


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line.

    Returns:
        The exit status: 0, or 2 after a mistake of the user's.
    """
    parser = argparse.ArgumentParser(prog="python -m benchmarks.misleading", description=__doc__)
    add = parser.add_argument
    add("--graphs", default=",".join(GRAPHS), help="(%(default)s)")
    add("--solvers", default=",".join(SOLVERS), help="(%(default)s)")
    add("--count", type=int, default=20, help="graphs of each kind (%(default)s)")
    add("--out", type=Path, default=Path("misleading-results"), help="folder for the results (%(default)s)")
    arguments = parser.parse_args(argv)
    command = shlex.join(["python", "-m", "benchmarks.misleading", *(sys.argv[1:] if argv is None else argv)])
    return run_command(lambda console: _run(arguments, console, command), pipe_width=200)


def _run(arguments: argparse.Namespace, console: Console, command: str) -> None:
    graphs = _chosen("--graphs", arguments.graphs, GRAPHS)
    solvers = _chosen("--solvers", arguments.solvers, SOLVERS)
    if arguments.count < 1:
        raise ConfigError(f"--count must be at least 1, not {arguments.count}")
    prepare_output(arguments.out)
    found: list[Trial] = []
    with progress_bar(console, len(graphs) * len(KINDS) * len(DTYPES) * arguments.count, "graphs") as advance:
        for graph in graphs:
            for kind in KINDS:
                for dtype in DTYPES:
                    for trials in run_trials(graph, kind, dtype, solvers, arguments.count):
                        found += trials
                        advance(f"{graph} {kind} {dtype}", 1)
    tables = (case_table(found), gap_table(found))
    record = {
        "schema_version": SCHEMA_VERSION,
        "command": command,
        "versions": solver_versions(),
        "trials": [trial._asdict() for trial in found],
    }
    (arguments.out / "misleading.json").write_text(json.dumps(plain(record), ensure_ascii=False) + "\n", "utf-8")
    text = "\n".join([*map(markdown_table, tables), f"`{command}`\n"])
    (arguments.out / "misleading.md").write_text(text, encoding="utf-8")
    show_results(console, tables, arguments.out, ("misleading.md", "misleading.json"))


def run_trials(graph: str, kind: str, dtype: str, solvers: Sequence[str], count: int) -> Iterator[list[Trial]]:
    """All solvers and starts on each of `count` graphs, which are the same for all kinds, precisions and solvers."""
    rules = Rules(ACCURACY[dtype], 1, _SECONDS, _SECONDS)
    for seed in range(count):
        rng = np.random.default_rng(seed)
        # What is stored in the precision asked for is what counts.
        stored = tuple(weight.astype(dtype) for weight in GRAPHS[graph](rng))
        problem = Problem(stored, kind == "normalized", symmetric=len(stored) == 1)
        wide = Problem(tuple(w.astype(np.float64) for w in stored), problem.normalized, symmetric=problem.symmetric)
        lap = BlockLaplacian(wide)
        values, vectors = scipy.linalg.eigh(lap.to_dense())
        right = Reference(values[1], vectors[:, 1], lap.upper_bound, "dense float64")
        gap = float(values[2] / values[1] - 1)
        trials = []
        for start, draw in STARTS.items():
            mixture = draw(rng)
            vector = vectors[:, 2 : 2 + len(mixture)] @ mixture
            begin = vector / np.linalg.norm(vector) if len(mixture) else None
            given = Problem(stored, problem.normalized, begin, problem.symmetric)
            with jax.enable_x64(dtype == "float64"):
                for name in solvers:
                    for label, attempt in _attempts(name, given, right, rules):
                        trials.append(Trial(graph, kind, dtype, start, gap, label, _outcome(attempt), attempt.error))
        yield trials


def case_table(trials: Sequence[Trial]) -> TextTable:
    """How many answers of each solver were wrong in silence, for each kind of graph."""
    groups = list(dict.fromkeys((t.graph, t.kind, t.dtype, t.start) for t in trials))
    rows = []
    for group in groups:
        own = [t for t in trials if (t.graph, t.kind, t.dtype, t.start) == group]
        rows.append((" ".join(group), f"{np.median([t.gap for t in own]):.1e}", *_cells(own, _labels(trials))))
    notes = (
        "Of so many graphs the answers that were wrong by more than ten times what was asked for (relative error "
        f"{ACCURACY['float32']:g} in float32, {ACCURACY['float64']:g} in float64) though the solver claimed success; "
        "in brackets those that it did not claim. gap: median of λ3/λ2 - 1. Each solver has the loosest tolerance that "
        "promises the accuracy.",
    )
    return TextTable("Wrong in silence", ("graphs, start", "gap", *_labels(trials)), tuple(rows), notes)


def gap_table(trials: Sequence[Trial]) -> TextTable:
    """The same for each size of gap, over all graphs."""
    rows = []
    for low, high in zip((0.0, *GAPS), (*GAPS, np.inf), strict=True):
        own = [t for t in trials if low <= t.gap < high]
        if own:
            rows.append((f"{low:g} to {high:g}", *_cells(own, _labels(trials))))
    notes = ("All graphs, Laplacians, precisions and starts together.",)
    return TextTable("Wrong in silence by gap", ("λ3/λ2 - 1", *_labels(trials)), tuple(rows), notes)


def _cells(trials: Sequence[Trial], labels: Sequence[str]) -> Iterator[str]:
    for label in labels:
        outcomes = [t.outcome for t in trials if t.solver == label]
        unclaimed = outcomes.count("said so") + outcomes.count("failed")
        yield f"{outcomes.count('wrong')} of {len(outcomes)}" + f" ({unclaimed})" * (unclaimed > 0)


def _labels(trials: Sequence[Trial]) -> list[str]:
    return list(dict.fromkeys(t.solver for t in trials))


def _attempts(name: str, problem: Problem, right: Reference, rules: Rules) -> Iterator[tuple[str, Attempt]]:
    """One attempt for each second setting of a solver, such as its block size."""
    contender = SOLVERS[name]
    solve = contender.prepare(problem)
    for ladder in contender.ladders(problem, rules.accuracy):
        knob = next((k for k in ladder if _promised(contender, problem, k, right) <= rules.accuracy), ladder[-1])
        label = name if knob.option is None else f"{name} {knob.option}"
        yield label, attempt_at(contender, solve, problem, knob, right, rules, rules.cap)


def _promised(contender: Contender, problem: Problem, knob: Knob, right: Reference) -> float:
    return contender.promise(problem, knob, right.value, right.upper_bound)


def _outcome(attempt: Attempt) -> str:
    if attempt.error is None:
        return "failed"
    return "wrong" if attempt.silent else "right" if attempt.claim else "said so"


def _tenth(rng: np.random.Generator) -> np.ndarray:
    return _symmetric(np.abs(rng.normal(size=(120, 120))) * (rng.random((120, 120)) < 0.1))


def _hung_on(
    graph: np.ndarray, rng: np.random.Generator, sizes: Iterable[int], heavy: float, decades: tuple[float, float]
) -> np.ndarray:
    """The graph whose first vertices form leaves and cliques of these sizes, with edges `heavy` times its top degree.

    The edges of each to the rest are lighter by a factor within so many decades.
    """
    graph, heavy, first = graph.copy(), heavy * graph.sum(axis=1).max(), 0
    for size in sizes:
        own = slice(first, first + size)
        graph[own, own] = 0
        light = heavy * 10 ** rng.uniform(*decades) * size / graph[own].sum()
        graph[own] *= light
        graph[:, own] *= light
        graph[own, own] = _symmetric(rng.uniform(0.5, 1.2, (size, size))) * heavy
        first += size
    return graph


def _symmetric(weights: np.ndarray) -> np.ndarray:
    upper = np.triu(weights, 1)
    return upper + upper.T


def _chosen(option: str, text: str, known: Mapping[str, Any]) -> tuple[str, ...]:
    names = comma_separated(text)
    for name in names:
        if name not in known:
            raise ConfigError(f"{option} has no {name!r}; choose of {', '.join(known)}")
    return names


if __name__ == "__main__":
    leave(main())
