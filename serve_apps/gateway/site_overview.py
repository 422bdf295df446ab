"""The sites there are, for clients that look for a gateway: `GET /v1/sites`."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any, get_args

from cluster.sites import SiteSettings
from edge_runtime.protocol.openapi import Described
from policies.geography import Source
from serve_apps.gateway.geography import Geography
from serve_apps.gateway.neighbours import Neighbours
from serve_apps.gateway.targets import TargetTable


def site_overview(
    geography: Geography,
    targets: TargetTable,
    neighbours: Neighbours,
    clock: Callable[[], float] = time.monotonic,
) -> Callable[[Mapping[str, str]], dict[str, Any]]:
    """Return a reader of the sites; it takes no query parameters. clock: that of the targets."""

    def read(_: Mapping[str, str]) -> dict[str, Any]:
        names = dict.fromkeys([geography.here, *geography.sites, *(t.site for t in targets)])
        return {"site": geography.here, "sites": [document(name) for name in names]}

    def document(name: str) -> dict[str, Any]:
        site = geography.sites.get(name) or SiteSettings.model_construct(name=name)
        there = [target for target in targets if target.site == name]
        way = geography.estimate(name, clock())
        return {
            "name": name,
            "latitude": site.latitude,
            "longitude": site.longitude,
            "zone": site.zone,
            "gateways": [
                {"url": url, "answers": True if name == geography.here else neighbours.answers(url)}
                for url in site.gateways
            ],
            "targets": [
                {"name": target.name, "tier": target.tier, "is_up": target.is_up}
                for target in there
            ],
            "rtt_ms": None if way.rtt_s is None else round(way.rtt_s * 1e3, 3),
            "rtt_from": way.source,
            "rtt_age_s": None if way.age_s is None else round(way.age_s, 3),
        }

    return read


def described() -> Described:
    """Return what the answer is, for the OpenAPI document."""
    text, number = {"type": "string"}, {"type": ["number", "null"]}
    gateway = {"url": text, "answers": {"type": ["boolean", "null"]}}
    target = {"name": text, "tier": text, "is_up": {"type": "boolean"}}
    site = {
        "name": text,
        "latitude": number,
        "longitude": number,
        "zone": {"type": ["string", "null"]},
        "gateways": _array(gateway),
        "targets": _array(target),
        "rtt_ms": number,
        "rtt_from": {"enum": list(get_args(Source))},
        "rtt_age_s": number,
    }
    schema = _object({"site": text, "sites": _array(site)})
    return Described("/v1/sites", "sites", "Sites and their gateways (scope infer)", schema)


def _array(properties: dict[str, Any]) -> dict[str, Any]:
    return {"type": "array", "items": _object(properties)}


def _object(properties: dict[str, Any]) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "required": list(properties)}
