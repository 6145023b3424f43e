"""Training goes on from a checkpoint on other devices: run by the tests in a process with eight of them; prints JSON.

Argument: an empty folder.
"""

import json
import sys
from pathlib import Path
from typing import Any

import jax
import optax
import orbax.checkpoint as ocp
import sharded
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

TX = sharded.TRANSFORMATIONS["penalty"]
STEPS = 3


@jax.jit
def step(params, state):
    updates, state = TX.update(jax.tree.map(lambda w: 0.1 * w, params), state, params)
    return optax.apply_updates(params, updates), state


def trained(carry: Any, steps: int = STEPS) -> Any:
    for _ in range(steps):
        carry = step(*carry)
    return carry


def on(layout: sharded.Layout) -> Any:
    """Parameters and a new state on a mesh, the state's arrays whole on every device but for the momentum."""
    params = sharded.placed(layout.mesh, layout.kernel, layout.bias)
    by_shape = {leaf.shape: leaf.sharding for leaf in jax.tree.leaves(params)}
    whole = NamedSharding(layout.mesh, P())
    return params, jax.tree.map(lambda leaf: jax.device_put(leaf, by_shape.get(leaf.shape, whole)), TX.init(params))


def found_for(target: Any, folder: Path, halfway: Any, expected: Any) -> dict[str, Any]:
    with ocp.StandardCheckpointer() as checkpointer:
        restored = checkpointer.restore(folder / "halfway", target)
    return {
        "restored": sharded.distance(restored, halfway),
        "placed": sharded.same_sharding(restored, target),
        # The parameters only: the sign of a Fiedler vector is arbitrary.
        "went on": sharded.distance(trained(restored)[0], expected),
        "moved": sharded.distance(expected, halfway[0]),
    }


def main(folder: str) -> None:
    saved_on = sharded.LAYOUTS["rows"]
    with jax.set_mesh(saved_on.mesh), ocp.StandardCheckpointer() as checkpointer:
        carry = trained(on(saved_on))
        checkpointer.save(Path(folder) / "halfway", carry)
        halfway, expected = jax.device_get(carry), jax.device_get(trained(carry)[0])
    found = {}
    for name in ("rows", "columns", "both"):
        layout = sharded.LAYOUTS[name]
        with jax.set_mesh(layout.mesh):
            found[name] = found_for(on(layout), Path(folder), halfway, expected)
    alone = jax.device_put((sharded.HOST, TX.init(sharded.HOST)), jax.devices()[0])
    print(json.dumps({**found, "one device": found_for(alone, Path(folder), halfway, expected)}))


if __name__ == "__main__":
    main(*sys.argv[1:])
