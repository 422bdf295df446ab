"""The child's main program: `python .../accelerator/host SOCKET_FD PARENT_ID [DRIVER_PATH]`.

It says what it has (HELLO), then does what it is told until the socket ends. A thread reports the
sensors. Nothing is tried again here: whatever goes wrong is told, and the runtime kills and
replaces this process.
"""

from __future__ import annotations

import array
import ctypes
import json
import mmap
import os
import signal
import socket
import sys
import threading
from pathlib import Path
from typing import Any

_HERE = Path(__file__).resolve().parent
ROOT = str(_HERE.parents[2])
SENSE_EVERY_S = 1.0
PR_SET_PDEATHSIG = 1
FDS_BYTES = socket.CMSG_SPACE(array.array("i").itemsize)  # of one descriptor
HELLO = b"H"  # as in `wire`, which may be what cannot be imported


def main() -> int:
    """Serve the runtime at the other end of the socket; 0 when it has closed it."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != int(sys.argv[2]):
        return 1  # the runtime has died before this process could ask to die with it
    for number in (signal.SIGINT, signal.SIGTERM):  # sent to all: the runtime still finishes work
        signal.signal(number, signal.SIG_IGN)
    # The folder of this file would shadow modules; the package's own root goes last, so that
    # another interpreter finds its own numpy and not the runtime's.
    sys.path[:] = [path for path in sys.path if Path(path).resolve() != _HERE]
    sys.path.append(ROOT)
    sys.path[:0] = [path for path in sys.argv[3:4] if path]
    sock = socket.socket(fileno=int(sys.argv[1]))
    try:
        from edge_runtime.accelerator import wire
        from edge_runtime.accelerator.host import hailo
    except Exception as error:  # no numpy, no binding, or one that does not fit
        _greet(sock, {"error": _line(error), "stage": "import"})
        return 0
    try:
        device = hailo.Device()
    except Exception as error:
        status = hailo.status_of(error)
        _greet(sock, {"error": _line(error), "status": status, "stage": "open"})
        return 0
    _greet(sock, device.describe())
    threading.Thread(target=_sense, args=(sock, device, wire), daemon=True).start()
    _serve(sock, device, wire, hailo)
    os._exit(0)  # the driver's own threads may hang; the kernel closes the device


def _greet(sock: socket.socket, told: dict[str, Any]) -> None:
    sock.send(HELLO + json.dumps(told).encode())


def _serve(sock: socket.socket, device: Any, wire: Any, hailo: Any) -> None:
    networks: dict[int, Any] = {}

    def done(job: int, status: int, taken_ns: int, text: str) -> None:
        line = text[:500].encode("utf-8", "replace")
        sock.send(wire.DONE + wire.DONE_BODY.pack(job, status, taken_ns) + line)

    buffer = memoryview(bytearray(wire.MAX_MESSAGE))
    while True:
        size, beside, _, _ = sock.recvmsg_into([buffer], FDS_BYTES)
        if not size:
            return
        kind, body = bytes(buffer[:1]), bytes(buffer[1:size])
        if kind == wire.RUN:
            job, model, slot, rows = wire.RUN_BODY.unpack(body)
            try:
                networks[model].run(job, slot, rows, done)
            except Exception as error:
                done(job, hailo.UNKNOWN, 0, _line(error))
        elif kind == wire.LOAD:
            document = wire.decode(body)
            answer = {"model": document["model"]}
            try:
                networks[document["model"]] = _load(document, _fds(beside), device, wire)
            except hailo.Mismatch as error:
                answer.update(error=_line(error), status=hailo.INVALID_ARGUMENT)
            except Exception as error:
                answer.update(error=_line(error), status=hailo.status_of(error))
            sock.send(wire.LOADED + wire.encode(answer))
        elif kind == wire.UNLOAD:
            _unload(networks, wire.decode(body)["model"])


def _load(document: Any, fds: list[int], device: Any, wire: Any) -> Any:
    try:
        slots = wire.read_slots(document)
        return device.load(document["path"], slots, mmap.mmap(fds[0], slots.size_bytes))
    finally:
        for fd in fds:
            os.close(fd)


def _fds(beside: list[tuple[int, int, bytes]]) -> list[int]:
    """Return the descriptors that came with a message."""
    found = array.array("i")
    for level, kind, data in beside:
        if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
            found.frombytes(data[: len(data) - len(data) % found.itemsize])
    return list(found)


def _unload(networks: dict[int, Any], model: int) -> None:
    network = networks.pop(model, None)
    if network is not None:
        network.close()


def _sense(sock: socket.socket, device: Any, wire: Any) -> None:
    pause = threading.Event()
    while True:
        try:
            sock.send(wire.SENSED + wire.encode(device.sense()))
        except OSError:
            return
        pause.wait(SENSE_EVERY_S)


def _line(error: BaseException) -> str:
    return " ".join(("%s: %s" % (type(error).__name__, error)).split())[:1000]


if __name__ == "__main__":
    sys.exit(main())
