"""Real clients against the running gateway: tritonclient, as anybody would use it."""

from __future__ import annotations

import asyncio
import gzip
import queue
import socket
import time
from typing import Any

import httpx
import numpy as np
import orjson
import pytest
import tritonclient.grpc as triton_grpc
import tritonclient.grpc.aio as triton_grpc_aio
import tritonclient.http as triton_http
import tritonclient.http.aio as triton_http_aio
from numpy.typing import NDArray
from tritonclient.utils import InferenceServerException

from cluster.registry import ArtifactFile, EmbeddedRegistry, ModelCard
from edge_runtime.backends.base import BackendOptions
from edge_runtime.backends.onnx import load_onnx
from edge_runtime.entry import EntryClient
from edge_runtime.errors import NotFound
from load.demo.gateway import Access, RestCaller
from load.demo.traffic import Traffic
from tests.contract.models import write_models
from tests.e2e.cluster import TestCluster, wait_until

TestSet = tuple[NDArray[np.float32], NDArray[np.int64]]
TIERS = ("colocated", "cloud", "edge")


@pytest.fixture(scope="module")
def token(cluster: TestCluster) -> str:
    return cluster.token("infer", "models:write", "metrics:read")


@pytest.fixture
def bearer(token: str) -> dict[str, str]:
    """The credential, in a dictionary of the test's own: tritonclient writes into it."""
    return {"authorization": f"Bearer {token}"}


def rest_input(images: NDArray[np.float32], *, binary: bool) -> Any:
    tensor = triton_http.InferInput("image", list(images.shape), "FP32")
    tensor.set_data_from_numpy(images, binary_data=binary)
    return tensor


def grpc_input(images: NDArray[np.float32]) -> Any:
    tensor = triton_grpc.InferInput("image", list(images.shape), "FP32")
    tensor.set_data_from_numpy(images)
    return tensor


def infer_body(images: NDArray[np.float32]) -> bytes:
    tensor = {"name": "image", "datatype": "FP32", "shape": list(images.shape)}
    return orjson.dumps({"inputs": [{**tensor, "data": images.reshape(-1).tolist()}]})


class TestTritonClient:
    @pytest.mark.parametrize("binary", [True, False], ids=["binary", "json"])
    @pytest.mark.parametrize("tier", TIERS)
    def test_rest_answers_on_every_tier(
        self,
        cluster: TestCluster,
        bearer: dict[str, str],
        test_set: TestSet,
        tier: str,
        binary: bool,
    ) -> None:
        images, labels = test_set[0][:32], test_set[1][:32]
        with triton_http.InferenceServerClient(cluster.rest) as client:
            result = client.infer(
                "digits",
                [rest_input(images, binary=binary)],
                outputs=[triton_http.InferRequestedOutput("logits", binary_data=binary)],
                headers={**bearer, "prime-spark-tier": tier},
                request_compression_algorithm="gzip" if binary else None,
                response_compression_algorithm="deflate" if binary else None,
            )
        assert (result.as_numpy("logits").argmax(axis=1) == labels).mean() > 0.9
        assert result.get_response()["parameters"]["prime_spark_target"].startswith(tier)

    def test_rest_async_requests_all_come_back(
        self, cluster: TestCluster, bearer: dict[str, str], test_set: TestSet
    ) -> None:
        async def ask() -> list[Any]:
            async with triton_http_aio.InferenceServerClient(cluster.rest) as client:
                return await asyncio.gather(
                    *(
                        client.infer(
                            "digits",
                            [rest_input(test_set[0][i : i + 1], binary=True)],
                            headers=bearer,
                        )
                        for i in range(40)
                    )
                )

        answers = asyncio.run(ask())
        found = [int(answer.as_numpy("logits").argmax()) for answer in answers]
        assert (np.array(found) == test_set[1][:40]).mean() > 0.9

    def test_grpc_sync_async_and_streaming_agree(
        self, cluster: TestCluster, bearer: dict[str, str], test_set: TestSet
    ) -> None:
        images = test_set[0][:4]
        received: queue.Queue[tuple[Any, Any]] = queue.Queue()
        with triton_grpc.InferenceServerClient(cluster.grpc) as client:
            assert client.is_server_live(headers={})
            assert client.is_model_ready("digits", headers=bearer)
            sync = client.infer("digits", [grpc_input(images)], headers=bearer).as_numpy("logits")
            client.start_stream(lambda result, error: received.put((result, error)), headers=bearer)
            for _ in range(10):
                client.async_stream_infer("digits", [grpc_input(images)])
            streamed = [received.get(timeout=30) for _ in range(10)]
            client.stop_stream()

        async def ask() -> Any:
            async with triton_grpc_aio.InferenceServerClient(cluster.grpc) as aio:
                return await aio.infer("digits", [grpc_input(images)], headers=bearer)

        unary = asyncio.run(ask()).as_numpy("logits")
        assert [error for _, error in streamed if error is not None] == []
        for logits in (unary, *(result.as_numpy("logits") for result, _ in streamed)):
            np.testing.assert_allclose(logits, sync, atol=1e-5)

    def test_metadata_configuration_statistics_and_index_are_readable(
        self, cluster: TestCluster, bearer: dict[str, str]
    ) -> None:
        with triton_http.InferenceServerClient(cluster.rest) as client:
            metadata = client.get_model_metadata("digits", headers=bearer)
            config = client.get_model_config("digits", headers=bearer)
            stats = client.get_inference_statistics("digits", headers=bearer)
            index = client.get_model_repository_index(headers=bearer)
        assert metadata["inputs"][0]["shape"] == [-1, 1, 8, 8]
        assert config["max_batch_size"] == 8
        assert stats["model_stats"][0]["inference_count"] > 0
        assert [entry["state"] for entry in index if entry["name"] == "digits"] == ["READY"]


