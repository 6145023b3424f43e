"""Spectral-gap (Fiedler) regularization of neural networks in JAX."""

from fiedler_jax import eigen as eigen
from fiedler_jax import errors as errors
from fiedler_jax.eigen import Davidson as Davidson
from fiedler_jax.eigen import Dense as Dense
from fiedler_jax.eigen import Lanczos as Lanczos
from fiedler_jax.eigen import PowerIteration as PowerIteration
from fiedler_jax.eigen import Status as Status
from fiedler_jax.fiedler import FiedlerPair as FiedlerPair
from fiedler_jax.fiedler import fiedler_pair as fiedler_pair
from fiedler_jax.fiedler import fiedler_value as fiedler_value
from fiedler_jax.fiedler import l1_coefficients as l1_coefficients
from fiedler_jax.fiedler import variational_penalty as variational_penalty
from fiedler_jax.graph import EdgeBlock as EdgeBlock
from fiedler_jax.graph import NetworkGraph as NetworkGraph
from fiedler_jax.graph import UnitGroup as UnitGroup
from fiedler_jax.graph import edge_blocks as edge_blocks
from fiedler_jax.graph import graph_from_edges as graph_from_edges
from fiedler_jax.graph import graph_from_params as graph_from_params
from fiedler_jax.laplacian import Laplacian as Laplacian
from fiedler_jax.laplacian import laplacian as laplacian
from fiedler_jax.laplacian import laplacian_from_adjacency as laplacian_from_adjacency
from fiedler_jax.transforms import FiedlerMetrics as FiedlerMetrics
from fiedler_jax.transforms import FiedlerPenaltyState as FiedlerPenaltyState
from fiedler_jax.transforms import add_fiedler_penalty as add_fiedler_penalty
from fiedler_jax.transforms import fiedler_metrics as fiedler_metrics
