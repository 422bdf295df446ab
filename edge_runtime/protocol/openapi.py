"""The OpenAPI 3.1 document of the REST surface.

Written from the same limits and datatypes that the codec enforces, so that a generated client
cannot be told anything else. Fuzzers read it too: every status that a route may answer with is
listed, and schemas are as strict as the codec.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from edge_runtime.protocol.context import (
    OBJECTIVE_HEADER,
    SESSION_HEADER,
    SITE_HEADER,
    TIER_HEADER,
    TIERS,
    TIMEOUT_HEADER,
)
from edge_runtime.protocol.datatypes import NUMPY
from edge_runtime.protocol.oip import MAX_ID_CHARS, MAX_NAME_CHARS
from edge_runtime.protocol.service import Limits
from policies.routing.types import OBJECTIVES

Schema = dict[str, Any]

NAME_PATTERN = r"^[A-Za-z0-9_][A-Za-z0-9._-]{0,127}$"  # what the registry takes for both
_MODEL = "/v2/models/{model}"
_VERSIONED = "/v2/models/{model}/versions/{version}"


@dataclass(frozen=True, slots=True)
class Described:
    """A route beside the protocol's that generators should know: what it answers, as a schema."""

    path: str
    operation: str
    summary: str
    schema: Schema


def openapi_document(limits: Limits, beside: Sequence[Described] = ()) -> Schema:
    """Return the document for a server with these limits, and these routes to GET besides."""
    paths: dict[str, Schema] = {
        "/v2/health/live": {"get": _open("The process answers", "serverLive")},
        "/v2/health/ready": {"get": _open("Models can be asked", "serverReady", 503)},
        "/healthz": {"get": _health()},
        "/v2": {"get": _get("What this server is and offers", "serverMetadata", "ServerMetadata")},
        "/v2/models/stats": {
            "get": _get("Counters of every loaded model", "allStatistics", "Statistics")
        },
        "/v2/repository/index": {"post": _index()},
        "/v2/repository/models/{model}/load": {"post": _repository("load", "Load a model")},
        "/v2/repository/models/{model}/unload": {"post": _repository("unload", "Unload a model")},
        "/metrics": {"get": _metrics()},
        "/openapi.json": {"get": _get("This document", "openapi", None)},
    }
    for base, suffix, names in (
        (_MODEL, "", ("model",)),
        (_VERSIONED, "Version", ("model", "version")),
    ):
        shared = [{"$ref": f"#/components/parameters/{name}"} for name in names]
        paths[base] = {
            "get": _get("Inputs and outputs", f"modelMetadata{suffix}", "ModelMetadata", 404),
            "parameters": shared,
        }
        paths[f"{base}/ready"] = {
            "get": _get("Whether it can be asked", f"modelReady{suffix}", None, 404, 503),
            "parameters": shared,
        }
        paths[f"{base}/config"] = {
            "get": _get("Its configuration", f"modelConfig{suffix}", None, 404, 503),
            "parameters": shared,
        }
        paths[f"{base}/stats"] = {
            "get": _get("Its counters", f"modelStatistics{suffix}", "Statistics", 404, 503),
            "parameters": shared,
        }
        paths[f"{base}/infer"] = {"post": _infer(suffix), "parameters": shared}
    for route in beside:
        paths[route.path] = {"get": _beside(route)}
    paths["/v2/repository/models/{model}/load"]["parameters"] = [_ref("parameters", "model")]
    paths["/v2/repository/models/{model}/unload"]["parameters"] = [_ref("parameters", "model")]
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Prime Spark",
            "version": "2",
            "summary": "Open Inference Protocol v2 with the binary tensor, model repository, "
            "model configuration and statistics extensions.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "security": [{"token": []}, {"apiKey": []}],
        "paths": paths,
        "components": {
            "securitySchemes": {
                "token": {"type": "http", "scheme": "bearer", "bearerFormat": "JWT"},
                "apiKey": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
            },
            "parameters": {
                "model": _path_parameter("model", NAME_PATTERN),
                "version": _path_parameter("version", NAME_PATTERN),
            },
            "schemas": _schemas(limits),
        },
    }


