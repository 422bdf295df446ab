"""Slots are owned by one process each, and a slot whose owner was killed is free again."""

from __future__ import annotations

import asyncio
import os
import resource
import shutil
import signal
import socket
import stat
from collections.abc import Iterator
from contextlib import closing
from functools import partial
from pathlib import Path

import httpx
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from cluster.home import Home
from edge_runtime.errors import Conflict
from serve_apps.gateway.sockets import HttpServer, Slot, claim_slot
from tests.children import exit_status, fork, race


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Home]:
    made = Home(tmp_path)
    made.make_run()
    yield made
    shutil.rmtree(made.run)


def test_processes_that_claim_at_the_same_time_get_slots_of_their_own(home: Home) -> None:
    numbers = race(4, lambda _: claim_slot(home, 8).number)
    # A child ends as soon as it has said its number, and its slot may be claimed again.
    assert set(numbers) <= set(range(4))
    with closing(_Held(home, 4)) as held:
        assert held.numbers == [0, 1, 2, 3]
        with pytest.raises(Conflict, match="all 4 gateway slots"):
            claim_slot(home, 4)


class _Held:
    """Children that each hold a slot until they are killed."""

    def __init__(self, home: Home, count: int) -> None:
        self.pids: list[int] = []
        self.numbers: list[int] = []
        for _ in range(count):
            readable, writable = os.pipe()
            self.pids.append(fork(partial(_hold, home, writable)))
            os.close(writable)
            self.numbers.append(int(os.read(readable, 8)))
            os.close(readable)

    def kill(self, number: int) -> None:
        pid = self.pids.pop(self.numbers.index(number))
        self.numbers.remove(number)
        os.kill(pid, signal.SIGKILL)
        assert exit_status(pid) == -signal.SIGKILL

    def close(self) -> None:
        for number in list(self.numbers):
            self.kill(number)


def _hold(home: Home, end: int) -> None:
    slot = claim_slot(home, 8)
    Path(slot.http_path).touch()
    os.write(end, str(slot.number).encode())
    signal.pause()


def test_the_slot_of_a_killed_process_is_free_and_its_sockets_are_removed(home: Home) -> None:
    with closing(_Held(home, 3)) as held:
        held.kill(1)
        assert home.gateway_http_socket(1).exists()
        slot = claim_slot(home, 8)
        assert slot.number == 1
        assert not home.gateway_http_socket(1).exists()
        assert home.gateway_http_socket(2).exists()
        slot.release()


def test_a_released_slot_leaves_no_sockets_and_can_be_claimed_again(home: Home) -> None:
    slot = claim_slot(home, 1)
    Path(slot.http_path).touch()
    slot.release()
    assert not Path(slot.http_path).exists()
    again = claim_slot(home, 1)
    assert again.number == slot.number
    again.release()


async def _slow(request: Request) -> PlainTextResponse:
    request.app.state.arrived.set()
    await request.app.state.gate.wait()
    return PlainTextResponse("done")


@pytest.fixture
def slot(home: Home) -> Slot:
    return claim_slot(home, 1)


async def test_a_server_answers_on_a_socket_only_its_user_may_open_and_finishes_when_stopped(
    slot: Slot,
) -> None:
    app = Starlette(routes=[Route("/", _slow)])
    app.state.gate, app.state.arrived = asyncio.Event(), asyncio.Event()
    server = HttpServer(app, slot.http_path)
    await server.start()
    assert server.is_running
    mode = os.stat(slot.http_path).st_mode  # noqa: PTH116 (a look, as the loop's own)
    assert stat.S_ISSOCK(mode)
    assert stat.S_IMODE(mode) == 0o600
    transport = httpx.AsyncHTTPTransport(uds=slot.http_path)
    async with httpx.AsyncClient(transport=transport, base_url="http://gateway") as client:
        asking = asyncio.create_task(client.get("/"))
        await app.state.arrived.wait()
        stopping = asyncio.create_task(server.stop())
        await asyncio.sleep(0)
        app.state.gate.set()
        assert (await asking).text == "done"
        await stopping
    assert not server.is_running
    slot.release()


async def test_a_server_that_stops_answers_who_waits_and_refuses_newcomers(slot: Slot) -> None:
    app = Starlette(routes=[Route("/", _slow)])
    app.state.gate, app.state.arrived = asyncio.Event(), asyncio.Event()
    server = HttpServer(app, slot.http_path)
    await server.start()
    with closing(_connect(slot.http_path)) as waiting:
        waiting.send(b"GET / HTTP/1.1\r\nhost: gateway\r\n\r\n")
        stopping = asyncio.create_task(server.stop())  # before the loop has seen the connection
        await asyncio.sleep(0)
        with pytest.raises(ConnectionRefusedError):
            _connect(slot.http_path)
        await app.state.arrived.wait()
        assert not stopping.done()
        app.state.gate.set()
        await stopping
        assert waiting.recv(4096).endswith(b"done")
    slot.release()


async def test_a_server_that_was_never_started_can_be_stopped(slot: Slot) -> None:
    server = HttpServer(Starlette(), slot.http_path)
    await server.stop()
    assert not server.is_running
    slot.release()


def _connect(path: str) -> socket.socket:
    made = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    made.connect(path)
    return made


async def test_all_who_wait_are_taken_in_within_a_turn_of_the_loop(slot: Slot) -> None:
    server = HttpServer(Starlette(), slot.http_path)
    await server.start()
    clients = [_connect(slot.http_path) for _ in range(100)]
    for _ in range(5):  # accept, make a task of each, connect its protocol
        await asyncio.sleep(0)
    assert server.connections == 100
    for client in clients:
        client.close()
    await server.stop()
    slot.release()


async def test_accepting_goes_on_after_file_descriptors_ran_out(
    slot: Slot, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("serve_apps.gateway.sockets.ACCEPT_AGAIN_S", 0.01)
    server = HttpServer(Starlette(), slot.http_path)
    await server.start()
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    with closing(_connect(slot.http_path)):
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
    slot.release()
