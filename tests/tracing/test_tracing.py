"""What a traced graph can be relied on: the same graph as from names, an honest report, use in training."""

import copy
import functools
import pickle
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from networks import Mlp, NnxMlp
from stepping import DENSE

import fiedler_jax as fj
from fiedler_jax import errors
from fiedler_jax.edges import kernel_leaves, pull_back

KEY = jax.random.key(0)


@pytest.mark.parametrize("batch", [(), (1,), (7,), (2, 3)])
def test_a_linen_chain_is_the_same_graph_as_from_names(batch: tuple[int, ...]) -> None:
    model, x = Mlp((5,) * 11 + (3,)), jnp.ones((*batch, 5))
    variables = model.init(KEY, x)
    assert fj.graph_from_model(model, variables, x) == fj.graph_from_params(variables)
    assert fj.graph_from_model(model, variables["params"], x) == fj.graph_from_params(variables)


@pytest.mark.parametrize("params", ["state", "none", "module", "pure dict", "all state"])
def test_an_nnx_chain_is_the_same_graph_as_from_names(params: str) -> None:
    model = NnxMlp((4, 6, 6, 3))
    given = {
        "state": nnx.state(model, nnx.Param),
        "none": None,
        "module": model,
        "pure dict": nnx.to_pure_dict(nnx.state(model, nnx.Param)),
        "all state": nnx.state(model),
    }[params]
    assert fj.graph_from_model(model, given, jnp.ones((2, 4))) == fj.graph_from_params(nnx.state(model))


def test_the_chain_of_the_benchmarks_is_traced_as_it_is_named() -> None:
    sizes = (784, 500, 500, 500, 10)
    model, x = Mlp(sizes[1:]), jax.ShapeDtypeStruct((100, 784), jnp.float32)
    variables = jax.eval_shape(model.init, KEY, x)
    assert fj.graph_from_model(model, variables, x) == fj.graph_from_params(variables)


def test_two_traces_of_one_model_are_equal_and_hash_alike() -> None:
    model, x = nn.Sequential([nn.Conv(4, (3,)), nn.RNN(nn.OptimizedLSTMCell(5))]), jnp.ones((2, 6, 3))
    variables = model.init(KEY, x)
    one, other = (fj.graph_from_model(model, variables, x) for _ in range(2))
    assert one == other
    assert hash(one) == hash(other)


@pytest.mark.parametrize("change", [lambda w: 2 * w, lambda w: w[::-1], lambda w: w * np.arange(4.0), jnp.exp])
def test_another_effective_kernel_is_another_graph(change: Any) -> None:
    params = {"w": jnp.ones((4, 4))}
    one, other = (
        fj.graph_from_model(fun, params, jnp.ones((2, 4)))
        for fun in (lambda p, x: x @ (3 * p["w"]), lambda p, x: x @ change(p["w"]))
    )
    assert one != other


def test_a_graph_needs_no_values() -> None:
    model = nn.Sequential([nn.Conv(4, (3, 3)), nn.BatchNorm(use_running_average=True), nn.Dense(2)])
    x = jnp.ones((2, 6, 6, 3))
    variables = model.init(KEY, x)
    abstract = jax.eval_shape(model.init, KEY, x)
    concrete = fj.graph_from_model(model, variables, x)
    assert fj.graph_from_model(model, abstract, jax.ShapeDtypeStruct(x.shape, x.dtype)) == concrete
    assert fj.graph_from_model(model, abstract["params"], jax.ShapeDtypeStruct(x.shape, x.dtype)) == concrete


def test_keyword_arguments_and_static_ones_are_passed_on() -> None:
    class Model(nn.Module):
        @nn.compact
        def __call__(self, x: jax.Array, *, mask: jax.Array, train: bool, mode: str) -> jax.Array:
            assert mode == "wide"
            x = nn.Dropout(0.5, deterministic=not train)(nn.Dense(6)(x) * mask[:, None])
            return nn.Dense(2)(x)

    x, mask = jnp.ones((3, 4)), jnp.ones(3)
    variables = Model().init(KEY, x, mask=mask, train=False, mode="wide")
    graph = fj.graph_from_model(Model(), variables, x, mask=mask, train=True, mode="wide")
    assert graph == fj.graph_from_params(variables)


