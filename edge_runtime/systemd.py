"""Telling systemd how the process is: ready, stopping, alive (sd_notify(3)).

The protocol is one datagram of `NAME=value` lines to the socket that `NOTIFY_SOCKET` names, so no
library is needed. Without that variable nobody listens and nothing is sent.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections.abc import Mapping
from typing import Final

LONGEST: Final = 1000  # characters of a value: the kernel refuses a datagram that is too large


class Notifier:
    """Sends to the service manager; losing it is no reason to stop serving.

    environ: with NOTIFY_SOCKET, WATCHDOG_USEC and WATCHDOG_PID as systemd sets them.
    """

    def __init__(self, environ: Mapping[str, str]) -> None:
        name = environ.get("NOTIFY_SOCKET", "")
        self._address = "\0" + name[1:] if name.startswith("@") else name
        usec = environ.get("WATCHDOG_USEC", "")
        pid = environ.get("WATCHDOG_PID", "")
        is_for_us = not pid or pid == str(os.getpid())
        self.watchdog_s = int(usec) / 1e6 if usec.isdecimal() and is_for_us else 0.0

    def tell(self, **fields: str) -> None:
        """Send fields, such as READY="1" or STATUS="..."; a text's line breaks become spaces."""
        if not self._address:
            return
        lines = "\n".join(
            f"{key}={' '.join(value[:LONGEST].split())}" for key, value in fields.items()
        )
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as out:
            out.setblocking(False)
            out.sendto(lines.encode(errors="backslashreplace"), self._address)

    async def keep_alive(self) -> None:
        """Feed the watchdog from the event loop until cancelled: a loop that hangs is restarted.

        Twice an interval, as sd_watchdog_enabled(3) recommends.
        """
        while self.watchdog_s:
            self.tell(WATCHDOG="1")
            await asyncio.sleep(self.watchdog_s / 2)
