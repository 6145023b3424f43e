"""Networks under `jax.shard_map` on eight devices, as JSON: run by the tests of sharding in a process of its own.

Arguments: names of programs and of types of axes, each a list with semicolons.
"""

import json
import sys
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import sharded
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

import fiedler_jax as fj

RNG = np.random.default_rng(0)
SHAPES = {"Dense_0": (16, 8), "Dense_1": (8, 4)}
HOST = {name: {"kernel": RNG.standard_normal((8, *shape)).astype(np.float32)} for name, shape in SHAPES.items()}
MEMBERS = jax.tree.transpose(jax.tree.structure(HOST), None, jax.tree.map(list, HOST))
ONE = MEMBERS[0]
GRAPH = fj.graph_from_params(ONE)


def trained(tx: Any, params: Any) -> Any:
    """What three steps in a loop make of parameters, and of the state that the loop carries along."""

    def step(_: int, carry: tuple[Any, Any]) -> tuple[Any, Any]:
        params, state = carry
        updates, state = tx.update(jax.tree.map(jnp.zeros_like, params), state, params)
        return jax.tree.map(lambda w, u: w - u, params, updates), state

    params, state = jax.lax.fori_loop(0, 3, step, (params, tx.init(params)))
    return params, state.values, state.refreshes, state.interval


def gradient(solver: fj.eigen.Solver, params: Any) -> Any:
    return jax.grad(lambda p: fj.fiedler_value(GRAPH, p, solver=solver))(params)


PROGRAMS: dict[str, Callable[[Any], Any]] = {
    "penalty": lambda p: trained(fj.add_fiedler_penalty(0.1, refresh_every=2), p),
    "shrinkage": lambda p: trained(fj.fiedler_shrinkage(0.1, 0.1, refresh_every="auto", num_eigenvalues=2), p),
    "Lanczos": lambda p: gradient(fj.Lanczos(), p),
    "PowerIteration": lambda p: gradient(fj.PowerIteration(), p),
}


def one_a_device(run: Callable[[Any], Any]) -> float:
    """How far the numbers of each of eight networks are from those that it has alone."""
    mesh = jax.make_mesh((8,), ("member",))
    members = jax.device_put(HOST, NamedSharding(mesh, P("member")))

    def on_each(members: Any) -> Any:
        own = jax.tree.map(lambda w: w[0], members)
        return jax.tree.map(lambda x: x[None], run(own))

    found = jax.jit(jax.shard_map(on_each, mesh=mesh, in_specs=P("member"), out_specs=P("member")))(members)
    alone = jax.jit(run)
    each = [alone(member) for member in MEMBERS]
    return sharded.distance(found, jax.tree.map(lambda *x: np.stack(x), *each))


def replicated_over_the_manual_axis(kind: AxisType) -> dict[str, Any]:
    """The same, of one network spread over an axis that is not manual, and how many exchanges of pairs there are."""
    mesh = jax.make_mesh((2, 4), ("data", "model"), axis_types=(kind, kind))
    spread = jax.device_put(ONE, NamedSharding(mesh, P(None, "model")))
    run = PROGRAMS["penalty"]
    step = jax.jit(jax.shard_map(run, mesh=mesh, in_specs=P(), out_specs=P(), axis_names={"data"}))
    found = step(spread)
    kinds = [name for name, _ in sharded.collectives(step.lower(spread).compile().as_text() or "")]
    return {
        "distance": sharded.distance(found, run(ONE)),
        "sharding kept": sharded.same_sharding(found[0], spread),
        "permutes": kinds.count("collective-permute"),
    }


def one_for_each_part() -> str:
    """What is said of two networks, each spread over four devices."""
    mesh = jax.make_mesh((2, 4), ("data", "model"), axis_types=(AxisType.Auto,) * 2)
    members = jax.device_put(HOST, NamedSharding(mesh, P("data", None, "model")))

    def on_each(members: Any) -> jax.Array:
        return fj.fiedler_value(GRAPH, jax.tree.map(lambda w: w[0], members))[None]

    try:
        jax.eval_shape(
            jax.shard_map(on_each, mesh=mesh, in_specs=P("data"), out_specs=P("data"), axis_names={"data"}), members
        )
    except fj.errors.ShardingError as error:
        return str(error)
    return ""


def main(programs: str, kinds: str) -> None:
    results = {
        **{name: one_a_device(PROGRAMS[name]) for name in programs.split(";")},
        **{name: replicated_over_the_manual_axis(AxisType[name]) for name in kinds.split(";")},
        "one for each part": one_for_each_part(),
    }
    print(json.dumps({"devices": jax.device_count(), **results}))


if __name__ == "__main__":
    main(*sys.argv[1:])
