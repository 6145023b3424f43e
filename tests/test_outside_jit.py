"""Outside jit each function is compiled as one program, and not each of its operations for each shape."""

import re
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import pytest
import reference

import fiedler_jax as fj

# No other test has these sizes, so nothing here was compiled before.
SIZES = {True: (17, 11, 7), False: (19, 13, 5)}

Compiled = Callable[[Callable[[], Any]], tuple[Any, list[str]]]


@pytest.fixture
def compiled(caplog: pytest.LogCaptureFixture) -> Iterator[Compiled]:
    """What a call returns, and the names of the programs compiled for it."""

    def run(call: Callable[[], Any]) -> tuple[Any, list[str]]:
        caplog.clear()
        result = call()
        return result, re.findall(r"Finished XLA compilation of jit\((\w+)\)", caplog.text)

    with jax.log_compiles():
        yield run


@pytest.mark.parametrize("normalized", [True, False])
def test_each_function_is_one_program(normalized: bool, compiled: Compiled) -> None:
    params = reference.chain_params(reference.random_kernels(SIZES[normalized]), "float32")
    graph = fj.graph_from_params(params)
    # The edges, and the degrees.
    lap, programs = compiled(lambda: fj.laplacian(graph, params, normalized=normalized))
    assert len(programs) == 2, programs
    # The solve, the value in the edge form, and what is asked of the vector.
    pair, programs = compiled(lambda: fj.fiedler_pair(lap))
    assert len(programs) == 3, programs
    product, programs = compiled(lambda: lap.matvec(pair.vector))
    assert len(programs) == 1, programs
    assert jnp.linalg.norm(product - pair.value * pair.vector) <= pair.residual + pair.floor
    # And a vector as a row of one.
    _, programs = compiled(lambda: fj.l1_coefficients(graph, params, pair.vector, normalized=normalized))
    assert len(programs) <= 2, programs
    # Nothing is compiled twice.
    assert compiled(lambda: fj.fiedler_pair(fj.laplacian(graph, params, normalized=normalized)))[1] == []


def test_an_adjacency_is_one_program(compiled: Compiled) -> None:
    adjacency = jnp.ones((23, 23)) - jnp.eye(23)
    lap, programs = compiled(lambda: fj.laplacian_from_adjacency(adjacency))
    assert len(programs) == 2, programs
    assert lap.degrees.tolist() == [22] * 23
