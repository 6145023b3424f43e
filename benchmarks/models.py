"""What a graph traced from a large model costs: `python -m benchmarks.models`.

For each model: the time JAX takes to trace it, the time and the memory the graph takes on top, the size of the graph,
and one Fiedler pair at initialization.
"""

import argparse
import time
import tracemalloc
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
from rich.console import Console

import fiedler_jax as fj
from benchmarks._architectures import ARCHITECTURES
from benchmarks._compiling import compiled_anew
from benchmarks._errors import ConfigError
from benchmarks._report import TextTable, markdown_table, rich_table
from benchmarks._terminal import leave, run_command

# A pipe has no width of its own, and fourteen columns need so much.
_PIPE_WIDTH = 200


class Cost(NamedTuple):
    """What was measured on one model; times in seconds, memory in bytes."""

    name: str
    parameters: int
    vertices: int
    edges: int
    blocks: int
    unknown: int
    trace_seconds: float
    graph_seconds: float
    graph_bytes: int
    compile_seconds: float | None
    solve_seconds: float | None
    pair: fj.FiedlerPair | None


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line.

    Returns:
        The exit status: 0, or 2 after a mistake of the user's.
    """
    parser = argparse.ArgumentParser(prog="python -m benchmarks.models", description=__doc__)
    parser.add_argument("--models", default=",".join(ARCHITECTURES), help="of " + ", ".join(ARCHITECTURES))
    parser.add_argument("--no-solve", action="store_true", help="trace only: no parameters are made")
    parser.add_argument("--combinatorial", action="store_true", help="solve the combinatorial Laplacian")
    parser.add_argument("--markdown", action="store_true", help="print the table as Markdown")
    arguments = parser.parse_args(argv)
    return run_command(lambda console: _measure(arguments, console), _PIPE_WIDTH)


def _measure(arguments: argparse.Namespace, console: Console) -> None:
    costs = []
    for name in _names(arguments.models):
        with console.status(name):
            costs.append(measure(name, not arguments.no_solve, not arguments.combinatorial))
    table = cost_table(costs)
    print(markdown_table(table)) if arguments.markdown else console.print(rich_table(table))


def measure(name: str, solve: bool, normalized: bool) -> Cost:
    """The cost of one architecture."""
    model, spec = ARCHITECTURES[name]()
    inputs = jax.ShapeDtypeStruct((1, *spec.shape[1:]), spec.dtype)
    params = jax.eval_shape(model.init, jax.random.key(0), inputs)["params"]
    trace_seconds, _ = _timed(
        lambda: jax.make_jaxpr(lambda p, x: model.apply({"params": p}, x, mutable=["batch_stats"]))(params, spec)
    )
    graph_seconds, graph = _timed(lambda: fj.graph_from_model(model, params, spec))
    tracemalloc.start()
    fj.graph_from_model(model, params, spec)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    found = _solved(model, inputs, graph, normalized) if solve else (None, None, None)
    return Cost(
        name=name,
        parameters=sum(leaf.size for leaf in jax.tree.leaves(params)),
        vertices=graph.num_vertices,
        edges=graph.num_edges,
        blocks=len(graph.blocks),
        unknown=len(graph.not_understood),
        trace_seconds=trace_seconds,
        graph_seconds=graph_seconds,
        graph_bytes=peak,
        compile_seconds=found[0],
        solve_seconds=found[1],
        pair=found[2],
    )


def cost_table(costs: Sequence[Cost]) -> TextTable:
    """One row a model."""

    def row(cost: Cost) -> tuple[str, ...]:
        solved = ("-",) * 5
        if cost.pair is not None:
            pair = cost.pair
            status = fj.Status(int(pair.status)).name.lower().replace("_", " ")
            value = f"{pair.value:.4g} ({status})"
            solved = (
                f"{cost.compile_seconds:.1f}",
                f"{cost.solve_seconds:.2f}",
                value,
                f"{pair.ipr:.1e}",
                str(pair.iterations),
            )
        return (
            cost.name,
            f"{cost.parameters / 1e6:.1f}",
            str(cost.vertices),
            f"{cost.edges / 1e6:.1f}",
            str(cost.blocks),
            str(cost.unknown),
            f"{cost.trace_seconds:.2f}",
            f"{cost.graph_seconds:.2f}",
            f"{cost.graph_bytes / 2**20:.0f}",
            *solved,
        )

    headers = (
        "model",
        "parameters, M",
        "vertices",
        "edges, M",
        "blocks",
        "not understood",
        "make_jaxpr, s",
        "graph, s",
    )
    headers += ("graph, MiB", "compile, s", "solve, s", "λ2", "IPR", "block products")
    notes = (
        "make_jaxpr: JAX's own tracing of the model. graph: fj.graph_from_model, that tracing included. MiB: the most "
        "that Python allocated in it. compile and solve: one fj.fiedler_pair at initialization, from a cold start.",
    )
    return TextTable("Graphs traced from models", headers, tuple(map(row, costs)), notes)


def _solved(model: Any, inputs: Any, graph: fj.NetworkGraph, normalized: bool) -> tuple[float, float, fj.FiedlerPair]:
    params = jax.jit(lambda key: model.init(key, jax.numpy.zeros(inputs.shape, inputs.dtype))["params"])(
        jax.random.key(0)
    )
    solve = jax.jit(lambda p: fj.fiedler_pair(fj.laplacian(graph, p, normalized=normalized)))
    compiled, compile_seconds = compiled_anew(solve, params)
    jax.block_until_ready(compiled(params))
    solve_seconds, pair = _timed(lambda: jax.block_until_ready(compiled(params)))
    return compile_seconds, solve_seconds, pair


def _timed(call: Callable[[], Any]) -> tuple[float, Any]:
    begun = time.perf_counter()
    result = call()
    return time.perf_counter() - begun, result


def _names(text: str) -> list[str]:
    names = [name.strip() for name in text.split(",") if name.strip()]
    if unknown := [name for name in names if name not in ARCHITECTURES]:
        raise ConfigError(f"no model {unknown[0]!r}; there are {', '.join(ARCHITECTURES)}")
    return names


if __name__ == "__main__":
    leave(main())
