"""Requests as they were recorded: when each came, what it was, and what became of it.

A reader (`readers`) makes a `Recording` from a file or from a home's request logs. Lines that
cannot be read are in it too, by file and number, so that nobody takes a part for the whole.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final, NamedTuple

import numpy as np

from edge_runtime.errors import InvalidInput
from load.simulator.jobs import Arrival, Replay
from policies.routing import Objective
from policies.routing.types import OBJECTIVES

DEFAULT_SLACK_S: Final = 30.0  # the product's, for requests that brought no deadline
COLOCATED: Final = "colocated"
CLOUD: Final = "cloud"
OK: Final = "ok"
_COPY_S: Final = 5.0  # around a request, where a copy of it may come


class Recorded(NamedTuple):
    """One request. at: unix seconds, or from any zero; taken_s: None where nothing says it.

    slack_s: to its deadline when it came, None where there was none; place, tier, site: where it
    was served last, empty where nothing says it; insisted: the tier that the caller asked for;
    origin_site: where the caller is. work_s: of computing only; moved_usd: the part of usd that is
    for moving it. attempts: 1 where it worked at once, and then alone do the times say what the
    place takes.
    """

    at: float
    size_bytes: int = 0
    slack_s: float | None = None
    model: str = ""
    objective: Objective = "balanced"
    origin_site: str = ""
    insisted: str | None = None
    gateway: str = ""
    place: str = ""
    tier: str = ""
    site: str = ""
    taken_s: float | None = None
    work_s: float | None = None
    usd: float | None = None
    moved_usd: float | None = None
    outcome: str = OK
    attempts: int = 1

    @property
    def is_miss(self) -> bool:
        """True when there was no answer, or one after the deadline."""
        if self.outcome != OK:
            return True
        if self.taken_s is None or self.slack_s is None:
            return False
        return self.taken_s > self.slack_s


class Problem(NamedTuple):
    """A line that was left out. line: its number from 1."""

    file: str
    line: int
    why: str

    def __str__(self) -> str:
        return f"{self.file} line {self.line}: {self.why}"


@dataclass(frozen=True, eq=False)
class Recording:
    """Requests in order of time. retries: lines that were further attempts of a request."""

    name: str
    requests: Sequence[Recorded]
    problems: Sequence[Problem] = ()
    retries: int = 0
    files: Sequence[str] = field(default_factory=tuple)

    @property
    def duration_s(self) -> float:
        return self.requests[-1].at - self.requests[0].at

    @property
    def objectives(self) -> list[Objective]:
        """The objectives that were in force, the most used first."""
        return [name for name, _ in Counter(r.objective for r in self.requests).most_common()]

    @property
    def says_places(self) -> bool:
        """Whether it says where requests were served and how long that took."""
        return any(r.place and r.taken_s is not None for r in self.requests)

    @property
    def gateway_site(self) -> str:
        """The site of the gateways: that of what they compute themselves, else of the cloud tier,
        which is in one cluster with them, else of most requests. Empty where nothing says it.
        """
        for tiers in ((COLOCATED,), (CLOUD,), None):
            found = Counter(
                r.site or r.origin_site for r in self.requests if tiers is None or r.tier in tiers
            )
            found.pop("", None)
            if found:
                return max(sorted(found), key=lambda site: found[site])
        return ""

    @property
    def gateways(self) -> int:
        return max(1, len({r.gateway for r in self.requests if r.gateway}))

    def replay(
        self,
        seed: int,
        *,
        load: float = 1.0,
        speed: float = 1.0,
        deadlines: Sequence[tuple[float, float]] = ((1.0, DEFAULT_SLACK_S),),
    ) -> Replay:
        """Return the requests to simulate, from time 0.

        load: how many for each of the recorded ones; a copy comes within a few seconds of its
        original, so that bursts stay and do not become one moment. speed: of the clock; the same
        requests come in 1/speed of the time. deadlines: (share, seconds) of requests that had none.
        Raises InvalidInput for a factor that is not above 0.
        """
        if not (0.0 < load < 1e4 and 0.0 < speed < 1e6):
            raise InvalidInput("load and speed are factors above 0", field="scale")
        site, zero = self.gateway_site, self.requests[0].at
        rng = np.random.default_rng((seed, 2))
        extra = rng.random(len(self.requests))
        shares = np.cumsum([share for share, _ in deadlines])
        kinds = np.searchsorted(shares, rng.random(len(self.requests)) * shares[-1], "right")
        found: list[Arrival] = []
        for request, luck, kind in zip(self.requests, extra.tolist(), kinds, strict=True):
            slack_s = request.slack_s
            if slack_s is None:
                slack_s = deadlines[min(int(kind), len(deadlines) - 1)][1]
            copies = int(load) + (luck < load % 1.0)
            for copy in range(copies):
                moved_s = float(rng.uniform(-_COPY_S, _COPY_S)) if copy else 0.0
                at = max(0.0, request.at - zero + moved_s) / speed
                found.append(_arrival(request, at, slack_s, site))
        found.sort(key=lambda arrival: arrival.at)
        if not found:
            raise InvalidInput(f"with a load of {load:g} no request is left", field="scale")
        return Replay(self.name, found)


def _arrival(request: Recorded, at: float, slack_s: float, site: str) -> Arrival:
    return Arrival(
        at,
        slack_s,
        request.size_bytes,
        request.model,
        request.objective,
        site,
        request.origin_site,
        request.insisted,
    )


def recording_of(
    name: str,
    requests: Iterable[Recorded],
    problems: Sequence[Problem],
    *,
    files: Sequence[str],
    retries: int = 0,
) -> Recording:
    """Put requests in order. Raises InvalidInput when there are too few to say anything."""
    ordered = sorted(requests, key=lambda request: request.at)
    if len(ordered) < 2:
        first = f" ({problems[0]})" if problems else ""
        raise InvalidInput(
            f"'{name}' holds fewer than two requests that can be read{first}",
            field="trace",
            hint="docs/how-to/what-if.md says what a trace may be",
        )
    if ordered[-1].at <= ordered[0].at:
        raise InvalidInput(f"all requests of '{name}' came at the same moment", field="trace")
    return Recording(name, ordered, problems, retries, files)


def objective_of(text: str) -> Objective:
    """Return an objective by its name. Raises ValueError."""
    for objective in OBJECTIVES:
        if text == objective:
            return objective
    raise ValueError(f"objective '{text}' is none of {', '.join(OBJECTIVES)}")
