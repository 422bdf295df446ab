"""Outlier ejection: a place that fails more than its peers gets nothing for a while.

A state machine for one router, told of every attempt and how it ended, with the time as an
argument. Only failures of the place itself count: a refusal for load, an error of the caller or a
deadline says nothing of it. Envoy's outlier detection is the model, with what hurt its users:

- Failures in a row eject, or a share of failures well above that of the peers. Who is compared,
  and with whom, must have had enough requests: idle places say nothing (apple/servicetalk#3551).
- At most a share of the places that are up is ejected, rounded down, and never the last one. When
  places go down meanwhile, the ejected come back as far as that takes; so there is no panic in
  which the failing ones get everything (envoyproxy/envoy#2671).
- An ejection ends by the clock, whether somebody asks or not, and grows with each repeat until the
  place has been well for a while.
- Who comes back is on trial: one request at first, twice as many after each that went well. Without
  that, a place that nobody uses looks like the quickest of all and gets everything at once.
- What was sent before an ejection says nothing of the place after it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from enum import Enum, auto
from typing import Final, NamedTuple

TRIAL_ROOM: Final = 8  # requests at once; a place that may have more is no longer on trial
FORGIVEN_S: Final = 60.0  # in use again, after which one ejection less counts
_PARTS: Final = 6  # of the window; the oldest is dropped as a whole


@dataclass(frozen=True, slots=True)
class EjectionRules:
    """When a place is ejected, and for how long.

    consecutive: failures in a row that do it; margin: by how much the share of failures has to
    exceed that of the peers; fewest: requests in the window below which a share says nothing;
    window_s: what is remembered; max_share: of the places that are up, at most; base_s: the first
    ejection, each further one is longer by that; most_s: the longest. Raises ValueError for
    figures that make no sense.
    """

    consecutive: int = 5
    margin: float = 0.3
    fewest: int = 20
    window_s: float = 30.0
    max_share: float = 0.5
    base_s: float = 10.0
    most_s: float = 120.0

    def __post_init__(self) -> None:
        if self.consecutive < 1 or self.fewest < 1:
            raise ValueError("consecutive and fewest must be at least 1")
        if not 0.0 <= self.margin <= 1.0 or not 0.0 <= self.max_share <= 1.0:
            raise ValueError("margin and max_share must be from 0 to 1")
        if self.window_s <= 0.0 or not 0.0 < self.base_s <= self.most_s:
            raise ValueError("window_s and base_s must be above 0, and most_s no less than base_s")


class Attempt(NamedTuple):
    """A request at a place. times: how often that had been ejected when it was sent."""

    target: str
    times: int


class _State(Enum):
    IN = auto()
    OUT = auto()
    ON_TRIAL = auto()


class _Window:
    """Attempts and failures of the last while, in parts."""

    __slots__ = ("_part_s", "_parts")

    def __init__(self, window_s: float) -> None:
        self._part_s = window_s / _PARTS
        self._parts: deque[list[float]] = deque(maxlen=_PARTS)  # begin, attempts, failures

    def add(self, now: float, *, has_failed: bool) -> None:
        if not self._parts or now - self._parts[-1][0] >= self._part_s:
            self._parts.append([now, 0, 0])
        self._parts[-1][1] += 1
        self._parts[-1][2] += has_failed

    def counts(self, now: float) -> tuple[int, int]:
        """Return attempts and failures."""
        recent = [part for part in self._parts if now - part[0] <= self._part_s * _PARTS]
        return int(sum(part[1] for part in recent)), int(sum(part[2] for part in recent))


class _Place:
    __slots__ = (
        "ejections", "failed_at", "in_a_row", "in_since", "repeats", "room", "state", "under_way",
        "until", "window",
    )  # fmt: skip

    def __init__(self, window_s: float) -> None:
        self.state = _State.IN
        self.window = _Window(window_s)
        self.in_a_row = 0
        self.failed_at = 0.0
        self.ejections = 0  # ever; tells old attempts from new ones
        self.repeats = 0  # that the next length follows from
        self.in_since = 0.0
        self.until = 0.0
        self.room = 1
        self.under_way = 0


class Ejector:
    """Who of a router's places is ejected. Times are seconds on one clock."""

    def __init__(self, rules: EjectionRules | None = None) -> None:
        self._rules = rules or EjectionRules()
        self._places: dict[str, _Place] = {}
        self._away: dict[str, _Place] = {}  # out, or on trial

    @property
    def is_quiet(self) -> bool:
        """True while every place is in, so that there is nothing to ask."""
        return not self._away

    def ejections(self, target: str) -> int:
        """Return how often a place was ejected, ever."""
        place = self._places.get(target)
        return 0 if place is None else place.ejections

    def sent(self, target: str) -> Attempt:
        """Record that a request goes to a place; each is to be matched by one `ended`."""
        place = self._places.get(target)
        if place is None:
            place = self._places[target] = _Place(self._rules.window_s)
        place.under_way += 1
        return Attempt(target, place.ejections)

    def ended(
        self, attempt: Attempt, now: float, up: Collection[str], *, has_failed: bool | None
    ) -> None:
        """Record how an attempt ended. has_failed: None where that says nothing of the place;
        up: the names of the places that are up now.
        """
        place = self._places[attempt.target]
        if attempt.times != place.ejections:
            return
        place.under_way -= 1
        self._settle(now, up)
        if has_failed is None or place.state is _State.OUT:
            return
        if place.state is _State.ON_TRIAL:
            if has_failed:
                self._eject(attempt.target, place, now)
            else:
                place.room *= 2
                if place.room > TRIAL_ROOM:
                    self._let_in(attempt.target, place, now)
            return
        place.window.add(now, has_failed=has_failed)
        if not has_failed:
            place.in_a_row = 0
            return
        is_recent = now - place.failed_at <= self._rules.window_s
        place.in_a_row = place.in_a_row + 1 if is_recent else 1
        place.failed_at = now
        if self._is_outlier(attempt.target, place, now) and self._may_go(attempt.target, up):
            self._eject(attempt.target, place, now)

    def ejected(self, now: float, up: Collection[str]) -> frozenset[str]:
        """Return the places that get nothing now. up: the names of those that are up."""
        self._settle(now, up)
        return frozenset(
            name
            for name, place in self._away.items()
            if place.state is _State.OUT or place.under_way >= place.room
        )

    def _is_outlier(self, target: str, place: _Place, now: float) -> bool:
        rules = self._rules
        if place.in_a_row >= rules.consecutive:
            return True
        attempts, failures = place.window.counts(now)
        if attempts < rules.fewest:
            return False
        peers = list(self._peers(target, now))
        if not peers:
            return False
        theirs = sum(failed for _, failed in peers) / sum(count for count, _ in peers)
        return failures / attempts >= theirs + rules.margin

    def _peers(self, target: str, now: float) -> Iterator[tuple[int, int]]:
        """Yield attempts and failures of the others that had enough to say something."""
        for name, place in self._places.items():
            if name != target and name not in self._away:
                counts = place.window.counts(now)
                if counts[0] >= self._rules.fewest:
                    yield counts

    def _may_go(self, target: str, up: Collection[str]) -> bool:
        if target not in up:  # nobody goes there anyway, and it is told by other means
            return False
        return sum(name in up for name in self._away) + 1 <= self._most_away(up)

    def _most_away(self, up: Collection[str]) -> int:
        return max(0, min(int(self._rules.max_share * len(up)), len(up) - 1))

    def _settle(self, now: float, up: Collection[str]) -> None:
        """Let trials begin whose time has come, and places in that are needed."""
        if not self._away:
            return
        for place in self._away.values():
            if place.state is _State.OUT and now >= place.until:
                place.state = _State.ON_TRIAL
                place.room = 1
        away = sorted((p.until, name) for name, p in self._away.items() if name in up)
        for _, name in away[: max(0, len(away) - self._most_away(up))]:
            self._let_in(name, self._away[name], now)

    def _eject(self, target: str, place: _Place, now: float) -> None:
        rules = self._rules
        if place.state is _State.IN:
            place.repeats = max(0, place.repeats - int((now - place.in_since) / FORGIVEN_S))
        place.repeats += 1
        place.until = now + min(rules.most_s, rules.base_s * place.repeats)
        place.state = _State.OUT
        place.ejections += 1
        place.under_way = 0
        self._away[target] = place

    def _let_in(self, target: str, place: _Place, now: float) -> None:
        del self._away[target]
        place.state = _State.IN
        place.window = _Window(self._rules.window_s)
        place.in_a_row = 0
        place.in_since = now
