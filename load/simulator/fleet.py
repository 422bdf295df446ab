"""A fleet as a YAML file: what `--fleet` reads, and what an estimate writes.

Places are what gateways choose among. Times are milliseconds, as people say them; the file's
example with every key is in docs/how-to/what-if.md.
"""

from __future__ import annotations

import difflib
import re
import statistics
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Self

import yaml
from pydantic import BaseModel, Field, ValidationError, model_validator

from edge_runtime.config import Section
from edge_runtime.errors import InvalidInput, NotFound
from load.simulator.service import Service, Times
from load.simulator.world import Cut, NodeSpec, Start, Throttle, World
from policies.routing.sizes import bucket

Positive = Annotated[float, Field(gt=0)]
NotNegative = Annotated[float, Field(ge=0)]
Count = Annotated[int, Field(ge=1, le=1000)]
Name = Annotated[str, Field(min_length=1, max_length=200)]
Quantiles = Annotated[list[Positive], Field(min_length=1)]
Measured = Positive | dict[int, Positive | Quantiles]

_GB = 1e9
_HOUR_S = 3600.0


class PlaceFile(Section):
    """A target: `replicas` that compute one batch of up to `max_batch` at a time.

    service_ms: of a usual request of any model; or by model; or by model and size in bytes, as one
    number or as quantiles at even ranks from the least to the greatest. Models that are not named
    are not served. fixed: the share of a batch's time that does not grow with it. way_ms: there and
    back from every gateway; by the sites when left out.
    """

    name: Name
    tier: Name
    site: Name
    service_ms: Positive | dict[str, Measured]
    replicas: Count = 1
    max_batch: Count = 1
    fixed: Annotated[float, Field(ge=0, le=1)] = 0.55
    way_ms: NotNegative | None = None
    usd_per_hour: NotNegative = 0.0
    usd_per_gb: NotNegative = 0.0

    def nodes(self) -> Iterator[NodeSpec]:
        """Yield its replicas."""
        services = _services(self.service_ms)
        base_ms = self.service_ms if isinstance(self.service_ms, float) else None
        base_s = (
            base_ms / 1e3
            if base_ms is not None
            else statistics.median(service.usual_s for service in services.values())
        )
        for number in range(1, self.replicas + 1):
            yield NodeSpec(
                self.name if number == 1 else f"{self.name}#{number}",
                self.site,
                self.tier,
                base_s,
                self.max_batch,
                self.fixed,
                usd_per_s=self.usd_per_hour / _HOUR_S,
                usd_per_byte=self.usd_per_gb / _GB,
                place=self.name,
                services=services,
                way_s=None if self.way_ms is None else self.way_ms / 1e3,
            )


class PairFile(Section):
    """Time on the way between two sites, there and back."""

    sites: Annotated[list[Name], Field(min_length=2, max_length=2)]
    ms: NotNegative


class WaysFile(Section):
    """Time on the way, there and back, where no pair says it. The cloud is the site `cloud`."""

    own_site: NotNegative = 3.0
    other_site: NotNegative = 40.0
    cloud: NotNegative = 60.0
    pairs: tuple[PairFile, ...] = ()


class DeadlineFile(Section):
    """A share of the requests, and the time that they have."""

    share: Positive
    ms: Positive


class ThrottleFile(Section):
    """A place that is slower by a factor for a time; every_s: time and again."""

    place: Name
    factor: Positive
    from_s: NotNegative
    for_s: Positive
    every_s: NotNegative = 0.0


class CutFile(Section):
    """A site that does not reach another one, or none when `other` is left out."""

    site: Name
    from_s: NotNegative
    for_s: Positive
    other: str = ""


class StartFile(Section):
    """One more replica of a place, started at from_s; it serves cold_s later."""

    place: Name
    from_s: NotNegative
    cold_s: NotNegative


