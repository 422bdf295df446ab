"""The price book: what an operator states, and the rates of a place that follow from it.

A price is a stated assumption until an invoice or a meter replaces it, so each one carries its
source and its date. Machines say what a replica costs and draws, grids what its energy costs and
emits; a tier has a machine on a grid, and a site may have others.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from policies.cost.rates import JOULES_PER_KWH, Rates

BYTES_PER_GB: Final = 1e9
GRAMS_PER_TONNE: Final = 1e6


@dataclass(frozen=True, slots=True)
class Price:
    """A figure, not negative, with where it comes from and the day on which that was so."""

    value: float
    source: str = ""
    date: str = ""


@dataclass(frozen=True, slots=True)
class Machine:
    """What runs a replica. Dollars an hour, watts while it computes and while it does not."""

    replica_usd_per_hour: Price
    busy_w: Price
    idle_w: Price


@dataclass(frozen=True, slots=True)
class Grid:
    """Where energy comes from: dollars and grams of CO2 equivalent for a kilowatt-hour."""

    energy_usd_per_kwh: Price
    carbon_g_per_kwh: Price


@dataclass(frozen=True, slots=True)
class Setup:
    """A machine, a grid, and dollars for a gigabyte that crosses the border of the site."""

    machine: str
    grid: str
    egress_usd_per_gb: Price


@dataclass(frozen=True, slots=True)
class SiteSetup:
    """What is different at a site; None: as its tier has it."""

    machine: str | None = None
    grid: str | None = None
    egress_usd_per_gb: Price | None = None


@dataclass(frozen=True, slots=True)
class PriceBook:
    """All of it. carbon_usd_per_tonne: None where carbon is counted, but has no price."""

    machines: Mapping[str, Machine]
    grids: Mapping[str, Grid]
    tiers: Mapping[str, Setup]
    sites: Mapping[str, SiteSetup]
    carbon_usd_per_tonne: Price | None = None

    def setup(self, tier: str, site: str) -> Setup:
        """Return what a tier has at a site. Raises KeyError for a tier that has no prices."""
        usual, here = self.tiers[tier], self.sites.get(site, _AS_USUAL)
        return Setup(
            here.machine or usual.machine,
            here.grid or usual.grid,
            here.egress_usd_per_gb or usual.egress_usd_per_gb,
        )

    def rates(self, tier: str, site: str) -> Rates:
        """Return the rates of a tier at a site. Raises KeyError as `setup` does."""
        found = self.setup(tier, site)
        return self.rates_of(found.machine, found.grid, found.egress_usd_per_gb.value)

    def rates_of(self, machine: str, grid: str, egress_usd_per_gb: float) -> Rates:
        """Return the rates of a machine on a grid. Raises KeyError for one that is not there."""
        runs, power = self.machines[machine], self.grids[grid]
        tonne = self.carbon_usd_per_tonne
        return Rates(
            replica_usd_per_s=runs.replica_usd_per_hour.value / 3600.0,
            egress_usd_per_byte=egress_usd_per_gb / BYTES_PER_GB,
            busy_w=runs.busy_w.value,
            idle_w=runs.idle_w.value,
            energy_usd_per_j=power.energy_usd_per_kwh.value / JOULES_PER_KWH,
            carbon_g_per_j=power.carbon_g_per_kwh.value / JOULES_PER_KWH,
            carbon_usd_per_g=tonne.value / GRAMS_PER_TONNE if tonne else 0.0,
        )


_AS_USUAL: Final = SiteSetup()
