"""Whether an ONNX model's work depends on the values it is given, read from its bytes.

What depends on shapes alone takes the same time for every request of a shape. A loop may turn as
often as an input says, and an operator may make a tensor as large as one says, or look at as much
of one as is not zero.

The format is Protocol Buffers: fields with a number and a wire type (protobuf.dev, "Encoding"),
with the numbers of onnx.proto. Weights are passed over unread.
"""

from __future__ import annotations

import mmap
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

CONTROL_FLOW: Final = frozenset(
    {
        "BeamSearch",
        "GreedySearch",
        "If",
        "Loop",
        "Sampling",
        "Scan",  # for what may be in its body
        "SequenceMap",
        "WhisperBeamSearch",
    }
)
# The inputs, by position, whose values say how much there is to do; ONNX's operators and those of
# ONNX Runtime's own domain.
SIZES: Final[Mapping[str, tuple[int, ...]]] = {
    "AffineGrid": (1,),
    "BlackmanWindow": (0,),
    "CenterCropPad": (1,),
    "Col2Im": (1, 2),
    "Compress": (1,),
    "ConstantOfShape": (0,),
    "ConvTransposeWithDynamicPads": (2,),
    "CropAndResize": (1, 3),
    "DFT": (1,),
    "Expand": (1,),
    "GRU": (4,),
    "GroupQueryAttention": (5, 6),
    "HammingWindow": (0,),
    "HannWindow": (0,),
    "LSTM": (4,),
    "MaxRoiPool": (1,),
    "MaxUnpool": (2,),
    "MelWeightMatrix": (0, 1),
    "NonMaxSuppression": (0, 1, 2),
    "NonZero": (0,),
    "OneHot": (1,),
    "Pad": (1,),
    "RNN": (4,),
    "Range": (0, 1, 2),
    "RelativePositionBias": (1, 2),
    "Resize": (1, 2, 3),
    "RoiAlign": (1,),
    "STFT": (1, 3),
    "Slice": (1, 2, 4),
    "Split": (1,),
    "SplitToSequence": (1,),
    "StringSplit": (0,),
    "Tile": (1, 2),
    "TopK": (1,),
    "Unique": (0,),
    "Upsample": (1,),
}
OF_SHAPES: Final = frozenset({"Shape", "Size"})  # what they give does not depend on values

# Field numbers of onnx.proto, and wire types.
_MODEL_GRAPH, _MODEL_FUNCTIONS = 7, 25
_GRAPH_NODES, _GRAPH_INITIALIZERS, _GRAPH_INPUTS = 1, 5, 11
_FUNCTION_NODES: Final = 7
_NODE_INPUTS, _NODE_OUTPUTS, _NODE_OPERATOR = 1, 2, 4
_TENSOR_NAME, _VALUE_NAME = 8, 1
_VARINT, _FIXED_64, _BYTES, _FIXED_32 = 0, 1, 2, 5


@dataclass(frozen=True, slots=True)
class Node:
    """An operator, with the names of what it takes ('' where that is left out) and gives."""

    operator: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Graph:
    """inputs: those without a value of their own; functions: nodes of the model's functions."""

    inputs: frozenset[str]
    nodes: tuple[Node, ...]
    functions: tuple[Node, ...]


def is_data_dependent(artifact: Path) -> bool:
    """Tell whether how much a model computes may depend on its inputs' values."""
    try:
        graph = read(artifact)
    except (OSError, ValueError):
        return True
    if any(node.operator in CONTROL_FLOW for node in (*graph.nodes, *graph.functions)):
        return True
    given = _given(graph)
    sizes = {
        node.inputs[at]
        for node in graph.nodes
        for at in SIZES.get(node.operator, ())
        if at < len(node.inputs)
    }
    return bool(given & sizes) or any(node.operator in SIZES for node in graph.functions)


def _given(graph: Graph) -> set[str]:
    """Return what holds values of the inputs, or what is computed from them."""
    given = set(graph.inputs)
    before = -1
    while len(given) > before:  # nodes may stand in any order
        before = len(given)
        for node in graph.nodes:
            if node.operator not in OF_SHAPES and given.intersection(node.inputs):
                given.update(name for name in node.outputs if name)
    return given


def read(artifact: Path) -> Graph:
    """Return a model's operators; what is within an operator has that one around it.

    Raises OSError, and ValueError for what is no such file.
    """
    inputs: set[str] = set()
    valued: set[str] = set()
    nodes: list[Node] = []
    functions: list[Node] = []
    with (
        artifact.open("rb") as file,
        mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data,
    ):
        parts = list(_fields(data, 0, len(data)))
        if not any(part == _MODEL_GRAPH for part, _, _ in parts):
            raise ValueError("there is no graph in it")
        for part, begin, end in parts:
            if part == _MODEL_FUNCTIONS:
                functions += _nodes(data, begin, end, _FUNCTION_NODES)
            elif part == _MODEL_GRAPH:
                nodes += _nodes(data, begin, end, _GRAPH_NODES)
                inputs.update(_names(data, begin, end, _GRAPH_INPUTS, _VALUE_NAME))
                valued.update(_names(data, begin, end, _GRAPH_INITIALIZERS, _TENSOR_NAME))
    return Graph(frozenset(inputs - valued), tuple(nodes), tuple(functions))


def _nodes(data: mmap.mmap, begin: int, end: int, number: int) -> Iterator[Node]:
    for first, last in _parts(data, begin, end, number):
        texts: dict[int, list[str]] = {_NODE_INPUTS: [], _NODE_OUTPUTS: [], _NODE_OPERATOR: []}
        for field, at, until in _fields(data, first, last):
            if field in texts:
                texts[field].append(data[at:until].decode("utf-8"))
        inputs, outputs = tuple(texts[_NODE_INPUTS]), tuple(texts[_NODE_OUTPUTS])
        yield Node("".join(texts[_NODE_OPERATOR][-1:]), inputs, outputs)


def _names(data: mmap.mmap, begin: int, end: int, number: int, name: int) -> Iterator[str]:
    """Yield the names of those parts of a graph."""
    for first, last in _parts(data, begin, end, number):
        for at, until in _parts(data, first, last, name):
            yield data[at:until].decode("utf-8")


def _parts(data: mmap.mmap, begin: int, end: int, number: int) -> Iterator[tuple[int, int]]:
    """Yield where the fields of a number lie."""
    return ((first, last) for field, first, last in _fields(data, begin, end) if field == number)


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
        if at > end:
            raise ValueError("a field ends behind what it is part of")


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
