"""The essentials of Flax's published examples trace without an unknown, and as their papers draw them."""

import functools
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import fiedler_jax as fj

KEY = jax.random.key(0)


def traced(model: nn.Module, *inputs: Any, **settings: Any) -> fj.NetworkGraph:
    """The graph of a model without any values; what is not understood is an error."""
    variables = jax.eval_shape(functools.partial(model.init, **settings), {"params": KEY, "dropout": KEY}, *inputs)
    graph = fj.graph_from_model(model, variables, *inputs, strict=True, **settings)
    paths = {
        "/".join(str(key.key) for key in path) for path, _ in jax.tree_util.tree_leaves_with_path(variables["params"])
    }
    used = {path for block in graph.blocks for path in block.kernel.replace("[", ", [").split(", ")}
    left = {leaf.path for leaf in graph.left_out}
    assert paths <= used | left
    # In these models every weight is a kernel, and only biases, scales and tables of positions are not.
    assert all(path.endswith(("bias", "scale", "pos_embedding")) for path in left), left
    return graph


def sizes(graph: fj.NetworkGraph) -> dict[str, int]:
    return {group.name: group.size for group in graph.groups}


def spec(*shape: int, dtype: Any = jnp.float32) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(shape, dtype)


class MnistCnn(nn.Module):
    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        x = nn.avg_pool(nn.relu(nn.Conv(32, (3, 3))(x)), (2, 2), strides=(2, 2))
        x = nn.avg_pool(nn.relu(nn.Conv(64, (3, 3))(x)), (2, 2), strides=(2, 2))
        x = nn.relu(nn.Dense(256)(x.reshape((x.shape[0], -1))))
        return nn.Dense(10)(x)


def test_mnist_cnn() -> None:
    graph = traced(MnistCnn(), spec(1, 28, 28, 1))
    assert sizes(graph) == {"input": 1, "Conv_0": 32, "Conv_1": 64, "Dense_0": 256, "Dense_1": 10}
    assert [block.shape for block in graph.blocks] == [(1, 32), (32, 64), (64, 256), (256, 10)]


class Bottleneck(nn.Module):
    filters: int
    strides: tuple[int, int]
    train: bool

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        conv = functools.partial(nn.Conv, use_bias=False, dtype=jnp.bfloat16)
        norm = functools.partial(nn.BatchNorm, use_running_average=not self.train, dtype=jnp.bfloat16)
        residual = x
        y = nn.relu(norm()(conv(self.filters, (1, 1))(x)))
        y = nn.relu(norm()(conv(self.filters, (3, 3), self.strides)(y)))
        y = norm(scale_init=nn.initializers.zeros_init())(conv(4 * self.filters, (1, 1))(y))
        if residual.shape != y.shape:
            residual = norm(name="norm_proj")(conv(4 * self.filters, (1, 1), self.strides, name="conv_proj")(residual))
        return nn.relu(residual + y)


class ResNet(nn.Module):
    stages: tuple[int, ...] = (3, 4, 6, 3)
    filters: int = 64

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        x = nn.Conv(self.filters, (7, 7), (2, 2), padding=[(3, 3), (3, 3)], use_bias=False, name="conv_init")(x)
        x = nn.relu(nn.BatchNorm(use_running_average=not train, name="bn_init")(x))
        x = nn.max_pool(x, (3, 3), strides=(2, 2), padding="SAME")
        for i, count in enumerate(self.stages):
            for j in range(count):
                x = Bottleneck(self.filters * 2**i, (2, 2) if i > 0 and j == 0 else (1, 1), train)(x)
        return nn.Dense(1000)(jnp.mean(x, axis=(1, 2)))


@pytest.mark.parametrize("train", [True, False])
def test_resnet_50(train: bool) -> None:
    graph = traced(ResNet(), spec(2, 224, 224, 3), train=train)
    inner = 2 * sum(count * 64 * 2**i for i, count in enumerate((3, 4, 6, 3)))
    assert graph.num_vertices == 3 + 64 + inner + 256 + 512 + 1024 + 2048 + 1000
    assert len(graph.blocks) == 1 + 3 * 16 + 4 + 1
    # The residual stream of a stage is one group, written by each of its blocks and by the projection.
    streams = {block.target for block in graph.blocks if block.kernel.endswith(("Conv_2/kernel", "conv_proj/kernel"))}
    assert len(streams) == 4


