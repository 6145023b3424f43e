"""Two processes on one machine, four devices each, train to the numbers of one device; any two lower one program."""

import itertools
import socket
from typing import Any

import jax
import jax.numpy as jnp
import launching
import numpy as np
import processes
import pytest


@pytest.fixture(scope="module")
def found() -> list[dict[str, Any]]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    return launching.run_together(4, [("tests/processes.py", str(port), str(number)) for number in range(2)])


def test_each_process_holds_its_part(found: list[dict[str, Any]]) -> None:
    for one in found:
        assert one["processes"] == 2
        assert one["devices"] == [4, 8]
        assert one["own part"] == [[m, n // 8] for m, n in itertools.pairwise(processes.SIZES)]


def test_both_say_the_same(found: list[dict[str, Any]]) -> None:
    first, second = found
    assert first == second


def test_the_numbers_are_those_of_one_device(found: list[dict[str, Any]]) -> None:
    host = jax.tree.map(jnp.asarray, processes.host_params())
    params, metrics = processes.ended_with(host)
    assert found[0]["refreshes"] == int(metrics.refreshes) == 3
    assert found[0]["value"] == pytest.approx(float(metrics.value), rel=1e-5)
    for kernel, alone, start in zip(
        found[0]["kernels"], jax.tree.leaves(params), jax.tree.leaves(processes.host_params()), strict=True
    ):
        scale = np.max(np.abs(np.asarray(alone)))
        assert np.max(np.abs(np.array(kernel) - np.asarray(alone))) < 1e-5 * scale
        assert np.max(np.abs(start - np.asarray(alone))) > 1e-2 * scale


def test_another_process_lowers_the_same_programs() -> None:
    # So it finds them in JAX's persistent cache. Strings have other hashes there, and a set of them another order.
    first, second = launching.run_together(1, [("tests/lowering.py",)] * 2)
    assert first == second
    assert len(set(first.values())) == 4
