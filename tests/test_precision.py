"""Products are made in full precision, also where a device's default would round what they multiply."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import pytest
import reference

import fiedler_jax as fj
from fiedler_jax import eigen

PARAMS = jax.tree.map(jnp.asarray, reference.chain_params(reference.random_kernels((40, 30, 20, 30))))
GRAPH = fj.graph_from_params(PARAMS)


def update(tx: Any) -> Callable[[Any], Any]:
    return lambda params: tx.update(params, tx.init(params), params)


def pair(solver: eigen.Solver, normalized: bool) -> Callable[[Any], Any]:
    return lambda params: fj.fiedler_pair(fj.laplacian(GRAPH, params, normalized=normalized), solver=solver)


SOLVERS = [eigen.Davidson(), eigen.Lanczos(), eigen.PowerIteration(), eigen.Dense()]
PROGRAMS: dict[str, Callable[[Any], Any]] = {
    "penalty": update(fj.add_fiedler_penalty(0.1)),
    "combinatorial penalty": update(fj.add_fiedler_penalty(0.1, normalized=False, num_eigenvalues=2)),
    "auto": update(fj.add_fiedler_penalty(0.1, refresh_every="auto")),
    "shrinkage": update(fj.fiedler_shrinkage(0.1, 0.1)),
    "value": jax.grad(lambda params: fj.fiedler_value(GRAPH, params)),
    "product": lambda params: fj.laplacian(GRAPH, params).matvec(jnp.ones((2, GRAPH.num_vertices))),
    "its gradient": jax.grad(lambda params: jnp.sum(fj.laplacian(GRAPH, params).matvec(jnp.eye(120)[:3]) ** 2)),
    "operator": lambda _: eigen.Davidson().solve(eigen.operator_from_matrix(jnp.eye(30)), init=jnp.ones((1, 30))),
} | {
    f"{type(solver).__name__}, {'normalized' if normalized else 'combinatorial'}": pair(solver, normalized)
    for solver in SOLVERS
    for normalized in (True, False)
}


@pytest.mark.parametrize("name", PROGRAMS)
def test_no_product_is_left_to_the_default(name: str) -> None:
    lines = jax.jit(PROGRAMS[name]).lower(PARAMS).as_text().splitlines()
    products = [line for line in lines if "dot_general" in line]
    assert products
    assert not [line for line in products if "HIGHEST, HIGHEST" not in line]


def test_a_graph_without_two_colours() -> None:
    params = {name: {"kernel": jnp.ones((20, 20))} for name in "abc"}
    graph = fj.graph_from_edges(params, [("a/kernel", "x", "y"), ("b/kernel", "y", "z"), ("c/kernel", "z", "x")])
    program = jax.jit(lambda params: fj.fiedler_pair(fj.laplacian(graph, params))).lower(params).as_text()
    assert program.count("dot_general") == program.count("precision = [HIGHEST, HIGHEST]") > 0


# A solver that is given an operator computes under whatever rules hold.
STRICT = [name for name in PROGRAMS if name != "operator"]


@pytest.mark.parametrize("name", STRICT)
def test_nothing_leans_on_lenient_rules_of_promotion(name: str) -> None:
    def program(params: Any) -> Any:
        return PROGRAMS[name](params)

    usual = jax.jit(program).lower(PARAMS).as_text()
    with jax.numpy_rank_promotion("raise"), jax.numpy_dtype_promotion("strict"):
        strict = jax.jit(program).lower(PARAMS).as_text()
    assert strict.count("dot_general") == usual.count("dot_general") > 0
