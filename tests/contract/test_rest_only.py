"""What only REST has: routes, HTTP lengths and codings, a client that hangs up, the document."""

from __future__ import annotations

import gzip
import json
import socket
import time
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import jsonschema  # type: ignore[import-untyped]
import pytest

from tests.contract.live import LiveServer
from tests.contract.models import FEATURES

INFER = "/v2/models/mlp/infer"
ASKED = {
    "inputs": [{"name": "x", "datatype": "FP32", "shape": [1, FEATURES], "data": [1, 2, 3, 4]}]
}
BODY = json.dumps(ASKED).encode()
PATIENCE_S = 20.0


@pytest.fixture
def http(server: LiveServer) -> Iterator[httpx.Client]:
    with httpx.Client(
        base_url=f"http://{server.rest}", headers=server.bearer, timeout=PATIENCE_S
    ) as client:
        yield client


def exchange(server: LiveServer, head: str, body: bytes = b"") -> tuple[int, Any]:
    """Send bytes as they are; return the status and the parsed body of the answer."""
    host, port = server.rest.split(":")
    with socket.create_connection((host, int(port)), timeout=PATIENCE_S) as connection:
        token = server.bearer["authorization"]
        connection.sendall(
            f"{head}\r\nhost: x\r\nauthorization: {token}\r\nconnection: close\r\n\r\n".encode()
            + body
        )
        answer = b""
        while piece := connection.recv(65536):
            answer += piece
    header, _, rest = answer.partition(b"\r\n\r\n")
    return int(header.split()[1]), json.loads(rest)


def wait_until(holds: Callable[[], bool]) -> None:
    end = time.monotonic() + PATIENCE_S
    while not holds():
        assert time.monotonic() < end, "the condition did not come true"
        time.sleep(0.01)


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", INFER, 405, "method_not_allowed"),
        ("DELETE", "/v2", 405, "method_not_allowed"),
        ("GET", "/nope", 404, "not_found"),
        ("GET", "/v2/", 404, "not_found"),
        ("POST", INFER + "/", 404, "not_found"),
        ("GET", "/v2/models/a%2Fb", 404, "not_found"),
        ("GET", "/v2/models/%2e%2e%2f%2e%2e/ready", 404, "not_found"),
        ("GET", "/v2/models/%00", 404, "not_found"),
        ("GET", "/v2/models/%ff%fe", 404, "not_found"),
        ("GET", "/v2/models/" + "x" * 5000, 404, "not_found"),
    ],
)
def test_wrong_routes_are_refused_in_the_protocols_form(
    http: httpx.Client, method: str, path: str, status: int, code: str
) -> None:
    answer = http.request(method, path)
    assert (answer.status_code, answer.json()["code"]) == (status, code)
    assert answer.json()["error"]
    assert len(answer.content) < 1000


def test_a_wrong_method_is_told_the_right_one(http: httpx.Client) -> None:
    assert http.get(INFER).headers["allow"] == "POST"


def test_head_is_get_without_a_body(http: httpx.Client) -> None:
    answer = http.head("/v2")
    assert (answer.status_code, answer.content) == (200, b"")


@pytest.mark.parametrize("claim", ["2147483648", "9223372036854775807"])
def test_a_claim_of_gigabytes_is_refused_at_once(server: LiveServer, claim: str) -> None:
    status, said = exchange(server, f"POST {INFER} HTTP/1.1\r\ncontent-length: {claim}")
    assert (status, said["code"]) == (413, "too_large")
    assert server.budget.used == 0


def test_a_body_that_stays_away_is_refused_after_a_while(server: LiveServer) -> None:
    status, said = exchange(server, f"POST {INFER} HTTP/1.1\r\ncontent-length: 100", b"short")
    assert (status, said["code"]) == (400, "invalid_input")


