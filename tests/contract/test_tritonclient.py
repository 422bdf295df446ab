"""NVIDIA's public client, unchanged, in all of its forms: the field's own idea of the protocol."""

from __future__ import annotations

import queue
from collections.abc import AsyncIterator, Iterator
from typing import Any

import ml_dtypes
import numpy as np
import pytest
import tritonclient.grpc as triton_grpc
import tritonclient.grpc.aio as triton_grpc_aio
import tritonclient.http as triton_http
import tritonclient.http.aio as triton_http_aio
from tritonclient.utils import InferenceServerException

from tests.contract.live import LiveServer
from tests.contract.models import FEATURES

CODINGS = (None, "gzip", "deflate")
NUMPY_TYPES = {
    "BOOL": np.bool_,
    "UINT8": np.uint8,
    "UINT16": np.uint16,
    "UINT32": np.uint32,
    "UINT64": np.uint64,
    "INT8": np.int8,
    "INT16": np.int16,
    "INT32": np.int32,
    "INT64": np.int64,
    "FP16": np.float16,
    "BF16": ml_dtypes.bfloat16,
    "FP32": np.float32,
    "FP64": np.float64,
}


@pytest.fixture
def http(server: LiveServer) -> Iterator[Any]:
    with triton_http.InferenceServerClient(server.rest, concurrency=4) as client:
        yield client


@pytest.fixture
def grpc(server: LiveServer) -> Iterator[Any]:
    with triton_grpc.InferenceServerClient(server.grpc) as client:
        yield client


@pytest.fixture(params=["http", "grpc"])
def either(request: pytest.FixtureRequest, http: Any, grpc: Any) -> tuple[Any, Any]:
    """The module of a transport, and its client."""
    return (triton_http, http) if request.param == "http" else (triton_grpc, grpc)


def rows(module: Any, count: int = 2, name: str = "x", value: float = 1.0) -> Any:
    made = module.InferInput(name, [count, FEATURES], "FP32")
    made.set_data_from_numpy(np.full((count, FEATURES), value, np.float32))
    return made


@pytest.mark.parametrize("datatype", NUMPY_TYPES)
def test_every_number_type_makes_the_round_trip(
    either: tuple[Any, Any], server: LiveServer, datatype: str
) -> None:
    module, client = either
    data: Any = np.array([[0, 1, 1], [1, 0, 1]]).astype(NUMPY_TYPES[datatype])
    given = module.InferInput("x", [2, 3], datatype)
    given.set_data_from_numpy(data)
    found = client.infer(f"identity_{datatype}", [given], headers=server.bearer)
    np.testing.assert_array_equal(found.as_numpy("y"), data)


def test_text_makes_the_round_trip(either: tuple[Any, Any], server: LiveServer) -> None:
    module, client = either
    data = np.array([["ä".encode(), b""]], np.object_)
    given = module.InferInput("x", [1, 2], "BYTES")
    given.set_data_from_numpy(data)
    found = client.infer("identity_BYTES", [given], headers=server.bearer)
    assert found.as_numpy("y").tolist() == data.tolist()


@pytest.mark.parametrize("binary_in", [True, False])
@pytest.mark.parametrize("binary_out", [True, False])
def test_http_mixes_json_and_binary(
    http: Any, server: LiveServer, binary_in: bool, binary_out: bool
) -> None:
    given = triton_http.InferInput("x", [1, FEATURES], "FP32")
    data = np.full((1, FEATURES), 0.5, np.float32)
    given.set_data_from_numpy(data, binary_data=binary_in)
    wanted = triton_http.InferRequestedOutput("y", binary_data=binary_out)
    found = http.infer("identity_FP32", [given], outputs=[wanted], headers=server.bearer)
    np.testing.assert_array_equal(found.as_numpy("y"), data)


@pytest.mark.parametrize("request_coding", CODINGS)
@pytest.mark.parametrize("response_coding", CODINGS)
def test_http_bodies_may_be_compressed_both_ways(
    http: Any, server: LiveServer, request_coding: str | None, response_coding: str | None
) -> None:
    found = http.infer(
        "identity_FP32",
        [rows(triton_http, 64)],
        headers=server.bearer,
        request_compression_algorithm=request_coding,
        response_compression_algorithm=response_coding,
    )
    assert found.as_numpy("y").shape == (64, FEATURES)


@pytest.mark.parametrize("coding", CODINGS)
def test_grpc_messages_may_be_compressed(grpc: Any, server: LiveServer, coding: str | None) -> None:
    found = grpc.infer(
        "identity_FP32",
        [rows(triton_grpc, 64)],
        headers=server.bearer,
        compression_algorithm=coding,
    )
    assert found.as_numpy("y").shape == (64, FEATURES)


def test_classification_and_ids(either: tuple[Any, Any], server: LiveServer) -> None:
    module, client = either
    wanted = module.InferRequestedOutput("scores", class_count=2)
    found = client.infer(
        "mlp", [rows(module)], outputs=[wanted], request_id="r7", headers=server.bearer
    )
    assert found.as_numpy("scores").shape == (2, 2)
    response = found.get_response()
    assert (response["id"] if isinstance(response, dict) else response.id) == "r7"


