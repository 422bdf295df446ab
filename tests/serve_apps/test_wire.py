"""What crosses from the gateway to a replica and back comes out as it went in."""

from __future__ import annotations

import pickle

import numpy as np
import pytest

from edge_runtime.engine import Answered, LoadReport
from edge_runtime.errors import InvalidInput, PrimeSparkError
from edge_runtime.protocol.binary import bytes_array
from edge_runtime.protocol.datatypes import BYTES, FLOATS, NUMPY
from edge_runtime.protocol.types import Array, InferRequest, RequestedOutput, Tensor
from serve_apps.wire import (
    Call,
    Failure,
    Reply,
    decode_call,
    decode_reply,
    encode_answer,
    encode_call,
    encode_error,
    reported_load,
)

KINDS = PrimeSparkError.__subclasses__()
LOAD = LoadReport(queued=3, running=1, wait_s=0.25, service_s=0.125)


def _data(datatype: str, shape: tuple[int, ...]) -> Array:
    count = int(np.prod(shape))
    if datatype == BYTES:
        return bytes_array([bytes([i]) * (i % 3) for i in range(count)], shape)
    return np.arange(count).reshape(shape).astype(NUMPY[datatype])


def _over_the_wire(call: Call) -> Call:
    return Call._make(pickle.loads(pickle.dumps(tuple(call))))


def _back(reply: Reply) -> Reply:
    return Reply._make(pickle.loads(pickle.dumps(tuple(reply))))


def _is_same(one: Tensor, other: Tensor) -> bool:
    return (
        (one.name, one.datatype, one.shape) == (other.name, other.datatype, other.shape)
        and one.data.dtype == other.data.dtype
        and one.data.tolist() == other.data.tolist()
    )


@pytest.mark.parametrize("shape", [(2, 3), (1,), (0, 4), (2, 1, 2)])
@pytest.mark.parametrize("datatype", NUMPY)
def test_tensors_of_every_datatype_come_out_as_they_went_in(
    datatype: str, shape: tuple[int, ...]
) -> None:
    tensor = Tensor("x", datatype, _data(datatype, shape))
    call = _over_the_wire(encode_call(InferRequest("m", None, (tensor,)), "7", 1.5, 2))
    (arrived,) = decode_call(call).inputs
    assert _is_same(arrived, tensor)
    (back,) = decode_reply(_back(encode_answer(Answered((tensor,), "hailo"), LOAD, 0.5))).outputs
    assert _is_same(back, tensor)


def test_a_tensor_that_is_a_view_with_strides_comes_out_as_it_reads() -> None:
    whole = np.arange(12, dtype=np.float32).reshape(3, 4)
    tensor = Tensor("x", "FP32", whole.T[::2])
    call = encode_call(InferRequest("m", None, (tensor,)), "1", 1.0, 0)
    assert _is_same(decode_call(call).inputs[0], tensor)


@pytest.mark.parametrize("datatype", sorted(FLOATS - {"BF16"}))
def test_numbers_that_are_none_pass_because_the_gateway_has_decided_on_them(datatype: str) -> None:
    data = np.array([np.nan, np.inf, -np.inf], dtype=NUMPY[datatype])
    found = Answered((Tensor("y", datatype, data),), "cpu-fp32")
    (back,) = decode_reply(encode_answer(found, None, 0.0)).outputs
    assert np.array_equal(np.isnan(np.asarray(back.data, dtype=float)), [True, False, False])


def test_a_call_carries_version_outputs_time_left_and_priority() -> None:
    tensors = (Tensor("a", "BOOL", np.array([True])), Tensor("b", "INT8", np.array([-1], np.int8)))
    wanted = (RequestedOutput("y", binary=True), RequestedOutput("z", classification=3))
    call = encode_call(InferRequest("m", "production", tensors, wanted, id="q"), "4", 0.75, 9)
    assert (call.model, call.version, call.slack_s, call.priority) == ("m", "4", 0.75, 9)
    arrived = decode_call(call)
    assert (arrived.model, arrived.version) == ("m", "4")
    assert [tensor.name for tensor in arrived.inputs] == ["a", "b"]
    assert [output.name for output in arrived.outputs] == ["y", "z"]


@pytest.mark.parametrize("kind", [*KINDS, PrimeSparkError])
def test_every_refusal_keeps_type_field_hint_and_time_to_retry(
    kind: type[PrimeSparkError],
) -> None:
    error = kind("it is so", field="x", hint="do this", retry_after_s=2.5)
    reply = _back(encode_error(error, LOAD, 0.5))
    with pytest.raises(kind) as found:
        decode_reply(reply)
    assert type(found.value) is kind
    assert found.value.message == "it is so"
    assert (found.value.field, found.value.hint) == ("x", "do this")
    assert found.value.retry_after_s == 2.5


def test_a_refusal_of_a_kind_unknown_here_is_still_a_refusal() -> None:
    class Newer(InvalidInput):
        code = "of_a_newer_release"

    with pytest.raises(PrimeSparkError, match="what is new"):
        decode_reply(encode_error(Newer("what is new"), None, 0.0))


def test_what_computed_an_answer_and_how_long_ago_travels_with_it() -> None:
    back = decode_reply(_back(encode_answer(Answered((), "stale", 12.5), None, 0.0)))
    assert (back.rung, back.age_s) == ("stale", 12.5)


def test_releases_that_say_less_or_more_understand_one_another() -> None:
    reply = encode_answer(Answered((), "hailo"), LOAD, 0.5)
    assert Reply.of(tuple(reply)[:4]) == reply._replace(rung="")
    assert Reply.of((*reply, "what a newer one adds")) == reply
    call = encode_call(InferRequest("m", None, ()), "1", 1.5, 2, "00-1")
    assert Call.of(tuple(call)[:6]) == call._replace(trace="")
    assert Call.of((*call, "what a newer one adds")) == call


def test_the_replica_s_load_travels_with_answers_and_with_refusals() -> None:
    assert reported_load(encode_answer(Answered((), "hailo"), LOAD, 0.5)) == LOAD
    assert reported_load(encode_error(InvalidInput("no"), LOAD, 0.5)) == LOAD
    assert reported_load(Reply((), None, None, 0.5)) is None


@pytest.mark.parametrize("kind", KINDS)
def test_a_failure_to_load_is_told_as_the_error_it_was(kind: type[PrimeSparkError]) -> None:
    error = Failure(kind.code, "the file is damaged").error("on edge/lab")
    assert type(error) is kind
    assert error.message == "on edge/lab: the file is damaged"
