from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from cluster.ports import free_port
from edge_runtime.entry import EntryClient
from tests.edge_runtime.entry.gateway import Gateway

Region = tuple[Gateway, Gateway, Gateway]


@pytest.fixture
def gateways(tmp_path: Path) -> Iterator[Region]:
    """Three gateways that name each other: near (1 ms), middle (60 ms) and far (120 ms).

    Further apart than what a busy machine adds to a probe.
    """
    near, middle, far = (
        Gateway(tmp_path / name, free_port()) for name in ("near", "middle", "far")
    )
    try:
        for gateway, delay_s in ((near, 0.001), (middle, 0.06), (far, 0.12)):
            gateway.control = {"delay_s": delay_s, "sites": sites_of(near, middle, far)}
            gateway.launch()
        for gateway in (near, middle, far):
            gateway.wait()
        yield near, middle, far
    finally:
        for gateway in (near, middle, far):
            gateway.kill()


def sites_of(*gateways: Gateway) -> object:
    """Return a document as `GET /v1/sites` answers; the far one is in another zone."""
    return {
        "site": "near",
        "sites": [
            {
                "name": gateway.folder.name,
                "latitude": None,
                "longitude": None,
                "targets": [{"name": "t", "tier": "edge", "is_up": gateway.folder.name != "far"}],
                "rtt_ms": 12.5,
                "rtt_from": "measured",
                "rtt_age_s": 3.2,
                "zone": "us" if gateway.folder.name == "far" else "eu",
                "gateways": [{"url": gateway.url, "answers": True}],
            }
            for gateway in gateways
        ],
    }


@pytest.fixture
def client(gateways: Region) -> Iterator[EntryClient]:
    """A client that was told of the far one only, has looked around, and does so often."""
    with quick(gateways[2]) as made:
        made.refresh()
        until(lambda: current(made) == "near")
        yield made


def quick(*seeds: Gateway, **options: object) -> EntryClient:
    settings: dict[str, object] = {
        "token": "secret",
        "probe_every_s": 0.3,
        "probe_timeout_s": 1.0,
        "patience_s": 0.5,
    }
    return EntryClient([seed.url for seed in seeds], **(settings | options))  # type: ignore[arg-type]


def until(condition: Callable[[], bool]) -> None:
    """Wait for a condition; the test's own time limit ends a wait in vain."""
    while not condition():
        time.sleep(0.005)


def current(client: EntryClient) -> str:
    (found,) = [seen.site for seen in client.gateways if seen.is_current]
    return found
