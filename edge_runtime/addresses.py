"""Addresses of gateways, as people write them and as they are compared."""

from __future__ import annotations

import ipaddress
from typing import Final
from urllib.parse import urlsplit

from edge_runtime.errors import InvalidInput

_PORTS: Final = {"http": 80, "https": 443}


def gateway_url(text: str) -> str:
    """Return the one form of a gateway's REST address: scheme, host and port, nothing more.

    Raises InvalidInput for anything that is not `http(s)://HOST[:PORT]`.
    """
    hint = "write it as https://HOST:PORT"
    try:
        parts = urlsplit(text.strip())
        host, port = parts.hostname, parts.port
    except ValueError as error:
        raise InvalidInput(f"{text[:200]!r} is no address: {error}", hint=hint) from None
    if parts.username is not None or parts.password is not None:
        raise InvalidInput("a credential does not belong into an address", hint=hint)
    is_plain = parts.scheme in _PORTS and text.strip().isprintable() and port != 0
    if not is_plain or not host or not _is_host(host):
        raise InvalidInput(f"{text[:200]!r} is no address of a gateway", hint=hint)
    if parts.path not in ("", "/") or parts.query or parts.fragment:
        raise InvalidInput(f"{text[:200]!r} has more than host and port", hint=hint)
    named = f"[{host}]" if ":" in host else host
    return f"{parts.scheme}://{named}:{port or _PORTS[parts.scheme]}"


def is_loopback(url: str) -> bool:
    """True when an address of `gateway_url` is on this machine."""
    host = urlsplit(url).hostname or ""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def is_private_from_others(url: str) -> bool:
    """True when nobody on the way can read or change what is sent to an address."""
    return url.startswith("https://") or is_loopback(url)


def _is_host(text: str) -> bool:
    if ":" in text:
        try:
            ipaddress.IPv6Address(text)
        except ValueError:
            return False
        return "%" not in text
    labels = text.removesuffix(".").split(".")
    return len(text) <= 253 and all(
        0 < len(label) <= 63 and all(c.isascii() and (c.isalnum() or c in "-_") for c in label)
        for label in labels
    )
