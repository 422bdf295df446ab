"""The REST server of the Open Inference Protocol v2 over any `InferenceService`.

One Starlette application, composed in `build_rest_app`. A request is authenticated before its
body is read, read within `Limits`, decoded, served, and encoded; a client that goes away
cancels its inference. Every refusal has the protocol's form `{"error": "..."}` with a stable
`code`, and the status of `HTTP_STATUS`, which is the only place where errors become HTTP.

Routes: Open Inference Protocol v2 ("HTTP/REST"), Triton's model repository, model
configuration, statistics and binary tensor extensions; `/healthz`, `/metrics` and
`/openapi.json` beside them. Only health is open to everybody.
"""

from __future__ import annotations

import logging
import math
import re
import uuid
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from inspect import isawaitable
from typing import TYPE_CHECKING, Any

import orjson
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from edge_runtime.auth import Authenticates, Principal
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
from edge_runtime.protocol import rest_documents as documents
from edge_runtime.protocol.body import ByteBudget, pack, read_body
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
from edge_runtime.protocol.disconnect import ClientGone, UntilDisconnect
from edge_runtime.protocol.gate import START_HEADER, Gate, hold
from edge_runtime.protocol.oip import (
    decode_infer_request,
    encode_infer_response,
    parse_header_length,
    parse_json_object,
    read_parameters,
)
from edge_runtime.protocol.service import CallContext, InferenceService, InferResult, Limits
from edge_runtime.protocol.types import InferRequest, Parameters

if TYPE_CHECKING:
    from edge_runtime.protocol.openapi import Described

logger = logging.getLogger(__name__)

HTTP_STATUS: Mapping[type[PrimeSparkError], int] = {
    InvalidInput: 400,
    Unsupported: 400,
    Unauthenticated: 401,
    Forbidden: 403,
    NotFound: 404,
    Conflict: 409,
    TooLarge: 413,
    BudgetExceeded: 429,
    Corrupt: 500,
    Overloaded: 503,
    Unavailable: 503,
    DeadlineExceeded: 504,
}

MAX_PATH_CHARS = 256  # of a path that is repeated in an error

_INFER_PATH = re.compile(r"/v2/models/(?P<model>[^/]+)(?:/versions/(?P<version>[^/]+))?/infer")

Endpoint = Callable[[Request], Awaitable[Response]]
MetricsText = Callable[[], tuple[bytes, str]]


@dataclass(frozen=True, slots=True)
class ExtraRoute:
    """A route that answers JSON to callers with a scope.

    read: gets the query parameters; returns the document, or an awaitable of it. describe: for the
    OpenAPI document, which leaves out what has none.
    """

    path: str
    scope: str
    read: Callable[[Mapping[str, str]], object]
    method: str = "GET"
    describe: Callable[[], Described] | None = None


def build_rest_app(
    service: InferenceService,
    authenticator: Authenticates,
    limits: Limits,
    metrics: MetricsText,
    budget: ByteBudget | None = None,
    gate: Gate | None = None,
    extra: Sequence[ExtraRoute] = (),
) -> ASGIApp:
    """Compose the application.

    metrics: returns (text, content type) for `/metrics`; budget and gate: shared with gRPC;
    extra: routes beside the protocol's.
    """
    api = RestApi(
        service,
        authenticator,
        limits,
        metrics,
        budget or ByteBudget(limits.max_inflight_bytes),
        gate or Gate(),
        [route.describe for route in extra if route.describe is not None],
    )
    model, versioned = "/v2/models/{model}", "/v2/models/{model}/versions/{version}"
    routes: list[Route] = []

    def add(path: str, endpoint: Endpoint, method: str = "GET") -> None:
        routes.append(Route(path, _guarded(endpoint), methods=[method]))

    for base in (model, versioned):
        add(f"{base}/infer", api.infer, "POST")
    add("/v2/health/live", api.live)
    add("/v2/health/ready", api.ready)
    add("/v2", api.server_metadata)
    add("/v2/models/stats", api.all_statistics)
    for base in (model, versioned):
        add(base, api.model_metadata)
        add(f"{base}/ready", api.model_ready)
        add(f"{base}/config", api.model_config)
        add(f"{base}/stats", api.model_statistics)
    add("/v2/repository/index", api.repository_index, "POST")
    add("/v2/repository/models/{model}/load", api.load, "POST")
    add("/v2/repository/models/{model}/unload", api.unload, "POST")
    add("/healthz", api.healthz)
    add("/metrics", api.metrics)
    add("/openapi.json", api.openapi)
    for route in extra:
        add(route.path, api.extra(route), route.method)
    app = Starlette(
        routes=routes,
        exception_handlers={HTTPException: _route_error, Exception: _unexpected},
    )
    app.router.redirect_slashes = False  # a redirect would name whatever Host the caller sent
    return _InferFirst(_guarded(api.infer), app)


