"""What tells a head that is gone from one that cannot be heard. The rest is in tests/e2e."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from cluster import supervisor
from cluster.config import Settings
from cluster.home import Home
from cluster.ports import free_port
from cluster.supervisor import NodeSupervisor

GONE_S = 0.3


@pytest.fixture
def port() -> int:
    return free_port()


@pytest.fixture
def keeper(tmp_path: Path, port: int, monkeypatch: pytest.MonkeyPatch) -> NodeSupervisor:
    monkeypatch.setattr(supervisor, "GONE_S", GONE_S)
    monkeypatch.setattr(supervisor, "ASK_HEAD_EVERY_S", 0.02)
    monkeypatch.setattr(supervisor, "CONNECT_S", 0.1)
    settings = Settings()
    edge = settings.edge.model_copy(update={"head": f"127.0.0.1:{port}"})
    return NodeSupervisor(Home(tmp_path), settings.model_copy(update={"edge": edge}))


@pytest.fixture
def head(port: int) -> Iterator[socket.socket]:
    """A port that takes connections, as long as they fit into its queue."""
    with closing(socket.create_server(("127.0.0.1", port), backlog=1024)) as listener:
        yield listener


async def gone_after(keeper: NodeSupervisor, within_s: float) -> float | None:
    """Return when the head was said to be gone; None when it was not."""
    loop = asyncio.get_running_loop()
    began = loop.time()
    try:
        async with asyncio.timeout(within_s):
            await keeper._await_no_head()
    except TimeoutError:
        return None
    return loop.time() - began


async def test_a_head_whose_machine_refuses_connections_for_a_while_is_gone(
    keeper: NodeSupervisor,
) -> None:
    found = await gone_after(keeper, 10.0)
    assert found is not None
    assert found >= GONE_S


async def test_a_head_that_answers_is_there_until_it_ends(
    keeper: NodeSupervisor, head: socket.socket
) -> None:
    assert await gone_after(keeper, 3 * GONE_S) is None
    head.close()
    assert await gone_after(keeper, 10.0) is not None


async def test_a_head_that_cannot_be_heard_is_not_gone(
    keeper: NodeSupervisor, head: socket.socket, port: int
) -> None:
    head.listen(0)  # further connections are dropped, as on a cut link
    taken = [socket.socket() for _ in range(3)]
    try:
        for each in taken:
            each.setblocking(False)
            each.connect_ex(("127.0.0.1", port))
        with pytest.raises(TimeoutError):
            await keeper._call_head()
        assert await gone_after(keeper, 3 * GONE_S) is None
    finally:
        for each in taken:
            each.close()


async def test_a_head_that_refuses_for_a_moment_is_not_gone(
    keeper: NodeSupervisor, port: int
) -> None:
    asking = asyncio.create_task(gone_after(keeper, 4 * GONE_S))
    await asyncio.sleep(GONE_S / 2)
    with closing(socket.create_server(("127.0.0.1", port), backlog=1024)):
        assert await asking is None
