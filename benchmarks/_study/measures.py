"""What is measured of a trained network."""

import math
from collections.abc import Mapping
from typing import Any

import networkx as nx
import numpy as np
from scipy.special import log_softmax
from sklearn.metrics import adjusted_rand_score

import fiedler_jax as fj
from benchmarks._model import Params
from benchmarks._study.task import Split, Task

_BINS = 15


def judge(task: Task, outputs: np.ndarray, split: Split, shifted: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """Scores on the examples that judge, and on shifted ones.

    Args:
        task: the task.
        outputs: the network's (examples, outputs) for all examples.
        split: the split it was trained on; targets that judge are those of the split, noise and all.
        shifted: outputs for the shifted test inputs, by name.

    Returns:
        ``loss`` (cross-entropy, or half the mean squared error summed over outputs), ``accuracy`` and ``ece`` or
        ``rmse`` (root of the mean squared error over examples and outputs), ``train_loss``, and the same of each shift
        under ``shifts``. What a network that diverged has no number for is NaN.
    """
    targets = split.targets
    found = _scores(task, outputs[split.judged], targets[split.judged])
    found["train_loss"] = _scores(task, outputs[split.train], targets[split.train])["loss"]
    found["shifts"] = {name: _scores(task, values, targets[task.test]) for name, values in shifted.items()}
    return found


def calibration_error(probabilities: np.ndarray, labels: np.ndarray) -> float:
    """Expected calibration error: mean of ``|accuracy - confidence|`` over 15 equal bins of confidence, weighted.

    Args:
        probabilities: (examples, classes).
        labels: (examples,).

    Source: Guo et al., "On Calibration of Modern Neural Networks", ICML 2017, equation 3.
    """
    confidence = probabilities.max(axis=1)
    correct = probabilities.argmax(axis=1) == labels
    bins = np.minimum((confidence * _BINS).astype(int), _BINS - 1)
    excess = np.bincount(bins, weights=correct - confidence, minlength=_BINS)
    return float(np.abs(excess).sum() / len(labels))


def share_of_zeros(params: Params) -> float:
    """Share of kernel entries that are exactly zero."""
    kernels = [np.asarray(layer["kernel"]) for layer in params.values()]
    return sum(int((k == 0).sum()) for k in kernels) / sum(k.size for k in kernels)


def structure(task: Task, params: Params, pair: fj.FiedlerPair) -> dict[str, Any]:
    """The normalized Fiedler pair of a network, its parts, and whether the Fiedler cut recovers the modules.

    Args:
        task: the task.
        params: the network's parameters.
        pair: its Fiedler pair, of which isolated vertices are a part.

    Returns:
        ``fiedler`` (value, ipr, status), ``parts`` (connected components of more than one vertex) and ``lone_units``;
        ``module_agreement``, the adjusted Rand index of the signs of the Fiedler vector on the inputs and their
        modules (1: recovered, about 0: as by chance), None without modules or a usable pair.
    """
    parts, lone = _components(params)
    agreement = None
    if task.modules is not None and fj.eigen.is_usable(pair.status):
        agreement = float(adjusted_rand_score(task.modules, pair.vector[: len(task.modules)] > 0))
    status = fj.Status(int(pair.status)).name.lower().replace("_", " ")
    return {
        "fiedler": {"value": float(pair.value), "ipr": float(pair.ipr), "status": status},
        "parts": parts,
        "lone_units": lone,
        "module_agreement": agreement,
    }


def _scores(task: Task, outputs: np.ndarray, targets: np.ndarray) -> dict[str, Any]:
    outputs = outputs.astype(float)
    if task.classes is None:
        squared = (outputs - targets) ** 2
        return {"loss": float(squared.sum(axis=1).mean() / 2), "rmse": float(np.sqrt(squared.mean()))}
    accuracy = float((outputs.argmax(axis=1) == targets).mean())
    if not np.isfinite(outputs).all():
        return {"loss": math.nan, "accuracy": accuracy, "ece": math.nan}
    logs = log_softmax(outputs, axis=1)
    return {
        "loss": float(-logs[np.arange(len(targets)), targets].mean()),
        "accuracy": accuracy,
        "ece": calibration_error(np.exp(logs), targets),
    }


def _components(params: Params) -> tuple[int, int]:
    graph = nx.Graph()
    offset = 0
    for index in range(len(params)):
        kernel = np.asarray(params[f"Dense_{index}"]["kernel"])
        rows, columns = np.nonzero(kernel)
        graph.add_nodes_from(range(offset, offset + sum(kernel.shape)))
        graph.add_edges_from(zip(offset + rows, offset + len(kernel) + columns, strict=True))
        offset += len(kernel)
    sizes = [len(part) for part in nx.connected_components(graph)]
    return sum(size > 1 for size in sizes), sum(size == 1 for size in sizes)
