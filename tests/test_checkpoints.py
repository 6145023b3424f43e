"""An optimizer state goes through a checkpoint and training goes on as if nothing had happened."""

import functools
import tempfile
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import launching
import numpy as np
import optax
import orbax.checkpoint as ocp
import pytest
import stepping

import fiedler_jax as fj


def test_a_restored_state_is_the_same_bit_by_bit_and_nothing_is_traced_anew(tmp_path: Path) -> None:
    tx = optax.chain(fj.add_fiedler_penalty(0.01, refresh_every=2, solver=stepping.DENSE), optax.adam(0.01))
    params = stepping.network()
    traced = []

    @jax.jit
    def step(params: Any, state: Any) -> Any:
        traced.append(None)
        return tx.update(params, state, params)

    state = tx.init(params)
    for _ in range(3):
        _, state = step(params, state)
    with ocp.StandardCheckpointer() as checkpointer:
        checkpointer.save(tmp_path / "state", state)
        checkpointer.wait_until_finished()
        restored = checkpointer.restore(tmp_path / "state", tx.init(params))
    assert isinstance(restored[0], fj.FiedlerPenaltyState)
    assert int(restored[0].count) == 3
    ways = [step(params, one) for one in (state, restored)]
    assert len(traced) == 1
    for one, other in zip(*map(jax.tree.leaves, ways), strict=True):
        assert one.dtype == other.dtype
        np.testing.assert_array_equal(one, other)
    assert bool(jnp.any(ways[0][1][0].vectors != 0))


@functools.cache
def measured() -> dict[str, Any]:
    """What `checkpoints.py` finds, in a process with eight devices."""
    with tempfile.TemporaryDirectory() as folder:
        return launching.run_with_devices(8, "tests/checkpoints.py", folder)


@pytest.mark.slow
@pytest.mark.parametrize("layout", ["rows", "columns", "both", "one device"])
def test_a_state_saved_on_one_mesh_goes_on_on_another(layout: str) -> None:
    found = measured()[layout]
    assert found["restored"] == 0
    assert found["placed"]
    assert found["went on"] < 1e-5 < found["moved"]
