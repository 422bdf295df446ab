"""The gRPC codec: what goes in comes out, and whatever is malformed is refused as such."""

from __future__ import annotations

import contextlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_runtime.errors import InvalidInput, PrimeSparkError, TooLarge
from edge_runtime.protocol.grpc_codec import (
    decode_infer_request,
    encode_infer_response,
    encode_stream_answer,
)
from edge_runtime.protocol.grpc_wire import append_fields, cut_field
from edge_runtime.protocol.proto import inference_pb2 as pb
from edge_runtime.protocol.service import Limits
from edge_runtime.protocol.types import InferResponse, Tensor
from tests.contract.clients import contents_field, grpc_answer
from tests.contract.tensors import RAW_ONLY, Given, raw
from tests.edge_runtime.protocol.strategies import same, tensors

LIMITS = Limits(max_json_bytes=100_000, max_tensors=8)
RAW_INPUTS = 7
some_tensors = st.lists(tensors(), min_size=1, max_size=3, unique_by=lambda t: t.name)


def request(given: list[Tensor], *, is_raw: bool) -> pb.ModelInferRequest:
    message = pb.ModelInferRequest(model_name="m", id="i")
    for tensor in given:
        entry = message.inputs.add(name=tensor.name, datatype=tensor.datatype, shape=tensor.shape)
        if is_raw:
            stated = Given(tensor.name, tensor.datatype, tensor.data)
            message.raw_input_contents.append(raw(stated))
        else:
            contents = getattr(entry.contents, contents_field(tensor.datatype))
            contents.extend(tensor.data.reshape(-1).tolist())
    return message


@given(some_tensors, st.booleans())
def test_every_datatype_makes_the_round_trip(drawn: list[Tensor], is_raw: bool) -> None:
    is_raw = is_raw or any(tensor.datatype in RAW_ONLY for tensor in drawn)
    call = decode_infer_request(request(drawn, is_raw=is_raw).SerializeToString(), LIMITS)
    assert call.is_raw == is_raw
    assert all(same(one, two) for one, two in zip(call.request.inputs, drawn, strict=True))
    encoded = encode_infer_response(call, InferResponse("m", "1", tuple(drawn), "i", {"p": 1.5}))
    answer = grpc_answer(pb.ModelInferResponse.FromString(encoded))
    assert (answer.model, answer.version, answer.id) == ("m", "1", "i")
    assert answer.parameters == {"p": 1.5}
    for tensor in drawn:
        found = answer.outputs[tensor.name]
        assert same(Tensor(found.name, found.datatype, found.data), tensor)


@settings(max_examples=300)
@given(st.binary(max_size=100))
def test_any_bytes_are_refused_as_invalid(message: bytes) -> None:
    with pytest.raises(PrimeSparkError):
        decode_infer_request(message, LIMITS)


@settings(max_examples=400)
@given(some_tensors, st.booleans(), st.data())
def test_a_request_bent_anywhere_is_served_or_refused_but_never_fails(
    drawn: list[Tensor], is_raw: bool, data: st.DataObject
) -> None:
    is_raw = is_raw or any(tensor.datatype in RAW_ONLY for tensor in drawn)
    message = bytearray(request(drawn, is_raw=is_raw).SerializeToString())
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(message) - 1))
        match data.draw(st.sampled_from(["set", "cut", "insert"])):
            case "set":
                message[at] = data.draw(st.integers(0, 255))
            case "cut" if at:
                del message[at:]
            case _:
                message[at:at] = data.draw(st.binary(max_size=4))
    with contextlib.suppress(PrimeSparkError):
        decode_infer_request(bytes(message), LIMITS)


@given(st.lists(st.binary(max_size=20), max_size=5), st.text(max_size=5))
def test_cutting_raw_tensors_out_agrees_with_protobuf(chunks: list[bytes], name: str) -> None:
    head = pb.ModelInferRequest(model_name=name).SerializeToString()
    message = append_fields(head, RAW_INPUTS, chunks)
    assert list(pb.ModelInferRequest.FromString(message).raw_input_contents) == chunks
    rest, found = cut_field(message, RAW_INPUTS, 100)
    assert [bytes(chunk) for chunk in found] == chunks
    assert rest == head


def test_raw_tensors_are_views_on_the_message() -> None:
    drawn = [Tensor("x", "FP32", np.ones(3, np.float32))]
    found = decode_infer_request(request(drawn, is_raw=True).SerializeToString(), LIMITS)
    assert not found.request.inputs[0].data.flags.owndata


def test_a_message_of_countless_fields_is_refused_before_it_is_parsed() -> None:
    with pytest.raises(InvalidInput, match="more than"):
        decode_infer_request(b"\x2a\x00" * 40_000, LIMITS)


def test_what_is_parsed_has_a_limit_of_its_own() -> None:
    drawn = [Tensor("x", "FP64", np.ones(20_000))]
    with pytest.raises(TooLarge):
        decode_infer_request(request(drawn, is_raw=False).SerializeToString(), LIMITS)
    decode_infer_request(request(drawn, is_raw=True).SerializeToString(), LIMITS)


@pytest.mark.parametrize("shape", [[-1], [2**40, 2**40], [2**40, 0], [1] * 33])
def test_impossible_shapes_are_refused(shape: list[int]) -> None:
    message = pb.ModelInferRequest(model_name="m", raw_input_contents=[b""])
    message.inputs.add(name="x", datatype="FP32", shape=shape)
    with pytest.raises(InvalidInput):
        decode_infer_request(message.SerializeToString(), LIMITS)


def test_half_precision_makes_a_typed_answer_raw_as_a_whole() -> None:
    call = decode_infer_request(
        request([Tensor("x", "INT32", np.zeros(1, np.int32))], is_raw=False).SerializeToString(),
        LIMITS,
    )
    outputs = (
        Tensor("a", "FP16", np.ones(1, np.float16)),
        Tensor("b", "INT32", np.ones(1, np.int32)),
    )
    answer = pb.ModelInferResponse.FromString(
        encode_infer_response(call, InferResponse("m", "1", outputs))
    )
    assert len(answer.raw_output_contents) == 2


def test_an_answer_is_wrapped_for_a_stream_without_parsing_it() -> None:
    inner = pb.ModelInferResponse(model_name="m" * 300)
    wrapped = encode_stream_answer(inner.SerializeToString())
    found = pb.ModelStreamInferResponse.FromString(wrapped)
    assert found.infer_response == inner
    assert not found.error_message
