"""What a compiled step with the penalty holds, against one with weight decay: read off the program, not timed."""

import functools
import itertools
import re
from collections.abc import Collection
from typing import Any

import compiling
import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
import pytest
import reference
import sharded

import fiedler_jax as fj

SIZES = (784, 500, 500, 500, 10)
VERTICES = sum(SIZES)
KERNELS = reference.random_kernels(SIZES)
KERNEL_BYTES = sum(4 * kernel.size for kernel in KERNELS)
# Rows of n numbers that a refresh may hold: the basis and its products with some twenty each, and as much again for
# what their restart, the corrections and the start are made of.
ROWS_OF_A_SOLVE = 80
KINDS = ("normalized", "combinatorial")


def loss(params: Any, inputs: jax.Array, labels: jax.Array) -> jax.Array:
    x = inputs
    for layer in params.values():
        x = (x if x is inputs else jax.nn.relu(x)) @ layer["kernel"]
    return jnp.mean(optax.softmax_cross_entropy_with_integer_labels(x, labels))


@functools.cache
def compiled(kind: str) -> tuple[Any, Any]:
    """The compiled step of a training with SGD and momentum, and its state."""
    first = {
        "weight decay": lambda: optax.add_decayed_weights(0.01),
        "normalized": lambda: fj.add_fiedler_penalty(0.01),
        "combinatorial": lambda: fj.add_fiedler_penalty(0.01, normalized=False),
    }[kind]()
    tx = optax.chain(first, optax.sgd(0.1, momentum=0.9))
    params = jax.tree.map(jnp.asarray, reference.chain_params(KERNELS))

    def step(params: Any, state: Any, inputs: jax.Array, labels: jax.Array) -> Any:
        updates, state = tx.update(jax.grad(loss)(params, inputs, labels), state, params)
        return optax.apply_updates(params, updates), state

    state = tx.init(params)
    data = jnp.zeros((100, SIZES[0])), jnp.zeros(100, jnp.int32)
    lowered = jax.jit(step, donate_argnums=(0, 1)).lower(params, state, *data)
    return lowered.compile(compiling.AS_USERS), state


def kernel_sized(program: str, shapes: Collection[tuple[int, ...]]) -> list[str]:
    """The operations of the step itself, outside of the refresh, whose result has a kernel's shape."""
    entry = re.search(r"^ENTRY.*?^\}", program, re.MULTILINE | re.DOTALL)
    assert entry
    named = {f"[{m},{n}]" for m, n in shapes}
    free = ("parameter", "tuple", "get-tuple-element", "bitcast")
    found = re.findall(r"^\s+(?:ROOT )?\S+ = (\(.*?\)|\S+) ([a-z-]+)\(", entry[0], re.MULTILINE)
    return sorted(op for result, op in found if op not in free and any(shape in result for shape in named))


@pytest.mark.parametrize("kind", KINDS)
def test_between_refreshes_no_pass_over_a_kernel_is_added(kind: str) -> None:
    shapes = set(itertools.pairwise(SIZES))
    decay = kernel_sized(compiled("weight decay")[0].as_text(), shapes)
    assert "fusion" in decay
    assert kernel_sized(compiled(kind)[0].as_text(), shapes) == decay


class TiedAttention(nn.Module):
    """A token table that is also the readout, as it stands and the other way round, and a kernel in parts."""

    @nn.compact
    def __call__(self, tokens: jax.Array) -> jax.Array:
        embed = nn.Embed(96, 16)
        x = embed(tokens)
        query, key, value = jnp.split(nn.Dense(48)(x), 3, axis=-1)
        return embed.attend(
            x + nn.dot_product_attention(query[:, :, None], key[:, :, None], value[:, :, None])[:, :, 0]
        )


# The first to compile stands for both by default.
@pytest.mark.parametrize("kind", ["normalized", pytest.param("combinatorial", marks=pytest.mark.slow)])
def test_kernels_used_in_parts_or_twice_are_updated_in_one_pass(kind: str) -> None:
    model, tokens = TiedAttention(), jnp.zeros((2, 5), jnp.int32)
    params = model.init(jax.random.key(0), tokens)["params"]
    graph = fj.graph_from_model(model, params, tokens)
    assert len(graph.blocks) == 4

    def passes(tx: optax.GradientTransformation) -> list[str]:
        def step(params: Any, state: Any) -> Any:
            updates, state = tx.update(jax.tree.map(lambda w: 0.1 * w, params), state, params)
            return optax.apply_updates(params, updates), state

        lowered = jax.jit(step, donate_argnums=(0, 1)).lower(params, tx.init(params))
        kernels = [leaf.shape for leaf in jax.tree.leaves(params) if leaf.ndim == 2]
        return kernel_sized(lowered.compile(compiling.AS_USERS).as_text() or "", kernels)

    ours = fj.add_fiedler_penalty(0.01, graph, normalized=kind == "normalized")
    decay = passes(optax.chain(optax.add_decayed_weights(0.01), optax.sgd(0.1)))
    assert decay == ["fusion", "fusion"]
    assert passes(optax.chain(ours, optax.sgd(0.1))) == decay


@pytest.mark.parametrize("kind", KINDS)
def test_a_refresh_takes_at_most_a_copy_of_the_kernels_and_the_rows_of_a_basis(kind: str) -> None:
    ours, decay = (compiled(one)[0].memory_analysis().temp_size_in_bytes for one in (kind, "weight decay"))
    assert 0 < ours - decay < KERNEL_BYTES + ROWS_OF_A_SOLVE * 4 * VERTICES


@pytest.mark.parametrize("kind", KINDS)
def test_between_refreshes_one_vector_is_kept(kind: str) -> None:
    ours, decay = (sum(leaf.nbytes for leaf in jax.tree.leaves(compiled(one)[1])) for one in (kind, "weight decay"))
    assert 4 * VERTICES <= ours - decay < 4 * VERTICES + 100


@pytest.mark.parametrize("kind", KINDS)
def test_no_array_is_larger_than_a_kernel(kind: str) -> None:
    largest = max(kernel.size for kernel in KERNELS)
    assert largest < VERTICES**2
    assert sharded.buffers(compiled(kind)[0].as_text()) == largest