class TestErrors:
    def test_health_is_open_and_everything_else_asks_for_a_token(
        self, cluster: TestCluster
    ) -> None:
        with cluster.http() as client:
            assert client.get("/v2/health/live").status_code == 200
            wait_until(lambda: client.get("/healthz").json()["status"] == "ready", "all is ready")
            for path in ("/v2", "/metrics", "/openapi.json", "/v2/models/digits"):
                answer = client.get(path)
                assert (answer.status_code, answer.json()["code"]) == (401, "unauthenticated")

    def test_a_scope_that_is_missing_is_forbidden(self, cluster: TestCluster) -> None:
        with cluster.http("infer") as client:
            assert client.get("/metrics").status_code == 403
            answer = client.post("/v2/repository/models/digits/unload", json={})
            assert (answer.status_code, answer.json()["code"]) == (403, "forbidden")

    def test_an_api_key_is_as_good_as_a_token_until_it_is_revoked(
        self, cluster: TestCluster
    ) -> None:
        key = cluster.must("apikey", "create", "camera-7").strip()
        with cluster.http() as client:
            assert client.get("/v2", headers={"x-api-key": key}).status_code == 200
            listed = cluster.json("apikey", "list")
            cluster.must("apikey", "revoke", listed[-1]["id"])
            # A verified key is remembered for CACHE_S; a fresh gateway would refuse at once.
            assert client.get("/v2", headers={"x-api-key": key + "x"}).status_code == 401

    @pytest.mark.parametrize(
        ("path", "change", "status", "code", "field"),
        [
            ("/v2/models/nobody/infer", {}, 404, "not_found", "model"),
            ("/v2/models/digits/versions/77/infer", {}, 404, "not_found", "version"),
            ("/v2/models/digits/infer", {"name": "picture"}, 400, "invalid_input", "image"),
            ("/v2/models/digits/infer", {"datatype": "FP64"}, 400, "invalid_input", "image"),
            ("/v2/models/digits/infer", {"shape": [1, 64]}, 400, "invalid_input", "image"),
            ("/v2/models/digits/infer", {"datatype": "FP31"}, 400, "invalid_input", "image"),
        ],
    )
    def test_a_wrong_request_is_refused_with_the_field(
        self,
        cluster: TestCluster,
        path: str,
        change: dict[str, Any],
        status: int,
        code: str,
        field: str,
    ) -> None:
        document = orjson.loads(infer_body(np.zeros((1, 1, 8, 8), np.float32)))
        document["inputs"][0].update(change)
        with cluster.http("infer") as client:
            answer = client.post(path, content=orjson.dumps(document))
        found = answer.json()
        assert (answer.status_code, found["code"], found["field"]) == (status, code, field)
        assert found["error"]

    def test_a_body_over_the_limit_is_refused_before_it_is_sent(self, cluster: TestCluster) -> None:
        head = (
            "POST /v2/models/digits/infer HTTP/1.1\r\n"
            f"Host: {cluster.rest}\r\nAuthorization: Bearer {cluster.token('infer')}\r\n"
            f"Content-Length: {2**31}\r\n\r\n"
        )
        host, _, port = cluster.rest.partition(":")
        with socket.create_connection((host, int(port)), timeout=20.0) as connection:
            connection.sendall(head.encode("ascii"))
            answer = connection.recv(4096)
        assert answer.startswith(b"HTTP/1.1 413 ")

    def test_a_zip_bomb_is_refused_by_what_it_unpacks_to(self, cluster: TestCluster) -> None:
        bomb = gzip.compress(b"0" * (80 * 1024 * 1024))
        with cluster.http("infer") as client:
            answer = client.post(
                "/v2/models/digits/infer", content=bomb, headers={"content-encoding": "gzip"}
            )
        assert answer.status_code == 413

    def test_a_deadline_that_cannot_be_met_is_a_504_or_an_early_503(
        self, cluster: TestCluster, slow_model: str
    ) -> None:
        body = {"inputs": [{"name": "steps", "datatype": "INT64", "shape": [1], "data": [3000]}]}
        with cluster.http("infer") as client:
            answer = client.post(
                f"/v2/models/{slow_model}/infer",
                json=body,
                headers={"prime-spark-timeout-ms": "50"},
            )
        assert answer.status_code in (503, 504)

    def test_the_openapi_document_lists_every_route(self, cluster: TestCluster) -> None:
        with cluster.http("infer") as client:
            document = client.get("/openapi.json").json()
        assert {"/v2/models/{model}/infer", "/v1/sites"} <= set(document["paths"])

    def test_the_sites_are_for_callers_who_may_infer(self, cluster: TestCluster) -> None:
        with cluster.http("models:write") as client:
            assert client.get("/v1/sites").status_code == 403
        with cluster.http("infer") as client:
            sites = {site["name"]: site for site in client.get("/v1/sites").json()["sites"]}
        assert {"cloud-1", "edge-1"} <= set(sites)
        assert all(target["is_up"] for target in sites["edge-1"]["targets"])
        assert sites["edge-1"]["rtt_from"] == "measured"
        shown = cluster.must("sites", "--probe")
        assert "enters here" in shown

    def test_an_entry_client_asks_a_model(
        self, cluster: TestCluster, token: str, test_set: TestSet
    ) -> None:
        body = infer_body(test_set[0][:1])
        with EntryClient([f"http://{cluster.rest}"], token=token) as client:
            answer = client.infer("digits", body, headers={"prime-spark-tier": "edge"})
            assert answer.headers["prime-spark-target"] == "edge/edge-1"
            assert answer.json()["outputs"]
            with pytest.raises(NotFound):
                client.infer("nope", body)


