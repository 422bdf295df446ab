"""The floor of a host that dies: a child that opens the model and waits, and the end of its socket.

`python bare_child.py SOCKET_FD MODEL` says one byte when the session is open.
"""

from __future__ import annotations

import os
import selectors
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path


def live_and_die(artifact: Path) -> tuple[float, float]:
    """Return the seconds until it was ready, and from kill -9 until its socket ended."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, selectors.DefaultSelector() as selector:
        selector.register(ours, selectors.EVENT_READ)
        began = time.perf_counter()
        command = [sys.executable, __file__, str(theirs.fileno()), str(artifact)]
        with subprocess.Popen(command, pass_fds=(theirs.fileno(),)) as process:
            theirs.close()
            selector.select()
            ours.recv(1)
            ready_s = time.perf_counter() - began
            killed = time.perf_counter()
            process.send_signal(signal.SIGKILL)
            selector.select()
            noticed_s = time.perf_counter() - killed
    return ready_s, noticed_s


def main() -> None:
    """Open the model, say so, wait to be killed."""
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    import onnxruntime  # noqa: TID251

    session = onnxruntime.InferenceSession(sys.argv[2], providers=["CPUExecutionProvider"])
    sock = socket.socket(fileno=int(sys.argv[1]))
    sock.send(b"R")
    sock.recv(1)
    del session


if __name__ == "__main__":
    main()
