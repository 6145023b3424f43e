"""From a model of any architecture to its graph: the model is traced and interpreted on the identities of its units."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from fiedler_jax._effective import Effective
from fiedler_jax._paths import Path, canonical_path, display, leaf_shape, natural_key, two_of_one_path
from fiedler_jax.errors import AmbiguousLeafError, NoKernelsError, NotUnderstoodError
from fiedler_jax.graph import LeftOut, NetworkGraph, reason_by_name
from fiedler_jax.tracing._assembly import assembled
from fiedler_jax.tracing._identities import no_units
from fiedler_jax.tracing._interpreter import run
from fiedler_jax.tracing._jaxpr import Program, program_of
from fiedler_jax.tracing._models import abstract, as_model, is_array
from fiedler_jax.tracing._trace import Trace, Value, identities
from fiedler_jax.tracing._units import Units

__all__ = ["graph_from_model"]

# Each unites more than the one before; most models need one.
_MOST_INTERPRETATIONS = 4


def graph_from_model(model: Any, params: Any, *inputs: Any, strict: bool = False, **kwargs: Any) -> NetworkGraph:
    """The graph of any model, traced from the model itself; nothing is computed.

    Units are followed through the model. A product or a convolution with a parameter is a block of edges between the
    units it reads and new ones; a weight shared over positions (batch, space, time) makes the positions of a channel
    one unit; what is added or multiplied element by element, stacked and then summed, or carried from step to step by a
    recurrent cell, is one unit; the weight between two units is the sum of ``|W|`` over all that joins them, such as
    the taps of a convolution.

    Args:
        model: a linen module, an `nnx.Module`, or any function ``model(params, *inputs, **kwargs)``.
        params: its parameters, of arrays or `jax.ShapeDtypeStruct`s; for linen also the whole variables; for nnx also
            None, for its own `nnx.Param`s. What is not a floating array is held as it is, and so are collections
            other than ``params``.
        *inputs: arrays or `jax.ShapeDtypeStruct`s; other leaves are passed on as they are.
        strict: raise on anything that was not understood, instead of naming it in the graph's report.
        **kwargs: as inputs; for linen also ``method``, ``rngs`` and ``mutable``.

    Returns:
        The graph; `print` it to see what was understood. Each parameter leaf is the source of edges or listed in
        `left_out` with the reason.

    Raises:
        ArgumentTypeError: the model is none.
        NoKernelsError: no parameter is multiplied with an activation.
        NotUnderstoodError: with `strict`, something was not understood.

    Example:
        >>> import jax, jax.numpy as jnp, flax.linen as nn, fiedler_jax as fj
        >>> model = nn.Sequential([nn.Conv(4, (3, 3)), nn.relu, lambda x: x.reshape(len(x), -1), nn.Dense(2)])
        >>> image = jax.ShapeDtypeStruct((1, 8, 8, 3), jnp.float32)
        >>> params = jax.eval_shape(model.init, jax.random.key(0), image)
        >>> print(fj.graph_from_model(model, params, image))
        NetworkGraph: 9 vertices, 20 edges
        groups
          input     3  -> layers_0
          layers_0  4  of layers_0/kernel
          layers_3  2  of layers_3/kernel
        edge blocks
          layers_0/kernel  (3, 4)  input -> layers_0     (3, 3, 3, 4), sums of 9
          layers_3/kernel  (4, 2)  layers_0 -> layers_3  (256, 2), sums of 64
        left out
          layers_0/bias  (4,)  bias: joins no two units
          layers_3/bias  (2,)  bias: joins no two units
    """
    adapted = as_model(model, params)
    variables, variable_tree = jax.tree_util.tree_flatten_with_path(adapted.variables)
    given, given_tree = jax.tree_util.tree_flatten_with_path((inputs, kwargs))
    leaves = [leaf for _, leaf in (*variables, *given)]
    arrays = [i for i, leaf in enumerate(leaves) if is_array(leaf)]

    def apply(traced: list[Any]) -> Any:
        filled = list(leaves)
        for i, value in zip(arrays, traced, strict=True):
            filled[i] = value
        args, named = given_tree.unflatten(filled[len(variables) :])
        return adapted.apply(variable_tree.unflatten(filled[: len(variables)]), *args, **named)

    program = program_of(apply, [abstract(leaves[i]) for i in arrays])
    parameters: dict[Path, Any] = {}
    values: list[Effective | None] = []
    for i in arrays:
        if i >= len(variables):
            values.append(None)
            continue
        key_path, leaf = variables[i]
        trained = adapted.is_parameter(key_path) and jnp.issubdtype(leaf.dtype, jnp.inexact)
        path = canonical_path(key_path[adapted.above :])
        if trained and path in parameters:
            raise AmbiguousLeafError(two_of_one_path([key_path for key_path, _ in variables]))
        if trained:
            parameters[path] = leaf
        if trained and jnp.issubdtype(leaf.dtype, jnp.floating):
            values.append(Effective(leaf_shape(leaf), leaf.dtype, leaf=path))
        else:
            value = None if isinstance(leaf, jax.ShapeDtypeStruct) else leaf
            values.append(Effective(leaf_shape(leaf), leaf.dtype, value=value))
    given_arrays = [given[i - len(variables)] for i in arrays if i >= len(variables)]
    trace, outputs = _interpreted(program, values, given_arrays)
    given_out = np.concatenate([no_units(1), *(identities(value).ravel() for value in outputs)])
    read = [product.source.ravel() for product in trace.products]
    used = np.concatenate([given_out, *read])
    trace.units.settle(used, np.unique(given_out))
    trace.without_summed(used)
    return _graph(trace, parameters, strict)


def _interpreted(
    program: Program, variables: Sequence[Effective | None], inputs: Sequence[tuple[tuple[Any, ...], Any]]
) -> tuple[Trace, list[Value]]:
    """The notes of an interpretation, and the outputs: of another one, where units were united too late to be seen.

    If that one goes another way, which units there are those here cannot be told, and the first counts.
    """
    found: tuple[Trace, list[Value]] | None = None
    for _ in range(_MOST_INTERPRETATIONS):
        trace = Trace(run, Units(found[0].units if found else None))
        ids = iter([_input(trace, *given) for given in inputs])
        trace.units.mark_inputs()
        outputs = run(trace, program, [next(ids) if value is None else value for value in variables])
        if found and not trace.units.made_as_before():
            break
        found = trace, outputs
        if trace.saw_all():
            break
    assert found is not None
    return found


def _input(trace: Trace, key_path: tuple[Any, ...], leaf: Any) -> Value:
    rank = len(leaf.shape)
    if not (jnp.issubdtype(leaf.dtype, jnp.number)):
        return no_units(rank)
    # The path begins with whether it is positional, then its position or name.
    _, first, *rest = canonical_path(key_path)
    name = "input" if first == "0" else f"input_{first}"
    return trace.units.fresh(leaf.shape, "/".join([name, *rest]))


def _graph(trace: Trace, parameters: dict[Path, Any], strict: bool) -> NetworkGraph:
    for product in trace.products:
        if not product.kernel.known:
            trace.not_understood(
                "a kernel made with an input, noise, a step of a loop, or state that was given without values",
                [product.kernel],
            )
    trace.products = [product for product in trace.products if product.kernel.known and 0 not in product.kernel.shape]
    if strict and trace.unknown:
        raise NotUnderstoodError(
            "The model does what is not understood: " + "; ".join(trace.unknown) + ". Without strict=True the graph "
            "names this in its report and leaves those edges out; fj.graph_from_edges states edges by hand."
        )
    if not trace.products:
        unknown = f" Not understood: {'; '.join(trace.unknown)}." if trace.unknown else ""
        raise NoKernelsError(
            f"None of the {len(parameters)} parameters has entries and is multiplied with an activation, so no units "
            f"are joined.{unknown} Pass a model that computes its outputs from its inputs, or state the edges by hand "
            "with fj.graph_from_edges."
        )
    groups, blocks = assembled(trace)
    used = {path for block in blocks for path in block.leaves}
    left_out = tuple(
        LeftOut(display(path), leaf_shape(leaf := parameters[path]), _reason(path, leaf, trace.uses.get(path, [])))
        for path in sorted(parameters, key=natural_key)
        if path not in used
    )
    return NetworkGraph(groups, blocks, left_out, tuple(trace.unknown))


def _reason(path: Path, leaf: Any, uses: list[str]) -> str:
    if jnp.issubdtype(leaf.dtype, jnp.complexfloating):
        return "complex, and edge weights are real: give its parts as two leaves"
    if 0 in leaf_shape(leaf):
        return "has no entries"
    if not uses:
        return "not used by the model"
    for use in uses:
        if use.startswith(("not understood", "mixes positions")):
            return use
    usual = {"added to units": "bias", "scales units": "scale"}.get(uses[0])
    return (usual in path[-1:] and reason_by_name(path)) or f"{uses[0]}: joins no two units"