@jax.tree_util.register_pytree_with_keys_class
class Linear:
    """A layer in the manner of Equinox: a pytree that is called, with a function among its leaves."""

    def __init__(self, weight: Any, bias: Any, activation: Any):
        self.weight, self.bias, self.activation = weight, bias, activation

    def tree_flatten_with_keys(self) -> Any:
        key = jax.tree_util.GetAttrKey
        return [(key("weight"), self.weight), (key("bias"), self.bias), (key("activation"), self.activation)], None

    @classmethod
    def tree_unflatten(cls, _: None, children: Any) -> "Linear":
        return cls(*children)

    def __call__(self, x: jax.Array) -> jax.Array:
        return self.activation(self.weight @ x + self.bias)


def test_a_callable_pytree_is_its_own_parameters() -> None:
    layers = [Linear(jnp.ones((5, 4)), jnp.ones(5), jax.nn.relu), Linear(jnp.ones((3, 5)), jnp.ones(3), jnp.tanh)]

    def apply(layers: list[Linear], x: jax.Array) -> jax.Array:
        for layer in layers:
            x = jax.vmap(layer)(x)
        return x

    graph = fj.graph_from_model(apply, layers, jnp.ones((2, 4)), strict=True)
    assert [(b.kernel, b.source, b.target, b.shape) for b in graph.blocks] == [
        ("0/weight", "input", "0", (4, 5)),
        ("1/weight", "0", "1", (5, 3)),
    ]
    assert [leaf.path for leaf in graph.left_out] == ["0/bias", "1/bias"]


class ActorCritic(NamedTuple):
    actor: Any
    critic: Any


def test_parameters_in_a_tuple_have_paths_of_their_own() -> None:
    net, x = Mlp((5, 3)), jnp.ones((2, 4))
    params = ActorCritic(net.init(KEY, x), net.init(KEY, x))
    graph = fj.graph_from_model(lambda p, x: (net.apply(p.actor, x), net.apply(p.critic, x)), params, x, strict=True)
    paths = [f"{name}/params/Dense_{i}" for name in ("actor", "critic") for i in range(2)]
    assert [block.kernel for block in graph.blocks] == [f"{path}/kernel" for path in paths]
    assert [leaf.path for leaf in graph.left_out] == [f"{path}/bias" for path in paths]
    assert fj.laplacian(graph, params).num_vertices == 4 + 2 * (5 + 3)


def test_two_parameters_of_one_path_are_an_error() -> None:
    params = {"a/kernel": jnp.ones((4, 3)), "a": {"kernel": jnp.ones((3, 2))}}
    with pytest.raises(errors.AmbiguousLeafError, match="are both named a/kernel"):
        fj.graph_from_model(lambda p, x: x @ p["a/kernel"] @ p["a"]["kernel"], params, jnp.ones((2, 4)))


def test_nnx_parameters_that_are_not_given_are_held() -> None:
    model = nnx.LoRALinear(4, 3, lora_rank=2, rngs=nnx.Rngs(0))
    graph = fj.graph_from_model(model, nnx.state(model, nnx.LoRAParam), jnp.ones((2, 4)), strict=True)
    assert sorted(block.kernel for block in graph.blocks) == ["lora/lora_a", "lora/lora_b"]


def unknown_of(model: Any, params: Any, *inputs: Any) -> str:
    """What the report says was not understood; strict must say the same."""
    graph = fj.graph_from_model(model, params, *inputs)
    with pytest.raises(errors.NotUnderstoodError) as caught:
        fj.graph_from_model(model, params, *inputs, strict=True)
    (message,) = graph.not_understood
    assert message in str(caught.value)
    assert message in str(graph)
    return message


def test_an_unknown_operation_is_named_with_its_units() -> None:
    params = {"Dense_0": {"kernel": jnp.ones((4, 4))}, "Dense_1": {"kernel": jnp.ones((4, 2))}}

    def model(params: Any, x: jax.Array) -> jax.Array:
        return (
            jax.lax.linalg.cholesky(x @ params["Dense_0"]["kernel"], symmetrize_input=False)
            @ params["Dense_1"]["kernel"]
        )

    assert unknown_of(model, params, jnp.ones((4, 4))) == "operation 'cholesky' at units of Dense_0"


def test_what_gives_nothing_out_is_let_be() -> None:
    def model(params: Any, x: jax.Array) -> jax.Array:
        x = x @ params["Dense_0"]["kernel"]
        jax.debug.print("{}", x)
        return x

    params = {"Dense_0": {"kernel": jnp.ones((4, 3))}}
    assert fj.graph_from_model(model, params, jnp.ones((2, 4)), strict=True) == fj.graph_from_params(params)


