"""What tells a head that is gone, or another, from one that cannot be heard."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, closing

import pytest

from cluster import head_watch
from cluster.ports import free_port

HOST = "127.0.0.1"
GONE_S = 0.3
RESETS = struct.pack("ii", 1, 0)  # SO_LINGER: closing sends a reset


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(head_watch, "GONE_S", GONE_S)
    monkeypatch.setattr(head_watch, "AGAIN_S", 0.02)
    monkeypatch.setattr(head_watch, "CONNECT_S", 0.1)


@pytest.fixture
def port() -> int:
    return free_port()


@pytest.fixture
def queue(port: int) -> Iterator[socket.socket]:
    """A port that takes connections, as long as they fit into its queue."""
    with closing(socket.create_server((HOST, port), backlog=1024)) as listener:
        yield listener


class Head:
    """Takes connections, greets, and says nothing more. hangs_up_after_s: on who is silent."""

    def __init__(self, hangs_up_after_s: float = 60.0) -> None:
        self.hangs_up_after_s = hangs_up_after_s
        self.callers: list[asyncio.StreamWriter] = []

    async def greet(self, _: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.callers.append(writer)
        writer.write(b"settings")
        await asyncio.sleep(self.hangs_up_after_s)
        writer.close()


@asynccontextmanager
async def running(head: Head, port: int) -> AsyncIterator[asyncio.Server]:
    server = await asyncio.start_server(head.greet, HOST, port)
    try:
        yield server
    finally:
        server.close()
        for caller in head.callers:
            caller.close()


async def gone_after(port: int, within_s: float, host: str = HOST) -> float | None:
    """Return when the head was said to be gone; None when it was not."""
    loop = asyncio.get_running_loop()
    began = loop.time()
    try:
        async with asyncio.timeout(within_s):
            await head_watch.until_gone(host, port)
    except TimeoutError:
        return None
    return loop.time() - began


async def watching(port: int, head: Head, within_s: float) -> asyncio.Task[float | None]:
    """Watch a head, and return once it has been called."""
    asking = asyncio.create_task(gone_after(port, within_s))
    while not head.callers:  # noqa: ASYNC110 (who calls tells nobody)
        await asyncio.sleep(0.01)
    return asking


async def test_a_port_that_refuses_connections_for_a_while_is_of_a_head_that_is_gone(
    port: int,
) -> None:
    found = await gone_after(port, 10.0)
    assert found is not None
    assert found >= GONE_S


async def test_a_name_with_several_addresses_is_gone_when_all_refuse(port: int) -> None:
    assert await gone_after(port, 10.0, "localhost") is not None


async def test_a_head_is_there_until_it_ends(port: int) -> None:
    head = Head()
    async with running(head, port):
        assert await gone_after(port, 3 * GONE_S) is None
        head.callers.clear()
        asking = await watching(port, head, 10.0)
    assert await asking is not None


async def test_a_head_that_hangs_up_on_who_says_nothing_is_there(port: int) -> None:
    head = Head(hangs_up_after_s=0.05)
    async with running(head, port):
        assert await gone_after(port, 3 * GONE_S) is None
        assert len(head.callers) > 3


async def test_one_that_has_never_heard_of_the_connection_is_another(port: int) -> None:
    head = Head()
    async with running(head, port):
        asking = await watching(port, head, 10.0)
        connection = head.callers[0].get_extra_info("socket")
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESETS)
        head.callers[0].close()
        assert await asking is not None
        await head_watch.call(HOST, port)  # which is there


async def test_a_head_that_cannot_be_heard_is_not_gone(port: int, queue: socket.socket) -> None:
    queue.listen(0)  # further connections are dropped, as on a cut link
    taken = [socket.socket() for _ in range(3)]
    try:
        for each in taken:
            each.setblocking(False)
            each.connect_ex((HOST, port))
        with pytest.raises(TimeoutError):
            await head_watch.call(HOST, port)
        assert await gone_after(port, 3 * GONE_S) is None
    finally:
        for each in taken:
            each.close()


async def test_a_head_that_refuses_for_a_moment_is_not_gone(port: int) -> None:
    asking = asyncio.create_task(gone_after(port, 4 * GONE_S))
    await asyncio.sleep(GONE_S / 2)
    async with running(Head(), port):
        assert await asking is None
