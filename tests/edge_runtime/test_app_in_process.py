"""The runtime's order of starting and stopping, on the test's own event loop."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import signal
import socket
import stat
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, closing
from pathlib import Path

import httpx
import numpy as np
import pytest
from prometheus_client.parser import text_string_to_metric_families

from edge_runtime.app import EdgeRuntime, serve
from edge_runtime.config import AcceleratorSettings
from edge_runtime.engine.runner import ModelRunner
from edge_runtime.errors import Conflict, Unavailable
from edge_runtime.packages import Incoming
from edge_runtime.protocol.grpc_client import OipClient
from edge_runtime.protocol.service import Limits
from edge_runtime.protocol.types import InferRequest, Tensor
from edge_runtime.systemd import Notifier
from tests.edge_runtime import onnx_models
from tests.edge_runtime.engine.gate import until
from tests.edge_runtime.in_process import Box, ask, descriptors
from tests.edge_runtime.manager import Manager

DOCUMENTED = Path(__file__).parents[2] / "docs" / "reference" / "metrics.md"


@pytest.fixture
async def box(tmp_path: Path) -> AsyncIterator[Box]:
    """A box; no task and no socket of a runtime may be left at the end."""
    made = Box(tmp_path)
    yield made
    await asyncio.sleep(0)
    assert asyncio.all_tasks() == {asyncio.current_task()}


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[Manager]:
    made = Manager(str(tmp_path / "notify"))
    with closing(made.socket):
        yield made


async def slow_model(box: Box, name: str = "slow") -> None:
    """Install a model that takes as long as its input says, some millions of turns a second."""
    box.install(name, path=onnx_models.loop(box.folder / "loop.onnx"))


def off_the_loop(runtime: EdgeRuntime, model: str = "slow") -> ModelRunner:
    """Have the engine take a model for a slow one, whose runs go to a thread."""
    runner = runtime.engine.runner(model, "1")
    runner.service.saw(1, 0.05)
    return runner


async def health(client: httpx.AsyncClient) -> tuple[int, str, list[str]]:
    answer = await client.get("/healthz")
    document = answer.json()
    return answer.status_code, document["status"], document["reasons"]


# Starting


async def test_it_listens_before_its_models_are_loaded_and_says_so(box: Box) -> None:
    box.install("good")
    async with box.running(is_ready=False) as runtime, box.local() as client:
        assert await health(client) == (503, "unready", ["models are being loaded"])
        assert (await client.get("/v2/health/live")).status_code == 200
        refused = await ask(client, "good")
        assert (refused.status_code, refused.headers["retry-after"]) == (503, "1")
        await runtime.ready()
        assert await health(client) == (200, "ready", [])
        answer = await ask(client, "good", 3.0)
        assert answer.json()["outputs"][0]["data"] == [3.0]
        assert answer.headers["prime-spark-target"] == "edge/edge-1"


async def test_a_broken_package_beside_a_good_one_is_a_reason_to_be_degraded(box: Box) -> None:
    box.install("good")
    (box.install("damaged") / "package.json").write_bytes(b"{")
    (box.install("corrupt") / "onnx.onnx").write_bytes(b"other")
    manifest = box.install("odd") / "package.json"
    manifest.write_text(
        manifest.read_text()
        .replace('"options":{}', '"options":{"turbo":1}')
        .replace('"options": {}', '"options": {"turbo": 1}')
    )
    async with box.running(), box.local() as client:
        status, word, reasons = await health(client)
        assert (status, word) == (200, "degraded")
        assert len(reasons) == 3
        text = "\n".join(reasons)
        assert "corrupt:1: onnx.onnx is not what was installed (SHA-256 differs)" in text
        assert "damaged/1/package.json is damaged" in text
        assert "odd:1: unknown serving option 'turbo'" in text
        assert (await ask(client, "good")).status_code == 200
        assert (await client.get("/v2/health/ready")).status_code == 200


async def test_health_names_some_broken_packages_and_counts_the_others(box: Box) -> None:
    for number in range(50):
        (box.packages.root / f"m{number}" / "1").mkdir(parents=True)
    async with box.running(), box.local() as client:
        _, _, reasons = await health(client)
        assert len(reasons) == 21
        assert reasons[-1] == "30 more packages"


async def test_a_folder_whose_name_is_no_text_is_reported_to_everybody(box: Box) -> None:
    box.install("good")
    (box.packages.root / os.fsdecode(b"caf\xe9") / "1").mkdir(parents=True)
    async with box.running(), box.local() as client:
        _, word, (reason,) = await health(client)
        assert (word, reason.split()[0]) == ("degraded", "caf\\udce9/1")


async def test_a_second_runtime_on_the_same_home_is_a_conflict_and_the_first_goes_on(
    box: Box,
) -> None:
    box.install("good")
    async with box.running(), box.local() as client:
        before = await descriptors()
        other = EdgeRuntime(box.config)
        with pytest.raises(Conflict, match="another edge runtime uses this home"):
            await other.start()
        await other.engine.close()
        assert await descriptors() == before
        assert (await ask(client, "good")).status_code == 200
        assert stat.S_ISSOCK(box.config.places.socket.stat().st_mode)


@pytest.mark.parametrize("which", ["rest", "grpc"])
async def test_a_port_that_is_taken_is_a_conflict_and_nothing_stays_open(
    box: Box, which: str
) -> None:
    opened: list[int] = []
    port = getattr(box.edge.ports, which)
    with closing(socket.socket()) as taken:
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        taken.bind(("127.0.0.1", port))
        taken.listen()
        for _ in range(4):
            runtime = EdgeRuntime(box.config)
            with pytest.raises(Conflict, match=f"{port} cannot be listened"):
                await runtime.start()
            del runtime
            opened.append(await descriptors())
    assert not list(box.config.places.run.glob("*.sock"))
    assert opened[-1] <= opened[1], "but for what gRPC opens once and for all"
    async with box.running():
        pass


async def test_a_run_folder_that_cannot_be_made_is_unavailable(box: Box) -> None:
    (box.folder / "run").write_text("no folder")
    runtime = EdgeRuntime(box.config)
    with pytest.raises(Unavailable, match=r"edge\.lock cannot be made"):
        await runtime.start()
    await runtime.engine.close()


async def test_a_start_that_is_cancelled_leaves_nothing(
    box: Box, caplog: pytest.LogCaptureFixture
) -> None:
    for turns in range(10):
        runtime = EdgeRuntime(box.config)
        starting = asyncio.create_task(runtime.start())
        for _ in range(turns):
            await asyncio.sleep(0)
        starting.cancel()
        await asyncio.wait([starting])
        assert starting.cancelled()
        await runtime.stop()
        await runtime.engine.close()
        del runtime, starting
        assert not list(box.config.places.run.glob("*.sock"))
    assert [record.message for record in caplog.records] == []
    async with box.running():
        pass


async def test_what_a_killed_process_left_is_no_hindrance(box: Box) -> None:
    places = box.config.places
    places.run.mkdir()
    for path in (places.socket, places.grpc_socket):
        with closing(socket.socket(socket.AF_UNIX)) as dead:
            dead.bind(str(path))
    (places.run / "edge.lock").touch()
    (places.models / "good" / ".staged-dead").mkdir(parents=True)
    async with box.running(), box.local() as client:
        assert (await health(client))[1] == "ready"
        assert not list(places.models.iterdir())


# Who may call


async def test_the_sockets_are_for_this_user_and_ask_nobody_who_it_is(box: Box) -> None:
    box.install("good")
    places = box.config.places
    async with box.running(), box.local() as client:
        for path in (places.socket, places.grpc_socket):
            assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert stat.S_IMODE(places.run.stat().st_mode) == 0o700
        assert (await ask(client, "good")).status_code == 200
        beside = OipClient(f"unix:{places.grpc_socket}", Limits())
        tensor = Tensor("x", "FP32", np.array([[5.0]], np.float32))
        found = await beside.infer(InferRequest("good", None, (tensor,)), None, timeout_s=20)
        assert found.outputs[0].data.tolist() == [[5.0]]
        await beside.close()


@pytest.mark.parametrize(
    ("method", "route", "scope"),
    [
        ("GET", "/v2/prime-spark/edge", "metrics:read"),
        ("GET", "/metrics", "metrics:read"),
        ("POST", "/v2/prime-spark/drain", "models:write"),
        ("POST", "/v2/prime-spark/resume", "models:write"),
        ("POST", "/v2/prime-spark/rescan", "models:write"),
        ("POST", "/v2/repository/models/good/load", "models:write"),
    ],
)
async def test_over_the_network_each_thing_needs_its_scope(
    box: Box, method: str, route: str, scope: str
) -> None:
    box.install("good")
    others = {"infer", "models:write", "metrics:read"} - {scope}
    async with box.running(), httpx.AsyncClient(base_url=box.rest) as client:
        assert (await client.request(method, route)).status_code == 401
        refused = await client.request(method, route, headers=box.token(*others))
        assert refused.status_code == 403
        allowed = await client.request(method, route, headers=box.token(scope))
        assert allowed.status_code == 200
        if method == "POST":
            got = await client.get(route, headers=box.token(scope))
            assert got.status_code == 405, "a link that is followed changes nothing"


# Draining


async def test_a_runtime_that_is_drained_takes_nothing_and_resumes(box: Box) -> None:
    await slow_model(box)
    async with box.running() as runtime, box.local() as client:
        off_the_loop(runtime)
        working = asyncio.create_task(ask(client, "slow", 4e5))
        await until(lambda: runtime.gate.in_progress == 1)
        drained = await client.post("/v2/prime-spark/drain")
        assert drained.json() == {"draining": True, "in_progress": 1}
        assert await health(client) == (503, "unready", ["the runtime is being drained"])
        assert (await ask(client, "slow")).status_code == 503
        assert (await working).status_code == 200
        assert (await client.post("/v2/prime-spark/drain")).json()["in_progress"] == 0
        await client.post("/v2/prime-spark/resume")
        assert (await health(client))[1] == "ready"
        assert (await ask(client, "slow")).status_code == 200


async def test_a_drain_that_was_asked_for_while_models_were_loading_lasts(box: Box) -> None:
    box.install("good")
    async with box.running(is_ready=False) as runtime, box.local() as client:
        await client.post("/v2/prime-spark/drain")
        await client.post("/v2/prime-spark/drain")
        await runtime.ready()
        assert await health(client) == (503, "unready", ["the runtime is being drained"])
        await client.post("/v2/prime-spark/resume")
        assert (await health(client))[1] == "ready"


async def test_resuming_while_models_are_loading_lets_nobody_in_early(box: Box) -> None:
    box.install("good")
    async with box.running(is_ready=False), box.local() as client:
        await client.post("/v2/prime-spark/resume")
        assert await health(client) == (503, "unready", ["models are being loaded"])


# Rescanning


async def test_what_is_put_into_the_folder_is_known_after_a_rescan(box: Box) -> None:
    async with box.running() as runtime, box.local() as client:
        box.install("late")
        answer = await client.post("/v2/prime-spark/rescan")
        assert answer.json() == {"packages": 1}
        await client.post("/v2/repository/models/late/load")
        assert (await ask(client, "late")).status_code == 200
        assert runtime.state.is_wanted(("late", "1"), False)


async def test_what_is_gone_from_the_folder_is_served_until_it_is_unloaded(box: Box) -> None:
    box.install("good")
    async with box.running() as runtime, box.local() as client:
        box.packages.remove("good", "1")
        await client.post("/v2/prime-spark/rescan")
        assert (await ask(client, "good")).status_code == 200
        await client.post("/v2/repository/models/good/unload")
        assert not runtime.state.is_wanted(("good", "1"), True)
        await client.post("/v2/prime-spark/rescan")
        assert (await ask(client, "good")).status_code == 404
        assert runtime.state.is_wanted(("good", "1"), True), "another may get its name"


async def test_a_folder_that_cannot_be_read_for_now_changes_no_decision(box: Box) -> None:
    folder = box.install("good")
    box.install("other")
    async with box.running() as runtime, box.local() as client:
        await client.post("/v2/repository/models/good/unload")
        manifest = (folder / "package.json").read_bytes()
        (folder / "package.json").write_bytes(b"")
        await client.post("/v2/prime-spark/rescan")
        assert (await health(client))[1] == "degraded"
        assert not runtime.state.is_wanted(("good", "1"), True)
        (folder / "package.json").write_bytes(manifest)
        await client.post("/v2/prime-spark/rescan")
        assert (await health(client))[1] == "ready"
        await client.post("/v2/repository/models/good/load")
        assert (await ask(client, "good")).status_code == 200


async def test_a_version_that_left_the_folder_while_it_was_out_of_memory_is_forgotten(
    box: Box,
) -> None:
    box.serve_models(startup="all", max_bytes=2 << 20)  # a model counts 1 MiB at least
    for name in ("a", "b", "c"):
        box.install(name, options={"cache_ttl_ms": 60_000})
    async with box.running() as runtime, box.local() as client:
        for name in ("a", "b", "c"):
            assert (await ask(client, name)).status_code == 200
        ((gone, _), *_) = runtime.engine.residency.evicted
        assert any(c.model == gone for c in runtime.engine.recall.statistics().models)
        box.packages.remove(gone, "1")
        await client.post("/v2/prime-spark/rescan")
        assert (gone, "1") not in runtime.engine.residency.evicted
        assert not any(c.model == gone for c in runtime.engine.recall.statistics().models)
        assert (await ask(client, gone)).status_code == 404


async def test_a_folder_of_a_thousand_packages_does_not_keep_the_loop_from_its_work(
    box: Box,
) -> None:
    box.serve_models(startup="none")
    manifest = (box.install("m0") / "package.json").read_text()
    for number in range(1, 3000):
        folder = box.packages.root / f"m{number}" / "1"
        folder.mkdir(parents=True)
        (folder / "package.json").write_text(manifest.replace('"m0"', f'"m{number}"'))
    began = time.perf_counter()
    box.packages.scan()
    scan_s = time.perf_counter() - began
    async with box.running(), box.local() as client:
        rescanning = asyncio.create_task(client.post("/v2/prime-spark/rescan"))
        gaps = []
        while not rescanning.done():
            began = time.perf_counter()
            await asyncio.sleep(0.001)
            gaps.append(time.perf_counter() - began)
        assert (await rescanning).json() == {"packages": 3000}
        assert max(gaps) < 0.6 * scan_s


async def test_rescans_loads_unloads_and_requests_at_the_same_time_end_well(box: Box) -> None:
    box.serve_models(startup="all", max_bytes=3 << 20)
    names = [f"m{number}" for number in range(5)]
    for name in names:
        box.install(name)
    async with box.running() as runtime, box.local() as client:

        async def work(number: int) -> list[int]:
            found = []
            for turn in range(10):
                name = names[(number + turn) % len(names)]
                match number % 4:
                    case 0:
                        answer = await client.post("/v2/prime-spark/rescan")
                    case 1:
                        answer = await client.post(f"/v2/repository/models/{name}/load")
                    case 2:
                        answer = await client.post(f"/v2/repository/models/{name}/unload")
                    case _:
                        answer = await ask(client, name, timeout_ms=10_000)
                found.append(answer.status_code)
            return found

        found = await asyncio.gather(*(work(number) for number in range(12)))
        assert {status for statuses in found for status in statuses} <= {200, 503}
        for statuses in (found[0], found[2]):
            assert set(statuses) == {200}
        residency = runtime.engine.residency
        assert set(residency.sizes) == set(runtime.engine.loaded)
        assert not residency.evicted & set(runtime.engine.loaded)
        for name in names:
            assert (await client.post(f"/v2/repository/models/{name}/load")).status_code == 200
            assert (await ask(client, name)).status_code == 200
        state = json.loads((box.config.places.state / "serving.json").read_bytes())
        assert sorted(state["decided"]) == [[name, "1", True] for name in names]


# Stopping


async def test_what_was_accepted_over_each_way_in_is_answered_and_newcomers_are_refused(
    box: Box,
) -> None:
    await slow_model(box)
    runtime = EdgeRuntime(box.config)
    await runtime.start()
    await runtime.ready()
    off_the_loop(runtime)
    tensor = Tensor("x", "FP32", np.array([[1e6]], np.float32))
    request = InferRequest("slow", None, (tensor,))
    site = httpx.AsyncClient(base_url=box.rest, headers=box.token("infer"), timeout=30)
    grpc = OipClient(box.grpc, Limits(), headers=lambda: box.token("infer"))
    beside = OipClient(f"unix:{box.config.places.grpc_socket}", Limits())
    async with site, box.local() as local:
        over_http = [asyncio.create_task(ask(client, "slow", 1e6)) for client in (site, local)]
        over_grpc = [
            asyncio.create_task(client.infer(request, None, timeout_s=20))
            for client in (grpc, beside)
        ]
        await until(lambda: runtime.gate.in_progress == 4)
        began = time.monotonic()
        stopping = asyncio.create_task(runtime.stop())
        await asyncio.sleep(0.05)
        assert not any(task.done() for task in (*over_http, *over_grpc))
        with pytest.raises(httpx.ConnectError):
            await ask(site, "slow")
        with pytest.raises(httpx.ConnectError):
            await ask(local, "slow")
        with pytest.raises(Unavailable):
            await grpc.infer(request, None, timeout_s=5)
        statuses = [(await task).status_code for task in over_http]
        outputs = [(await task).outputs[0].data.tolist() for task in over_grpc]
        await stopping
        assert time.monotonic() - began < box.edge.drain_s
    assert (statuses, outputs) == ([200, 200], [[[1e6]], [[1e6]]])
    for client in (grpc, beside):
        await client.close()
    assert not list(box.config.places.run.glob("*.sock"))
    for port in (box.edge.ports.rest, box.edge.ports.grpc):
        with closing(socket.socket()) as probe:
            assert probe.connect_ex(("127.0.0.1", port)) != 0


async def test_a_request_that_would_not_end_is_given_up_when_the_time_to_drain_is_over(
    tmp_path: Path,
) -> None:
    box = Box(tmp_path, drain_s=1.0)
    await slow_model(box)
    runtime = EdgeRuntime(box.config)
    await runtime.start()
    await runtime.ready()
    off_the_loop(runtime)
    async with box.local() as client, httpx.AsyncClient(base_url=box.rest) as site:
        site.headers.update(box.token("infer"))
        endless = [asyncio.create_task(ask(c, "slow", 1.6e7)) for c in (client, site)]
        await until(lambda: runtime.gate.in_progress == 2)
        began = time.monotonic()
        await runtime.stop()
        assert 0.9 < time.monotonic() - began < 4.0
        for task in endless:
            (found,) = await asyncio.gather(task, return_exceptions=True)
            assert isinstance(found, httpx.Response | httpx.HTTPError)
            assert not isinstance(found, httpx.Response) or found.status_code >= 500


async def test_stopping_while_models_are_loading_does_not_wait_for_them(box: Box) -> None:
    box.install("endless", path=onnx_models.slow(box.folder / "slow.onnx"))
    async with box.running(is_ready=False) as runtime, box.local() as client:
        await until(lambda: runtime.engine.loading == (("endless", "1"),))
        assert (await health(client))[1] == "unready"
        began = time.monotonic()
        await runtime.stop()
        assert time.monotonic() - began < 4.0


async def test_starting_and_stopping_often_leaks_nothing(box: Box) -> None:
    box.install("good")
    async with box.running(), box.local() as client:
        await ask(client, "good")
    before = await descriptors()
    for _ in range(3):
        async with box.running(), box.local() as client:
            assert (await ask(client, "good")).status_code == 200
    assert await descriptors() <= before


# The process's own life, as `edge run` has it


@asynccontextmanager
async def served(box: Box, manager: Manager) -> AsyncIterator[asyncio.Task[None]]:
    """Serve until a signal comes, at the latest the one at the end of the block."""
    serving = asyncio.create_task(serve(box.config, Notifier(manager.environment(0.2))))
    try:
        yield serving
        if not serving.done():
            os.kill(os.getpid(), signal.SIGTERM)
        await serving
    finally:
        serving.cancel()
        await asyncio.gather(serving, return_exceptions=True)
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().remove_signal_handler(number)


async def test_a_service_tells_its_manager_when_it_is_ready_what_changes_and_when_it_stops(
    box: Box, manager: Manager
) -> None:
    box.install("good")
    async with served(box, manager), box.local() as client:
        ready = await asyncio.to_thread(manager.until, "READY")
        assert ready == {"READY": "1", "STATUS": "ready"}
        await asyncio.to_thread(manager.until, "WATCHDOG")
        (box.packages.root / "photos" / "2024").mkdir(parents=True)
        await client.post("/v2/prime-spark/rescan")
        changed = await asyncio.to_thread(manager.until, "STATUS")
        assert changed["STATUS"].startswith("degraded: photos/2024 is not a model package")
    manager.drain_until("STOPPING")
    assert not box.config.places.socket.exists()


async def test_a_service_that_is_ended_before_it_is_ready_never_says_that_it_was(
    box: Box, manager: Manager
) -> None:
    box.install("endless", path=onnx_models.slow(box.folder / "slow.onnx"))
    async with served(box, manager), box.local() as client:
        assert (await answers(client))[1] == "unready"
    assert "READY" not in manager.drain_until("STOPPING")


async def answers(client: httpx.AsyncClient) -> tuple[int, str, list[str]]:
    """Return the health of what may only just have begun to listen."""
    while True:
        try:
            return await health(client)
        except httpx.ConnectError:
            await asyncio.sleep(0.01)


async def test_a_service_that_cannot_start_says_why_and_is_not_ready(
    box: Box, manager: Manager
) -> None:
    async with box.running():
        with pytest.raises(Conflict):
            await serve(box.config, Notifier(manager.environment()))
    assert manager.is_silent(0.01)


async def test_a_link_to_a_cloud_that_is_away_is_no_hindrance(tmp_path: Path) -> None:
    box = Box(tmp_path, offload={"gateway": "127.0.0.1:1", "tls": False})
    box.install("good")
    async with box.running(), box.local() as client:
        assert (await ask(client, "good")).headers["prime-spark-target"] == "edge/edge-1"
        overview = (await client.get("/v2/prime-spark/edge")).json()
        assert overview["status"] in ("ready", "degraded")
    assert asyncio.all_tasks() == {asyncio.current_task()}


# What it says of itself


async def test_metrics_parse_and_have_the_documented_names(box: Box) -> None:
    box.install("good", options={"cache_ttl_ms": 60_000})
    async with box.running(), box.local() as client:
        for _ in range(2):
            await ask(client, "good")
        text = (await client.get("/metrics")).text
    families = {family.name: family for family in text_string_to_metric_families(text)}
    samples = {sample.name for family in families.values() for sample in family.samples}
    documented = {
        line.split("`")[1]
        for line in DOCUMENTED.read_text("utf-8").splitlines()
        if line.startswith(("| `prime_spark_engine_", "| `prime_spark_edge_"))
    }
    assert len(documented) >= 8
    assert documented <= samples | set(families)
    states = families["prime_spark_edge_health"].samples
    assert {s.labels["state"]: s.value for s in states} == {"ready": 1, "degraded": 0, "unready": 0}
    (requests,) = [
        s
        for s in families["prime_spark_engine_requests"].samples
        if s.labels["outcome"] == "success"
    ]
    assert (requests.labels["model"], requests.value) == ("good", 1)
    assert families["prime_spark_edge_reasons"].samples[0].value == 0
    assert families["prime_spark_edge_requests_in_progress"].samples[0].value == 0
    assert families["prime_spark_edge_body_bytes"].samples[0].value == 0
    assert "prime_spark_accelerator_up" not in families


async def test_the_overview_says_what_is_loaded_what_is_not_and_why(box: Box) -> None:
    box.install("good", now=1.0)
    box.install("good", "2", now=2.0)
    (box.install("corrupt") / "onnx.onnx").write_bytes(b"other")
    async with box.running(), box.local() as client:
        await ask(client, "good")
        found = (await client.get("/v2/prime-spark/edge")).json()
    assert found["status"] == "degraded"
    assert found["accelerator"] is None
    (model,) = found["models"]
    assert (model["model"], model["version"], model["rung"]) == ("good", "2", "cpu-fp32")
    assert (model["answered"], model["failed"], model["refused"]) == (1, 0, 0)
    assert [rung["name"] for rung in model["rungs"]] == ["cpu-fp32"]
    why = {(m["model"], m["version"]): m["why"] for m in found["not_loaded"]}
    assert why[("good", "1")] == "not loaded"
    assert "is not what was installed" in why[("corrupt", "1")]


async def test_an_accelerator_that_is_wanted_and_not_there_is_a_reason_and_is_measured(
    tmp_path: Path,
) -> None:
    nobody = AcceleratorSettings(kind="hailo", python="/nonexistent/python")
    box = Box(tmp_path, accelerator=nobody)
    box.install("good")
    async with box.running(), box.local() as client:
        _, word, reasons = await health(client)
        assert word == "degraded"
        assert reasons[0].startswith("accelerator: ")
        assert (await ask(client, "good")).status_code == 200
        overview = (await client.get("/v2/prime-spark/edge")).json()
        assert overview["accelerator"]["serves"] is False
        assert overview["accelerator"]["why"]
        text = (await client.get("/metrics")).text
    assert "prime_spark_accelerator_up 0.0" in text
    assert "prime_spark_accelerator_runs_total 0.0" in text


async def test_a_rung_s_cache_is_marked_over_http_and_its_hits_are_in_the_statistics(
    box: Box,
) -> None:
    box.install("good", options={"cache_ttl_ms": 60_000})
    async with box.running(), box.local() as client:
        first = await ask(client, "good")
        again = await ask(client, "good")
        stats = (await client.get("/v2/models/good/stats")).json()
    assert (first.headers["prime-spark-rung"], "age" in first.headers) == ("cpu-fp32", False)
    assert (again.headers["prime-spark-rung"], again.headers["age"]) == ("cache", "0")
    assert again.json()["parameters"]["prime_spark_rung"] == "cache"
    inference = stats["model_stats"][0]["inference_stats"]
    assert (inference["cache_hit"]["count"], inference["success"]["count"]) == (1, 1)


async def test_a_damaged_newest_version_gives_way_to_the_one_before_it(box: Box) -> None:
    box.install("good", "1", now=1.0)
    newest = box.install("good", "2", now=2.0)
    (newest / "onnx.onnx").write_bytes(b"other")
    async with box.running(), box.local() as client:
        answer = await ask(client, "good", 4.0)
        assert answer.headers["prime-spark-model-version"] == "1"
        _, word, reasons = await health(client)
        assert word == "degraded"
        assert len(reasons) == 1
        assert reasons[0].startswith("good:2: onnx.onnx is not what was installed")


async def test_a_version_that_was_unloaded_by_name_does_not_come_back_for_a_damaged_one(
    box: Box,
) -> None:
    box.install("good", "1", now=1.0)
    async with box.running(), box.local() as client:
        await client.post("/v2/repository/models/good/unload", json={})
    newest = box.install("good", "2", now=2.0)
    (newest / "onnx.onnx").write_bytes(b"other")
    async with box.running(), box.local() as client:
        assert (await ask(client, "good")).status_code == 503


async def test_a_damaged_int8_artifact_is_passed_over_for_the_fp32_one(box: Box) -> None:
    path = onnx_models.identity(box.folder / "identity.onnx", "FP32", ("n", 1))
    files = [Incoming("onnx-int8", path), Incoming("onnx", path)]
    folder = box.packages.install("good", "1", files, installed_at=1.0).folder
    async with box.running(), box.local() as client:
        assert (await ask(client, "good")).headers["prime-spark-rung"] == "cpu-int8"
    (folder / "onnx-int8.onnx").write_bytes(b"other")
    async with box.running(), box.local() as client:
        answer = await ask(client, "good", 4.0)
        assert answer.headers["prime-spark-rung"] == "cpu-fp32"
        assert answer.json()["outputs"][0]["data"] == [4.0]
        _, word, reasons = await health(client)
        assert word == "degraded"
        assert reasons == ["good:1: onnx-int8.onnx is not what was installed (SHA-256 differs)"]
        box.packages.install("good", "1", files, installed_at=2.0)
        loaded = await client.post("/v2/repository/models/good/load", json={})
        assert loaded.status_code == 200
        assert (await ask(client, "good")).headers["prime-spark-rung"] == "cpu-int8"
        assert (await health(client))[1:] == ("ready", [])


async def test_a_model_whose_artifact_can_never_be_opened_is_loaded_once(box: Box) -> None:
    path = onnx_models.identity(box.folder / "identity.onnx", "FP32", ("n", 1))
    wrong = box.folder / "wrong.onnx"
    wrong.write_bytes(b"no model")
    files = [Incoming("onnx-int8", wrong), Incoming("onnx", path)]
    box.packages.install("good", "1", files, installed_at=1.0)
    async with box.running() as runtime, box.local() as client:
        before = runtime.engine.runner("good", "1")
        await client.post("/v2/repository/models/good/load", json={})
        assert runtime.engine.runner("good", "1") is before


async def test_a_damaged_package_that_is_installed_again_is_served(box: Box) -> None:
    path = box.install("good") / "onnx.onnx"
    whole = path.read_bytes()
    path.write_bytes(b"other")
    async with box.running(), box.local() as client:
        assert (await ask(client, "good")).status_code == 503
        box.install("good")
        assert path.read_bytes() == whole
        await client.post("/v2/repository/models/good/load", json={})
        assert (await ask(client, "good", 4.0)).json()["outputs"][0]["data"] == [4.0]
        assert (await health(client))[1:] == ("ready", [])


async def test_nothing_is_logged_as_an_error_by_a_sound_run(
    box: Box, caplog: pytest.LogCaptureFixture
) -> None:
    box.install("good")
    async with box.running(), box.local() as client:
        await ask(client, "good")
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []
