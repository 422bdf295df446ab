from __future__ import annotations

import json

import numpy as np
import pytest

from edge_runtime.protocol.binary import decode_raw
from load.access import NoGateway, payload_for
from load.http1 import Response
from load.oip import (
    Payload,
    binary_body,
    grpc_request,
    json_body,
    read_grpc_output,
    read_output,
)

DATA = (np.arange(6, dtype=np.float32) / np.float32(7)).reshape(2, 3)
PAYLOAD = Payload("m", "x", DATA)


def test_a_binary_body_is_a_header_that_fits_and_the_tensor_behind_it() -> None:
    body, header_bytes = binary_body(PAYLOAD)
    (tensor,) = json.loads(body[:header_bytes])["inputs"]
    assert tensor["parameters"]["binary_data_size"] == len(body) - header_bytes
    read = decode_raw("x", tensor["datatype"], tensor["shape"], body[header_bytes:])
    np.testing.assert_array_equal(read.data, DATA)


def test_a_json_body_holds_the_same_numbers() -> None:
    (tensor,) = json.loads(json_body(PAYLOAD))["inputs"]
    read = np.asarray(tensor["data"], dtype=np.float32).reshape(tensor["shape"])
    np.testing.assert_array_equal(read, DATA)


def test_binary_and_json_answers_read_the_same() -> None:
    output = {"name": "y", "datatype": "FP32", "shape": [2, 3]}
    raw = DATA.tobytes()
    header = json.dumps(
        {"outputs": [{**output, "parameters": {"binary_data_size": len(raw)}}]}
    ).encode()
    length = {b"inference-header-content-length": str(len(header)).encode()}
    plain = json.dumps({"outputs": [{**output, "data": DATA.reshape(-1).tolist()}]}).encode()
    np.testing.assert_array_equal(read_output(Response(200, length, header + raw)), DATA)
    np.testing.assert_array_equal(read_output(Response(200, {}, plain)), DATA)


def test_a_refusal_is_not_read_as_an_answer() -> None:
    with pytest.raises(ValueError, match="503"):
        read_output(Response(503, {}, b'{"error": "busy"}'))


def test_a_grpc_request_carries_the_tensor_and_an_answer_is_read_back() -> None:
    from tritonclient.grpc import service_pb2 as pb

    request = pb.ModelInferRequest.FromString(grpc_request(PAYLOAD))
    assert (request.model_name, list(request.inputs[0].shape)) == ("m", [2, 3])
    answer = pb.ModelInferResponse(raw_output_contents=[request.raw_input_contents[0]])
    answer.outputs.add(name="y", datatype="FP32", shape=[2, 3])
    np.testing.assert_array_equal(read_grpc_output(answer.SerializeToString()), DATA)


def test_an_input_is_made_from_metadata_with_free_dimensions_filled() -> None:
    metadata = {"inputs": [{"name": "image", "datatype": "FP32", "shape": [-1, 3, -1, 8]}]}
    payload = payload_for("m", metadata, 4)
    assert (payload.input, payload.data.shape) == ("image", (4, 3, 1, 8))
    np.testing.assert_array_equal(payload.data, payload_for("m", metadata, 4).data)


def test_a_model_that_takes_no_single_float_tensor_is_refused() -> None:
    metadata = {"inputs": [{"name": "text", "datatype": "BYTES", "shape": [-1]}]}
    with pytest.raises(NoGateway, match="FP32"):
        payload_for("m", metadata, 1)
