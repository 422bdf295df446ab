"""A request log of a fleet whose times are known, as gateways of a cluster would write it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from load.simulator.jobs import Arrival, Replay
from load.simulator.run import Outcomes, Plan, Simulation
from load.simulator.service import Service, Times
from load.simulator.world import NodeSpec, World
from policies.routing import choose
from policies.routing.sizes import bucket

BEGAN = 1_790_000_000.0
SMALL, LARGE = 3_000, 100_000
SIZES = {SMALL: 0.6, LARGE: 0.4}


def times(median_s: float) -> Times:
    """Return times around a median, a little skewed, as of a real place."""
    return Times.of((median_s * np.exp(np.random.default_rng(1).normal(0, 0.1, 400))).tolist())


def service(small_s: float, large_s: float) -> Service:
    by_bucket = {bucket(SMALL): times(small_s), bucket(LARGE): times(large_s)}
    return Service(small_s, by_bucket)


def fleet() -> World:
    """Return a gateway site with a place beside it, an edge box elsewhere, and two cloud lanes."""
    edge = NodeSpec(
        "edge", "plant-1", "edge", 0.030, usd_per_s=1e-6, way_s=0.004,
        services={"digits": service(0.020, 0.040)},
    )  # fmt: skip
    cloud = NodeSpec(
        "cloud", "cloud-1", "cloud", 0.012, usd_per_s=1.5e-4, usd_per_byte=9e-11, way_s=0.002,
        place="cloud", services={"digits": service(0.008, 0.016), "resnet": service(0.030, 0.050)},
    )  # fmt: skip
    return World(
        ("cloud-1",),
        (edge, cloud, replace(cloud, name="cloud#2")),
        gateways={"cloud-1": 2},
        report_s=0.4,
    )


def traffic(seed: int, rate: float, length_s: float, slack_s: float = 0.3) -> Replay:
    rng = np.random.default_rng(seed)
    count = int(rate * length_s)
    at = np.sort(rng.uniform(0.0, length_s, count))
    sizes = rng.choice(list(SIZES), count, p=list(SIZES.values()))
    models = rng.choice(["digits", "resnet"], count, p=[0.8, 0.2])
    return Replay(
        "known",
        [
            Arrival(t, slack_s, size, model, "balanced", "cloud-1", "plant-1")
            for t, size, model in zip(at.tolist(), sizes.tolist(), models.tolist(), strict=True)
        ],
    )


def served(world: World, replay: Replay, seed: int = 1) -> tuple[Outcomes, Simulation]:
    plan = Plan(world, replay, 1.0, choose, None, "edf", drops=True, seed=seed)
    simulation = Simulation(plan)
    return simulation.run(), simulation


def lines(world: World, replay: Replay, *, says_work: bool = False) -> Iterator[dict[str, Any]]:
    """Yield what the gateways would write of it."""
    found, simulation = served(world, replay)
    specs = {node.target: node for node in world.nodes}
    for index, (job, outcome) in enumerate(zip(simulation.jobs, found.outcome, strict=True)):
        spec = specs.get(job.target)
        delay_s = float(found.delay_s[index])
        work_s = job.work * job.surprise * spec.base_s if spec else 0.0
        moved = spec.usd_per_byte * job.moved_bytes if spec and spec.site != "plant-1" else 0.0
        yield {
            "v": 1,
            "at": BEGAN + job.arrived,
            "id": f"r{index}",
            "tenant": "",
            "model": job.model,
            "version": "1",
            "target": job.target,
            "tier": spec.tier if spec else "",
            "site": spec.site if spec else "",
            "reason": "least_cost",
            "objective": job.objective,
            "attempt": 1 if spec else 0,
            "slack_ms": 1e3 * job.slack_s,
            "bytes": job.moved_bytes,
            "origin_site": job.origin_site,
            "expected_ms": 10.0,
            "taken_ms": 1e3 * (delay_s if outcome == "ok" else job.slack_s),
            "late": max(0.0, job.late),
            "outcome": "ok" if outcome == "ok" else "deadline_exceeded",
            "usd": job.cost_usd,
            "parts": {"replica": job.cost_usd - moved, "egress": moved},
            **({"work_ms": 1e3 * work_s} if says_work else {}),
        }


def write(folder: Path, found: Sequence[dict[str, Any]], gateway: str = "gw-0") -> Path:
    """Write a log as the home keeps it."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"requests-{gateway}-{int(BEGAN)}.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in found))
    return path
