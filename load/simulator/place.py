"""A target of the gateways: the replicas that serve behind one name.

Which replica gets a request is settled as in the product, by the fewest requests
(`policies.routing.replicas`), but of all gateways together: each of the product's counts its own.
What the target reports is the mean of its replicas, as the product's gateway makes it of theirs.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from load.simulator.jobs import Job
from load.simulator.node import Node
from policies.routing import Load
from policies.routing.draws import uniform
from policies.routing.replicas import by_length

_SALT: Final = 101  # apart from what rules draw


class Place:
    """Replicas of one name; all of one site and tier. starts_at: by node, 0 from the beginning."""

    def __init__(self, nodes: Sequence[Node]) -> None:
        self.nodes = nodes
        self.spec = nodes[0].spec
        self.name = self.spec.target

    def present(self, now: float) -> list[Node]:
        """Return the replicas that are there."""
        return [node for node in self.nodes if node.starts_at <= now]

    def pick(self, job: Job, now: float, draw: int) -> Node:
        """Return the replica that gets a request; the first to come where none is there yet."""
        nodes = self.present(now)
        if len(nodes) < 2:
            return nodes[0] if nodes else min(self.nodes, key=lambda node: node.starts_at)
        first = int(uniform(draw, _SALT + job.attempts) * len(nodes))
        return nodes[by_length([node.length for node in nodes], first)[0]]

    def cancel(self, job: Job) -> None:
        """Take a request out of the queue in which it waits, if it does."""
        for node in self.nodes:
            node.cancel(job)

    def in_flight(self, now: float) -> int:
        """Return how many requests a replica has, queued and running; the mean of those present."""
        nodes = self.present(now)
        return round(sum(node.length for node in nodes) / len(nodes)) if nodes else 0

    def load(self, now: float, model: str, alone_s: float = 0.0) -> Load | None:
        """Return what it would report of a model; None where none of it is there."""
        nodes = self.present(now)
        if not nodes:
            return None
        if len(nodes) == 1:
            return nodes[0].load(now, alone_s, model)
        loads = [node.load(now, alone_s, model) for node in nodes]
        count = len(loads)
        return Load(
            queued=sum(load.queued for load in loads),
            running=sum(load.running for load in loads),
            ahead_s=tuple(
                sum(waits) / count for waits in zip(*(load.ahead_s for load in loads), strict=True)
            ),
            service_s=sum(load.service_s for load in loads) / count,
            row_s=sum(load.row_s for load in loads) / count**2,
            busy=sum(load.busy for load in loads) / count,
            alone_s=alone_s,
            idle_s=min(load.idle_s for load in loads),
        )
