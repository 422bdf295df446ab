"""The gRPC codec of the Open Inference Protocol v2: message bytes in, values out, and back.

Tensors come raw (`raw_input_contents`, views on the message) or typed (`contents`), never both.
The answer takes the form of the request, except that FP16 and BF16 have no typed form: an
answer that holds one is raw as a whole, because the protocol does not let the two mix. The
bounds are those of REST: what is not a raw tensor counts as the JSON part does there.

Sources: Open Inference Protocol v2, "GRPC"; Triton's classification extension.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final, TypeVar

import numpy as np
from google.protobuf.message import DecodeError, Message

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
from edge_runtime.protocol.datatypes import BYTES, NUMPY
from edge_runtime.protocol.grpc_wire import append_fields, cut_field
from edge_runtime.protocol.oip import MAX_ID_CHARS, MAX_NAME_CHARS
from edge_runtime.protocol.proto import inference_pb2 as pb
from edge_runtime.protocol.service import Limits
from edge_runtime.protocol.types import (
    Array,
    InferRequest,
    InferResponse,
    ParameterValue,
    RequestedOutput,
    Tensor,
)

FINAL_RESPONSE: Final = "triton_final_response"

_RAW_INPUTS: Final = pb.ModelInferRequest.RAW_INPUT_CONTENTS_FIELD_NUMBER
_RAW_OUTPUTS: Final = pb.ModelInferResponse.RAW_OUTPUT_CONTENTS_FIELD_NUMBER
_STREAM_ANSWER: Final = pb.ModelStreamInferResponse.INFER_RESPONSE_FIELD_NUMBER
_OTHER_FIELDS: Final = 256  # names, id and parameters; nobody has that many
_SHARED_MEMORY: Final = "shared_memory_region"
_CONTENTS: Final[Mapping[str, str]] = {
    "BOOL": "bool_contents",
    "UINT8": "uint_contents",
    "UINT16": "uint_contents",
    "UINT32": "uint_contents",
    "UINT64": "uint64_contents",
    "INT8": "int_contents",
    "INT16": "int_contents",
    "INT32": "int_contents",
    "INT64": "int64_contents",
    "FP32": "fp32_contents",
    "FP64": "fp64_contents",
    "BYTES": "bytes_contents",
}

M = TypeVar("M", bound=Message)


@dataclass(frozen=True, slots=True, eq=False)
class DecodedCall:
    """A request, and whether its tensors came raw."""

    request: InferRequest
    is_raw: bool


def parse(kind: type[M], message: bytes, max_bytes: int) -> M:
    """Parse a message of a kind. Raises TooLarge or InvalidInput."""
    if len(message) > max_bytes:
        raise TooLarge(
            f"the message has {len(message)} bytes beside raw tensors, the limit is {max_bytes}",
            field="body",
            hint="send large tensors in raw_input_contents",
        )
    try:
        return kind.FromString(message)
    except DecodeError as error:
        raise InvalidInput(f"the message cannot be read: {error}", field="body") from None


def decode_infer_request(message: bytes, limits: Limits) -> DecodedCall:
    """Decode an inference request. Raises InvalidInput, TooLarge or Unsupported."""
    rest, raw = cut_field(message, _RAW_INPUTS, 3 * limits.max_tensors + _OTHER_FIELDS)
    found = parse(pb.ModelInferRequest, rest, limits.max_json_bytes)
    if len(found.id) > MAX_ID_CHARS:
        raise InvalidInput(f"id must be text of at most {MAX_ID_CHARS} characters", field="id")
    if not found.model_name:
        raise InvalidInput("model_name is missing", field="model_name")
    request = InferRequest(
        model=found.model_name,
        version=found.model_version or None,
        inputs=_decode_inputs(found, raw, limits),
        outputs=_decode_outputs(found, limits),
        id=found.id,
        parameters=_parameters(found.parameters, "parameters"),
    )
    return DecodedCall(request, bool(raw))


def encode_infer_response(
    call: DecodedCall, response: InferResponse, extra: Mapping[str, ParameterValue] | None = None
) -> bytes:
    """Encode an answer; extra: parameters put beside the response's own."""
    message = pb.ModelInferResponse(
        model_name=response.model, model_version=response.version, id=response.id
    )
    for name, value in {**response.parameters, **(extra or {})}.items():
        _set_parameter(message.parameters[name], value)
    is_raw = call.is_raw or any(t.datatype not in _CONTENTS for t in response.outputs)
    for tensor in response.outputs:
        output = message.outputs.add(name=tensor.name, datatype=tensor.datatype, shape=tensor.shape)
        if not is_raw:
            getattr(output.contents, _CONTENTS[tensor.datatype]).extend(_elements(tensor))
    head = message.SerializeToString()
    if not is_raw:
        return head
    return append_fields(head, _RAW_OUTPUTS, [encode_raw(tensor) for tensor in response.outputs])


