"""A gRPC server that is made when somebody first connects to it.

gRPC's library takes 14 MB and a tenth of a second, and many boxes are only asked over REST. So
its address is held by a plain socket. The first connection has the library loaded and the server
made; the server then takes the address over, and whoever came before that is passed on to it
through here. A passed-on connection costs more than one of the server's own, so its client is told
after a moment to open another for further calls: GOAWAY with the highest stream number, which lets
every call that is under way finish (RFC 9113, 6.8).

On TCP both listen for a moment, in one group of SO_REUSEPORT sockets whose newcomers all go to the
server, so that nobody is left in a queue that is closed; a Unix socket is replaced by renaming.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import logging
import socket
import struct
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Final, Protocol

from edge_runtime.errors import Conflict
from edge_runtime.http_server import BACKLOG, tcp_listener, unix_listener

if TYPE_CHECKING:
    import grpc.aio

logger = logging.getLogger(__name__)

TELL_AFTER_S: Final = 1.0  # of a passed-on connection's life
HANDSHAKES_S: Final = 0.2  # for those that the old socket has answered and not finished
AGAIN_S: Final = 1.0  # after the server could not be made
CHUNK: Final = 256 * 1024
ANY_IPV4: Final = "0.0.0.0"  # noqa: S104 (a name, nothing is bound here)

_FRAME_HEADER: Final = 9
_HEADERS, _PUSH_PROMISE, _CONTINUATION = 0x1, 0x5, 0x9
_END_HEADERS: Final = 0x4
_LAST_STREAM: Final = 2**31 - 1
GOAWAY: Final = struct.pack(">HBBBLLL", 0, 8, 0x7, 0, 0, _LAST_STREAM, 0)
_ATTACH_REUSEPORT_CBPF: Final = 51  # SO_ATTACH_REUSEPORT_CBPF
_RETURN: Final = 0x06  # BPF_RET | BPF_K

Make = Callable[[], "grpc.aio.Server"]


class Address(Protocol):
    """Where a server is to be found. inner: a Unix socket that it is passed connections by."""

    inner: Path
    socket: socket.socket

    def bind(self, server: grpc.aio.Server) -> None:
        """Give the server the address, before it starts. Raises Conflict."""
        ...

    def hand_over(self) -> None:
        """From now on newcomers are the server's, which has started."""
        ...


class TcpAddress:
    """A TCP address, held from construction on. Raises Conflict when it cannot be had."""

    def __init__(self, address: str, port: int, inner: Path) -> None:
        tcp_listener(address, port).close()  # which a socket that shares its port does not find out
        self.inner = inner
        self.socket = tcp_listener(_as_grpc_binds(address), port, may_share=True)
        self._name = f"[{address}]:{port}" if ":" in address else f"{address}:{port}"

    def bind(self, server: grpc.aio.Server) -> None:
        _add(server, f"unix:{self.inner}")
        _add(server, self._name)  # last: it is in the group from then on

    def hand_over(self) -> None:
        """Send newcomers to the second socket of the group, which is the server's."""
        program = (ctypes.c_char * 8).from_buffer_copy(struct.pack("HBBI", _RETURN, 0, 0, 1))
        handle = struct.pack("HP", 1, ctypes.addressof(program))
        with contextlib.suppress(OSError):  # then a newcomer of this moment may have to try again
            self.socket.setsockopt(socket.SOL_SOCKET, _ATTACH_REUSEPORT_CBPF, handle)


class UnixAddress:
    """A Unix socket for this user, held from construction on. Raises OSError."""

    def __init__(self, path: Path) -> None:
        self.inner = path.with_name(path.name + ".new")
        self.socket = unix_listener(path)
        self._path = path

    def bind(self, server: grpc.aio.Server) -> None:
        _add(server, f"unix:{self.inner}")

    def hand_over(self) -> None:
        self.inner.chmod(0o600)
        self.inner.rename(self._path)
        self.inner = self._path


