"""The edge runtime as a process of its own: killed, ended, asked by commands, on a bad day."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from cluster.home import Home
from edge_runtime.engine import ModelOptions, ModelSource
from edge_runtime.packages import Incoming
from tests.contract.models import write_models
from tests.disks import read_only
from tests.edge_process import COMMAND, EdgeProcess, unix_client
from tests.edge_runtime import onnx_models
from tests.edge_runtime.in_process import infer_body

FAKETIME = next(
    (str(path) for path in Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1")),
    None,
)


def model(folder: Path, name: str, version: str = "1") -> ModelSource:
    """Write a model that answers with its input."""
    path = onnx_models.identity(folder / "identity.onnx", "FP32", ("n", 1))
    return ModelSource.of(name, version, path, "onnx", ModelOptions())


@pytest.fixture
def box(tmp_path: Path) -> Iterator[EdgeProcess]:
    """A box of the test's own, not started; nothing of it may be left running."""
    with EdgeProcess(tmp_path / "home") as made:
        yield made


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EdgeProcess]:
    """A box that runs for all tests that leave it as they found it: `good`, `slow`, `off`."""
    folder = tmp_path_factory.mktemp("shared")
    settings = {"edge.site": "barn", "engine.max_queue_wait_ms": 60_000}
    with EdgeProcess(folder / "home", settings) as made:
        for source in (model(folder, "good"), slow_model(folder)):
            made.install(source)
        made.start()
        yield made
        assert made.stop() == 0
        everything_is_json(made)


def slow_model(folder: Path) -> ModelSource:
    """Return the model that takes as long as its input says, on a thread."""
    (source,) = (s for s in write_models(folder) if s.model == "slow")
    return source


def infer(client: httpx.Client, name: str, value: float = 1.0) -> httpx.Response:
    return client.post(f"/v2/models/{name}/infer", json=infer_body(value), timeout=60)


def work(client: httpx.Client, steps: int) -> httpx.Response:
    """Have `slow` compute so many steps."""
    tensor = {"name": "steps", "datatype": "INT64", "shape": [1], "data": [steps]}
    headers = {"prime-spark-timeout-ms": "60000"}
    body = {"inputs": [tensor]}
    return client.post("/v2/models/slow/infer", json=body, headers=headers, timeout=60)


def steps_of(client: httpx.Client, seconds: float) -> int:
    """Return how many steps take about so long here and now."""
    began = time.monotonic()
    assert work(client, 500).status_code == 200
    return max(500, int(500 * seconds / (time.monotonic() - began)))


