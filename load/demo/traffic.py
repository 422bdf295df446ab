"""Steady traffic from the edge's own site, recorded request by request."""

from __future__ import annotations

import threading
import time
from collections import Counter
from dataclasses import dataclass, field

from load.demo.gateway import Access, Images, RestCaller


@dataclass(frozen=True, slots=True)
class Sample:
    """One request: seconds since the traffic began, where and on which rung it was computed, or
    what failed.
    """

    at_s: float
    taken_ms: float
    target: str
    rung: str
    error: str | None = None


@dataclass(slots=True)
class Traffic:
    """Sends one image every 1/rate seconds on several connections until stopped.

    Open loop: a request is due when it is due, whether or not an earlier one was answered
    (as long as one of the connections is free).
    """

    access: Access
    model: str
    images: Images
    site: str
    rate_per_s: float
    connections: int = 8
    samples: list[Sample] = field(default_factory=list)
    _stop: threading.Event = field(default_factory=threading.Event)
    _threads: list[threading.Thread] = field(default_factory=list)
    _began: float = 0.0

    def start(self) -> None:
        self._began = time.monotonic()
        for number in range(self.connections):
            thread = threading.Thread(target=self._send, args=(number,), daemon=True)
            thread.start()
            self._threads.append(thread)

    def stop(self) -> None:
        """End the traffic and wait for the last answers."""
        self._stop.set()
        for thread in self._threads:
            thread.join(timeout=90.0)

    def served_by(self, since_s: float, until_s: float | None = None) -> Counter[str]:
        """Count answers by target over a span of the traffic."""
        end = float("inf") if until_s is None else until_s
        return Counter(s.target for s in list(self.samples) if since_s <= s.at_s < end)

    def computed_by(self, since_s: float, until_s: float) -> Counter[str]:
        """Count answers by rung over a span of the traffic."""
        return Counter(s.rung for s in list(self.samples) if since_s <= s.at_s < until_s)

    @property
    def elapsed_s(self) -> float:
        return time.monotonic() - self._began

    @property
    def failures(self) -> list[Sample]:
        return [sample for sample in self.samples if sample.error is not None]

    def _send(self, number: int) -> None:
        caller = RestCaller(self.access)
        turn = number
        try:
            while not self._stop.is_set():
                due = self._began + turn / self.rate_per_s
                if self._stop.wait(max(0.0, due - time.monotonic())):
                    return
                self._one(caller, turn)
                turn += self.connections
        finally:
            caller.close()

    def _one(self, caller: RestCaller, turn: int) -> None:
        row = turn % len(self.images)
        at_s = self.elapsed_s
        began = time.perf_counter()
        target, rung, error = "", "", None
        try:
            answer = caller.predict(self.model, self.images[row : row + 1], site=self.site)
            target, rung = answer.target, answer.rung
        except Exception as failure:  # every kind of failure is a failed request here
            error = f"{type(failure).__name__}: {failure}"
        taken_ms = (time.perf_counter() - began) * 1e3
        self.samples.append(Sample(at_s, taken_ms, target, rung, error))
