"""The gRPC server of the Open Inference Protocol v2 over any `InferenceService`.

The counterpart of `rest.py`: same credentials (metadata `authorization` or `x-api-key`), same
scopes, limits, deadlines and preferences, and the codes of `GRPC_STATUS`, which is the only
place where errors become gRPC. A refusal's code, field, hint and retry time travel in the
trailing metadata.

A call is authenticated from its metadata before its message is read, so that a stranger cannot
make the server buffer anything; a message over the limit, packed or not, is refused by the
transport. `ModelStreamInfer` answers in the order asked, works on a few requests of a stream at
once, and stops reading while they are busy (HTTP/2 flow control does the rest).
"""

from __future__ import annotations

import asyncio
import dataclasses
import logging
import math
import uuid
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final, TypeVar
from urllib.parse import quote

import grpc
import grpc.aio
from google.protobuf.message import Message

from edge_runtime.auth import LOCAL, Authenticates, Principal
from edge_runtime.errors import (
    BudgetExceeded,
    Conflict,
    Corrupt,
    DeadlineExceeded,
    Forbidden,
    InvalidInput,
    NotFound,
    Overloaded,
    PrimeSparkError,
    TooLarge,
    Unauthenticated,
    Unavailable,
    Unsupported,
)
from edge_runtime.protocol import grpc_documents as documents
from edge_runtime.protocol.body import ByteBudget
from edge_runtime.protocol.context import (
    CLIENT_HEADER,
    LOAD_HEADER,
    OBJECTIVE_HEADER,
    SESSION_HEADER,
    SITE_HEADER,
    TIER_HEADER,
    TIMEOUT_HEADER,
    TRACE_HEADER,
    call_context,
    header_timeout_s,
)
from edge_runtime.protocol.gate import START_HEADER, Gate, hold
from edge_runtime.protocol.grpc_codec import (
    FINAL_RESPONSE,
    DecodedCall,
    decode_infer_request,
    encode_infer_response,
    encode_stream_answer,
    encode_stream_error,
    parse,
    repository_parameters,
)
from edge_runtime.protocol.proto import inference_pb2 as pb
from edge_runtime.protocol.service import CallContext, InferenceService, InferResult, Limits
from edge_runtime.protocol.types import Parameters

logger = logging.getLogger(__name__)

GRPC_STATUS: Final[Mapping[type[PrimeSparkError], grpc.StatusCode]] = {
    InvalidInput: grpc.StatusCode.INVALID_ARGUMENT,
    Unsupported: grpc.StatusCode.UNIMPLEMENTED,
    Unauthenticated: grpc.StatusCode.UNAUTHENTICATED,
    Forbidden: grpc.StatusCode.PERMISSION_DENIED,
    NotFound: grpc.StatusCode.NOT_FOUND,
    Conflict: grpc.StatusCode.ABORTED,
    TooLarge: grpc.StatusCode.RESOURCE_EXHAUSTED,
    BudgetExceeded: grpc.StatusCode.RESOURCE_EXHAUSTED,
    Corrupt: grpc.StatusCode.DATA_LOSS,
    Overloaded: grpc.StatusCode.UNAVAILABLE,
    Unavailable: grpc.StatusCode.UNAVAILABLE,
    DeadlineExceeded: grpc.StatusCode.DEADLINE_EXCEEDED,
}

NOBODY: Final = Principal("anonymous", frozenset())
SERVICE: Final = "inference.GRPCInferenceService"
MAX_CALLS: Final = 1024  # of all connections; more are refused
MAX_STREAMS: Final = 256  # HTTP/2 streams of one connection; more wait in the client
STREAM_CONCURRENCY: Final = 8  # requests of one ModelStreamInfer worked on at once
MAX_METADATA_BYTES: Final = 16 * 1024  # a token alone may have 8 KiB
_MAX_TEXT_CHARS: Final = 1024
_MAX_TRAILER_CHARS: Final = 1024  # clients refuse trailers over 8 KiB in all

_TRAILER_SAFE: Final = "".join(chr(code) for code in range(0x20, 0x7F) if chr(code) != "%")

Metadata = Mapping[str, str]
Behaviour = Callable[[Any, Any], Awaitable[Any]]
M = TypeVar("M", bound=Message)


@dataclass(frozen=True, slots=True)
class Call:
    """Who calls, with which metadata, and how long the caller waits (None: no word of it)."""

    principal: Principal
    metadata: Metadata
    remaining_s: float | None


@dataclass(frozen=True, slots=True)
class Method:
    """A unary method: from message bytes to message bytes. scope None: any caller."""

    run: Callable[[Call, bytes], Awaitable[bytes]]
    scope: str | None = None
    is_open: bool = False


