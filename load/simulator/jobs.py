"""The requests of a run: as a trace gives them at each site, or as they were recorded."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

import numpy as np

from load.simulator.trace import Trace
from load.simulator.world import World
from policies.routing import Objective
from policies.routing.sizes import bucket

_MEAN_WORK: Final = (0.6, 0.4, 0.4, 3.0)  # constant, by size, least, most


class Job:
    """A request on its way through the simulation; times are of the simulation.

    base_work: by its size, 1 for a usual request; work, surprise: at the node that has it, what is
    expected there in units of base_s and by how much that is wrong; luck: its rank from 0 to 1 in
    what such requests take, the same wherever it goes. origin: the index of its gateway's site.
    """

    __slots__ = (
        "arrived", "attempts", "base_work", "bucket", "cost_usd", "deadline", "draw", "due",
        "gateway", "late", "luck", "model", "moved_bytes", "objective", "origin", "origin_site",
        "outcome", "sent", "slack_s", "surprise", "target", "tier", "work",
    )  # fmt: skip

    def __init__(
        self, origin: int, arrived: float, slack_s: float, work: float, bucket: int
    ) -> None:
        self.origin = origin
        self.arrived = arrived
        self.slack_s = slack_s
        self.deadline = arrived + slack_s
        self.due = self.deadline  # less the way back
        self.base_work = self.work = work
        self.bucket = bucket
        self.surprise = 1.0
        self.luck = 0.5
        self.model = ""
        self.moved_bytes = 0
        self.objective: Objective = "balanced"
        self.origin_site = ""
        self.tier: str | None = None
        self.gateway: Any = None
        self.sent: Any = None
        self.target = ""
        self.late = -1.0
        self.attempts = 0
        self.draw = 0
        self.cost_usd = 0.0
        self.outcome = ""


class Arrival(NamedTuple):
    """A recorded request. at: seconds from the first; site: of the gateway that had it, empty for
    any of them.

    origin_site: where the caller is; tier: where the caller insisted, None for anywhere.
    """

    at: float
    slack_s: float
    size_bytes: int
    model: str
    objective: Objective
    site: str
    origin_site: str = ""
    tier: str | None = None


@dataclass(frozen=True, eq=False)
class Replay:
    """Recorded requests, in order of arrival. Raises ValueError when there are none."""

    name: str
    requests: Sequence[Arrival]

    def __post_init__(self) -> None:
        if not self.requests:
            raise ValueError("there is nothing to replay")

    @property
    def duration_s(self) -> float:
        return self.requests[-1].at - self.requests[0].at

    @property
    def models(self) -> list[str]:
        return sorted({request.model for request in self.requests})

    def trace(self) -> Trace:
        """Return when requests came and how large they were, without the rest."""
        times = np.array([request.at for request in self.requests])
        sizes = np.array([float(request.size_bytes) for request in self.requests])
        return Trace(self.name, times, sizes)


def recorded(replay: Replay, world: World, seed: int) -> list[Job]:
    """Return the requests of a recording, each with its luck.

    Each comes to a gateway at the caller's own site, else where it was recorded; where there is
    none, the gateways' sites share such requests evenly.
    """
    index = {site: position for position, site in enumerate(world.sites)}
    mean = float(np.mean([request.size_bytes for request in replay.requests])) or 1.0
    rng = np.random.default_rng((seed, 1))
    luck = rng.random(len(replay.requests)).tolist()
    anywhere = rng.integers(0, len(world.sites), len(replay.requests)).tolist()
    jobs: list[Job] = []
    for request, rank, some in zip(replay.requests, luck, anywhere, strict=True):
        origin = index.get(request.origin_site, index.get(request.site, some))
        work = _work(request.size_bytes / mean)
        job = Job(origin, request.at, request.slack_s, work, bucket(request.size_bytes))
        job.luck = rank
        job.model = request.model
        job.objective = request.objective
        job.moved_bytes = request.size_bytes
        # A gateway that was not told where a caller is decides for one that is nowhere.
        job.origin_site = request.origin_site or ("" if request.site else world.sites[origin])
        job.tier = request.tier
        jobs.append(job)
    return jobs


def at_each_site(
    trace: Trace, world: World, utilisation: float, rng: np.random.Generator
) -> list[Job]:
    """Return the trace at each site, begun elsewhere, at the rate that loads the world so much."""
    rate = utilisation * world.capacity / len(world.sites)
    scaled = trace.scaled(rate)
    mean = scaled.sizes.mean() or 1.0
    constant, by_size, least, most = _MEAN_WORK
    begin = float(rng.random())
    jobs: list[Job] = []
    shares = np.cumsum([share for share, _ in world.classes])
    for origin, site in enumerate(world.sites):
        mine = scaled.shifted((begin + origin / len(world.sites)) % 1.0)
        works = np.clip(constant + by_size * mine.sizes / mean, least, most)
        kinds = np.searchsorted(shares, rng.random(len(works)) * shares[-1], "right")
        for at, size, work, kind in zip(
            mine.times.tolist(), mine.sizes.tolist(), works.tolist(), kinds, strict=True
        ):
            slack_s = world.classes[min(int(kind), len(shares) - 1)][1]
            job = Job(origin, at, slack_s, work, bucket(size))
            job.moved_bytes = int(world.bytes_per_work * work)
            job.origin_site = site
            jobs.append(job)
    jobs.sort(key=lambda job: job.arrived)
    return jobs


def _work(relative_size: float) -> float:
    constant, by_size, least, most = _MEAN_WORK
    return min(most, max(least, constant + by_size * relative_size))
