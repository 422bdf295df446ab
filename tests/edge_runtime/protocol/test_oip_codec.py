"""The REST codec: what goes in comes out, and whatever is malformed is refused as such."""

from __future__ import annotations

import contextlib
import json
from typing import Any

import numpy as np
import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_runtime.errors import InvalidInput, PrimeSparkError, TooLarge, Unsupported
from edge_runtime.protocol.oip import (
    decode_infer_request,
    encode_infer_response,
    parse_header_length,
)
from edge_runtime.protocol.service import Limits
from edge_runtime.protocol.types import InferRequest, InferResponse, RequestedOutput, Tensor
from tests.contract.tensors import from_json, from_raw
from tests.edge_runtime.protocol.strategies import RestBody, rest_bodies, same, tensors

LIMITS = Limits(max_body_bytes=1_000_000, max_json_bytes=100_000)


def decode(body: bytes, header_length: int | None = None, limits: Limits = LIMITS) -> InferRequest:
    return decode_infer_request(body, header_length, "m", None, limits)


def document(**changes: Any) -> bytes:
    """A valid request with changes to its one input; None takes a key away."""
    entry = {"name": "x", "datatype": "FP32", "shape": [2], "data": [1, 2], **changes}
    return json.dumps({"inputs": [{k: v for k, v in entry.items() if v is not None}]}).encode()


@given(rest_bodies())
def test_every_datatype_is_read_from_json_binary_and_a_mix(
    drawn: tuple[RestBody, list[Tensor]],
) -> None:
    made, wanted = drawn
    found = decode(made.body, made.header_length)
    assert all(same(one, other) for one, other in zip(found.inputs, wanted, strict=True))


@given(st.lists(tensors(), min_size=1, max_size=3, unique_by=lambda t: t.name), st.data())
def test_every_datatype_is_written_as_it_was_asked_for(
    outputs: list[Tensor], data: st.DataObject
) -> None:
    wanted = tuple(RequestedOutput(t.name, data.draw(st.booleans())) for t in outputs)
    request = InferRequest("m", None, (), wanted)
    encoded = encode_infer_response(request, InferResponse("m", "1", tuple(outputs)))
    split = encoded.json_bytes
    header = encoded.body if split is None else encoded.body[:split]
    rest = b"" if split is None else encoded.body[split:]
    for entry, tensor, ask in zip(json.loads(header)["outputs"], outputs, wanted, strict=True):
        if ask.binary:
            size = entry["parameters"]["binary_data_size"]
            found = from_raw(tensor.datatype, entry["shape"], rest[:size])
            rest = rest[size:]
        else:
            found = from_json(tensor.datatype, entry["shape"], entry["data"])
        assert same(Tensor(entry["name"], entry["datatype"], found), tensor)
    assert rest == b""


@settings(max_examples=300)
@given(st.binary(max_size=200), st.none() | st.integers(0, 220))
def test_any_bytes_are_refused_as_invalid(body: bytes, header_length: int | None) -> None:
    try:
        decode(body, header_length)
    except PrimeSparkError:
        return
    raise AssertionError("random bytes were taken for a request")


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=6,
)


@settings(max_examples=400)
@given(rest_bodies(), st.data())
def test_a_request_bent_anywhere_is_served_or_refused_but_never_fails(
    drawn: tuple[RestBody, list[Tensor]], data: st.DataObject
) -> None:
    made, _ = drawn
    split = made.header_length
    header = json.loads(made.body if split is None else made.body[:split])
    rest = b"" if split is None else made.body[split:]
    target = data.draw(st.sampled_from([header, header["inputs"][0]]))
    key = data.draw(st.sampled_from([*target, "id", "outputs", "parameters", "shape", "data"]))
    target[key] = data.draw(json_values)
    try:
        bent = orjson.dumps(header)
    except TypeError:  # an integer of more than 64 bits
        bent = json.dumps(header).encode()
    if data.draw(st.booleans()):
        rest = rest[: data.draw(st.integers(0, len(rest)))] + data.draw(st.binary(max_size=8))
    with contextlib.suppress(PrimeSparkError):
        found = decode(bent + rest, None if split is None else len(bent))
        assert all(tensor.data.size < 10_000 for tensor in found.inputs)