def build_grpc_server(
    service: InferenceService,
    authenticator: Authenticates,
    limits: Limits,
    budget: ByteBudget | None = None,
    gate: Gate | None = None,
    *,
    may_share_port: bool = False,
) -> grpc.aio.Server:
    """Compose the server; add a port and start it. Call on the event loop it will run on.

    budget and gate: shared with REST, so that both together stay within
    `limits.max_inflight_bytes`, and are turned away together when the process is behind.
    may_share_port: with another socket of this user (`edge_runtime.grpc_door`).
    """
    gate = gate or Gate()
    budget = budget or ByteBudget(limits.max_inflight_bytes)
    api = GrpcApi(service, authenticator, limits, budget, gate)
    return grpc.aio.server(
        handlers=(Router(api, authenticator, gate),),
        maximum_concurrent_rpcs=MAX_CALLS,
        options=(
            ("grpc.max_receive_message_length", limits.max_body_bytes),
            ("grpc.max_send_message_length", -1),
            ("grpc.max_concurrent_streams", MAX_STREAMS),
            ("grpc.max_metadata_size", MAX_METADATA_BYTES),
            ("grpc.absolute_max_metadata_size", 2 * MAX_METADATA_BYTES),
            ("grpc.so_reuseport", int(may_share_port)),
        ),
    )


