"""Proofs about the Fiedler value: whether a number is λ2, and bounds that cost next to nothing.

Everything here runs on the host in float64, outside jit.
"""

from fiedler_jax.certificate._bounds import Bound, Bounds, bounds
from fiedler_jax.certificate._certify import Certificate, Count, Verdict, certify

__all__ = ["Bound", "Bounds", "Certificate", "Count", "Verdict", "bounds", "certify"]
