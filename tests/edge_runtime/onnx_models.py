"""Tiny real ONNX models for tests, written with onnx.helper."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

ONNX_TYPES = {
    "BOOL": TensorProto.BOOL,
    "UINT8": TensorProto.UINT8,
    "UINT16": TensorProto.UINT16,
    "UINT32": TensorProto.UINT32,
    "UINT64": TensorProto.UINT64,
    "INT8": TensorProto.INT8,
    "INT16": TensorProto.INT16,
    "INT32": TensorProto.INT32,
    "INT64": TensorProto.INT64,
    "FP16": TensorProto.FLOAT16,
    "BF16": TensorProto.BFLOAT16,
    "FP32": TensorProto.FLOAT,
    "FP64": TensorProto.DOUBLE,
    "BYTES": TensorProto.STRING,
}

Shape = Sequence[int | str]
Value = tuple[str, str, Shape]


def save(
    path: Path,
    nodes: Sequence[onnx.NodeProto],
    inputs: Sequence[Value],
    outputs: Sequence[Value],
    constants: Sequence[onnx.TensorProto] = (),
) -> Path:
    """Write a model; a text in a shape is a free dimension."""
    graph = helper.make_graph(
        nodes,
        "test",
        [helper.make_tensor_value_info(n, ONNX_TYPES[t], s) for n, t, s in inputs],
        [helper.make_tensor_value_info(n, ONNX_TYPES[t], s) for n, t, s in outputs],
        list(constants),
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    onnx.save_model(model, str(path))
    return path


def identity(path: Path, datatype: str, shape: Shape = ("n", 3)) -> Path:
    """y = x in one datatype."""
    node = helper.make_node("Identity", ["x"], ["y"])
    return save(path, [node], [("x", datatype, shape)], [("y", datatype, shape)])


def linear(path: Path, weights: NDArray[np.float32]) -> Path:
    """y = x W."""
    rows, columns = weights.shape
    return save(
        path,
        [helper.make_node("MatMul", ["x", "w"], ["y"])],
        [("x", "FP32", ("n", rows))],
        [("y", "FP32", ("n", columns))],
        [numpy_helper.from_array(weights, "w")],
    )


def slow(path: Path, turns: int = 1_000_000_000) -> Path:
    """y = x after a loop of so many turns: an execution that ends only when aborted."""
    count = numpy_helper.from_array(np.array(turns, dtype=np.int64), "turns")
    return _looping(path, [], [count])


def loop(path: Path) -> Path:
    """y = x after as many turns of a loop as the largest number in x says."""
    most = helper.make_node("ReduceMax", ["x"], ["most"], keepdims=0)
    return _looping(path, [most, helper.make_node("Cast", ["most"], ["turns"], to=7)], [])


def _looping(
    path: Path, before: Sequence[onnx.NodeProto], constants: Sequence[onnx.TensorProto]
) -> Path:
    body = helper.make_graph(
        [
            helper.make_node("Identity", ["going"], ["go_on"]),
            helper.make_node("Identity", ["value"], ["next"]),
        ],
        "body",
        [
            helper.make_tensor_value_info("turn", TensorProto.INT64, []),
            helper.make_tensor_value_info("going", TensorProto.BOOL, []),
            helper.make_tensor_value_info("value", TensorProto.FLOAT, ["n", 1]),
        ],
        [
            helper.make_tensor_value_info("go_on", TensorProto.BOOL, []),
            helper.make_tensor_value_info("next", TensorProto.FLOAT, ["n", 1]),
        ],
    )
    return save(
        path,
        [*before, helper.make_node("Loop", ["turns", "yes", "x"], ["y"], body=body)],
        [("x", "FP32", ("n", 1))],
        [("y", "FP32", ("n", 1))],
        [*constants, numpy_helper.from_array(np.array(True), "yes")],
    )
