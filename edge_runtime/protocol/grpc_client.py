"""A caller of the protocol over gRPC: the way to the edge runtime of this box, or to a gateway.

Deadline, cancellation and trace travel with the call. A refusal comes back as the error that it
was; what fails on the way is `WayLost`, and only that says nothing about the request itself.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, Final
from urllib.parse import unquote

import grpc
import grpc.aio

from edge_runtime.errors import DeadlineExceeded, PrimeSparkError, Unavailable, kind_of
from edge_runtime.protocol.context import TRACE_HEADER
from edge_runtime.protocol.grpc_codec import decode_infer_response, encode_infer_request
from edge_runtime.protocol.proto import inference_pb2 as pb
from edge_runtime.protocol.service import Limits
from edge_runtime.protocol.types import InferRequest, InferResponse, ParameterValue

SERVICE: Final = "inference.GRPCInferenceService"
Headers = Mapping[str, str]

_OPTIONS: Final = (
    ("grpc.max_receive_message_length", -1),
    ("grpc.max_send_message_length", -1),
    # No call is repeated that a server has seen: who may do that is decided above. One that found
    # its connection told to go elsewhere (GOAWAY) was not seen.
    ("grpc.enable_retries", 1),
    ("grpc.initial_reconnect_backoff_ms", 100),
    # In spite of its name: how long a connection may take to come about. A server that is made for
    # the first who comes (`edge_runtime.grpc_door`) takes seconds on a small box under load.
    ("grpc.min_reconnect_backoff_ms", 5_000),
    ("grpc.max_reconnect_backoff_ms", 2000),
    ("grpc.keepalive_time_ms", 10_000),
    ("grpc.keepalive_timeout_ms", 3_000),
    ("grpc.use_local_subchannel_pool", 1),
)


class WayLost(Unavailable):
    """The server could not be reached, or went away before it answered."""

    code = "way_lost"


class OipClient:
    """Calls one server. target: as gRPC names it (`unix:PATH`, `HOST:PORT`).

    headers: asked for with every call, so that a credential may change; limits: of answers.
    """

    def __init__(
        self,
        target: str,
        limits: Limits,
        *,
        credentials: grpc.ChannelCredentials | None = None,
        headers: Callable[[], Headers] = dict,
    ) -> None:
        self._channel: Any = (
            grpc.aio.insecure_channel(target, options=_OPTIONS)
            if credentials is None
            else grpc.aio.secure_channel(target, credentials, options=_OPTIONS)
        )
        self._limits = limits
        self._headers = headers
        self._infer = self._channel.unary_unary(f"/{SERVICE}/ModelInfer")

    async def infer(
        self,
        request: InferRequest,
        version: str | None,
        *,
        timeout_s: float,
        priority: int = 0,
        trace: str = "",
        extra: Headers | None = None,
    ) -> InferResponse:
        """Ask for an inference.

        Raises WayLost, DeadlineExceeded, or the error that the server refused with.
        """
        if priority:
            parameters = {**request.parameters, "priority": priority}
            request = dataclasses.replace(request, parameters=parameters)
        message = encode_infer_request(request, version)
        answer = await self._call(self._infer, message, timeout_s, trace, extra)
        return decode_infer_response(answer, self._limits)

    async def ready(self, timeout_s: float) -> bool:
        """Ask whether the server takes requests. Raises WayLost, DeadlineExceeded."""
        call = self._channel.unary_unary(f"/{SERVICE}/ServerReady")
        answer = await self._call(call, b"", timeout_s)
        return bool(pb.ServerReadyResponse.FromString(answer).ready)

    async def load(
        self, model: str, parameters: Mapping[str, ParameterValue], timeout_s: float
    ) -> None:
        """Load a version through the repository extension."""
        request = pb.RepositoryModelLoadRequest(model_name=model)
        _set_all(request.parameters, parameters)
        call = self._channel.unary_unary(f"/{SERVICE}/RepositoryModelLoad")
        await self._call(call, request.SerializeToString(), timeout_s)

    async def unload(
        self, model: str, parameters: Mapping[str, ParameterValue], timeout_s: float
    ) -> None:
        """Unload a version through the repository extension."""
        request = pb.RepositoryModelUnloadRequest(model_name=model)
        _set_all(request.parameters, parameters)
        call = self._channel.unary_unary(f"/{SERVICE}/RepositoryModelUnload")
        await self._call(call, request.SerializeToString(), timeout_s)

    async def statistics(self, timeout_s: float) -> pb.ModelStatisticsResponse:
        """Return the counters of every loaded model."""
        call = self._channel.unary_unary(f"/{SERVICE}/ModelStatistics")
        answer = await self._call(call, b"", timeout_s)
        return pb.ModelStatisticsResponse.FromString(answer)

    async def close(self) -> None:
        """End the connection and what is under way on it."""
        await self._channel.close()

    async def _call(
        self,
        method: Any,
        message: bytes,
        timeout_s: float,
        trace: str = "",
        extra: Headers | None = None,
    ) -> bytes:
        metadata = [*self._headers().items(), *(extra or {}).items()]
        if trace:
            metadata.append((TRACE_HEADER, trace))
        call = method(message, timeout=timeout_s, metadata=metadata)
        try:
            answer: bytes = await call
        except grpc.aio.AioRpcError as error:
            raise _translate(error) from None
        except asyncio.CancelledError:
            call.cancel()
            raise
        return answer


def _translate(error: Any) -> PrimeSparkError:
    """Return the error that a server packed into a status, or what the way failed with."""
    told = {key: value for key, value in error.trailing_metadata() or () if isinstance(value, str)}
    code = told.get("prime-spark-code")
    text = str(error.details() or error.code().name)
    if code is not None:
        wait_s: float | None = None
        with contextlib.suppress(KeyError, ValueError):
            wait_s = int(told["grpc-retry-pushback-ms"]) / 1e3
        return kind_of(code)(
            text,
            field=unquote(told["prime-spark-field"]) if "prime-spark-field" in told else None,
            hint=unquote(told["prime-spark-hint"]) if "prime-spark-hint" in told else None,
            retry_after_s=wait_s,
        )
    if error.code() is grpc.StatusCode.DEADLINE_EXCEEDED:
        return DeadlineExceeded("the deadline passed before an answer came", field="timeout")
    return WayLost(f"{error.code().name.lower()}: {text}"[:300], retry_after_s=1.0)


def _set_all(
    target: Any,
    parameters: Mapping[str, ParameterValue],
) -> None:
    for name, value in parameters.items():
        match value:
            case bool():
                target[name].bool_param = value
            case int():
                target[name].int64_param = value
            case _:
                target[name].string_param = str(value)
