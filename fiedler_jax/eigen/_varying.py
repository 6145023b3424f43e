"""What loops carry where types say over which axes of a mesh arrays vary: under `jax.shard_map`."""

from typing import Any

import jax
from jax.sharding import AxisType

from fiedler_jax.errors import ShardingError


def varying_alike(tree: Any, *others: Any) -> Any:
    """The same arrays, typed to vary over each manual axis over which one of them, or of the others, does.

    Loops and branches ask for equal types, but zeros vary over nothing, and what takes their place as the operator
    does. Outside `jax.shard_map` nothing is added to a program.

    Raises:
        ShardingError: arrays vary over a manual axis, and another axis is not manual.
    """
    mesh = jax.sharding.get_abstract_mesh()
    if AxisType.Manual not in mesh.axis_types:
        return tree
    axes = frozenset[str]().union(*map(_varying_over, jax.tree.leaves((tree, others))))
    beside = [name for name, size in mesh.shape.items() if name not in mesh.manual_axes and size > 1]
    # Solves take as many steps as each needs, but what the compiler exchanges in a step is awaited by all devices.
    if axes and beside:
        raise ShardingError(
            f"Under jax.shard_map the networks vary over {_listed(axes)}, but {_listed(beside)} of the mesh is not "
            "manual: devices that have done with their network would leave others waiting. Make all axes manual (leave "
            "axis_names out), so that each network is whole on its devices, or use jax.vmap instead."
        )
    return jax.tree.map(lambda x: jax.lax.pcast(x, tuple(sorted(axes - _varying_over(x))), to="varying"), tree)


def _varying_over(x: jax.Array) -> frozenset[str]:
    return jax.typeof(x).manual_axis_type.varying


def _listed(names: Any) -> str:
    return ", ".join(map(repr, sorted(names)))
