"""Spectral-gap (Fiedler) regularization of neural networks in JAX."""

from fiedler_jax import eigen, errors
from fiedler_jax.certificate import Bound, Bounds, Certificate, Count, Verdict, bounds, certify
from fiedler_jax.edges import edge_blocks
from fiedler_jax.eigen import Davidson, Dense, Lanczos, PowerIteration, Status
from fiedler_jax.fiedler import (
    FiedlerPair,
    fiedler_pair,
    fiedler_value,
    laplacian_eigenpairs,
)
from fiedler_jax.graph import EdgeBlock, NetworkGraph, UnitGroup, graph_from_edges, graph_from_params
from fiedler_jax.laplacian import Laplacian, laplacian, laplacian_from_adjacency
from fiedler_jax.penalty import l1_coefficients, variational_penalty
from fiedler_jax.tracing import graph_from_model
from fiedler_jax.transforms import (
    FiedlerMetrics,
    FiedlerPenaltyState,
    add_fiedler_penalty,
    fiedler_metrics,
    fiedler_shrinkage,
)

__all__ = [
    "Bound",
    "Bounds",
    "Certificate",
    "Count",
    "Davidson",
    "Dense",
    "EdgeBlock",
    "FiedlerMetrics",
    "FiedlerPair",
    "FiedlerPenaltyState",
    "Lanczos",
    "Laplacian",
    "NetworkGraph",
    "PowerIteration",
    "Status",
    "UnitGroup",
    "Verdict",
    "add_fiedler_penalty",
    "bounds",
    "certify",
    "edge_blocks",
    "eigen",
    "errors",
    "fiedler_metrics",
    "fiedler_pair",
    "fiedler_shrinkage",
    "fiedler_value",
    "graph_from_edges",
    "graph_from_model",
    "graph_from_params",
    "l1_coefficients",
    "laplacian",
    "laplacian_eigenpairs",
    "laplacian_from_adjacency",
    "variational_penalty",
]
