"""Raw tensors, BF16 and classification: the parts that both codecs share."""

from __future__ import annotations

import struct

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_runtime.errors import InvalidInput, PrimeSparkError
from edge_runtime.protocol.binary import bytes_array, decode_raw, encode_raw
from edge_runtime.protocol.classification import classify
from edge_runtime.protocol.datatypes import NUMPY, from_bf16, to_bf16
from edge_runtime.protocol.types import Tensor
from tests.contract.tensors import Given, raw
from tests.edge_runtime.protocol.strategies import same, tensors


@given(tensors())
def test_bytes_and_back_is_the_same_tensor(tensor: Tensor) -> None:
    written = bytes(encode_raw(tensor))
    assert written == raw(Given(tensor.name, tensor.datatype, tensor.data))
    assert same(decode_raw(tensor.name, tensor.datatype, tensor.shape, written), tensor)


@given(
    st.sampled_from(list(NUMPY)),
    st.lists(st.integers(-2, 2**41), max_size=5),
    st.binary(max_size=64),
)
def test_any_claim_over_any_bytes_is_read_or_refused(
    datatype: str, shape: list[int], buffer: bytes
) -> None:
    try:
        found = decode_raw("x", datatype, shape, buffer)
    except PrimeSparkError:
        return
    assert found.data.size <= len(buffer)


@pytest.mark.parametrize("claim", [5, 2**31 - 1, 2**32 - 1])
def test_an_element_that_claims_more_than_there_is_is_refused(claim: int) -> None:
    with pytest.raises(InvalidInput, match="claims"):
        decode_raw("x", "BYTES", [1], struct.pack("<I", claim) + b"abcd")


def test_a_boolean_is_zero_or_one() -> None:
    with pytest.raises(InvalidInput):
        decode_raw("x", "BOOL", [1], b"\x02")


@given(st.floats(width=32))
def test_bf16_rounds_to_the_nearest_even(value: float) -> None:
    number = np.float32(value)
    (found,) = from_bf16(to_bf16(np.array([number])))
    if np.isnan(number):
        assert np.isnan(found)
        return
    wide = np.array([number]).view(np.uint32)[0]
    below, above = (np.uint32(wide & 0xFFFF0000), np.uint32((int(wide) & 0xFFFF0000) + 0x10000))
    low, high = (float(np.array([bits], np.uint32).view(np.float32)[0]) for bits in (below, above))
    with np.errstate(over="ignore"):
        nearest = min((low, high), key=lambda x: abs(x - float(number)))
    if np.isfinite(found) and np.isfinite(high):
        assert abs(float(found) - float(number)) <= abs(nearest - float(number))


@given(
    st.lists(st.lists(st.integers(-3, 3), min_size=4, max_size=4), min_size=1, max_size=4),
    st.integers(1, 6),
)
def test_classification_agrees_with_sorting(scores: list[list[int]], top: int) -> None:
    tensor = Tensor("y", "INT32", np.array(scores, np.int32))
    found = classify(tensor, top, is_batched=True)
    for row, elements in zip(scores, found.data, strict=True):
        wanted = sorted(range(4), key=lambda index: (-row[index], index))[:top]
        assert [int(element.split(b":")[1]) for element in elements] == wanted


def test_text_cannot_be_classified() -> None:
    with pytest.raises(InvalidInput):
        classify(Tensor("y", "BYTES", bytes_array([b"a"], (1,))), 1, is_batched=False)
