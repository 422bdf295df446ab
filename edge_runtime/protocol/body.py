"""Reading request bodies within bounds, and HTTP content codings.

A body is refused by its stated length before a byte of it is kept, by its real length while
it arrives, and by its unpacked length while it is unpacked, so that neither a 2 GB claim, a
lying length nor a zip bomb can take memory. `ByteBudget` bounds all bodies of the process
together. Codings: gzip and deflate (RFC 9110, section 8.4.1; deflate also in its raw form,
which some clients send).
"""

from __future__ import annotations

import asyncio
import gzip
import threading
import zlib
from collections.abc import Callable, Mapping

from starlette.types import Receive

from edge_runtime.errors import InvalidInput, Overloaded, TooLarge, Unsupported
from edge_runtime.protocol.service import Limits

_CHUNK = 64 * 1024
_OFFLOAD_BYTES = 256 * 1024
_GZIP_WBITS = 16 + zlib.MAX_WBITS


class ByteBudget:
    """Bytes of request bodies that one process may hold at once."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._lock = threading.Lock()  # large bodies are unpacked on a thread
        self.used = 0

    def take(self, size: int) -> None:
        """Reserve size bytes. Raises Overloaded when they are not there."""
        with self._lock:
            if self.used + size > self._limit:
                raise Overloaded(
                    "the requests being served take all the memory set aside for them",
                    retry_after_s=1.0,
                )
            self.used += size

    def give_back(self, size: int) -> None:
        with self._lock:
            self.used -= size

    def lease(self) -> Lease:
        """Hold bytes for the length of a request, in a `with`."""
        return Lease(self)


class Lease:
    """The share of a `ByteBudget` that one request holds; all goes back at the `with`'s end."""

    __slots__ = ("_budget", "held")

    def __init__(self, budget: ByteBudget) -> None:
        self._budget = budget
        self.held = 0

    def __enter__(self) -> Lease:
        return self

    def __exit__(self, *_: object) -> None:
        self._budget.give_back(self.held)

    def grow_to(self, size: int) -> None:
        if size > self.held:
            self._budget.take(size - self.held)
            self.held = size


async def read_body(
    receive: Receive, headers: Mapping[str, str], limits: Limits, lease: Lease
) -> bytes:
    """Return the unpacked body that comes over a request's ASGI channel.

    Raises TooLarge, Overloaded, InvalidInput (bad length or coding, body too slow),
    Unsupported (coding not offered).
    """
    stated = _stated_length(headers.get("content-length"), limits)
    lease.grow_to(stated)
    try:
        async with asyncio.timeout(limits.body_timeout_s):
            body = await _collect(receive, limits, lease)
    except TimeoutError:
        raise InvalidInput(
            f"the body did not arrive within {limits.body_timeout_s:g} s", field="body"
        ) from None
    coding = headers.get("content-encoding", "identity").strip().lower()
    coding = "gzip" if coding == "x-gzip" else coding  # RFC 9110, section 8.4.1.3
    if coding in ("", "identity"):
        return body
    if coding not in ("gzip", "deflate"):
        raise Unsupported(
            f"content-encoding '{coding[:32]}' is not offered; use gzip or deflate",
            field="content-encoding",
        )
    if len(body) > _CHUNK:
        return await asyncio.to_thread(_unpack, body, coding, limits, lease)
    return _unpack(body, coding, limits, lease)


async def pack(body: bytes, accept: str | None) -> tuple[bytes, str | None]:
    """Compress a response body as the client asked; returns (body, content coding or None)."""
    coding = _chosen_coding(accept)
    if coding is None:
        return body, None
    shrink: Callable[[bytes], bytes] = _gzip if coding == "gzip" else _deflate
    if len(body) > _OFFLOAD_BYTES:
        return await asyncio.to_thread(shrink, body), coding
    return shrink(body), coding


async def _collect(receive: Receive, limits: Limits, lease: Lease) -> bytes:
    parts: list[bytes] = []
    size = 0
    is_complete = False
    while not is_complete:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise InvalidInput("the body is shorter than it claims", field="content-length")
        is_complete = not message.get("more_body", False)
        chunk: bytes = message.get("body", b"")
        size += len(chunk)
        if size > limits.max_body_bytes:
            raise _too_large(size, limits)
        lease.grow_to(size)
        parts.append(chunk)
    return parts[0] if len(parts) == 1 else b"".join(parts)


def _stated_length(value: str | None, limits: Limits) -> int:
    if value is None:
        return 0
    if not (value.isascii() and value.isdigit()):
        raise InvalidInput("Content-Length must be a non-negative integer", field="content-length")
    stated = int(value) if len(value) < 20 else limits.max_body_bytes + 1
    if stated > limits.max_body_bytes:
        raise _too_large(stated, limits)
    return stated


def _unpack(body: bytes, coding: str, limits: Limits, lease: Lease) -> bytes:
    """Inflate one stream, once to learn its size and once to keep it.

    Inflating twice is cheaper than what a bomb costs otherwise: thousands of pieces that the
    allocator does not give back after the refusal.
    """
    is_zlib = len(body) >= 2 and body[0] & 0x0F == 8 and (body[0] << 8 | body[1]) % 31 == 0
    wbits = _GZIP_WBITS if coding == "gzip" else zlib.MAX_WBITS if is_zlib else -zlib.MAX_WBITS
    try:
        size = _unpacked_size(body, coding, wbits, limits)
        lease.grow_to(len(body) + size)
        return zlib.decompress(body, wbits, bufsize=max(1, size))
    except zlib.error as error:
        raise InvalidInput(f"the body is not {coding}: {error}", field="content-encoding") from None


def _unpacked_size(body: bytes, coding: str, wbits: int, limits: Limits) -> int:
    """Count what a stream inflates to. Raises TooLarge, InvalidInput or zlib.error."""
    inflater = zlib.decompressobj(wbits)
    size = 0
    pending = body
    while pending and not inflater.eof:
        size += len(inflater.decompress(pending, _CHUNK))
        pending = inflater.unconsumed_tail
        if size > limits.max_body_bytes:
            raise _too_large(size, limits)
    size += len(inflater.flush(_CHUNK))
    if size > limits.max_body_bytes:
        raise _too_large(size, limits)
    if not inflater.eof:
        raise InvalidInput(f"the {coding} body is cut off", field="content-encoding")
    if inflater.unused_data:
        raise InvalidInput(f"bytes follow the {coding} body", field="content-encoding")
    return size


def _chosen_coding(accept: str | None) -> str | None:
    """Pick gzip or deflate when the client lists it with a weight above zero (RFC 9110, 12.5.3)."""
    if not accept:
        return None
    weights: dict[str, float] = {}
    for item in accept.split(","):
        name, _, parameter = item.strip().partition(";")
        weight = parameter.strip().removeprefix("q=")
        try:
            weights[name.strip().lower()] = float(weight) if weight else 1.0
        except ValueError:
            continue
    offered = [name for name in ("gzip", "deflate") if weights.get(name, 0.0) > 0.0]
    if not offered or weights.get("identity", 0.0) > max(weights[name] for name in offered):
        return None
    return max(offered, key=lambda name: weights[name])


def _gzip(body: bytes) -> bytes:
    return gzip.compress(body, compresslevel=1, mtime=0)


def _deflate(body: bytes) -> bytes:
    return zlib.compress(body, level=1)


def _too_large(size: int, limits: Limits) -> TooLarge:
    return TooLarge(
        f"the body has {size} bytes or more, the limit is {limits.max_body_bytes}",
        field="body",
        hint="split the batch, or raise the setting limits.max_body_bytes",
    )
