"""One of two processes that train the same model on eight devices, four each; prints what it ended with as JSON.

Arguments: the coordinator's port, and the number of this process.
"""

import itertools
import json
import sys

import jax
import numpy as np
import optax
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

import fiedler_jax as fj

SIZES = (64, 32, 8)
STEPS = 5
TX = optax.chain(fj.add_fiedler_penalty(0.01, refresh_every=2), optax.sgd(0.1, momentum=0.9))


def host_params() -> dict[str, dict[str, np.ndarray]]:
    rng = np.random.default_rng(0)
    return {
        f"Dense_{i}": {"kernel": rng.standard_normal((m, n)).astype(np.float32)}
        for i, (m, n) in enumerate(itertools.pairwise(SIZES))
    }


@jax.jit
def step(params, state):
    updates, state = TX.update(jax.tree.map(lambda w: 0.1 * w, params), state, params)
    return optax.apply_updates(params, updates), state


def ended_with(params):
    state = TX.init(params)
    for _ in range(STEPS):
        params, state = step(params, state)
    return params, fj.fiedler_metrics(state)


def main(port: str, number: str) -> None:
    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    jax.distributed.initialize(f"127.0.0.1:{port}", num_processes=2, process_id=int(number))
    mesh = jax.make_mesh((8,), ("model",), axis_types=(AxisType.Auto,))
    sharding = NamedSharding(mesh, P(None, "model"))
    with jax.set_mesh(mesh):
        params = jax.tree.map(
            lambda leaf: jax.make_array_from_callback(leaf.shape, sharding, lambda index: leaf[index]), host_params()
        )
        params, metrics = ended_with(params)
        whole = jax.jit(lambda tree: tree, out_shardings=NamedSharding(mesh, P()))(params)
        found = {
            "processes": jax.process_count(),
            "devices": [jax.local_device_count(), jax.device_count()],
            "refreshes": int(metrics.refreshes),
            "value": float(metrics.value),
            "kernels": [np.asarray(leaf).tolist() for leaf in jax.tree.leaves(whole)],
            "own part": [leaf.addressable_shards[0].data.shape for leaf in jax.tree.leaves(params)],
        }
    print(json.dumps(found))
    jax.distributed.shutdown()


if __name__ == "__main__":
    main(*sys.argv[1:])