class FleetFile(Section):
    """Gateways, places, ways, faults. gateways: how many at each site that has some.

    deadlines: of requests whose trace says none. spread: of times that are one number, as the
    standard deviation of their logarithm. report_ms: between reports of a place; lost_ms: until the
    sender of a message that vanished notices; dead_ms: of silence until a place counts as dead.
    """

    gateways: Annotated[dict[str, Count], Field(min_length=1)]
    places: Annotated[list[PlaceFile], Field(min_length=1)]
    ways_ms: WaysFile = WaysFile()
    deadlines: Annotated[tuple[DeadlineFile, ...], Field(min_length=1)] = (
        DeadlineFile(share=0.7, ms=150.0),
        DeadlineFile(share=0.3, ms=1000.0),
    )
    spread: NotNegative = 0.05
    report_ms: Positive = 400.0
    lost_ms: Positive = 1200.0
    dead_ms: Positive = 2000.0
    throttles: tuple[ThrottleFile, ...] = ()
    cuts: tuple[CutFile, ...] = ()
    starts: tuple[StartFile, ...] = ()

    @model_validator(mode="after")
    def _fits(self) -> Self:
        names = [place.name for place in self.places]
        for name in names:
            if names.count(name) > 1:
                raise ValueError(f"two places are named '{name}'")
        named = [*(one.place for one in self.throttles), *(one.place for one in self.starts)]
        for name in named:
            if name not in names:
                raise ValueError(f"there is no place '{name}', only {', '.join(names)}")
        sites = sorted({*self.gateways, *(place.site for place in self.places)})
        for cut in self.cuts:
            for site in (cut.site, cut.other):
                if site and site not in sites:
                    raise ValueError(f"there is no site '{site}', only {', '.join(sites)}")
        return self

    def world(self) -> World:
        """Return what is to be simulated."""
        nodes = [node for place in self.places for node in place.nodes()]
        starts: list[Start] = []
        for number, start in enumerate(self.starts, 1):
            place = next(place for place in self.places if place.name == start.place)
            first = next(place.nodes())
            name = f"{first.name}#start-{number}"
            nodes.append(NodeSpec(**{**vars(first), "name": name}))
            starts.append(Start(name, start.from_s, start.cold_s))
        return World(
            tuple(self.gateways),
            tuple(nodes),
            own_rtt_s=self.ways_ms.own_site / 1e3,
            other_rtt_s=self.ways_ms.other_site / 1e3,
            cloud_rtt_s=self.ways_ms.cloud / 1e3,
            classes=tuple((one.share, one.ms / 1e3) for one in self.deadlines),
            spread=self.spread,
            report_s=self.report_ms / 1e3,
            lost_s=self.lost_ms / 1e3,
            dead_s=self.dead_ms / 1e3,
            throttles=tuple(
                Throttle(one.place, one.from_s, one.from_s + one.for_s, one.factor, one.every_s)
                for one in self.throttles
            ),
            cuts=tuple(
                Cut(one.site, one.from_s, one.from_s + one.for_s, one.other) for one in self.cuts
            ),
            starts=tuple(starts),
            gateways=dict(self.gateways),
            rtts={frozenset(pair.sites): pair.ms / 1e3 for pair in self.ways_ms.pairs},
        )


def read_fleet(path: Path) -> FleetFile:
    """Read a fleet. Raises NotFound, or InvalidInput naming the key that is wrong."""
    try:
        found = yaml.safe_load(path.read_text("utf-8"))
    except FileNotFoundError:
        raise NotFound(f"there is no fleet file '{path}'", field="fleet") from None
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise InvalidInput(f"'{path}' cannot be read: {error}", field="fleet") from None
    return parse_fleet(found, str(path))


def parse_fleet(found: object, source: str) -> FleetFile:
    """Check a fleet. Raises InvalidInput naming the key that is wrong."""
    if not isinstance(found, Mapping):
        raise InvalidInput(f"{source} must hold keys and values", field="fleet")
    try:
        return FleetFile.model_validate(found)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"] if not _UNION.match(str(part)))
        if first["type"] == "extra_forbidden":
            raise InvalidInput(
                f"{source} has an unknown key '{key}'", field=key, hint=_nearest(key)
            ) from None
        message = first["msg"].removeprefix("Value error, ")
        where = f": '{key}'" if key else ""
        raise InvalidInput(f"{source}{where}: {message}", field=key or "fleet") from None


def fleet_text(fleet: FleetFile) -> str:
    """Return a fleet as the YAML that `read_fleet` reads."""
    document = fleet.model_dump(mode="json", exclude_defaults=True)
    return yaml.safe_dump(document, sort_keys=False, default_flow_style=None, width=100)


def _services(service_ms: float | Mapping[str, Any]) -> dict[str, Service]:
    if isinstance(service_ms, int | float):
        return {}
    found: dict[str, Service] = {}
    for model, measured in service_ms.items():
        by_size = measured if isinstance(measured, Mapping) else {0: measured}
        by_bucket = {
            bucket(size): Times(tuple(one / 1e3 for one in (ms if isinstance(ms, list) else [ms])))
            for size, ms in sorted(by_size.items())
        }
        usual_s = statistics.median(times.median for times in by_bucket.values())
        found[model] = Service(usual_s, by_bucket)
    return found


_SECTIONS: tuple[type[BaseModel], ...] = (
    FleetFile,
    PlaceFile,
    WaysFile,
    PairFile,
    DeadlineFile,
    ThrottleFile,
    CutFile,
    StartFile,
)
# What pydantic puts into a key's path for the form of a value that it tried.
_UNION = re.compile(r"(constrained-|dict\[|list\[|float$)")


def _nearest(key: str) -> str:
    known = sorted({name for section in _SECTIONS for name in section.model_fields})
    leaf = key.rpartition(".")[2]
    found = difflib.get_close_matches(leaf, known, n=1, cutoff=0.5)
    return f"did you mean '{found[0]}'?" if found else "keys are " + ", ".join(known)