class Router(grpc.GenericRpcHandler):  # type: ignore[misc]
    """Finds the handler of a call after checking who calls, before its message is read."""

    def __init__(self, api: GrpcApi, authenticator: Authenticates, gate: Gate) -> None:
        self._stream = api.stream
        self._unary = {f"/{SERVICE}/{name}": method for name, method in api.methods().items()}
        self._authenticator = authenticator
        self._gate = gate

    def service(self, details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler | None:
        method = self._unary.get(details.method)
        is_stream = details.method == f"/{SERVICE}/ModelStreamInfer"
        if method is None and not is_stream:
            return None
        metadata = _text_metadata(details.invocation_metadata)
        principal = NOBODY
        try:
            if method is None or method.scope == "infer":
                self._gate.check(metadata.get(START_HEADER))
            if method is None or not method.is_open:
                principal = _authenticate(self._authenticator, metadata)
            scope = "infer" if method is None else method.scope
            if scope is not None:
                principal.require(scope)
        except PrimeSparkError as error:
            return grpc.stream_stream_rpc_method_handler(_refusing(error))
        if method is None:
            behaviour = _streaming(self._stream, principal, metadata)
            return grpc.stream_stream_rpc_method_handler(behaviour)
        return grpc.unary_unary_rpc_method_handler(_unary(method, principal, metadata))


class GrpcApi:
    """What the methods do, between message bytes and message bytes."""

    def __init__(
        self,
        service: InferenceService,
        authenticator: Authenticates,
        limits: Limits,
        budget: ByteBudget,
        gate: Gate,
    ) -> None:
        self._service = service
        self._authenticator = authenticator
        self._limits = limits
        self._budget = budget
        self._gate = gate

    def methods(self) -> Mapping[str, Method]:
        """Return the unary methods by name."""
        return {
            "ServerLive": self._method(pb.ServerLiveRequest, self._live, is_open=True),
            "ServerReady": self._method(pb.ServerReadyRequest, self._ready, is_open=True),
            "ServerMetadata": self._method(pb.ServerMetadataRequest, self._server_metadata),
            "ModelReady": self._method(pb.ModelReadyRequest, self._model_ready),
            "ModelMetadata": self._method(pb.ModelMetadataRequest, self._model_metadata),
            "ModelConfig": self._method(pb.ModelConfigRequest, self._model_config),
            "ModelStatistics": self._method(pb.ModelStatisticsRequest, self._model_statistics),
            "ModelInfer": Method(self.infer, scope="infer"),
            "RepositoryIndex": self._method(pb.RepositoryIndexRequest, self._repository_index),
            "RepositoryModelLoad": self._method(
                pb.RepositoryModelLoadRequest, self._load, scope="models:write"
            ),
            "RepositoryModelUnload": self._method(
                pb.RepositoryModelUnloadRequest, self._unload, scope="models:write"
            ),
        }

    async def infer(self, call: Call, message: bytes) -> bytes:
        """Answer one ModelInfer."""
        with self._budget.lease() as lease:
            lease.grow_to(len(message))
            decoded = decode_infer_request(message, self._limits)
            result = await self._infer(call, decoded)
            return encode_infer_response(decoded, result.response)

    async def stream(self, call: Call, context: Any) -> None:
        """Answer a ModelStreamInfer until the client ends it.

        Raises Unauthenticated or Forbidden when the caller's credential stops to hold meanwhile.
        """
        slots = asyncio.Semaphore(STREAM_CONCURRENCY)
        answers: asyncio.Queue[asyncio.Task[bytes] | None] = asyncio.Queue()
        refused: PrimeSparkError | None = None

        async def write_in_order() -> None:
            while (answer := await answers.get()) is not None:
                await context.write(await answer)
                slots.release()

        async with asyncio.TaskGroup() as group:
            group.create_task(write_in_order())
            while True:
                await slots.acquire()
                message = await context.read()
                if message is grpc.aio.EOF:
                    break
                try:
                    _authenticate(self._authenticator, call.metadata).require("infer")
                except PrimeSparkError as error:
                    refused = error
                    break
                now = dataclasses.replace(call, remaining_s=context.time_remaining())
                answers.put_nowait(group.create_task(self._stream_answer(now, message)))
            answers.put_nowait(None)
        if refused is not None:
            raise refused

    async def _stream_answer(self, call: Call, message: bytes) -> bytes:
        """Answer one message of a stream; a refusal is an answer too."""
        request_id = ""
        try:
            with self._budget.lease() as lease:
                lease.grow_to(len(message))
                decoded = decode_infer_request(message, self._limits)
                request_id = decoded.request.id
                result = await self._infer(call, decoded)
                final = {FINAL_RESPONSE: True}
                return encode_stream_answer(encode_infer_response(decoded, result.response, final))
        except PrimeSparkError as error:
            await hold(error)
            return encode_stream_error(error.message, request_id)
        except Exception as error:
            return encode_stream_error(_incident("ModelStreamInfer", error), request_id)

    async def _infer(self, call: Call, decoded: DecodedCall) -> InferResult:
        context = self._context(call, decoded.request.parameters)
        with self._gate:
            return await self._service.infer(decoded.request, context)

    async def _live(self, call: Call, request: pb.ServerLiveRequest) -> pb.ServerLiveResponse:
        return pb.ServerLiveResponse(live=True)

    async def _ready(self, call: Call, request: pb.ServerReadyRequest) -> pb.ServerReadyResponse:
        return pb.ServerReadyResponse(ready=self._service.health().is_ready)

    async def _server_metadata(
        self, call: Call, request: pb.ServerMetadataRequest
    ) -> pb.ServerMetadataResponse:
        return documents.server_metadata(self._service.server_metadata())

    async def _model_ready(
        self, call: Call, request: pb.ModelReadyRequest
    ) -> pb.ModelReadyResponse:
        is_ready = self._service.is_model_ready(request.name, request.version or None)
        return pb.ModelReadyResponse(ready=is_ready)

    async def _model_metadata(
        self, call: Call, request: pb.ModelMetadataRequest
    ) -> pb.ModelMetadataResponse:
        found = self._service.model_metadata(request.name, request.version or None)
        return documents.model_metadata(found)

    async def _model_config(
        self, call: Call, request: pb.ModelConfigRequest
    ) -> pb.ModelConfigResponse:
        found = self._service.model_config(request.name, request.version or None)
        return documents.model_config(found)

    async def _model_statistics(
        self, call: Call, request: pb.ModelStatisticsRequest
    ) -> pb.ModelStatisticsResponse:
        found = await self._service.model_statistics(request.name or None, request.version or None)
        return documents.statistics(found)

    async def _repository_index(
        self, call: Call, request: pb.RepositoryIndexRequest
    ) -> pb.RepositoryIndexResponse:
        return documents.index(self._service.repository_index(ready_only=request.ready))

    async def _load(
        self, call: Call, request: pb.RepositoryModelLoadRequest
    ) -> pb.RepositoryModelLoadResponse:
        parameters = repository_parameters(request.parameters)
        await self._service.load_model(request.model_name, parameters, self._context(call, {}))
        return pb.RepositoryModelLoadResponse()

    async def _unload(
        self, call: Call, request: pb.RepositoryModelUnloadRequest
    ) -> pb.RepositoryModelUnloadResponse:
        parameters = repository_parameters(request.parameters)
        await self._service.unload_model(request.model_name, parameters, self._context(call, {}))
        return pb.RepositoryModelUnloadResponse()

    def _method(
        self,
        kind: type[M],
        answer: Callable[[Call, M], Awaitable[Message]],
        *,
        scope: str | None = None,
        is_open: bool = False,
    ) -> Method:
        async def run(call: Call, message: bytes) -> bytes:
            request = parse(kind, message, self._limits.max_json_bytes)
            return (await answer(call, request)).SerializeToString()

        return Method(run, scope, is_open)

    def _context(self, call: Call, parameters: Parameters) -> CallContext:
        """Settle the context of a call; the caller's own gRPC deadline bounds every other."""
        metadata = call.metadata
        context = call_context(
            call.principal,
            self._limits,
            parameters,
            timeout_s=header_timeout_s(metadata.get(TIMEOUT_HEADER)),
            site=metadata.get(SITE_HEADER),
            tier=metadata.get(TIER_HEADER),
            protocol="grpc",
            trace=metadata.get(TRACE_HEADER),
            load=metadata.get(LOAD_HEADER),
            session=metadata.get(SESSION_HEADER),
            objective=metadata.get(OBJECTIVE_HEADER),
            address=metadata.get(CLIENT_HEADER),
        )
        if call.remaining_s is None:
            return context
        latest = asyncio.get_running_loop().time() + call.remaining_s
        return dataclasses.replace(context, deadline=min(context.deadline, latest))


def grpc_status(error: PrimeSparkError) -> grpc.StatusCode:
    """Return the code of an error, or of the nearest kind above it in the error tree."""
    for kind in type(error).__mro__:
        if kind in GRPC_STATUS:
            return GRPC_STATUS[kind]
    return grpc.StatusCode.INTERNAL


def trailers(error: PrimeSparkError) -> tuple[tuple[str, str], ...]:
    """Return what the status cannot say as metadata; text outside ASCII is percent-encoded.

    `retry-after` is in seconds, as in HTTP; `grpc-retry-pushback-ms` is what gRPC's own retries
    read (gRFC A6).
    """
    found = [("prime-spark-code", error.code)]
    if error.field is not None:
        found.append(("prime-spark-field", _ascii(error.field)))
    if error.hint is not None:
        found.append(("prime-spark-hint", _ascii(error.hint)))
    is_spent = isinstance(error, BudgetExceeded)
    if is_spent or grpc_status(error) is grpc.StatusCode.UNAVAILABLE:
        wait_s = error.retry_after_s or 1.0
        found.append(("retry-after", str(max(1, math.ceil(wait_s)))))
        found.append(("grpc-retry-pushback-ms", str(math.ceil(wait_s * 1e3))))
    return tuple(found)


def _unary(method: Method, principal: Principal, metadata: Metadata) -> Behaviour:
    async def behave(message: bytes, context: Any) -> bytes:
        try:
            return await method.run(Call(principal, metadata, context.time_remaining()), message)
        except Exception as error:
            # The cluster, on this node, asks elsewhere and not here again.
            may_hold = principal is not LOCAL or metadata.get(LOAD_HEADER) != "1"
            return await _abort(context, error, may_hold=may_hold)  # type: ignore[no-any-return]

    return behave


def _streaming(
    stream: Callable[[Call, Any], Awaitable[None]], principal: Principal, metadata: Metadata
) -> Behaviour:
    async def behave(_: Any, context: Any) -> None:
        try:
            await stream(Call(principal, metadata, None), context)
        except Exception as error:
            await _abort(context, error)

    return behave


def _refusing(error: PrimeSparkError) -> Behaviour:
    """Return a behaviour that refuses without reading a message."""

    async def behave(_: Any, context: Any) -> None:
        await _abort(context, error)

    return behave


async def _abort(context: Any, error: Exception, *, may_hold: bool = True) -> Any:
    """End a call with an error; the one place where errors become gRPC."""
    if isinstance(error, PrimeSparkError):
        status, text = grpc_status(error), error.message[:_MAX_TEXT_CHARS]
        if status in (grpc.StatusCode.INTERNAL, grpc.StatusCode.DATA_LOSS):
            logger.error("%s over gRPC: %s", type(error).__name__, error)
        if may_hold:
            await hold(error)
        await context.abort(status, _printable(text), trailers(error))
    text = _incident("gRPC", error)
    await context.abort(grpc.StatusCode.INTERNAL, text, (("prime-spark-code", "internal"),))


def _incident(where: str, error: Exception) -> str:
    incident = uuid.uuid4().hex
    logger.error("incident %s on %s", incident, where, exc_info=error)
    return f"an unexpected error; the log has it as {incident}"


def _authenticate(authenticator: Authenticates, metadata: Metadata) -> Principal:
    return authenticator.authenticate(metadata.get("authorization"), metadata.get("x-api-key"))


def _text_metadata(pairs: Iterable[tuple[str, str | bytes]] | None) -> Metadata:
    """Return metadata by key; of a repeated key the first holds, as in HTTP headers here."""
    found: dict[str, str] = {}
    for key, value in pairs or ():
        if isinstance(value, str):
            found.setdefault(key, value)
    return found


def _ascii(text: str) -> str:
    return quote(_printable(text[:_MAX_TEXT_CHARS]), safe=_TRAILER_SAFE)[:_MAX_TRAILER_CHARS]


def _printable(text: str) -> str:
    """Replace what UTF-8 cannot carry."""
    return text.encode("utf-8", "replace").decode("utf-8")