class _InferFirst:
    """Passes inference straight to its endpoint, everything else to the application.

    Routing and middleware of the framework would be a third of a small request's time; what
    they would do for this one route is done here, and `tests/contract` holds both ways to the
    same answers.
    """

    def __init__(self, infer: Endpoint, app: ASGIApp) -> None:
        self._infer = infer
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        found = (
            _INFER_PATH.fullmatch(scope["path"])
            if scope["type"] == "http" and scope["method"] == "POST"
            else None
        )
        if found is None:
            await self._app(scope, receive, send)
            return
        scope["path_params"] = {k: v for k, v in found.groupdict().items() if v is not None}
        request = Request(scope, receive, send)
        try:
            response = await self._infer(request)
        except Exception as error:
            response = await _unexpected(request, error)
        await response(scope, receive, send)


class RestApi:
    """The endpoints; one method a route."""

    def __init__(
        self,
        service: InferenceService,
        authenticator: Authenticates,
        limits: Limits,
        metrics: MetricsText,
        budget: ByteBudget,
        gate: Gate,
        described: Sequence[Callable[[], Described]] = (),
    ) -> None:
        self._service = service
        self._authenticator = authenticator
        self._limits = limits
        self._metrics = metrics
        self._budget = budget
        self._gate = gate
        self._described = described

    async def infer(self, request: Request) -> Response:
        headers = _headers_of(request.scope)
        self._gate.check(headers.get(START_HEADER))
        principal = self._principal(headers)
        principal.require("infer")
        model, version = _model_of(request)
        with self._gate, self._budget.lease() as lease:
            body = await read_body(request.receive, headers, self._limits, lease)
            split = parse_header_length(headers.get("inference-header-content-length"), len(body))
            call = decode_infer_request(body, split, model, version, self._limits)
            context = self._context(principal, headers, call.parameters)
            with UntilDisconnect(request.receive):
                result = await self._service.infer(call, context)
            return await _infer_response(call, result, headers.get("accept-encoding"))

    async def live(self, request: Request) -> Response:
        return Response(status_code=200)

    async def ready(self, request: Request) -> Response:
        health = self._service.health()
        if health.is_ready:
            return Response(status_code=200)
        raise Unavailable("not ready: " + "; ".join(health.reasons), retry_after_s=1.0)

    async def healthz(self, request: Request) -> Response:
        health = self._service.health()
        body = {"status": health.status, "reasons": list(health.reasons)}
        return _json(body, 200 if health.is_ready else 503)

    async def server_metadata(self, request: Request) -> Response:
        self._principal(request.headers)
        return _json(documents.server_metadata(self._service.server_metadata()))

    async def model_metadata(self, request: Request) -> Response:
        self._principal(request.headers)
        return _json(documents.model_metadata(self._service.model_metadata(*_model_of(request))))

    async def model_ready(self, request: Request) -> Response:
        self._principal(request.headers)
        model, version = _model_of(request)
        if self._service.is_model_ready(model, version):
            return _json({"name": model, "ready": True})
        raise Unavailable(f"model '{model}' is not loaded", retry_after_s=1.0)

    async def model_config(self, request: Request) -> Response:
        self._principal(request.headers)
        return _json(documents.model_config(self._service.model_config(*_model_of(request))))

    async def model_statistics(self, request: Request) -> Response:
        self._principal(request.headers)
        stats = await self._service.model_statistics(*_model_of(request))
        return _json(documents.statistics(stats))

    async def all_statistics(self, request: Request) -> Response:
        self._principal(request.headers)
        return _json(documents.statistics(await self._service.model_statistics(None, None)))

    async def repository_index(self, request: Request) -> Response:
        self._principal(request.headers)
        body = await self._optional_json(request)
        ready = body.get("ready", False)
        if not isinstance(ready, bool):
            raise InvalidInput("ready must be true or false", field="ready")
        return _json(documents.index(self._service.repository_index(ready_only=ready)))

    async def load(self, request: Request) -> Response:
        context, parameters = await self._repository_call(request)
        with UntilDisconnect(request.receive):
            await self._service.load_model(request.path_params["model"], parameters, context)
        return Response(status_code=200)

    async def unload(self, request: Request) -> Response:
        context, parameters = await self._repository_call(request)
        with UntilDisconnect(request.receive):
            await self._service.unload_model(request.path_params["model"], parameters, context)
        return Response(status_code=200)

    async def metrics(self, request: Request) -> Response:
        self._principal(request.headers).require("metrics:read")
        text, content_type = self._metrics()
        return Response(text, headers={"content-type": content_type})

    async def openapi(self, request: Request) -> Response:
        from edge_runtime.protocol.openapi import openapi_document  # rarely asked for, and large

        self._principal(request.headers)
        return _json(openapi_document(self._limits, [each() for each in self._described]))

    def extra(self, route: ExtraRoute) -> Endpoint:
        async def endpoint(request: Request) -> Response:
            self._principal(request.headers).require(route.scope)
            found = route.read(request.query_params)
            return _json(await found if isawaitable(found) else found)

        return endpoint

    def _principal(self, headers: Mapping[str, str]) -> Principal:
        return self._authenticator.authenticate(
            headers.get("authorization"), headers.get("x-api-key")
        )

    def _context(
        self, principal: Principal, headers: Mapping[str, str], parameters: Parameters
    ) -> CallContext:
        return call_context(
            principal,
            self._limits,
            parameters,
            timeout_s=header_timeout_s(headers.get(TIMEOUT_HEADER)),
            site=headers.get(SITE_HEADER),
            tier=headers.get(TIER_HEADER),
            protocol="http",
            trace=headers.get(TRACE_HEADER),
            load=headers.get(LOAD_HEADER),
            session=headers.get(SESSION_HEADER),
            objective=headers.get(OBJECTIVE_HEADER),
            address=headers.get(CLIENT_HEADER),
        )

    async def _repository_call(self, request: Request) -> tuple[CallContext, Parameters]:
        principal = self._principal(request.headers)
        principal.require("models:write")
        body = await self._optional_json(request)
        parameters = read_parameters(body.get("parameters"), "parameters")
        return self._context(principal, request.headers, {}), parameters

    async def _optional_json(self, request: Request) -> Mapping[str, Any]:
        with self._budget.lease() as lease:
            body = await read_body(request.receive, request.headers, self._limits, lease)
        return parse_json_object(body, self._limits.max_json_bytes) if body else {}


