"""The model that a cluster and its simulation serve, in the two forms of a mixed fleet.

On the processor it computes for a time that is asked for, with batches that pay: one part of the
work is the same for every batch, the rest grows with its rows. The fake accelerator takes its own
time whatever it runs, so its form computes next to nothing, and the machine is left to the others.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any, Final

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from cluster.home import Home
from cluster.registry import ArtifactFile, EmbeddedRegistry, ModelCard
from edge_runtime.backends.base import BackendOptions
from edge_runtime.backends.onnx import load_onnx
from edge_runtime.backends.ort import onnxruntime as ort
from load.fake_hailo.hef import compile_hef

MODEL: Final = "paced"
INSTANT: Final = "instant"
VERSION: Final = "1"
WIDTH: Final = 256
_ROWS: Final = 32  # of the matrix that a row of a batch becomes
_OPSET: Final = 17
_IR: Final = 8
_TRIES: Final = 30
_SOME: Final = 200  # products that are timed before their number is settled
_CALIBRATION_ROWS: Final = 16


def settle(root: Path, seconds: float, fixed: float) -> tuple[int, int]:
    """Return how many products a batch needs, and each of its rows, for that time here.

    seconds: of one row, undisturbed; fixed: the share of them that a batch takes once.
    """
    path = root / "timed.onnx"
    products = max(2.0, 2 * _SOME * seconds / _timed_s(path, _SOME, _SOME))
    shared = max(1, round(fixed * products))
    return shared, max(1, round(products - shared))


def register(root: Path, home: Home, shared: int, own: int) -> None:
    """Make the model and register it. shared, own: products of a batch, and of each row.

    Beside it one of the same form that takes no time, to find out what everything else takes.
    """
    computing, waiting, hef = root / "computing.onnx", root / "waiting.onnx", root / "waiting.hef"
    _save(computing, shared, own)
    _save(waiting, 0, 1)
    rows = np.random.default_rng(1).random((_CALIBRATION_ROWS, WIDTH), dtype=np.float32)
    hef.write_bytes(compile_hef(waiting, {"x": rows}, architecture="hailo8", network=MODEL))
    backend = load_onnx(computing, BackendOptions())
    signature = backend.signature
    backend.close()
    registry = EmbeddedRegistry(home.registry)
    for name, artifacts in (
        (MODEL, [ArtifactFile("onnx", computing), ArtifactFile("hef", hef, "hailo8")]),
        (INSTANT, [ArtifactFile("onnx", waiting)]),
    ):
        registry.register(
            name,
            VERSION,
            signature=signature,
            artifacts=artifacts,
            card=ModelCard("For the comparison of a cluster with its simulation"),
            actor="load.routing.fidelity",
        )


def _timed_s(path: Path, shared: int, own: int) -> float:
    """Write the model with so many products and return what a row takes, undisturbed."""
    _save(path, shared, own)
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    session: Any = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    row = np.ones((1, WIDTH), np.float32)
    taken: list[float] = []
    for _ in range(_TRIES):
        began = time.perf_counter()
        session.run(None, {"x": row})
        taken.append(time.perf_counter() - began)
    return sorted(taken)[_TRIES // 4]


def _save(path: Path, shared: int, own: int) -> None:
    """Write a model: `shared` products for a batch, `own` for each row of it."""
    rng = np.random.default_rng(7)
    weights = [
        numpy_helper.from_array(
            (rng.standard_normal((WIDTH, WIDTH)) / np.sqrt(WIDTH)).astype(np.float32), "weight"
        ),
        numpy_helper.from_array(rng.random((_ROWS, WIDTH), dtype=np.float32), "plane"),
        numpy_helper.from_array(np.array([1], np.int64), "one"),
    ]
    nodes = [
        helper.make_node("ReduceMean", ["x"], ["mean"], axes=[0], keepdims=1),
        helper.make_node("Add", ["mean", "plane"], ["shared0"]),
        helper.make_node("Unsqueeze", ["x", "one"], ["rows"]),
        helper.make_node("Add", ["rows", "plane"], ["own0"]),
    ]
    for name, count in (("shared", shared), ("own", own)):
        nodes += [
            helper.make_node("MatMul", [f"{name}{i}", "weight"], [f"{name}{i + 1}"])
            for i in range(count)
        ]
    nodes += [
        helper.make_node("ReduceMean", [f"shared{shared}"], ["all"], axes=[0], keepdims=1),
        helper.make_node("ReduceMean", [f"own{own}"], ["each"], axes=[1], keepdims=0),
        helper.make_node("Add", ["each", "all"], ["y"]),
    ]
    graph = helper.make_graph(
        nodes,
        MODEL,
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", WIDTH])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", WIDTH])],
        weights,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", _OPSET)])
    model.ir_version = _IR
    onnx.save(model, str(path))
