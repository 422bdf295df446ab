"""Where a cluster is called, and the two questions asked there without a client library."""

from __future__ import annotations

import json
import ssl
import urllib.error
import urllib.request
from dataclasses import dataclass
from typing import Any

from cluster.config import Settings
from edge_runtime.errors import Unavailable
from edge_runtime.protocol.service import Health

TIMEOUT_S = 5.0


@dataclass(frozen=True, slots=True)
class Endpoints:
    """host: where this machine reaches the front door; URLs as users type them."""

    host: str
    rest: str
    grpc: str
    dashboard: str

    @classmethod
    def of(cls, settings: Settings) -> Endpoints:
        """Derive them from the settings; a wildcard address is reached by loopback."""
        host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(settings.address, settings.address)  # noqa: S104
        named = f"[{host}]" if ":" in host else host
        is_tls = settings.tls.certificate is not None
        return cls(
            host=host,
            rest=f"{'https' if is_tls else 'http'}://{named}:{settings.ports.rest}",
            grpc=f"{'grpcs' if is_tls else 'grpc'}://{named}:{settings.ports.grpc}",
            dashboard=f"http://127.0.0.1:{settings.ports.dashboard}",
        )


def edge_url(settings: Settings) -> str:
    """Return where this machine reaches its edge runtime over REST."""
    wild = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104
    host = wild.get(settings.edge.address, settings.edge.address)
    return f"http://{f'[{host}]' if ':' in host else host}:{settings.edge.ports.rest}"


def healthz(endpoints: Endpoints) -> Health:
    """Ask the gateway for its health; `unreachable` when nothing answers."""
    try:
        document = get_json(f"{endpoints.rest}/healthz", expected=(200, 503))
        return Health(str(document["status"]), tuple(document.get("reasons", ())))
    except (Unavailable, KeyError, TypeError) as error:
        return Health("unreachable", (str(error),))


def get_json(url: str, token: str | None = None, expected: tuple[int, ...] = (200,)) -> Any:
    """GET a JSON document from a process of this machine. Raises Unavailable."""
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    request = urllib.request.Request(url, headers=headers)  # noqa: S310 (our own endpoints)
    # Certificates are issued for names, and this is the same machine: encryption suffices here.
    context = ssl._create_unverified_context() if url.startswith("https:") else None  # noqa: S323
    opener = urllib.request.build_opener(
        urllib.request.ProxyHandler({}),
        *([urllib.request.HTTPSHandler(context=context)] if context else []),
    )
    try:
        with opener.open(request, timeout=TIMEOUT_S) as answer:
            status, body = answer.status, answer.read()
    except urllib.error.HTTPError as error:
        status, body = error.code, error.read()
    except OSError as error:
        raise Unavailable(f"{url} does not answer: {getattr(error, 'reason', error)}") from None
    if status not in expected:
        raise Unavailable(f"{url} answers with status {status}", details={"status": status})
    try:
        return json.loads(body)
    except ValueError:
        raise Unavailable(f"{url} does not answer with JSON (status {status})") from None
