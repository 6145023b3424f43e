"""How the tests compile: fast by default, and as users do where the compiled code is what is tested."""

import os
import subprocess
import sys

_FAST_FLAGS = ("--xla_cpu_use_fusion_emitters=false", "--xla_cpu_parallel_codegen_split_count=1")

# For `compiler_options`, whatever the process was told: what XLA does where nobody says anything.
AS_USERS = {
    "xla_backend_optimization_level": 3,
    "xla_llvm_disable_expensive_passes": False,
    "xla_cpu_use_fusion_emitters": True,
}


def _accepted(flags: str) -> bool:
    """Whether this XLA knows the flags: one that it does not know ends the process."""
    tried = [sys.executable, "-c", "import jax; jax.devices('cpu')"]
    return (
        subprocess.run(tried, env=os.environ | {"XLA_FLAGS": flags}, capture_output=True, check=False).returncode == 0
    )


def fast_environment() -> dict[str, str]:
    """Variables that let compilation, most of what the suite does, take a third of the time; the code runs slower.

    Empty where one of them is set already: `JAX_DISABLE_MOST_OPTIMIZATIONS=0` makes the default tests compile as users.
    """
    if {"JAX_DISABLE_MOST_OPTIMIZATIONS", "XLA_FLAGS"} & set(os.environ):
        return {}
    flags = " ".join(_FAST_FLAGS)
    return {"JAX_DISABLE_MOST_OPTIMIZATIONS": "1"} | ({"XLA_FLAGS": flags} if _accepted(flags) else {})
