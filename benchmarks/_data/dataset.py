"""What every loader gives."""

from typing import NamedTuple

import jax
import numpy as np


class Dataset(NamedTuple):
    """Flat float32 inputs (examples, features), int32 labels (examples,), and the number of classes."""

    train_inputs: np.ndarray | jax.Array
    train_labels: np.ndarray | jax.Array
    test_inputs: np.ndarray | jax.Array
    test_labels: np.ndarray | jax.Array
    classes: int
