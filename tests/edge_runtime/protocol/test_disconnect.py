"""Work ends when its client goes away, and nothing else about it changes."""

from __future__ import annotations

import asyncio
from contextlib import suppress

import pytest
from starlette.types import Message

from edge_runtime.protocol.disconnect import WATCH_AFTER_S, ClientGone, UntilDisconnect


class Client:
    """An ASGI channel whose client leaves when told to."""

    def __init__(self) -> None:
        self.asked = 0
        self._gone = asyncio.Event()

    def leave(self) -> None:
        self._gone.set()

    async def receive(self) -> Message:
        self.asked += 1
        if self.asked == 1:
            return {"type": "http.request", "body": b"", "more_body": False}
        await self._gone.wait()
        return {"type": "http.disconnect"}


@pytest.fixture
async def client() -> Client:
    return Client()


def _cancelling() -> int:
    task = asyncio.current_task()
    assert task is not None
    return task.cancelling()


async def test_work_is_cancelled_when_the_client_leaves(client: Client) -> None:
    ended: list[type[BaseException]] = []

    async def work() -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError as error:
            ended.append(type(error))
            raise

    asyncio.get_running_loop().call_later(2 * WATCH_AFTER_S, client.leave)
    with pytest.raises(ClientGone), UntilDisconnect(client.receive):
        await work()
    assert ended == [asyncio.CancelledError]
    assert _cancelling() == 0


async def test_a_client_that_left_before_the_watch_began_is_noticed(client: Client) -> None:
    client.leave()
    with pytest.raises(ClientGone), UntilDisconnect(client.receive):
        await asyncio.Event().wait()


async def test_quick_work_is_not_watched(client: Client) -> None:
    with UntilDisconnect(client.receive):
        await asyncio.sleep(0)
    await asyncio.sleep(2 * WATCH_AFTER_S)
    assert client.asked == 0


async def test_the_watch_ends_with_the_work(client: Client) -> None:
    with UntilDisconnect(client.receive):
        await asyncio.sleep(2 * WATCH_AFTER_S)
    assert client.asked == 2
    client.leave()
    await asyncio.sleep(0.01)
    assert _cancelling() == 0
    assert asyncio.all_tasks() == {asyncio.current_task()}


async def test_work_that_finishes_all_the_same_is_kept(client: Client) -> None:
    client.leave()
    finished = False
    with UntilDisconnect(client.receive):
        with suppress(asyncio.CancelledError):
            await asyncio.Event().wait()
        finished = True
    assert finished
    assert _cancelling() == 0


async def test_an_error_of_the_work_goes_before_the_client(client: Client) -> None:
    async def work() -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            raise LookupError from None

    client.leave()
    with pytest.raises(LookupError), UntilDisconnect(client.receive):
        await work()
    assert _cancelling() == 0


async def test_who_cancels_from_outside_sees_a_cancellation(client: Client) -> None:
    async def serve() -> None:
        with UntilDisconnect(client.receive):
            await asyncio.Event().wait()

    task = asyncio.create_task(serve())
    await asyncio.sleep(2 * WATCH_AFTER_S)
    client.leave()
    await asyncio.sleep(0)  # both at once: the watcher has yet to run
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_a_deadline_inside_stays_a_deadline(client: Client) -> None:
    with pytest.raises(TimeoutError), UntilDisconnect(client.receive):
        async with asyncio.timeout(2 * WATCH_AFTER_S):
            await asyncio.Event().wait()
