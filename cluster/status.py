"""What runs: the cluster's parts, Ray's nodes, Serve's deployments, the gateway's targets."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from cluster.config import Settings
from cluster.endpoints import Endpoints, get_json, healthz
from cluster.home import Home
from cluster.identity.keys import ensure_signing_key
from cluster.identity.tokens import issue
from cluster.launch import FRONT_DOOR
from cluster.nodes import EDGE, HEAD, SITE_LABEL, TIER_LABEL, has_edge_node
from cluster.processes import belonging
from cluster.registry import EmbeddedRegistry
from cluster.state import read_state
from edge_runtime.errors import PrimeSparkError, Unavailable

OWN_TOKEN_S = 60.0
Row = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Status:
    """state: running, degraded (answers, but reasons say what is wrong), failed or stopped."""

    state: str
    reasons: tuple[str, ...]
    endpoints: Mapping[str, str]
    nodes: Sequence[Row]
    targets: Sequence[Row]
    deployments: Sequence[Row]
    models: Sequence[Row]

    def document(self) -> dict[str, Any]:
        """Return it as a JSON value."""
        return {
            "state": self.state,
            "reasons": list(self.reasons),
            "endpoints": dict(self.endpoints),
            "nodes": [dict(row) for row in self.nodes],
            "targets": [dict(row) for row in self.targets],
            "deployments": [dict(row) for row in self.deployments],
            "models": [dict(row) for row in self.models],
        }

    def tables(self) -> Iterator[tuple[str, Sequence[str], Sequence[Sequence[str]]]]:
        """Yield (title, headings, rows) for people, leaving out what is empty."""
        if self.state != "stopped":
            yield "endpoints", ("what", "where"), [[k, v] for k, v in self.endpoints.items()]
        for title, rows in (
            ("nodes", self.nodes),
            ("targets", self.targets),
            ("deployments", self.deployments),
            ("models", self.models),
        ):
            if rows:
                plain = [k for k, v in rows[0].items() if not isinstance(v, list | dict)]
                yield title, plain, [[_text(row[name]) for name in plain] for row in rows]


def read_status(settings: Settings) -> Status:
    """Look at everything; what cannot be reached becomes a reason, not an error."""
    home = Home.at(settings.home)
    endpoints = Endpoints.of(settings)
    parts = belonging(home, read_state(home).sessions)
    reasons: list[str] = []
    nodes: Sequence[Row] = ()
    targets: Sequence[Row] = ()
    deployments: Sequence[Row] = ()
    state = "stopped"
    if parts:
        health = healthz(endpoints)
        reasons += health.reasons
        wanted = [HEAD, FRONT_DOOR] + ([EDGE] if has_edge_node(settings) else [])
        reasons += [f"{part} does not run" for part in wanted if part not in parts]
        nodes = _try(lambda: _nodes(home, endpoints), reasons)
        deployments = _try(lambda: _deployments(home, endpoints), reasons)
        if health.is_ready:
            targets = _try(lambda: read_targets(settings), reasons)
        state = "failed" if not health.is_ready else "degraded" if reasons else "running"
    return Status(
        state=state,
        reasons=tuple(reasons),
        endpoints={
            "rest": endpoints.rest,
            "grpc": endpoints.grpc,
            "dashboard": endpoints.dashboard,
        },
        nodes=nodes,
        targets=targets,
        deployments=deployments,
        models=_models(home),
    )


def read_targets(settings: Settings) -> list[dict[str, Any]]:
    """Return the gateway's target table. Raises Unavailable."""
    home = Home.at(settings.home)
    token = issue(
        ensure_signing_key(home), "prime-spark status", ["metrics:read"], OWN_TOKEN_S, time.time()
    )
    document = get_json(f"{Endpoints.of(settings).rest}/v2/prime-spark/targets", token)
    targets: list[dict[str, Any]] = document["targets"]
    return targets


def read_deployments(settings: Settings) -> Sequence[Row]:
    """Return Serve's deployments and how many replicas each has. Raises Unavailable."""
    return _deployments(Home.at(settings.home), Endpoints.of(settings))


def _nodes(home: Home, endpoints: Endpoints) -> Sequence[Row]:
    found = _dashboard(home, endpoints, "/api/v0/nodes?detail=1")["data"]["result"]["result"]
    rows = [
        {
            "name": node["node_name"],
            "tier": node["labels"].get(TIER_LABEL, ""),
            "site": node["labels"].get(SITE_LABEL, ""),
            "state": str(node["state"]).lower(),
            "address": node["node_ip"],
            "id": str(node["node_id"])[:12],
        }
        for node in found
    ]
    return sorted(rows, key=lambda row: (row["state"] != "alive", row["name"]))


def _deployments(home: Home, endpoints: Endpoints) -> Sequence[Row]:
    document = _dashboard(home, endpoints, "/api/serve/applications/")
    return [
        {
            "application": application,
            "deployment": name,
            "state": str(deployment["status"]).lower(),
            "replicas": len(deployment["replicas"]),
        }
        for application, found in sorted(document["applications"].items())
        for name, deployment in sorted(found["deployments"].items())
    ]


def _models(home: Home) -> Sequence[Row]:
    registry = EmbeddedRegistry(home.registry)
    _, entries = registry.serving()
    return [
        {
            "model": entry.model,
            "version": entry.version,
            "placement": ",".join(sorted(entry.placements)),
        }
        for entry in entries
    ]


def _dashboard(home: Home, endpoints: Endpoints, path: str) -> Any:
    try:
        token = home.ray_token.read_text("ascii").strip()
    except OSError:
        raise Unavailable("Ray's token cannot be read") from None
    return get_json(endpoints.dashboard + path, token)


def _try(read: Any, reasons: list[str]) -> Sequence[Row]:
    try:
        rows: Sequence[Row] = read()
    except (PrimeSparkError, KeyError, TypeError) as error:
        reasons.append(
            f"{error}" if isinstance(error, PrimeSparkError) else f"unexpected: {error!r}"
        )
        return ()
    return rows


def _text(value: object) -> str:
    return "" if value is None else str(value)
