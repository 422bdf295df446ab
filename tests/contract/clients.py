"""The same calls over REST and over gRPC, so that one suite can hold both to one behaviour.

Written against the protocol's specification, with nothing of the codec under test but the
generated messages.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import grpc
import httpx
from google.protobuf.json_format import MessageToDict
from numpy.typing import NDArray

from edge_runtime.protocol.proto import inference_pb2 as pb
from tests.contract.tensors import RAW_ONLY, Given, from_json, from_raw, json_numbers, raw

PATIENCE_S = 20.0


class Refused(Exception):
    """The server said no. status: HTTP status or the name of the gRPC code."""

    def __init__(
        self, status: str, code: str, message: str, field: str | None, retry_after: str | None
    ) -> None:
        super().__init__(f"{status} {code}: {message}")
        self.status = status
        self.code = code
        self.message = message
        self.field = field
        self.retry_after = retry_after


@dataclass(frozen=True, slots=True, eq=False)
class Ask:
    """An inference call. outputs: name to parameters; is_raw: tensors as bytes both ways."""

    model: str
    inputs: Sequence[Given]
    outputs: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    version: str | None = None
    id: str = ""
    parameters: Mapping[str, Any] = field(default_factory=dict)
    is_raw: bool = True
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, eq=False)
class Answer:
    model: str
    version: str
    id: str
    parameters: Mapping[str, Any]
    outputs: Mapping[str, Given]


class Client(Protocol):
    """What the suite asks for; refusals are raised as `Refused`."""

    name: str

    def using(self, headers: Mapping[str, str]) -> Client: ...
    def live(self) -> bool: ...
    def ready(self) -> bool: ...
    def server_metadata(self) -> Mapping[str, Any]: ...
    def model_ready(self, model: str, version: str | None = None) -> bool: ...
    def model_metadata(self, model: str, version: str | None = None) -> Mapping[str, Any]: ...
    def model_config(self, model: str, version: str | None = None) -> Mapping[str, Any]: ...
    def statistics(self, model: str | None = None) -> Sequence[Mapping[str, Any]]: ...
    def index(self, *, ready: bool = False) -> Sequence[Mapping[str, Any]]: ...
    def load(self, model: str, parameters: Mapping[str, Any]) -> None: ...
    def unload(self, model: str, parameters: Mapping[str, Any]) -> None: ...
    def infer(self, ask: Ask) -> Answer: ...


class RestClient:
    name = "rest"

    def __init__(self, address: str, headers: Mapping[str, str]) -> None:
        self._address = address
        self._headers = dict(headers)
        self._http = httpx.Client(base_url=f"http://{address}", timeout=PATIENCE_S)

    def using(self, headers: Mapping[str, str]) -> RestClient:
        return RestClient(self._address, headers)

    def live(self) -> bool:
        return self._call("GET", "/v2/health/live").status_code == 200

    def ready(self) -> bool:
        return self._call("GET", "/v2/health/ready").status_code == 200

    def server_metadata(self) -> Mapping[str, Any]:
        return self._object("/v2")

    def model_ready(self, model: str, version: str | None = None) -> bool:
        try:
            return self._call("GET", f"{_path(model, version)}/ready").status_code == 200
        except Refused as refused:
            if refused.status == "503":
                return False
            raise

    def model_metadata(self, model: str, version: str | None = None) -> Mapping[str, Any]:
        return self._object(_path(model, version))

    def model_config(self, model: str, version: str | None = None) -> Mapping[str, Any]:
        return self._object(f"{_path(model, version)}/config")

    def statistics(self, model: str | None = None) -> Sequence[Mapping[str, Any]]:
        path = "/v2/models/stats" if model is None else f"/v2/models/{model}/stats"
        found: Sequence[Mapping[str, Any]] = self._object(path)["model_stats"]
        return found

    def index(self, *, ready: bool = False) -> Sequence[Mapping[str, Any]]:
        answer = self._call("POST", "/v2/repository/index", json={"ready": ready})
        found: Sequence[Mapping[str, Any]] = answer.json()
        return found

    def load(self, model: str, parameters: Mapping[str, Any]) -> None:
        path = f"/v2/repository/models/{model}/load"
        self._call("POST", path, json={"parameters": parameters})

    def unload(self, model: str, parameters: Mapping[str, Any]) -> None:
        path = f"/v2/repository/models/{model}/unload"
        self._call("POST", path, json={"parameters": parameters})

    def infer(self, ask: Ask) -> Answer:
        inputs: list[dict[str, Any]] = []
        chunks: list[bytes] = []
        for given in ask.inputs:
            entry: dict[str, Any] = {
                "name": given.name,
                "datatype": given.datatype,
                "shape": list(given.data.shape),
            }
            if ask.is_raw:
                chunks.append(raw(given))
                entry["parameters"] = {"binary_data_size": len(chunks[-1])}
            else:
                entry["data"] = json_numbers(given)
            inputs.append(entry)
        document: dict[str, Any] = {
            "id": ask.id,
            "inputs": inputs,
            "outputs": [{"name": n, "parameters": dict(p)} for n, p in ask.outputs.items()],
            "parameters": {**ask.parameters, "binary_data_output": ask.is_raw},
        }
        header = json.dumps(document).encode()
        headers = dict(ask.headers)
        if ask.is_raw:
            headers["inference-header-content-length"] = str(len(header))
        path = f"{_path(ask.model, ask.version)}/infer"
        content = b"".join((header, *chunks))
        return _rest_answer(self._call("POST", path, content=content, headers=headers))

    def _object(self, path: str) -> Mapping[str, Any]:
        found: Mapping[str, Any] = self._call("GET", path).json()
        return found

    def _call(self, method: str, path: str, **kwargs: Any) -> httpx.Response:
        headers = {**self._headers, **kwargs.pop("headers", {})}
        response = self._http.request(method, path, headers=headers, **kwargs)
        if response.status_code >= 400:
            said = response.json()
            raise Refused(
                str(response.status_code),
                said["code"],
                said["error"],
                said.get("field"),
                response.headers.get("retry-after"),
            )
        return response


class GrpcClient:
    name = "grpc"

    def __init__(self, address: str, headers: Mapping[str, str]) -> None:
        self._address = address
        self._metadata = tuple(headers.items())
        self._channel = grpc.insecure_channel(
            address, options=(("grpc.max_receive_message_length", -1),)
        )

    def using(self, headers: Mapping[str, str]) -> GrpcClient:
        return GrpcClient(self._address, headers)

    def live(self) -> bool:
        return bool(self._call("ServerLive", pb.ServerLiveRequest(), pb.ServerLiveResponse).live)

    def ready(self) -> bool:
        answer = self._call("ServerReady", pb.ServerReadyRequest(), pb.ServerReadyResponse)
        return bool(answer.ready)

    def server_metadata(self) -> Mapping[str, Any]:
        request = pb.ServerMetadataRequest()
        return _document(self._call("ServerMetadata", request, pb.ServerMetadataResponse))

    def model_ready(self, model: str, version: str | None = None) -> bool:
        request = pb.ModelReadyRequest(name=model, version=version or "")
        return bool(self._call("ModelReady", request, pb.ModelReadyResponse).ready)

    def model_metadata(self, model: str, version: str | None = None) -> Mapping[str, Any]:
        request = pb.ModelMetadataRequest(name=model, version=version or "")
        return _document(self._call("ModelMetadata", request, pb.ModelMetadataResponse))

    def model_config(self, model: str, version: str | None = None) -> Mapping[str, Any]:
        request = pb.ModelConfigRequest(name=model, version=version or "")
        answer = self._call("ModelConfig", request, pb.ModelConfigResponse)
        return _document(answer.config)

    def statistics(self, model: str | None = None) -> Sequence[Mapping[str, Any]]:
        request = pb.ModelStatisticsRequest(name=model or "")
        answer = self._call("ModelStatistics", request, pb.ModelStatisticsResponse)
        return [_document(found) for found in answer.model_stats]

    def index(self, *, ready: bool = False) -> Sequence[Mapping[str, Any]]:
        request = pb.RepositoryIndexRequest(ready=ready)
        answer = self._call("RepositoryIndex", request, pb.RepositoryIndexResponse)
        return [_document(found) for found in answer.models]

    def load(self, model: str, parameters: Mapping[str, Any]) -> None:
        request = pb.RepositoryModelLoadRequest(model_name=model)
        _set(request.parameters, parameters)
        self._call("RepositoryModelLoad", request, pb.RepositoryModelLoadResponse)

    def unload(self, model: str, parameters: Mapping[str, Any]) -> None:
        request = pb.RepositoryModelUnloadRequest(model_name=model)
        _set(request.parameters, parameters)
        self._call("RepositoryModelUnload", request, pb.RepositoryModelUnloadResponse)

    def infer(self, ask: Ask) -> Answer:
        request = pb.ModelInferRequest(
            model_name=ask.model, model_version=ask.version or "", id=ask.id
        )
        _set(request.parameters, ask.parameters)
        is_raw = ask.is_raw or any(given.datatype in RAW_ONLY for given in ask.inputs)
        for given in ask.inputs:
            entry = request.inputs.add(
                name=given.name, datatype=given.datatype, shape=given.data.shape
            )
            if is_raw:
                request.raw_input_contents.append(raw(given))
            else:
                contents = getattr(entry.contents, contents_field(given.datatype))
                contents.extend(given.data.reshape(-1).tolist())
        for name, parameters in ask.outputs.items():
            _set(request.outputs.add(name=name).parameters, parameters)
        answer = self._call("ModelInfer", request, pb.ModelInferResponse, ask.headers)
        return grpc_answer(answer)

    def _call(
        self, method: str, request: Any, answer: Any, headers: Mapping[str, str] | None = None
    ) -> Any:
        call = self._channel.unary_unary(
            f"/inference.GRPCInferenceService/{method}",
            request_serializer=type(request).SerializeToString,
            response_deserializer=answer.FromString,
        )
        metadata = (*self._metadata, *(headers or {}).items())
        try:
            return call(request, metadata=metadata, timeout=PATIENCE_S)
        except grpc.RpcError as error:
            raise refusal(error) from None


def refusal(error: Any) -> Refused:
    """Read a refusal out of a gRPC error."""
    trailing = dict(error.trailing_metadata() or ())
    return Refused(
        error.code().name,
        trailing.get("prime-spark-code", ""),
        error.details(),
        trailing.get("prime-spark-field"),
        trailing.get("retry-after"),
    )


def contents_field(datatype: str) -> str:
    """Return where typed contents of a datatype go."""
    if datatype in ("INT8", "INT16", "INT32"):
        return "int_contents"
    if datatype in ("UINT8", "UINT16", "UINT32"):
        return "uint_contents"
    return f"{datatype.lower()}_contents"


def grpc_answer(answer: Any) -> Answer:
    """Read an answer, raw or typed."""
    outputs: dict[str, Given] = {}
    for index, entry in enumerate(answer.outputs):
        shape = list(entry.shape)
        if answer.raw_output_contents:
            assert not entry.HasField("contents")
            data: NDArray[Any] = from_raw(entry.datatype, shape, answer.raw_output_contents[index])
        else:
            values = list(getattr(entry.contents, contents_field(entry.datatype)))
            if entry.datatype == "BYTES":
                data = from_raw("BYTES", shape, b"".join(_framed(v) for v in values))
            else:
                data = from_json(entry.datatype, shape, values)
        outputs[entry.name] = Given(entry.name, entry.datatype, data)
    parameters = {
        name: getattr(value, value.WhichOneof("parameter_choice"))
        for name, value in answer.parameters.items()
    }
    return Answer(answer.model_name, answer.model_version, answer.id, parameters, outputs)


def _framed(value: bytes) -> bytes:
    return len(value).to_bytes(4, "little") + value


def _rest_answer(response: httpx.Response) -> Answer:
    split = response.headers.get("inference-header-content-length")
    body = response.content
    header = body if split is None else body[: int(split)]
    rest = b"" if split is None else body[int(split) :]
    document = json.loads(header)
    outputs: dict[str, Given] = {}
    for entry in document["outputs"]:
        size = entry.get("parameters", {}).get("binary_data_size")
        if size is None:
            data = from_json(entry["datatype"], entry["shape"], entry["data"])
        else:
            data = from_raw(entry["datatype"], entry["shape"], rest[:size])
            rest = rest[size:]
        outputs[entry["name"]] = Given(entry["name"], entry["datatype"], data)
    assert rest == b""
    return Answer(
        document["model_name"],
        document["model_version"],
        document.get("id", ""),
        document.get("parameters", {}),
        outputs,
    )


def _path(model: str, version: str | None) -> str:
    return f"/v2/models/{model}" + (f"/versions/{version}" if version else "")


def _set(target: Any, parameters: Mapping[str, Any]) -> None:
    for name, value in parameters.items():
        match value:
            case bool():
                target[name].bool_param = value
            case int():
                target[name].int64_param = value
            case float():
                target[name].double_param = value
            case _:
                target[name].string_param = value


def _document(message: Any) -> Mapping[str, Any]:
    return MessageToDict(
        message, preserving_proto_field_name=True, always_print_fields_with_no_presence=True
    )
