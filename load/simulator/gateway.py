"""A simulated gateway: what it knows of the targets, one table for each model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from load.simulator.place import Place
from load.simulator.world import World
from policies.routing import Load, RoutingTable, Target


class Gateway:
    """One of the gateways of a site. ways_s: to each target, there and back."""

    def __init__(
        self, site: str, world: World, places: Mapping[str, Place], models: Sequence[str]
    ) -> None:
        self.site = site
        self.open = 0
        self.free_at = 0.0
        self.turns = 0
        self.ways_s = {name: world.way_s(site, place.spec) for name, place in places.items()}
        self.tables = {model: self._table(world, places, model) for model in models}

    def works(self, now: float, seconds: float) -> float:
        """Return when it has done so much work that came now, after what it has to do before."""
        self.free_at = max(now, self.free_at) + seconds
        return self.free_at

    def _table(self, world: World, places: Mapping[str, Place], model: str) -> RoutingTable:
        targets: list[Target] = []
        for name, place in places.items():
            spec = place.spec
            usual_s = spec.base_s * spec.usual_work(model)
            if spec.serves(model):
                targets.append(
                    Target(
                        name,
                        spec.tier,
                        spec.site,
                        zone=world.zones.get(spec.site, ""),
                        is_up=bool(place.present(0.0)),
                        rtt_s=self.ways_s[name],
                        service_s=usual_s,
                        row_s=usual_s,
                        prior_s=usual_s if spec.prior_s is None else spec.prior_s,
                        usd_per_s=spec.usd_per_s,
                        usd_per_byte=spec.usd_per_byte,
                    )
                )
        return RoutingTable(targets)

    def heard(self, name: str, loads: Mapping[str, Load], at: float) -> None:
        """Take in a report of a target: who reports is there."""
        for model, load in loads.items():
            table = self.tables[model]
            table.heard(name, load, at)
            if not table[name].is_up:
                table.change(name, is_up=True)

    def check(self, now: float, silence_s: float) -> None:
        """Take for dead who has not reported for so long."""
        for table in self.tables.values():
            for target in table.targets:
                if target.is_up and now - target.heard_at > silence_s:
                    table.change(target.name, is_up=False)
