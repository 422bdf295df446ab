"""What the gateway knows of sites: where they are, who may use them, how far away they are."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from cluster.settings import Settings
from cluster.sites import ResidencyRule, SiteSettings
from policies.geography import (
    Measurements,
    RttEstimate,
    estimate,
    great_circle_rtt_s,
    nearest,
    zones_of,
)
from policies.routing import Target
from serve_apps.gateway.geoip import GeoIp


class Origin(NamedTuple):
    """Where a request comes from.

    source: `caller` (it said so), `geoip`, `gateway` (nobody knows better than where it came in),
    or empty for unknown.
    """

    site: str | None = None
    source: str = ""


class Geography:
    """The sites of the settings around one gateway, and the round trips it measured.

    here: the gateway's own site; geoip: tells where callers are, nobody is looked up without it;
    within_km: how far from a site a caller still belongs to it.
    """

    def __init__(
        self,
        here: str = "",
        sites: Sequence[SiteSettings] = (),
        residency: Sequence[ResidencyRule] = (),
        geoip: GeoIp | None = None,
        within_km: float = 1000.0,
    ) -> None:
        self.here = here
        self.sites = {site.name: site for site in sites}
        self.geoip = geoip
        self._within_km = within_km
        self._places = {site.name: where for site in sites if (where := site.position) is not None}
        self._residency = {rule.tenant: frozenset(rule.zones) for rule in residency}
        self._measurements = Measurements()
        own = self._places.get(here)
        self._priors_s = (
            {}
            if own is None
            else {name: great_circle_rtt_s(own, there) for name, there in self._places.items()}
        )

    @classmethod
    def of(cls, settings: Settings) -> Geography:
        """Return that of the settings. Raises what `GeoIp` does, when a database is set."""
        database = settings.geoip.database
        return cls(
            settings.site,
            settings.sites,
            settings.residency,
            None if database is None else GeoIp(database),
            settings.geoip.within_km,
        )

    def settled(self, target: Target) -> Target:
        """Return a target with what the settings say of its site, and how far it may be.

        The zone of a site that the settings do not name is empty, and no rule allows that.
        """
        site = self.sites.get(target.site)
        prior_s = self._priors_s.get(target.site)
        if prior_s is not None and not target.rtt_s:
            target = target._replace(rtt_s=prior_s)
        if site is None:
            return target
        tenants = None if site.tenants is None else frozenset(site.tenants)
        return target._replace(zone=site.zone or "", tenants=tenants)

    def zones(self, tenant: str) -> frozenset[str] | None:
        """Return where a tenant's requests may be computed; None for anywhere."""
        return zones_of(tenant, self._residency)

    def origin(self, said: str | None, address: str) -> Origin:
        """Return where a request comes from: what its caller said, else by its address.

        Else it comes from the gateway's own site: its bytes are there in any case.
        """
        if said is not None:
            return Origin(said, "caller")
        if self.geoip is not None and address:
            where = self.geoip.position(address)
            site = None if where is None else nearest(where, self._places, self._within_km)
            if site is not None:
                return Origin(site, "geoip")
        return Origin(self.here, "gateway") if self.here else Origin()

    def measured(self, site: str, rtt_s: float, at: float) -> None:
        """Take in a round trip from here to a site; at: on the clock of `estimate`."""
        self._measurements.add(self.here, site, rtt_s, at)

    def estimate(self, site: str, now: float) -> RttEstimate:
        """Return how far a site is from here, and how that is known."""
        measured = self._measurements.between(self.here, site)
        return estimate(measured, self._priors_s.get(site), now)
