"""Compiles ONNX models into the fake's HEF files, as the vendor's compiler does for real ones.

Such a file is for one chip and one compiler version, its streams are uint8 in NHWC, and their
scales and zero points come from calibration rows. The layout of the file is described where it
is read, in `driver/hailo_platform/_native/hef.py`; a package manifest can be filled from
`describe_hef`.
"""

from __future__ import annotations

import hashlib
import json
import re
import struct
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from edge_runtime.backends.ort import onnxruntime

Architecture = Literal["hailo8", "hailo8l", "hailo10h"]
Floats = NDArray[np.float32]

MAGIC = b"\x01HEF"
_VERSION = 1
_HEADER = struct.Struct(">4sIIQ32s")
# The compiler of the last 4.x library, and that of the Hailo-10H's.
_COMPILERS: Mapping[Architecture, str] = {
    "hailo8": "3.33.0",
    "hailo8l": "3.33.0",
    "hailo10h": "5.2.0",
}


@dataclass(frozen=True, slots=True)
class HefStream:
    """One input or output.

    name: the device's; tensor and rank: the model's, 4 for NCHW and 2 for (N, C); shape: height,
    width, channels, and (1, 1, C) for rank 2; value = (code - zero_point) * scale.
    """

    name: str
    tensor: str
    rank: int
    shape: tuple[int, int, int]
    dtype: str
    order: str
    scale: float
    zero_point: int
    is_nms: bool


@dataclass(frozen=True, slots=True)
class HefDescription:
    """What a HEF says of itself."""

    network: str
    architecture: str
    compiler_version: str
    inputs: tuple[HefStream, ...]
    outputs: tuple[HefStream, ...]


def compile_hef(
    onnx_path: Path,
    calibration: Mapping[str, NDArray[Any]],
    *,
    architecture: Architecture,
    network: str = "",
    compiler_version: str = "",
) -> bytes:
    """Compile a model of float32 tensors, (N, C, H, W) or (N, C), with a free first dimension.

    calibration: rows for every input in the model's own layout; the ranges of inputs and
    outputs over them become the streams' scales. network: the file's name if left out.
    Raises ValueError for a model or for rows that do not fit.
    """
    model = onnx_path.read_bytes()
    network = network or _identifier(onnx_path.stem)
    session: Any = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    rows = {i.name: _rows(i.name, calibration) for i in session.get_inputs()}
    if len({len(values) for values in rows.values()}) != 1:
        raise ValueError("every input needs the same number of calibration rows")
    inputs = [
        _stream(f"{network}/input_layer{number}", tensor.name, tensor.type, rows[tensor.name])
        for number, tensor in enumerate(session.get_inputs(), 1)
    ]
    outputs = [
        _stream(f"{network}/{_identifier(tensor.name)}{number}", tensor.name, tensor.type, values)
        for number, (tensor, values) in enumerate(
            zip(session.get_outputs(), _run_each(session, rows), strict=True), 1
        )
    ]
    compiler = compiler_version or _COMPILERS[architecture]
    described = HefDescription(network, architecture, compiler, tuple(inputs), tuple(outputs))
    return pack_hef(described, model)


def pack_hef(description: HefDescription, model: bytes) -> bytes:
    """The bytes of a HEF with this description and this ONNX model."""
    text = json.dumps(asdict(description)).encode()
    body = text + model
    digest = hashlib.sha256(body).digest()
    return _HEADER.pack(MAGIC, _VERSION, len(text), len(model), digest) + body


def describe_hef(hef: bytes) -> HefDescription:
    """Read the description of a HEF that `compile_hef` made."""
    _, _, text_size, _, _ = _HEADER.unpack_from(hef)
    text = json.loads(hef[_HEADER.size : _HEADER.size + text_size])
    return HefDescription(
        text["network"],
        text["architecture"],
        text["compiler_version"],
        *(
            tuple(HefStream(**{**s, "shape": tuple(s["shape"])}) for s in text[side])
            for side in ("inputs", "outputs")
        ),
    )


def _rows(name: str, calibration: Mapping[str, NDArray[Any]]) -> Floats:
    if name not in calibration or not len(calibration[name]):
        raise ValueError(f"no calibration rows for the input {name!r}")
    return np.asarray(calibration[name], dtype=np.float32)


def _run_each(session: Any, rows: Mapping[str, Floats]) -> Sequence[Floats]:
    count = len(next(iter(rows.values())))
    results = [
        session.run(None, {name: values[n : n + 1] for name, values in rows.items()})
        for n in range(count)
    ]
    return [np.concatenate(of_one_output) for of_one_output in zip(*results, strict=True)]


def _stream(name: str, tensor: str, kind: str, rows: Floats) -> HefStream:
    if kind != "tensor(float)" or rows.ndim not in (2, 4):
        raise ValueError(
            f"{tensor!r} is {kind} of {rows.ndim} dimensions; float of 2 or 4 compiles"
        )
    channels = rows.shape[1]
    height, width = rows.shape[2:] if rows.ndim == 4 else (1, 1)
    # Zero is within the range, so that padding and ReLU stay exact.
    low, high = min(0.0, float(rows.min())), max(0.0, float(rows.max()))
    scale = (high - low) / 255 or 1.0
    return HefStream(
        name=name,
        tensor=tensor,
        rank=rows.ndim,
        shape=(height, width, channels),
        dtype="uint8",
        order="NHWC",
        scale=scale,
        zero_point=round(-low / scale),
        is_nms=False,
    )


def _identifier(text: str) -> str:
    return re.sub(r"\W+", "_", text).strip("_")
