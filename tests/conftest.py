"""What all tests share: double precision where a test asks for it."""

from collections.abc import Iterator

import jax
import pytest


def pytest_configure(config: pytest.Config) -> None:
    """Compile equal computations once for all tests and workers: compilation is most of what the suite does."""
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
