"""Giving up work for a client that has gone away."""

from __future__ import annotations

import asyncio
from typing import Final, cast

from starlette.types import Receive

WATCH_AFTER_S: Final = 0.05  # most answers are ready before watching would pay


class ClientGone(Exception):
    """Nobody is left to answer."""


class UntilDisconnect:
    """Cancels the work inside the `with` when the client goes away, and then raises ClientGone.

    receive: the request's ASGI channel, its body already read. The work stays in the task that
    it is in, as with `asyncio.timeout`: a task of its own for each request would be a good part
    of a small one's time.
    """

    __slots__ = ("_cancelling", "_is_gone", "_receive", "_task", "_timer", "_watcher")

    def __init__(self, receive: Receive) -> None:
        self._receive = receive
        self._is_gone = False
        self._watcher: asyncio.Task[None] | None = None

    def __enter__(self) -> None:
        loop = asyncio.get_running_loop()
        self._task = cast("asyncio.Task[object]", asyncio.current_task())
        self._cancelling = self._task.cancelling()
        self._timer = loop.call_later(WATCH_AFTER_S, self._start)

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._timer.cancel()
        if self._watcher is None:
            return
        self._watcher.cancel()
        was_cancelled = kind is not None and issubclass(kind, asyncio.CancelledError)
        if self._is_gone and self._task.uncancel() <= self._cancelling and was_cancelled:
            raise ClientGone

    def _start(self) -> None:
        self._watcher = self._task.get_loop().create_task(self._watch())

    async def _watch(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass
        self._is_gone = True
        self._task.cancel()
