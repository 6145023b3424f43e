"""What all tests share: double precision where a test asks for it."""

from collections.abc import Iterator

import jax
import pytest


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
