"""systemd is told when the runtime is ready, alive and stopping, over a real socket."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import Iterator
from contextlib import closing
from itertools import pairwise
from pathlib import Path

import pytest

from edge_runtime.systemd import Notifier
from tests.edge_process import EdgeProcess
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


HANGS_WHEN_TOLD = """
import signal, time
signal.signal(signal.SIGUSR2, lambda *_: time.sleep({seconds}))
"""


def test_a_runtime_says_that_it_is_ready_alive_and_stopping_and_is_silent_while_its_loop_hangs(
    tmp_path: Path, manager: Manager
) -> None:
    """What hangs the loop, and no other thread, is a signal's handler."""
    watchdog_s, hangs_s = 0.4, 1.5
    (tmp_path / "sitecustomize.py").write_text(HANGS_WHEN_TOLD.format(seconds=hangs_s))
    with EdgeProcess(tmp_path / "home") as process:
        process.start({**manager.environment(watchdog_s), "PYTHONPATH": str(tmp_path)})
        try:
            assert manager.until("READY") == {"READY": "1", "STATUS": "ready"}
            assert [manager.until("WATCHDOG") for _ in range(3)] == [{"WATCHDOG": "1"}] * 3
            manager.drain()
            began = time.monotonic()
            assert process.process is not None
            process.process.send_signal(signal.SIGUSR2)
            signs = [_next_sign(manager, began) for _ in range(3)]
            gaps = [after - before for before, after in pairwise([0.0, *signs])]
            assert max(gaps) > 0.8 * hangs_s > 2 * watchdog_s, "whoever watches would restart it"
        finally:
            code = process.stop()
    assert code == 0
    assert manager.until("STOPPING")["STOPPING"] == "1"


def _next_sign(manager: Manager, began: float) -> float:
    """Return the seconds until the next sign of life."""
    manager.until("WATCHDOG")
    return time.monotonic() - began
