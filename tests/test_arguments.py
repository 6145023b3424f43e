"""What callers get wrong, and what they are told."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import fiedler_jax as fj
from fiedler_jax import eigen, errors

PATH = np.eye(6, k=1) + np.eye(6, k=-1)
PARAMS = {"Dense_0": {"kernel": jnp.array([[1.0, -2.0], [0.5, 1.0]])}}
GRAPH = fj.graph_from_params(PARAMS)


def path(**settings: Any) -> fj.Laplacian:
    return fj.laplacian_from_adjacency(PATH, **settings)


VECTOR = np.ones(GRAPH.num_vertices)
WITH_A_FLAG: list[Callable[[Any], Any]] = [
    lambda flag: fj.laplacian(GRAPH, PARAMS, normalized=flag),
    lambda flag: path(normalized=flag),
    lambda flag: fj.fiedler_value(GRAPH, PARAMS, normalized=flag),
    lambda flag: fj.variational_penalty(GRAPH, PARAMS, jnp.asarray(VECTOR), normalized=flag),
    lambda flag: fj.l1_coefficients(GRAPH, PARAMS, jnp.asarray(VECTOR), normalized=flag),
    lambda flag: fj.add_fiedler_penalty(0.1, normalized=flag),
    lambda flag: fj.fiedler_shrinkage(0.1, 0.1, ignore_isolated=flag),
    lambda flag: fj.fiedler_pair(path(), ignore_isolated=flag),
    lambda flag: fj.laplacian_eigenpairs(path(), 2, ignore_isolated=flag),
    lambda flag: fj.certify(path(), 1.0, ignore_isolated=flag),
    lambda flag: fj.bounds(path(), fj.fiedler_pair(path()), ignore_isolated=flag),
]


@pytest.mark.parametrize("call", WITH_A_FLAG)
def test_a_flag_is_true_or_false(call: Callable[[Any], Any]) -> None:
    for wrong in ("no", None, 1, jnp.ones(2, bool), np.ones(())):
        with pytest.raises(errors.HyperparameterError, match=r"(normalized|ignore_isolated) must be True or False"):
            call(wrong)
    for right in (np.bool_(True), jnp.asarray(True), np.asarray(True)):
        call(right)


def test_a_traced_flag_is_named() -> None:
    with pytest.raises(errors.HyperparameterError, match="normalized must be True or False, known before"):
        jax.jit(lambda flag: path(normalized=flag).degrees)(True)


# On some platforms a long double is a double.
WIDER = pytest.mark.skipif(np.finfo(np.longdouble).bits == 64, reason="no precision that JAX does not have")
NO_VECTORS: list[Any] = [
    (1j * np.ones(6), "real, not complex"),
    (["a"] * 6, "an array of numbers"),
    pytest.param(np.ones(6, np.longdouble), "an array of numbers, not float", marks=WIDER),
    (np.ones(5), "not shape"),
    (np.ones((1, 1, 6)), "not shape"),
    ([[1.0], [1.0, 2.0]], "an array of numbers"),
]


@pytest.mark.parametrize(("wrong", "message"), NO_VECTORS)
def test_what_is_no_vector_over_the_vertices_is_named(wrong: Any, message: str) -> None:
    lap = path()
    for call in (lap.matvec, lap.quadratic_form, lambda rows: fj.fiedler_pair(lap, init=rows)):
        with pytest.raises(errors.VectorError, match=message):
            call(wrong)


def test_a_pair_is_no_vector_and_a_list_is_one() -> None:
    lap = path()
    pair = fj.fiedler_pair(lap)
    with pytest.raises(errors.VectorError, match="Of a FiedlerPair pass the vector"):
        fj.fiedler_pair(lap, init=pair)  # pyright: ignore[reportArgumentType]
    again = fj.fiedler_pair(lap, init=np.asarray(pair.vector).tolist())  # pyright: ignore[reportArgumentType]
    np.testing.assert_allclose(again.value, 2 - 2 * np.cos(np.pi / 6), rtol=1e-5)


NO_ADJACENCIES: list[Any] = [
    pytest.param(PATH.astype(np.longdouble), marks=WIDER),
    [[0.0, 1.0], [1.0]],
    np.ma.masked_array(PATH, PATH > 0),
    np.array([["0", "1"], ["1", "0"]]),
    [[0.0, None], [None, 0.0]],
    np.zeros((2, 2), "datetime64[s]"),
    jax.random.split(jax.random.key(0), (2, 2)),
]


@pytest.mark.parametrize("wrong", NO_ADJACENCIES, ids=["wide", "ragged", "masked", "words", "objects", "dates", "keys"])
def test_what_is_no_matrix_of_numbers_is_no_adjacency(wrong: Any) -> None:
    with pytest.raises(errors.AdjacencyError, match=r"An adjacency (holds|is an array .* of at most 64 bits)"):
        fj.laplacian_from_adjacency(wrong)


@pytest.mark.parametrize("weight", [np.int64(3e9), np.int64(2**32), np.uint64(2**63)])
def test_integers_beyond_32_bits_are_weights_and_do_not_wrap(weight: np.integer) -> None:
    pair = fj.fiedler_pair(fj.laplacian_from_adjacency([[0 * weight, weight], [weight, 0 * weight]]))
    np.testing.assert_allclose(pair.value, 2 * float(weight), rtol=1e-6)


def test_triangles_that_differ_by_rounding_are_averaged(x64: None) -> None:
    rng = np.random.default_rng(0)
    upper = np.triu(rng.uniform(0.5, 1, (20, 20)), 1)
    upper[:10, 10:] = 0
    upper[9, 10] = 1e-6
    adjacency = upper + upper.T * (1 + 1e-6 * rng.uniform(size=(20, 20)))
    mean = (adjacency + adjacency.T) / 2
    for make in (fj.laplacian_from_adjacency, jax.jit(fj.laplacian_from_adjacency)):
        pair = fj.fiedler_pair(make(adjacency))
        assert pair.converged
        expected = np.linalg.eigvalsh(np.diag(mean.sum(axis=1)) - mean)[1]
        np.testing.assert_allclose(pair.value, expected, rtol=1e-8)
    huge = np.array([[0.0, 1.7e308], [1.7e308 * (1 + 1e-9), 0.0]])
    assert np.isfinite(fj.laplacian_from_adjacency(huge).blocks[0]).all()
    slope = jax.jit(jax.grad(lambda a: fj.laplacian_from_adjacency(a).quadratic_form(jnp.arange(20.0))))(adjacency)
    np.testing.assert_array_equal(slope, slope.T)


HOST_ONLY: list[Callable[..., Any]] = [
    lambda lap, pair: fj.certify(lap, pair.value),
    fj.bounds,
]


@pytest.mark.parametrize("call", HOST_ONLY)
def test_proofs_are_for_one_graph_on_the_host(call: Callable[..., Any]) -> None:
    lap = path()
    pair = fj.fiedler_pair(lap)
    with pytest.raises(errors.ArgumentTypeError, match=r"on the host\. Call it outside jit"):
        jax.jit(lambda lap, pair: call(lap, pair) and 0)(lap, pair)
    several = jax.vmap(fj.laplacian_from_adjacency)(PATH[None])
    with pytest.raises(errors.ArgumentTypeError, match="holds several, with degrees of shape"):
        call(several, pair)


def test_a_proof_takes_one_number() -> None:
    lap = path()
    pair = fj.fiedler_pair(lap)
    values: list[Any] = [1, 1.0, np.float32(1), np.ones((), jnp.bfloat16)[()], np.ones(()), jnp.ones(())]
    certificates = [fj.certify(lap, value) for value in values]
    assert {certificate.below_lower for certificate in certificates} == {fj.Count(2, 2)}
    assert {type(certificate.value) for certificate in certificates} == {float}
    for wrong in (pair, None, "1", 1j, np.ones(3), np.array("1")):
        with pytest.raises(errors.ArgumentTypeError, match="certify takes one real number"):
            fj.certify(lap, wrong)  # pyright: ignore[reportArgumentType]
    with pytest.raises(errors.ArgumentTypeError, match="integer is larger than all"):
        fj.certify(lap, 10**400)
    for wrong in ("1e-6", None, 1j, np.ones(3)):
        with pytest.raises(errors.HyperparameterError, match="tol is a relative accuracy"):
            fj.certify(lap, 1.0, tol=wrong)  # pyright: ignore[reportArgumentType]
    for wrong in (None, pair.vector, fj.laplacian_eigenpairs(lap, 1)):
        with pytest.raises(errors.ArgumentTypeError, match="bounds takes the FiedlerPair"):
            fj.bounds(lap, wrong)  # pyright: ignore[reportArgumentType]


def test_several_laplacians_are_for_vmap() -> None:
    several = jax.vmap(fj.laplacian_from_adjacency)(np.stack([PATH]))
    for call in (fj.fiedler_pair, lambda lap: lap.matvec(np.ones(6)), lambda lap: lap.quadratic_form(np.ones(6))):
        with pytest.raises(errors.ArgumentTypeError, match=r"belongs under jax\.vmap too"):
            call(several)
        jax.vmap(call)(several)


def test_a_precision_that_is_switched_off_is_named() -> None:
    with jax.enable_x64(True):
        lap = path()
    with pytest.raises(errors.ArgumentTypeError, match="is of float64, which is switched off here"):
        fj.fiedler_pair(lap)
    assert fj.certify(lap, 2 - 2 * np.cos(np.pi / 6)).verdict == fj.Verdict.PROVED


def test_a_pair_of_plain_numbers_or_of_none_yet_prints() -> None:
    pair = fj.fiedler_pair(path())
    assert str(jax.tree.map(lambda leaf: leaf.tolist(), pair)).startswith("Fiedler pair, CONVERGED")
    shapes = jax.eval_shape(fj.fiedler_pair, path())
    assert str(shapes) == repr(shapes)
    with pytest.raises(errors.ArgumentTypeError, match="A status is one of CONVERGED"):
        shapes.raise_if_failed()
    for wrong in (9, None):
        with pytest.raises(errors.ArgumentTypeError, match="A status is one of CONVERGED"):
            eigen.raise_if_failed(wrong)  # pyright: ignore[reportArgumentType]
