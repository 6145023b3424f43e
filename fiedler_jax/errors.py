"""What can go wrong before anything is computed, one explained class per failure.

Every class derives from `FiedlerError`, which is a `ValueError`. They are raised on the host, while a graph or a
transformation is built or traced. Failures inside compiled code are reported as a `Status` instead.
"""


class FiedlerError(ValueError):
    """Base class of all errors raised by fiedler_jax."""


class NoKernelsError(FiedlerError):
    """The parameters hold no Dense kernel, so there is no graph to regularize.

    Trace the model with `graph_from_model`, pass parameters with at least one 2-D leaf named ``kernel``, or state the
    edges by hand with `graph_from_edges`.
    """


class UnsupportedKernelError(FiedlerError):
    """A kernel is not the 2-D kernel of a Dense layer, so names and shapes cannot say what it connects.

    Trace the model with `graph_from_model`, or state the Dense kernels to use by hand with `graph_from_edges`; every
    other leaf is then left out, and named.
    """


class BrokenChainError(FiedlerError):
    """The kernels, in the order their numbered names give, do not fit one another.

    Trace the model with `graph_from_model`, or state how they connect with `graph_from_edges`.
    """


class AmbiguousChainError(FiedlerError):
    """More than one order of the kernels fits their shapes, and their names do not decide.

    Trace the model with `graph_from_model`, number the layers (``Dense_0``, ``Dense_1``, …), or state how they connect
    with `graph_from_edges`.
    """


class EdgeError(FiedlerError):
    """An edge block stated by hand is malformed, names no leaf, or contradicts another one in a group's size."""


class AmbiguousLeafError(FiedlerError):
    """Two leaves of the parameters have one name, once a collection ``params`` around them is left out.

    Rename one of them, or pass only the part of the tree that is trained.
    """


class KernelMismatchError(FiedlerError):
    """The parameters do not hold a kernel of the graph, or hold it with another shape or a non-real dtype.

    Or the state of a transformation is of other vertices, or of another precision, than the parameters. One of another
    network with as many vertices is not seen; restore a state together with its parameters.

    Build the graph from the same parameters, or from parameters of the same model.
    """


class MaskedKernelError(FiedlerError):
    """A mask hides a kernel of the graph from the transformation.

    Let the mask include every kernel, or pass a graph built with `graph_from_edges` from the visible ones.
    """


class AdjacencyError(FiedlerError):
    """A matrix is not the adjacency of an undirected weighted graph: square, symmetric, nonnegative."""


class VectorError(FiedlerError):
    """A vector, or each of several rows, does not have one entry per vertex.

    Vertices are numbered group by group, in the order of the graph's groups.
    """


class NoFiedlerValueError(FiedlerError):
    """A graph has no second eigenvalue to speak of: fewer than two vertices, or edge weights that are not finite.

    Look for the first parameter that is not finite, or count isolated vertices in with ``ignore_isolated=False``.
    """


class DisconnectedGraphError(FiedlerError):
    """A graph falls into so many components, whatever its weights, that every eigenvalue to penalize is zero.

    Penalize more with ``num_eigenvalues``, at least as many as there are components; or, where the model does join
    them, build a graph that says so. ``print(graph)`` shows the components and what was left out.
    """


class CertificateSizeError(FiedlerError):
    """A graph leaves a matrix too large to factorize, since too many of its vertices are joined among one another.

    Certify a smaller network of the same kind, or use `bounds`, which factorize nothing.
    """


class ArgumentTypeError(FiedlerError, TypeError):
    """Something else was given where a graph, a Laplacian, a solver or an optimizer state belongs.

    The message says what was expected and where it comes from; often two arguments changed places.
    """


class HyperparameterError(FiedlerError):
    """A setting of a solver or of a transformation lies outside its range."""


class SolveFailedError(FiedlerError):
    """A solve whose status was asked for gave nothing usable; the message says which status, and what to do.

    Raised on the host only, by ``raise_if_failed``. Inside jit look at the status instead.
    """


class ShardingError(FiedlerError):
    """Each part of a mesh has a network of its own, under `jax.shard_map`, but not all axes of the mesh are manual.

    Make all of them manual, so that each network is whole on its devices, or solve the networks under `jax.vmap`.
    """


class MissingParamsError(FiedlerError):
    """An update was called without the parameters, which the penalty needs.

    Call ``tx.update(updates, state, params)``.
    """


class StateNotFoundError(FiedlerError):
    """An optimizer state holds no, or more than one, state of a Fiedler transformation."""


class NotUnderstoodError(FiedlerError):
    """A model does something with its units that `graph_from_model` does not understand, and ``strict=True`` was asked.

    The message lists each operation with the parameters and layers concerned. Without `strict` they are in the graph's
    report; edges that depend on them are missing. State those by hand with `graph_from_edges`.
    """
