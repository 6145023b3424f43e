"""What compiling costs someone who compiles for the first time."""

import contextlib
import statistics
import time
from collections.abc import Iterator
from typing import Any

import jax
from jax.experimental.compilation_cache import compilation_cache


def compiled_anew(function: Any, *args: Any, times: int = 1) -> tuple[Any, float]:
    """A jitted function compiled for arguments, and the median seconds to trace and compile it.

    Each time without what was traced and compiled before in this process, or is kept in the persistent cache.
    """
    compiled, seconds = None, []
    with _without_persistent_cache():
        for _ in range(times):
            jax.clear_caches()
            start = time.perf_counter()
            compiled = function.lower(*args).compile()
            seconds.append(time.perf_counter() - start)
    return compiled, statistics.median(seconds)


@contextlib.contextmanager
def _without_persistent_cache() -> Iterator[None]:
    enabled = jax.config.jax_enable_compilation_cache  # pyright: ignore[reportAttributeAccessIssue]
    # JAX looks at the setting once and keeps to it until it is told to look again.
    jax.config.update("jax_enable_compilation_cache", False)
    compilation_cache.reset_cache()
    try:
        yield
    finally:
        jax.config.update("jax_enable_compilation_cache", enabled)
        compilation_cache.reset_cache()
