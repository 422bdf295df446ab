"""Sites of the settings reach routing: zones, tenants, distances, and where a caller is."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Any

import jsonschema  # type: ignore[import-untyped]
import orjson
import pytest

from cluster.config import load_settings
from cluster.ports import free_port
from edge_runtime.auth import Principal
from edge_runtime.errors import Unavailable
from edge_runtime.protocol.service import CallContext
from policies.routing import Target
from serve_apps.gateway.decisions import DecisionLog
from serve_apps.gateway.dispatch import Dispatcher
from serve_apps.gateway.geography import Geography, Origin
from serve_apps.gateway.neighbours import Neighbours
from serve_apps.gateway.site_overview import described, site_overview
from serve_apps.gateway.targets import TargetTable
from tests.serve_apps.gateway.mmdb import write
from tests.serve_apps.gateway.place import Clock, Place, later, remote, request

FRANKFURT: dict[str, Any] = {"name": "dc", "latitude": 50.11, "longitude": 8.68, "zone": "eu"}
NEW_YORK: dict[str, Any] = {"name": "lab", "latitude": 40.71, "longitude": -74.01, "zone": "us"}
ANYWHERE = frozenset({"cloud", "edge", "colocated"})


def geography(*sites: dict[str, Any], **more: Any) -> Geography:
    return Geography.of(load_settings({}, {"site": "dc", "sites": list(sites), **more}))


class Gateway:
    """A dispatcher at site dc, over the cloud there and the edge site lab."""

    def __init__(self, known: Geography) -> None:
        self.clock = Clock()
        self.cloud, self.edge = Place(), Place()
        self.targets = TargetTable(
            [remote("cloud", self.cloud, self.clock), remote("edge/lab", self.edge, self.clock)],
            known,
        )
        self.log = DecisionLog()
        self.dispatcher = Dispatcher(self.targets, self.log, clock=self.clock, geography=known)

    async def send(self, tenant: str = "default", **more: Any) -> str:
        principal = Principal("tester", frozenset(), tenant)
        context = CallContext(principal, later(), **more)
        return (await self.dispatcher.infer(request(), "1", ANYWHERE, context)).target

    @property
    def latest(self) -> dict[str, Any]:
        found: dict[str, Any] = self.log.read({"limit": "1"})["decisions"][0]
        return found


async def gateway(known: Geography) -> Gateway:
    made = Gateway(known)
    await made.targets.probe()
    return made


def test_a_target_has_the_zone_and_the_tenants_of_its_site() -> None:
    known = geography({**FRANKFURT, "tenants": ["acme"]}, {"name": "lab"})
    found = known.settled(Target("cloud", "cloud", "dc"))
    assert (found.zone, found.tenants) == ("eu", frozenset({"acme"}))
    for site in ("lab", "elsewhere"):
        found = known.settled(Target("t", "edge", site))
        assert (found.zone, found.tenants) == ("", None)


def test_before_it_is_measured_a_target_is_as_far_as_the_great_circle_says() -> None:
    known = geography(FRANKFURT, NEW_YORK)
    assert known.settled(Target("edge/lab", "edge", "lab")).rtt_s == pytest.approx(0.124, rel=0.02)
    assert known.estimate("lab", 0.0).source == "great_circle"
    assert geography(FRANKFURT).estimate("lab", 0.0).source == "unknown"


async def test_a_probe_measures_the_way_to_the_site_of_its_target() -> None:
    known = geography(FRANKFURT, NEW_YORK)
    made = await gateway(known)
    found = known.estimate("lab", made.clock())
    assert found.source == "measured"
    assert found.rtt_s is not None
    assert found.rtt_s < 0.1  # the great circle said more
    made.clock.advance(3600.0)
    assert known.estimate("lab", made.clock()).source == "great_circle"


async def test_a_tenants_requests_stay_in_its_zones() -> None:
    rules = [{"tenant": "acme", "zones": ["us"]}]
    made = await gateway(geography(FRANKFURT, NEW_YORK, residency=rules))
    assert {await made.send("acme") for _ in range(10)} == {"edge/lab"}
    assert await made.send("acme", origin_site="dc") == "edge/lab"
    assert await made.send("other", origin_site="dc") == "cloud"
    made.edge.fail()
    await made.targets.probe()
    made.clock.advance(60.0)
    await made.targets.probe()
    with pytest.raises(Unavailable, match="cloud: zone_not_allowed"):
        await made.send("acme")
    assert len(made.cloud.calls) == 1


async def test_a_restricted_tenant_is_not_served_where_the_zone_is_unknown() -> None:
    rules = [{"tenant": "*", "zones": ["eu"]}, {"tenant": "acme", "zones": []}]
    unknown = {"name": "lab"}
    made = await gateway(geography(FRANKFURT, unknown, residency=rules))
    assert {await made.send(origin_site="lab") for _ in range(5)} == {"cloud"}
    with pytest.raises(Unavailable, match="zone_not_allowed"):
        await made.send("acme")
    assert not made.edge.calls


async def test_a_site_serves_its_tenants_only() -> None:
    made = await gateway(geography(FRANKFURT, {**NEW_YORK, "tenants": ["acme"]}))
    assert await made.send("other", origin_site="lab") == "cloud"
    assert await made.send("acme", origin_site="lab") == "edge/lab"


async def test_the_log_says_where_a_request_came_from_and_how_far_its_target_is(
    tmp_path: Path,
) -> None:
    pytest.importorskip("maxminddb", reason="the reader of GeoIP databases (extra `geo`)")
    file = tmp_path / "city.mmdb"
    boston = {"location": {"latitude": 42.36, "longitude": -71.06}}
    tokyo = {"location": {"latitude": 35.68, "longitude": 139.69}}
    write(file, {"192.0.2.0/24": boston, "198.51.100.0/24": tokyo})
    made = await gateway(geography(FRANKFURT, NEW_YORK, **{"geoip.database": str(file)}))

    def way() -> tuple[str | None, str, str]:
        found = made.latest
        return found["origin_site"], found["origin_from"], found["rtt_from"]

    await made.send(address="192.0.2.9")
    assert way() == ("lab", "geoip", "measured")
    await made.send(address="192.0.2.9", origin_site="dc")
    assert way() == ("dc", "caller", "measured")
    await made.send(address="198.51.100.9")  # 1000 km from no site
    assert way() == ("dc", "gateway", "measured")
    await made.send(address="10.0.0.1")
    assert way() == ("dc", "gateway", "measured")


def test_without_a_database_nobody_is_looked_up() -> None:
    known = geography(FRANKFURT)
    assert known.geoip is None
    assert known.origin(None, "192.0.2.9") == Origin("dc", "gateway")


async def test_the_gateways_of_other_sites_are_measured_and_those_that_are_gone_are_said() -> None:
    server = await asyncio.start_server(lambda _, writer: writer.close(), "127.0.0.1", 0)
    port, closed = server.sockets[0].getsockname()[1], free_port()
    there, gone = f"http://127.0.0.1:{port}", f"http://127.0.0.1:{closed}"
    own = {**FRANKFURT, "gateways": [f"http://127.0.0.1:{free_port()}"]}
    known = geography(own, {**NEW_YORK, "gateways": [there, gone]})
    neighbours = Neighbours(known)
    assert neighbours.answers(there) is None
    async with server:
        await neighbours.measure()
    assert (neighbours.answers(there), neighbours.answers(gone)) == (True, False)
    assert neighbours.answers(own["gateways"][0]) is None  # that is where we are
    found = known.estimate("lab", time.monotonic())
    assert found.source == "measured"
    await neighbours.measure()
    assert neighbours.answers(there) is False


async def test_the_sites_are_shown_with_what_is_known_of_each() -> None:
    url = "https://nyc.example.com:443"
    known = geography(FRANKFURT, {**NEW_YORK, "gateways": [url]}, {"name": "barn"})
    made = await gateway(known)
    read = site_overview(known, made.targets, Neighbours(known), made.clock)
    found = orjson.loads(orjson.dumps(read({})))
    jsonschema.validate(found, described().schema)
    assert found["site"] == "dc"
    here, lab, barn = found["sites"]
    assert (here["name"], here["latitude"], here["zone"]) == ("dc", 50.11, "eu")
    assert here["targets"] == [{"name": "cloud", "tier": "cloud", "is_up": True}]
    assert lab["gateways"] == [{"url": url, "answers": None}]
    assert (lab["rtt_from"], lab["rtt_age_s"] >= 0.0) == ("measured", True)
    assert (barn["rtt_ms"], barn["rtt_from"], barn["targets"]) == (None, "unknown", [])


async def test_a_site_without_settings_is_shown_when_targets_are_there() -> None:
    known = Geography("dc")
    made = await gateway(known)
    found = site_overview(known, made.targets, Neighbours(known), made.clock)({})
    assert [site["name"] for site in found["sites"]] == ["dc", "lab"]
    assert found["sites"][1]["latitude"] is None
