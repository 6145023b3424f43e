"""What happens to sharded parameters on eight devices, as JSON: run by the tests of sharding in a process of its own.

Arguments: names of layouts of the parameters and names of programs, each a list with semicolons.
"""

import contextlib
import functools
import itertools
import json
import re
import sys
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from compiling import AS_USERS
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

import fiedler_jax as fj

# So large that eight vectors side by side are shorter than one device's part of a kernel.
SIZES = (1024, 512, 512, 8)
RNG = np.random.default_rng(0)
KERNELS = [(RNG.standard_normal((m, n)) / m**0.5).astype(np.float32) for m, n in itertools.pairwise(SIZES)]
HOST = {f"Dense_{i}": {"kernel": k, "bias": np.zeros(k.shape[1], np.float32)} for i, k in enumerate(KERNELS)}
GRAPH = fj.graph_from_params(HOST)
# Weight-sized is what has as many elements as one device's part of the larger kernels.
WEIGHT_SIZED = SIZES[1] * SIZES[2] // 8
assert 8 * sum(SIZES) < WEIGHT_SIZED
TRANSFORMATIONS = {
    "penalty": optax.chain(fj.add_fiedler_penalty(0.01, refresh_every=2), optax.sgd(0.1, momentum=0.9)),
    "shrinkage": optax.chain(optax.sgd(0.1, momentum=0.9), fj.fiedler_shrinkage(0.01, 0.1, refresh_every=2)),
}


def placed(mesh: jax.sharding.Mesh, kernel: P, bias: P) -> Any:
    specs = {"kernel": kernel, "bias": bias}
    return jax.tree_util.tree_map_with_path(
        lambda path, leaf: jax.device_put(leaf, NamedSharding(mesh, specs[path[-1].key])), HOST
    )


class Layout(NamedTuple):
    """A mesh, whether its axes are explicit, whether it is set, and how kernels and biases lie on it."""

    sizes: dict[str, int]
    kernel: P
    bias: P
    kind: AxisType = AxisType.Auto
    mesh_set: bool = True

    @property
    def mesh(self) -> jax.sharding.Mesh:
        return jax.make_mesh(tuple(self.sizes.values()), tuple(self.sizes), axis_types=(self.kind,) * len(self.sizes))


_LINE, _SQUARE = {"model": 8}, {"data": 2, "model": 4}
_BOTH = P("data", "model"), P("model")
LAYOUTS = {
    "columns": Layout(_LINE, P(None, "model"), P("model")),
    "rows": Layout(_LINE, P("model", None), P()),
    "both": Layout(_SQUARE, *_BOTH),
    "explicit": Layout(_SQUARE, *_BOTH, AxisType.Explicit, mesh_set=False),
    "explicit, mesh set": Layout(_SQUARE, *_BOTH, AxisType.Explicit),
    "mesh not set": Layout(_SQUARE, *_BOTH, mesh_set=False),
}


def collectives(compiled: str) -> list[tuple[str, int]]:
    """Every collective of a program with the number of elements of its largest result."""
    found = []
    for line in compiled.splitlines():
        match = re.search(r" (all-gather|all-to-all|collective-permute|all-reduce|reduce-scatter)(-start)?\(", line)
        if match and "=" in line:
            shapes = re.findall(r"\w+\[([\d,]*)\]", line[: match.start()])
            found.append((match[1], max(int(np.prod([int(n) for n in s.split(",") if n])) for s in shapes)))
    return found


def buffers(compiled: str) -> int:
    """Elements of the largest array in a program."""
    return max(
        int(np.prod([int(n) for n in shape.split(",") if n])) for shape in re.findall(r"\w+\[([\d,]*)\]", compiled)
    )


def distance(one: Any, other: Any) -> float:
    """The largest difference, as a share of the largest entry of the leaf."""
    pairs = zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True)
    return max(
        float(np.max(np.abs(np.asarray(a) - np.asarray(b)) / (np.max(np.abs(np.asarray(b))) + 1e-30))) for a, b in pairs
    )


