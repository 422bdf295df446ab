"""One accelerator host as the runtime sees it: a child, a socket to it, and its end.

Everything happens on the event loop. The end of the child shows as the end of the socket within
milliseconds; a child that hangs shows nothing, and its user has to decide when it has waited long
enough. `kill` is always safe: the device is closed by the kernel.
"""

from __future__ import annotations

import asyncio
import contextlib
import mmap
import os
import signal
import socket
import subprocess
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, Protocol

from edge_runtime.accelerator import wire

HOST: Final = Path(__file__).parent / "host"
_BUFFER_BYTES: Final = 1 << 20
_MESSAGES_A_TURN: Final = 256  # more wait for the loop's next turn: others want it, too

_NOTHING: Final[Mapping[str, str]] = {}

Heard = Callable[[bytes, bytes], None]
Ended = Callable[[], None]


class Host(Protocol):
    """What runs models; see `HostProcess`, the one there is outside tests."""

    @property
    def pid(self) -> int: ...

    @property
    def is_running(self) -> bool: ...

    def send(self, message: bytes, fds: Sequence[int] = ()) -> None: ...

    def read(self) -> None: ...

    def kill(self) -> None: ...

    async def reap(self) -> None: ...


StartHost = Callable[[str, str, Heard, Ended], Host]


class HostProcess:
    """A started host. heard: called with each message (kind, body); ended: once, at its end.

    environment: variables put beside this process's own. Neither call may raise.
    Raises OSError when the interpreter cannot be started.
    """

    def __init__(
        self,
        python: str,
        driver_path: str,
        heard: Heard,
        ended: Ended,
        environment: Mapping[str, str] = _NOTHING,
    ) -> None:
        self._heard = heard
        self._ended = ended
        self._loop = asyncio.get_running_loop()
        self._buffer = memoryview(bytearray(wire.MAX_MESSAGE))
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            with theirs:
                ours.setblocking(False)
                ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _BUFFER_BYTES)
                arguments = [str(HOST), str(theirs.fileno()), str(os.getpid()), driver_path]
                self._child = subprocess.Popen(
                    [python, *arguments],
                    pass_fds=(theirs.fileno(),),
                    stdin=subprocess.DEVNULL,
                    env={**os.environ, "HAILORT_LOGGER_PATH": "NONE", **environment},
                )
            self._loop.add_reader(ours, self._take_in)
        except BaseException:
            ours.close()  # a child that was started ends with it
            raise
        self._socket: socket.socket | None = ours

    @property
    def pid(self) -> int:
        return self._child.pid

    @property
    def is_running(self) -> bool:
        return self._socket is not None

    def send(self, message: bytes, fds: Sequence[int] = ()) -> None:
        """Send a message. Raises OSError when the host has gone or takes no more."""
        if self._socket is None:
            raise BrokenPipeError
        if fds:
            socket.send_fds(self._socket, [message], list(fds))
        else:
            self._socket.send(message)

    def read(self) -> None:
        """Take in what has come; called by the loop, and before a judgement on a silent host."""
        for _ in range(_MESSAGES_A_TURN):
            if not self._take_in():
                return

    def _take_in(self) -> bool:
        """Take in one message; False when there was none. The loop calls again while there are."""
        if self._socket is None:
            return False
        try:
            size = self._socket.recv_into(self._buffer)
        except (BlockingIOError, InterruptedError):
            return False
        except OSError:
            size = 0
        if not size:
            self._end()
            return False
        message = bytes(self._buffer[:size])
        self._heard(message[:1], message[1:])
        return True

    def kill(self) -> None:
        """End the child at once; `ended` is called now if it has not been."""
        with contextlib.suppress(ProcessLookupError):
            self._child.send_signal(signal.SIGKILL)
        self._end()

    async def reap(self) -> None:
        """Wait until the kernel has let go of the child, so that the device is free again."""
        while self._child.poll() is None:  # noqa: ASYNC110 (pidfd is not on every kernel)
            await asyncio.sleep(0.005)

    def _end(self) -> None:
        if self._socket is None:
            return
        self._loop.remove_reader(self._socket)
        self._socket.close()
        self._socket = None
        with contextlib.suppress(ProcessLookupError):
            self._child.send_signal(signal.SIGKILL)  # what closed its socket serves nobody
        self._ended()


def make_memory(size_bytes: int) -> tuple[int, Any]:
    """Return shared memory that has no name: a descriptor, and its mapping in this process.

    Raises OSError.
    """
    descriptor = os.memfd_create("prime-spark-tensors", os.MFD_CLOEXEC)
    try:
        os.ftruncate(descriptor, size_bytes)
        return descriptor, mmap.mmap(descriptor, size_bytes)
    except BaseException:
        os.close(descriptor)
        raise
