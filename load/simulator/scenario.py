"""What is to be replayed: the traffic, the fleet, and what is different from what was recorded."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from importlib import resources
from pathlib import Path
from typing import Any, Final

import yaml

from edge_runtime.errors import InvalidInput
from load.simulator.estimate import Estimate, estimate
from load.simulator.fleet import FleetFile, parse_fleet, read_fleet
from load.simulator.recording import Recorded, Recording

_TIME: Final = re.compile(r"(\d+(?:\.\d+)?)(s|m|h|d)?$")
_SECONDS: Final = {"": 1.0, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
CUT: Final = "SITE:FROM:FOR, or SITE+SITE:FROM:FOR"
THROTTLE: Final = "PLACE:FACTOR:FROM:FOR"
START: Final = "PLACE:FROM:COLD"


@dataclass(frozen=True)
class Changes:
    """What is different. load, speed: see `Recording.replay`; faults are for a fleet file."""

    cuts: Sequence[dict[str, Any]] = ()
    throttles: Sequence[dict[str, Any]] = ()
    starts: Sequence[dict[str, Any]] = ()
    load: float = 1.0
    speed: float = 1.0

    @property
    def any(self) -> bool:
        return bool(self.cuts or self.throttles or self.starts) or (self.load, self.speed) != (1, 1)


@dataclass(frozen=True, eq=False)
class Scenario:
    """fleet: as it was, without the changes; source: where it comes from, in words.

    estimate: what a measured fleet rests on; left_out: requests of models that were never answered.
    """

    recording: Recording
    fleet: FleetFile
    source: str
    estimate: Estimate | None
    left_out: int
    changes: Changes

    def changed(self) -> FleetFile:
        """Return the fleet with the changes. Raises InvalidInput for a place that is not there."""
        document = self.fleet.model_dump(exclude_defaults=True)
        for key in ("cuts", "throttles", "starts"):
            added = list(getattr(self.changes, key))
            if added:
                document[key] = [*document.get(key, []), *added]
        return parse_fleet(document, "the fleet with what you asked for")


def scenario(recording: Recording, fleet: Path | None, changes: Changes) -> Scenario:
    """Settle the fleet: a file, else what was recorded, else the mixed fleet of the examples."""
    if fleet is not None:
        return Scenario(recording, read_fleet(fleet), f"the file {fleet}", None, 0, changes)
    if recording.says_places:
        found = estimate(recording)
        kept = [r for r in recording.requests if r.model not in found.unserved]
        left_out = len(recording.requests) - len(kept)
        return Scenario(
            _only(recording, kept), found.fleet, "what was recorded", found, left_out, changes
        )
    text = resources.files("configs").joinpath("fleets", "mixed.yaml").read_text("utf-8")
    mixed = parse_fleet(yaml.safe_load(text), "configs/fleets/mixed.yaml")
    source = "the example configs/fleets/mixed.yaml, since the trace says nothing of places"
    return Scenario(recording, mixed, source, None, 0, changes)


def seconds(text: str, what: str) -> float:
    """Return the seconds of `90`, `90s`, `10m`, `2h` or `1d`. Raises InvalidInput."""
    found = _TIME.match(text)
    if found is None:
        raise InvalidInput(f"'{text}' is no time", field=what, hint="write 90, 90s, 10m, 2h or 1d")
    return float(found[1]) * _SECONDS[found[2] or ""]


def cut(text: str) -> dict[str, Any]:
    """Read `SITE:FROM:FOR` or `SITE+SITE:FROM:FOR`. Raises InvalidInput."""
    sites, begin, length = _split(text, 3, "cut", CUT)
    site, _, other = sites.partition("+")
    return {
        "site": site,
        "from_s": seconds(begin, "cut"),
        "for_s": seconds(length, "cut"),
        **({"other": other} if other else {}),
    }


def throttle(text: str) -> dict[str, Any]:
    """Read `PLACE:FACTOR:FROM:FOR`. Raises InvalidInput."""
    place, factor, begin, length = _split(text, 4, "throttle", THROTTLE)
    try:
        times = float(factor)
    except ValueError:
        raise InvalidInput(
            f"'{factor}' is no factor", field="throttle", hint="3 is three times slower"
        ) from None
    return {
        "place": place,
        "factor": times,
        "from_s": seconds(begin, "throttle"),
        "for_s": seconds(length, "throttle"),
    }


def start(text: str) -> dict[str, Any]:
    """Read `PLACE:FROM:COLD`. Raises InvalidInput."""
    place, begin, cold = _split(text, 3, "start", START)
    return {"place": place, "from_s": seconds(begin, "start"), "cold_s": seconds(cold, "start")}


def _split(text: str, count: int, what: str, form: str) -> list[str]:
    parts = text.rsplit(":", count - 1)  # a place's name may hold a colon
    if len(parts) != count or not all(parts):
        raise InvalidInput(f"--{what} takes {form}, not '{text}'", field=what)
    return parts


def _only(recording: Recording, requests: Sequence[Recorded]) -> Recording:
    return replace(recording, requests=requests)
