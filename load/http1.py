"""A lean HTTP/1.1 client, so that what is measured is the server.

One request at a time on a keep-alive connection, told of its answer by a callback: no task, no
future and no header object on the way. The request is bytes that were made once. Everything in
`load` that measures goes through here, so every server is measured by the same client.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final, cast

import httptools


@dataclass(frozen=True, slots=True)
class Response:
    """An answer; header names are lower case."""

    status: int
    headers: Mapping[bytes, bytes]
    body: bytes


Answered = Callable[[Response | None], None]
"""Told the answer, or None when the connection was lost before it was complete."""

_NO_HEADERS: Final[Mapping[str, str]] = {}


def request_bytes(
    method: str,
    path: str,
    host: str,
    headers: Mapping[str, str] = _NO_HEADERS,
    body: bytes = b"",
) -> bytes:
    """Return a whole request; `host` and `content-length` are added."""
    lines = [f"{method} {path} HTTP/1.1", f"host: {host}"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    if body or method != "GET":
        lines.append(f"content-length: {len(body)}")
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + body


class Connection(asyncio.Protocol):
    """One keep-alive connection; made by `connect`."""

    def __init__(self) -> None:
        self._transport: asyncio.Transport | None = None
        self._answered: Answered | None = None
        self._response: Response | None = None
        self._is_open = False
        self._begin()

    @property
    def is_open(self) -> bool:
        return self._is_open

    @property
    def is_busy(self) -> bool:
        return self._answered is not None

    def exchange(self, request: bytes, answered: Answered) -> None:
        """Send a request; `answered` is called once. Raises RuntimeError when one is under way."""
        if self._answered is not None:
            raise RuntimeError("a request is under way on this connection")
        if self._transport is None or not self._is_open:
            answered(None)
            return
        self._answered = answered
        self._transport.write(request)

    async def ask(self, request: bytes) -> Response:
        """Send a request and wait. Raises ConnectionError when the connection is lost."""
        future: asyncio.Future[Response | None] = asyncio.get_running_loop().create_future()

        def settle(response: Response | None) -> None:
            if not future.done():
                future.set_result(response)

        self.exchange(request, settle)
        response = await future
        if response is None:
            raise ConnectionError("the server closed the connection before it answered")
        return response

    def close(self) -> None:
        """Close the connection; a request under way is lost."""
        if self._transport is not None:
            self._transport.abort()

    # What asyncio calls:

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._is_open = True

    def connection_lost(self, exc: Exception | None) -> None:
        self._is_open = False
        self._settle(None)

    def data_received(self, data: bytes) -> None:
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError:
            self._response = None
            self.close()
            return
        # Settled after the parser has returned: the callback may send the next request.
        response, self._response = self._response, None
        if response is not None:
            self._settle(response)

    # What the parser calls:

    def on_header(self, name: bytes, value: bytes) -> None:
        self._headers[name.lower()] = value

    def on_body(self, body: bytes) -> None:
        self._body.append(body)

    def on_message_complete(self) -> None:
        parser = self._parser
        status = parser.get_status_code()
        if not parser.should_keep_alive():
            self._is_open = False
        body = self._body[0] if len(self._body) == 1 else b"".join(self._body)
        self._response = Response(status, self._headers, body)
        self._begin()

    def _begin(self) -> None:
        self._headers: dict[bytes, bytes] = {}
        self._body: list[bytes] = []
        self._parser = httptools.HttpResponseParser(self)

    def _settle(self, response: Response | None) -> None:
        answered, self._answered = self._answered, None
        if answered is not None:
            answered(response)


async def connect(host: str, port: int) -> Connection:
    """Open a connection. Raises OSError."""
    loop = asyncio.get_running_loop()
    _, connection = await loop.create_connection(Connection, host, port)
    return connection