def encode_infer_request(request: InferRequest, version: str | None) -> bytes:
    """Encode a request for a version (None: the server picks), with raw tensors."""
    message = pb.ModelInferRequest(
        model_name=request.model, model_version=version or "", id=request.id
    )
    for name, value in request.parameters.items():
        _set_parameter(message.parameters[name], value)
    for tensor in request.inputs:
        message.inputs.add(name=tensor.name, datatype=tensor.datatype, shape=tensor.shape)
    for output in request.outputs:
        wanted = message.outputs.add(name=output.name)
        if output.classification:
            _set_parameter(wanted.parameters["classification"], output.classification)
    raw = [encode_raw(tensor) for tensor in request.inputs]
    return append_fields(message.SerializeToString(), _RAW_INPUTS, raw)


def decode_infer_response(message: bytes, limits: Limits) -> InferResponse:
    """Decode an answer whose tensors are raw. Raises InvalidInput, TooLarge."""
    rest, raw = cut_field(message, _RAW_OUTPUTS, 3 * limits.max_tensors + _OTHER_FIELDS)
    found = parse(pb.ModelInferResponse, rest, limits.max_json_bytes)
    if len(raw) != len(found.outputs):
        raise InvalidInput(
            f"raw_output_contents has {len(raw)} entries for {len(found.outputs)} outputs",
            field="raw_output_contents",
        )
    outputs = tuple(
        decode_raw(entry.name, entry.datatype, tuple(entry.shape), data, allow_non_finite=True)
        for entry, data in zip(found.outputs, raw, strict=True)
    )
    return InferResponse(
        model=found.model_name,
        version=found.model_version,
        outputs=outputs,
        id=found.id,
        parameters=_parameters(found.parameters, "parameters"),
    )


def encode_stream_answer(answer: bytes) -> bytes:
    """Wrap an encoded answer for a stream."""
    return append_fields(b"", _STREAM_ANSWER, [answer])


def encode_stream_error(text: str, request_id: str) -> bytes:
    """Tell one request of a stream that it was refused."""
    answer = pb.ModelInferResponse(id=request_id)
    _set_parameter(answer.parameters[FINAL_RESPONSE], True)
    message = pb.ModelStreamInferResponse(error_message=text, infer_response=answer)
    return message.SerializeToString()


def repository_parameters(
    listed: Mapping[str, pb.ModelRepositoryParameter],
) -> dict[str, ParameterValue]:
    """Read the parameters of a load or unload. Raises Unsupported for files."""
    found: dict[str, ParameterValue] = {}
    for name, parameter in listed.items():
        match parameter.WhichOneof("parameter_choice"):
            case "bytes_param":
                raise Unsupported(
                    f"parameter '{name[:64]}': models cannot be sent along", field="parameters"
                )
            case None:
                continue
            case choice:
                found[name] = getattr(parameter, choice)
    return found


def _decode_inputs(
    found: pb.ModelInferRequest, raw: list[memoryview], limits: Limits
) -> tuple[Tensor, ...]:
    if not found.inputs:
        raise InvalidInput("inputs must hold at least one tensor", field="inputs")
    _check_count("inputs", len(found.inputs), limits)
    if raw and len(raw) != len(found.inputs):
        raise InvalidInput(
            f"raw_input_contents has {len(raw)} entries for {len(found.inputs)} inputs",
            field="raw_input_contents",
        )
    tensors: list[Tensor] = []
    for index, entry in enumerate(found.inputs):
        name = _name(entry.name, f"inputs[{index}]")
        datatype = check_datatype(name, entry.datatype)
        if _SHARED_MEMORY in entry.parameters:
            raise Unsupported(f"tensor '{name}': shared memory is not offered", field=name)
        shape = tuple(entry.shape)
        if not raw:
            tensors.append(_decode_typed(name, datatype, shape, entry.contents, limits))
            continue
        if entry.HasField("contents"):
            raise InvalidInput(f"tensor '{name}': has both contents and raw bytes", field=name)
        allow = limits.allow_non_finite
        tensors.append(decode_raw(name, datatype, shape, raw[index], allow_non_finite=allow))
    if len({tensor.name for tensor in tensors}) != len(tensors):
        raise InvalidInput("two inputs have the same name", field="inputs")
    return tuple(tensors)