def test_priority_timeout_and_parameters_are_accepted(
    either: tuple[Any, Any], server: LiveServer
) -> None:
    module, client = either
    client.infer(
        "mlp",
        [rows(module)],
        priority=1,
        timeout=5_000_000,
        sequence_id=3,
        sequence_start=True,
        sequence_end=True,
        parameters={"note": "x", "factor": 2},
        headers=server.bearer,
    )


def test_everything_that_can_be_read(either: tuple[Any, Any], server: LiveServer) -> None:
    module, client = either
    as_json = {} if module is triton_http else {"as_json": True}
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready("mlp", headers=server.bearer)
    assert not client.is_model_ready("broken", headers=server.bearer)
    metadata = client.get_server_metadata(headers=server.bearer, **as_json)
    assert metadata["name"] == "prime-spark-edge"
    model = client.get_model_metadata("mlp", headers=server.bearer, **as_json)
    assert model["inputs"][0]["name"] == "x"
    config = client.get_model_config("mlp", headers=server.bearer, **as_json)
    assert config.get("config", config)["max_batch_size"] == 8
    index = client.get_model_repository_index(headers=server.bearer, **as_json)
    entries = index if isinstance(index, list) else index["models"]
    assert "mlp" in {entry["name"] for entry in entries}
    counted = client.get_inference_statistics("mlp", headers=server.bearer, **as_json)
    assert counted["model_stats"][0]["name"] == "mlp"
    assert client.get_inference_statistics(headers=server.bearer, **as_json)["model_stats"]


def test_models_are_loaded_and_unloaded(either: tuple[Any, Any], server: LiveServer) -> None:
    _, client = either
    client.unload_model("fixed", headers=server.bearer)
    assert not client.is_model_ready("fixed", headers=server.bearer)
    client.load_model("fixed", headers=server.bearer)
    assert client.is_model_ready("fixed", headers=server.bearer)
    with pytest.raises(InferenceServerException, match=r"not offered|cannot be sent"):
        client.load_model(
            "fixed", headers=server.bearer, files={"file:1/m.onnx": b"x"}, config="{}"
        )


def test_a_refusal_carries_message_and_status(either: tuple[Any, Any], server: LiveServer) -> None:
    module, client = either
    with pytest.raises(InferenceServerException, match="no model 'nope'") as caught:
        client.infer("nope", [rows(module)], headers=server.bearer)
    assert caught.value.status() in ("404", "StatusCode.NOT_FOUND")
    with pytest.raises(InferenceServerException, match="needs a token"):
        client.infer("mlp", [rows(module)])


def test_asynchronous_calls_of_the_synchronous_clients(
    http: Any, grpc: Any, server: LiveServer
) -> None:
    pending = [
        http.async_infer("mlp", [rows(triton_http)], headers=server.bearer) for _ in range(8)
    ]
    assert all(each.get_result().as_numpy("scores").shape == (2, 3) for each in pending)
    answers: queue.Queue[tuple[Any, Any]] = queue.Queue()
    for _ in range(8):
        grpc.async_infer(
            "mlp",
            [rows(triton_grpc)],
            callback=lambda result, error: answers.put((result, error)),
            headers=server.bearer,
        )
    for _ in range(8):
        result, error = answers.get(timeout=20)
        assert error is None
        assert result.as_numpy("scores").shape == (2, 3)


def test_a_stream_answers_in_order_and_survives_refusals(grpc: Any, server: LiveServer) -> None:
    answers: queue.Queue[tuple[Any, Any]] = queue.Queue()
    grpc.start_stream(
        callback=lambda result, error: answers.put((result, error)), headers=server.bearer
    )
    for number in range(20):
        model = "nope" if number == 7 else "identity_FP32"
        grpc.async_stream_infer(model, [rows(triton_grpc, value=number)], request_id=str(number))
    for number in range(20):
        result, error = answers.get(timeout=20)
        if number == 7:
            assert "no model 'nope'" in error.message()
        else:
            assert result.get_response().id == str(number)
            assert result.as_numpy("y")[0, 0] == number
            assert result.get_response().parameters["triton_final_response"].bool_param
    grpc.stop_stream()


async def test_the_asyncio_http_client(server: LiveServer) -> None:
    async with triton_http_aio.InferenceServerClient(server.rest) as client:
        assert await client.is_server_ready()
        found = await client.infer("mlp", [rows(triton_http)], headers=server.bearer)
        assert found.as_numpy("scores").shape == (2, 3)


async def test_the_asyncio_grpc_client_and_its_streams(server: LiveServer) -> None:
    async def asked() -> AsyncIterator[dict[str, Any]]:
        for number in range(10):
            yield {
                "model_name": "identity_FP32",
                "inputs": [rows(triton_grpc, value=number)],
                "request_id": str(number),
            }

    async with triton_grpc_aio.InferenceServerClient(server.grpc) as client:
        assert await client.is_model_ready("mlp", headers=server.bearer)
        found = await client.infer("mlp", [rows(triton_grpc)], headers=server.bearer)
        assert found.as_numpy("scores").shape == (2, 3)
        ids = []
        async for result, error in client.stream_infer(asked(), headers=server.bearer):
            assert error is None
            ids.append(result.get_response().id)
        assert ids == [str(number) for number in range(10)]
