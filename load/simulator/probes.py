"""Probes of the simulator's gateways: what `prequal` asks places, with time and loss on the way.

A probe takes the way there and back and is answered at once, by what is in flight then and by what
requests of late took with about as many. What is sent into a cut, or answered into it, is lost.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping
from typing import Any

from load.simulator.gateway import Gateway
from load.simulator.jobs import Job
from load.simulator.place import Place
from policies.routing import Request, RoutingTable
from policies.routing.prequal import IDLE_S, Probe, RecentLatencies, to_probe


class Probes:
    """count: sent with each request, 0 for none."""

    def __init__(
        self,
        count: int,
        places: Mapping[str, Place],
        *,
        at: Callable[[float, Callable[..., None], Any], None],
        half_way: Callable[[Gateway, str, float], float | None],
    ) -> None:
        """half_way: seconds from a gateway to a target, None while they are cut off."""
        self._count = count
        self._places = places
        self._at = at
        self._half_way = half_way
        self._latencies: defaultdict[tuple[str, str], RecentLatencies] = defaultdict(
            RecentLatencies
        )  # by target and model
        self._came: dict[int, tuple[int, float]] = {}  # by job: in flight then, when it came
        self._idle_turns = 0

    def ask(self, gateway: Gateway, model: str, request: Request, now: float) -> None:
        """Send the probes that go with a request."""
        if not self._count:
            return
        for name in to_probe(request, gateway.tables[model].targets, self._count):
            way_s = self._half_way(gateway, name, now)
            if way_s is not None:
                self._at(now + way_s, self._asked, (gateway, model, name))

    def ask_if_idle(self, gateway: Gateway, now: float) -> None:
        """Send probes without a request, where none came for a while."""
        if not self._count:
            return
        for model, table in gateway.tables.items():
            if now - table.probes.probed_at > IDLE_S:
                self._idle_turns += 1
                self.ask(gateway, model, Request(1.0, draw=self._idle_turns), now)

    def came(self, job: Job, place: Place, now: float) -> None:
        """Note that a job has come to a target."""
        if self._count:
            self._came[id(job)] = (place.in_flight(now), now)

    def went(self, job: Job, place: Place, now: float) -> None:
        """Note that it was computed there."""
        if self._count:
            rif, since = self._came.pop(id(job))
            self._latencies[place.name, job.model].took(rif, now - since)

    def _asked(self, now: float, value: tuple[Gateway, str, str]) -> None:
        gateway, model, name = value
        way_s = self._half_way(gateway, name, now)
        if way_s is not None:
            rif = self._places[name].in_flight(now)
            probe = self._latencies[name, model].probe(rif)
            self._at(now + way_s, self._heard, (gateway.tables[model], name, probe))

    def _heard(self, now: float, value: tuple[RoutingTable, str, Probe]) -> None:
        table, name, probe = value
        table.probed(name, probe, now)
