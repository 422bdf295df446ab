"""Where sites are, and how far apart in time.

Two sources say how long a round trip between two sites takes. What was measured wins (`MeasuredRtt`
keeps it); the great circle gives a value before anything was measured. An old measurement goes back
to the great circle bit by bit, and `estimate` says which of the two a value is.

Distance: haversine formula (Sinnott, "Virtues of the Haversine", Sky and Telescope 68 (2), 1984,
p. 159) on a sphere with the Earth's mean radius (IUGG, R1). Positions are WGS 84 degrees; that the
Earth is no sphere makes up to 0.6 %, nothing beside the detours of cables.

Measurements: the least of a window is the way without queues, as in TCP BBR's RTprop filter
(Cardwell et al., "BBR: Congestion-Based Congestion Control", ACM Queue 14 (5), 2016); a moving
average over windows follows a way that has changed.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Final, Literal, NamedTuple

RADIUS_KM: Final = 6371.0088
# Light in glass needs 1 ms there and back for 100 km.
S_PER_KM: Final = 1e-5
# Cables are longer than the great circle, and routers add to it: 1.5 (between well-connected
# places) to 2.5 is usual. In between: too low a value would win against a measured one.
DETOUR: Final = 2.0
WINDOW_S: Final = 10.0
FRESH_S: Final = 60.0
HALF_LIFE_S: Final = 300.0
EVERYBODY: Final = "*"
_SMOOTHING: Final = 0.3

Source = Literal["measured", "great_circle", "unknown"]


class Position(NamedTuple):
    """A point on the Earth, in degrees (WGS 84): north and east are positive."""

    latitude: float
    longitude: float


def position(latitude: float, longitude: float) -> Position:
    """Return a checked position. Raises ValueError for what is not on the Earth."""
    if not -90.0 <= latitude <= 90.0:
        raise ValueError(f"a latitude is -90 to 90 degrees, not {latitude}")
    if not -180.0 <= longitude <= 180.0:
        raise ValueError(f"a longitude is -180 to 180 degrees, not {longitude}")
    return Position(float(latitude), float(longitude))


def distance_km(one: Position, other: Position) -> float:
    """Return the length of the great circle between two positions, in kilometres."""
    phi_1, phi_2 = math.radians(one.latitude), math.radians(other.latitude)
    half_lambda = math.radians(other.longitude - one.longitude) / 2.0
    h = math.sin((phi_2 - phi_1) / 2.0) ** 2
    h += math.cos(phi_1) * math.cos(phi_2) * math.sin(half_lambda) ** 2
    return 2.0 * RADIUS_KM * math.asin(math.sqrt(min(1.0, h)))


def great_circle_rtt_s(one: Position, other: Position) -> float:
    """Return what a round trip between two positions is likely to take, in seconds."""
    return distance_km(one, other) * S_PER_KM * DETOUR


def nearest(
    where: Position, places: Mapping[str, Position], within_km: float = math.inf
) -> str | None:
    """Return the name of the place that is nearest; None when none is near enough.

    Of places that are equally near, the first by name.
    """
    found = min(
        ((distance_km(where, place), name) for name, place in places.items()),
        default=(math.inf, ""),
    )
    return found[1] if found[1] and found[0] <= within_km else None


@dataclass(frozen=True, slots=True)
class MeasuredRtt:
    """Round trips measured between two places; a value, replaced with each measurement.

    mean_s: moving average of the least of each finished window, None before the first ends;
    least_s: the least of the window that began at began_at; share: with which that one counts;
    at: of the latest measurement; window_s: length of a window.
    """

    mean_s: float | None
    least_s: float
    share: float
    began_at: float
    at: float
    window_s: float = WINDOW_S

    @classmethod
    def first(cls, rtt_s: float, at: float, window_s: float = WINDOW_S) -> MeasuredRtt:
        """Return the value after one measurement (seconds, on a clock that never steps).

        Raises ValueError for a negative one.
        """
        return cls(None, _checked(rtt_s), 1.0, at, at, window_s)

    def and_then(self, rtt_s: float, at: float) -> MeasuredRtt:
        """Return the value after one more measurement. Raises ValueError for a negative one."""
        _checked(rtt_s)
        at = max(at, self.at)
        windows = int((at - self.began_at) / self.window_s)
        if windows < 1:
            return replace(self, least_s=min(self.least_s, rtt_s), at=at)
        # After windows without a measurement the new one counts as it would had it come in each.
        share = 1.0 - (1.0 - _SMOOTHING) ** windows
        return MeasuredRtt(self.rtt_s, rtt_s, share, at, at, self.window_s)

    @property
    def rtt_s(self) -> float:
        """The round trip as far as it is known: the running window counts as finished ones do."""
        if self.mean_s is None:
            return self.least_s
        return (1.0 - self.share) * self.mean_s + self.share * self.least_s


def measure(
    known: MeasuredRtt | None, rtt_s: float, at: float, window_s: float = WINDOW_S
) -> MeasuredRtt:
    """Return what is known after a measurement; window_s counts for the first one."""
    return MeasuredRtt.first(rtt_s, at, window_s) if known is None else known.and_then(rtt_s, at)


class RttEstimate(NamedTuple):
    """rtt_s: seconds, None when nothing is known; source: what most of it comes from.

    age_s: of the latest measurement; None without one.
    """

    rtt_s: float | None
    source: Source
    age_s: float | None = None


UNKNOWN: Final = RttEstimate(None, "unknown")


def estimate(measured: MeasuredRtt | None, prior_s: float | None, now: float) -> RttEstimate:
    """Return the round trip between two places as of now.

    prior_s: by the great circle, None where a position is not known. A measurement counts in full
    for FRESH_S, then half as much after each HALF_LIFE_S; where it counts less than half and there
    is no prior, nothing is known.
    """
    if measured is None:
        return UNKNOWN if prior_s is None else RttEstimate(prior_s, "great_circle")
    age_s = max(0.0, now - measured.at)
    share = 0.5 ** (max(0.0, age_s - FRESH_S) / HALF_LIFE_S)
    if prior_s is None:
        if share < 0.5:
            return RttEstimate(None, "unknown", age_s)
        return RttEstimate(measured.rtt_s, "measured", age_s)
    rtt_s = prior_s + share * (measured.rtt_s - prior_s)
    return RttEstimate(rtt_s, "measured" if share >= 0.5 else "great_circle", age_s)


class Measurements:
    """What was measured between pairs of sites, whichever of the two measured it.

    Bounded: `limit` pairs, those measured longest ago make room.
    """

    def __init__(self, limit: int = 4096) -> None:
        self._limit = limit
        self._known: dict[tuple[str, str], MeasuredRtt] = {}

    def __len__(self) -> int:
        return len(self._known)

    def add(self, one: str, other: str, rtt_s: float, at: float) -> None:
        """Take in a measurement between two sites. Raises ValueError for a negative one."""
        pair = _pair(one, other)
        self._known[pair] = measure(self._known.pop(pair, None), rtt_s, at)
        if len(self._known) > self._limit:
            del self._known[next(iter(self._known))]

    def between(self, one: str, other: str) -> MeasuredRtt | None:
        """Return what was measured between two sites."""
        return self._known.get(_pair(one, other))


def zones_of(tenant: str, residency: Mapping[str, frozenset[str]]) -> frozenset[str] | None:
    """Return the zones where a tenant's data may be computed on; None when anywhere.

    residency: zones by tenant; those of EVERYBODY hold for tenants of whom nothing else is said. A
    place without a zone is in none of them.
    """
    return residency.get(tenant, residency.get(EVERYBODY))


def _pair(one: str, other: str) -> tuple[str, str]:
    return (one, other) if one <= other else (other, one)


def _checked(rtt_s: float) -> float:
    if not 0.0 <= rtt_s < math.inf:
        raise ValueError(f"a round trip takes zero seconds or more, not {rtt_s}")
    return rtt_s