class Lm1b(nn.Module):
    """The transformer decoder of the LM1B example: shared embedding, sinusoidal positions, causal mask."""

    vocabulary: int = 50
    width: int = 16
    layers: int = 2

    @nn.compact
    def __call__(self, tokens: jax.Array, *, positions: str = "sinusoidal") -> jax.Array:
        mask = nn.combine_masks(nn.make_attention_mask(tokens > 0, tokens > 0), nn.make_causal_mask(tokens))
        embed = nn.Embed(self.vocabulary, self.width)
        x = embed(jnp.pad(tokens, ((0, 0), (1, 0)))[:, :-1].astype("int32"))
        length = x.shape[1]
        if positions == "sinusoidal":
            angle = np.arange(length)[:, None] * np.exp(np.arange(0, self.width, 2) * -(np.log(1e4) / self.width))
            table = np.zeros((1, length, self.width), np.float32)
            table[0, :, 0::2], table[0, :, 1::2] = np.sin(angle), np.cos(angle)
            x = x + table
        else:
            table = self.param("pos_embedding", nn.initializers.normal(0.02), (1, 512, self.width))
            x = x + jax.lax.slice(table, (0, 0, 0), (1, length, self.width))
        x = nn.Dropout(0.1, deterministic=False)(x)
        for _ in range(self.layers):
            y = nn.LayerNorm()(x)
            y = nn.MultiHeadDotProductAttention(num_heads=4, use_bias=False, dropout_rate=0.1, deterministic=False)(
                y, mask=mask
            )
            x = x + nn.Dropout(0.1, deterministic=False)(y)
            y = nn.relu(nn.Dense(64)(nn.LayerNorm()(x)))
            x = x + nn.Dropout(0.1, deterministic=False)(nn.Dense(self.width)(y))
        return embed.attend(nn.LayerNorm()(x)) / np.sqrt(self.width)


@pytest.mark.parametrize("positions", ["sinusoidal", "learned"])
def test_lm1b_transformer(positions: str) -> None:
    graph = traced(Lm1b(), spec(2, 10, dtype=jnp.int32), positions=positions)
    # Token vertices, the stream, query, key, value and hidden units of each layer, the tied outputs.
    assert graph.num_vertices == 50 + 16 + 2 * (3 * 16 + 64) + 50
    tied = [(block.source, block.target) for block in graph.blocks if block.kernel == "Embed_0/embedding"]
    assert len(tied) == 2
    assert tied[0][1] == tied[1][0]


class Wmt(nn.Module):
    """The encoder-decoder of the WMT example, a layer each."""

    vocabulary: int = 40
    width: int = 16

    @nn.compact
    def __call__(self, inputs: jax.Array, targets: jax.Array) -> jax.Array:
        embed = nn.Embed(self.vocabulary, self.width)
        attention = functools.partial(nn.MultiHeadDotProductAttention, num_heads=4, use_bias=False)

        def mlp(x: jax.Array) -> jax.Array:
            y = nn.relu(nn.Dense(32)(nn.LayerNorm()(x)))
            return x + nn.Dense(self.width)(y)

        x = embed(inputs)
        y = nn.LayerNorm()(x)
        x = nn.LayerNorm(name="encoded")(mlp(x + attention()(y, mask=nn.make_attention_mask(inputs > 0, inputs > 0))))
        z = embed(targets)
        z = z + attention()(nn.LayerNorm()(z), mask=nn.make_causal_mask(targets))
        z = z + attention()(nn.LayerNorm()(z), x, mask=nn.make_attention_mask(targets > 0, inputs > 0))
        return embed.attend(nn.LayerNorm()(mlp(z)))


def test_wmt_encoder_and_decoder() -> None:
    graph = traced(Wmt(), spec(2, 7, dtype=jnp.int32), spec(2, 9, dtype=jnp.int32))
    # One shared table read for sources and for targets, and once more for the outputs; two streams.
    assert graph.num_vertices == 3 * 40 + 2 * 16 + 3 * 3 * 16 + 2 * 32
    values = [block for block in graph.blocks if block.kernel == "MultiHeadDotProductAttention_2/value/kernel"]
    (cross,) = values
    encoder = {block.source for block in graph.blocks if block.kernel == "MultiHeadDotProductAttention_0/value/kernel"}
    assert {cross.source} == encoder


class DecoderCell(nn.Module):
    vocabulary: int
    teacher_force: bool

    @nn.compact
    def __call__(self, carry: Any, x: jax.Array) -> tuple[Any, tuple[jax.Array, jax.Array]]:
        state, last = carry
        if not self.teacher_force:
            x = last
        state, y = nn.LSTMCell(x.shape[-1] + 5)(state, x)
        logits = nn.Dense(self.vocabulary)(y)
        predicted = jax.nn.one_hot(jax.random.categorical(self.make_rng("lstm"), logits), self.vocabulary)
        return (state, predicted), (logits, predicted)


