"""Small ONNX models that the protocol's suites are asked over."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from edge_runtime.engine import ModelOptions, ModelSource
from edge_runtime.protocol.datatypes import NUMPY

ELEMENT_TYPES = {
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
FEATURES, CLASSES, WIDTH = 4, 3, 16
MATRIX = 192  # a step of `slow` multiplies two square matrices of this size


def mlp_weights() -> tuple[np.ndarray, np.ndarray]:
    """Return the weights of `mlp`, so that a test can compute what it should answer."""
    rng = np.random.default_rng(7)
    hidden = rng.standard_normal((FEATURES, WIDTH)).astype(np.float32)
    return hidden, rng.standard_normal((WIDTH, CLASSES)).astype(np.float32)


def write_models(folder: Path) -> Sequence[ModelSource]:
    """Write every model of the suites into folder and return what to load."""
    models = {f"identity_{name}": _identity(ELEMENT_TYPES[name]) for name in NUMPY}
    models |= {"add_sub": _add_sub(), "mlp": _mlp(), "fixed": _fixed(), "log": _log()}
    models["slow"] = _slow()
    sources: list[ModelSource] = []
    for name, model in models.items():
        path = folder / f"{name}.onnx"
        onnx.save(model, path)
        sources.append(ModelSource.of(name, "1", path, "onnx", ModelOptions()))
    newer = ModelSource.of("add_sub", "2", folder / "add_sub.onnx", "onnx", ModelOptions())
    broken = folder / "broken.onnx"
    broken.write_bytes(b"this is not a model")
    return (*sources, newer, ModelSource.of("broken", "1", broken, "onnx", ModelOptions()))


def _identity(element: int) -> onnx.ModelProto:
    x = helper.make_tensor_value_info("x", element, ["n", "d"])
    y = helper.make_tensor_value_info("y", element, ["n", "d"])
    return _model([helper.make_node("Identity", ["x"], ["y"])], [x], [y])


def _add_sub() -> onnx.ModelProto:
    a, b, total, rest = (_floats(name, ["n", "d"]) for name in ("a", "b", "sum", "difference"))
    nodes = [
        helper.make_node("Add", ["a", "b"], ["sum"]),
        helper.make_node("Sub", ["a", "b"], ["difference"]),
    ]
    return _model(nodes, [a, b], [total, rest])


def _mlp() -> onnx.ModelProto:
    hidden, out = mlp_weights()
    nodes = [
        helper.make_node("MatMul", ["x", "w1"], ["h"]),
        helper.make_node("Relu", ["h"], ["r"]),
        helper.make_node("MatMul", ["r", "w2"], ["scores"]),
    ]
    weights = [numpy_helper.from_array(hidden, "w1"), numpy_helper.from_array(out, "w2")]
    x, scores = _floats("x", ["n", FEATURES]), _floats("scores", ["n", CLASSES])
    return _model(nodes, [x], [scores], weights)


def _fixed() -> onnx.ModelProto:
    x = helper.make_tensor_value_info("x", TensorProto.INT32, [2, 3])
    y = helper.make_tensor_value_info("y", TensorProto.INT32, [2, 3])
    return _model([helper.make_node("Neg", ["x"], ["y"])], [x], [y])


def _log() -> onnx.ModelProto:
    nodes = [helper.make_node("Log", ["x"], ["y"])]
    return _model(nodes, [_floats("x", ["n", "d"])], [_floats("y", ["n", "d"])])


def _slow() -> onnx.ModelProto:
    """Multiply matrices as often as the input `steps` says: work of a length a test chooses."""
    matrix = np.eye(MATRIX, dtype=np.float32)
    body = helper.make_graph(
        [
            helper.make_node("MatMul", ["before", "matrix"], ["after"]),
            helper.make_node("Identity", ["go"], ["still"]),
        ],
        "step",
        [
            helper.make_tensor_value_info("i", TensorProto.INT64, []),
            helper.make_tensor_value_info("go", TensorProto.BOOL, []),
            _floats("before", [MATRIX, MATRIX]),
        ],
        [
            helper.make_tensor_value_info("still", TensorProto.BOOL, []),
            _floats("after", [MATRIX, MATRIX]),
        ],
    )
    nodes = [
        helper.make_node("Squeeze", ["steps", "first"], ["count"]),
        helper.make_node("Loop", ["count", "", "matrix"], ["product"], body=body),
        helper.make_node("ReduceSum", ["product"], ["trace"], keepdims=0),
        helper.make_node("Reshape", ["trace", "one"], ["y"]),
    ]
    constants = [
        numpy_helper.from_array(matrix, "matrix"),
        numpy_helper.from_array(np.array([0], np.int64), "first"),
        numpy_helper.from_array(np.array([1], np.int64), "one"),
    ]
    steps = helper.make_tensor_value_info("steps", TensorProto.INT64, [1])
    return _model(nodes, [steps], [_floats("y", [1])], constants)


def _floats(name: str, shape: Sequence[int | str]) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)


def _model(
    nodes: Sequence[onnx.NodeProto],
    inputs: Sequence[onnx.ValueInfoProto],
    outputs: Sequence[onnx.ValueInfoProto],
    constants: Sequence[onnx.TensorProto] = (),
) -> onnx.ModelProto:
    graph = helper.make_graph(nodes, "graph", inputs, outputs, constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=10)
    onnx.checker.check_model(model)
    return model
