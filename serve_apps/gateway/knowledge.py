"""What the gateway knows of its targets for routing: a table for each model version."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from edge_runtime.engine import LoadReport
from policies.cost import Rates
from policies.routing import RoutingTable, Target
from policies.routing.types import NO_WORK
from serve_apps.gateway.geography import Geography

Key = tuple[str, str]


def place(name: str, tier: str, site: str, rates: Rates, *, is_up: bool = True) -> Target:
    """Return a place as it is before anything is heard of it, with its prices."""
    return Target(
        name,
        tier,
        site,
        is_up=is_up,
        usd_per_s=rates.usd_per_s,
        usd_per_byte=rates.egress_usd_per_byte,
    )


class Knowledge:
    """The routing tables of all versions that some target has loaded; on one event loop."""

    def __init__(self, geography: Geography | None = None) -> None:
        self._geography = geography or Geography()
        self._places: dict[str, Target] = {}
        self._tables: dict[Key, RoutingTable] = {}
        self.sleepers: frozenset[str] = frozenset()

    def add(self, place: Target) -> None:
        """Take in a place, before anything is heard of it."""
        self._places[place.name] = self._geography.settled(place)._replace(has_model=False)
        for table in self._tables.values():
            table.add(self._places[place.name])

    def table(self, key: Key) -> RoutingTable:
        """Return what is known for one version; no target has it where nothing was heard of it."""
        found = self._tables.get(key)
        if found is None:
            found = RoutingTable(self._places.values())
            if self.sleepers:  # one of them is going to have it, and somebody may wait for that
                self._tables[key] = found
        return found

    def change(self, name: str, **values: Any) -> None:
        """Replace fields of a target in all tables."""
        self._places[name] = self._places[name]._replace(**values)
        for table in self._tables.values():
            table.change(name, **values)

    def asleep(self, name: str, start_s: float, at: float) -> None:
        """Take in that a target sleeps, and what its start would take now.

        What it will have loaded nobody knows before; it is taken to have all that is asked for.
        """
        if name not in self.sleepers:
            self.sleepers |= {name}
            self.change(name, has_model=True)
        for table in self._tables.values():
            table.asleep(name, start_s, at)
        alone = RoutingTable((self._places[name],))
        alone.asleep(name, start_s, at)
        self._places[name] = alone[name]

    def woke(self, name: str) -> None:
        """Take in that a target sleeps no more; what it has loaded is said with `heard`."""
        self.sleepers -= {name}
        self.change(name, is_asleep=False)
        self._places[name] = self._places[name]._replace(has_model=False, ahead_s=NO_WORK)

    def measured(self, name: str, rtt_s: float, at: float) -> None:
        """Take in a round trip to a target; what it is for routing is said with `change`."""
        self._geography.measured(self._places[name].site, rtt_s, at)

    def heard(self, name: str, loads: Mapping[Key, LoadReport], at: float) -> None:
        """Take in a report of everything that a target has loaded; what is not in it is gone."""
        for key, load in loads.items():
            table = self._tables.get(key)
            if table is None:
                table = self._tables[key] = RoutingTable(self._places.values())
            if not table[name].has_model:
                table.change(name, has_model=True)
            table.heard(name, load.for_routing(), at)
        for key in [key for key in self._tables if key not in loads]:
            table = self._tables[key]
            if table[name].has_model:
                table.change(name, has_model=False)
            if not any(target.has_model or target.outstanding for target in table.targets):
                del self._tables[key]

    def saw(self, name: str, key: Key, load: LoadReport | None, at: float) -> None:
        """Take in how one version is at a target now; None where it is not loaded."""
        table = self._tables.get(key)
        if table is None:
            if load is None:
                return
            table = self._tables[key] = RoutingTable(self._places.values())
        if table[name].has_model != (load is not None):
            table.change(name, has_model=load is not None)
        if load is not None:
            table.heard(name, load.for_routing(), at)
        elif not any(target.has_model or target.outstanding for target in table.targets):
            del self._tables[key]