class GrpcDoor:
    """Listens at an address, and makes its server when somebody comes. Use on one event loop.

    load: run on a thread, returns what builds the server, without a port; stop_s: that calls get
    to finish in `stop`.
    """

    def __init__(self, address: Address, load: Callable[[], Make], stop_s: float) -> None:
        self._address = address
        self._load = load
        self._stop_s = stop_s
        self._server: grpc.aio.Server | None = None
        self._opening: asyncio.Task[None] | None = None
        self._passed_on: set[asyncio.Task[None]] = set()
        self._again: asyncio.TimerHandle | None = None
        self._is_stopping = False

    @property
    def is_open(self) -> bool:
        """Whether the server has been made."""
        return self._server is not None

    @property
    def passed_on(self) -> int:
        """Connections that are passed on."""
        return len(self._passed_on)

    def start(self) -> None:
        """Listen."""
        self._address.socket.listen(BACKLOG)
        self._watch()

    async def stop(self) -> None:
        """Take nobody in, finish what was accepted, give the address up."""
        self._is_stopping = True
        if self._again is not None:
            self._again.cancel()
        if self._address.socket.fileno() >= 0:
            asyncio.get_running_loop().remove_reader(self._address.socket)
        if self._opening is not None:
            await asyncio.wait((self._opening,))
        self._address.socket.close()
        if self._server is not None:
            await self._server.stop(self._stop_s)
        if self._passed_on:
            _, left = await asyncio.wait(self._passed_on, timeout=HANDSHAKES_S)
            for task in left:
                task.cancel()
            await asyncio.gather(*left, return_exceptions=True)

    def _watch(self) -> None:
        asyncio.get_running_loop().add_reader(self._address.socket, self._knocked)

    def _knocked(self) -> None:
        loop = asyncio.get_running_loop()
        loop.remove_reader(self._address.socket)
        self._opening = loop.create_task(self._open())

    async def _open(self) -> None:
        """Let the server take over, and pass on who came before; or try again in a moment."""
        try:
            self._server = await self._serve()
        except Exception as error:  # who waits goes on waiting
            is_unexpected = not isinstance(error, Conflict)
            logger.error("gRPC cannot be served: %s", error, exc_info=is_unexpected)
            if not self._is_stopping:
                self._again = asyncio.get_running_loop().call_later(AGAIN_S, self._watch)
            return
        if self._server is None:
            return
        self._pass_on()
        is_empty = False
        while not (is_empty or self._is_stopping):
            await asyncio.sleep(HANDSHAKES_S)
            is_empty = self._pass_on()
        self._address.socket.close()

    async def _serve(self) -> grpc.aio.Server | None:
        """Make the server and give it the address; None when it is not wanted any more."""
        make = await asyncio.to_thread(self._load)
        if self._is_stopping:
            return None
        self._address.inner.unlink(missing_ok=True)
        server = make()
        try:
            self._address.bind(server)
            await server.start()
            self._address.hand_over()
        except BaseException:
            with contextlib.suppress(Exception):
                await server.start()  # one that was not started keeps its sockets
            await server.stop(0)
            raise
        return server

    def _pass_on(self) -> bool:
        """Pass on everybody who waits; False when somebody is left, for want of descriptors."""
        loop = asyncio.get_running_loop()
        while True:
            try:
                connection, _ = self._address.socket.accept()
            except BlockingIOError:
                return True
            except OSError:
                return False
            connection.setblocking(False)
            task = loop.create_task(pass_on(connection, self._address.inner))
            self._passed_on.add(task)
            task.add_done_callback(self._passed_on.discard)


async def pass_on(connection: socket.socket, inner: Path) -> None:
    """Carry bytes between a client and the server until either ends."""
    try:
        here, client = await asyncio.open_connection(sock=connection, limit=CHUNK)
    except OSError:
        connection.close()
        return
    try:
        there, server = await asyncio.open_unix_connection(str(inner), limit=CHUNK)
    except OSError:
        client.close()
        return
    ways = [
        asyncio.ensure_future(way) for way in (_carry(here, server), _carry_and_tell(there, client))
    ]
    try:
        await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for way in ways:
            way.cancel()
        await asyncio.gather(*ways, return_exceptions=True)
        for writer in (client, server):
            writer.close()


async def _carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(CHUNK):
        writer.write(data)
        await writer.drain()


async def _carry_and_tell(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Carry frames to the client; between two of them, after a moment, tell it to go elsewhere."""
    loop = asyncio.get_running_loop()
    tell_at = loop.time() + TELL_AFTER_S
    may_tell = False  # a block of headers must not be interrupted (RFC 9113, 4.3), nor the start
    while True:
        if may_tell and loop.time() >= tell_at:
            writer.write(GOAWAY)
            break
        try:
            async with asyncio.timeout_at(tell_at if may_tell else None):
                header = await reader.readexactly(_FRAME_HEADER)
        except TimeoutError:
            continue
        length, kind, flags = int.from_bytes(header[:3]), header[3], header[4]
        writer.write(header)
        while length > 0:
            part = await reader.read(min(length, CHUNK))
            if not part:
                return
            writer.write(part)
            await writer.drain()
            length -= len(part)
        is_block = kind in (_HEADERS, _PUSH_PROMISE, _CONTINUATION)
        may_tell = not is_block or bool(flags & _END_HEADERS)
    await _carry(reader, writer)


def _as_grpc_binds(address: str) -> str:
    """Return an IPv4 address within IPv6, where the machine has that: groups are of one family."""
    if ":" in address or not _has_ipv6():
        return address
    return "::" if address == ANY_IPV4 else f"::ffff:{address}"


def _has_ipv6() -> bool:
    """Tell whether gRPC takes this for a machine with IPv6: it looks for the loopback address."""
    try:
        with socket.socket(socket.AF_INET6, socket.SOCK_STREAM) as probe:
            probe.bind(("::1", 0))
    except OSError:
        return False
    return True


def _add(server: grpc.aio.Server, where: str) -> None:
    try:
        server.add_insecure_port(where)
    except RuntimeError:
        raise Conflict(f"{where} cannot be listened on", hint="another process has it") from None
