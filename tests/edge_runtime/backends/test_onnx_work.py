from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper

from edge_runtime.backends.onnx_work import SIZES, is_data_dependent, read
from tests.contract.models import write_models
from tests.edge_runtime import onnx_models


def operators(path: Path) -> set[str]:
    graph = read(path)
    return {node.operator for node in (*graph.nodes, *graph.functions)}


def test_the_graph_is_read_as_onnx_reads_it(tmp_path: Path) -> None:
    compared = 0
    for source in write_models(tmp_path):
        path = source.variants[0].path
        if source.model == "broken":
            assert is_data_dependent(path)
            continue
        graph, found = onnx.load(path).graph, read(path)
        assert [(n.operator, list(n.inputs), list(n.outputs)) for n in found.nodes] == [
            (node.op_type, list(node.input), list(node.output)) for node in graph.node
        ]
        assert found.inputs == {value.name for value in graph.input}
        assert is_data_dependent(path) == (source.model == "slow")
        compared += 1
    assert compared > 10


def test_weights_are_passed_over(tmp_path: Path) -> None:
    looks_like_a_node = b"\x0a\x06\x22\x04Loop" * 4
    weights = np.frombuffer(looks_like_a_node, np.float32).reshape(2, -1)
    path = onnx_models.linear(tmp_path / "m.onnx", weights)
    assert b"Loop" in path.read_bytes()
    assert operators(path) == {"MatMul"}
    assert not is_data_dependent(path)


def sized(path: Path, nodes: list[onnx.NodeProto]) -> Path:
    """A model with input x, [n, 2], and constant c."""
    floats = [helper.make_tensor_value_info(name, 1, ["n", 2]) for name in ("x", "y")]
    constant = helper.make_tensor("c", TensorProto.INT64, [2], [3, 3])
    as_input = helper.make_tensor_value_info("c", TensorProto.INT64, [2])  # as older files have it
    graph = helper.make_graph(nodes, "g", [floats[0], as_input], floats[1:], [constant])
    onnx.save(helper.make_model(graph), path)
    return path


@pytest.mark.parametrize(("operator", "positions"), SIZES.items(), ids=list(SIZES))
def test_a_size_that_an_input_s_values_give_depends_on_data(
    operator: str, positions: tuple[int, ...], tmp_path: Path
) -> None:
    for position in positions:
        for before, size, depends in (
            ([("Cast", "x", "size")], "size", True),
            ([("Cast", "x", "a"), ("Identity", "a", "size")], "size", True),
            ([("Shape", "x", "size")], "size", False),
            ([], "c", False),
        ):
            nodes = [helper.make_node(name, [takes], [gives]) for name, takes, gives in before]
            inputs = [""] * position + [size]
            nodes.append(helper.make_node(operator, inputs, ["y"]))
            assert is_data_dependent(sized(tmp_path / "m.onnx", nodes)) == depends


def test_the_size_of_what_is_only_made_larger_does_not(tmp_path: Path) -> None:
    nodes = [helper.make_node("Tile", ["x", "c"], ["y"])]
    assert not is_data_dependent(sized(tmp_path / "m.onnx", nodes))


def test_a_loop_depends_on_data(tmp_path: Path) -> None:
    assert is_data_dependent(onnx_models.loop(tmp_path / "m.onnx"))


def test_a_branch_within_a_function_depends_on_data(tmp_path: Path) -> None:
    def branch(name: str, operator: str) -> onnx.GraphProto:
        node = helper.make_node(operator, ["a"], [name])
        return helper.make_graph([node], name, [], [helper.make_tensor_value_info(name, 1, None)])

    nodes = [
        helper.make_node("ReduceMax", ["a"], ["most"], keepdims=0),
        helper.make_node("Cast", ["most"], ["is_any"], to=TensorProto.BOOL),
        helper.make_node(
            "If", ["is_any"], ["b"], then_branch=branch("t", "Exp"), else_branch=branch("e", "Neg")
        ),
    ]
    opset = [helper.make_opsetid("", 17)]
    chooses = helper.make_function("own", "Chooses", ["a"], ["b"], nodes, opset)
    floats = [helper.make_tensor_value_info(name, 1, ["n", 2]) for name in ("x", "y")]
    graph = helper.make_graph(
        [helper.make_node("Chooses", ["x"], ["y"], domain="own")], "g", floats[:1], floats[1:]
    )
    model = helper.make_model(
        graph, functions=[chooses], opset_imports=[*opset, helper.make_opsetid("own", 1)]
    )
    onnx.save(model, tmp_path / "m.onnx")
    assert operators(tmp_path / "m.onnx") == {"Chooses", "ReduceMax", "Cast", "If"}
    assert is_data_dependent(tmp_path / "m.onnx")


@given(data=st.binary(min_size=1, max_size=60) | st.integers(1, 150))
def test_what_cannot_be_read_may_depend_on_data(
    tmp_path_factory: pytest.TempPathFactory, data: bytes | int
) -> None:
    path = tmp_path_factory.getbasetemp() / "damaged.onnx"
    if isinstance(data, int):  # a model that ends early
        whole = onnx_models.loop(path).read_bytes()
        data = whole[: data % len(whole) or 1]
    path.write_bytes(data)
    try:
        read(path)
    except ValueError:
        assert is_data_dependent(path)


def test_no_file_and_an_empty_one_may_depend_on_data(tmp_path: Path) -> None:
    (tmp_path / "empty.onnx").touch()
    assert is_data_dependent(tmp_path / "empty.onnx")
    assert is_data_dependent(tmp_path / "none.onnx")
