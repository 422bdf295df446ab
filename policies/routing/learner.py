"""A model of where the estimates of a routing table are wrong, and whether it may be believed.

Two errors are predicted from the figures of a request at a place (`context`) by one ridge
regression (`ridge`): that of P(late), and the logarithm of that of the time at the place. Both are
predicted before an outcome is known and held against the plain estimate afterwards. While the
model is not better than that, it is not believed; it goes on learning, and is believed again when
it is better (the paired comparison of forecasts of Diebold and Mariano, 1995, faded, with a gap
between both limits so that it does not waver).

`RoutingTable` tells it what was sent and what became of that; `learned.choose` asks it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final, NamedTuple

from policies.routing.context import NAMES, Context
from policies.routing.ridge import Ridge
from policies.routing.types import Objective

MEMORY: Final = 4000.0  # outcomes that a regression learns from, in the mean
PENALTY: Final = 20.0
ENOUGH: Final = 200  # outcomes before a model may be believed
BELIEVED_BELOW: Final = 0.97  # its error over the plain one, to be believed
DOUBTED_ABOVE: Final = 1.0  # and not to be believed any more
HOPE: Final = 0.3  # the usual error of both predictions, with which what is unknown counts
_KEEP: Final = 1.0 - 1.0 / 400.0  # of the errors so far, with each outcome
_MOST_LOG: Final = 2.0  # one outcome beyond all measure must not decide
_LEAST_S: Final = 1e-6


class Foreseen(NamedTuple):
    """What the model says of a request at a place: seconds to the answer, and P(late)."""

    expected_s: float
    late: float


class Trust:
    """Whether one forecast is better than another, by the errors of both so far."""

    __slots__ = ("_ours", "_plain", "is_given", "outcomes")

    def __init__(self) -> None:
        self.is_given = False
        self.outcomes = 0
        self._ours = 0.0
        self._plain = 0.0

    @property
    def ratio(self) -> float:
        """Our error over the plain one; 1 when neither was wrong."""
        return self._ours / self._plain if self._plain > 0.0 else math.inf if self._ours else 1.0

    def saw(self, ours: float, plain: float) -> None:
        """Take in the errors of both for one outcome, from 0 up."""
        self._ours = _KEEP * self._ours + ours
        self._plain = _KEEP * self._plain + plain
        self.outcomes += 1
        limit = DOUBTED_ABOVE if self.is_given else BELIEVED_BELOW
        self.is_given = self.outcomes >= ENOUGH and self.ratio < limit


class Learner:
    """Learns from what becomes of requests; bounded in size by how many are on their way."""

    __slots__ = ("_model", "_under_way", "delay", "lateness")

    def __init__(self) -> None:
        self._model = Ridge(len(NAMES), 2, MEMORY, PENALTY)
        self._under_way: dict[int, tuple[Context, float, float]] = {}
        self.lateness = Trust()
        self.delay = Trust()

    @property
    def under_way(self) -> int:
        """Return how many requests are remembered."""
        return len(self._under_way)

    def is_believed(self, objective: Objective) -> bool:
        """Tell whether the model may be believed in what matters to an objective."""
        return self.delay.is_given and (objective == "latency" or self.lateness.is_given)

    def foresee(self, contexts: Sequence[Context], *, is_hopeful: bool = False) -> list[Foreseen]:
        """Return what is to be expected of each of some requests at some places.

        is_hopeful: by as much better as the little that is known of them allows.
        """
        figures = [found.figures for found in contexts]
        errors = self._model.predict(figures)
        if is_hopeful:
            errors = [
                [late - HOPE * unknown, log - HOPE * unknown]
                for (late, log), unknown in zip(errors, self._model.spread(figures), strict=True)
            ]
        return [
            _foreseen(found, late, log) for found, (late, log) in zip(contexts, errors, strict=True)
        ]

    def sent(self, ticket: int, found: Context) -> None:
        """Record that a request is on its way. ticket: a number of its own."""
        late, log = self._model.predict([found.figures])[0]
        self._under_way[ticket] = (found, late, log)

    def ended(self, ticket: int) -> None:
        """Record that a request ended without telling anything."""
        self._under_way.pop(ticket, None)

    def saw(self, ticket: int, place_s: float, *, is_late: bool) -> None:
        """Learn from what became of a request. place_s: seconds it took, or at least, there."""
        sent = self._under_way.pop(ticket, None)
        if sent is None:
            return
        found, late, log = sent
        happened = 1.0 if is_late else 0.0
        wrong = _log_ratio(place_s, found.place_s, found.offset_s)
        ours = _foreseen(found, late, log).late
        self.lateness.saw((happened - ours) ** 2, (happened - found.late) ** 2)
        self.delay.saw(abs(wrong - _clipped(log)), abs(wrong))
        self._model.saw(found.figures, (happened - found.late, wrong))


def _foreseen(found: Context, late: float, log: float) -> Foreseen:
    offset_s = found.offset_s
    there_s = (found.place_s + offset_s) * math.exp(_clipped(log)) - offset_s
    # What is certain by the plain estimate (no time left) stays so.
    likely = found.late if found.late >= 1.0 else min(1.0, max(0.0, found.late + late))
    if not there_s < math.inf:
        return Foreseen(math.inf, likely)
    return Foreseen(found.way_s + max(0.0, there_s), likely)


def _log_ratio(actual_s: float, expected_s: float, offset_s: float) -> float:
    over = (max(0.0, actual_s) + offset_s + _LEAST_S) / (expected_s + offset_s + _LEAST_S)
    return _clipped(math.log(over)) if 0.0 < over < math.inf else 0.0


def _clipped(log: float) -> float:
    return min(_MOST_LOG, max(-_MOST_LOG, log))