def same_sharding(one: Any, other: Any) -> bool:
    pairs = zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True)
    return all(a.sharding.is_equivalent_to(b.sharding, a.ndim) for a, b in pairs)


def solved(params: Any, normalized: bool) -> fj.FiedlerPair:
    return fj.fiedler_pair(fj.laplacian(GRAPH, params, normalized=normalized))


def value(params: Any) -> jax.Array:
    return fj.fiedler_value(GRAPH, params)


def trained(tx: optax.GradientTransformationExtraArgs, params: Any) -> tuple[Any, Any, Any, str]:
    """Parameters and state after three steps and two refreshes, the first step's state, and the compiled step."""

    @functools.partial(jax.jit, compiler_options=AS_USERS)
    def step(params, state):
        # A quadratic loss, so that what differs is the penalty.
        updates, state = tx.update(jax.tree.map(lambda w: 0.1 * w, params), state, params)
        return optax.apply_updates(params, updates), state

    state = tx.init(params)
    compiled = step.lower(params, state).compile().as_text() or ""
    params, first = step(params, state)
    last = first
    for _ in range(2):
        params, last = step(params, last)
    return params, first, last, compiled


def pair_found(params: Any, normalized: bool) -> dict[str, Any]:
    solve = jax.jit(solved, static_argnums=1, compiler_options=AS_USERS)
    expected, pair = solve(HOST, normalized), solve(params, normalized)
    sign = np.sign(np.dot(np.asarray(pair.vector), np.asarray(expected.vector)))
    return {
        "value": abs(float(pair.value / expected.value) - 1),
        "vector": distance(sign * np.asarray(pair.vector), expected.vector),
        "converged": bool(pair.converged),
        **program_found(solve.lower(params, normalized).compile().as_text() or ""),
    }


def gradient_found(params: Any) -> dict[str, Any]:
    gradient = jax.jit(jax.grad(value), compiler_options=AS_USERS)
    found = gradient(params)
    return {
        "distance": distance(found, gradient(HOST)),
        # Biases are no edges; where the compiler puts their zeros is its own business.
        "sharding kept": same_sharding(
            *({n: layer["kernel"] for n, layer in tree.items()} for tree in (found, params))
        ),
        **program_found(gradient.lower(params).compile().as_text() or ""),
    }


def training_found(tx: optax.GradientTransformationExtraArgs, params: Any) -> dict[str, Any]:
    alone, _, alone_last, _ = trained(tx, jax.tree.map(jnp.asarray, HOST))
    after, first, last, compiled = trained(tx, params)
    return {
        "distance": distance(after, alone),
        "moved": distance(after, params),
        "value": abs(float(fj.fiedler_metrics(last).value / fj.fiedler_metrics(alone_last).value) - 1),
        "refreshes": int(fj.fiedler_metrics(last).refreshes),
        "sharding kept": same_sharding(after, params),
        "state kept": same_sharding(last, first),
        **program_found(compiled),
    }


def program_found(compiled: str) -> dict[str, Any]:
    return {"collectives": collectives(compiled), "largest": buffers(compiled)}


def found_of(program: str, params: Any) -> dict[str, Any]:
    if program in TRANSFORMATIONS:
        return training_found(TRANSFORMATIONS[program], params)
    return gradient_found(params) if program == "gradient" else pair_found(params, program == "pair normalized")


def main(which: str, programs: str) -> None:
    results = {}
    for name in which.split(";"):
        layout = LAYOUTS[name]
        with jax.set_mesh(layout.mesh) if layout.mesh_set else contextlib.nullcontext():
            params = placed(layout.mesh, layout.kernel, layout.bias)
            results[name] = {program: found_of(program, params) for program in programs.split(";")}
    print(json.dumps({"devices": jax.device_count(), **results}))


if __name__ == "__main__":
    main(*sys.argv[1:])