@pytest.fixture(scope="module")
def slow_model(cluster: TestCluster, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A model whose run is as long as its input says, registered and served at run time."""
    folder = tmp_path_factory.mktemp("slow")
    source = next(s for s in write_models(folder) if s.model == "slow")
    registry = EmbeddedRegistry(cluster.home.registry)
    registry.register(
        "long",
        "1",
        signature=load_onnx(source.variants[0].path, BackendOptions()).signature,
        artifacts=[ArtifactFile("onnx", source.variants[0].path)],
        card=ModelCard(),
        actor="test",
    )
    cluster.must("model", "serve", "long@1", "--placement", "cloud", "--option", "instances=1")
    return "long"


class TestLifeOfAModel:
    def test_a_model_is_unloaded_and_loaded_while_the_cluster_runs(
        self, cluster: TestCluster, bearer: dict[str, str], tmp_path: Any
    ) -> None:
        source = next(s for s in write_models(tmp_path) if s.model == "mlp")
        cluster.must("model", "register", "mine", "1", str(source.variants[0].path))
        with triton_http.InferenceServerClient(cluster.rest) as client:
            client.load_model("mine", headers=bearer)
            assert client.is_model_ready("mine", headers=bearer)
            tensor = triton_http.InferInput("x", [2, 4], "FP32")
            tensor.set_data_from_numpy(np.ones((2, 4), np.float32))
            assert client.infer("mine", [tensor], headers=bearer).as_numpy("scores").shape == (2, 3)
            client.unload_model("mine", headers=bearer)
            assert not client.is_model_ready("mine", headers=bearer)
            with pytest.raises(InferenceServerException, match="not being served"):
                client.infer("mine", [tensor], headers=bearer)

    def test_a_caller_that_gives_up_frees_its_place(
        self, cluster: TestCluster, slow_model: str
    ) -> None:
        body = {"inputs": [{"name": "steps", "datatype": "INT64", "shape": [1], "data": [200000]}]}
        with cluster.http("infer") as client:
            with pytest.raises(httpx.ReadTimeout):
                client.post(f"/v2/models/{slow_model}/infer", json=body, timeout=1.0)
            began = time.monotonic()
            quick = {**body, "inputs": [{**body["inputs"][0], "data": [1]}]}
            answer = client.post(f"/v2/models/{slow_model}/infer", json=quick)
        assert answer.status_code == 200
        assert time.monotonic() - began < 20.0  # the abandoned run would take far longer


class TestRouting:
    def test_every_answer_says_where_it_was_made_and_why(
        self, cluster: TestCluster, test_set: TestSet
    ) -> None:
        def of_the_box() -> httpx.Response | None:
            answer = client.post(
                "/v2/models/digits/infer",
                content=infer_body(test_set[0][:1]),
                headers={"prime-spark-site": "edge-1"},
            )
            return answer if answer.headers["prime-spark-target"] == "edge/edge-1" else None

        with cluster.http("infer", "metrics:read") as client:
            # Another place may answer while the box is found slow: the test before keeps it busy.
            answer = wait_until(of_the_box, "an idle box")
            decisions = client.get("/v2/prime-spark/decisions?limit=1").json()["decisions"]
        assert answer.headers["prime-spark-reason"] == "origin_site"
        assert decisions[0]["target"] == "edge/edge-1"
        assert {entry["target"] for entry in decisions[0]["considered"]} == {
            "colocated",
            "cloud",
            "edge/edge-1",
        }

    def test_no_request_fails_while_the_edge_node_is_killed_and_returns(
        self, cluster: TestCluster, test_set: TestSet
    ) -> None:
        access = Access(cluster.rest, cluster.grpc, cluster.token("infer"))
        traffic = Traffic(access, "digits", test_set[0], "edge-1", 20.0)
        traffic.start()
        try:
            wait_until(lambda: traffic.served_by(0.0)["edge/edge-1"] >= 20, "edge traffic")
            cluster.must("node", "kill", "edge")
            noticed_s = traffic.elapsed_s + 2.0
            wait_until(lambda: traffic.served_by(noticed_s).total() >= 40, "failover")
            starts_s = traffic.elapsed_s
            cluster.must("node", "start", "edge")
            back_s = traffic.elapsed_s
            wait_until(
                lambda: traffic.served_by(back_s)["edge/edge-1"] >= 20, "the edge is back", 150.0
            )
        finally:
            traffic.stop()
        assert traffic.failures == []
        # Two seconds after the kill nobody is sent to the dead node any more.
        assert set(traffic.served_by(noticed_s, starts_s)) <= {"colocated", "cloud"}

    def test_one_client_of_the_demo_speaks_to_the_gateway(
        self, cluster: TestCluster, test_set: TestSet
    ) -> None:
        caller = RestCaller(Access(cluster.rest, cluster.grpc, cluster.token("infer")))
        answer = caller.predict("digits", test_set[0][:1], tier="cloud")
        caller.close()
        assert (answer.target, answer.reason) == ("cloud", "tier_requested")
