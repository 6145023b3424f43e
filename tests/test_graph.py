"""From parameter trees to graphs."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from networks import Mlp, NnxMlp

import fiedler_jax as fj
from fiedler_jax import errors
from fiedler_jax._arrangement import Arrangement, Scattered
from fiedler_jax._effective import Effective


def kernels(*shapes: tuple[int, ...], stem: str = "Dense_") -> dict:
    return {f"{stem}{i}": {"kernel": jnp.ones(shape)} for i, shape in enumerate(shapes)}


def used(graph: fj.NetworkGraph) -> list[tuple[str, str, str]]:
    return [(block.kernel, block.source, block.target) for block in graph.blocks]


def test_linen_chain_of_twelve_layers_is_ordered_by_number() -> None:
    widths = (5,) * 11 + (3,)
    params = Mlp(widths).init(jax.random.key(0), jnp.ones((1, 5)))["params"]
    graph = fj.graph_from_params(params)
    assert [block.kernel for block in graph.blocks] == [f"Dense_{i}/kernel" for i in range(12)]
    assert [leaf.path for leaf in graph.left_out] == [f"Dense_{i}/bias" for i in range(12)]
    assert [group.size for group in graph.groups] == [5, *widths]
    assert graph.num_vertices == 5 * 12 + 3
    assert graph.num_edges == 5 * 5 * 11 + 5 * 3


@pytest.mark.parametrize("view", ["state", "param state", "pure dict", "module"])
def test_nnx_containers_give_one_graph(view: str) -> None:
    module = NnxMlp((4,) * 11 + (3,))
    tree = {
        "state": nnx.state(module),
        "param state": nnx.state(module, nnx.Param),
        "pure dict": nnx.to_pure_dict(nnx.state(module)),
        "module": module,
    }[view]
    graph = fj.graph_from_params(tree)
    assert [block.kernel for block in graph.blocks] == [f"layers/{i}/kernel" for i in range(11)]
    assert len(graph.left_out) == 11
    assert fj.edge_blocks(graph, tree)[10].shape == (4, 3)


def test_whole_variables_and_their_params_are_the_same_graph() -> None:
    variables: Any = Mlp((4, 3)).init(jax.random.key(0), jnp.ones((1, 5)))
    assert fj.graph_from_params(variables) == fj.graph_from_params(variables["params"])
    np.testing.assert_array_equal(
        fj.edge_blocks(fj.graph_from_params(variables), variables["params"])[1],
        jnp.abs(variables["params"]["Dense_1"]["kernel"]),
    )


def test_abstract_parameters_suffice() -> None:
    variables = jax.eval_shape(Mlp((4, 3)).init, jax.random.key(0), jnp.ones((1, 5)))
    assert fj.graph_from_params(variables).num_vertices == 12


def test_a_graph_is_hashable_and_static() -> None:
    params = kernels((4, 3), (3, 2))
    graph = fj.graph_from_params(params)
    assert hash(graph) == hash(fj.graph_from_params(params))
    total = jax.jit(lambda p, g: sum(map(jnp.sum, fj.edge_blocks(g, p))), static_argnums=1)
    assert total(params, graph) == 18


def test_print_names_everything_left_out() -> None:
    params = {
        "Embed_0": {"embedding": jnp.ones((7, 4))},
        "Dense_0": {"kernel": jnp.ones((4, 3)), "bias": jnp.ones(3)},
        "LayerNorm_0": {"scale": jnp.ones(3)},
        "temperature": jnp.ones(()),
    }
    text = str(fj.graph_from_params(params))
    for path in ("Embed_0/embedding", "Dense_0/bias", "LayerNorm_0/scale", "temperature"):
        (line,) = [line for line in text.splitlines() if path in line]
        assert line.split("  ")[-1].strip()
    assert "7 vertices, 12 edges" in text


@pytest.mark.parametrize(("first", "last"), [("encoder", "output"), ("fc", "fc_1"), ("fc_1", "fc")])
def test_names_without_numbers_are_ordered_by_shape(first: str, last: str) -> None:
    params = {last: {"kernel": jnp.ones((5, 2))}, first: {"kernel": jnp.ones((9, 5))}}
    assert used(fj.graph_from_params(params)) == [
        (f"{first}/kernel", "input", first),
        (f"{last}/kernel", first, last),
    ]


def test_numbers_decide_among_square_kernels() -> None:
    params = kernels((6, 6), (6, 6), (6, 6), stem="fc")
    assert [block.kernel for block in fj.graph_from_params(params).blocks] == [f"fc{i}/kernel" for i in range(3)]


def test_nested_blocks_are_ordered_from_the_outside() -> None:
    params = {"block_1": kernels((4, 4)), "block_0": kernels((4, 4), (4, 4))}
    assert [block.kernel for block in fj.graph_from_params(params).blocks] == [
        "block_0/Dense_0/kernel",
        "block_0/Dense_1/kernel",
        "block_1/Dense_0/kernel",
    ]


def test_an_undecided_order_is_an_error_that_shows_both() -> None:
    params = {"left": {"kernel": jnp.ones((4, 4))}, "right": {"kernel": jnp.ones((4, 4))}}
    with pytest.raises(errors.AmbiguousChainError) as caught:
        fj.graph_from_params(params)
    message = str(caught.value)
    assert "left/kernel (4, 4) -> right/kernel (4, 4)" in message
    assert "right/kernel (4, 4) -> left/kernel (4, 4)" in message
    assert "graph_from_edges" in message


def test_too_many_orders_to_search_are_an_error() -> None:
    # Sixteen distinct loops through one size, and a kernel that can never be reached: every order is a dead end.
    params = {name: {"kernel": jnp.ones((2, 2))} for name in "abcdefghijklmnop"} | {"z": {"kernel": jnp.ones((7, 7))}}
    with pytest.raises(errors.AmbiguousChainError, match="could not be settled"):
        fj.graph_from_params(params)


def test_a_broken_chain_names_the_leaves_and_shapes() -> None:
    with pytest.raises(errors.BrokenChainError) as caught:
        fj.graph_from_params(kernels((8, 6), (5, 6), (4, 2)))
    message = str(caught.value)
    assert "Dense_0/kernel (8, 6) has 6 columns" in message
    assert "Dense_1/kernel (5, 6) 5 rows" in message
    with pytest.raises(
        errors.BrokenChainError, match=r"Dense_9/kernel \(2, 2\) has 2 columns, Dense_10/kernel \(3, 2\)"
    ):
        fj.graph_from_params(kernels(*[(2, 2)] * 10, (3, 2)))


def test_a_chain_numbered_against_its_shapes_is_an_error_with_a_working_remedy() -> None:
    # nn.Dense(2)(nn.Dense(4)(x)) in one expression creates, and numbers, the outer layer first.
    params = kernels((4, 2), (7, 4))
    with pytest.raises(errors.BrokenChainError, match="Against their numbers") as caught:
        fj.graph_from_params(params)
    remedy = str(caught.value).split("state it: ")[1].removesuffix(".")
    graph = eval(remedy, {"fj": fj, "params": params})
    assert [group.size for group in graph.groups] == [7, 4, 2]


def test_a_convolution_is_an_error_with_its_shape() -> None:
    params = {"Conv_0": {"kernel": jnp.ones((3, 3, 1, 8))}, "Dense_0": {"kernel": jnp.ones((8, 2))}}
    with pytest.raises(errors.UnsupportedKernelError, match=r"Conv_0/kernel has shape \(3, 3, 1, 8\)"):
        fj.graph_from_params(params)
    graph = fj.graph_from_edges(params, [("Dense_0/kernel", "channels", "classes")])
    assert [leaf.path for leaf in graph.left_out] == ["Conv_0/kernel"]


@pytest.mark.parametrize("params", [{}, {"Dense_0": {"bias": np.ones(3)}}, {"Embed_0": {"embedding": np.ones((3, 2))}}])
def test_no_kernels_is_an_error(params: dict) -> None:
    with pytest.raises(errors.NoKernelsError, match="graph_from_edges"):
        fj.graph_from_params(params)


def test_edges_by_hand_allow_skips_ties_and_loops() -> None:
    params = {
        "embed": {"embedding": jnp.ones((5, 3))},
        "cell": {"kernel": jnp.ones((3, 3))},
        "skip": {"kernel": jnp.ones((3, 4))},
    }
    edges = [
        (("embed", "embedding"), "tokens", "hidden"),
        ("cell/kernel", "hidden", "hidden"),
        ("skip/kernel", "hidden", "classes"),
        ("embed/embedding", "logits", "hidden"),
    ]
    graph = fj.graph_from_edges(params, edges)
    assert {group.name: group.size for group in graph.groups} == {"tokens": 5, "hidden": 3, "classes": 4, "logits": 5}
    assert graph.left_out == ()
    np.testing.assert_array_equal(fj.edge_blocks(graph, params)[1], 1 - np.eye(3))


def test_a_group_of_two_sizes_is_an_error_naming_both_kernels() -> None:
    with pytest.raises(errors.EdgeError, match=r"'h' has 3 units by Dense_0/kernel but 4 by Dense_1/kernel"):
        fj.graph_from_edges(kernels((2, 3), (4, 5)), [("Dense_0/kernel", "x", "h"), ("Dense_1/kernel", "h", "y")])


def test_an_unknown_path_is_an_error_with_near_names() -> None:
    with pytest.raises(errors.EdgeError, match=r"'Dense_0/kernal' among Dense_0/kernel"):
        fj.graph_from_edges(kernels((2, 3)), [("Dense_0/kernal", "x", "y")])


def test_keys_with_slashes_are_paths() -> None:
    nested = {"mlp": {"~": {"linear_0": {"w": jnp.ones((3, 4))}, "linear_1": {"w": jnp.ones((4, 2))}}}}
    haiku = {f"mlp/~/{name}": layer for name, layer in nested["mlp"]["~"].items()}
    flat = {f"{name}/w": layer["w"] for name, layer in haiku.items()}

    def model(params: dict, x: jax.Array) -> jax.Array:
        first, second = jax.tree.leaves(params)
        return jnp.tanh(x @ first) @ second

    one, *others = (fj.graph_from_model(model, params, jnp.ones((1, 3))) for params in (nested, haiku, flat))
    assert others == [one, one]
    assert not one.left_out
    assert used(one)[1][0] == "mlp/~/linear_1/w"
    updates, _ = (tx := fj.add_fiedler_penalty(1.0, one)).update(flat, tx.init(haiku), flat)
    assert jnp.any(updates["mlp/~/linear_0/w"] != 1)  # pyright: ignore[reportIndexIssue, reportCallIssue, reportArgumentType]


def test_two_leaves_of_one_name_are_an_error() -> None:
    kernel = jnp.ones((3, 2))
    for params in (
        {"params": {"a": {"kernel": kernel}}, "a": {"kernel": kernel}},
        {"a/kernel": kernel, "a": {"kernel": kernel}},
    ):
        with pytest.raises(errors.AmbiguousLeafError, match=r"\['a.*kernel'\] are both named a/kernel"):
            fj.graph_from_params(params)


def test_a_superscript_is_no_number() -> None:
    graph = fj.graph_from_params({"²": {"kernel": jnp.ones((3, 2))}, "³": {"kernel": jnp.ones((2, 4))}})
    assert graph.num_vertices == 9


def test_a_single_array_is_a_tree() -> None:
    kernel = jnp.ones((4, 3))
    graph = fj.graph_from_model(lambda w, x: x @ w, kernel, jnp.ones((5, 4)))
    assert (graph.num_edges, graph.left_out) == (12, ())
    assert fj.edge_blocks(graph, kernel)[0].shape == (4, 3)
    with pytest.raises(errors.NoKernelsError, match="the whole tree"):
        fj.graph_from_params(kernel)


def test_a_kernel_without_a_layer_names_its_own() -> None:
    assert used(fj.graph_from_params({"kernel": jnp.ones((2, 3))})) == [("kernel", "input", "kernel")]


def test_a_layer_may_be_named_input() -> None:
    graph = fj.graph_from_params({"input": {"kernel": jnp.ones((2, 2))}})
    assert used(graph) == [("input/kernel", "inputs", "input")]
    assert graph.num_vertices == 4


@pytest.mark.parametrize(
    "call",
    [
        lambda graph, params: fj.laplacian(params, graph),
        lambda graph, params: fj.edge_blocks(params, graph),
        lambda graph, params: fj.fiedler_value(params, graph),
        lambda graph, params: fj.variational_penalty(params, graph, jnp.ones(5)),
        lambda graph, params: fj.l1_coefficients(params, graph, jnp.ones(5)),
        lambda graph, params: fj.add_fiedler_penalty(0.1, params),
    ],
)
def test_arguments_that_changed_places_are_an_error(call: Any) -> None:
    params = kernels((2, 3))
    with pytest.raises(errors.ArgumentTypeError, match=r"NetworkGraph, not dict.*graph_from_params"):
        call(fj.graph_from_params(params), params)


def test_eight_bit_kernels_are_computed_in_float32() -> None:
    params = {"Dense_0": {"kernel": jnp.ones((2, 3), jnp.float8_e4m3fn)}}
    assert fj.laplacian(fj.graph_from_params(params), params).dtype == jnp.float32


@pytest.mark.parametrize("edge", [("Dense_0/kernel", None, "x"), ("Dense_0/kernel", "x", 1), (3, "x", "y")])
def test_names_that_are_no_strings_are_an_error(edge: Any) -> None:
    with pytest.raises(errors.EdgeError, match="strings"):
        fj.graph_from_edges(kernels((2, 3)), [edge])


@pytest.mark.parametrize("edge", ["Dense_0/kernel", ("Dense_0/kernel", "x"), 3])
def test_a_malformed_edge_is_an_error(edge: object) -> None:
    with pytest.raises(errors.EdgeError, match="triple"):
        fj.graph_from_edges(kernels((2, 3)), [edge])  # pyright: ignore[reportArgumentType]


def test_no_edges_and_flat_leaves_are_errors() -> None:
    with pytest.raises(errors.EdgeError, match="No edges"):
        fj.graph_from_edges(kernels((2, 3)), [])
    with pytest.raises(errors.EdgeError, match=r"bias has shape \(3,\)"):
        fj.graph_from_edges({"bias": np.ones(3)}, [("bias", "x", "y")])


def test_masked_kernels_are_errors() -> None:
    params = kernels((2, 3), (3, 4))
    graph = fj.graph_from_params(params)
    masked = params | {"Dense_1": {"kernel": optax.MaskedNode()}}
    with pytest.raises(errors.MaskedKernelError, match="hides Dense_1/kernel"):
        fj.graph_from_params(masked)
    with pytest.raises(errors.MaskedKernelError, match="hides Dense_1/kernel"):
        fj.edge_blocks(graph, masked)
    with pytest.raises(errors.EdgeError, match="Dense_1/kernel"):
        fj.graph_from_edges(masked, [("Dense_1/kernel", "x", "y")])


def test_parameters_of_another_model_are_an_error() -> None:
    graph = fj.graph_from_params(kernels((2, 3), (3, 4)))
    with pytest.raises(errors.KernelMismatchError, match=r"Dense_1/kernel of shape \(3, 4\)"):
        fj.edge_blocks(graph, kernels((2, 3)))
    with pytest.raises(errors.KernelMismatchError, match=r"shape \(3, 5\) in the parameters but \(3, 4\)"):
        fj.edge_blocks(graph, kernels((2, 3), (3, 5)))
    with pytest.raises(errors.KernelMismatchError, match="int32"):
        fj.edge_blocks(graph, jax.tree.map(lambda w: w.astype(jnp.int32), kernels((2, 3), (3, 4))))


def test_weights_of_shapes_without_numbers_are_an_error() -> None:
    shapes = jax.eval_shape(lambda: kernels((2, 3), (3, 4)))
    graph = fj.graph_from_params(shapes)
    for asked in (fj.edge_blocks, fj.laplacian, fj.fiedler_value):
        with pytest.raises(errors.ArgumentTypeError, match="Dense_0/kernel is a shape without numbers"):
            asked(graph, shapes)
    assert jax.eval_shape(lambda params: fj.laplacian(graph, params), shapes).num_vertices == 9


@pytest.mark.parametrize("given", ["float16", "bfloat16", "float32"])
def test_narrow_kernels_are_computed_in_float32(given: str) -> None:
    params = {"Dense_0": {"kernel": -jnp.ones((2, 3), given)}}
    (block,) = fj.edge_blocks(fj.graph_from_params(params), params)
    assert block.dtype == jnp.float32
    assert block.min() == 1


def test_one_float64_kernel_makes_all_of_them_so(x64: None) -> None:
    params = {"Dense_0": {"kernel": jnp.ones((2, 3), "float32")}, "Dense_1": {"kernel": jnp.ones((3, 4), "float64")}}
    assert {block.dtype for block in fj.edge_blocks(fj.graph_from_params(params), params)} == {np.dtype("float64")}


def towers(count: int) -> fj.NetworkGraph:
    """As many chains of two layers as asked for, which nothing joins."""
    edges = []
    for i in range(count):
        edges += [
            (f"Dense_{2 * i}/kernel", f"{i} in", f"{i} hidden"),
            (f"Dense_{2 * i + 1}/kernel", f"{i} hidden", f"{i} out"),
        ]
    return fj.graph_from_edges(kernels(*[(4, 3), (3, 2)] * count), edges)


def test_components_are_counted_by_group_and_printed() -> None:
    graph = towers(2)
    assert graph.components == ({"0 in": 4, "0 hidden": 3, "0 out": 2}, {"1 in": 4, "1 hidden": 3, "1 out": 2})
    lines = str(graph).splitlines()
    assert lines[lines.index("components that no edge joins: λ2 is 0") :][1:] == [
        "  9 units of 0 in, 0 hidden and 1 more",
        "  9 units of 1 in, 1 hidden and 1 more",
    ]
    assert "components" not in str(fj.graph_from_params(kernels((4, 3), (3, 2))))
    assert str(towers(11)).splitlines()[-1] == "  and 3 more"


def test_a_unit_joined_to_itself_only_is_in_no_component() -> None:
    params = {"w": (4, 3), "loop": (1, 1), "empty": (3, 0), "void": (0, 3)}
    edges = [("w", "in", "out"), ("loop", "one", "one"), ("empty", "out", "none"), ("void", "none", "out")]
    graph = fj.graph_from_edges({name: jnp.ones(shape) for name, shape in params.items()}, edges)
    assert graph.components == ({"in": 4, "out": 3},)


def test_entries_scattered_over_a_block_are_summed_and_those_outside_it_left_out() -> None:
    rows, columns = np.array([[0], [2], [1]], np.int32), np.array([[0, 1], [0, 1], [0, 2]], np.int32)
    places = Scattered(rows.tobytes(), columns.tobytes(), rows.shape, columns.shape)
    kernel = Effective((3, 2), np.dtype("float32"), ("w",))
    block = fj.EdgeBlock("w", "in", "out", (2, 2), Arrangement(kernel, scattered=places))
    groups = tuple(fj.UnitGroup(name, size) for name, size in (("out", 2), ("in", 2), ("beyond", 2)))
    other = fj.EdgeBlock("v", "beyond", "beyond", (2, 2))
    graph = fj.NetworkGraph(groups, (block, other))
    params = {"v": jnp.ones((2, 2)), "w": jnp.array([[1.0, -2.0], [3.0, 4.0], [5.0, 6.0]])}
    np.testing.assert_array_equal(fj.edge_blocks(graph, params)[0], [[1, 2], [5, 0]])
    assert graph.components == ({"in": 2, "out": 2}, {"beyond": 2})
    assert "(3, 2) entry by entry" in str(graph)
    twice = dataclasses.replace(places, columns=np.array([[0, 0], [0, 1], [1, 2]], np.int32).tobytes())
    block = dataclasses.replace(block, arrangement=Arrangement(kernel, scattered=twice))
    graph = dataclasses.replace(graph, blocks=(block, other))
    np.testing.assert_array_equal(fj.edge_blocks(graph, params)[0], [[3, 0], [0, 5]])
    assert graph.components == ({"in": 1, "out": 1}, {"in": 1, "out": 1}, {"beyond": 2})