def _schemas(limits: Limits) -> Schema:
    name = {"type": "string", "minLength": 1, "maxLength": MAX_NAME_CHARS}
    datatype = {"type": "string", "enum": list(NUMPY)}
    scalar = {"type": ["boolean", "integer", "number", "string", "null"]}
    parameters = {"type": "object", "additionalProperties": scalar}
    spec = _object(
        {
            "name": name,
            "datatype": datatype,
            "shape": {"type": "array", "items": {"type": "integer", "minimum": -1}},
        }
    )
    tensor = {
        "name": name,
        "datatype": datatype,
        "shape": {"type": "array", "maxItems": 32, "items": {"type": "integer", "minimum": 0}},
        "parameters": {"$ref": "#/components/schemas/Parameters"},
        "data": {
            "type": "array",
            "description": "Row-major, flat or nested as the shape; left out when binary.",
        },
    }
    duration = _object({"count": {"type": "integer"}, "ns": {"type": "integer"}})
    statistic_names = [
        "success",
        "fail",
        "queue",
        "compute_input",
        "compute_infer",
        "compute_output",
        "cancel",
        "rejected",
    ]
    request = _object(
        {
            "id": {"type": ["string", "null"], "maxLength": MAX_ID_CHARS},
            "parameters": {"$ref": "#/components/schemas/Parameters"},
            "inputs": {
                "type": "array",
                "minItems": 1,
                "maxItems": limits.max_tensors,
                "items": _object(tensor, ("name", "datatype", "shape")),
            },
            "outputs": {
                "type": "array",
                "maxItems": limits.max_tensors,
                "items": _object(
                    {"name": name, "parameters": {"$ref": "#/components/schemas/Parameters"}},
                    ("name",),
                ),
            },
        },
        ("inputs",),
    )
    response = _object(
        {
            "model_name": {"type": "string"},
            "model_version": {"type": "string"},
            "id": {"type": "string"},
            "parameters": {"$ref": "#/components/schemas/Parameters"},
            "outputs": {"type": "array", "items": _object(tensor, ("name", "datatype", "shape"))},
        },
        ("model_name", "outputs"),
    )
    return {
        "Error": _object(
            {
                "error": {"type": "string"},
                "code": {"type": "string"},
                "field": {"type": "string"},
                "hint": {"type": "string"},
            },
            ("error",),
        ),
        "Parameters": parameters,
        "InferRequest": request,
        "InferResponse": response,
        "ServerMetadata": _object(
            {
                "name": {"type": "string"},
                "version": {"type": "string"},
                "extensions": {"type": "array", "items": {"type": "string"}},
            }
        ),
        "ModelMetadata": _object(
            {
                "name": {"type": "string"},
                "versions": {"type": "array", "items": {"type": "string"}},
                "platform": {"type": "string"},
                "inputs": {"type": "array", "items": spec},
                "outputs": {"type": "array", "items": spec},
            }
        ),
        "Statistics": _object(
            {
                "model_stats": {
                    "type": "array",
                    "items": _object(
                        {
                            "name": {"type": "string"},
                            "version": {"type": "string"},
                            "inference_stats": _object(dict.fromkeys(statistic_names, duration)),
                        },
                        ("name", "version", "inference_stats"),
                    ),
                }
            }
        ),
        "Index": {
            "type": "array",
            "items": _object(
                {key: {"type": "string"} for key in ("name", "version", "state", "reason")}
            ),
        },
    }


def _infer(suffix: str) -> Schema:
    headers: list[Schema] = [
        _header("Inference-Header-Content-Length", {"type": "integer", "minimum": 0}),
        _header(TIMEOUT_HEADER, {"type": "integer", "minimum": 1, "maximum": 999_999_999}),
        _header(TIER_HEADER, {"type": "string", "enum": list(TIERS)}),
        _header(SITE_HEADER, {"type": "string", "pattern": "^[!-~]{1,64}$"}),
        _header(SESSION_HEADER, {"type": "string", "pattern": "^[!-~]{1,128}$"}),
        _header(OBJECTIVE_HEADER, {"type": "string", "enum": list(OBJECTIVES)}),
    ]
    reference = _ref("schemas", "InferRequest")
    answer = _ref("schemas", "InferResponse")
    binary = {"type": "string", "format": "binary"}
    return {
        "operationId": f"infer{suffix}",
        "summary": "Run a model",
        "parameters": headers,
        "requestBody": {
            "required": True,
            "content": {
                "application/json": {"schema": reference},
                "application/octet-stream": {"schema": binary},
            },
        },
        "responses": {
            "200": {
                "description": "The outputs; binary ones follow the JSON.",
                "content": {
                    "application/json": {"schema": answer},
                    "application/octet-stream": {"schema": binary},
                },
            },
            **_errors(400, 401, 403, 404, 413, 429, 503, 504),
        },
    }


