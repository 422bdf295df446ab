"""What a place costs, and what one request cost there.

A request pays for the time it computes (replica), for what it moves over the border of a site
(egress), for the energy of that time, and, where a price is set, for the carbon of that energy.
Every part is a price times a quantity, so that costs of requests may be added up, and a request
that does more never costs less. The operational part of the Software Carbon Intensity
specification (Green Software Foundation, 2022: energy times intensity) is what carbon means here;
what making the machine emitted is left out.

The power of a busy place is charged in full to what computes there, its idle power to nobody: it
is drawn whatever routing decides. `standing` says what idling costs.
"""

from __future__ import annotations

from typing import Final, NamedTuple

PARTS: Final = ("replica", "egress", "energy", "carbon")
JOULES_PER_KWH: Final = 3.6e6


class Rates(NamedTuple):
    """Prices of one place, in dollars; none is negative.

    replica_usd_per_s: of a replica that computes; egress_usd_per_byte: of what comes there from
    another site, or goes back; busy_w, idle_w: power; energy_usd_per_j: 0 where the energy is in
    the replica's price; carbon_g_per_j: grams of CO2 equivalent; carbon_usd_per_g: 0 where carbon
    has no price.
    """

    replica_usd_per_s: float = 0.0
    egress_usd_per_byte: float = 0.0
    busy_w: float = 0.0
    idle_w: float = 0.0
    energy_usd_per_j: float = 0.0
    carbon_g_per_j: float = 0.0
    carbon_usd_per_g: float = 0.0

    @property
    def usd_per_s(self) -> float:
        """All that a second of computing costs, which is what routing weighs."""
        per_joule = self.energy_usd_per_j + self.carbon_g_per_j * self.carbon_usd_per_g
        return self.replica_usd_per_s + self.busy_w * per_joule


class Cost(NamedTuple):
    """What something cost: dollars by part, joules, and grams of CO2 equivalent."""

    replica: float = 0.0
    egress: float = 0.0
    energy: float = 0.0
    carbon: float = 0.0
    joules: float = 0.0
    carbon_g: float = 0.0

    @property
    def usd(self) -> float:
        return self.replica + self.egress + self.energy + self.carbon

    def plus(self, other: Cost) -> Cost:
        """Return both together."""
        replica, egress, energy, carbon, joules, carbon_g = other
        return Cost(
            self.replica + replica,
            self.egress + egress,
            self.energy + energy,
            self.carbon + carbon,
            self.joules + joules,
            self.carbon_g + carbon_g,
        )


FREE: Final = Cost()


def cost_of(rates: Rates, work_s: float, away_bytes: float) -> Cost:
    """Return what work_s seconds of computing and away_bytes over a site's border cost.

    Neither may be negative; requests that share a run share its seconds.
    """
    return _powered(
        rates,
        rates.busy_w * work_s,
        rates.replica_usd_per_s * work_s,
        rates.egress_usd_per_byte * away_bytes,
    )


def standing(rates: Rates, idle_s: float) -> Cost:
    """Return what a place costs that is there for idle_s seconds and computes nothing."""
    return _powered(rates, rates.idle_w * idle_s, rates.replica_usd_per_s * idle_s, 0.0)


def _powered(rates: Rates, joules: float, replica: float, egress: float) -> Cost:
    carbon_g = rates.carbon_g_per_j * joules
    energy = rates.energy_usd_per_j * joules
    return Cost(replica, egress, energy, rates.carbon_usd_per_g * carbon_g, joules, carbon_g)
