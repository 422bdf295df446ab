"""What one router knows of the places that can serve one model, and how it learns.

A state machine without I/O and without a clock: the gateway, the edge box and the simulator tell
it what happens (a request was sent, answered, given up; a report or a measured round trip came),
with the time on a clock of theirs, and rules read its targets. Every send is matched by one
release, whatever becomes of it (ray-project/ray#61755 shows what happens otherwise).

A report is true for the moment in which it was made; what was sent after that, or was still on
its way then, is added to it. So the work ahead of the next request is known as far as it can be:
what the place said, less what has drained since, plus our own.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

from policies.routing.columns import Columns
from policies.routing.context import context
from policies.routing.delay import place_s, relative_size, with_work
from policies.routing.lateness import (
    ENOUGH,
    FORGET_S,
    HURRIES,
    LatestErrors,
    error,
    hurry,
    late_share,
)
from policies.routing.learner import Learner
from policies.routing.prequal import Probe, ProbePool
from policies.routing.reliability import Line, Reliability
from policies.routing.sizes import SizeModel
from policies.routing.types import (
    NO_WORK,
    OBJECTIVES,
    SLACKS,
    Decision,
    Load,
    Objective,
    Outcome,
    Request,
    Target,
)

LOOP: Final = 40  # targets; with more, arrays are quicker than a loop over values
PEAK_S: Final = 10.0  # decay of the moving peak (Finagle's default)
FADE_S: Final = 10.0  # in which a place that was slow is taken for quick again
NEWS_S: Final = 0.001  # a load that is no newer than what was heard before says nothing new
RISK_PRICES: Final = (1.0, 300.0)  # least and most, in price differences of the targets
_RISK_STEP: Final = 0.02
_MOST_STEP: Final = math.log(RISK_PRICES[1] / RISK_PRICES[0])
_RTT_SMOOTHING: Final = 0.1
_LEAST_S: Final = 1e-6  # predicted; a ratio to less than that says nothing


class Sent(NamedTuple):
    """A request on its way.

    position: of its target; at: when it was sent; rtt_s, service_s: of the target then; place_s:
    predicted seconds at the place; slack_s: to its deadline; late: the share of past errors with
    which it would miss it.
    """

    position: int
    ticket: int
    at: float
    bucket: int
    rtt_s: float
    place_s: float
    service_s: float
    slack_s: float
    late: float


class _Learned:
    """What is remembered of one place besides its target's value.

    under_way: by ticket, when it was sent, its relative size, and its slack without the way.
    """

    __slots__ = ("errors", "sizes", "under_way")

    def __init__(self) -> None:
        self.errors = LatestErrors()
        self.sizes = SizeModel()
        self.under_way: dict[int, tuple[float, float, float]] = {}


@dataclass(slots=True)
class Recent:
    """The last decision. generation: of the table; uses: that may still be made of it."""

    request: Request
    decision: Decision
    at: float
    generation: int
    uses: int


class RoutingTable:
    """The targets of one router for one model; one owner tells it what happens.

    generation: grows with each change that is no report, send or answer; recent: see `deciding`;
    probes: what places answered that were probed for `prequal`, empty where nobody probes.
    """

    def __init__(self, targets: Iterable[Target]) -> None:
        self.targets: list[Target] = []
        self.probes = ProbePool()
        self.columns: Columns | None = None
        self.generation = 0
        self.recent: Recent | None = None
        self.learner: Learner | None = None
        self._index: dict[str, int] = {}
        self._learned: list[_Learned] = []
        self._pooled = LatestErrors()
        self._reliability = tuple(Reliability() for _ in range(len(HURRIES) + 1))
        self._tickets = 0
        self._risk_prices: dict[Objective, float] = dict.fromkeys(OBJECTIVES, 15.0)
        for target in targets:
            self.add(target)

    def add(self, target: Target) -> None:
        """Take in a place. Raises ValueError when there is one of this name."""
        if target.name in self._index:
            raise ValueError(f"there is a target '{target.name}' already")
        self.generation += 1
        self._index[target.name] = len(self.targets)
        self.targets.append(target)
        self._learned.append(_Learned())
        if self.columns is not None:
            self.columns.put(len(self.targets) - 1, target)
        elif len(self.targets) > LOOP:
            self.columns = Columns(self.targets)

    def index(self, name: str) -> int | None:
        """Return where a target is, None where there is none of this name."""
        return self._index.get(name)

    def __getitem__(self, name: str) -> Target:
        return self.targets[self._index[name]]

    def __contains__(self, name: str) -> bool:
        return name in self._index

    def change(self, name: str, **values: Any) -> None:
        """Replace fields of a target: whether it is up, what it costs."""
        index = self._index[name]
        self.generation += 1
        self._put(index, self.targets[index]._replace(**values))

    def risk_price(self, objective: Objective) -> float:
        """Return what being late is worth now, in price differences of the targets."""
        return self._risk_prices[objective]

    def reliability(self, slack_s: float) -> Line:
        """Return what shares of past errors are put through to make them probabilities."""
        return self._reliability[hurry(slack_s)].line

    def decided(self, decision: Decision, objective: Objective) -> None:
        """Let the price of risk follow from what decisions spend of their budget."""
        if decision.spent is not None:
            step = min(_RISK_STEP * (decision.spent - 1.0), _MOST_STEP)
            price = self._risk_prices[objective] * math.exp(step)
            self._risk_prices[objective] = min(RISK_PRICES[1], max(RISK_PRICES[0], price))

    def learning(self) -> Learner:
        """Return the model that learns from what happens; there is one from the first call on."""
        if self.learner is None:
            self.learner = Learner()
        return self.learner

    def sent(self, name: str, request: Request, now: float) -> Sent:
        """Record that a request goes to a target."""
        index = self._index[name]
        target = self.targets[index]
        slack_s = request.slack_s - target.rtt_s
        predicted_s = place_s(target, request.bucket, slack_s, now)
        relative = relative_size(target, request.bucket)
        self._tickets += 1
        learned = self._learned[index]
        learned.under_way[self._tickets] = (now, relative, slack_s)
        if self.probes:
            self.probes.sent(name, now)
        if self.learner is not None:
            line = self.reliability(request.slack_s)
            self.learner.sent(self._tickets, context(request, target, line, now))
        arrives_at = now + 0.5 * target.rtt_s
        ahead_s, ahead_at = target.ahead_s, target.ahead_at
        gone_s = max(0.0, arrives_at - ahead_at)  # less when its way became shorter
        if max(ahead_s) <= gone_s:  # all of that is done: what follows is said for this moment
            ahead_s, ahead_at, gone_s = NO_WORK, arrives_at, 0.0
        self._put(
            index,
            target._replace(
                ahead_s=with_work(ahead_s, gone_s, slack_s, target.row_s * relative),
                ahead_at=ahead_at,
                outstanding=len(learned.under_way),
            ),
        )
        return Sent(
            index,
            self._tickets,
            now,
            request.bucket,
            target.rtt_s,
            predicted_s,
            target.service_s,
            request.slack_s,
            late_share(target.errors, predicted_s, target.service_s, slack_s),
        )

    def answered(
        self, sent: Sent, now: float, load: Load | None, at: float, way_s: float | None = None
    ) -> None:
        """Record an answer, and the load that came with it.

        at: when the load was so; way_s: what was measured of this call's time on the way.
        """
        learned = self._released(sent)
        if learned is None:
            return
        target = self.targets[sent.position]
        taken_s = now - sent.at
        values: dict[str, Any] = {
            "outstanding": len(learned.under_way),
            "peak_s": max(taken_s, moving_peak(target, now, taken_s)),
            "peak_at": now,
            **self._evidence(learned, sent, taken_s - sent.rtt_s, now),
        }
        if way_s is not None:
            values["rtt_s"] = _smoothed(target.rtt_s, way_s)
        if load is not None:
            if load.alone_s > 0.0 and load.service_s > 0.0:
                values["sizes"] = learned.sizes.saw(sent.bucket, load.alone_s / load.service_s)
            if at - target.heard_at >= NEWS_S:
                values |= self._news(learned, target, load, at)
        self._put(sent.position, target._replace(**values))

    def late(self, sent: Sent, now: float, at_least_s: float) -> None:
        """Record that a place gave a request up as hopeless; it would have taken at_least_s."""
        learned = self._released(sent)
        self.generation += 1
        if learned is not None:
            target = self.targets[sent.position]
            values = self._evidence(learned, sent, at_least_s - sent.rtt_s, now)
            values["outstanding"] = len(learned.under_way)
            values["peak_s"] = max(at_least_s, moving_peak(target, now, at_least_s))
            values["peak_at"] = now
            self._put(sent.position, target._replace(**values))

    def ended(self, sent: Sent) -> None:
        """Record that a request ended without telling anything: an error, a cancellation."""
        learned = self._released(sent)
        if learned is not None:
            if self.learner is not None:
                self.learner.ended(sent.ticket)
            target = self.targets[sent.position]
            self._put(sent.position, target._replace(outstanding=len(learned.under_way)))

    def heard(self, name: str, load: Load, at: float) -> None:
        """Take in a report. at: when it was so, on this clock; an older one says nothing."""
        index = self._index[name]
        target, learned = self.targets[index], self._learned[index]
        values = self._news(learned, target, load, at)
        if len(learned.errors) and at - learned.errors.added_at > FORGET_S:
            learned.errors.clear()
            values |= {"errors": self._pooled.frozen(), "bias": self._pooled.median}
        self._put(index, target._replace(**values))

    def asleep(self, name: str, start_s: float, now: float) -> None:
        """Take in that a place sleeps and would serve in start_s; say it again as that changes.

        What has been sent waits for the start as well. How far off estimates of milliseconds were
        says nothing of a start, so no errors count until it is awake (with `change`).
        """
        index = self._index[name]
        target, ahead_s = self.targets[index], (start_s,) * len(SLACKS)
        for sent_at, relative, slack_s in self._learned[index].under_way.values():
            left_s = slack_s - (now - sent_at)
            ahead_s = with_work(ahead_s, 0.0, left_s, relative * target.row_s)
        self.generation += 1
        self._put(
            index,
            target._replace(
                is_asleep=True,
                ahead_s=ahead_s,
                ahead_at=now,
                heard_at=now,
                busy=0.0,
                errors=(),
                bias=1.0,
            ),
        )

    def measured(self, name: str, rtt_s: float) -> None:
        """Take in a measured round trip without any work in it."""
        self.change(name, rtt_s=_smoothed(self[name].rtt_s, rtt_s))

    def probed(self, name: str, probe: Probe, now: float) -> None:
        """Take in what a place answered to a probe."""
        self.probes.add(probe, self[name], len(self.targets), now)

    def _put(self, index: int, target: Target) -> None:
        self.targets[index] = target
        if self.columns is not None:
            self.columns.put(index, target)

    def _released(self, sent: Sent) -> _Learned | None:
        """Return what is known of its place, the first time that a request ends."""
        learned = self._learned[sent.position]
        return learned if learned.under_way.pop(sent.ticket, None) is not None else None

    def _news(self, learned: _Learned, target: Target, load: Load, at: float) -> dict[str, Any]:
        """Return what a load says, with what the place did not have when it said so."""
        if at < target.heard_at:
            return {}
        gone_before = at - 0.5 * target.rtt_s
        unseen = []
        for under_way in reversed(learned.under_way.values()):
            if under_way[0] <= gone_before:
                break
            unseen.append(under_way)
        ahead_s = load.ahead_s
        for sent_at, relative, slack_s in reversed(unseen):
            ahead_s = with_work(ahead_s, sent_at - gone_before, slack_s, relative * load.row_s)
        values: dict[str, Any] = {
            "heard_at": at,
            "ahead_s": ahead_s,
            "ahead_at": at,
            "row_s": load.row_s,
            "busy": load.busy,
        }
        if load.service_s > 0.0:
            service_s = faded(load.service_s, target.prior_s, load.idle_s)
            values["service_s"] = service_s
            values["row_s"] *= service_s / load.service_s
            values["prior_s"] = target.prior_s or load.service_s
        if not target.errors and len(self._pooled):  # never asked: no better than the others
            values |= {"errors": self._pooled.frozen(), "bias": self._pooled.median}
        return values

    def _evidence(
        self, learned: _Learned, sent: Sent, actual_s: float, now: float
    ) -> dict[str, Any]:
        """Return what an actual time at the place says of the predictions."""
        is_late = actual_s > sent.slack_s - sent.rtt_s
        if self.learner is not None:
            self.learner.saw(sent.ticket, actual_s, is_late=is_late)
        if sent.place_s < _LEAST_S:
            return {}
        self._reliability[hurry(sent.slack_s)].saw(sent.late, is_late=is_late)
        wrong = error(actual_s, sent.place_s, sent.service_s)
        learned.errors.add(wrong, now)
        self._pooled.add(wrong, now)
        found = learned.errors if len(learned.errors) >= ENOUGH else self._pooled
        return {"errors": found.frozen(), "bias": found.median}


Rule = Callable[[Request, RoutingTable, float], Outcome]  # the last is the time


def _smoothed(mean_s: float, measured_s: float) -> float:
    measured_s = max(0.0, measured_s)
    return mean_s + _RTT_SMOOTHING * (measured_s - mean_s) if mean_s else measured_s


def moving_peak(target: Target, now: float, towards_s: float) -> float:
    """Return the moving peak of a latency: up at once, down slowly (peak EWMA of Finagle)."""
    share = math.exp(-max(0.0, now - target.peak_at) / PEAK_S)
    return target.peak_s * share + towards_s * (1.0 - share)


def faded(seconds: float, prior_s: float, idle_s: float) -> float:
    """Return what is left of a time that was learned idle_s ago; it goes back to the prior.

    A place that was slow for a while is not chosen, so that nobody would find out that it is quick
    again. A few requests that find it slow still are the price of asking.
    """
    if not prior_s or seconds <= prior_s:
        return seconds
    return prior_s + (seconds - prior_s) * math.exp(-idle_s / FADE_S)
