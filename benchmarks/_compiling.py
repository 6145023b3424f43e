"""What compiling costs someone who compiles for the first time, and whoever comes after with a cache on disk."""

import contextlib
import statistics
import tempfile
import time
from collections.abc import Iterator
from typing import Any

import jax
from jax.experimental.compilation_cache import compilation_cache

# What is compiled is compiled so often, as one time may meet a moment at which others use the machine.
COMPILATIONS = 3


def compiled_anew(function: Any, *args: Any, times: int = 1) -> tuple[Any, float]:
    """A jitted function compiled for arguments, and the median seconds to trace and compile it.

    Each time without what was traced and compiled before in this process, or is kept in the persistent cache.
    """
    with persistent_cache(jax_enable_compilation_cache=False):
        runs = [_compiled(function, args) for _ in range(times)]
    return runs[-1][0], statistics.median(seconds for _, seconds in runs)


def compiled_again(function: Any, *args: Any, times: int = 1) -> float:
    """The median seconds to trace a jitted function and to compile it or to fetch what an earlier process compiled.

    With a persistent cache of its own. By JAX's default that keeps nothing that compiles in less than a second.
    """
    with (
        tempfile.TemporaryDirectory() as folder,
        persistent_cache(jax_enable_compilation_cache=True, jax_compilation_cache_dir=folder),
    ):
        runs = [_compiled(function, args) for _ in range(1 + times)]
    return statistics.median(seconds for _, seconds in runs[1:])


def _compiled(function: Any, args: tuple[Any, ...]) -> tuple[Any, float]:
    """A jitted function compiled without what this process has traced and compiled, and the seconds that took."""
    jax.clear_caches()
    start = time.perf_counter()
    compiled = function.lower(*args).compile()
    return compiled, time.perf_counter() - start


@contextlib.contextmanager
def persistent_cache(**settings: Any) -> Iterator[None]:
    """JAX's persistent cache with other settings for a while."""
    before = {name: getattr(jax.config, name) for name in settings}
    try:
        _set_up(settings)
        yield
    finally:
        _set_up(before)


def _set_up(settings: dict[str, Any]) -> None:
    for name, value in settings.items():
        jax.config.update(name, value)
    # JAX looks at the settings once and keeps to them until it is told to look again.
    compilation_cache.reset_cache()
