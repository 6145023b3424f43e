"""What a compiled step with the penalty holds, against one with weight decay: read off the program, not timed."""

import functools
import itertools
import re
from typing import Any

import compiling
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


def kernel_sized(program: str) -> list[str]:
    """The operations of the step itself, outside of the refresh, whose result has a kernel's shape."""
    entry = re.search(r"^ENTRY.*?^\}", program, re.MULTILINE | re.DOTALL)
    assert entry
    shapes = {f"[{m},{n}]" for m, n in itertools.pairwise(SIZES)}
    free = ("parameter", "tuple", "get-tuple-element", "bitcast")
    found = re.findall(r"^\s+(?:ROOT )?\S+ = (\(.*?\)|\S+) ([a-z-]+)\(", entry[0], re.MULTILINE)
    return sorted(op for result, op in found if op not in free and any(shape in result for shape in shapes))


@pytest.mark.parametrize("kind", KINDS)
def test_between_refreshes_no_pass_over_a_kernel_is_added(kind: str) -> None:
    decay = kernel_sized(compiled("weight decay")[0].as_text())
    assert "fusion" in decay
    assert kernel_sized(compiled(kind)[0].as_text()) == decay


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
