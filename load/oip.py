"""Open Inference Protocol bodies as a client makes and reads them: binary, JSON and gRPC.

Kept apart from the server's codec on purpose: a mistake in one shows against the other.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from load.http1 import Response, request_bytes

Rows = NDArray[np.float32]

HEADER_LENGTH = "inference-header-content-length"


@dataclass(frozen=True, slots=True, eq=False)
class Payload:
    """One FP32 input for a model."""

    model: str
    input: str
    data: Rows


def infer_path(model: str) -> str:
    return f"/v2/models/{model}/infer"


def binary_body(payload: Payload) -> tuple[bytes, int]:
    """Return body and header length: the tensor as raw bytes, and so the answer."""
    header = json.dumps(
        {
            "inputs": [
                {
                    "name": payload.input,
                    "shape": list(payload.data.shape),
                    "datatype": "FP32",
                    "parameters": {"binary_data_size": payload.data.nbytes},
                }
            ],
            "parameters": {"binary_data_output": True},
        },
        separators=(",", ":"),
    ).encode()
    return header + payload.data.tobytes(), len(header)


def json_body(payload: Payload) -> bytes:
    """Return the tensor as JSON numbers (a flat list, which the protocol allows)."""
    return json.dumps(
        {
            "inputs": [
                {
                    "name": payload.input,
                    "shape": list(payload.data.shape),
                    "datatype": "FP32",
                    "data": payload.data.reshape(-1).tolist(),
                }
            ]
        },
        separators=(",", ":"),
    ).encode()


def binary_request(payload: Payload, host: str, headers: Mapping[str, str]) -> bytes:
    """Return a whole HTTP request with a binary tensor."""
    body, header_bytes = binary_body(payload)
    return request_bytes(
        "POST",
        infer_path(payload.model),
        host,
        {
            "content-type": "application/octet-stream",
            HEADER_LENGTH: str(header_bytes),
            **headers,
        },
        body,
    )


def json_request(payload: Payload, host: str, headers: Mapping[str, str]) -> bytes:
    """Return a whole HTTP request with a JSON tensor."""
    return request_bytes(
        "POST",
        infer_path(payload.model),
        host,
        {"content-type": "application/json", **headers},
        json_body(payload),
    )


def read_output(response: Response) -> Rows:
    """Return the first output of an answer, binary or JSON.

    Raises ValueError when it is not a complete answer with an FP32 output.
    """
    if response.status != 200:
        raise ValueError(f"status {response.status}: {response.body[:300]!r}")
    length = response.headers.get(HEADER_LENGTH.encode())
    header_bytes = len(response.body) if length is None else int(length)
    document: Mapping[str, Any] = json.loads(response.body[:header_bytes])
    output = document["outputs"][0]
    if output["datatype"] != "FP32":
        raise ValueError(f"datatype {output['datatype']}, not FP32")
    if "data" in output:
        return np.asarray(output["data"], dtype=np.float32).reshape(output["shape"])
    size = int(output["parameters"]["binary_data_size"])
    raw = response.body[header_bytes : header_bytes + size]
    return np.frombuffer(raw, dtype=np.float32).reshape(output["shape"])


def grpc_request(payload: Payload) -> bytes:
    """Return a serialised ModelInferRequest with raw contents."""
    from tritonclient.grpc import service_pb2 as pb

    request = pb.ModelInferRequest(model_name=payload.model)
    tensor = request.inputs.add()
    tensor.name = payload.input
    tensor.datatype = "FP32"
    tensor.shape.extend(payload.data.shape)
    request.raw_input_contents.append(payload.data.tobytes())
    serialised: bytes = request.SerializeToString()
    return serialised


def read_grpc_output(serialised: bytes) -> Rows:
    """Return the first output of a serialised ModelInferResponse. Raises ValueError."""
    from tritonclient.grpc import service_pb2 as pb

    response = pb.ModelInferResponse.FromString(serialised)
    output = response.outputs[0]
    if output.datatype != "FP32":
        raise ValueError(f"datatype {output.datatype}, not FP32")
    if response.raw_output_contents:
        data = np.frombuffer(response.raw_output_contents[0], dtype=np.float32)
    else:
        data = np.asarray(output.contents.fp32_contents, dtype=np.float32)
    return data.reshape(tuple(output.shape))