@pytest.mark.parametrize(
    "body",
    [
        document(shape=[2**31]),
        document(shape=[2**62, 2**62]),
        document(shape=[2**40, 0], data=[]),
        document(shape=[-1]),
        document(shape=[True, 2]),
        document(shape=[1.0]),
        document(shape="2"),
        document(shape=[1] * 33, data=[1]),
        document(datatype="FP8"),
        document(datatype=7),
        document(data=[1]),
        document(data=[[1, 2]]),
        document(data=[1, [2]]),
        document(data=[1, "2"]),
        document(data=[True, False]),
        document(data={"0": 1}),
        document(data=None),
        document(data=[1e39, 0]),
        document(datatype="INT8", data=[128, 0]),
        document(datatype="UINT8", data=[-1, 0]),
        document(datatype="INT64", data=[2**63, 0]),
        document(datatype="INT32", data=[1.0, 2.0]),
        document(datatype="BOOL", data=[0, 1]),
        document(datatype="BYTES", data=[1, 2]),
        document(name=""),
        document(name="x" * 257),
        document(name=["x"]),
        document(parameters=[]),
        document(data=None, parameters={"binary_data_size": 8}),
        document(parameters={"binary_data_size": 8}),
        b'{"inputs":[{"name":"x","datatype":"FP32","shape":[1],"data":[NaN]}]}',
        b'{"inputs":[{"name":"x","datatype":"FP32","shape":[1],"data":[1e999]}]}',
        b'{"inputs":[{"name":"\\ud800","datatype":"FP32","shape":[1],"data":[1]}]}',
        b'{"inputs":[]}',
        b'{"inputs":{}}',
        b"[]",
        b"",
        b"null",
        b"[" * 50_000,
        b'{"a":' * 10_000,
        b"\xff\xfe{}",
    ],
    ids=lambda body: body[:60].decode("latin-1"),
)
def test_malformed_json_is_refused(body: bytes) -> None:
    with pytest.raises(InvalidInput):
        decode(body)


@pytest.mark.parametrize("size", [0, 7, 9, 2**31, 2**70, -1, 8.0, "8", True])
def test_a_binary_size_that_lies_is_refused(size: object) -> None:
    header = document(data=None, parameters={"binary_data_size": size})
    with pytest.raises(InvalidInput):
        decode(header + bytes(8), len(header))


def test_bytes_after_the_last_tensor_are_refused() -> None:
    header = document(data=None, parameters={"binary_data_size": 8})
    with pytest.raises(InvalidInput, match="follow"):
        decode(header + bytes(9), len(header))


def test_two_tensors_may_not_share_bytes() -> None:
    entry = {
        "datatype": "FP32",
        "shape": [2],
        "parameters": {"binary_data_size": 8},
    }
    header = json.dumps({"inputs": [{"name": n, **entry} for n in "ab"]}).encode()
    with pytest.raises(InvalidInput, match="claims 8 bytes, 0 are left"):
        decode(header + bytes(8), len(header))


@pytest.mark.parametrize("value", ["-1", "1.5", "", "0x10", "\u0661", "9" * 13, "11", " 1"])
def test_a_header_length_that_lies_is_refused(value: str) -> None:
    with pytest.raises(InvalidInput):
        parse_header_length(value, 10)


def test_the_json_part_has_a_limit_of_its_own() -> None:
    body = document(data=[0.5] * 30_000, shape=[30_000])
    with pytest.raises(TooLarge):
        decode(body)


def test_binary_tensors_are_views_on_the_body() -> None:
    header = document(data=None, parameters={"binary_data_size": 8})
    found = decode(header + np.array([1, 2], "<f4").tobytes(), len(header))
    assert not found.inputs[0].data.flags.owndata
    assert not found.inputs[0].data.flags.writeable


def test_non_finite_numbers_may_be_allowed_by_a_setting() -> None:
    header = document(data=None, parameters={"binary_data_size": 8})
    body = header + np.array([np.nan, np.inf], "<f4").tobytes()
    with pytest.raises(InvalidInput, match="NaN"):
        decode(body, len(header))
    assert decode(body, len(header), Limits(allow_non_finite=True)).inputs[0].data.size == 2


def test_null_means_absent() -> None:
    entry = {"name": "x", "datatype": "FP32", "shape": [1], "data": [1], "parameters": None}
    body = {"id": None, "inputs": [entry], "outputs": None, "parameters": {"a": None}}
    found = decode(json.dumps(body).encode())
    assert (found.id, found.outputs, dict(found.parameters)) == ("", (), {})


def test_shared_memory_is_not_offered() -> None:
    with pytest.raises(Unsupported):
        decode(document(data=None, parameters={"shared_memory_region": "r"}))


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_an_answer_that_json_cannot_carry_says_how_to_get_it(value: float) -> None:
    answer = InferResponse("m", "1", (Tensor("y", "FP32", np.array([value], np.float32)),))
    with pytest.raises(InvalidInput, match="NaN") as caught:
        encode_infer_response(InferRequest("m", None, ()), answer)
    assert "binary_data" in (caught.value.hint or "")
    binary = encode_infer_response(InferRequest("m", None, (), binary_output_default=True), answer)
    assert binary.json_bytes is not None
