"""Runs a compiled network with ONNX Runtime, a frame at a time, quantised at the edges.

Inside it is the float model; what goes in and comes out is uint8 with a scale and a zero
point, so accuracy is that of uint8 inputs and outputs (a real device also quantises weights).
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

# Its telemetry is switched off before it is loaded, as in edge_runtime/backends/ort.py.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

import onnxruntime  # noqa: TID251

from .enums import FormatOrder, FormatType
from .hef import Hef, Stream

Bytes = NDArray[np.uint8]
Floats = NDArray[np.float32]


@dataclass
class Port:
    """A stream and the form in which the host wants its frames."""

    stream: Stream
    type: FormatType = FormatType.UINT8
    order: FormatOrder = FormatOrder.AUTO

    @property
    def frame_bytes(self) -> int:
        """Size of a frame's buffer."""
        return self.stream.elements * (4 if self.type is FormatType.FLOAT32 else 1)


class Network:
    """A network in the chip's memory."""

    def __init__(self, hef: Hef, inputs: Mapping[str, Port], outputs: Mapping[str, Port]) -> None:
        self.inputs = inputs
        self.outputs = outputs
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        options.log_severity_level = 3
        self._session: Any = onnxruntime.InferenceSession(
            hef.model, options, providers=["CPUExecutionProvider"]
        )

    def run(self, frame: Mapping[str, Bytes]) -> dict[str, Bytes]:
        """Compute one frame, by stream name: bytes of input buffers to bytes of output buffers."""
        feeds = {
            port.stream.tensor: _to_tensor(frame[name], port) for name, port in self.inputs.items()
        }
        wanted = [port.stream.tensor for port in self.outputs.values()]
        results: list[Floats] = self._session.run(wanted, feeds)
        return {
            name: _to_buffer(results[index], port)
            for index, (name, port) in enumerate(self.outputs.items())
        }


def _to_tensor(data: Bytes, port: Port) -> Floats:
    stream = port.stream
    is_float = port.type is FormatType.FLOAT32
    codes = _quantised(data.view(np.float32), stream) if is_float else data
    floats = _values(codes, stream)
    height, width, channels = stream.shape
    if stream.rank == 2:
        return floats.reshape(1, channels)
    if port.order is FormatOrder.NCHW:
        return floats.reshape(1, channels, height, width)
    nhwc = floats.reshape(1, height, width, channels)
    return np.ascontiguousarray(nhwc.transpose(0, 3, 1, 2))


def _to_buffer(values: Floats, port: Port) -> Bytes:
    stream = port.stream
    if stream.rank == 4 and port.order is not FormatOrder.NCHW:
        values = values.transpose(0, 2, 3, 1)
    codes = _quantised(values.reshape(-1), stream)
    if port.type is not FormatType.FLOAT32:
        return codes
    return _values(codes, stream).view(np.uint8)


def _values(codes: Bytes, stream: Stream) -> Floats:
    return (codes.astype(np.float32) - np.float32(stream.zero_point)) * np.float32(stream.scale)


def _quantised(values: Floats, stream: Stream) -> Bytes:
    codes = np.rint(values / np.float32(stream.scale)) + np.float32(stream.zero_point)
    clipped: Bytes = np.clip(codes, 0, 255).astype(np.uint8)
    return clipped
