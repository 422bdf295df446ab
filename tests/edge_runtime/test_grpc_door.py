"""The server behind a door is made by the first who comes, and nobody notices."""

from __future__ import annotations

import asyncio
import os
import socket
import stat
import struct
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager, closing, suppress
from pathlib import Path

import grpc
import grpc.aio
import pytest

from cluster.ports import free_port
from edge_runtime import grpc_door
from edge_runtime.errors import Conflict
from edge_runtime.grpc_door import GOAWAY, Address, GrpcDoor, Make, TcpAddress, UnixAddress, pass_on
from edge_runtime.protocol.grpc_client import OipClient
from edge_runtime.protocol.service import Limits
from tests.edge_runtime.engine.gate import until

METHOD = "/echo/Echo"
STREAM = "/echo/Stream"
# Without a policy for it the library repeats no call that a server has seen.
OPTIONS = (("grpc.use_local_subchannel_pool", 1),)


class Echo(grpc.GenericRpcHandler):  # type: ignore[misc]
    """Says what it is told, when it may."""

    def __init__(self) -> None:
        self.may_answer = asyncio.Event()
        self.may_answer.set()
        self.has_come = asyncio.Event()

    def service(self, details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler:
        if details.method == STREAM:
            return grpc.stream_stream_rpc_method_handler(self.stream)
        return grpc.unary_unary_rpc_method_handler(self.once)

    async def once(self, request: bytes, _: object) -> bytes:
        self.has_come.set()
        await self.may_answer.wait()
        return request

    async def stream(self, requests: AsyncIterator[bytes], _: object) -> AsyncIterator[bytes]:
        async for request in requests:
            yield request


@pytest.fixture
def echo() -> Echo:
    return Echo()


@pytest.fixture(params=["tcp", "unix"])
def address(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Address, str]:
    """An address, and what a client calls it."""
    if request.param == "unix":
        path = tmp_path / "door.sock"
        return UnixAddress(path), f"unix:{path}"
    port = free_port()
    return TcpAddress("127.0.0.1", port, tmp_path / "inner.sock"), f"127.0.0.1:{port}"


def maker(echo: Echo) -> Callable[[], Make]:
    options = (("grpc.so_reuseport", 1),)
    return lambda: lambda: grpc.aio.server(handlers=(echo,), options=options)


@asynccontextmanager
async def opened(address: Address, echo: Echo) -> AsyncIterator[GrpcDoor]:
    door = GrpcDoor(address, maker(echo), 5.0)
    door.start()
    try:
        yield door
    finally:
        await door.stop()


def channel(target: str) -> grpc.aio.Channel:
    return grpc.aio.insecure_channel(target, options=OPTIONS)


async def test_the_server_is_made_when_somebody_comes(
    address: tuple[Address, str], echo: Echo
) -> None:
    async with opened(address[0], echo) as door:
        await asyncio.sleep(0.05)
        assert not door.is_open
        async with channel(address[1]) as client:
            assert await client.unary_unary(METHOD)(b"hello", timeout=10) == b"hello"
        assert door.is_open


async def test_our_own_client_waits_for_a_server_that_takes_long_to_be_made(
    address: tuple[Address, str], echo: Echo
) -> None:
    made = maker(echo)

    def load() -> Make:
        time.sleep(1.0)
        return made()

    door = GrpcDoor(address[0], load, 5.0)
    door.start()
    client = OipClient(address[1], Limits())
    try:
        assert not await client.ready(10.0)  # an empty answer
    finally:
        await client.close()
        await door.stop()


async def test_all_who_come_at_once_are_answered(address: tuple[Address, str], echo: Echo) -> None:
    async with opened(address[0], echo), AsyncExitStack() as clients:
        made = [await clients.enter_async_context(channel(address[1])) for _ in range(30)]
        calls = [c.unary_unary(METHOD)(b"%d" % n, timeout=10) for n, c in enumerate(made)]
        assert await asyncio.gather(*calls) == [b"%d" % n for n in range(30)]


async def test_a_client_leaves_the_way_through_the_door_without_losing_a_call(
    address: tuple[Address, str], echo: Echo, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(grpc_door, "TELL_AFTER_S", 0.3)
    async with opened(address[0], echo) as door, channel(address[1]) as client:

        async def ask() -> int:
            calls = 0
            while was_passed_on == door.passed_on or calls < 50:
                assert await client.unary_unary(METHOD)(b"x" * 70_000, timeout=10) == b"x" * 70_000
                calls += 1
            return calls

        assert await client.unary_unary(METHOD)(b"first", timeout=10) == b"first"
        was_passed_on = door.passed_on
        assert was_passed_on == 1
        async with asyncio.timeout(20):
            counts = await asyncio.gather(*(ask() for _ in range(8)))
        assert min(counts) >= 50
        assert door.passed_on == 0


async def test_a_long_stream_goes_on_through_the_door(
    address: tuple[Address, str], echo: Echo, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(grpc_door, "TELL_AFTER_S", 0.05)
    async with opened(address[0], echo) as door, channel(address[1]) as client:
        stream = client.stream_stream(STREAM)()
        for number in range(30):
            await stream.write(b"%d" % number)
            assert await stream.read() == b"%d" % number
            await asyncio.sleep(0.01)
        assert door.passed_on == 1
        assert await client.unary_unary(METHOD)(b"beside", timeout=10) == b"beside"
        await stream.write(b"last")
        assert await stream.read() == b"last"
        await stream.done_writing()


@pytest.mark.parametrize("where", ["127.0.0.1", "0.0.0.0", "::1", "::"])
async def test_newcomers_are_the_server_s_once_it_has_the_address(
    tmp_path: Path, echo: Echo, where: str
) -> None:
    if ":" in where and not grpc_door._has_ipv6():
        pytest.skip("this machine has no IPv6")
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(where, where)
    port = free_port()
    address = TcpAddress(where, port, tmp_path / "inner.sock")
    address.socket.listen()
    server = maker(echo)()()
    address.bind(server)
    await server.start()
    address.hand_over()
    try:
        with closing(address.socket), ExitStack() as clients:
            for _ in range(50):
                clients.enter_context(socket.create_connection((host, port), timeout=5))
            with pytest.raises(BlockingIOError):
                address.socket.accept()
    finally:
        await server.stop(0)


async def test_no_newcomer_is_turned_away_while_the_server_takes_over(
    tmp_path: Path, echo: Echo
) -> None:
    port = free_port()
    async with opened(TcpAddress("127.0.0.1", port, tmp_path / "inner.sock"), echo) as door:

        async def come_and_go() -> int:
            visits = 0
            ends = loop.time() + 1.0
            while loop.time() < ends:
                reader, writer = await asyncio.open_connection("127.0.0.1", port)
                writer.write(
                    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes((0, 0, 0, 4, 0, 0, 0, 0, 0))
                )
                async with asyncio.timeout(10):
                    assert (await reader.readexactly(9))[3] == 4  # SETTINGS
                writer.close()
                visits += 1
            return visits

        loop = asyncio.get_running_loop()
        visits = await asyncio.gather(*(come_and_go() for _ in range(16)))
        assert door.is_open
        assert min(visits) > 1


async def test_calls_under_way_are_finished_and_newcomers_refused_when_it_stops(
    address: tuple[Address, str], echo: Echo
) -> None:
    echo.may_answer.clear()
    door = GrpcDoor(address[0], maker(echo), 10.0)
    door.start()
    async with channel(address[1]) as client, channel(address[1]) as late:
        asking = asyncio.ensure_future(client.unary_unary(METHOD)(b"x", timeout=20))
        await echo.has_come.wait()
        stopping = asyncio.create_task(door.stop())
        await asyncio.sleep(0.5)
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await late.unary_unary(METHOD)(b"y", timeout=5)
        assert refused.value.code() is grpc.StatusCode.UNAVAILABLE
        assert not stopping.done()
        echo.may_answer.set()
        assert await asking == b"x"
        await stopping
    assert door.passed_on == 0


async def test_it_stops_although_nobody_came_or_somebody_just_does(
    address: tuple[Address, str], echo: Echo
) -> None:
    door = GrpcDoor(address[0], maker(echo), 5.0)
    door.start()
    async with channel(address[1]) as client:
        with suppress(grpc.aio.AioRpcError):
            asking = asyncio.ensure_future(client.unary_unary(METHOD)(b"x", timeout=5))
            await asyncio.sleep(0.005)
            await door.stop()
            await asking
    assert door.passed_on == 0


def test_a_port_that_somebody_has_is_a_conflict_even_if_he_would_share_it(tmp_path: Path) -> None:
    with closing(socket.socket()) as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        other.bind(("127.0.0.1", 0))
        other.listen()
        with pytest.raises(Conflict, match="cannot be listened on"):
            TcpAddress("127.0.0.1", other.getsockname()[1], tmp_path / "inner.sock")


async def test_the_sockets_are_for_this_user_before_and_after(tmp_path: Path, echo: Echo) -> None:
    path = tmp_path / "door.sock"
    async with opened(UnixAddress(path), echo) as door, channel(f"unix:{path}") as client:
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        await client.unary_unary(METHOD)(b"x", timeout=10)
        assert door.is_open
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert os.listdir(tmp_path) == [path.name]  # noqa: PTH208 (a look, as the loop's own)


@pytest.mark.parametrize("error", [Conflict, OSError])
@pytest.mark.parametrize("step", ["load", "bind", "hand_over"])
async def test_a_server_that_cannot_be_made_now_is_made_later(
    tmp_path: Path,
    echo: Echo,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    step: str,
    error: type[Exception],
) -> None:
    monkeypatch.setattr(grpc_door, "AGAIN_S", 0.1)
    address = UnixAddress(tmp_path / "door.sock")
    door = GrpcDoor(address, maker(echo), 5.0)
    tries = fails_once(monkeypatch, door if step == "load" else address, step, error)
    door.start()
    async with channel(f"unix:{tmp_path}/door.sock") as client:
        assert await client.unary_unary(METHOD)(b"x", timeout=10) == b"x"
    await door.stop()
    assert len(tries) == 2
    assert "gRPC cannot be served: not now" in caplog.text
    assert os.listdir(tmp_path) == ["door.sock"]  # noqa: PTH208 (a look, as the loop's own)


async def test_it_stops_although_its_server_cannot_be_made(
    tmp_path: Path, echo: Echo, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(grpc_door, "AGAIN_S", 0.3)
    address = UnixAddress(tmp_path / "door.sock")
    door = GrpcDoor(address, maker(echo), 5.0)
    tries = fails_once(monkeypatch, address, "bind", Conflict)
    door.start()
    async with channel(f"unix:{tmp_path}/door.sock") as client:
        asking = asyncio.ensure_future(client.unary_unary(METHOD)(b"x", timeout=5))
        await until(lambda: bool(tries))
        await door.stop()
        await asyncio.sleep(0.5)
        with pytest.raises(grpc.aio.AioRpcError):
            await asking
    assert (door.is_open, len(tries)) == (False, 1)


async def test_who_waits_is_passed_on_once_there_are_descriptors(
    address: tuple[Address, str], echo: Echo, monkeypatch: pytest.MonkeyPatch
) -> None:
    where = address[0].socket
    refused: list[int] = []

    class Full:
        """The socket, in a process that has no descriptors for a while."""

        def accept(self) -> tuple[socket.socket, object]:
            if len(refused) < 4:
                refused.append(1)
                raise OSError(24, "Too many open files")
            return where.accept()

        def __getattr__(self, name: str) -> object:
            return getattr(where, name)

    monkeypatch.setattr(address[0], "socket", Full())
    async with opened(address[0], echo), channel(address[1]) as client:
        assert await client.unary_unary(METHOD)(b"x", timeout=10) == b"x"
    assert len(refused) == 4


def fails_once(
    monkeypatch: pytest.MonkeyPatch, owner: Address | GrpcDoor, step: str, error: type[Exception]
) -> list[int]:
    """Let a step of opening fail the first time; return a list that grows with every try."""
    name = "_load" if step == "load" else step
    does, tries = getattr(owner, name), []

    def fails(*args: object) -> object:
        tries.append(1)
        if len(tries) == 1:
            raise error("not now")
        return does(*args)

    monkeypatch.setattr(owner, name, fails)
    return tries


def frame(kind: int, flags: int, body: bytes) -> bytes:
    return struct.pack(">I", len(body))[1:] + bytes((kind, flags, 0, 0, 0, 1)) + body


async def test_headers_are_not_interrupted_by_the_advice_to_go(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(grpc_door, "TELL_AFTER_S", 0.0)
    first = frame(0x1, 0, b"half") + frame(0x9, 0, b"more")
    rest = frame(0x9, 0x4, b"end") + frame(0x0, 0, b"data" * 100_000)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(first)
        await asyncio.sleep(0.1)
        writer.write(rest)
        await reader.read()
        writer.close()

    path = tmp_path / "inner.sock"
    server = await asyncio.start_unix_server(serve, path)
    here, there = socket.socketpair()
    there.setblocking(False)
    passing = asyncio.create_task(pass_on(there, path))
    reader, writer = await asyncio.open_connection(sock=here)
    expected = first + frame(0x9, 0x4, b"end")
    assert await reader.readexactly(len(expected)) == expected
    assert await reader.readexactly(len(GOAWAY)) == GOAWAY
    assert await reader.readexactly(len(rest) - 12) == rest[12:]
    writer.close()
    await passing
    server.close()


async def test_who_cannot_be_passed_on_is_told_by_the_end_of_the_connection(tmp_path: Path) -> None:
    here, there = socket.socketpair()
    there.setblocking(False)
    await pass_on(there, tmp_path / "nobody.sock")
    with closing(here):
        assert await asyncio.to_thread(here.recv, 1) == b""
