"""The gateways a client may use: those it was told of, and those that they name.

A list of sites comes from a gateway that took the client's credential, so the credential may go to
whom it names, within bounds: not in the open (plain HTTP) and not to the client's own machine,
unless the list came from there. A copy on disk serves when none of the first gateways is left; it
counts only for a client that knows one of them, and only if nobody else can write it.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

from edge_runtime import durable
from edge_runtime.addresses import gateway_url, is_loopback, is_private_from_others
from edge_runtime.errors import InvalidInput, Unavailable

logger = logging.getLogger(__name__)

MOST: Final = 1000  # gateways of a list
MAX_BYTES: Final = 4 * 1024 * 1024


class Gateway(NamedTuple):
    """A front door. site, zone: as in the settings of its cluster; empty when unknown."""

    url: str
    site: str = ""
    zone: str = ""


def seeds_of(urls: Iterable[str], *, allow_http: bool) -> tuple[Gateway, ...]:
    """Return the gateways that a client begins with.

    Raises InvalidInput for none, for what is no address, and for plain HTTP to another machine.
    """
    found = tuple(dict.fromkeys(gateway_url(url) for url in urls))
    if not found:
        raise InvalidInput("a client needs the address of at least one gateway", field="seeds")
    for url in found:
        if not allow_http and not is_private_from_others(url):
            raise InvalidInput(
                f"{url} would carry the credential readable for everybody on the way",
                field="seeds",
                hint="use https; in a network that you trust allow_http=True or --allow-http",
            )
    return tuple(Gateway(url) for url in found)


def read_list(document: object, source: str, *, allow_http: bool) -> tuple[Gateway, ...]:
    """Return the gateways of a `/v1/sites` document that came from `source`.

    Raises Unavailable when it is no such document; gateways that may not be used are left out.
    """
    try:
        found = [
            Gateway(
                gateway_url(_text(entry["url"])), _text(site["name"]), _text(site["zone"] or "")
            )
            for site in _list(document, "sites")
            for entry in _list(site, "gateways")
        ]
    except (KeyError, TypeError, InvalidInput):
        raise Unavailable(f"{source} answers with something that is no list of sites") from None
    if len(found) > MOST:
        raise Unavailable(f"{source} names more than {MOST} gateways")
    return tuple(gateway for gateway in found if _may_use(gateway.url, source, allow_http))


def _may_use(url: str, source: str, allow_http: bool) -> bool:
    is_sealed = allow_http or is_private_from_others(url)
    is_fine = is_sealed and (is_loopback(source) or not is_loopback(url))
    if not is_fine:
        logger.warning("%s names the gateway %s, which is not used: not safe", source, url)
    return is_fine


def save(path: Path, seeds: Sequence[Gateway], gateways: Sequence[Gateway]) -> None:
    """Keep a list for later. Raises OSError."""
    document = {
        "seeds": [seed.url for seed in seeds],
        "gateways": [gateway._asdict() for gateway in gateways],
    }
    durable.make_folder(path.parent)
    durable.write(path, json.dumps(document, indent=2).encode() + b"\n")


def load(path: Path, seeds: Sequence[Gateway], *, allow_http: bool) -> tuple[Gateway, ...]:
    """Return a kept list; nothing when there is none, or none that can be trusted."""
    try:
        with path.open("rb") as file:
            state = os.fstat(file.fileno())
            if state.st_mode & 0o022 or state.st_uid != os.geteuid():
                logger.warning("%s is not used: somebody else can write it", path)
                return ()
            document = json.loads(file.read(MAX_BYTES))
        known = set(_list(document, "seeds"))
        kept = [
            Gateway(**{k: _text(entry[k]) for k in Gateway._fields})
            for entry in _list(document, "gateways")
        ]
    except FileNotFoundError:
        return ()
    except (OSError, ValueError, KeyError, TypeError) as error:
        logger.warning("%s is not used: %s", path, error)
        return ()
    if not any(seed.url in known for seed in seeds):
        return ()  # of another deployment
    source = next(seed.url for seed in seeds if seed.url in known)
    return tuple(gateway for gateway in kept if _may_use(gateway.url, source, allow_http))


def _list(document: Any, name: str) -> list[Any]:
    found = document[name]
    if not isinstance(found, list):
        raise TypeError(name)
    return found


def _text(value: object) -> str:
    if not isinstance(value, str) or len(value) > 256:
        raise TypeError(value)
    return value
