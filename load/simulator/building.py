"""The nodes of a world, as a simulation starts them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np

from load.simulator.engine import EngineNode
from load.simulator.jobs import Job
from load.simulator.node import Node
from load.simulator.place import Place
from load.simulator.world import Discipline, NodeSpec, World


class Calls(NamedTuple):
    """What nodes call: to have something called at a time, and for what becomes of requests."""

    schedule: Callable[[float, Callable[..., None], Any], None]
    finish: Callable[[Node, Sequence[Job], float], None]
    drop: Callable[[Node, Job, float], None]
    refuse: Callable[[Node, Job, float], None]


def node_of(
    spec: NodeSpec, world: World, seed: int, discipline: Discipline, calls: Calls, *, drops: bool
) -> Node:
    """Return a node; one that serves as the product's engine does has an order of its own."""
    throttles = [t for t in world.throttles if t.node in (spec.name, spec.target)]
    starts = [s.begin_s + s.cold_s for s in world.starts if s.node == spec.name]
    starts_at = max(starts, default=0.0)
    rng = np.random.default_rng((seed, len(spec.name), hash_of(spec.name)))
    spread = world.spread if spec.spread is None else spec.spread
    drawn: list[float] = []

    def noise() -> float:
        if spec.services:
            return 1.0  # what was measured has its own spread
        if not drawn:
            drawn.extend(np.exp(spread * rng.standard_normal(512)).tolist())
        return drawn.pop()

    def slowness(now: float) -> float:
        factor = 1.0
        for throttle in throttles:
            if throttle.holds(now):
                factor *= throttle.factor
        return factor

    if spec.engine is not None:
        return EngineNode(
            spec,
            spec.engine,
            slowness=slowness,
            noise=noise,
            schedule=calls.schedule,
            finish=calls.finish,
            drop=calls.drop,
            refuse=calls.refuse,
            starts_at=starts_at,
        )
    return Node(
        spec,
        discipline,
        drops=drops,
        slowness=slowness,
        noise=noise,
        schedule=calls.schedule,
        finish=calls.finish,
        drop=calls.drop,
        starts_at=starts_at,
    )


def places_of(nodes: Iterable[Node]) -> dict[str, Place]:
    """Return the targets that nodes make up, by name."""
    grouped: dict[str, list[Node]] = {}
    for node in nodes:
        grouped.setdefault(node.spec.target, []).append(node)
    return {name: Place(those) for name, those in grouped.items()}


def hash_of(name: str) -> int:
    """Return a number for a name that is the same in every process."""
    value = 0
    for character in name:
        value = (value * 131 + ord(character)) % (1 << 31)
    return value
