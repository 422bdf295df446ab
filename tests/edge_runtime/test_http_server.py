"""A server takes everybody in, finishes what it has, and refuses newcomers once it stops."""

from __future__ import annotations

import asyncio
import os
import resource
import socket
import stat
from contextlib import closing
from pathlib import Path

import httpx
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from edge_runtime.errors import Conflict
from edge_runtime.http_server import HttpServer, tcp_listener, unix_listener


async def _slow(request: Request) -> PlainTextResponse:
    request.app.state.arrived.set()
    await request.app.state.gate.wait()
    return PlainTextResponse("done")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "http"


async def test_a_server_answers_on_a_socket_only_its_user_may_open_and_finishes_when_stopped(
    path: Path,
) -> None:
    app = Starlette(routes=[Route("/", _slow)])
    app.state.gate, app.state.arrived = asyncio.Event(), asyncio.Event()
    server = HttpServer(app, unix_listener(path))
    await server.start()
    assert server.is_running
    mode = os.stat(path).st_mode  # noqa: PTH116 (a look, as the loop's own)
    assert stat.S_ISSOCK(mode)
    assert stat.S_IMODE(mode) == 0o600
    transport = httpx.AsyncHTTPTransport(uds=str(path))
    async with httpx.AsyncClient(transport=transport, base_url="http://gateway") as client:
        asking = asyncio.create_task(client.get("/"))
        await app.state.arrived.wait()
        stopping = asyncio.create_task(server.stop())
        await asyncio.sleep(0)
        app.state.gate.set()
        assert (await asking).text == "done"
        await stopping
    assert not server.is_running


async def test_a_server_that_stops_answers_who_waits_and_refuses_newcomers(path: Path) -> None:
    app = Starlette(routes=[Route("/", _slow)])
    app.state.gate, app.state.arrived = asyncio.Event(), asyncio.Event()
    server = HttpServer(app, unix_listener(path))
    await server.start()
    with closing(_connect(path)) as waiting:
        waiting.send(b"GET / HTTP/1.1\r\nhost: gateway\r\n\r\n")
        stopping = asyncio.create_task(server.stop())  # before the loop has seen the connection
        await asyncio.sleep(0)
        with pytest.raises(ConnectionRefusedError):
            _connect(path)
        await app.state.arrived.wait()
        assert not stopping.done()
        app.state.gate.set()
        await stopping
        assert waiting.recv(4096).endswith(b"done")


async def test_a_server_that_was_never_started_can_be_stopped(path: Path) -> None:
    server = HttpServer(Starlette(), unix_listener(path))
    await server.stop()
    assert not server.is_running


def _connect(path: Path) -> socket.socket:
    made = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    made.connect(str(path))
    return made


async def test_all_who_wait_are_taken_in_within_a_turn_of_the_loop(path: Path) -> None:
    server = HttpServer(Starlette(), unix_listener(path))
    await server.start()
    clients = [_connect(path) for _ in range(100)]
    for _ in range(5):  # accept, make a task of each, connect its protocol
        await asyncio.sleep(0)
    assert server.connections == 100
    for client in clients:
        client.close()
    await server.stop()


async def test_accepting_goes_on_after_file_descriptors_ran_out(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edge_runtime.http_server.ACCEPT_AGAIN_S", 0.01)
    server = HttpServer(Starlette(), unix_listener(path))
    await server.start()
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    with closing(_connect(path)):
        lowest = os.open(os.devnull, os.O_RDONLY)
        resource.setrlimit(resource.RLIMIT_NOFILE, (lowest, limits[1]))
        try:
            await asyncio.sleep(0.05)
            assert server.connections == 0
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, limits)
            os.close(lowest)
        while not server.connections:  # noqa: ASYNC110 (only a figure)
            await asyncio.sleep(0.01)
    await server.stop()


def test_a_port_that_is_taken_is_a_conflict_that_names_it() -> None:
    with closing(tcp_listener("127.0.0.1", 0)) as taken:
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(Conflict, match=f"127.0.0.1:{port} cannot be listened on"):
            tcp_listener("127.0.0.1", port)


def test_a_socket_s_mode_is_what_was_asked_for_whatever_the_umask(path: Path) -> None:
    before = os.umask(0o077)
    try:
        unix_listener(path, 0o660).close()
    finally:
        os.umask(before)
    assert stat.S_IMODE(path.stat().st_mode) == 0o660


async def test_small_answers_over_tcp_are_not_held_back() -> None:
    app = Starlette(routes=[Route("/", lambda _: PlainTextResponse("done"))])
    bound = tcp_listener("127.0.0.1", 0)
    port = bound.getsockname()[1]
    server = HttpServer(app, bound)
    await server.start()
    with closing(socket.create_connection(("127.0.0.1", port))):
        while not server.connections:  # noqa: ASYNC110 (only a figure)
            await asyncio.sleep(0.01)
        (protocol,) = server._server.server_state.connections
        accepted = protocol.transport.get_extra_info("socket")
        assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) == 1
    await server.stop()