def _repository(verb: str, summary: str) -> Schema:
    body = _object({"parameters": {"type": "object"}}, ())
    return {
        "operationId": f"{verb}Model",
        "summary": f"{summary} (scope models:write)",
        "requestBody": {"content": {"application/json": {"schema": body}}},
        "responses": {
            "200": {"description": "Done on every replica."},
            **_errors(400, 401, 403, 404, 409, 413, 503, 504),
        },
    }


def _index() -> Schema:
    body = _object({"ready": {"type": "boolean"}}, ())
    return {
        "operationId": "repositoryIndex",
        "summary": "Every model version known here",
        "requestBody": {"content": {"application/json": {"schema": body}}},
        "responses": {
            "200": {"description": "The index.", "content": _content("Index")},
            **_errors(400, 401, 413, 503),
        },
    }


def _metrics() -> Schema:
    text = {"text/plain": {"schema": {"type": "string"}}}
    return {
        "operationId": "metrics",
        "summary": "Prometheus metrics (scope metrics:read)",
        "responses": {
            "200": {"description": "Exposition text.", "content": text},
            **_errors(401, 403),
        },
    }


def _health() -> Schema:
    schema = _object({"status": {"type": "string"}, "reasons": {"type": "array"}})
    content = {"application/json": {"schema": schema}}
    return {
        "operationId": "health",
        "summary": "Ready, degraded or unready, with reasons",
        "security": [],
        "responses": {
            "200": {"description": "Answers.", "content": content},
            "503": {"description": "Does not.", "content": content},
        },
    }


def _open(summary: str, operation: str, *errors: int) -> Schema:
    return {
        "operationId": operation,
        "summary": summary,
        "security": [],
        "responses": {"200": {"description": "Yes."}, **_errors(*errors)},
    }


def _get(summary: str, operation: str, schema: str | None, *errors: int) -> Schema:
    content = _content(schema) if schema else {"application/json": {"schema": {"type": "object"}}}
    return {
        "operationId": operation,
        "summary": summary,
        "responses": {"200": {"description": "OK", "content": content}, **_errors(401, *errors)},
    }


def _beside(route: Described) -> Schema:
    content = {"application/json": {"schema": route.schema}}
    return {
        "operationId": route.operation,
        "summary": route.summary,
        "responses": {"200": {"description": "OK", "content": content}, **_errors(401, 403)},
    }


def _errors(*statuses: int) -> Schema:
    return {
        str(status): {"description": _MEANING[status], "content": _content("Error")}
        for status in statuses
    }


_MEANING = {
    400: "Malformed; `field` says where.",
    401: "No credential that holds.",
    403: "The credential lacks a scope.",
    404: "No such model, version or route.",
    409: "Somebody else was first.",
    413: "Over a size limit.",
    429: "What may be spent is spent; see Retry-After.",
    503: "Refused early or nothing to serve it; see Retry-After.",
    504: "The deadline passed.",
}


def _content(schema: str) -> Schema:
    return {"application/json": {"schema": _ref("schemas", schema)}}


def _ref(kind: str, name: str) -> Schema:
    return {"$ref": f"#/components/{kind}/{name}"}


def _header(name: str, schema: Schema) -> Schema:
    return {"name": name, "in": "header", "required": False, "schema": schema}


def _path_parameter(name: str, pattern: str) -> Schema:
    schema = {"type": "string", "pattern": pattern}
    return {"name": name, "in": "path", "required": True, "schema": schema}


def _object(properties: Schema, required: tuple[str, ...] | None = None) -> Schema:
    names = list(properties) if required is None else list(required)
    schema: Schema = {"type": "object", "properties": properties}
    return {**schema, "required": names} if names else schema