def test_units_picked_by_a_computed_index_are_named() -> None:
    params = {"a": jnp.ones((4, 6)), "b": jnp.ones((3, 2))}

    def model(params: Any, x: jax.Array, index: Any) -> jax.Array:
        return (x @ params["a"])[:, index] @ params["b"]

    index = jnp.array([0, 2, 4])
    assert unknown_of(model, params, jnp.ones((2, 4)), index) == "gather of units by a computed index at units of a"
    known = fj.graph_from_model(lambda p, x: model(p, x, np.array([0, 2, 4])), params, jnp.ones((2, 4)), strict=True)
    assert [block.shape for block in known.blocks] == [(4, 3), (4, 3), (3, 2)]


def test_a_convolution_with_a_kernel_made_of_activations_is_named() -> None:
    params = {"c": jnp.ones((3, 3, 2, 4)), "w": jnp.ones((3, 3, 4, 6)), "s": jnp.ones((5, 4))}

    def model(params: Any, x: jax.Array, style: jax.Array) -> jax.Array:
        def conv(x: jax.Array, kernel: jax.Array) -> jax.Array:
            return jax.lax.conv_general_dilated(
                x[None], kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
            )[0]

        hidden = jax.vmap(conv, (0, None))(x, params["c"])
        return jax.vmap(conv)(hidden, params["w"] * (style @ params["s"])[:, None, None, :, None])

    message = unknown_of(model, params, jnp.ones((2, 6, 6, 2)), jnp.ones((2, 5)))
    assert message == "a convolution with a kernel made of activations at units of c, s"


def test_a_kernel_picked_by_a_computed_index_is_named() -> None:
    params = {"experts": jnp.ones((3, 4, 4)), "head": jnp.ones((4, 2))}

    def model(params: Any, x: jax.Array, index: jax.Array) -> jax.Array:
        return x @ params["experts"][index] @ params["head"]

    message = unknown_of(model, params, jnp.ones((2, 4)), jnp.array(1))
    assert "parameters picked by a computed index on experts" in message


def test_parameters_chosen_by_a_computed_condition_are_named() -> None:
    params = {"a": jnp.ones((4, 4)), "b": jnp.ones((4, 4)), "head": jnp.ones((4, 2))}

    def model(params: Any, x: jax.Array) -> jax.Array:
        return x @ jax.lax.cond(x.sum() > 0, lambda: params["a"], lambda: params["b"]) @ params["head"]

    assert unknown_of(model, params, jnp.ones((2, 4))) == "parameters chosen by a computed condition on b, a"


def test_parameters_changed_in_a_loop_are_in_the_report() -> None:
    params = {"fast": jnp.ones((4, 4)), "slow": jnp.ones((4, 2))}

    def model(params: Any, x: jax.Array) -> jax.Array:
        def body(fast: jax.Array, row: jax.Array) -> tuple[jax.Array, jax.Array]:
            return fast + 0.1 * jnp.outer(row, row), row @ fast

        return jax.lax.scan(body, params["fast"], x)[1] @ params["slow"]

    assert "kernel changed in a loop on fast" in unknown_of(model, params, jnp.ones((3, 4)))


def test_what_mixes_tokens_is_left_out_and_said() -> None:
    class Mixer(nn.Module):
        @nn.compact
        def __call__(self, x: jax.Array) -> jax.Array:
            x = nn.Dense(6)(x)
            return nn.Dense(4, name="channels")(x + nn.Dense(5, name="tokens")(x.swapaxes(1, 2)).swapaxes(1, 2))

    x = jnp.ones((2, 5, 3))
    graph = fj.graph_from_model(Mixer(), Mixer().init(KEY, x), x, strict=True)
    (reason,) = [leaf.reason for leaf in graph.left_out if leaf.path == "tokens/kernel"]
    assert reason == "mixes positions and is shared by 6 units, which its edges would make one vertex"
    assert graph.num_vertices == 3 + 6 + 4


def test_a_state_without_values_is_asked_for_only_where_a_kernel_needs_it() -> None:
    model, x = nn.SpectralNorm(nn.Dense(5)), jnp.ones((2, 4))
    abstract = jax.eval_shape(functools.partial(model.init, update_stats=True), KEY, x)
    with pytest.raises(errors.NotUnderstoodError, match="state that was given without values on layer_instance/kernel"):
        fj.graph_from_model(model, abstract, x, update_stats=True, strict=True)


