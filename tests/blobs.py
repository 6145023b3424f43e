"""A small task for tests of the tuned comparison: three blurred clusters, or two values of their inputs."""

from typing import Any

import numpy as np

from benchmarks._study.task import Recipe, Task

RECIPE = Recipe(hidden=(6,), steps=7, batch_size=4, learning_rate=0.1)


def blobs(size: int = 40, classes: int | None = 3, **changes: Any) -> Task:
    """Sixty examples to draw from and thirty to test on."""
    rng = np.random.default_rng(0)
    labels = np.arange(90) % 3
    inputs = (labels[:, None] + 0.3 * rng.standard_normal((90, 5))).astype(np.float32)
    targets = labels.astype(np.int32) if classes else inputs[:, :2] ** 2
    task = Task("blobs", RECIPE, inputs, targets, np.arange(60), np.arange(60, 90), size, classes)
    return task._replace(**changes)
