"""A tiny model under two names: with room for all requests at any place, and with little.

What a run takes in the cloud is set by `load.waiting`, and on the box by the fake device, so that
two processors are enough for all of it. `QUICK` puts several requests into a run, `PACED` one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

import numpy as np

from edge_runtime.backends.base import BackendOptions
from edge_runtime.backends.onnx import load_onnx
from edge_runtime.packages import Incoming
from edge_runtime.protocol.types import Signature
from load.fake_hailo.hef import compile_hef
from load.oip import Payload, Rows

QUICK: Final = "quick"
PACED: Final = "paced"
TARGET: Final = "hailo8"
COLUMNS: Final = 16
MODELS: Final[Mapping[str, Mapping[str, int]]] = {
    QUICK: {"max_batch_size": 8, "instances": 1},
    PACED: {"max_batch_size": 1, "instances": 1},
}
_SEED: Final = 7


def build(folder: Path) -> list[Incoming]:
    """Write the model, for a processor and for the device; return its artifacts."""
    folder.mkdir(parents=True, exist_ok=True)
    onnx, hef = folder / "turn.onnx", folder / "turn.hef"
    _write(onnx)
    hef.write_bytes(compile_hef(onnx, {"x": _rows(64)}, architecture=TARGET))
    return [Incoming("onnx", onnx), Incoming("hef", hef, TARGET)]


def signature(artifacts: Sequence[Incoming]) -> Signature:
    """Return what the model takes and gives, for whoever gets no ONNX file to see it in."""
    (onnx,) = (each.path for each in artifacts if each.format == "onnx")
    backend = load_onnx(onnx, BackendOptions())
    try:
        return backend.signature
    finally:
        backend.close()


def payload(model: str) -> Payload:
    """Return a request of one row."""
    return Payload(model, "x", _rows(1))


def _rows(count: int) -> Rows:
    return np.random.default_rng(_SEED).random((count, COLUMNS), dtype=np.float32)


def _write(path: Path) -> None:
    """y = tanh(x W)."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    weights = np.random.default_rng(_SEED).normal(0, 0.3, (COLUMNS, COLUMNS)).astype(np.float32)
    shape: list[str | int | None] = ["n", COLUMNS]
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["z"]), helper.make_node("Tanh", ["z"], ["y"])],
        "turn",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, shape)],
        [numpy_helper.from_array(weights, "w")],
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    onnx.save_model(made, str(path))