def test_a_model_that_gives_nothing_out_or_is_not_understood_at_all_is_an_error() -> None:
    params, x = {"w": jnp.ones((4, 3))}, jnp.ones((2, 4))
    with pytest.raises(errors.NoKernelsError, match="None of the 1 parameters"):
        fj.graph_from_model(lambda p, x: None, params, x)

    def unknown(p, x):
        return jax.pure_callback(np.matmul, jax.ShapeDtypeStruct((2, 3), jnp.float32), x, p["w"])

    with pytest.raises(errors.NoKernelsError, match="Not understood: operation 'pure_callback'"):
        fj.graph_from_model(unknown, params, x)


def test_a_model_without_products_is_an_error() -> None:
    with pytest.raises(errors.NoKernelsError, match="None of the 1 parameters"):
        fj.graph_from_model(lambda p, x: x + p["bias"], {"bias": jnp.ones(3)}, jnp.ones((2, 3)))


def test_a_parameter_that_is_not_used_is_said_to_be() -> None:
    params = {"w": jnp.ones((3, 2)), "spare": jnp.ones((3, 2))}
    graph = fj.graph_from_model(lambda p, x: x @ p["w"], params, jnp.ones((2, 3)))
    assert [(leaf.path, leaf.reason) for leaf in graph.left_out] == [("spare", "not used by the model")]


def test_a_layer_of_no_units_is_listed_or_an_error() -> None:
    params = {"w": jnp.ones((3, 0)), "u": jnp.ones((0, 2)), "s": jnp.ones((3, 2))}
    with pytest.raises(errors.NoKernelsError, match="None of the 3 parameters has entries"):
        fj.graph_from_model(lambda p, x: x @ p["w"] @ p["u"], params, jnp.ones((2, 3)))
    graph = fj.graph_from_model(lambda p, x: x @ p["s"] + x @ p["w"] @ p["u"], params, jnp.ones((2, 3)))
    assert "input -> s" in str(graph)
    assert [(leaf.path, leaf.reason) for leaf in graph.left_out] == [("u", "has no entries"), ("w", "has no entries")]


def test_structure_is_kept_in_blocks() -> None:
    model = nn.Sequential(
        [nn.Conv(8, (3, 3)), nn.Conv(16, (3, 3), feature_group_count=4), nn.Conv(16, (3, 3), feature_group_count=16)]
    )
    x = jnp.ones((1, 8, 8, 3))
    params = drawn(model, x)
    graph = fj.graph_from_model(model, params, x)
    assert [block.shape for block in graph.blocks] == [(3, 8), (4, 2, 4), (16, 1, 1)]
    lap = fj.laplacian(graph, params)
    program = str(jax.make_jaxpr(lambda lap, x: lap.matvec(x))(lap, jnp.ones((2, graph.num_vertices))))
    assert "gather" not in program
    assert "scatter" not in program


def drawn(model: nn.Module, *inputs: jax.Array) -> Any:
    """Random parameters; nothing has to be compiled to make them."""
    rng = np.random.default_rng(0)
    shapes = jax.eval_shape(model.init, KEY, *inputs)["params"]
    return jax.tree.map(lambda leaf: jnp.asarray(0.3 * rng.normal(size=leaf.shape), leaf.dtype), shapes)


def grouped(dtype: Any = jnp.float32) -> tuple[fj.NetworkGraph, Any]:
    model = nn.Sequential([nn.Conv(8, (3,)), nn.relu, nn.Conv(8, (3,), feature_group_count=4), nn.Dense(3)])
    x = jnp.ones((1, 8, 3))
    params = drawn(model, x)
    return fj.graph_from_model(model, params, x), jax.tree.map(lambda leaf: leaf.astype(dtype), params)


