"""A service manager of a test: the socket that systemd has for a service."""

from __future__ import annotations

import socket


class Manager:
    """What systemd is to a service: a datagram socket, and how often it wants to hear of it."""

    def __init__(self, address: str) -> None:
        self.address = address
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind("\0" + address[1:] if address.startswith("@") else address)
        self.socket.settimeout(20.0)

    def environment(self, watchdog_s: float = 0.0) -> dict[str, str]:
        watchdog = {"WATCHDOG_USEC": str(int(watchdog_s * 1e6))} if watchdog_s else {}
        return {"NOTIFY_SOCKET": self.address, **watchdog}

    def receive(self) -> dict[str, str]:
        """Wait for a datagram; return its fields."""
        text = self.socket.recv(1 << 20).decode()
        return dict(line.split("=", 1) for line in text.split("\n"))

    def until(self, field: str) -> dict[str, str]:
        """Wait for a datagram that has this field."""
        while field not in (found := self.receive()):
            pass
        return found

    def is_silent(self, seconds: float) -> bool:
        """Tell whether nothing comes for so long."""
        self.socket.settimeout(seconds)
        try:
            self.receive()
        except TimeoutError:
            return True
        finally:
            self.socket.settimeout(20.0)
        return False

    def drain_until(self, field: str) -> set[str]:
        """Return the fields that have come up to a datagram with this one."""
        seen: set[str] = set()
        while field not in seen:
            seen |= set(self.receive())
        return seen

    def drain(self) -> None:
        """Read what has come already."""
        self.socket.setblocking(False)
        try:
            while True:
                self.receive()
        except BlockingIOError:
            pass
        finally:
            self.socket.settimeout(20.0)
