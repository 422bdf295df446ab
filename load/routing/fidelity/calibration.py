"""The simulator's parameters, from what a cluster does in a phase that is not judged.

Each place is asked by itself, first by one caller and then by several that ask again as soon as
they are answered. What a caller alone waits is the way and the work; how many runs a busy place
does in a time, and of how many rows, is how long a batch takes: its pace, gaps between runs
included (utilisation law; Denning and Buzen, 1978). A line through those gives what a batch takes
once and what each row adds.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from load.simulator.world import EngineSpec, NodeSpec, World
from serve_apps.gateway.targets import CALLS

_MAD: float = 1.4826  # of a normal distribution: standard deviation over median deviation


@dataclass(frozen=True, slots=True)
class Alone:
    """One caller at a place, seconds. taken: by the gateway's log; client: as the caller saw it;
    computed: mean of a run as the engine saw it.
    """

    taken_s: Sequence[float]
    client_s: Sequence[float]
    computed_s: float


@dataclass(frozen=True, slots=True)
class Busy:
    """Several callers at a place for a while: runs in it, and the rows of all of them."""

    passed_s: float
    runs: int
    rows: int


@dataclass(frozen=True, slots=True)
class PlaceParameters:
    """See `NodeSpec`, `EngineSpec`. base_s: of a batch of one row; fixed: its share that a batch
    takes once; spread: of the logarithm of run times.
    """

    name: str
    tier: str
    site: str
    base_s: float
    fixed: float
    spread: float
    way_s: float
    workers: int
    is_serial: bool
    usd_per_s: float
    usd_per_byte: float


@dataclass(frozen=True, slots=True)
class Parameters:
    """door_s: from the client to the gateway's decision and back, its own work included;
    gateway_s: of that, what it does for one request after another; report_s: between reports.
    """

    places: tuple[PlaceParameters, ...]
    door_s: float
    gateway_s: float
    report_s: float
    gateway_site: str
    max_batch: int

    def document(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def of(cls, document: Mapping[str, Any]) -> Parameters:
        """Read what `document` wrote."""
        places = tuple(PlaceParameters(**place) for place in document["places"])
        return cls(**{**document, "places": places})

    @property
    def capacity(self) -> float:
        """Requests a second, without batching."""
        return sum(1.0 / place.base_s for place in self.places)

    @property
    def outside_s(self) -> float:
        """What a request takes before and behind the gateway."""
        return max(0.0, self.door_s - self.gateway_s)

    def world(self, priors_s: Mapping[str, float]) -> World:
        """Return what is to be simulated. priors_s: by place, what the gateway takes it for."""
        beyond_s = max(0.0, self.gateway_s - self.door_s)  # what is not part of the door
        nodes = tuple(
            NodeSpec(
                place.name,
                place.site,
                place.tier,
                place.base_s,
                self.max_batch,
                place.fixed,
                usd_per_s=place.usd_per_s,
                usd_per_byte=place.usd_per_byte,
                way_s=max(0.0, place.way_s - beyond_s),
                prior_s=priors_s[place.name],
                spread=place.spread,
                engine=EngineSpec(place.workers, place.is_serial),
            )
            for place in self.places
        )
        return World(
            (self.gateway_site,),
            nodes,
            report_s=self.report_s,
            gives_up=True,
            calls=CALLS,
            gateway_s=self.gateway_s,
        )


def curve(points: Sequence[tuple[float, float]], weights: Sequence[float]) -> tuple[float, float]:
    """Return the seconds of a batch of one row and the share of them that a batch takes once.

    points: mean rows of a run, seconds of it; weights: runs. The share is from 0 to 1. Raises
    ValueError for points of one size only.
    """
    rows, seconds = np.array(points).T
    if np.ptp(rows) <= 0.0:
        raise ValueError("batches of one size do not tell what a row adds")
    row_s, once_s = np.polyfit(rows, seconds, 1, w=np.sqrt(np.array(weights)))
    base_s = float(row_s + once_s)
    return base_s, min(1.0, max(0.0, float(once_s) / base_s))


def spread_of(taken_s: Sequence[float], computed_s: float) -> float:
    """Return the usual deviation of a time, as a share of what is computed."""
    middle = statistics.median(taken_s)
    return _MAD * statistics.median(abs(one - middle) for one in taken_s) / computed_s


def place(
    name: str,
    known: Mapping[str, Any],
    alone: Alone,
    busy: Sequence[Busy],
    *,
    is_serial: bool,
    workers: int,
) -> PlaceParameters:
    """Return what was measured of a place. known: what the gateway says of it."""
    points = [(each.rows / each.runs, each.passed_s / each.runs) for each in busy]
    weights = [float(each.runs) for each in busy]
    if not is_serial:  # a caller alone leaves gaps between runs, so its runs are timed instead
        points.append((1.0, alone.computed_s))
        weights.append(float(len(alone.taken_s)))
    base_s, fixed = curve(points, weights)
    return PlaceParameters(
        name=name,
        tier=known["tier"],
        site=known["site"],
        base_s=base_s,
        fixed=fixed,
        spread=spread_of(alone.taken_s, alone.computed_s),
        # Hand-overs to a device and back are in it too: a busy device does not wait for them.
        way_s=max(0.0, statistics.median(alone.taken_s) - base_s),
        workers=workers,
        is_serial=is_serial,
        usd_per_s=known["usd_per_s"],
        usd_per_byte=known["usd_per_byte"],
    )


def door_s(alone: Sequence[Alone]) -> float:
    """Return what a request takes between its client and the gateway's own time of it."""
    return statistics.median(
        statistics.median(each.client_s) - statistics.median(each.taken_s) for each in alone
    )
