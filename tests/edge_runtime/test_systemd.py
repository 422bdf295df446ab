"""systemd is told when the runtime is ready, alive and stopping, over a real socket."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import httpx
import pytest

from edge_runtime.engine import ModelOptions, ModelSource
from edge_runtime.systemd import Notifier
from tests.edge_process import EdgeProcess, unix_client
from tests.edge_runtime import onnx_models
from tests.edge_runtime.manager import Manager


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[Manager]:
    made = Manager(str(tmp_path / "notify"))
    with closing(made.socket):
        yield made


def test_fields_arrive_in_one_datagram_a_line_each(manager: Manager) -> None:
    Notifier(manager.environment()).tell(READY="1", STATUS="degraded: one\ntwo\r\n three")
    assert manager.receive() == {"READY": "1", "STATUS": "degraded: one two three"}


def test_an_address_without_a_file_is_reached() -> None:
    address = f"@prime-spark-test-{os.getpid()}"
    manager = Manager(address)
    with closing(manager.socket):
        Notifier(manager.environment()).tell(STOPPING="1")
        assert manager.receive() == {"STOPPING": "1"}


def test_being_ready_is_told_however_long_the_reasons_are(manager: Manager) -> None:
    Notifier(manager.environment()).tell(READY="1", STATUS="a reason; " * 1_000_000)
    assert manager.receive()["READY"] == "1"


def test_a_status_with_a_file_name_that_is_no_text_is_told(manager: Manager) -> None:
    Notifier(manager.environment()).tell(READY="1", STATUS=os.fsdecode(b"models/\xff\xfe"))
    assert manager.receive() == {"READY": "1", "STATUS": "models/\\udcff\\udcfe"}


def test_without_a_service_manager_nothing_is_sent_and_nothing_fails(tmp_path: Path) -> None:
    Notifier({}).tell(READY="1")
    Notifier({"NOTIFY_SOCKET": str(tmp_path / "nobody")}).tell(READY="1")
    Notifier({"NOTIFY_SOCKET": "/x" * 200}).tell(READY="1")
    (tmp_path / "file").touch()
    Notifier({"NOTIFY_SOCKET": str(tmp_path / "file")}).tell(READY="1")


async def test_a_service_manager_that_does_not_read_holds_nothing_up(manager: Manager) -> None:
    notifier = Notifier(manager.environment())
    began = time.monotonic()
    for _ in range(5_000):  # the kernel keeps some hundreds
        notifier.tell(WATCHDOG="1")
    assert time.monotonic() - began < 10.0


@pytest.mark.parametrize(
    ("environment", "watchdog_s"),
    [
        ({}, 0.0),
        ({"WATCHDOG_USEC": "10000000"}, 10.0),
        ({"WATCHDOG_USEC": "10000000", "WATCHDOG_PID": str(os.getpid())}, 10.0),
        ({"WATCHDOG_USEC": "10000000", "WATCHDOG_PID": "1"}, 0.0),
        ({"WATCHDOG_USEC": "0"}, 0.0),
        ({"WATCHDOG_USEC": "often"}, 0.0),
        ({"WATCHDOG_USEC": "²"}, 0.0),
        ({"WATCHDOG_USEC": "-1"}, 0.0),
    ],
)
def test_the_watchdog_is_fed_when_it_is_meant_for_this_process(
    environment: dict[str, str], watchdog_s: float
) -> None:
    assert Notifier(environment).watchdog_s == watchdog_s


async def test_the_watchdog_is_fed_twice_an_interval_until_it_is_cancelled(
    manager: Manager,
) -> None:
    feeding = asyncio.create_task(Notifier(manager.environment(0.1)).keep_alive())
    began = time.monotonic()
    for _ in range(6):
        assert await asyncio.to_thread(manager.receive) == {"WATCHDOG": "1"}
    took_s = time.monotonic() - began
    assert 0.2 <= took_s < 2.0, "five halves of a tenth, and what a busy machine adds"
    feeding.cancel()
    await asyncio.wait([feeding])
    manager.drain()
    assert await asyncio.to_thread(manager.is_silent, 0.3)


async def test_without_a_watchdog_feeding_it_ends_at_once(manager: Manager) -> None:
    await asyncio.wait_for(Notifier(manager.environment()).keep_alive(), 5.0)
    assert manager.is_silent(0.05)


def test_a_runtime_says_that_it_is_ready_alive_and_stopping_and_is_silent_while_its_loop_hangs(
    tmp_path: Path, manager: Manager
) -> None:
    """What hangs the loop is a model that was quick in its warm-up and now takes seconds."""
    watchdog_s = 0.4
    process = EdgeProcess(tmp_path / "home")
    path = onnx_models.loop(tmp_path / "loop.onnx")
    process.install(ModelSource.of("loop", "1", path, "onnx", ModelOptions()))
    process.start(manager.environment(watchdog_s))
    try:
        assert manager.until("READY") == {"READY": "1", "STATUS": "ready"}
        assert [manager.until("WATCHDOG") for _ in range(3)] == [{"WATCHDOG": "1"}] * 3
        with unix_client(process) as local, ThreadPoolExecutor(1) as pool:
            asking = pool.submit(_ask_for_turns, local, 5e6)
            gaps = list(_gaps(manager, asking))
        hung_s = asking.result()
        assert max(gaps) > min(hung_s * 0.8, 2 * watchdog_s), "whoever watches would restart it"
        manager.until("WATCHDOG")
    finally:
        code = process.stop()
    assert code == 0
    assert manager.until("STOPPING")["STOPPING"] == "1"


def _ask_for_turns(client: httpx.Client, turns: float) -> float:
    """Ask the model for so many turns of its loop; return the seconds that it took."""
    tensor = {"name": "x", "datatype": "FP32", "shape": [1, 1], "data": [turns]}
    began = time.monotonic()
    answer = client.post("/v2/models/loop/infer", json={"inputs": [tensor]}, timeout=60)
    assert answer.status_code == 200, answer.text
    return time.monotonic() - began


def _gaps(manager: Manager, until: Future[float]) -> Iterator[float]:
    """Yield the seconds between signs of life until something is done."""
    before = time.monotonic()
    while not until.done():
        manager.until("WATCHDOG")
        now = time.monotonic()
        yield now - before
        before = now
