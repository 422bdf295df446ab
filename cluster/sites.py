"""The part of the settings that says where sites are and where data may go.

Sites have names of their own, so they are a list of objects, not keys: the settings file has it as
YAML, a variable or a flag as text in the same form (`PRIME_SPARK_SITES='[{name: lab, ...}]'`).
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import Annotated, Any, Self

import yaml
from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from edge_runtime.addresses import gateway_url
from edge_runtime.config import Place, Section, SiteName
from edge_runtime.errors import InvalidInput
from policies.geography import Position

ZoneName = SiteName
Tenant = Annotated[str, Field(min_length=1, max_length=256)]


def _url(text: str) -> str:
    try:
        return gateway_url(text)
    except InvalidInput as error:
        raise ValueError(error.message + (f"; {error.hint}" if error.hint else "")) from None


def _read(value: object) -> object:
    """Read what a variable or a flag says; the file has been read already."""
    if not isinstance(value, str):
        return value
    try:
        return yaml.safe_load(value) or ()
    except yaml.YAMLError:
        raise ValueError("it is no list in YAML or JSON") from None


class Entry(Section):
    """One object of a list; an unknown name in it is an error that says which one is nearest."""

    @model_validator(mode="before")
    @classmethod
    def _has_known_names(cls, value: Any) -> Any:
        for name in value if isinstance(value, dict) else ():
            if name not in cls.model_fields:
                nearest = difflib.get_close_matches(str(name), cls.model_fields, n=1, cutoff=0.5)
                meant = f"did you mean '{nearest[0]}'?" if nearest else _listed(cls.model_fields)
                raise ValueError(f"unknown name '{name}'; {meant}")
        return value


class SiteSettings(Entry):
    """A site. latitude, longitude: WGS 84 degrees; zone: where its data rests, as a law sees it;
    gateways: REST addresses of its front doors; tenants: whom its targets serve, everybody if None.
    """

    name: SiteName
    latitude: Annotated[float, Field(ge=-90, le=90)] | None = None
    longitude: Annotated[float, Field(ge=-180, le=180)] | None = None
    zone: ZoneName | None = None
    gateways: tuple[Annotated[str, AfterValidator(_url)], ...] = ()
    tenants: tuple[Tenant, ...] | None = None

    @model_validator(mode="after")
    def _has_both_coordinates(self) -> Self:
        if (self.latitude is None) != (self.longitude is None):
            raise ValueError(f"site '{self.name}' needs latitude and longitude, or neither")
        return self

    @property
    def position(self) -> Position | None:
        if self.latitude is None or self.longitude is None:
            return None
        return Position(self.latitude, self.longitude)


class ResidencyRule(Entry):
    """Where a tenant's requests may be computed; tenant `*`: everybody without a rule."""

    tenant: Tenant
    zones: tuple[ZoneName, ...]


class GeoIpSettings(Section):
    """database: a file in the MaxMind DB format that says where addresses are; without it nobody is
    looked up. within_km: a caller belongs to the nearest site that is not farther than this.
    """

    database: Place | None = None
    within_km: Annotated[float, Field(gt=0)] = 1000.0


def _are_distinct(sites: tuple[SiteSettings, ...]) -> tuple[SiteSettings, ...]:
    _no_twice((site.name for site in sites), "site")
    _no_twice((url for site in sites for url in site.gateways), "gateway")
    return sites


def _one_rule_each(rules: tuple[ResidencyRule, ...]) -> tuple[ResidencyRule, ...]:
    _no_twice((rule.tenant for rule in rules), "tenant")
    return rules


Sites = Annotated[tuple[SiteSettings, ...], BeforeValidator(_read), AfterValidator(_are_distinct)]
Residency = Annotated[
    tuple[ResidencyRule, ...], BeforeValidator(_read), AfterValidator(_one_rule_each)
]


def check_zones(sites: Iterable[SiteSettings], residency: Iterable[ResidencyRule]) -> None:
    """Raise ValueError for a rule about a zone in which there is no site: a slip of the pen."""
    zones = {site.zone for site in sites if site.zone is not None}
    for rule in residency:
        for zone in rule.zones:
            if zone not in zones:
                nearest = difflib.get_close_matches(zone, zones, n=1, cutoff=0.5)
                meant = f"; did you mean '{nearest[0]}'?" if nearest else ""
                raise ValueError(
                    f"residency of tenant '{rule.tenant}': no site is in zone '{zone}'{meant}"
                )


def _no_twice(names: Iterable[str], what: str) -> None:
    seen: set[str] = set()
    for name in names:
        if name in seen:
            raise ValueError(f"{what} '{name}' is there twice")
        seen.add(name)


def _listed(names: Iterable[str]) -> str:
    return "there are " + ", ".join(names)
