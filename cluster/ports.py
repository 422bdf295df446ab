"""Whether a TCP port is free, and who has it when it is not."""

from __future__ import annotations

import contextlib
import errno
import socket

import psutil

from edge_runtime.errors import Conflict, InvalidInput


def check_free(address: str, port: int, setting: str) -> None:
    """Raise Conflict, naming the process that listens, when the port cannot be bound."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with contextlib.closing(socket.socket(family, socket.SOCK_STREAM)) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((address, port))
            probe.listen(1)
        except OSError as error:
            if error.errno == errno.EADDRNOTAVAIL:
                raise InvalidInput(
                    f"this machine has no address {address}", field="address"
                ) from None
            if error.errno == errno.EACCES:
                raise InvalidInput(
                    f"port {port} needs privileges; take one above 1023", field=setting
                ) from None
            raise Conflict(
                f"port {port} is taken by {holder(port)}",
                field=setting,
                hint=f"stop it, or set another port: PRIME_SPARK_{_variable(setting)}=...",
            ) from None


def holder(port: int) -> str:
    """Describe the process that listens on a port."""
    try:
        connections = psutil.net_connections(kind="tcp")
    except psutil.AccessDenied:
        return "another process"
    for connection in connections:
        if (
            connection.status == psutil.CONN_LISTEN
            and connection.laddr
            and connection.laddr.port == port
            and connection.pid is not None
        ):
            with contextlib.suppress(psutil.Error):
                process = psutil.Process(connection.pid)
                words = " ".join(" ".join(process.cmdline()).split())[:120] or process.name()
                return f"process {connection.pid} ({words})"
    return "a process of another user"


def free_port() -> int:
    """Return a port that nobody had just now (for tests, which choose ports of their own)."""
    with contextlib.closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        number: int = probe.getsockname()[1]
        return number


def _variable(setting: str) -> str:
    return setting.upper().replace(".", "__")
