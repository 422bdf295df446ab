"""What a client knows of its gateways: which there are, how far they are, which one it enters by.

One lock guards it; nothing waits for a network while holding it. `policies.entry` decides.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from edge_runtime.entry.sitelist import Gateway
from policies.entry import Candidate, Entry, choose_gateway
from policies.geography import MeasuredRtt, measure

logger = logging.getLogger(__name__)


class Seen(NamedTuple):
    """A gateway as its client sees it. rtt_s: None before the first answer; problem: why it is
    not used, empty when it could be; measured_at: on the client's clock."""

    url: str
    site: str
    zone: str
    rtt_s: float | None
    measured_at: float | None
    problem: str
    is_current: bool


class Gateways:
    """The gateways of one client. window_s: measurements within one count as one."""

    def __init__(
        self, seeds: Sequence[Gateway], zones: frozenset[str] | None, window_s: float
    ) -> None:
        self._seeds = seeds
        self._zones = zones
        self._window_s = window_s
        self._lock = threading.Lock()
        self._known: dict[str, Gateway] = {seed.url: seed for seed in seeds}
        self._measured: dict[str, MeasuredRtt] = {}
        self._problems: dict[str, str] = {}
        self._current: str | None = None

    @property
    def urls(self) -> tuple[str, ...]:
        """All of them, those in use and those that are down."""
        with self._lock:
            return tuple(self._known)

    def take(self, listed: Iterable[Gateway]) -> bool:
        """Replace the list; the seeds stay. Return whether it changed."""
        with self._lock:
            known = {seed.url: seed for seed in self._seeds} | {each.url: each for each in listed}
            if known == self._known:
                return False
            self._known = known
            for kept in (self._measured, self._problems):
                for url in [url for url in kept if url not in known]:
                    del kept[url]
            return True

    def answered(self, url: str, rtt_s: float, at: float) -> None:
        """Take in a probe that was answered; at: on the client's clock."""
        with self._lock:
            if url not in self._known:
                return
            if self._problems.pop(url, None) is not None:
                logger.info("gateway %s answers again", url)
            self._measured[url] = measure(self._measured.get(url), rtt_s, at, self._window_s)

    def failed(self, url: str, why: str) -> None:
        """Take out a gateway until it answers a probe."""
        with self._lock:
            if url in self._known and url not in self._problems:
                logger.warning("gateway %s is not used any more: it %s", url, why)
                self._problems[url] = why

    def choose(self) -> Entry:
        """Settle which gateway requests enter by."""
        with self._lock:
            found = choose_gateway(self._candidates(), self._current, self._zones)
            if found.url is not None and found.url != self._current:
                site = self._known[found.url].site
                logger.info("entering by %s (site %s): %s", found.url, site or "?", found.why)
                self._current = found.url
            return found

    def beside(self, tried: frozenset[str]) -> str | None:
        """Return the best gateway for one request that some have failed; keeps the current one."""
        with self._lock:
            return choose_gateway(self._candidates(), None, self._zones, tried).url

    def is_down(self, url: str) -> bool:
        with self._lock:
            return url in self._problems

    @property
    def has_down(self) -> bool:
        with self._lock:
            return bool(self._problems)

    def problems(self) -> Mapping[str, str]:
        """Return why gateways are not used, by address."""
        with self._lock:
            barred = {
                url: f"is in zone '{gateway.zone}'" if gateway.zone else "is in an unknown zone"
                for url, gateway in self._known.items()
                if self._zones is not None and gateway.zone not in self._zones
            }
            return barred | self._problems

    def seen(self) -> list[Seen]:
        """Return all of them, the nearest first."""
        problems = self.problems()
        with self._lock:
            found = [
                Seen(
                    url,
                    gateway.site,
                    gateway.zone,
                    measured.rtt_s if measured else None,
                    measured.at if measured else None,
                    problems.get(url, "" if measured else "was not probed yet"),
                    url == self._current,
                )
                for url, gateway in self._known.items()
                for measured in [self._measured.get(url)]
            ]
        return sorted(found, key=lambda each: (bool(each.problem), each.rtt_s or 0.0, each.url))

    def _candidates(self) -> list[Candidate]:
        return [
            Candidate(
                url,
                gateway.site,
                gateway.zone,
                self._measured[url].rtt_s
                if url in self._measured and url not in self._problems
                else None,
            )
            for url, gateway in self._known.items()
        ]
