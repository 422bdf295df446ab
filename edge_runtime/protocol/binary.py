"""Tensors as raw bytes: the form both transports share.

Fixed-size datatypes are the elements in row-major order, little-endian. BYTES is one 4-byte
little-endian length before each element (Triton's binary tensor extension). Every size is
checked against the bytes at hand before anything is allocated, and a fixed-size tensor stays
a read-only view on the buffer it came in.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence

import numpy as np

from edge_runtime.errors import InvalidInput
from edge_runtime.protocol.datatypes import BYTES, NUMPY, is_all_finite
from edge_runtime.protocol.types import Array, Tensor

MAX_DIMS = 32  # numpy 1.x; no model needs more
MAX_ELEMENTS = 2**40
MAX_EMPTY_ROWS = 2**16  # of a tensor without elements, whose bytes bound nothing

_LENGTH = struct.Struct("<I")
Buffer = bytes | bytearray | memoryview


def check_datatype(name: str, datatype: object) -> str:
    """Return datatype when it is one of the protocol's. Raises InvalidInput naming the tensor."""
    if not isinstance(datatype, str) or datatype not in NUMPY:
        raise InvalidInput(
            f"tensor '{name}': unknown datatype {_short(datatype)}",
            field=name,
            hint="use one of " + ", ".join(NUMPY),
        )
    return datatype


def check_shape(name: str, shape: Sequence[object]) -> int:
    """Return the number of elements of a shape. Raises InvalidInput naming the tensor."""
    if len(shape) > MAX_DIMS:
        raise InvalidInput(f"tensor '{name}': more than {MAX_DIMS} dimensions", field=name)
    count = 1
    rows = 1
    for dim in shape:
        if type(dim) is not int or dim < 0:
            raise InvalidInput(
                f"tensor '{name}': shape must be a list of non-negative integers", field=name
            )
        count *= dim
        rows *= dim or 1
        if rows > MAX_ELEMENTS:
            raise InvalidInput(f"tensor '{name}': shape is larger than any tensor", field=name)
    if not count and rows > MAX_EMPTY_ROWS:
        raise InvalidInput(f"tensor '{name}': shape of an empty tensor is too large", field=name)
    return count


def decode_raw(
    name: str,
    datatype: str,
    shape: Sequence[int],
    buffer: Buffer,
    *,
    allow_non_finite: bool = False,
) -> Tensor:
    """Read one tensor from exactly its bytes. Raises InvalidInput naming the tensor."""
    count = check_shape(name, shape)
    dtype = NUMPY[datatype]
    if datatype == BYTES:
        data: Array = _decode_bytes(name, count, buffer)
    else:
        expected = count * dtype.itemsize
        if len(buffer) != expected:
            raise InvalidInput(
                f"tensor '{name}': {datatype} of shape {list(shape)} takes {expected} bytes, "
                f"got {len(buffer)}",
                field=name,
            )
        data = np.frombuffer(buffer, dtype=dtype)
        if datatype == "BOOL" and count and int(data.view(np.uint8).max()) > 1:
            raise InvalidInput(f"tensor '{name}': BOOL bytes must be 0 or 1", field=name)
        data.flags.writeable = False
    check_finite(name, datatype, data, allow_non_finite)
    return Tensor(name, datatype, data.reshape(shape))


def check_finite(name: str, datatype: str, data: Array, allow_non_finite: bool) -> None:
    """Raise InvalidInput when a floating tensor holds NaN or infinity and may not."""
    if not allow_non_finite and not is_all_finite(datatype, data):
        raise InvalidInput(
            f"tensor '{name}': holds NaN or infinity",
            field=name,
            hint="clean the input, or allow it with the setting limits.allow_non_finite",
        )


def encode_raw(tensor: Tensor) -> bytes | memoryview:
    """Return a tensor's bytes, without a copy where it is already contiguous and fixed-size."""
    if tensor.datatype == BYTES:
        parts: list[bytes] = []
        for element in tensor.data.reshape(-1):
            raw = as_bytes(element)
            parts.append(_LENGTH.pack(len(raw)))
            parts.append(raw)
        return b"".join(parts)
    data = np.ascontiguousarray(tensor.data, dtype=NUMPY[tensor.datatype])
    return data.tobytes() if data.nbytes < 4096 else data.reshape(-1).view(np.uint8).data


def as_bytes(element: object) -> bytes:
    """Return one BYTES element as bytes; text becomes UTF-8."""
    if isinstance(element, bytes):
        return element
    if isinstance(element, str):
        return element.encode("utf-8")
    return bytes(element)  # type: ignore[call-overload,no-any-return]


def bytes_array(elements: Sequence[object], shape: Sequence[int]) -> Array:
    """Pack elements into the object array that BYTES tensors use."""
    data = np.empty(len(elements), dtype=np.object_)
    data[:] = elements
    return data.reshape(shape)


def _decode_bytes(name: str, count: int, buffer: Buffer) -> Array:
    view = memoryview(buffer)
    if count * _LENGTH.size > len(view):
        raise InvalidInput(
            f"tensor '{name}': {count} BYTES elements need more than {len(view)} bytes", field=name
        )
    elements: list[bytes] = []
    at = 0
    for index in range(count):
        if at + _LENGTH.size > len(view):
            raise InvalidInput(f"tensor '{name}': element {index} is cut off", field=name)
        (length,) = _LENGTH.unpack_from(view, at)
        at += _LENGTH.size
        if length > len(view) - at:
            raise InvalidInput(
                f"tensor '{name}': element {index} claims {length} bytes,"
                f" {len(view) - at} are left",
                field=name,
            )
        elements.append(bytes(view[at : at + length]))
        at += length
    if at != len(view):
        raise InvalidInput(
            f"tensor '{name}': {len(view) - at} bytes follow the last element", field=name
        )
    return bytes_array(elements, (count,))


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 40 else text[:37] + "..."