def _decode_outputs(found: pb.ModelInferRequest, limits: Limits) -> tuple[RequestedOutput, ...]:
    _check_count("outputs", len(found.outputs), limits)
    wanted: list[RequestedOutput] = []
    for index, entry in enumerate(found.outputs):
        name = _name(entry.name, f"outputs[{index}]")
        parameters = _parameters(entry.parameters, name)
        if _SHARED_MEMORY in parameters:
            raise Unsupported(f"output '{name}': shared memory is not offered", field=name)
        top = parameters.get("classification", 0)
        if type(top) is not int or top < 0:
            raise InvalidInput(f"output '{name}': classification must be >= 1", field=name)
        wanted.append(RequestedOutput(name, None, top))
    if len({output.name for output in wanted}) != len(wanted):
        raise InvalidInput("two outputs have the same name", field="outputs")
    return tuple(wanted)


def _decode_typed(
    name: str,
    datatype: str,
    shape: tuple[int, ...],
    contents: pb.InferTensorContents,
    limits: Limits,
) -> Tensor:
    count = check_shape(name, shape)
    field = _CONTENTS.get(datatype)
    if field is None:
        raise InvalidInput(
            f"tensor '{name}': {datatype} has no typed contents",
            field=name,
            hint="send it in raw_input_contents",
        )
    filled = [each.name for each, _ in contents.ListFields()]
    if any(other != field for other in filled):
        raise InvalidInput(f"tensor '{name}': {datatype} travels in {field} alone", field=name)
    values = getattr(contents, field)
    if len(values) != count:
        raise InvalidInput(
            f"tensor '{name}': shape {list(shape)} holds {count} elements, {field} has"
            f" {len(values)}",
            field=name,
        )
    data = _to_array(name, datatype, values)
    check_finite(name, datatype, data, limits.allow_non_finite)
    return Tensor(name, datatype, data.reshape(shape))


def _to_array(name: str, datatype: str, values: Any) -> Array:
    if datatype == BYTES:
        return bytes_array(list(values), (len(values),))
    dtype = NUMPY[datatype]
    if dtype.kind not in "iu" or dtype.itemsize >= 4:
        return np.fromiter(values, dtype=dtype, count=len(values))
    wide = np.fromiter(values, dtype=np.int64, count=len(values))
    bounds = np.iinfo(dtype.name)
    if wide.size and (int(wide.min()) < bounds.min or int(wide.max()) > bounds.max):
        raise InvalidInput(f"tensor '{name}': a number is out of range for {datatype}", field=name)
    return wide.astype(dtype)


def _elements(tensor: Tensor) -> Iterable[Any]:
    flat = tensor.data.reshape(-1)
    if tensor.datatype == BYTES:
        return [as_bytes(element) for element in flat]
    elements: Iterable[Any] = flat.tolist()
    return elements


def _parameters(listed: Mapping[str, pb.InferParameter], where: str) -> dict[str, ParameterValue]:
    """Read parameters; one without a value means absent. Raises InvalidInput for NaN."""
    found: dict[str, ParameterValue] = {}
    for name, parameter in listed.items():
        choice = parameter.WhichOneof("parameter_choice")
        if choice is None:
            continue
        value: ParameterValue = getattr(parameter, choice)
        if isinstance(value, float) and not math.isfinite(value):
            raise InvalidInput(
                f"{where}: parameter '{name[:64]}' must be text, a number or a boolean",
                field=where,
            )
        found[name] = value
    return found


def _set_parameter(parameter: pb.InferParameter, value: ParameterValue) -> None:
    match value:
        case bool():
            parameter.bool_param = value
        case int():
            parameter.int64_param = value
        case float():
            parameter.double_param = value
        case _:
            parameter.string_param = value


def _name(name: str, where: str) -> str:
    if not name or len(name) > MAX_NAME_CHARS:
        raise InvalidInput(f"{where}: name must be text", field=where)
    return name


def _check_count(where: str, count: int, limits: Limits) -> None:
    if count > limits.max_tensors:
        raise InvalidInput(
            f"{where}: {count} tensors, the limit is {limits.max_tensors}", field=where
        )
