"""The thread behind an entry client: rounds of probing, and an eye on requests that wait long.

Rounds come in a rhythm with jitter; while a gateway is down they come soon and then less and less
often. A request that has waited for `patience_s` makes its gateway a suspect, and so does one whose
deadline passed: a suspect is probed, and when it does not answer, while another one does, the
requests that wait for it are let go.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

from edge_runtime.entry.connections import Call
from edge_runtime.entry.gateways import Gateways
from edge_runtime.entry.survey import Survey
from edge_runtime.errors import Unavailable

logger = logging.getLogger(__name__)

SOON_S: Final = 1.0  # after which a gateway that failed is probed again; doubles each time
JITTER: Final = 0.2
LIST_ROUNDS: Final = 10  # of probing, between two looks at the list of sites
GRACE_S: Final = 0.3  # how long the first request waits for a nearer gateway than the first found


class Keeper:
    """Looks around when it is started, and keeps what is known fresh until it is closed."""

    def __init__(
        self,
        gateways: Gateways,
        survey: Survey,
        every_s: float,
        patience_s: float,
        jitter: Callable[[], float],
    ) -> None:
        self._gateways, self._survey = gateways, survey
        self._every_s, self._patience_s = every_s, patience_s
        self._jitter = jitter
        self._changed = threading.Condition()
        self._calls: set[Call] = set()
        self._suspects: dict[str, float] = {}
        self._looked: dict[Call, float] = {}
        self._looks = 0  # that have ended
        self._wants_look = True
        self._is_looking = False
        self._is_closed = self._is_urgent = False
        self._soon_s = SOON_S
        self._rounds = 0
        self._due = self._wakes_at = 0.0
        self._thread = threading.Thread(target=self._run, name="prime-spark-entry", daemon=True)

    def begin(self) -> None:
        """Start the thread, if it does not run yet. Raises Unavailable when closed."""
        with self._changed:
            if self._is_closed:
                raise Unavailable("this client is closed")
            if self._thread.ident is None:
                self._survey.recall()
                self._thread.start()

    def close(self) -> None:
        """End the thread and every call that waits."""
        with self._changed:
            self._is_closed = True
            self._changed.notify_all()
            for call in self._calls:
                call.abandon()
        if self._thread.ident is not None:
            self._thread.join()

    @contextmanager
    def watching(self, call: Call, url: str) -> Iterator[None]:
        """Keep an eye on an attempt of a call. Raises Unavailable when closed."""
        with self._changed:
            if self._is_closed or call.is_abandoned:
                raise Unavailable("this client is closed")
            call.begin(url)
            self._calls.add(call)
            if self._wakes_at > call.began_at + self._patience_s:
                self._changed.notify_all()
        try:
            yield
        finally:
            with self._changed:
                self._calls.discard(call)

    def suspect(self, url: str) -> None:
        """Have a gateway probed that did not answer before a deadline."""
        with self._changed:
            self._suspects.setdefault(url, time.monotonic())
            self._changed.notify_all()

    def lost(self, url: str, why: str) -> None:
        """Take a gateway out for everybody, and look for it again soon."""
        self._gateways.failed(url, why)
        self._gateways.choose()
        with self._changed:
            self._is_urgent = True
            self._changed.notify_all()

    def look_around(self, deadline: float, *, is_thorough: bool = False) -> None:
        """Wait until one look around has ended; or, unless thorough, until a gateway was found.

        Thorough: one that begins from now on; one that is under way may have seen what is over.
        """
        with self._changed:
            ended = self._looks + 1 + (is_thorough and self._is_looking)
            found_at: float | None = None
            self._wants_look = True
            self._changed.notify_all()
            while self._looks < ended and not self._is_closed:
                now = time.monotonic()
                until = deadline
                if not is_thorough and self._gateways.choose().url is not None:
                    found_at = found_at or now
                    until = min(deadline, found_at + GRACE_S)
                if until <= now:
                    return
                self._changed.wait(min(until - now, threading.TIMEOUT_MAX))

    def _run(self) -> None:
        while True:
            with self._changed:
                if not self._wait():
                    return
                looks, self._wants_look = self._wants_look, False
                self._is_looking = looks
                now = time.monotonic()
                late = {call for call, at in self._waiting().items() if at <= now}
                suspects = {call.url for call in late} | set(self._suspects)
                self._suspects.clear()
            try:
                if looks:
                    self._survey.look_around(self._tell)
                elif suspects:
                    self._look_after(suspects)
                elif now >= self._due:
                    self._round()
            except Exception:  # a caller's `token` may raise anything; the next round may go well
                logger.exception("looking around failed")
            with self._changed:
                self._gateways.choose()
                self._looks += looks
                self._is_looking = False
                self._changed.notify_all()
                now = time.monotonic()
                self._looked = {call: now for call in late if call in self._calls} | {
                    call: at for call, at in self._looked.items() if call in self._calls - late
                }
                if looks or now >= self._due:
                    self._plan(now)

    def _wait(self) -> bool:
        """Wait until there is something to do; False when closed. Holds the lock."""
        while not self._is_closed:
            now = time.monotonic()
            if self._is_urgent:
                self._is_urgent, self._soon_s = False, SOON_S
                self._due = min(self._due, now + self._spread(SOON_S))
            if self._wants_look or self._suspects:
                return True
            self._wakes_at = min([self._due, *self._waiting().values()])
            if self._wakes_at <= now:
                return True
            self._changed.wait(self._wakes_at - now)
            self._wakes_at = 0.0  # it is awake
        return False

    def _waiting(self) -> dict[Call, float]:
        """Return when each call will have waited too long since its gateway was looked after."""
        return {
            call: max(call.began_at, self._looked.get(call, 0.0)) + self._patience_s
            for call in self._calls
        }

    def _round(self) -> None:
        self._survey.probe(self._gateways.urls)
        self._rounds += 1
        if self._rounds % LIST_ROUNDS == 0:
            self._survey.read_sites()

    def _plan(self, now: float) -> None:
        """Settle when the next round is due."""
        self._due = now + self._spread(self._soon_s if self._gateways.has_down else self._every_s)
        self._soon_s = min(2.0 * self._soon_s, self._every_s)
        if not self._gateways.has_down:
            self._soon_s = SOON_S

    def _look_after(self, urls: set[str]) -> None:
        """Probe suspects; let go of the calls to silent ones, where there is another."""
        self._survey.probe(tuple(urls), self._patience_s)
        self._gateways.choose()
        for url in urls:
            if not self._gateways.is_down(url):
                continue
            with self._changed:
                self._is_urgent = True
                if self._gateways.beside(frozenset((url,))) is not None:
                    for call in [call for call in self._calls if call.url == url]:
                        call.let_go()

    def _tell(self) -> None:
        with self._changed:
            self._changed.notify_all()

    def _spread(self, seconds: float) -> float:
        return seconds * (1.0 + JITTER * (2.0 * self._jitter() - 1.0))
