"""Tensors and requests for property tests."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import numpy as np
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from edge_runtime.protocol.binary import bytes_array
from edge_runtime.protocol.datatypes import FLOATS, NUMPY
from edge_runtime.protocol.types import Tensor
from tests.contract.tensors import Given, json_numbers, raw

SHAPES = hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=5)
NAMES = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=12)


@st.composite
def tensors(draw: st.DrawFn, datatypes: tuple[str, ...] = tuple(NUMPY)) -> Tensor:
    """Draw a tensor of any datatype whose numbers are finite and whose BYTES are text."""
    datatype = draw(st.sampled_from(datatypes))
    shape = draw(SHAPES)
    if datatype == "BYTES":
        size = int(np.prod(shape))
        texts = draw(st.lists(st.text(max_size=8), min_size=size, max_size=size))
        data: Any = bytes_array([text.encode() for text in texts], shape)
    elif datatype == "BF16":
        bits = st.integers(0, 0xFFFF).filter(lambda b: b & 0x7F80 != 0x7F80)
        data = draw(hnp.arrays(np.uint16, shape, elements=bits))
    else:
        dtype = NUMPY[datatype]
        elements = (
            hnp.from_dtype(dtype, allow_nan=False, allow_infinity=False)
            if datatype in FLOATS
            else hnp.from_dtype(dtype)
        )
        data = draw(hnp.arrays(dtype, shape, elements=elements))
    return Tensor(draw(NAMES), datatype, data)


@dataclass(frozen=True, slots=True)
class RestBody:
    body: bytes
    header_length: int | None


@st.composite
def rest_bodies(draw: st.DrawFn) -> tuple[RestBody, list[Tensor]]:
    """Draw a valid request body, each tensor in JSON (flat or nested) or binary."""
    given = draw(st.lists(tensors(), min_size=1, max_size=3, unique_by=lambda t: t.name))
    entries: list[dict[str, Any]] = []
    chunks: list[bytes] = []
    for tensor in given:
        entry: dict[str, Any] = {
            "name": tensor.name,
            "datatype": tensor.datatype,
            "shape": list(tensor.shape),
        }
        stated = Given(tensor.name, tensor.datatype, tensor.data)
        if draw(st.booleans()):
            chunks.append(raw(stated))
            entry["parameters"] = {"binary_data_size": len(chunks[-1])}
        else:
            flat = json_numbers(stated)
            entry["data"] = nested(flat, list(tensor.shape)) if draw(st.booleans()) else flat
        entries.append(entry)
    header = json.dumps({"inputs": entries}, ensure_ascii=draw(st.booleans())).encode()
    is_mixed = bool(chunks) or draw(st.booleans())
    return RestBody(header + b"".join(chunks), len(header) if is_mixed else None), given


def nested(flat: list[Any], shape: list[int]) -> list[Any]:
    """Nest row-major elements as their shape says."""
    if len(shape) < 2 or not flat:
        return flat
    step = len(flat) // shape[0]
    return [nested(flat[n * step : (n + 1) * step], shape[1:]) for n in range(shape[0])]


def same(one: Tensor, other: Tensor) -> bool:
    """Compare bit by bit."""
    if (one.name, one.datatype, one.shape) != (other.name, other.datatype, other.shape):
        return False
    if one.datatype == "BYTES":
        return bool(one.data.tolist() == other.data.tolist())
    return one.data.tobytes() == other.data.tobytes()
