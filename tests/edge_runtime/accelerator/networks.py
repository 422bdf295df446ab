"""Small networks, compiled for the fake, and what they answer with uint8 inputs and outputs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from edge_runtime.accelerator.wire import Field, Slots
from edge_runtime.backends.ort import onnxruntime
from edge_runtime.engine.runner import ModelOptions
from edge_runtime.engine.source import ModelSource, Variant
from edge_runtime.protocol.types import InferRequest, RequestedOutput, Tensor
from load.fake_hailo.device import MARKER
from load.fake_hailo.hef import (
    Architecture,
    HefDescription,
    HefStream,
    compile_hef,
    describe_hef,
    pack_hef,
)
from tests.edge_runtime.onnx_models import save

Floats = NDArray[np.float32]

IMAGE = (2, 5, 3)  # channels, height, width: no two the same
MAP = (3, 5, 3)
CLASSES = 4


@dataclass(frozen=True)
class Compiled:
    """x: [n, 2, 5, 3] to map: [n, 3, 5, 3] and scores: [n, 4]."""

    onnx: Path
    hef: Path
    architecture: Architecture

    def images(self, rows: int, seed: int = 0) -> Floats:
        """Images inside the range that it is calibrated for."""
        return _images(rows, seed)

    def exact(self, x: Floats) -> dict[str, Floats]:
        """What the processor makes of it."""
        names = [stream.tensor for stream in _described(self.hef).outputs]
        return dict(zip(names, _session(self.onnx).run(names, {"x": x}), strict=True))

    def answers(self, x: Floats) -> dict[str, Floats]:
        """What uint8 inputs and outputs make of it."""
        described = _described(self.hef)
        exact = self.exact(through(described.inputs[0], x))
        return {
            stream.tensor: through(stream, exact[stream.tensor]) for stream in described.outputs
        }

    def marks(self) -> dict[str, float]:
        """What an output full of the marker of failed jobs would read."""
        return {
            stream.tensor: (MARKER - stream.zero_point) * stream.scale
            for stream in _described(self.hef).outputs
        }

    def steps(self) -> dict[str, float]:
        """The distance between two values of each output."""
        return {stream.tensor: stream.scale for stream in _described(self.hef).outputs}

    def source(self, name: str = "m", version: str = "1", **options: Any) -> ModelSource:
        return ModelSource(
            name,
            version,
            (Variant("onnx", self.onnx), Variant("hef", self.hef, self.architecture)),
            ModelOptions(**options),
        )

    def slots(self, max_rows: int = 4, count: int = 3) -> Slots:
        outputs = [Field("map", "FP32", MAP), Field("scores", "FP32", (CLASSES,))]
        return Slots([Field("x", "FP32", IMAGE)], outputs, max_rows, count)


def request(x: Floats, *outputs: str, model: str = "m") -> InferRequest:
    wanted = tuple(RequestedOutput(name) for name in outputs)
    return InferRequest(model, None, (Tensor("x", "FP32", x),), wanted)


def through(stream: HefStream, values: Floats) -> Floats:
    """Quantise and back."""
    scale, zero_point = np.float32(stream.scale), np.float32(stream.zero_point)
    codes = np.clip(np.rint(values / scale) + zero_point, 0, 255)
    found: Floats = (codes - zero_point) * scale
    return found


def make(
    folder: Path, architecture: Architecture = "hailo8", seed: int = 1, width: int = 0
) -> Compiled:
    """Write a network. width: channels in its middle, which make it slow on a processor."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    channels = [IMAGE[0], *([width] * 2 if width else []), MAP[0]]
    names = ["x", *(f"hidden{n}" for n in range(len(channels) - 2)), "map"]
    layers = list(zip(names, names[1:], channels, channels[1:], strict=False))
    kernels = [
        rng.normal(size=(wide, narrow, 3, 3), scale=1 / np.sqrt(narrow)).astype(np.float32)
        for _, _, narrow, wide in layers
    ]
    weights = rng.normal(size=(MAP[0], CLASSES)).astype(np.float32)
    onnx = save(
        folder / "net.onnx",
        [
            *(
                helper.make_node("Conv", [given, f"k{n}"], [found], pads=[1, 1, 1, 1])
                for n, (given, found, _, _) in enumerate(layers)
            ),
            helper.make_node("GlobalAveragePool", ["map"], ["pooled"]),
            helper.make_node("Flatten", ["pooled"], ["flat"]),
            helper.make_node("MatMul", ["flat", "w"], ["scores"]),
        ],
        [("x", "FP32", ("n", *IMAGE))],
        [("map", "FP32", ("n", *MAP)), ("scores", "FP32", ("n", CLASSES))],
        [
            *(numpy_helper.from_array(kernel, f"k{n}") for n, kernel in enumerate(kernels)),
            numpy_helper.from_array(weights, "w"),
        ],
    )
    hef = folder / "net.hef"
    hef.write_bytes(compile_hef(onnx, {"x": _images(32, 99)}, architecture=architecture))
    return Compiled(onnx, hef, architecture)


def with_outputs(net: Compiled, path: Path, **changes: Any) -> Path:
    """Write the HEF anew, with other words about its first output."""
    described = _described(net.hef)
    first = replace(described.outputs[0], **changes)
    path.write_bytes(
        pack_hef(replace(described, outputs=(first, *described.outputs[1:])), net.onnx.read_bytes())
    )
    return path


def assert_right(net: Compiled, x: Floats, found: Mapping[str, NDArray[Any]]) -> None:
    """Compare with what uint8 makes of it; a value between two steps may fall to either."""
    expected, steps, marks = net.answers(x), net.steps(), net.marks()
    for name, values in found.items():
        assert values.shape == expected[name].shape
        assert np.abs(values - expected[name]).max() <= 1.01 * steps[name]
        assert not np.allclose(values, marks[name])


def assert_exact(net: Compiled, x: Floats, found: Mapping[str, NDArray[Any]]) -> None:
    """Compare with what the processor makes of it."""
    expected = net.exact(x)
    for name, values in found.items():
        assert np.allclose(values, expected[name], rtol=1e-3, atol=1e-3)


@cache
def _session(onnx: Path) -> Any:
    return onnxruntime.InferenceSession(str(onnx), providers=["CPUExecutionProvider"])


@cache
def _described(hef: Path) -> HefDescription:
    return describe_hef(hef.read_bytes())


def _images(rows: int, seed: int) -> Floats:
    return np.random.default_rng(seed).uniform(-1.0, 3.0, (rows, *IMAGE)).astype(np.float32)
