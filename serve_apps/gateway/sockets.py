"""A gateway replica's place behind the front door: a numbered slot with two Unix sockets.

The front door knows a fixed list of slots; a replica owns the first one whose lock file it can
lock. The kernel drops the lock when the process ends in whatever way, so a replica that was
killed leaves its slot to the next one, and the front door's health checks see the rest.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from dataclasses import dataclass
from pathlib import Path

from cluster.home import Home
from edge_runtime.errors import Conflict


@dataclass(frozen=True, slots=True)
class Slot:
    """An owned slot; the lock is held while `lock_fd` is open."""

    number: int
    http_path: str
    grpc_path: str
    lock_fd: int

    def release(self) -> None:
        """Remove the sockets, then let the slot go."""
        for path in (self.http_path, self.grpc_path):
            with contextlib.suppress(FileNotFoundError):
                Path(path).unlink()
        os.close(self.lock_fd)


def claim_slot(home: Home, slots: int) -> Slot:
    """Own the first free slot. Raises Conflict when all are taken."""
    for number in range(slots):
        lock_fd = os.open(home.gateway_lock(number), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(lock_fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(lock_fd)
            continue
        paths = (home.gateway_http_socket(number), home.gateway_grpc_socket(number))
        for path in paths:
            path.unlink(missing_ok=True)
        return Slot(number, str(paths[0]), str(paths[1]), lock_fd)
    raise Conflict(
        f"all {slots} gateway slots are taken", hint="raise the setting gateway.max_replicas"
    )