def until(condition: Callable[[], bool], seconds: float = 30.0) -> None:
    """Wait for a condition."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not come to pass"
        time.sleep(0.005)


def everything_is_json(process: EdgeProcess) -> None:
    """Check that standard output and error of a process are its log, an object a line."""
    lines = process.lines()
    assert lines
    for line in lines:
        assert {"time", "level", "logger", "message"} <= set(line), line
    assert "stopped" in {line["message"] for line in lines}


def health(client: httpx.Client) -> tuple[int, str, list[str]]:
    answer = client.get("/healthz")
    document = answer.json()
    return answer.status_code, document["status"], document["reasons"]


# Restarts


def test_after_a_kill_it_serves_from_disk_without_a_network_what_was_loaded_by_name(
    box: EdgeProcess, tmp_path: Path
) -> None:
    for name, version in (("a", "1"), ("a", "2"), ("b", "1"), ("c", "1")):
        box.install(model(tmp_path, name, version))
    box.start()
    with unix_client(box) as client:
        for name, version, what in (("a", "1", "load"), ("b", "1", "unload")):
            route = f"/v2/repository/models/{name}/{what}"
            body = {"parameters": {"version": version}}
            assert client.post(route, json=body).status_code == 200
    assert box.stop(signal.SIGKILL) == -signal.SIGKILL
    assert (Home(box.home).edge_run / "edge.sock").exists(), "it could not clean up"

    if os.geteuid() == 0 and shutil.which("unshare") and shutil.which("ip"):
        box.prefix = ("unshare", "--net", "sh", "-c", 'ip link set lo up && exec "$0" "$@"')
    box.start()
    with unix_client(box) as client:
        assert health(client) == (200, "ready", [])
        loaded = {(m["model"], m["version"]) for m in overview(client)["models"]}
        assert loaded == {("a", "1"), ("a", "2"), ("c", "1")}
        assert infer(client, "a", 3.0).json()["outputs"][0]["data"] == [3.0]
        assert infer(client, "b").status_code == 503
    assert box.stop() == 0


def overview(client: httpx.Client) -> Any:
    return client.get("/v2/prime-spark/edge").json()


def accepted(client: httpx.Client) -> int:
    """Return how many requests the engine holds; those whose bodies still come are none of them."""
    return sum(model["queued"] + model["running"] for model in overview(client)["models"])


def test_what_a_power_cut_did_to_files_is_reported_and_the_others_are_served(
    box: EdgeProcess, tmp_path: Path
) -> None:
    for name in ("good", "corrupt", "manifest", "half"):
        box.install(model(tmp_path, name))
    both = [
        Incoming("onnx-int8", tmp_path / "identity.onnx"),
        Incoming("onnx", tmp_path / "identity.onnx"),
    ]
    box.packages.install("int8", "1", both, installed_at=time.time())
    folder = box.packages.root
    os.truncate(folder / "corrupt" / "1" / "onnx.onnx", 20)
    os.truncate(folder / "manifest" / "1" / "package.json", 0)
    (folder / "half" / "1" / "onnx.onnx").unlink()
    (folder / "int8" / "1" / "onnx-int8.onnx").write_bytes(bytes(1000))
    (folder / "good" / ".staged-dead").mkdir()
    (box.home / "edge" / "state").mkdir()
    (box.home / "edge" / "state" / "serving.json").write_bytes(bytes(100))
    box.start()
    with unix_client(box) as client:
        status, word, reasons = health(client)
        assert (status, word) == (200, "degraded")
        assert sorted(reasons) == [
            "corrupt:1: onnx.onnx is not what was installed (SHA-256 differs)",
            "half:1: onnx.onnx cannot be read: No such file or directory",
            "int8:1: onnx-int8.onnx is not what was installed (SHA-256 differs)",
            "manifest/1/package.json is damaged",
            "what was loaded before is not known: JSONDecodeError",
        ]
        assert infer(client, "good").status_code == 200
        answer = infer(client, "int8", 5.0)
        assert answer.headers["prime-spark-rung"] == "cpu-fp32"
        assert answer.json()["outputs"][0]["data"] == [5.0]
        assert infer(client, "corrupt").status_code == 503
    assert not list(folder.glob("*/.staged-*"))
    shown = box.must("edge", "status")
    assert "degraded" in shown
    assert "corrupt:1: onnx.onnx is not what was installed" in shown
    assert box.stop() == 0
    everything_is_json(box)


def test_a_models_folder_that_cannot_be_written_is_served_from(
    box: EdgeProcess, tmp_path: Path
) -> None:
    box.install(model(tmp_path, "good"))
    (box.packages.root / "good" / ".staged-dead").mkdir()
    with read_only(box.packages.root):
        box.start()
        with unix_client(box) as client:
            assert health(client) == (200, "ready", [])
            assert infer(client, "good").status_code == 200
            added = box.run("edge", "models", "add", "late", "1", str(tmp_path / "identity.onnx"))
            assert (added.returncode, "Read-only file system" in added.stderr) == (5, True)
            assert client.post("/v2/repository/models/good/unload").status_code == 200
            assert client.post("/v2/repository/models/good/load").status_code == 200
        assert box.stop() == 0


# The end


def test_a_signal_in_the_middle_of_slow_requests_lets_them_finish_and_leaves_nothing(
    box: EdgeProcess, tmp_path: Path
) -> None:
    box.settings |= {"edge.drain_s": 15.0, "engine.max_queue_wait_ms": 60_000}
    box.install(slow_model(tmp_path))
    box.start()
    assert box.process is not None
    site_headers = {"authorization": f"Bearer {box.token()}"}
    with (
        unix_client(box) as local,
        httpx.Client(base_url=f"http://{box.rest}", headers=site_headers) as site,
        ThreadPoolExecutor(8) as pool,
    ):
        steps = steps_of(local, 0.5)
        asking = [pool.submit(work, client, steps) for client in (site, local) for _ in range(2)]
        until(lambda: accepted(local) == 4)
        began = time.monotonic()
        box.process.send_signal(signal.SIGTERM)
        until(lambda: is_refused(f"http://{box.rest}"))
        assert not all(task.done() for task in asking), "newcomers are refused meanwhile"
        assert [task.result().status_code for task in asking] == [200] * 4
        assert box.process.wait(20) == 0
        assert time.monotonic() - began < 15.0
    run = Home(box.home).edge_run
    assert {path.name for path in run.iterdir()} == {"edge.lock"}
    for port in (box.rest_port, box.grpc_port):
        with socket.socket() as probe:
            assert probe.connect_ex(("127.0.0.1", port)) == errno.ECONNREFUSED
    assert processes_of(box.home) == []
    everything_is_json(box)


def is_refused(base_url: str) -> bool:
    """Tell whether a newcomer is turned away, by the kernel or in words."""
    try:
        return httpx.get(f"{base_url}/v2/health/ready", timeout=5).status_code == 503
    except httpx.TransportError:
        return True


def processes_of(home: Path) -> list[str]:
    """Return the command lines of processes that name a home."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            text = path.read_bytes().replace(b"\0", b" ").decode(errors="replace")
            if str(home) in text:
                found.append(text)
    return found


