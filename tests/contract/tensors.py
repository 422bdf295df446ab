"""Tensors for the suites, and their bytes written down independently of the codec under test."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

NUMBERS: dict[str, type[np.generic]] = {
    "BOOL": np.bool_,
    "UINT8": np.uint8,
    "UINT16": np.uint16,
    "UINT32": np.uint32,
    "UINT64": np.uint64,
    "INT8": np.int8,
    "INT16": np.int16,
    "INT32": np.int32,
    "INT64": np.int64,
    "FP16": np.float16,
    "BF16": np.uint16,
    "FP32": np.float32,
    "FP64": np.float64,
}
DATATYPES = (*NUMBERS, "BYTES")
RAW_ONLY = ("FP16", "BF16")


@dataclass(frozen=True, slots=True, eq=False)
class Given:
    """A named tensor as a test states it; BF16 as bits, BYTES as an object array of bytes."""

    name: str
    datatype: str
    data: NDArray[Any]


def example(datatype: str) -> NDArray[Any]:
    """Return a [2, 3] tensor with the extremes of its datatype in it."""
    if datatype == "BYTES":
        data = np.empty((2, 3), np.object_)
        data[:] = [[b"", b"a", "ä€𝄞".encode()], [b"x" * 300, b" ", b"\n"]]
        return data
    kind = NUMBERS[datatype]
    if datatype == "BOOL":
        return np.array([[True, False, True], [False, False, True]])
    if datatype == "BF16":  # 0, -0, 1, -2.5, the largest, the smallest above zero
        return np.array([[0x0000, 0x8000, 0x3F80], [0xC020, 0x7F7F, 0x0001]], np.uint16)
    if datatype.startswith("FP"):
        found = np.finfo(kind)  # type: ignore[type-var]
        return np.array([[0, -0.0, 1.5], [found.max, found.min, found.tiny]], kind)
    bounds = np.iinfo(kind)  # type: ignore[type-var]
    return np.array([[0, 1, 2], [bounds.max, bounds.min, bounds.max // 3]], kind)


def raw(given: Given) -> bytes:
    """Return the little-endian elements; BYTES as length and data each."""
    if given.datatype == "BYTES":
        return b"".join(struct.pack("<I", len(e)) + e for e in given.data.reshape(-1))
    return given.data.astype(given.data.dtype.newbyteorder("<")).tobytes()


def from_raw(datatype: str, shape: list[int], data: bytes) -> NDArray[Any]:
    """Read what `raw` writes."""
    if datatype != "BYTES":
        kind = np.dtype(NUMBERS[datatype]).newbyteorder("<")
        return np.frombuffer(data, kind).reshape(shape)
    elements = []
    while data:
        (size,) = struct.unpack_from("<I", data)
        elements.append(data[4 : 4 + size])
        data = data[4 + size :]
    return objects(elements, shape)


def objects(elements: list[bytes], shape: list[int]) -> NDArray[Any]:
    data = np.empty(len(elements), np.object_)
    data[:] = elements
    return data.reshape(shape)


def json_numbers(given: Given) -> list[Any]:
    """Return the elements as JSON has them, flat."""
    flat = given.data.reshape(-1)
    if given.datatype == "BYTES":
        return [element.decode() for element in flat]
    if given.datatype == "BF16":
        return [float(x) for x in (flat.astype(np.uint32) << 16).view(np.float32)]
    return list(flat.tolist())


def from_json(datatype: str, shape: list[int], data: list[Any]) -> NDArray[Any]:
    """Read what `json_numbers` writes."""
    if datatype == "BYTES":
        return objects([text.encode() for text in data], shape)
    if datatype == "BF16":
        bits = np.array(data, np.float32).view(np.uint32) >> 16
        return bits.astype(np.uint16).reshape(shape)
    return np.array(data, NUMBERS[datatype]).reshape(shape)
