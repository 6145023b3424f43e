"""What all tests share: how they compile, and double precision where a test asks for it."""

import os
from collections.abc import Iterator

import compiling
import jax
import pytest


def pytest_configure(config: pytest.Config) -> None:
    """Compile fast by default, and equal computations once for all tests and workers."""
    if config.option.markexpr == "not slow":
        # Workers and other processes that tests start inherit it.
        fast = compiling.fast_environment()
        os.environ |= fast
        if fast:
            jax.config.update("jax_disable_most_optimizations", True)
    cache = getattr(config, "cache", None)
    if cache:
        jax.config.update("jax_compilation_cache_dir", str(cache.mkdir("jax")))
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Of two precisions times two Laplacians, tests marked `crossed` take one diagonal by default, all if slow."""
    for item in items:
        params = item.callspec.params if isinstance(item, pytest.Function) and hasattr(item, "callspec") else {}
        if not item.get_closest_marker("crossed") or not {"dtype", "normalized"} <= set(params):
            continue
        if (params["dtype"] == "float64") == params["normalized"]:
            item.add_marker(pytest.mark.slow)


@pytest.fixture
def x64() -> Iterator[None]:
    """Run the test with 64-bit types enabled."""
    with jax.enable_x64(True):
        yield


@pytest.fixture(params=["float32", "float64"])
def dtype(request: pytest.FixtureRequest) -> Iterator[str]:
    """Run the test in both precisions, 64-bit types enabled for the wider."""
    with jax.enable_x64(request.param == "float64"):
        yield request.param
