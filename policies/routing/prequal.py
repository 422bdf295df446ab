"""Prequal: a few places are asked in advance, and the best of the latest answers is taken.

Wydrowski, Kleinberg, Rumble, Archer, "Load is not what you should balance: Introducing Prequal",
NSDI 2024. With each request a few places drawn at random are probed, without waiting for them. An
answer says how many requests are in flight there and what such requests took of late. Answers wait
in a pool for the requests to come; each serves a few of them, and for a short time only. A request
goes by the hot-cold rule: places with more in flight than most answers said are hot, and left
alone; of the others, that with the shortest latency is taken; where all are hot, that with the
fewest in flight. With each request the oldest and the worst answer leave the pool in turn, or only
bad ones would be left in it.

What differs from the paper, which speaks of one data centre with many equal replicas:

- The way counts: a latency is that at the place, and the round trip from this router is added.
- A place has one answer in the pool, the latest; our fleets are smaller than the pool.
- The budget of uses is rounded up instead of at random.
- Weighted, requests in flight are counted in seconds of work, and no place is taken for quicker
  than it is said to be (`prior_s`).
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, replace
from statistics import median
from typing import Final, NamedTuple

from policies.routing.draws import uniform
from policies.routing.filters import ruled_out
from policies.routing.types import Request, Target
from policies.routing.window import Window

# Section 5 of the paper and its defaults.
POOL: Final = 16  # answers that are kept
PROBES: Final = 3  # sent with each request
REMOVED: Final = 1  # answers that leave with each request
HOT: Final = 0.84  # quantile of requests in flight above which a place is hot
MAX_AGE_S: Final = 1.0
IDLE_S: Final = 0.5  # without an answer, after which places are asked though no request came
FEWEST: Final = 2  # answers, below which a place is drawn instead
_DELTA: Final = 1.0  # net growth of the pool for which uses are planned
_MOST_USES: Final = 8  # where the pool has room for every place, the formula has no limit
_RECENT: Final = 128  # answers by which it is told what is hot
_NEAREST: Final = 9  # latest requests by which a latency is told
_REMEMBERED: Final = 128
_UNKNOWN_S: Final = 1e-3  # prior of a place that nobody has told anything of
_SALT: Final = 1 << 20  # apart from what rules draw


class Probe(NamedTuple):
    """What a place answers. rif: requests in flight there, queued and running; latency_s: what
    requests took there of late with about so many in flight, without the way, 0 where there were
    none.
    """

    rif: int
    latency_s: float


@dataclass(frozen=True, slots=True)
class _Answer:
    """A probe in the pool. prior_s: of its target; at: when it came; uses: that are left."""

    target: str
    rif: int
    latency_s: float
    prior_s: float
    at: float
    uses: int

    def flight(self, *, weighted: bool) -> float:
        return self.rif * self.prior_s if weighted else float(self.rif)

    def place_s(self, *, weighted: bool) -> float:
        return max(self.latency_s, self.prior_s) if weighted else self.latency_s


class ProbePool:
    """The answers of one router for one model; it is told what came and what was sent."""

    __slots__ = ("_answers", "_is_worst_next", "_recent", "probed_at")

    def __init__(self) -> None:
        self.probed_at = -math.inf
        self._answers: dict[str, _Answer] = {}  # the oldest first
        self._recent = {weighted: Window(_RECENT) for weighted in (False, True)}
        self._is_worst_next = False

    def __len__(self) -> int:
        return len(self._answers)

    def add(self, probe: Probe, target: Target, targets: int, now: float) -> None:
        """Take in an answer. targets: how many places there are."""
        prior_s = target.prior_s or _UNKNOWN_S
        uses = uses_of(targets)
        answer = _Answer(target.name, probe.rif, probe.latency_s, prior_s, now, uses)
        self.probed_at = now
        for weighted, recent in self._recent.items():
            recent.add(answer.flight(weighted=weighted), now)
        self._answers.pop(target.name, None)
        self._answers[target.name] = answer
        self._forget(now)
        while len(self._answers) > POOL:
            self._remove_oldest()

    def best(
        self, targets: Sequence[Target], draw: int, now: float, *, weighted: bool
    ) -> int | None:
        """Return the index of the target to take; None where too few have answered.

        draw: settles which of equal ones it is.
        """
        found: list[tuple[int, _Answer]] = []
        for index, target in enumerate(targets):
            answer = self._answers.get(target.name)
            if answer is not None and now - answer.at <= MAX_AGE_S:
                found.append((index, answer))
        if len(found) < FEWEST:
            return None
        limit = self._recent[weighted].quantile(HOT)

        def key(each: tuple[int, _Answer]) -> tuple[bool, float, float]:
            index, answer = each
            flight = answer.flight(weighted=weighted)
            latency_s = answer.place_s(weighted=weighted) + targets[index].rtt_s
            is_hot = flight > limit
            return is_hot, flight if is_hot else latency_s, uniform(draw, index + 2)

        return min(found, key=key)[0]

    def sent(self, target: str, now: float) -> None:
        """Record that a request goes to a target, whoever chose it."""
        answer = self._answers.get(target)
        if answer is not None:
            if answer.uses > 1:
                self._answers[target] = replace(answer, rif=answer.rif + 1, uses=answer.uses - 1)
            else:
                del self._answers[target]
        self._forget(now)
        for _ in range(REMOVED):
            if len(self._answers) > FEWEST:
                if self._is_worst_next:
                    self._remove_worst()
                else:
                    self._remove_oldest()
                self._is_worst_next = not self._is_worst_next

    def _forget(self, now: float) -> None:
        for name in [a.target for a in self._answers.values() if now - a.at > MAX_AGE_S]:
            del self._answers[name]

    def _remove_oldest(self) -> None:
        del self._answers[next(iter(self._answers))]

    def _remove_worst(self) -> None:
        """Remove who is hot and has the most in flight, else who is slowest."""
        limit = self._recent[False].quantile(HOT)

        def key(answer: _Answer) -> tuple[bool, float]:
            is_hot = answer.rif > limit
            return is_hot, float(answer.rif) if is_hot else answer.latency_s

        worst = max(self._answers.values(), key=key)
        del self._answers[worst.target]


def uses_of(targets: int, probes: int = PROBES) -> int:
    """Return how many requests an answer may serve, so that the pool does not run empty.

    targets: places there are; probes: sent with each request. Equation 1 of the paper, rounded up.
    """
    new = (1.0 - min(POOL, targets) / max(1, targets)) * probes - REMOVED
    if new <= 0.0:
        return _MOST_USES
    return max(1, min(_MOST_USES, math.ceil((1.0 + _DELTA) / new)))


def to_probe(request: Request, targets: Sequence[Target], count: int = PROBES) -> list[str]:
    """Return the names of distinct targets to probe, drawn evenly from those that may serve."""
    names = [target.name for target in targets if ruled_out(request, target) is None]
    chosen: list[str] = []
    while names and len(chosen) < count:
        at = int(uniform(request.draw, _SALT + len(chosen)) * len(names))
        names[at], names[-1] = names[-1], names[at]
        chosen.append(names.pop())
    return chosen


class RecentLatencies:
    """What requests took at a place, by how many were in flight there when they came.

    The place keeps it, and answers probes from it.
    """

    __slots__ = ("_latest",)

    def __init__(self) -> None:
        # The latest first, which a stable sort then takes among equals.
        self._latest: deque[tuple[int, float]] = deque(maxlen=_REMEMBERED)

    def took(self, rif: int, seconds: float) -> None:
        """Record a request that has ended. rif: in flight when it came, without itself."""
        self._latest.appendleft((rif, seconds))

    def probe(self, rif: int) -> Probe:
        """Answer a probe. rif: in flight now."""
        nearest = sorted(self._latest, key=lambda each: abs(each[0] - rif))[:_NEAREST]
        return Probe(rif, median(seconds for _, seconds in nearest) if nearest else 0.0)
