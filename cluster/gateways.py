"""Asking every gateway replica of this machine; each knows what it has decided itself."""

from __future__ import annotations

import time
from typing import Any, Final

from cluster.config import Settings
from cluster.home import Home
from cluster.identity.keys import ensure_signing_key
from cluster.identity.tokens import issue
from edge_runtime.errors import Unavailable
from edge_runtime.local_client import NotRunning, ask

TOKEN_S: Final = 60.0
ASK_S: Final = 5.0


def ask_gateways(settings: Settings, route: str) -> dict[int, Any]:
    """GET a document from each replica, by its slot; whoever does not answer in time is left out.

    Raises Unavailable when none answers.
    """
    home = Home.at(settings.home)
    token = issue(
        ensure_signing_key(home), "prime-spark routing", ["metrics:read"], TOKEN_S, time.time()
    )
    found: dict[int, Any] = {}
    problem = ""
    for slot in range(settings.gateway.max_replicas):
        path = home.gateway_http_socket(slot)
        try:
            found[slot] = ask(path, "GET", route, timeout_s=ASK_S, token=token, who="gateway")
        except NotRunning:
            continue
        except Unavailable as error:
            problem = error.message
    if not found:
        raise Unavailable(
            problem or "no gateway runs here", hint="`prime-spark up` starts a cluster"
        )
    return found
