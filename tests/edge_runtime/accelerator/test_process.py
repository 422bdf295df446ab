"""One child: its messages, its end, and nothing left of it."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import sys
import textwrap
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from edge_runtime.accelerator.process import HostProcess, make_memory
from edge_runtime.engine.memory import data_bytes, trim_heap
from tests.edge_runtime.accelerator.processes import (
    descriptors,
    is_alive,
    is_known,
    no_descriptors_left,
)
from tests.edge_runtime.engine.gate import until

HEAD = f"""#!{sys.executable} -SE
import array, os, signal, socket, sys, time
sock = socket.socket(fileno=int(sys.argv[2]))
"""


@pytest.fixture
def script(tmp_path: Path) -> Callable[[str], str]:
    """Make an interpreter that runs this whatever it is asked to run."""

    def make(body: str) -> str:
        path = tmp_path / "python"
        path.write_text(HEAD + textwrap.dedent(body))
        path.chmod(0o755)
        return str(path)

    return make


class Listener:
    def __init__(self, python: str) -> None:
        self.messages: list[tuple[bytes, bytes]] = []
        self.ends = 0
        self.host = HostProcess(python, "", self.heard, self.ended)

    def heard(self, kind: bytes, body: bytes) -> None:
        self.messages.append((kind, body))

    def ended(self) -> None:
        self.ends += 1


async def test_messages_arrive_whole_and_in_order_and_then_the_end(
    script: Callable[[str], str],
) -> None:
    listener = Listener(script("[sock.send(b'M' + b'x' * n) for n in range(300)]"))
    await until(lambda: listener.ends > 0)
    assert [len(body) for _, body in listener.messages] == list(range(300))
    assert not listener.host.is_running
    await listener.host.reap()
    assert not is_alive(listener.host.pid)
    listener.host.kill()
    listener.host.read()
    assert listener.ends == 1
    with pytest.raises(BrokenPipeError):
        listener.host.send(b"x")


async def test_a_child_that_never_stops_talking_does_not_stop_the_loop(
    script: Callable[[str], str],
) -> None:
    listener = Listener(script("while True: sock.send(b'x' * 100)"))
    await until(lambda: len(listener.messages) > 1000)
    begun = time.monotonic()
    await asyncio.sleep(0.01)
    assert time.monotonic() - begun < 5.0
    listener.host.kill()
    await listener.host.reap()
    assert listener.ends == 1


@pytest.mark.parametrize(
    "body",
    [
        "sock.send(b''); time.sleep(60)",  # an empty packet looks like the end, and is taken so
        "sock.close(); time.sleep(60)",
        "os.kill(os.getpid(), signal.SIGKILL)",
        "os.abort()",
        "1 / 0",
    ],
)
async def test_whatever_ends_the_socket_ends_the_child(
    script: Callable[[str], str], body: str
) -> None:
    listener = Listener(script(body))
    await until(lambda: listener.ends > 0)
    async with asyncio.timeout(10):
        await listener.host.reap()
    assert not is_alive(listener.host.pid)


async def test_descriptors_that_a_child_sends_are_not_kept(script: Callable[[str], str]) -> None:
    before = descriptors()
    listener = Listener(
        script("""
            fd = array.array("i", [0] * 200)
            for _ in range(20):
                sock.sendmsg([b"M"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, fd)])
            time.sleep(60)
        """)
    )
    await until(lambda: len(listener.messages) == 20)
    assert descriptors() <= before + 1
    listener.host.kill()
    await listener.host.reap()


async def test_a_child_that_does_not_read_is_an_error_for_who_sends(
    script: Callable[[str], str],
) -> None:
    listener = Listener(script("time.sleep(60)"))

    def send_many() -> None:
        for _ in range(100_000):
            listener.host.send(b"x" * 1000)

    with pytest.raises(BlockingIOError):
        send_many()
    listener.host.kill()
    await listener.host.reap()


async def test_a_child_that_is_stopped_can_be_killed(script: Callable[[str], str]) -> None:
    listener = Listener(script("sock.send(b'M'); time.sleep(60)"))
    await until(lambda: bool(listener.messages))
    os.kill(listener.host.pid, signal.SIGSTOP)
    listener.host.kill()
    async with asyncio.timeout(10):
        await listener.host.reap()


@pytest.mark.parametrize("name", ["gone", "folder", "plain", "text"])
async def test_an_interpreter_that_cannot_be_started_is_an_error_and_keeps_nothing(
    tmp_path: Path, name: str
) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "plain").write_text("not executable")
    (tmp_path / "text").write_text("no program at all")
    (tmp_path / "text").chmod(0o755)
    before = descriptors()
    with pytest.raises(OSError, match=name):
        Listener(str(tmp_path / name))
    assert descriptors() == before


async def test_without_descriptors_nothing_is_started_and_nothing_is_kept(
    script: Callable[[str], str],
) -> None:
    python = script("")
    before = descriptors()
    with no_descriptors_left():
        with pytest.raises(OSError, match="Too many open files"):
            Listener(python)
        with pytest.raises(OSError, match="Too many open files"):
            make_memory(100)
    assert descriptors() == before


async def test_memory_that_cannot_be_had_is_an_error_and_keeps_nothing() -> None:
    before = descriptors()
    for size in (1 << 62, -1):
        with pytest.raises(OSError, match=r"memory|argument|large"):
            make_memory(size)
    assert descriptors() == before


async def test_a_loop_that_watches_nothing_more_keeps_nothing(
    script: Callable[[str], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    python = script("sock.recv(1)")

    def refuse(*_: object) -> None:
        raise OSError(28, "No space left on device")

    before = descriptors()
    monkeypatch.setattr(asyncio.get_running_loop(), "add_reader", refuse)
    with pytest.raises(OSError, match="No space"):
        Listener(python)
    assert descriptors() == before


async def test_two_hundred_children_leave_no_descriptor_no_zombie_and_no_memory(
    script: Callable[[str], str],
) -> None:
    python = script("sock.send(b'M'); sock.recv(1)")

    async def live(_: int) -> int:
        listener = Listener(python)
        descriptor, memory = make_memory(1 << 20)
        memory[::4096] = bytes(len(memory[::4096]))
        os.close(descriptor)
        await until(lambda: bool(listener.messages))
        listener.host.kill()
        await listener.host.reap()
        return listener.host.pid

    async def some(rounds: int) -> list[int]:
        return [pid for _ in range(rounds) for pid in await asyncio.gather(*map(live, range(10)))]

    pids = await some(2)
    gc.collect()
    trim_heap()
    before, resident = descriptors(), data_bytes()
    pids += await some(18)
    gc.collect()
    trim_heap()
    assert descriptors() == before
    assert data_bytes() - resident < 4 << 20
    assert not any(is_known(pid) for pid in pids)
