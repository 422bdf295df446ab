"""How far a gateway is, and whether it can be asked: a few small requests on one connection.

Health is open to everybody, so a probe carries no credential. The least of the times counts: the
others have something of queues in them. Opening the connection is not part of it.
"""

from __future__ import annotations

import http.client
import time
from typing import Final

from edge_runtime.entry.connections import Connections, ask
from edge_runtime.errors import Unavailable

PATH: Final = "/v2/health/ready"
TIMES: Final = 3
_MOST_BYTES: Final = 65_536


def probe(gateway: Connections, timeout_s: float, times: int = TIMES) -> float:
    """Return the round trip to a gateway in seconds.

    timeout_s: for all of it. Raises Unavailable, saying what the gateway does, when it does not
    answer in time or is not ready.
    """
    until = time.monotonic() + timeout_s
    try:
        connection = gateway.connect(until)
    except OSError as error:
        raise Unavailable(f"cannot be reached: {error}") from None
    least_s = float("inf")
    try:
        for _ in range(times):
            began = time.perf_counter()
            answer = ask(connection, "GET", PATH, deadline=until, most_bytes=_MOST_BYTES)
            least_s = min(least_s, time.perf_counter() - began)
            if answer.status != 200:
                raise Unavailable(f"is not ready (status {answer.status})")
    except (OSError, http.client.HTTPException) as error:
        raise Unavailable(f"does not answer: {error or type(error).__name__}") from None
    finally:
        connection.close()
    return least_s