@pytest.mark.crossed
@pytest.mark.parametrize("normalized", [True, False])
def test_batched_blocks_in_every_part_of_the_library(dtype: str, normalized: bool) -> None:
    graph, params = grouped(dtype)
    assert any(len(block.shape) == 3 for block in graph.blocks)
    lap = fj.laplacian(graph, params, normalized=normalized)
    dense = np.asarray(lap.to_dense(), np.float64)
    np.testing.assert_allclose(dense, dense.T, atol=1e-6)
    rows = jnp.asarray(np.random.default_rng(0).normal(size=(3, len(dense))), dtype)
    np.testing.assert_allclose(lap.matvec(rows), rows @ dense, atol=1e-5)
    np.testing.assert_allclose(lap.quadratic_form(rows), np.sum(rows @ dense * rows, axis=1), rtol=1e-5)
    pair = jax.jit(fj.fiedler_pair)(lap)
    pair.raise_if_failed()
    values, vectors = np.linalg.eigh(dense)
    np.testing.assert_allclose(pair.value, values[1], rtol=1e-5)
    assert fj.certify(lap, float(pair.value), tol=1e-4).verdict is fj.Verdict.PROVED
    # The coefficients are the derivative at an eigenvector; a solve that has converged is off by some of its residual.
    vector = jnp.asarray(vectors[:, 1], dtype)
    coefficients = jax.jit(functools.partial(fj.l1_coefficients, graph, normalized=normalized))(params, vector)
    penalty = functools.partial(fj.variational_penalty, graph, vectors=vector, normalized=normalized)
    gradient = jax.jit(jax.grad(penalty))(params)
    for path, leaf in jax.tree_util.tree_leaves_with_path(gradient):
        weight, own = params, coefficients
        for key in path:
            weight, own = weight[key.key], own[key.key]
        np.testing.assert_allclose(leaf, own * jnp.sign(weight) if leaf.ndim > 1 else 0, atol=1e-5)


def test_updates_keep_low_precision_and_reach_kernels_only() -> None:
    graph, params = grouped(jnp.bfloat16)
    tx = fj.add_fiedler_penalty(1.0, graph)
    updates, state = jax.jit(tx.update)(jax.tree.map(jnp.zeros_like, params), tx.init(params), params)
    for path, update in jax.tree_util.tree_leaves_with_path(updates):
        assert update.dtype == jnp.bfloat16
        assert bool(jnp.any(update != 0)) == (path[-1].key == "kernel")
    assert state.vectors.dtype == jnp.float32


def test_a_coefficient_is_the_derivative_with_respect_to_the_magnitude_also_at_zero() -> None:
    model, x = nn.Conv(2, (3,)), jnp.ones((1, 4, 2))
    params = jax.tree.map(jnp.ones_like, model.init(KEY, x)["params"])
    params["kernel"] = params["kernel"].at[0, 0, 0].set(0.0)
    graph = fj.graph_from_model(model, params, x)
    vector = jnp.array([0.5, 0.1, -0.2, -0.7])
    found = fj.l1_coefficients(graph, params, vector, normalized=False)["kernel"]
    np.testing.assert_allclose(found, np.broadcast_to((vector[:2, None] - vector[None, 2:]) ** 2, (3, 2, 2)), rtol=1e-5)


def cnn(x: jax.Array) -> jax.Array:
    x = nn.avg_pool(nn.relu(nn.Conv(8, (3, 3))(x)), (2, 2), strides=(2, 2))
    return nn.Dense(3)(x.reshape(len(x), -1))


def transformer(x: jax.Array) -> jax.Array:
    x = nn.Dense(8)(x)
    x = x + nn.MultiHeadDotProductAttention(num_heads=2)(nn.LayerNorm()(x))
    y = nn.Dense(16)(nn.LayerNorm()(x))
    return nn.Dense(3, name="head")((x + nn.Dense(8)(nn.gelu(y))).mean(axis=1))


def lstm(x: jax.Array) -> Any:
    hidden: Any = nn.RNN(nn.LSTMCell(8))(x)
    return nn.Dense(3)(hidden[:, -1])


@pytest.mark.parametrize(
    ("fun", "shape", "strength"), [(cnn, (8, 8, 2), 0.1), (transformer, (5, 4), 0.03), (lstm, (6, 4), 0.3)]
)
def test_training_with_the_penalty_lowers_the_fiedler_value(fun: Any, shape: tuple[int, ...], strength: float) -> None:
    class Model(nn.Module):
        @nn.compact
        def __call__(self, x: jax.Array) -> jax.Array:
            return fun(x)

    x = jax.random.normal(KEY, (16, *shape))
    labels = jnp.arange(16) % 3
    params = drawn(Model(), x)
    graph = fj.graph_from_model(Model(), params, x, strict=True)

    def loss(params: Any) -> jax.Array:
        logits: Any = Model().apply({"params": params}, x)
        return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()

    @jax.jit
    def trained(strength: jax.Array) -> jax.Array:
        tx = optax.chain(fj.add_fiedler_penalty(strength, graph, refresh_every=2, solver=DENSE), optax.sgd(0.1))

        def step(carry: Any, _: None) -> tuple[Any, None]:
            params, state = carry
            updates, state = tx.update(jax.grad(loss)(params), state, params)
            return (optax.apply_updates(params, updates), state), None

        (now, _), _ = jax.lax.scan(step, (params, tx.init(params)), length=10)
        return fj.laplacian(graph, now).to_dense()

    with_penalty, without = (np.linalg.eigvalsh(np.asarray(trained(s), np.float64))[1] for s in (strength, 0.0))
    assert with_penalty < 0.97 * without


