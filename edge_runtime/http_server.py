"""An HTTP server inside somebody else's event loop: uvicorn on one socket that we made.

The gateway replica has one on a Unix socket behind the front door; the edge runtime has one on
its network address and one on a Unix socket for callers on the same box.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import os
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from edge_runtime.errors import Conflict

logger = logging.getLogger(__name__)

BACKLOG: Final = 1024
KEEP_ALIVE_S: Final = 75
STOP_S: Final = 10.0
ACCEPT_AGAIN_S: Final = 0.5  # after accepting failed, for want of file descriptors


def unix_listener(path: Path, mode: int = 0o600) -> socket.socket:
    """Bind a Unix socket; who may connect is what its mode says. It does not listen yet.

    Raises OSError.
    """
    made = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    made.setblocking(False)
    before = os.umask(0o777 & ~mode)
    try:
        made.bind(str(path))
    except OSError:
        made.close()
        raise
    finally:
        os.umask(before)
    return made


def tcp_listener(address: str, port: int, *, may_share: bool = False) -> socket.socket:
    """Bind a TCP socket (port 0: any free one). It does not listen yet.

    may_share: with other sockets of this user that say so, too. Raises Conflict when the address
    cannot be had.
    """
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    # With its protocol named: asyncio turns Nagle off only for sockets that say they are TCP.
    made = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    made.setblocking(False)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if family == socket.AF_INET6:
        made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
    if may_share:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    try:
        made.bind((address, port))
    except OSError as error:
        made.close()
        raise Conflict(
            f"{address}:{port} cannot be listened on: {error.strerror}",
            hint="another process has it, or it is no address of this machine",
        ) from None
    return made


class HttpServer:
    """uvicorn on a bound socket, which it owns from then on.

    stop_s: that `stop` gives requests to finish.
    """

    def __init__(self, app: ASGIApp, bound: socket.socket, stop_s: float = STOP_S) -> None:
        self._socket = bound
        self._stop_s = stop_s
        config = uvicorn.Config(
            app,
            http=HttpToolsProtocol,
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            date_header=False,
            proxy_headers=False,
            timeout_keep_alive=KEEP_ALIVE_S,
            timeout_graceful_shutdown=math.ceil(stop_s),
        )
        self._server = _Server(config)
        self._task: asyncio.Task[None] | None = None
        self._is_listening = False
        self._accepting: set[asyncio.Task[object]] = set()
        self._again: asyncio.TimerHandle | None = None

    async def start(self) -> None:
        """Accept connections; returns when the socket listens."""
        self._task = asyncio.get_running_loop().create_task(self._server.serve(sockets=[]))
        while not self._server.started and not self._task.done():  # noqa: ASYNC110 (only a flag)
            await asyncio.sleep(0.01)
        if self._task.done():
            self._task.result()
        self._socket.listen(BACKLOG)
        self._is_listening = True
        self._listen()

    async def stop(self) -> None:
        """Stop accepting, finish what was accepted.

        From the first turn on newcomers are refused, so that the front door sends them on.
        """
        if self._is_listening:
            self._accept()  # who waits already has been told that somebody is here
        if self._again is not None:
            self._again.cancel()
        asyncio.get_running_loop().remove_reader(self._socket)
        self._socket.close()
        if self._accepting:
            await asyncio.wait(self._accepting)  # uvicorn ends the connections it knows
        self._server.should_exit = True
        if self._task is not None:
            await asyncio.wait((self._task,), timeout=math.ceil(self._stop_s) + 1.0)

    @property
    def is_running(self) -> bool:
        return self._task is not None and not self._task.done()

    @property
    def connections(self) -> int:
        return len(self._server.server_state.connections)

    def _listen(self) -> None:
        asyncio.get_running_loop().add_reader(self._socket, self._accept)

    def _accept(self) -> None:
        """Take in everybody who waits.

        The loop's own servers take one connection in a turn (libuv since 1.45). Turns are long
        under load, and newcomers would wait for seconds, the front door's checks among them.
        """
        loop = asyncio.get_running_loop()
        for _ in range(BACKLOG):
            try:
                connection, _ = self._socket.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as error:
                logger.error("no connection can be accepted: %s", error)
                loop.remove_reader(self._socket)
                self._again = loop.call_later(ACCEPT_AGAIN_S, self._listen)
                return
            connection.setblocking(False)
            task = loop.create_task(loop.connect_accepted_socket(self._server.talk, connection))
            self._accepting.add(task)
            task.add_done_callback(self._accepting.discard)


class _Server(uvicorn.Server):
    """A server that leaves signals to the process it lives in, and accepting to `HttpServer`."""

    def talk(self) -> asyncio.Protocol:
        """Make what talks to a new client."""
        protocol: asyncio.Protocol = HttpToolsProtocol(
            config=self.config, server_state=self.server_state, app_state={}
        )
        return protocol

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield
