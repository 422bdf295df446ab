"""Which operators an ONNX file uses, read from its bytes.

The format is Protocol Buffers: fields with a number and a wire type (protobuf.dev, "Encoding"),
with the numbers of onnx.proto. Weights are passed over unread.
"""

from __future__ import annotations

import mmap
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

# Theirs is the only work that depends on values and not on shapes alone. A Scan turns as often as
# its input is long.
CONTROL_FLOW: Final = frozenset(
    {"If", "Loop", "SequenceMap", "BeamSearch", "GreedySearch", "Sampling", "WhisperBeamSearch"}
)
# Field numbers on the ways from a model to the operators of its nodes.
_GRAPH_NODES: Final = (7, 1, 4)  # graph, node, op_type
_FUNCTION_NODES: Final = (25, 7, 4)  # functions, node, op_type
_VARINT, _FIXED_64, _BYTES, _FIXED_32 = 0, 1, 2, 5


def is_data_dependent(artifact: Path) -> bool:
    """Tell whether how much a model computes may depend on its inputs' values."""
    try:
        found = operators(artifact)
    except (OSError, ValueError):
        return True
    return bool(found & CONTROL_FLOW)


def operators(artifact: Path) -> set[str]:
    """Return the operators of a model's graph and functions; what is within an operator has one
    around it. Raises OSError, and ValueError for what is no such file.
    """
    with (
        artifact.open("rb") as file,
        mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data,
    ):
        return {
            data[begin:end].decode("utf-8")
            for way in (_GRAPH_NODES, _FUNCTION_NODES)
            for begin, end in _found(data, 0, len(data), way)
        }


def _found(data: mmap.mmap, begin: int, end: int, way: Sequence[int]) -> Iterator[tuple[int, int]]:
    """Yield where the fields lie that a way of field numbers leads to."""
    for number, first, last in _fields(data, begin, end):
        if number != way[0]:
            continue
        if len(way) == 1:
            yield first, last
        else:
            yield from _found(data, first, last, way[1:])


def _fields(data: mmap.mmap, at: int, end: int) -> Iterator[tuple[int, int, int]]:
    """Yield number, begin and end of each field that has a length. Raises ValueError."""
    while at < end:
        tag, at = _varint(data, at, end)
        kind = tag & 7
        if kind == _VARINT:
            _, at = _varint(data, at, end)
        elif kind == _FIXED_64:
            at += 8
        elif kind == _FIXED_32:
            at += 4
        elif kind == _BYTES:
            length, at = _varint(data, at, end)
            if at + length > end:
                raise ValueError("a field ends behind what it is part of")
            yield tag >> 3, at, at + length
            at += length
        else:
            raise ValueError(f"a field of wire type {kind}")


def _varint(data: mmap.mmap, at: int, end: int) -> tuple[int, int]:
    """Return a number and where it ends. Raises ValueError."""
    value = 0
    for shift in range(0, 70, 7):
        if at >= end:
            break
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
    raise ValueError("a number does not end")
