"""Vectors whole on every device and edges where the kernels are, when the kernels are spread over many devices."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P


def on_automatic_axes(compute: Callable[..., Any], *args: Any, placed_like: Any = None) -> Any:
    """``compute(*args)``, also where types name shardings (explicit mode), which then holds around the call only.

    So do stricter rules of promotion than JAX's default, under which whoever debugs a model may run it.

    Results are whole on every device; with `placed_like`, a tree of arrays, there are two, of which the first has that
    structure and lies as it does.
    """
    compute = jax.numpy_rank_promotion("allow")(jax.numpy_dtype_promotion("standard")(compute))
    meshes = [jax.typeof(leaf).sharding.mesh for leaf in jax.tree.leaves(args)]
    mesh = next((mesh for mesh in meshes if AxisType.Explicit in mesh.axis_types), None)
    if mesh is None:
        return compute(*args)
    whole = NamedSharding(mesh, P())
    out: Any = whole
    if placed_like is not None:
        out = jax.tree.map(lambda leaf: jax.typeof(leaf).sharding, placed_like), whole
    # Axes that `jax.shard_map` has made manual stay so.
    return jax.sharding.auto_axes(compute, axes=mesh.explicit_axes, out_sharding=out)(*args)


def replicated(x: jax.Array) -> jax.Array:
    """The same array, whole on every device of the mesh in use (`jax.set_mesh`), if any.

    Vectors of all vertices are small next to the kernels. Left to itself the compiler gives each device a part of them,
    which the ends of the groups cut anew: an exchange at every slice, some two hundred in a solve.
    """
    return jax.lax.with_sharding_constraint(x, P()) if _has_mesh() else x


def placed_like(x: jax.Array, edges: jax.Array) -> jax.Array:
    """The same array, spread over the devices of the mesh in use as `edges` of its shape is; zero where they are NaN.

    Made of vectors that are whole on every device, it would else be made whole there too. What it has to do with the
    edges, element by element, is what makes the compiler place it with them.
    """
    return jnp.where(jnp.isnan(edges), 0, x) if _has_mesh() else x


def _has_mesh() -> bool:
    kinds = jax.sharding.get_abstract_mesh().axis_types
    return AxisType.Auto in kinds and AxisType.Explicit not in kinds