def test_a_second_signal_ends_it_at_once(box: EdgeProcess, tmp_path: Path) -> None:
    box.install(slow_model(tmp_path))
    box.start()
    assert box.process is not None
    with unix_client(box) as local, ThreadPoolExecutor(1) as pool:
        asking = pool.submit(work, local, steps_of(local, 15.0))
        with unix_client(box) as other:
            until(lambda: overview(other)["in_progress"] == 1)
        box.process.send_signal(signal.SIGTERM)
        until(lambda: any(line["message"] == "stopping" for line in box.lines()))
        assert box.process.poll() is None
        began = time.monotonic()
        box.process.send_signal(signal.SIGTERM)
        assert box.process.wait(20) == 1
        assert time.monotonic() - began < 2.0
        assert isinstance(asking.exception(), httpx.TransportError)


def test_a_signal_while_models_are_loading_ends_it_soon(box: EdgeProcess, tmp_path: Path) -> None:
    path = onnx_models.slow(tmp_path / "endless.onnx")
    box.install(ModelSource.of("endless", "1", path, "onnx", ModelOptions()))
    process = subprocess.Popen(
        [COMMAND, *box.flags, "edge", "run"],
        env=box.environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        with unix_client(box) as client:
            until(lambda: answers_health(client))
            assert health(client) == (503, "unready", ["models are being loaded"])
        process.send_signal(signal.SIGINT)
        out, _ = process.communicate(timeout=20)
    finally:
        process.kill()
        process.wait()
    assert process.returncode == 0
    said = [json.loads(line)["message"] for line in out.splitlines()]
    assert said[-1] == "stopped"
    assert "stopping" in said
    assert not any(message.startswith(("serving", "loaded")) for message in said)


def answers_health(client: httpx.Client) -> bool:
    try:
        return client.get("/healthz", timeout=1).status_code in (200, 503)
    except httpx.TransportError:
        return False


# Who was first


def test_a_second_runtime_on_the_same_home_ends_with_4_and_says_so(shared: EdgeProcess) -> None:
    done = shared.run("edge", "run")
    assert done.returncode == 4
    assert done.stderr == (
        "prime-spark: another edge runtime uses this home\n  `prime-spark edge status` shows it\n"
    )
    with unix_client(shared) as client:
        assert infer(client, "good").status_code == 200


@pytest.mark.parametrize("which", ["rest", "grpc"])
def test_a_port_that_is_taken_ends_it_with_4_and_is_named(
    box: EdgeProcess, shared: EdgeProcess, which: str
) -> None:
    taken = getattr(shared, f"{which}_port")
    box.settings[f"edge.ports.{which}"] = taken
    done = box.run("edge", "run")
    assert done.returncode == 4
    assert f"127.0.0.1:{taken} cannot be listened on" in done.stderr
    assert len(done.stderr.splitlines()) == 2, done.stderr
    assert done.stdout == ""
    with unix_client(shared) as client:
        assert infer(client, "good").status_code == 200


# Who may call


def test_the_socket_asks_for_no_credential_and_the_network_does(shared: EdgeProcess) -> None:
    with unix_client(shared) as client:
        assert infer(client, "good").status_code == 200
    with httpx.Client(base_url=f"http://{shared.rest}") as site:
        refused = infer(site, "good")
        assert (refused.status_code, refused.json()["code"]) == (401, "unauthenticated")
        for route in ("/metrics", "/v2/prime-spark/edge"):
            assert site.get(route).status_code == 401
        for route in ("/v2/prime-spark/drain", "/v2/repository/models/good/unload"):
            assert site.post(route).status_code == 401
        assert site.get("/healthz").status_code == 200
        site.headers["authorization"] = f"Bearer {shared.token(['infer'])}"
        assert infer(site, "good").status_code == 200
        assert site.post("/v2/prime-spark/drain").status_code == 403
    run = Home(shared.home).edge_run
    for name in ("edge.sock", "edge-grpc.sock", "edge.lock"):
        assert (run / name).stat().st_mode & 0o777 == 0o600, name
    assert run.stat().st_mode & 0o777 == 0o700


# Commands


def test_status_shows_models_and_the_rung_that_computes_each(shared: EdgeProcess) -> None:
    with unix_client(shared) as client:
        infer(client, "good")
    found = shared.status()
    assert found["status"] == "ready"
    by_name = {entry["model"]: entry for entry in found["models"]}
    assert by_name["good"]["rung"] == "cpu-fp32"
    assert by_name["good"]["answered"] >= 1
    shown = shared.must("edge", "status")
    assert shown.startswith("edge runtime ready, 0 requests in progress")
    (row,) = [line.split() for line in shown.splitlines() if line.startswith("good")]
    assert row[:3] == ["good", "1", "cpu-fp32"]


def test_drain_waits_for_requests_in_progress_and_resume_takes_new_ones(
    shared: EdgeProcess,
) -> None:
    with unix_client(shared) as client, ThreadPoolExecutor(2) as pool:
        asking = pool.submit(work, client, steps_of(client, 8.0))
        with unix_client(shared) as other:
            until(lambda: overview(other)["in_progress"] == 1)
            too_short = shared.run("edge", "drain", "--wait-s", "0")
            assert (too_short.returncode, too_short.stdout) == (1, "still 1 requests in progress\n")
            draining = json.loads(shared.must("edge", "drain", "--json"))
            assert draining == {"draining": True, "in_progress": 0}
            assert asking.result().status_code == 200
            assert health(other) == (503, "unready", ["the runtime is being drained"])
            assert infer(other, "good").status_code == 503
            assert shared.status()["status"] == "unready"
            assert shared.must("edge", "resume") == "taking requests\n"
            assert health(other)[1] == "ready"
            assert infer(other, "good").status_code == 200


def test_bench_shows_a_row_for_each_number_of_callers(shared: EdgeProcess) -> None:
    asked = ("edge", "bench", "good", "--clients", "1", "--clients", "3", "--seconds", "0.2")
    found = json.loads(shared.must(*asked, "--json"))
    assert found["model"] == "good"
    assert [run["clients"] for run in found["runs"]] == [1, 3]
    for run in found["runs"]:
        assert run["rungs"] == {"cpu-fp32": run["answers"]}
        assert run["answers"] > 0
    done = shared.run(*asked)
    assert done.stderr.splitlines() == ["1 clients, 0.2 s", "3 clients, 0.2 s"]
    head, *rows = [line.split() for line in done.stdout.splitlines() if "─" not in line]
    assert head[:2] == ["clients", "answers/s"]
    assert [row[0] for row in rows] == ["1", "3"]
    for wrong in (["--seconds", "0"], ["--clients", "0"]):
        refused = shared.run("edge", "bench", "good", *wrong)
        assert (refused.returncode, "must be more than 0" in refused.stderr) == (2, True)
    absent = shared.run("edge", "bench", "nobody", "--seconds", "0.1")
    assert (absent.returncode, "nobody" in absent.stderr) == (3, True)


def test_models_are_added_listed_and_removed_while_it_runs(
    shared: EdgeProcess, tmp_path: Path
) -> None:
    path = str(model(tmp_path, "late").variants[0].path)
    said = shared.must("edge", "models", "add", "late", "1", path, "--option", "max_queue=7")
    assert said == "installed late:1\nlate:1 is being served\n"
    with unix_client(shared) as client:
        assert infer(client, "late", 2.0).json()["outputs"][0]["data"] == [2.0]
    listed = json.loads(shared.must("edge", "models", "list", "--json"))
    (late,) = [entry for entry in listed["packages"] if entry["model"] == "late"]
    assert (late["version"], late["artifacts"]) == ("1", ["onnx"])
    assert listed["problems"] == []
    other = onnx_models.identity(tmp_path / "other.onnx", "FP32", ("n", 2))
    conflict = shared.run("edge", "models", "add", "late", "1", str(other))
    assert conflict.returncode == 4
    assert "is installed with another content" in conflict.stderr
    assert shared.must("edge", "models", "remove", "late", "1") == "removed late:1\n"
    with unix_client(shared) as client:
        assert infer(client, "late").status_code == 404
    absent = shared.run("edge", "models", "remove", "late", "1")
    assert (absent.returncode, "late:1 is not installed" in absent.stderr) == (3, True)
    wrong = shared.run("edge", "models", "remove", "a b/../c", "1")
    assert (wrong.returncode, "is not a name for a model" in wrong.stderr) == (2, True)


def test_a_model_that_cannot_be_opened_is_installed_and_reported_and_can_be_removed(
    shared: EdgeProcess, tmp_path: Path
) -> None:
    path = tmp_path / "text.onnx"
    path.write_text("this is not a model")
    done = shared.run("edge", "models", "add", "text", "1", str(path))
    assert done.returncode == 1
    assert "ONNX Runtime cannot open onnx.onnx" in done.stderr
    with unix_client(shared) as client:
        assert health(client)[1] == "degraded"
        shared.must("edge", "models", "remove", "text", "1")
        assert health(client) == (200, "ready", [])


def test_commands_work_while_nothing_runs_and_say_so(box: EdgeProcess, tmp_path: Path) -> None:
    box.settings["edge.models.startup"] = "none"
    path = str(model(tmp_path, "m").variants[0].path)
    for command in ("status", "drain", "resume"):
        done = box.run("edge", command)
        assert done.returncode == 5
        assert "no edge runtime runs here" in done.stderr
    done = box.run("edge", "models", "add", "m", "1", path)
    assert done.returncode == 0
    assert done.stderr == "no runtime runs now; it will be loaded when one starts\n"
    assert "m" in box.must("edge", "models", "list")
    box.start()
    with unix_client(box) as client:
        assert infer(client, "m").status_code == 200, "as it was said"
    box.must("edge", "models", "remove", "m", "1")
    assert box.stop() == 0
    # Removing it unloaded it by name; that must not hold for another that gets its name.
    box.settings["edge.models.startup"] = "newest"
    box.must("edge", "models", "add", "m", "1", path)
    box.must("edge", "models", "remove", "m", "1")
    box.install(model(tmp_path, "m"))
    box.start()
    with unix_client(box) as client:
        assert infer(client, "m").status_code == 200
    assert box.stop() == 0


# Clocks


@pytest.mark.skipif(FAKETIME is None, reason="libfaketime is not installed (Debian: faketime)")
def test_with_a_clock_in_1970_it_serves_with_the_credentials_of_that_time(
    box: EdgeProcess, tmp_path: Path
) -> None:
    box.extra = {
        "LD_PRELOAD": str(FAKETIME),
        "FAKETIME": "@1970-01-02 00:00:00",
        "DONT_FAKE_MONOTONIC": "1",
    }
    box.install(model(tmp_path, "old"))  # by this test's clock: long after
    box.must("edge", "models", "add", "old", "2", str(tmp_path / "identity.onnx"))
    box.start()
    with httpx.Client(base_url=f"http://{box.rest}") as site:
        site.headers["authorization"] = f"Bearer {box.token()}"
        answer = infer(site, "old")
        assert answer.status_code == 200
        assert answer.headers["prime-spark-model-version"] == "2", "the newest, in spite of 1970"
    assert box.status()["status"] == "ready"
    assert box.stop() == 0
    assert box.lines()[0]["time"].startswith("1970-01-02")


@pytest.mark.skipif(FAKETIME is None, reason="libfaketime is not installed (Debian: faketime)")
def test_a_clock_that_jumps_stops_nothing(box: EdgeProcess, tmp_path: Path) -> None:
    clock = tmp_path / "clock"
    clock.write_text("+0d")
    box.install(model(tmp_path, "good"))
    box.start(
        {
            "LD_PRELOAD": str(FAKETIME),
            "FAKETIME_TIMESTAMP_FILE": str(clock),
            "FAKETIME_NO_CACHE": "1",
            "DONT_FAKE_MONOTONIC": "1",
        }
    )
    with unix_client(box) as client:
        for jump in ("+3650d", "-15000d", "+1d", "-1d", "+0d"):
            staged = tmp_path / "clock.new"
            staged.write_text(jump)
            staged.replace(clock)
            assert [infer(client, "good").status_code for _ in range(5)] == [200] * 5
            assert health(client) == (200, "ready", [])
            assert client.post("/v2/repository/models/good/unload").status_code == 200
            assert client.post("/v2/repository/models/good/load").status_code == 200
        stats = client.get("/v2/models/good/stats").json()["model_stats"][0]
        assert stats["inference_stats"]["success"]["ns"] >= 0
    assert box.stop() == 0
    years = {line["time"][:4] for line in box.lines()}
    assert len(years) >= 3, "the clock did jump"


# What it says, and what it keeps


def test_metrics_are_what_a_prometheus_reads(shared: EdgeProcess) -> None:
    headers = {"authorization": f"Bearer {shared.token(['metrics:read'])}"}
    answer = httpx.get(f"http://{shared.rest}/metrics", headers=headers)
    assert answer.headers["content-type"].startswith("text/plain")
    names = {family.name for family in text_string_to_metric_families(answer.text)}
    assert {
        "prime_spark_engine_requests",
        "prime_spark_engine_request_duration_seconds",
        "prime_spark_engine_rung_rows",
        "prime_spark_edge_health",
        "prime_spark_edge_reasons",
        "prime_spark_edge_body_bytes",
        "prime_spark_edge_requests_in_progress",
        "prime_spark_edge_shed",
    } <= names


def test_clients_that_go_away_in_the_middle_of_requests_leave_nothing_behind(
    shared: EdgeProcess,
) -> None:
    assert shared.process is not None
    pid = shared.process.pid

    def leave_in_the_middle(number: int) -> None:
        """Go away after the head, in the body, or while it is being computed."""
        tensor = {"name": "steps", "datatype": "INT64", "shape": [1], "data": [2000]}
        body = json.dumps({"inputs": [tensor]}).encode()
        head = (
            b"POST /v2/models/slow/infer HTTP/1.1\r\nhost: edge\r\n"
            b"content-type: application/json\r\ncontent-length: %d\r\n\r\n" % len(body)
        )
        sent = (head[:40], head, head + body[:20], head + body)[number % 4]
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(Home(shared.home).edge_run / "edge.sock"))
            client.sendall(sent)
            if number % 8 == 7:  # somebody waits a moment for the answer
                client.settimeout(0.07)
                with contextlib.suppress(TimeoutError):
                    client.recv(1)

    def opened() -> int:
        return len(list(Path(f"/proc/{pid}/fd").iterdir()))

    def settle() -> None:
        with unix_client(shared) as client:
            until(lambda: overview(client)["in_progress"] == 0)
            found = overview(client)
        assert found["body_bytes"] == 0
        assert all(m["queued"] + m["running"] == 0 for m in found["models"])

    for number in range(16):
        leave_in_the_middle(number)
    settle()
    files, threads = opened(), len(list(Path(f"/proc/{pid}/task").iterdir()))
    for number in range(200):
        leave_in_the_middle(number)
    settle()
    until(lambda: opened() <= files)
    assert len(list(Path(f"/proc/{pid}/task").iterdir())) <= threads
    with unix_client(shared) as client:
        assert work(client, 10).status_code == 200


def test_odd_bytes_in_paths_and_folder_names_do_not_break_a_line_of_the_log(
    box: EdgeProcess, tmp_path: Path
) -> None:
    box.install(model(tmp_path, "good"))
    (box.packages.root / os.fsdecode(b"caf\xe9\xe2\x80\xa8") / "1").mkdir(parents=True)
    box.start()
    with unix_client(box) as client:
        assert health(client)[1] == "degraded"
        client.post("/v2/models/%FF%0A%E2%80%A8/infer", json={})
        client.get("/v2/%0A%00%FF")
    assert box.stop() == 0
    everything_is_json(box)
