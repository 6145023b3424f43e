"""The rows that solves start from, one by one."""

import jax.numpy as jnp
import numpy as np
import pytest
import reference
from spectra import BOTH

import fiedler_jax as fj
from fiedler_jax._folding import fold
from fiedler_jax._starting import half_start_rows, joined, start_rows


def laplacian_of(kernels: reference.Kernels, normalized: bool) -> fj.Laplacian:
    params = reference.chain_params(kernels)
    return fj.laplacian(fj.graph_from_params(params), params, normalized=normalized)


@BOTH
def test_start_rows_point_at_two_vertices_of_least_degree_and_at_all_groups_but_the_last(normalized: bool) -> None:
    kernels = [np.ones((4, 3)), np.ones((3, 5))]
    # The degrees of vertices 2, 11 and 5 are the least, in this order; the first does not count.
    kernels[0][2] = 0.01
    kernels[1][:, 4] = 0.02
    kernels[0][:, 1] = kernels[1][1] = 0.1
    lap = laplacian_of(kernels, normalized)
    rows = np.concatenate(start_rows(lap, jnp.arange(12) != 2, 1))
    expected = np.zeros((4, 12))
    expected[0, 11] = expected[1, 5] = 1
    expected[2, :4] = expected[3, 4:7] = 1
    if normalized:
        expected[2:] *= np.sqrt(reference.chain_adjacency(kernels).sum(axis=0))
    np.testing.assert_allclose(rows, expected, rtol=1e-6)
    # Of one vertex there is but one.
    alone = fj.laplacian_from_adjacency(np.zeros((1, 1)), normalized=normalized)
    assert np.concatenate(start_rows(alone, jnp.ones(1, bool), 1)).shape == (1, 1)


@BOTH
def test_start_rows_point_at_as_many_isolated_vertices_as_values_are_asked_for(normalized: bool) -> None:
    ring = np.roll(np.eye(12), 1, axis=0) + np.roll(np.eye(12), -1, axis=0)
    ring[[2, 5, 8]] = ring[:, [2, 5, 8]] = 0
    lap = fj.laplacian_from_adjacency(ring, normalized=normalized)
    rows = np.concatenate(start_rows(lap, jnp.ones(12, bool), 3))
    np.testing.assert_array_equal(rows, np.arange(12) == np.array([[2], [5], [8]]))


@pytest.mark.parametrize(("layers", "together"), [(8, 1), (9, 2), (17, 3)])
def test_groups_of_deep_networks_are_taken_together(layers: int, together: int) -> None:
    lap = laplacian_of([np.ones((2, 2))] * (layers - 1), False)
    rows = np.concatenate(start_rows(lap, jnp.ones(2 * layers, bool), 1))[2:]
    parts = np.arange(2 * layers) // (2 * together)
    np.testing.assert_array_equal(rows, parts == np.arange(parts[-1])[:, None])


def test_half_of_a_network_starts_from_its_groups_and_isolated_vertices() -> None:
    kernels = [np.full(shape, 0.01) for shape in ((20, 10), (10, 20), (20, 12))]
    kernels[1][3] = kernels[0][:, 3] = 0
    lap = laplacian_of(kernels, True)
    half = fold(lap, 1, ignore_isolated=False)
    assert half is not None
    assert half.halves.kept == ((20, 30), (50, 62))
    degrees = reference.chain_adjacency(kernels).sum(axis=0)[np.r_[20:30, 50:62]]
    # Two more coordinates stand for isolated vertices of the other half.
    own = np.concatenate([np.where(np.arange(22) < 10, np.sqrt(degrees), 0), [0, 0]])
    rows = np.concatenate(half_start_rows(lap, half, 1))
    # The other half has none.
    np.testing.assert_allclose(rows, [own, np.arange(24) == 3], rtol=1e-6)


def test_isolated_vertices_take_turns_where_several_values_are_asked_for() -> None:
    kernels = [np.full(shape, 0.01) for shape in ((80, 40), (40, 80))]
    kernels[0][:, [3, 9]] = kernels[1][[3, 9]] = kernels[0][5] = 0
    half = fold(laplacian_of(kernels, True), 3, ignore_isolated=False)
    assert half is not None
    assert half.halves.kept == ((80, 120),)
    there = np.flatnonzero(half.support & (half.degrees <= 0))
    # Two of its own, and one of those that stand for vertices of the other half.
    assert len(there) == 3
    rows = np.concatenate(half_start_rows(half.lap, half, 3))
    np.testing.assert_array_equal(np.sort(np.argmax(rows, axis=1)), there)
    np.testing.assert_array_equal(rows.sum(axis=1), [1, 1, 1])


def test_start_rows_are_joined_without_what_is_not_finite_or_outside_the_support() -> None:
    rows = [np.array([[1, np.nan, 3, 4]]), np.array([[True] * 4, [False] * 4]), np.array([[np.inf, 2, 3, 4]])]
    found = joined([jnp.asarray(row) for row in rows], jnp.arange(4) < 3, jnp.float32)
    np.testing.assert_array_equal(found, [[1, 0, 3, 0], [1, 1, 1, 0], [0, 0, 0, 0], [0, 2, 3, 0]])
    assert found.dtype == jnp.float32
    assert joined([], jnp.arange(4) < 3, jnp.float32).shape == (0, 4)
