"""The values that routing speaks in. Times are seconds, money is US dollars, sizes are bytes.

A router keeps one `Target` for each place that can serve a model (`table`), replaces it whenever
it learns something, and hands all of them to a rule. They are named tuples because one is made
for every send and every reply, and a frozen dataclass costs three times as much to make.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final, Literal, NamedTuple

from policies.routing.lateness import Errors

Objective = Literal["latency", "balanced", "cost"]
OBJECTIVES: Final[tuple[Objective, ...]] = ("latency", "balanced", "cost")

# Seconds to a deadline by which a place says how much work is ahead; the last is infinite.
SLACKS: Final = (0.025, 0.05, 0.1, 0.2, 0.4, 0.8, 1.6, math.inf)
NO_WORK: Final = (0.0,) * len(SLACKS)


class Load(NamedTuple):
    """What a place says of its own queue for one model, with a reply or by itself.

    queued, running: requests; ahead_s: seconds of work ahead of a request that comes now with so
    much time to its deadline, for each of `SLACKS`; service_s: work of a request of usual size,
    alone; row_s: by how much one more of them lengthens the wait (less than service_s where
    batches pay or several run at once); busy: share of the last second or so in which it computed;
    alone_s: what the request of this reply would have taken alone, 0 where there was none; idle_s:
    since the place last ran anything, which is how old service_s and row_s are.
    """

    queued: int = 0
    running: int = 0
    ahead_s: tuple[float, ...] = NO_WORK
    service_s: float = 0.0
    row_s: float = 0.0
    busy: float = 0.0
    alone_s: float = 0.0
    idle_s: float = 0.0


class Target(NamedTuple):
    """A place that can serve a request, as a router knows it.

    tier: `colocated`, `cloud` or `edge`; zone: where its data rests, as a law sees it; tenants:
    whom it serves, everybody when None. is_silent: it owes an answer to a probe, but nothing says
    that it is gone; is_ejected: it fails more than its peers do; is_asleep: it has to be started
    first, which counts as work ahead.

    rtt_s: time on the way, there and back; ahead_s: work ahead of a new request at ahead_at, as in
    `Load`, what this router has sent since included; heard_at: when the place last said how it is;
    service_s, row_s, busy: see `Load`; sizes: work of a request by its size bucket, relative to
    service_s; outstanding: requests of this router it has not answered.

    errors: the latest errors of the estimates (`lateness`), sorted; bias: their median; peak_s:
    moving peak of the latency at peak_at; prior_s: what a request is said to take there, by
    configuration or by the first report.

    usd: of a request whatever its size; usd_per_s: of its work; usd_per_byte: of moving it
    there from another site.
    """

    name: str
    tier: str
    site: str
    zone: str = ""
    tenants: frozenset[str] | None = None
    is_up: bool = True
    is_silent: bool = False
    is_draining: bool = False
    is_ejected: bool = False
    is_asleep: bool = False
    has_model: bool = True
    rtt_s: float = 0.0
    ahead_s: tuple[float, ...] = NO_WORK
    ahead_at: float = 0.0
    heard_at: float = 0.0
    service_s: float = 0.0
    row_s: float = 0.0
    busy: float = 0.0
    sizes: tuple[float, ...] = ()
    outstanding: int = 0
    errors: Errors = ()
    bias: float = 1.0
    peak_s: float = 0.0
    peak_at: float = 0.0
    prior_s: float = 0.0
    usd: float = 0.0
    usd_per_s: float = 0.0
    usd_per_byte: float = 0.0


class Request(NamedTuple):
    """What matters about a request for choosing where it runs.

    slack_s: time to its deadline; bucket: of its size (`sizes.bucket`); moved_bytes: request and
    answer together; tiers: where the model is placed, anywhere when None; tier: where the caller
    insists; origin_site: where it comes from; zones: where
    its data may go, anywhere when None; excluded: targets that were tried already; session: what it
    belongs to, if its caller wants to be kept at one place.

    draw: 64 random bits, which settle whatever a rule draws, so that a decision can be repeated;
    turn: how many requests this router has had before.
    """

    slack_s: float
    bucket: int = 0
    moved_bytes: int = 0
    objective: Objective = "balanced"
    tiers: frozenset[str] | None = None
    tier: str | None = None
    origin_site: str | None = None
    tenant: str = ""
    zones: frozenset[str] | None = None
    excluded: frozenset[str] = frozenset()
    session: str = ""
    draw: int = 0
    turn: int = 0


class Verdict(NamedTuple):
    """What was found of one target.

    expected_s: seconds to the answer; late: the share of requests like this that would be late
    there, 0 where the rule does not ask; usd: of this request there; ruled_out: the rule that
    ruled it out; model_s, model_late: what a model says instead of expected_s and late (`learned`).
    """

    target: str
    expected_s: float
    ruled_out: str | None = None
    late: float = 0.0
    usd: float = 0.0
    model_s: float | None = None
    model_late: float | None = None


class Decision(NamedTuple):
    """The choice. reason: a stable code of `REASONS`; expected_s: seconds to the answer.

    late, usd: as in `Verdict`; spent: by how much late is more than at the safest target, in
    budgets of the objective, None where it has none or there was no choice. verdicts: of every
    target, or of the best where there are very many.
    """

    target: str
    reason: str
    expected_s: float
    verdicts: tuple[Verdict, ...]
    late: float = 0.0
    usd: float = 0.0
    spent: float | None = None


@dataclass(frozen=True, slots=True)
class NoTarget:
    """Nothing can serve the request; verdicts say which rule ruled out which target."""

    verdicts: tuple[Verdict, ...]


@dataclass(frozen=True, slots=True)
class Hopeless:
    """Something could serve the request, but nothing in time.

    late: the share of such requests that are late at the safest target; retry_after_s: from now.
    """

    verdicts: tuple[Verdict, ...]
    late: float
    retry_after_s: float


Outcome = Decision | NoTarget | Hopeless

REASONS: Final = (
    "tier_requested",  # the caller insisted, and one target of that tier was left
    "only_candidate",  # nothing else could serve it
    "origin_site",  # the best of all, and at the caller's site
    "least_cost",  # dearer ones would be faster, none of them worth its price
    "least_expected",  # the shortest expected delay
    "least_late",  # none is expected to meet the deadline; the least bad
    "session",  # where the others of its session are
    "by_rule",  # of a classical rule, which asks for no deadline and no price
    "learned",  # among what is nearly as good, a model expects the least cost here
    "last_resort",  # only silent or ejected targets were left: slow is likelier than dead
)