def test_an_endless_body_is_cut_at_the_limit(http: httpx.Client, server: LiveServer) -> None:
    def endless() -> Iterator[bytes]:
        for _ in range(server.limits.max_body_bytes // 65536 + 2):
            yield bytes(65536)

    answer = http.post(INFER, content=endless())
    assert (answer.status_code, answer.json()["code"]) == (413, "too_large")


def test_a_zip_bomb_is_refused(http: httpx.Client, server: LiveServer) -> None:
    bomb = gzip.compress(bytes(100 * server.limits.max_body_bytes))
    answer = http.post(INFER, content=bomb, headers={"content-encoding": "gzip"})
    assert (answer.status_code, answer.json()["code"]) == (413, "too_large")
    assert server.budget.used == 0


def test_a_compressed_answer_says_so(http: httpx.Client) -> None:
    plain = http.post(INFER, content=BODY, headers={"accept-encoding": "identity"})
    packed = http.post(INFER, content=BODY, headers={"accept-encoding": "gzip"})
    assert "content-encoding" not in plain.headers
    assert packed.headers["content-encoding"] == "gzip"
    assert packed.json() == plain.json()


def test_headers_say_where_the_answer_came_from(http: httpx.Client) -> None:
    answer = http.post(INFER, content=BODY)
    assert answer.headers["prime-spark-target"] == "edge"
    assert answer.headers["prime-spark-reason"] == "local"
    assert answer.headers["prime-spark-model-version"] == "1"


def test_who_proves_nothing_is_told_how(server: LiveServer) -> None:
    answer = httpx.post(f"http://{server.rest}{INFER}", content=BODY)
    assert answer.status_code == 401
    assert answer.headers["www-authenticate"].startswith("Bearer")
    assert "prime-spark token" in answer.json()["hint"]


def test_a_client_that_hangs_up_frees_its_slot(server: LiveServer) -> None:
    entry = {"name": "steps", "datatype": "INT64", "shape": [1], "data": [1_000_000]}
    body = json.dumps({"inputs": [entry]}).encode()
    host, port = server.rest.split(":")
    connection = socket.create_connection((host, int(port)))
    connection.sendall(
        f"POST /v2/models/slow/infer HTTP/1.1\r\nhost: x\r\ncontent-length: {len(body)}\r\n"
        f"authorization: {server.bearer['authorization']}\r\n\r\n".encode()
        + body
    )
    wait_until(lambda: server.busy() == 1)
    connection.close()
    wait_until(lambda: server.busy() == 0 and server.budget.used == 0)


@pytest.mark.parametrize("parameters", [[1], "x", 0, {"version": {"a": 1}}, {"version": 1}])
def test_parameters_of_a_load_are_checked(http: httpx.Client, parameters: object) -> None:
    answer = http.post("/v2/repository/models/mlp/load", json={"parameters": parameters})
    assert (answer.status_code, answer.json()["code"]) == (400, "invalid_input")


def test_answers_are_what_the_document_says(http: httpx.Client) -> None:
    document = http.get("/openapi.json").json()
    cases: list[tuple[str, httpx.Response]] = [
        ("ServerMetadata", http.get("/v2")),
        ("ModelMetadata", http.get("/v2/models/mlp")),
        ("Statistics", http.get("/v2/models/stats")),
        ("Index", http.post("/v2/repository/index")),
        ("InferResponse", http.post(INFER, content=BODY)),
        ("Error", http.get("/v2/models/nope")),
    ]
    for name, answer in cases:
        schema = {"$ref": f"#/components/schemas/{name}", "components": document["components"]}
        jsonschema.validate(answer.json(), schema)


def test_the_document_names_every_route(http: httpx.Client) -> None:
    document = http.get("/openapi.json").json()
    assert document["openapi"] == "3.1.0"
    operations = [
        o["operationId"]
        for p in document["paths"].values()
        for o in p.values()
        if isinstance(o, dict)
    ]
    assert len(operations) == len(set(operations))
    for path, item in document["paths"].items():
        for method in set(item) & {"get", "post"}:
            concrete = path.replace("{model}", "nope").replace("{version}", "1")
            assert http.request(method, concrete).status_code != 405, path
