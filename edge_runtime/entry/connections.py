"""HTTP/1.1 exchanges with a gateway: deadlines that hold, connections that are used again.

On `http.client`, so that a client needs nothing but the standard library. Redirects are not
followed and proxies of the environment not asked: a credential goes where it was meant to go.
"""

from __future__ import annotations

import contextlib
import http.client
import socket
import ssl
import time
from collections.abc import Mapping
from typing import Final
from urllib.parse import urlsplit

from edge_runtime.entry.answers import Answer, GatewayGone
from edge_runtime.errors import DeadlineExceeded

IDLE: Final = 8  # connections kept for each gateway
CONNECT_S: Final = 3.0
_PIECE: Final = 1 << 18


class Call:
    """One call of a user, over all its attempts; another thread may end its waiting.

    began_at: of the attempt under way, on the clock of `time.monotonic`.
    """

    def __init__(self) -> None:
        self.url = ""
        self.began_at = 0.0
        self.is_let_go = False
        self.is_abandoned = False
        self._socket: socket.socket | None = None

    def begin(self, url: str) -> None:
        self.url, self.began_at, self.is_let_go = url, time.monotonic(), False

    def hold(self, sock: socket.socket | None) -> None:
        """Note which connection is waited on; None when none is."""
        self._socket = sock
        if self.is_abandoned or self.is_let_go:
            self._cut()

    def let_go(self) -> None:
        """End the waiting of this attempt; the call may go elsewhere."""
        self.is_let_go = True
        self._cut()

    def abandon(self) -> None:
        """End the call: nobody waits for it any more."""
        self.is_abandoned = True
        self._cut()

    def _cut(self) -> None:
        sock = self._socket
        if sock is not None:
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)


class Connections:
    """The connections to one gateway. Threads may share it; each exchange has one of its own."""

    def __init__(self, url: str, context: ssl.SSLContext | None) -> None:
        self.url = url
        self._parts = urlsplit(url)
        self._context = context
        self._idle: list[http.client.HTTPConnection] = []

    def exchange(
        self,
        call: Call,
        method: str,
        path: str,
        body: bytes | None,
        headers: Mapping[str, str],
        deadline: float,
    ) -> Answer:
        """Send a request that may be repeated, and read the whole answer.

        deadline: on the clock of `time.monotonic`. Raises GatewayGone, DeadlineExceeded.
        """
        warm = self._rested()
        if warm is not None:
            try:
                return self._over(warm, call, method, path, body, headers, deadline)
            except (http.client.RemoteDisconnected, ConnectionError) as error:
                # One that rested may have been closed meanwhile: once more, on a new one.
                if call.is_let_go or call.is_abandoned:
                    raise self._gone(error, deadline) from None
            except (OSError, http.client.HTTPException) as error:
                raise self._gone(error, deadline) from None
        try:
            fresh = self.connect(min(deadline, time.monotonic() + CONNECT_S), call)
        except OSError as error:
            raise self._gone(error, deadline) from None
        try:
            return self._over(fresh, call, method, path, body, headers, deadline)
        except (OSError, http.client.HTTPException) as error:
            raise self._gone(error, deadline) from None

    def connect(self, until: float, call: Call | None = None) -> http.client.HTTPConnection:
        """Open a connection. Raises OSError."""
        host, port = self._parts.hostname or "", self._parts.port
        timeout_s = max(0.001, until - time.monotonic())
        made = (
            http.client.HTTPConnection(host, port, timeout=timeout_s)
            if self._parts.scheme == "http"
            else http.client.HTTPSConnection(host, port, timeout=timeout_s, context=self._context)
        )
        try:
            made.connect()
            if call is not None:
                call.hold(made.sock)
        except BaseException:
            made.close()
            raise
        return made

    def close(self) -> None:
        """Close what rests."""
        while self._idle:
            self._idle.pop().close()

    def _rested(self) -> http.client.HTTPConnection | None:
        try:
            return self._idle.pop()  # the latest: the others may be given up by the other side
        except IndexError:
            return None

    def _over(
        self,
        connection: http.client.HTTPConnection,
        call: Call,
        method: str,
        path: str,
        body: bytes | None,
        headers: Mapping[str, str],
        deadline: float,
    ) -> Answer:
        is_whole = False
        try:
            call.hold(connection.sock)
            answer = ask(connection, method, path, body, headers, deadline)
            is_whole = connection.sock is not None
            return answer._replace(gateway=self.url)
        finally:
            call.hold(None)
            is_cut = call.is_let_go or call.is_abandoned
            if is_whole and not is_cut and len(self._idle) < IDLE:
                self._idle.append(connection)
            else:
                connection.close()

    def _gone(self, error: Exception, deadline: float) -> GatewayGone | DeadlineExceeded:
        if isinstance(error, TimeoutError) and time.monotonic() >= deadline:
            return DeadlineExceeded(f"the deadline passed before {self.url} answered")
        return GatewayGone(f"{self.url} does not answer: {error or type(error).__name__}")


def ask(
    connection: http.client.HTTPConnection,
    method: str,
    path: str,
    body: bytes | None = None,
    headers: Mapping[str, str] | None = None,
    deadline: float = float("inf"),
    most_bytes: float = float("inf"),
) -> Answer:
    """Send a request over an open connection and read the answer, at most so many bytes of it.

    Raises OSError (TimeoutError at the deadline) and what `http.client` raises.
    """
    _bound(connection, deadline)
    connection.request(method, path, body, dict(headers or {}))
    _bound(connection, deadline)
    response = connection.getresponse()
    pieces: list[bytes] = []
    size = 0
    while True:
        _bound(connection, deadline)
        piece = response.read1(_PIECE)
        if not piece:
            break
        pieces.append(piece)
        size += len(piece)
        if size > most_bytes:
            raise http.client.HTTPException(f"an answer of more than {most_bytes} bytes")
    if response.length:
        raise http.client.IncompleteRead(b"", response.length)
    response.close()  # `read1` leaves it open at the end, and the connection could not be used
    found = {name.lower(): value for name, value in response.getheaders()}
    return Answer(response.status, found, b"".join(pieces), "")


def _bound(connection: http.client.HTTPConnection, deadline: float) -> None:
    """Let no read or write of a connection last beyond the deadline."""
    if connection.sock is None:
        return  # the answer said that it is the last one, and is read from its own file
    left_s = deadline - time.monotonic()
    if left_s <= 0.0:
        raise TimeoutError("the deadline passed")
    connection.sock.settimeout(None if left_s == float("inf") else left_s)
