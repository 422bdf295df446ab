"""OIP datatypes: their numpy form, their size on the wire, their bounds.

Source: Open Inference Protocol v2, "Tensor Data Types"; BF16 and BYTES as in Triton's binary
tensor extension. BF16 has no numpy type: its 16 bits are carried as uint16 and widened to
float32 (the same bits, shifted) where numbers are needed.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from edge_runtime.protocol.types import Array

BYTES: Final = "BYTES"
BF16: Final = "BF16"

NUMPY: Final[dict[str, np.dtype[np.generic]]] = {
    "BOOL": np.dtype(np.bool_),
    "UINT8": np.dtype("<u1"),
    "UINT16": np.dtype("<u2"),
    "UINT32": np.dtype("<u4"),
    "UINT64": np.dtype("<u8"),
    "INT8": np.dtype("<i1"),
    "INT16": np.dtype("<i2"),
    "INT32": np.dtype("<i4"),
    "INT64": np.dtype("<i8"),
    "FP16": np.dtype("<f2"),
    "BF16": np.dtype("<u2"),
    "FP32": np.dtype("<f4"),
    "FP64": np.dtype("<f8"),
    "BYTES": np.dtype(np.object_),
}

FLOATS: Final = frozenset({"FP16", "BF16", "FP32", "FP64"})
INTEGERS: Final = frozenset(name for name in NUMPY if name.startswith(("INT", "UINT")))


def item_size(datatype: str) -> int | None:
    """Return the bytes of one element, or None for BYTES, whose elements vary."""
    return None if datatype == BYTES else NUMPY[datatype].itemsize


def to_bf16(values: NDArray[np.float32]) -> NDArray[np.uint16]:
    """Round float32 to the nearest bfloat16, ties to even, and return its bits.

    NaN stays NaN. Source: the rounding of IEEE 754-2019, section 4.3.1, on the upper 16 bits.
    """
    bits = np.ascontiguousarray(values, dtype=np.float32).view(np.uint32)
    rounded = ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16)
    is_nan = (bits & 0x7FFFFFFF) > 0x7F800000
    return np.where(is_nan, np.uint16(0x7FC0), rounded).astype(np.uint16)


def from_bf16(bits: Array) -> NDArray[np.float32]:
    """Widen bfloat16 bits to float32, exactly."""
    wide = bits.astype(np.uint32) << np.uint32(16)
    return wide.view(np.float32)


def is_all_finite(datatype: str, data: Array) -> bool:
    """True unless a floating tensor holds NaN or infinity."""
    if datatype not in FLOATS or data.size == 0:
        return True
    if datatype == BF16:
        bits = data.astype(np.uint16, copy=False)
        return not bool(np.any((bits & np.uint16(0x7F80)) == np.uint16(0x7F80)))
    return bool(np.isfinite(data).all())


def numbers(datatype: str, data: Array) -> Array:
    """Return data as plain numpy numbers (BF16 widened), for JSON and for comparisons."""
    return from_bf16(data) if datatype == BF16 else data