class Seq2seq(nn.Module):
    vocabulary: int = 9
    teacher_force: bool = True

    @nn.compact
    def __call__(self, encoder: jax.Array, decoder: jax.Array) -> jax.Array:
        cell = nn.LSTMCell(self.vocabulary + 5)
        state, _ = nn.RNN(cell, return_carry=True, name="encoder")(
            encoder, seq_lengths=jnp.argmax(encoder[:, :, 1], -1)
        )
        scanned = nn.scan(
            DecoderCell, variable_broadcast="params", in_axes=1, out_axes=1, split_rngs={"params": False, "lstm": True}
        )
        carry = state, decoder[:, 0]
        _, (logits, _) = scanned(self.vocabulary, self.teacher_force, name="decoder")(carry, decoder[:, :-1])
        return logits


@pytest.mark.parametrize("teacher_force", [True, False])
def test_seq2seq_lstm(teacher_force: bool) -> None:
    graph = traced(Seq2seq(teacher_force=teacher_force), spec(2, 6, 9), spec(2, 5, 9))
    # The state of the encoder becomes that of the decoder, unit by unit.
    hidden = {block.source for block in graph.blocks if "/h" in block.kernel}
    assert len(hidden) == 1
    assert sizes(graph)[hidden.pop()] == 14
    logits = [block.target for block in graph.blocks if block.kernel == "decoder/Dense_0/kernel"]
    assert sizes(graph)[logits[0]] == 9


class ActorCritic(nn.Module):
    @nn.compact
    def __call__(self, x: jax.Array) -> tuple[jax.Array, jax.Array]:
        x = x.astype(jnp.float32) / 255.0
        x = nn.relu(nn.Conv(32, (8, 8), strides=(4, 4), name="conv1")(x))
        x = nn.relu(nn.Conv(64, (4, 4), strides=(2, 2), name="conv2")(x))
        x = nn.relu(nn.Conv(64, (3, 3), strides=(1, 1), name="conv3")(x))
        x = nn.relu(nn.Dense(512, name="hidden")(x.reshape((x.shape[0], -1))))
        return nn.log_softmax(nn.Dense(4, name="logits")(x)), nn.Dense(1, name="value")(x)


def test_ppo_actor_critic() -> None:
    graph = traced(ActorCritic(), spec(1, 84, 84, 4, dtype=jnp.uint8))
    assert sizes(graph) == {"input": 4, "conv1": 32, "conv2": 64, "conv3": 64, "hidden": 512, "logits": 4, "value": 1}


class Vae(nn.Module):
    @nn.compact
    def __call__(self, x: jax.Array, key: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
        h = nn.relu(nn.Dense(500, name="fc1")(x))
        mean, logvar = nn.Dense(20, name="fc2_mean")(h), nn.Dense(20, name="fc2_logvar")(h)
        z = mean + jax.random.normal(key, logvar.shape) * jnp.exp(0.5 * logvar)
        return nn.Dense(784, name="fc4")(nn.relu(nn.Dense(500, name="fc3")(z))), mean, logvar


def test_vae() -> None:
    graph = traced(Vae(), spec(2, 784), jax.random.key(1))
    # Mean and variance of one latent variable are one unit.
    assert sizes(graph) == {"input": 784, "fc1": 500, "fc2_mean": 20, "fc3": 500, "fc4": 784}


class Gpt2(nn.Module):
    @nn.compact
    def __call__(self, tokens: jax.Array) -> jax.Array:
        embed = nn.Embed(50257, 768)
        position = self.param("pos_embedding", nn.initializers.normal(), (1024, 768))
        x = embed(tokens) + position[: tokens.shape[1]]
        for _ in range(12):
            y = nn.LayerNorm()(x)
            q, k, v = jnp.split(nn.Dense(3 * 768)(y).reshape(*y.shape[:2], 3 * 12, 64), 3, axis=2)
            y = nn.dot_product_attention(q, k, v, mask=nn.make_causal_mask(tokens))
            x = x + nn.Dense(768)(y.reshape(x.shape))
            y = nn.gelu(nn.Dense(3072)(nn.LayerNorm()(x)))
            x = x + nn.Dense(768)(y)
        return embed.attend(nn.LayerNorm()(x))


def test_twelve_layers_of_gpt_2_at_full_size() -> None:
    graph = traced(Gpt2(), spec(4, 1024, dtype=jnp.int32))
    assert graph.num_vertices == 2 * 50257 + 768 + 12 * (3 * 768 + 3072)
    assert all(block.arrangement is None or block.arrangement.scattered is None for block in graph.blocks)
