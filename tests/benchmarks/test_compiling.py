"""Compile times are those of a first time, which nothing before shortens, or of a second one with a cache."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from benchmarks._compiling import compiled_again, compiled_anew, persistent_cache


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
    with persistent_cache(jax_compilation_cache_dir=str(tmp_path), jax_persistent_cache_min_compile_time_secs=0.0):
        yield tmp_path


def test_the_persistent_cache_gives_and_takes_nothing_and_stays_on(cache_folder: Path) -> None:
    jax.jit(lambda x: jnp.cos(x) + 5)(jnp.ones(3))
    before = set(cache_folder.iterdir())
    assert before
    compiled_anew(jax.jit(lambda x: jnp.cos(x) + 6), jnp.ones(3))
    assert set(cache_folder.iterdir()) == before
    jax.jit(lambda x: jnp.cos(x) + 7)(jnp.ones(3))
    assert set(cache_folder.iterdir()) > before


@pytest.mark.parametrize(("least_seconds", "fetched"), [(0.0, 2), (100.0, 0)])
def test_a_second_time_fetches_what_the_first_one_kept(
    cache_folder: Path, least_seconds: float, fetched: int, caplog: pytest.LogCaptureFixture
) -> None:
    jax.config.update("jax_persistent_cache_min_compile_time_secs", least_seconds)
    with jax.log_compiles(True):
        seconds = compiled_again(jax.jit(lambda x: jnp.cos(x) + 8), jnp.ones(3), times=2)
    assert sum("Persistent compilation cache hit" in record.message for record in caplog.records) == fetched
    assert 0 < seconds < 60
    assert not any(cache_folder.iterdir())
    jax.jit(lambda x: jnp.cos(x) + 9).lower(jnp.ones(3)).compile()
    assert any(cache_folder.iterdir()) == (fetched > 0)
