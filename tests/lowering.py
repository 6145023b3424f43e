"""What a process lowers the update of some models to, by digests of the programs, as JSON."""

import hashlib
import json

import flax.linen as nn
import jax
import jax.numpy as jnp

import fiedler_jax as fj


class Small(nn.Module):
    """A convolution, attention with itself, and a readout."""

    @nn.compact
    def __call__(self, x):
        x = nn.relu(nn.Conv(8, (3, 3))(x)).reshape(x.shape[0], -1, 8)
        return nn.Dense(3)(x + nn.MultiHeadDotProductAttention(num_heads=2)(x))


def program(model: nn.Module, inputs: jax.Array, normalized: bool) -> str:
    params = jax.eval_shape(model.init, jax.random.key(0), inputs)
    tx = fj.add_fiedler_penalty(1e-3, fj.graph_from_model(model, params, inputs), normalized=normalized)
    state = jax.eval_shape(tx.init, params)
    return hashlib.sha256(jax.jit(tx.update).lower(params, state, params).as_text().encode()).hexdigest()


def main() -> None:
    chain = nn.Sequential([nn.Dense(40), nn.relu, nn.Dense(30), nn.relu, nn.Dense(5)])
    cases = {"chain": (chain, jnp.ones((1, 50))), "small": (Small(), jnp.ones((1, 6, 6, 1)))}
    programs = {
        f"{name}, normalized {normalized}": program(model, inputs, normalized)
        for name, (model, inputs) in cases.items()
        for normalized in (True, False)
    }
    print(json.dumps(programs))


if __name__ == "__main__":
    main()
