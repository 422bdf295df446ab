"""The REST codec of the Open Inference Protocol v2: request bytes in, values out, and back.

A body is JSON, or JSON followed by the raw bytes of the tensors that say `binary_data_size`;
the header `Inference-Header-Content-Length` then tells where JSON ends. Sizes are checked
before anything is allocated, a tensor in binary stays a view on the body, and whatever is
malformed becomes an `InvalidInput` that names the offending field.

Sources: Open Inference Protocol v2, "HTTP/REST"; Triton's binary tensor data and
classification extensions. JSON is strict (RFC 8259): NaN and Infinity are not JSON.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np
import orjson

from edge_runtime.errors import InvalidInput, TooLarge, Unsupported
from edge_runtime.protocol.binary import (
    as_bytes,
    bytes_array,
    check_datatype,
    check_finite,
    check_shape,
    decode_raw,
    encode_raw,
)
from edge_runtime.protocol.datatypes import (
    BF16,
    BYTES,
    FLOATS,
    NUMPY,
    is_all_finite,
    numbers,
    to_bf16,
)
from edge_runtime.protocol.service import Limits
from edge_runtime.protocol.types import (
    Array,
    InferRequest,
    InferResponse,
    ParameterValue,
    RequestedOutput,
    Tensor,
)

HEADER_LENGTH = "inference-header-content-length"
MAX_ID_CHARS = 256
MAX_NAME_CHARS = 256

_SHARED_MEMORY = "shared_memory_region"
_JSON_OPTIONS = orjson.OPT_SERIALIZE_NUMPY


@dataclass(frozen=True, slots=True)
class EncodedResponse:
    """A response body; json_bytes is None when it holds JSON only, else where JSON ends."""

    body: bytes
    json_bytes: int | None


def parse_header_length(value: str | None, body_bytes: int) -> int | None:
    """Read `Inference-Header-Content-Length`; None when absent. Raises InvalidInput."""
    if value is None:
        return None
    if not (value.isascii() and value.isdigit() and len(value) <= 12):
        raise InvalidInput(
            "Inference-Header-Content-Length must be a non-negative integer", field=HEADER_LENGTH
        )
    length = int(value)
    if length > body_bytes:
        raise InvalidInput(
            f"Inference-Header-Content-Length is {length}, the body has {body_bytes} bytes",
            field=HEADER_LENGTH,
        )
    return length


def decode_infer_request(
    body: bytes,
    header_length: int | None,
    model: str,
    version: str | None,
    limits: Limits,
) -> InferRequest:
    """Decode an inference request. Raises InvalidInput, TooLarge or Unsupported."""
    view = memoryview(body)
    json_part = body if header_length is None else view[:header_length]
    document = parse_json_object(json_part, limits.max_json_bytes)
    parameters = read_parameters(document.get("parameters"), "parameters")
    inputs = _decode_inputs(
        document, None if header_length is None else view[header_length:], limits
    )
    request_id = document.get("id", "")
    if request_id is None:
        request_id = ""
    if not isinstance(request_id, str) or len(request_id) > MAX_ID_CHARS:
        raise InvalidInput(f"id must be text of at most {MAX_ID_CHARS} characters", field="id")
    default = parameters.pop("binary_data_output", False)
    if not isinstance(default, bool):
        raise InvalidInput("binary_data_output must be true or false", field="binary_data_output")
    return InferRequest(
        model=model,
        version=version,
        inputs=inputs,
        outputs=_decode_outputs(document.get("outputs"), limits),
        id=request_id,
        parameters=parameters,
        binary_output_default=default,
    )


def encode_infer_response(request: InferRequest, response: InferResponse) -> EncodedResponse:
    """Encode an answer in the form the request asked for, output by output.

    Raises InvalidInput when an output holds NaN or infinity and was asked for as JSON, which
    cannot carry them.
    """
    wanted = {output.name: output.binary for output in request.outputs}
    outputs: list[dict[str, object]] = []
    raw: list[bytes | memoryview] = []
    for tensor in response.outputs:
        entry: dict[str, object] = {
            "name": tensor.name,
            "datatype": tensor.datatype,
            "shape": list(tensor.shape),
        }
        binary = wanted.get(tensor.name)
        if request.binary_output_default if binary is None else binary:
            chunk = encode_raw(tensor)
            entry["parameters"] = {"binary_data_size": len(chunk)}
            raw.append(chunk)
        else:
            entry["data"] = _json_data(tensor)
        outputs.append(entry)
    document: dict[str, object] = {
        "model_name": response.model,
        "model_version": response.version,
        "outputs": outputs,
    }
    if response.id:
        document["id"] = response.id
    if response.parameters:
        document["parameters"] = dict(response.parameters)
    header = orjson.dumps(document, option=_JSON_OPTIONS)
    if not raw:
        return EncodedResponse(header, None)
    return EncodedResponse(b"".join((header, *raw)), len(header))


def parse_json_object(raw: bytes | memoryview, max_bytes: int) -> dict[str, Any]:
    """Parse strict JSON that must be an object. Raises TooLarge or InvalidInput."""
    if len(raw) > max_bytes:
        raise TooLarge(
            f"the JSON part has {len(raw)} bytes, the limit is {max_bytes}",
            field="body",
            hint="send large tensors with the binary tensor extension",
        )
    try:
        document = orjson.loads(raw)
    except orjson.JSONDecodeError as error:
        raise InvalidInput(f"the body is not JSON: {error}", field="body") from None
    except RecursionError:
        raise InvalidInput("the JSON is nested too deeply", field="body") from None
    if not isinstance(document, dict):
        raise InvalidInput("the body must be a JSON object", field="body")
    return document


def read_parameters(value: object, where: str) -> dict[str, ParameterValue]:
    """Read scalar parameters; null means absent. Raises InvalidInput for anything else."""
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise InvalidInput(f"{where}: parameters must be an object", field=where)
    found: dict[str, ParameterValue] = {}
    for key, item in value.items():
        if item is None:
            continue
        if not isinstance(item, bool | int | float | str) or (
            isinstance(item, float) and not math.isfinite(item)
        ):
            raise InvalidInput(
                f"{where}: parameter '{key[:64]}' must be text, a number or a boolean", field=where
            )
        found[key] = item
    return found


def _decode_inputs(
    document: Mapping[str, Any], raw: memoryview | None, limits: Limits
) -> tuple[Tensor, ...]:
    listed = document.get("inputs")
    if not isinstance(listed, list) or not listed:
        raise InvalidInput("inputs must be a list of at least one tensor", field="inputs")
    _check_count("inputs", listed, limits)
    at = 0
    tensors: list[Tensor] = []
    for index, entry in enumerate(listed):
        if not isinstance(entry, dict):
            raise InvalidInput(f"inputs[{index}] must be an object", field=f"inputs[{index}]")
        name = _name(entry, f"inputs[{index}]")
        datatype = check_datatype(name, entry.get("datatype"))
        shape = entry.get("shape")
        if not isinstance(shape, list):
            raise InvalidInput(f"tensor '{name}': shape must be a list of integers", field=name)
        parameters = entry.get("parameters")
        size = parameters.get("binary_data_size") if isinstance(parameters, dict) else None
        if parameters is not None and not isinstance(parameters, dict):
            raise InvalidInput(f"tensor '{name}': parameters must be an object", field=name)
        if parameters and _SHARED_MEMORY in parameters:
            raise Unsupported(f"tensor '{name}': shared memory is not offered", field=name)
        if size is None:
            tensors.append(_decode_json(name, datatype, shape, entry.get("data"), limits))
            continue
        if "data" in entry:
            raise InvalidInput(f"tensor '{name}': has both data and binary_data_size", field=name)
        if type(size) is not int or size < 0:
            raise InvalidInput(
                f"tensor '{name}': binary_data_size must be a non-negative integer", field=name
            )
        if raw is None:
            raise InvalidInput(
                f"tensor '{name}': binary data needs the header Inference-Header-Content-Length",
                field=HEADER_LENGTH,
            )
        if size > len(raw) - at:
            raise InvalidInput(
                f"tensor '{name}': claims {size} bytes, {len(raw) - at} are left in the body",
                field=name,
            )
        tensors.append(
            decode_raw(
                name,
                datatype,
                shape,
                raw[at : at + size],
                allow_non_finite=limits.allow_non_finite,
            )
        )
        at += size
    if raw is not None and at != len(raw):
        raise InvalidInput(f"{len(raw) - at} bytes follow the last binary tensor", field="body")
    names = {tensor.name for tensor in tensors}
    if len(names) != len(tensors):
        raise InvalidInput("two inputs have the same name", field="inputs")
    return tuple(tensors)


def _decode_outputs(listed: object, limits: Limits) -> tuple[RequestedOutput, ...]:
    if listed is None:
        return ()
    if not isinstance(listed, list):
        raise InvalidInput("outputs must be a list", field="outputs")
    _check_count("outputs", listed, limits)
    wanted: list[RequestedOutput] = []
    for index, entry in enumerate(listed):
        if not isinstance(entry, dict):
            raise InvalidInput(f"outputs[{index}] must be an object", field=f"outputs[{index}]")
        name = _name(entry, f"outputs[{index}]")
        parameters = read_parameters(entry.get("parameters"), name)
        if _SHARED_MEMORY in parameters:
            raise Unsupported(f"output '{name}': shared memory is not offered", field=name)
        binary = parameters.get("binary_data")
        if binary is not None and not isinstance(binary, bool):
            raise InvalidInput(f"output '{name}': binary_data must be true or false", field=name)
        top = parameters.get("classification", 0)
        if type(top) is not int or top < 0:
            raise InvalidInput(f"output '{name}': classification must be >= 1", field=name)
        wanted.append(RequestedOutput(name, binary, top))
    if len({output.name for output in wanted}) != len(wanted):
        raise InvalidInput("two outputs have the same name", field="outputs")
    return tuple(wanted)


def _decode_json(
    name: str, datatype: str, shape: list[object], data: object, limits: Limits
) -> Tensor:
    count = check_shape(name, shape)
    if not isinstance(data, list):
        raise InvalidInput(f"tensor '{name}': data must be a list", field=name)
    flat = _flatten(name, data, shape)
    if len(flat) != count:
        raise InvalidInput(
            f"tensor '{name}': shape {shape} holds {count} elements, data has {len(flat)}",
            field=name,
        )
    values = _json_values(name, datatype, flat)
    check_finite(name, datatype, values, limits.allow_non_finite)
    return Tensor(name, datatype, values.reshape(shape))  # type: ignore[arg-type]


def _flatten(name: str, data: list[Any], shape: list[object]) -> list[Any]:
    """Unnest row-major data; nested lists must agree with the shape, level by level."""
    flat = data
    level = 0
    while flat and isinstance(flat[0], list):
        if level + 1 >= len(shape):
            raise InvalidInput(f"tensor '{name}': data is nested deeper than its shape", field=name)
        width = shape[level + 1]
        is_regular = all(isinstance(row, list) and len(row) == width for row in flat)
        if not is_regular or (level == 0 and len(flat) != shape[0]):
            raise InvalidInput(f"tensor '{name}': nested data does not match its shape", field=name)
        flat = list(chain.from_iterable(flat))
        level += 1
    return flat


_JSON_TYPES: Mapping[str, frozenset[type]] = {
    name: frozenset(
        {float, int}
        if name in FLOATS
        else {bool}
        if name == "BOOL"
        else {str}
        if name == BYTES
        else {int}
    )
    for name in NUMPY
}


def _json_values(name: str, datatype: str, flat: list[Any]) -> Array:
    found = set(map(type, flat))
    if not found <= _JSON_TYPES[datatype]:
        wrong = sorted(kind.__name__ for kind in found - _JSON_TYPES[datatype])[0]
        raise InvalidInput(f"tensor '{name}': {datatype} data holds a {wrong}", field=name)
    if datatype == BYTES:
        return bytes_array([text.encode("utf-8") for text in flat], (len(flat),))
    dtype = NUMPY[datatype]
    if datatype in FLOATS:
        wide = np.array(flat, dtype=np.float64)
        with np.errstate(over="ignore"):
            narrow = wide.astype(np.float32 if datatype == BF16 else dtype)
            values: Array = to_bf16(narrow) if datatype == BF16 else narrow
        if not is_all_finite(datatype, values):
            raise InvalidInput(
                f"tensor '{name}': a number is out of range for {datatype}", field=name
            )
        return values
    try:
        return np.array(flat, dtype=dtype)
    except OverflowError:
        raise InvalidInput(
            f"tensor '{name}': a number is out of range for {datatype}", field=name
        ) from None


def _json_data(tensor: Tensor) -> object:
    if tensor.datatype == BYTES:
        try:
            return [as_bytes(element).decode("utf-8") for element in tensor.data.reshape(-1)]
        except UnicodeDecodeError:
            raise InvalidInput(
                f"output '{tensor.name}' holds bytes that are not text, which JSON cannot carry",
                field=tensor.name,
                hint="ask for it with binary_data true",
            ) from None
    if not is_all_finite(tensor.datatype, tensor.data):
        raise InvalidInput(
            f"output '{tensor.name}' holds NaN or infinity, which JSON cannot carry",
            field=tensor.name,
            hint="ask for it with binary_data true",
        )
    flat = numbers(tensor.datatype, tensor.data).reshape(-1)
    if flat.dtype == np.float16:
        flat = flat.astype(np.float32)
    return np.ascontiguousarray(flat)


def _name(entry: Mapping[str, Any], where: str) -> str:
    name = entry.get("name")
    if not isinstance(name, str) or not name or len(name) > MAX_NAME_CHARS:
        raise InvalidInput(f"{where}: name must be text", field=where)
    return name


def _check_count(where: str, listed: list[Any], limits: Limits) -> None:
    if len(listed) > limits.max_tensors:
        raise InvalidInput(
            f"{where}: {len(listed)} tensors, the limit is {limits.max_tensors}", field=where
        )