def test_the_picture_names_full_paths() -> None:
    params = {"Dense_0": {"kernel": jnp.ones((4, 3))}, 'odd "name"': {"kernel": jnp.ones((3, 2))}}
    graph = fj.graph_from_edges(
        params, [("Dense_0/kernel", "in", "hidden"), (('odd "name"', "kernel"), "hidden", "out")]
    )
    dot = graph.to_dot()
    assert '"in" -> "hidden" [label="Dense_0/kernel\\n(4, 3)"]' in dot
    assert '\\"name\\"/kernel' in dot
    assert dot.count("{") == dot.count("}") == 1


def test_the_report_of_a_convolution() -> None:
    graph, _ = grouped()
    lines = str(graph).splitlines()
    (line,) = [line for line in lines if line.strip().startswith("layers_2/kernel") and "->" in line]
    assert line.split("  ")[-1].strip() == "(3, 2, 8), sums of 3"
    (line,) = [line for line in lines if line.strip().startswith("input")]
    assert line.split() == ["input", "3", "->", "layers_0"]
    assert line in lines[lines.index("groups") : lines.index("edge blocks")]


class LowRank(nn.Module):
    """A kernel that is computed of three leaves, and one that is only turned round."""

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        shapes = {"w": (5, 4), "b": (5, 2), "a": (2, 4), "turned": (3, 4)}
        w, b, a, turned = (self.param(name, nn.initializers.normal(), shape) for name, shape in shapes.items())
        return nn.relu(x @ (w + b @ a)) @ turned.T


def test_coefficients_are_pulled_back_through_computed_kernels() -> None:
    model, x = LowRank(), jnp.ones((2, 5))
    params = model.init(KEY, x)["params"]
    graph = fj.graph_from_model(model, params, x)
    blocks, transposed = jax.vjp(lambda params: fj.edge_blocks(graph, params), params)
    rng = np.random.default_rng(0)
    coefficients = tuple(jnp.asarray(rng.normal(size=block.shape), block.dtype) for block in blocks)
    found = pull_back(graph, kernel_leaves(graph, params), coefficients)
    expected = transposed(coefficients)[0]
    assert {path[-1] for path in found} == set(expected)
    for path, derivative in found.items():
        np.testing.assert_allclose(derivative, expected[path[-1]], rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize(("model", "given"), [({"w": jnp.ones((2, 2))}, "a dict"), (Mlp, "the class Mlp")])
def test_what_is_no_model_is_an_error(model: Any, given: str) -> None:
    with pytest.raises(errors.ArgumentTypeError, match=f"not {given}. It comes first"):
        fj.graph_from_model(model, lambda x: x, jnp.ones((1, 2)))


def test_both_parts_of_a_complex_kernel_made_of_real_leaves_count() -> None:
    def model(p, x):
        return (x @ (p["real"] + 1j * p["imaginary"])).real

    params = {"real": jnp.array([[3.0, 0.0]]), "imaginary": jnp.array([[4.0, 0.0]])}
    graph = fj.graph_from_model(model, params, jnp.ones((2, 1)), strict=True)
    np.testing.assert_allclose(fj.edge_blocks(graph, params)[0], [[5.0, 0.0]], rtol=1e-6)
    gradient = jax.grad(lambda p: fj.edge_blocks(graph, p)[0].sum())(params)
    np.testing.assert_allclose(gradient["real"], [[0.6, 0.0]], rtol=1e-6)
    np.testing.assert_allclose(gradient["imaginary"], [[0.8, 0.0]], rtol=1e-6)


def test_a_graph_that_computes_kernels_is_copied_but_not_pickled() -> None:
    params = {"w": jnp.ones((3, 4)), "a": jnp.ones((3, 2)), "b": jnp.ones((2, 4))}
    graph = fj.graph_from_model(lambda p, x: x @ (p["w"] + p["a"] @ p["b"]), params, jnp.ones((2, 3)))
    assert copy.deepcopy(graph) == graph
    with pytest.raises(pickle.PicklingError, match="graph_from_model"):
        pickle.dumps(graph)
