"""The floor of an accelerator host: a child that copies frames through shared memory, and no more.

`python bare_host.py SOCKET_FD MEMORY_FD FRAME_BYTES OUTPUT_BYTES`. Memory: the frame, then the
output. One byte comes when a frame lies there, one byte goes when its output does.
"""

from __future__ import annotations

import mmap
import os
import socket
import subprocess
import sys
from types import TracebackType
from typing import Self

import numpy as np


class BareHost:
    """The parent's side; a `with` starts and ends the child."""

    def __init__(self, frame_bytes: int, output_bytes: int) -> None:
        descriptor = os.memfd_create("frame")
        os.ftruncate(descriptor, frame_bytes + output_bytes)
        self._memory = np.frombuffer(mmap.mmap(descriptor, frame_bytes + output_bytes), np.uint8)
        self._frame_bytes = frame_bytes
        self._socket, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        fds = (theirs.fileno(), descriptor)
        words = [str(number) for number in (*fds, frame_bytes, output_bytes)]
        self._child = subprocess.Popen([sys.executable, __file__, *words], pass_fds=fds)
        theirs.close()
        os.close(descriptor)

    def run(self, frame: np.ndarray[tuple[int], np.dtype[np.uint8]]) -> bytes:
        """Send a frame, wait for its output."""
        self._memory[: self._frame_bytes] = frame
        self._socket.send(b"R")
        self._socket.recv(1)
        return self._memory[self._frame_bytes :].tobytes()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._socket.close()
        self._child.wait()


def main() -> None:
    """Answer until the socket ends."""
    sock, frame_bytes = socket.socket(fileno=int(sys.argv[1])), int(sys.argv[3])
    size = frame_bytes + int(sys.argv[4])
    memory = np.frombuffer(mmap.mmap(int(sys.argv[2]), size), np.uint8)
    private, output = np.zeros(frame_bytes, np.uint8), np.zeros(size - frame_bytes, np.uint8)
    while sock.recv(1):
        np.copyto(private, memory[:frame_bytes])
        memory[frame_bytes:] = output
        sock.send(b"D")


if __name__ == "__main__":
    main()