def error_document(error: PrimeSparkError) -> dict[str, object]:
    """Return the JSON form of an error: the protocol's `error` text and our stable fields."""
    body: dict[str, object] = {"error": error.message, "code": error.code}
    if error.field is not None:
        body["field"] = error.field
    if error.hint is not None:
        body["hint"] = error.hint
    return body


def http_status(error: PrimeSparkError) -> int:
    """Return the status of an error, or of the nearest kind above it in the error tree."""
    for kind in type(error).__mro__:
        if kind in HTTP_STATUS:
            return HTTP_STATUS[kind]
    return 500


def error_response(error: PrimeSparkError) -> Response:
    """Translate an error to HTTP; the one place where that happens."""
    headers: dict[str, str] = {}
    status = http_status(error)
    if status == 401:
        headers["www-authenticate"] = 'Bearer realm="prime-spark"'
    if status in (429, 503):
        headers["retry-after"] = str(max(1, math.ceil(error.retry_after_s or 1.0)))
    return _json(error_document(error), status, headers)


async def _infer_response(
    call: InferRequest, result: InferResult, accept_encoding: str | None
) -> Response:
    encoded = encode_infer_response(call, result.response)
    headers = {
        "prime-spark-target": result.target,
        "prime-spark-reason": result.reason,
        "prime-spark-model-version": result.response.version,
    }
    if result.rung:
        headers["prime-spark-rung"] = result.rung
    if result.age_s:
        headers["age"] = str(int(result.age_s))  # RFC 9111, section 5.1
    if encoded.json_bytes is None:
        headers["content-type"] = "application/json"
    else:
        headers["content-type"] = "application/octet-stream"
        headers["inference-header-content-length"] = str(encoded.json_bytes)
    body = encoded.body
    if accept_encoding is not None:
        body, coding = await pack(body, accept_encoding)
        if coding is not None:
            headers["content-encoding"] = coding
            headers["vary"] = "accept-encoding"
    return Response(body, headers=headers)


def _guarded(endpoint: Endpoint) -> Endpoint:
    """Translate expected errors of an endpoint; unexpected ones go to `_unexpected`."""

    async def guarded(request: Request) -> Response:
        try:
            return await endpoint(request)
        except PrimeSparkError as error:
            if http_status(error) == 500:
                logger.error("%s on %s: %s", type(error).__name__, request.url.path, error)
            await hold(error)
            return error_response(error)
        except ClientGone:
            return Response(status_code=499)

    return guarded


async def _route_error(request: Request, error: Exception) -> Response:
    status = error.status_code if isinstance(error, HTTPException) else 500
    if status == 405:
        headers = dict(error.headers or {}) if isinstance(error, HTTPException) else {}
        text = f"{request.method} is not offered on {request.url.path[:MAX_PATH_CHARS]}"
        return _json({"error": text, "code": "method_not_allowed"}, 405, headers)
    text = f"no such route: {request.url.path[:MAX_PATH_CHARS]}"
    return _json({"error": text, "code": "not_found"}, status)


async def _unexpected(request: Request, error: Exception) -> Response:
    incident = uuid.uuid4().hex
    logger.error("incident %s on %s", incident, request.url.path, exc_info=error)
    return _json(
        {"error": f"an unexpected error; the log has it as {incident}", "code": "internal"}, 500
    )


def _headers_of(scope: Scope) -> Mapping[str, str]:
    """Return a request's header fields by lower-case name, the first of those that repeat.

    As `Request.headers` does, which goes through all of them each time one is asked for.
    """
    return {k.decode("latin-1"): v.decode("latin-1") for k, v in reversed(scope["headers"])}


def _model_of(request: Request) -> tuple[str, str | None]:
    return request.path_params["model"], request.path_params.get("version")


def _json(body: object, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    return Response(
        orjson.dumps(body),
        status_code=status,
        headers={"content-type": "application/json", **(headers or {})},
    )
