"""Compile times are those of a first time: nothing traced, compiled or kept in a file before shortens them."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.experimental.compilation_cache import compilation_cache

from benchmarks._compiling import compiled_anew


@pytest.mark.parametrize("times", [1, 3])
def test_each_time_is_a_first_time(times: int) -> None:
    traced = []

    @jax.jit
    def never_compiled_elsewhere(x: Any) -> Any:
        traced.append(x)
        return jnp.sin(x) + 3

    never_compiled_elsewhere(jnp.ones(3))
    traced.clear()
    compiled, seconds = compiled_anew(never_compiled_elsewhere, jnp.ones(3), times=times)
    assert len(traced) == times
    assert 0 < seconds < 60
    np.testing.assert_allclose(compiled(jnp.ones(3)), np.sin(1) + 3, rtol=1e-6)


@pytest.fixture
def cache_folder(tmp_path: Path) -> Iterator[Path]:
    """An empty persistent cache, in use."""
    before = jax.config.jax_compilation_cache_dir  # pyright: ignore[reportAttributeAccessIssue]
    jax.config.update("jax_compilation_cache_dir", str(tmp_path))
    compilation_cache.reset_cache()
    yield tmp_path
    jax.config.update("jax_compilation_cache_dir", before)
    compilation_cache.reset_cache()


def test_the_persistent_cache_gives_and_takes_nothing_and_stays_on(cache_folder: Path) -> None:
    jax.jit(lambda x: jnp.cos(x) + 5)(jnp.ones(3))
    before = set(cache_folder.iterdir())
    assert before
    compiled_anew(jax.jit(lambda x: jnp.cos(x) + 6), jnp.ones(3))
    assert set(cache_folder.iterdir()) == before
    jax.jit(lambda x: jnp.cos(x) + 7)(jnp.ones(3))
    assert set(cache_folder.iterdir()) > before
