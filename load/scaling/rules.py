"""The rules that are compared, and one that knows the future."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import numpy as np

from load.scaling.simulation import MOST, SLOTS, Traffic
from policies.scaling import Bounds, Knative, Predictive, Reactive, Rule
from policies.scaling.bounds import bounded
from policies.scaling.history import Floats
from policies.scaling.types import Decision, Memory, Observed

UTILISATION: Final = 0.7  # planned with by all that react; what Knative ships with
BOUNDS: Final = Bounds(1, MOST)
FIXED: Final = 12


@dataclass(frozen=True, slots=True)
class Fixed:
    """Always the same."""

    replicas: int

    def decide(self, seen: Observed, memory: Memory) -> tuple[Decision, Memory]:
        return bounded(self.replicas, "steady", "fixed", seen, BOUNDS), memory


class Omniscient:
    """Knows what will come, and when a new replica serves; not how long each request takes.

    As many as keep every second's work within the patience, now and until a new one could serve;
    none is kept for less than it takes to start one.
    """

    def __init__(self, traffic: Traffic, cold_s: float) -> None:
        ahead = math.ceil(1.2 * cold_s) + 2
        self._capacity = traffic.capacity()
        self._needed = _ahead(traffic.came() / (0.85 * self._capacity), ahead)

    def decide(self, seen: Observed, memory: Memory) -> tuple[Decision, Memory]:
        at = min(int(seen.now), len(self._needed) - 1)
        wanted = math.ceil(self._needed[at] + seen.queued / (5.0 * self._capacity[at]))
        return bounded(wanted, "forecast", "omniscient", seen, BOUNDS), memory


def _ahead(needed: Floats, seconds: int) -> Floats:
    """Return the most of the means over 3 s from each moment until so much later."""
    smooth = np.convolve(needed, np.ones(3) / 3, "same")
    padded = np.concatenate((smooth, np.full(seconds, smooth[-1])))
    spans = np.lib.stride_tricks.sliding_window_view(padded, seconds + 1)
    return np.asarray(spans.max(axis=1), np.float64)


@dataclass(frozen=True, slots=True)
class Subject:
    """A rule under a name. season: whether it is given forecasts."""

    make: Callable[[Traffic, float], Rule]
    title: str
    has_season: bool = False


_TUNED: Final = Reactive(BOUNDS, UTILISATION * SLOTS, 5.0, 60.0)
SUBJECTS: Final[dict[str, Subject]] = {
    "predictive": Subject(lambda *_: Predictive(_TUNED), "this", has_season=True),
    "serve_tuned": Subject(lambda *_: _TUNED, "Ray Serve's policy, 5 s up, 60 s down"),
    "serve_default": Subject(
        lambda *_: Reactive(BOUNDS, UTILISATION * SLOTS, 30.0, 600.0),
        "Ray Serve's policy, its default delays (30 and 600 s)",
    ),
    "serve_lean": Subject(
        lambda *_: Reactive(BOUNDS, 0.8 * SLOTS, 5.0, 60.0),
        "as tuned, with replicas filled to 80 %",
    ),
    "knative": Subject(lambda *_: Knative(BOUNDS, UTILISATION), "60 s stable, 6 s panic"),
    "fixed": Subject(lambda *_: Fixed(FIXED), f"{FIXED} replicas"),
    "omniscient": Subject(Omniscient, "knows the future"),
}
