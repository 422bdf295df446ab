"""Who is measured: a server, and the ways to call it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from load.bench.models import MODELS, BenchModel
from load.bench.servers import Launch
from load.http1 import request_bytes
from load.oip import HEADER_LENGTH, binary_body, grpc_request, infer_path, json_body

HOST: Final = "127.0.0.1"


@dataclass(frozen=True, slots=True)
class Subject:
    """One way to call a model. protocol: http, grpc or onnx (see `worker`); form: binary or json.

    port 0 and protocol onnx: no server at all, the floor.
    """

    name: str
    title: str
    protocol: str
    port: int = 0
    form: str = "binary"
    prefix: str = ""
    headers: Mapping[str, str] = field(default_factory=dict)
    models: Sequence[str] = MODELS

    def request(self, model: BenchModel) -> bytes:
        """Return the bytes that the load generator sends again and again."""
        if self.protocol == "grpc":
            return grpc_request(model.payload)
        if self.form == "binary":
            body, header_bytes = binary_body(model.payload)
            headers = {
                "content-type": "application/octet-stream",
                HEADER_LENGTH: str(header_bytes),
            }
        else:
            body, headers = json_body(model.payload), {"content-type": "application/json"}
        path = self.prefix + infer_path(model.name)
        host = f"{HOST}:{self.port}"
        return request_bytes("POST", path, host, {**headers, **self.headers}, body)


@dataclass(frozen=True, slots=True)
class Candidate:
    """A server and the subjects on it; without a launch, the floor."""

    name: str
    launch: Launch | None
    subjects: tuple[Subject, ...]


FLOOR: Final = Candidate(
    "onnxruntime", None, (Subject("onnxruntime", "onnxruntime, in process (floor)", "onnx"),)
)
