"""What only gRPC has: streams, the client's deadline and cancel, messages that are not messages."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import grpc
import numpy as np
import pytest

from edge_runtime.protocol.proto import inference_pb2 as pb
from tests.contract.clients import grpc_answer, refusal
from tests.contract.live import API_KEY, LiveServer
from tests.contract.models import FEATURES

SERVICE = "/inference.GRPCInferenceService"
PATIENCE_S = 20.0


@pytest.fixture
def channel(server: LiveServer) -> Iterator[grpc.Channel]:
    with grpc.insecure_channel(server.grpc) as channel:
        yield channel


def asking(model: str = "mlp", request_id: str = "", rows: int = 1) -> pb.ModelInferRequest:
    request = pb.ModelInferRequest(model_name=model, id=request_id)
    request.inputs.add(name="x", datatype="FP32", shape=[rows, FEATURES])
    request.raw_input_contents.append(np.ones((rows, FEATURES), np.float32).tobytes())
    return request


def long_work(steps: int = 1_000_000) -> pb.ModelInferRequest:
    request = pb.ModelInferRequest(model_name="slow", id=f"slow {steps}")
    tensor = request.inputs.add(name="steps", datatype="INT64", shape=[1])
    tensor.contents.int64_contents.append(steps)
    return request


def send(
    channel: grpc.Channel, message: bytes, headers: dict[str, str], method: str = "ModelInfer"
) -> Any:
    call = channel.unary_unary(f"{SERVICE}/{method}")
    return call(message, metadata=tuple(headers.items()), timeout=PATIENCE_S)


def refused(ask: Callable[[], object]) -> tuple[str, str, str | None]:
    with pytest.raises(grpc.RpcError) as caught:
        ask()
    said = refusal(caught.value)
    return said.status, said.code, said.field


def wait_until(holds: Callable[[], bool]) -> None:
    end = time.monotonic() + PATIENCE_S
    while not holds():
        assert time.monotonic() < end, "the condition did not come true"
        time.sleep(0.01)


@pytest.mark.parametrize(
    "message",
    [
        b"\xff",
        b"\x0a\xff\xff\xff\xff\x07mlp",
        b"\x0a\x03mlp\x3a\x80\x80\x80\x80\x08",
        b"\x0b\x0c",
        b"\x0a\x02\xff\xfe",
        b"\x3a" + b"\xff" * 12,
        b"",
        b"\x2a\x00" * 2000,
    ],
    ids=[
        "cut tag",
        "cut name",
        "2 GB claim",
        "group",
        "not UTF-8",
        "endless varint",
        "empty",
        "empty inputs without end",
    ],
)
def test_what_is_no_message_is_refused(
    channel: grpc.Channel, server: LiveServer, message: bytes
) -> None:
    status, code, _ = refused(lambda: send(channel, message, server.bearer))
    assert (status, code) == ("INVALID_ARGUMENT", "invalid_input")
    send(channel, asking().SerializeToString(), server.bearer)


def test_raw_and_typed_do_not_mix(channel: grpc.Channel, server: LiveServer) -> None:
    request = asking()
    request.inputs[0].contents.fp32_contents.extend([1.0] * FEATURES)
    _, code, field = refused(lambda: send(channel, request.SerializeToString(), server.bearer))
    assert (code, field) == ("invalid_input", "x")


def test_every_input_needs_its_raw_entry(channel: grpc.Channel, server: LiveServer) -> None:
    request = asking()
    request.raw_input_contents.append(b"")
    said = refused(lambda: send(channel, request.SerializeToString(), server.bearer))
    assert said[1:] == ("invalid_input", "raw_input_contents")


def test_elements_in_the_wrong_field_are_refused(channel: grpc.Channel, server: LiveServer) -> None:
    request = asking()
    del request.raw_input_contents[:]
    request.inputs[0].contents.fp64_contents.extend([1.0] * FEATURES)
    _, code, field = refused(lambda: send(channel, request.SerializeToString(), server.bearer))
    assert (code, field) == ("invalid_input", "x")


@pytest.mark.parametrize(("datatype", "value"), [("INT8", 128), ("UINT8", 256), ("INT16", -32769)])
def test_elements_out_of_range_are_refused(
    channel: grpc.Channel, server: LiveServer, datatype: str, value: int
) -> None:
    request = pb.ModelInferRequest(model_name=f"identity_{datatype}")
    tensor = request.inputs.add(name="x", datatype=datatype, shape=[1, 1])
    contents = tensor.contents
    (contents.uint_contents if datatype[0] == "U" else contents.int_contents).append(value)
    _, code, field = refused(lambda: send(channel, request.SerializeToString(), server.bearer))
    assert (code, field) == ("invalid_input", "x")


def test_typed_requests_get_typed_answers_and_raw_ones_raw(
    channel: grpc.Channel, server: LiveServer
) -> None:
    request = asking()
    raw = pb.ModelInferResponse.FromString(
        send(channel, request.SerializeToString(), server.bearer)
    )
    assert len(raw.raw_output_contents) == 1
    del request.raw_input_contents[:]
    request.inputs[0].contents.fp32_contents.extend([1.0] * FEATURES)
    typed = pb.ModelInferResponse.FromString(
        send(channel, request.SerializeToString(), server.bearer)
    )
    assert not typed.raw_output_contents
    np.testing.assert_array_equal(
        grpc_answer(raw).outputs["scores"].data, grpc_answer(typed).outputs["scores"].data
    )


def test_fields_may_come_in_any_order(channel: grpc.Channel, server: LiveServer) -> None:
    request = asking("add_sub")
    request.inputs[0].name = "a"
    request.inputs.add(name="b", datatype="FP32", shape=[1, FEATURES])
    tensors = [np.full(FEATURES, value, np.float32).tobytes() for value in (5, 2)]
    del request.raw_input_contents[:]
    head = request.SerializeToString()
    first, second = (pb.ModelInferRequest(raw_input_contents=[t]) for t in tensors)
    turned = first.SerializeToString() + head + second.SerializeToString()
    answer = pb.ModelInferResponse.FromString(send(channel, turned, server.bearer))
    assert grpc_answer(answer).outputs["difference"].data.tolist() == [[3.0] * FEATURES]


def test_an_unknown_method_is_not_implemented(channel: grpc.Channel, server: LiveServer) -> None:
    status, _, _ = refused(lambda: send(channel, b"", server.bearer, "CudaSharedMemoryStatus"))
    assert status == "UNIMPLEMENTED"


def test_a_message_that_unpacks_over_the_limit_is_refused(
    channel: grpc.Channel, server: LiveServer
) -> None:
    call = channel.unary_unary(f"{SERVICE}/ModelInfer")
    bomb = bytes(8 * server.limits.max_body_bytes)
    with pytest.raises(grpc.RpcError) as caught:
        call(
            bomb,
            metadata=tuple(server.bearer.items()),
            compression=grpc.Compression.Gzip,
            timeout=PATIENCE_S,
        )
    assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED


def test_a_stranger_is_refused_before_anything_is_read(channel: grpc.Channel) -> None:
    """The stream of a stranger ends although it has sent no message yet."""
    hold = threading.Event()

    def nothing() -> Iterator[bytes]:
        hold.wait(PATIENCE_S)
        yield from ()

    call = channel.stream_stream(f"{SERVICE}/ModelStreamInfer")(nothing(), timeout=PATIENCE_S)
    try:
        assert refused(lambda: next(call))[0] == "UNAUTHENTICATED"
    finally:
        hold.set()


def test_the_clients_deadline_frees_the_slot(channel: grpc.Channel, server: LiveServer) -> None:
    call = channel.unary_unary(f"{SERVICE}/ModelInfer")
    with pytest.raises(grpc.RpcError) as caught:
        call(long_work().SerializeToString(), metadata=tuple(server.bearer.items()), timeout=0.3)
    assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    wait_until(lambda: server.busy() == 0)


def test_cancelling_frees_the_slot(channel: grpc.Channel, server: LiveServer) -> None:
    call = channel.unary_unary(f"{SERVICE}/ModelInfer").future(
        long_work().SerializeToString(), metadata=tuple(server.bearer.items())
    )
    wait_until(lambda: server.busy() == 1)
    call.cancel()
    wait_until(lambda: server.busy() == 0 and server.budget.used == 0)


class Stream:
    """A ModelStreamInfer whose requests a test sends one by one."""

    def __init__(self, channel: grpc.Channel, headers: dict[str, str]) -> None:
        self._asked: queue.Queue[bytes | None] = queue.Queue()
        self._call = channel.stream_stream(f"{SERVICE}/ModelStreamInfer")(
            iter(self._asked.get, None),
            metadata=tuple(headers.items()),
            timeout=PATIENCE_S,
        )

    def ask(self, request: pb.ModelInferRequest) -> None:
        self._asked.put(request.SerializeToString())

    def answer(self) -> pb.ModelStreamInferResponse:
        return pb.ModelStreamInferResponse.FromString(next(self._call))

    def finish(self) -> None:
        self._asked.put(None)

    def cancel(self) -> None:
        self._call.cancel()
        self._asked.put(None)


def test_a_slow_request_does_not_let_later_answers_overtake(
    channel: grpc.Channel, server: LiveServer
) -> None:
    stream = Stream(channel, server.bearer)
    stream.ask(long_work(300))
    for number in range(3):
        stream.ask(asking(request_id=str(number)))
    ids = [stream.answer().infer_response.id for _ in range(4)]
    assert ids == ["slow 300", "0", "1", "2"]
    stream.finish()


def test_a_refused_request_keeps_its_id_and_the_stream_goes_on(
    channel: grpc.Channel, server: LiveServer
) -> None:
    stream = Stream(channel, server.bearer)
    stream.ask(asking("nope", "lost"))
    stream.ask(asking(request_id="found"))
    first, second = stream.answer(), stream.answer()
    assert "no model 'nope'" in first.error_message
    assert first.infer_response.id == "lost"
    assert (second.error_message, second.infer_response.id) == ("", "found")
    stream.finish()
    with pytest.raises(StopIteration):
        stream.answer()


def test_a_stream_works_on_a_bounded_number_of_requests(
    channel: grpc.Channel, server: LiveServer
) -> None:
    stream = Stream(channel, server.bearer)
    for _ in range(20):
        stream.ask(long_work())
    wait_until(lambda: server.busy() == 8)
    assert server.budget.used <= 8 * 256
    stream.cancel()
    wait_until(lambda: server.busy() == 0 and server.budget.used == 0)


def test_each_request_of_a_stream_has_its_own_deadline(
    channel: grpc.Channel, server: LiveServer
) -> None:
    stream = Stream(channel, server.bearer)
    late = long_work()
    late.parameters["timeout"].int64_param = 100_000
    stream.ask(late)
    stream.ask(asking(request_id="next"))
    assert "deadline" in stream.answer().error_message
    assert stream.answer().infer_response.id == "next"
    stream.finish()


def test_a_stream_ends_when_its_credential_is_revoked(
    channel: grpc.Channel, server: LiveServer
) -> None:
    stream = Stream(channel, {"x-api-key": API_KEY})
    stream.ask(asking(request_id="before"))
    assert stream.answer().infer_response.id == "before"
    server.api_keys.is_revoked = True
    server.authenticator.forget()
    try:
        stream.ask(asking(request_id="after"))
        assert refused(stream.answer)[0] == "UNAUTHENTICATED"
    finally:
        server.api_keys.is_revoked = False
        stream.finish()
