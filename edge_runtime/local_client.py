"""Asking a process of this box over its Unix socket, without a client library."""

from __future__ import annotations

import http.client
import json
import socket
from pathlib import Path
from typing import Any, Final

from edge_runtime.errors import NotFound, PrimeSparkError, Unavailable

TIMEOUT_S: Final = 10.0


class NotRunning(Unavailable):
    """Nothing listens on the socket."""


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: Path, timeout_s: float) -> None:
        super().__init__("localhost", timeout=timeout_s)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self._path))


def ask(
    path: Path,
    method: str,
    route: str,
    body: object = None,
    *,
    timeout_s: float = TIMEOUT_S,
    expected: tuple[int, ...] = (200,),
    token: str = "",
    who: str = "edge runtime",
) -> Any:
    """Send a request; return the JSON document of the answer, None when it has no body.

    token: a credential, where the socket alone is none; who: is asked, for what is said of it.
    Raises NotRunning, Unavailable when it does not answer in time, NotFound, or PrimeSparkError
    with what was refused.
    """
    connection = _UnixConnection(path, timeout_s)
    try:
        content = None if body is None else json.dumps(body)
        headers = {"content-type": "application/json"}
        if token:
            headers["authorization"] = f"Bearer {token}"
        connection.request(method, route, content, headers)
        answer = connection.getresponse()
        text = answer.read()
    except (FileNotFoundError, ConnectionRefusedError):
        raise NotRunning(
            f"no {who} runs here",
            hint="start it with `prime-spark edge run`",
            details={"reason": "nobody"},
        ) from None
    except (OSError, http.client.HTTPException) as error:
        raise Unavailable(f"the {who} does not answer: {error or type(error)}") from None
    finally:
        connection.close()
    try:
        document: Any = json.loads(text) if text else None
    except ValueError:
        raise Unavailable(f"what answers is no {who}") from None
    if answer.status in expected:
        return document
    found = document if isinstance(document, dict) else {}
    kind = NotFound if answer.status == 404 else PrimeSparkError
    raise kind(
        str(found.get("error", f"status {answer.status}")),
        field=found.get("field"),
        hint=found.get("hint"),
    )
