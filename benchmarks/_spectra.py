"""The networks whose Fiedler values are computed: fresh ones, and the same after some training."""

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from benchmarks._data import load_dataset
from benchmarks._model import MLP, Params

Kernels = tuple[np.ndarray, ...]
Batch = Callable[[jax.Array], tuple[jax.Array, jax.Array]]

_LATENT = 32
_NOISE = 0.3
_MOMENTUM = 0.9


@dataclass(frozen=True)
class Net:
    """A chain of Dense layers and how it is trained.

    Attributes:
        sizes: units of each layer, the inputs first.
        steps: SGD steps of the trained network.
        lag: the warm start's vector is this many steps older than the trained network.
        batch: examples per step.
    """

    sizes: tuple[int, ...]
    steps: int = 300
    lag: int = 100
    batch: int = 64

    @property
    def learning_rate(self) -> float:
        """A step small enough for the widest layer: the curvature of the loss grows with the number of inputs."""
        return min(0.02, 20 / max(self.sizes))


NETS: Mapping[str, Net] = MappingProxyType(
    {
        "64": Net((64, 128, 64, 10)),
        "784": Net((784, 500, 500, 500, 10)),
        "3072": Net((3072, 500, 500, 500, 10)),
        "20531": Net((20531, 50, 50, 50, 5)),
        "4096x4": Net((4096,) * 4, steps=150, lag=50, batch=32),
    }
)
QUICK_NETS: Mapping[str, Net] = MappingProxyType({"30": Net((30, 16, 12, 4), steps=20, lag=5)})


class Snapshots(NamedTuple):
    """Kernels of one network: as initialized, some steps before the end of training, and at its end.

    They are float32, so that both precisions work on exactly the same graph.
    """

    initial: Kernels
    earlier: Kernels
    trained: Kernels


def snapshots(net: Net, data_dir: Path | None, train: bool = True) -> Snapshots:
    """Initializes a network uniformly in ±1/sqrt(fan_in) and trains it, the same on every call.

    Args:
        net: the network.
        data_dir: folder of MNIST files, used where the network fits them; else a random teacher makes the examples.
        train: whether the trained weights are needed; if not, they are the initial ones.
    """
    key = jax.random.key(0)
    params = MLP(net.sizes[1:]).init(key, jnp.zeros((1, net.sizes[0])), training=False)["params"]
    initial = _kernels(params)
    if not train:
        return Snapshots(initial, initial, initial)
    optimizer = optax.sgd(net.learning_rate, momentum=_MOMENTUM)
    state = (params, optimizer.init(params))
    batch, arrays = _examples(net, data_dir)
    run = jax.jit(functools.partial(_train, net, optimizer, batch), static_argnames="steps")
    early_key, late_key = jax.random.split(jax.random.fold_in(key, 1))
    state = run(state, arrays, early_key, steps=net.steps - net.lag)
    earlier = _kernels(state[0])
    state = run(state, arrays, late_key, steps=net.lag)
    return Snapshots(initial, earlier, _kernels(state[0]))


def _train(net, optimizer, batch, state, arrays, key, *, steps):
    def loss(params, inputs, labels):
        logits: Any = MLP(net.sizes[1:]).apply({"params": params}, inputs, training=False)
        return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()

    def step(state, step_key):
        params, opt_state = state
        grads = jax.grad(loss)(params, *batch(arrays, step_key))
        updates, opt_state = optimizer.update(grads, opt_state, params)
        return (optax.apply_updates(params, updates), opt_state), None

    return jax.lax.scan(step, state, jax.random.split(key, steps))[0]


def _examples(net: Net, data_dir: Path | None):
    """A function from (arrays, key) to a batch, and the arrays it needs."""
    if data_dir is not None and (net.sizes[0], net.sizes[-1]) == (784, 10):
        data = load_dataset("mnist", data_dir, None)
        return functools.partial(_sampled, net.batch), (jnp.asarray(data.train_inputs), jnp.asarray(data.train_labels))
    mixing_key, teacher_key = jax.random.split(jax.random.key(1))
    # Few latent causes and many inputs of unequal strength, as in images and gene expressions.
    strength = jnp.exp(0.5 * jax.random.normal(mixing_key, (net.sizes[0],)))
    mixing = jax.random.normal(mixing_key, (_LATENT, net.sizes[0])) * strength / _LATENT**0.5
    teacher = jax.random.normal(teacher_key, (_LATENT, net.sizes[-1]))
    return functools.partial(_taught, net.batch), (mixing, teacher)


def _sampled(size, arrays, key):
    inputs, labels = arrays
    rows = jax.random.randint(key, (size,), 0, len(labels))
    return inputs[rows], labels[rows]


def _taught(size, arrays, key):
    mixing, teacher = arrays
    latent_key, noise_key = jax.random.split(key)
    latent = jax.random.normal(latent_key, (size, len(mixing)))
    inputs = latent @ mixing + _NOISE * jax.random.normal(noise_key, (size, mixing.shape[1]))
    return inputs, jnp.argmax(latent @ teacher, axis=1)


def _kernels(params: Params) -> Kernels:
    return tuple(np.array(params[f"Dense_{i}"]["kernel"]) for i in range(len(params)))
