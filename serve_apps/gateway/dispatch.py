"""Send a request where routing says, and once more elsewhere if that place goes away.

Inference is idempotent here (the protocol's models keep no state between requests), so a
request whose target is lost, has unloaded the model meanwhile, or refuses for load, is repeated
once on another target while its deadline allows. Where there is no other target, but the one
that lost the request has replicas left, it is repeated there.
"""

from __future__ import annotations

import asyncio
import math
import random
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Final

from edge_runtime import routed
from edge_runtime.engine import Answered
from edge_runtime.errors import (
    DeadlineExceeded,
    NotFound,
    Overloaded,
    PrimeSparkError,
    Unavailable,
)
from edge_runtime.protocol.service import CallContext
from edge_runtime.protocol.types import InferRequest
from policies.routing import Decision, Hopeless, NoTarget, Outcome, Request, decide
from policies.routing.patience import patience_s
from serve_apps.gateway.arrivals import CLOUD, Arrivals
from serve_apps.gateway.decisions import DecisionLog, DecisionRecord, Way
from serve_apps.gateway.geography import Geography
from serve_apps.gateway.ledger import Attempt, Ledger
from serve_apps.gateway.targets import TargetLost, TargetTable
from serve_apps.gateway.wishes import Wishes

ATTEMPTS: Final = 2
FAILOVER: Final = "failover"
DEGRADED: Final = "budget_degraded"


@dataclass(frozen=True, slots=True, eq=False)
class Dispatched:
    """An answer, and where it came from."""

    answer: Answered
    target: str
    reason: str


class Dispatcher:
    """Routes requests over a target table.

    wall: unix seconds, for the log only; clock: that of the targets; wishes: how to choose;
    arrivals: counts for scaling.
    """

    def __init__(
        self,
        targets: TargetTable,
        log: DecisionLog,
        wall: Callable[[], float] = time.time,
        clock: Callable[[], float] = time.monotonic,
        ledger: Ledger | None = None,
        wishes: Wishes | None = None,
        geography: Geography | None = None,
        arrivals: Arrivals | None = None,
    ) -> None:
        self._arrivals = arrivals or Arrivals()
        self._geography = geography or Geography()
        self._wishes = wishes or Wishes()
        self._rule = self._wishes.decides
        self._random = random.Random()  # noqa: S311 (which of equal targets)
        self._turns = 0
        self._targets = targets
        self._ledger = ledger or Ledger()
        self._clock = clock
        self._log = log
        self._wall = wall

    async def infer(
        self,
        request: InferRequest,
        version: str,
        placements: frozenset[str],
        context: CallContext,
        prefer: frozenset[str] = frozenset(),
    ) -> Dispatched:
        """Run a request somewhere. prefer: tiers to use alone while one of them can serve it.

        Raises DeadlineExceeded, Unavailable (no target), Overloaded (every target refuses), or
        what the model refused with.
        """
        loop = asyncio.get_running_loop()
        excluded: frozenset[str] = frozenset()
        spare = False
        failed: PrimeSparkError | None = None
        for attempt in range(1, ATTEMPTS + 1):
            began_s = time.perf_counter()  # the loop's clock moves in steps of a millisecond
            now = loop.time()
            origin = self._geography.origin(context.origin_site, context.address)
            wanted = self._wanted(request, placements, context, now)._replace(
                origin_site=origin.site, zones=self._geography.zones(context.principal.tenant)
            )
            under_way = Attempt(self._wall(), request.id, request.model, version, wanted, attempt)
            if wanted.slack_s <= 0.0:
                raise self._refused(under_way, _late(request.model))
            decision, is_cheap = self._decide(under_way, excluded, prefer)
            if isinstance(decision, NoTarget) and spare:
                decision, is_cheap = self._decide(under_way, frozenset(), prefer)
            asleep = self._targets.asleep
            if asleep and not is_cheap:
                self._targets.wake_for(wanted, decision, (request.model, version))
            if attempt == 1:
                self._count(request.model, decision, wanted)
            if isinstance(decision, NoTarget):
                raise failed or self._refused(under_way, _no_target(request.model, decision))
            if isinstance(decision, Hopeless):
                raise failed or self._refused(under_way, _hopeless(request.model, decision))
            reason = FAILOVER if attempt > 1 else DEGRADED if is_cheap else decision.reason
            answer: Answered | None = None
            outcome = "cancelled"
            patience = None
            if attempt < ATTEMPTS:
                patience = _patience_s(decision, wanted.slack_s, asleep)
            sent = self._targets.ejections.sent(decision.target)
            try:
                answer = await self._call(decision, wanted, request, version, context, patience)
                outcome = "ok"
                self._arrivals.done(request.model, decision.target)
                return Dispatched(answer, decision.target, reason)
            except NotFound as error:
                outcome = error.code
                failed = failed or _left(request.model)
                excluded = frozenset((decision.target,))
            except (Unavailable, Overloaded) as error:
                outcome = error.code
                failed = failed or error
                excluded = frozenset((decision.target,))
                spare = isinstance(error, TargetLost) and self._targets[decision.target].has_spare
            except PrimeSparkError as error:
                outcome = error.code
                raise
            except Exception:  # a fault of ours, and no cancellation
                outcome = PrimeSparkError.code
                raise
            finally:
                taken_s = time.perf_counter() - began_s
                self._targets.ejections.ended(sent, outcome)
                site = self._targets[decision.target].site
                way = Way(*origin, self._geography.estimate(site, self._clock()).source)
                self._record(under_way, decision, reason, answer, taken_s, outcome, way, asleep)
        raise failed or Unavailable(f"model '{request.model}' could not be reached")

    def refused(
        self,
        request: InferRequest,
        version: str,
        placements: frozenset[str],
        context: CallContext,
        error: PrimeSparkError,
    ) -> None:
        """Account for a request that was refused before it got here."""
        wanted = self._wanted(request, placements, context, asyncio.get_running_loop().time())
        self._refused(Attempt(self._wall(), request.id, request.model, version, wanted), error)

    def _refused(self, under_way: Attempt, error: PrimeSparkError) -> PrimeSparkError:
        if under_way.number <= 1:  # else it has its lines already
            self._ledger.refused(replace(under_way, number=0), error.code)
        return error

    def _decide(
        self, under_way: Attempt, excluded: frozenset[str], prefer: frozenset[str]
    ) -> tuple[Outcome, bool]:
        """Decide among the preferred tiers, else among all; True when one of those was found.

        What a caller asks of a tier counts for less than a budget that is spent.
        """
        key, wanted = (under_way.model, under_way.version), under_way.wanted
        wanted = wanted._replace(excluded=excluded)
        tiers = prefer & (wanted.tiers or prefer)
        if tiers:
            found = self._choose(key, wanted._replace(tiers=tiers, tier=None))
            if isinstance(found, Decision) and found.reason != "last_resort":
                return found, True
        return self._choose(key, wanted), False

    def _count(self, model: str, outcome: Outcome, wanted: Request) -> None:
        """Count where a request goes; one that nobody can take asks for more cloud replicas."""
        if isinstance(outcome, Decision):
            self._arrivals.came(model, outcome.target)
        elif wanted.tier in (None, CLOUD) and (wanted.tiers is None or CLOUD in wanted.tiers):
            self._arrivals.came(model)

    def _choose(self, key: tuple[str, str], wanted: Request) -> Outcome:
        began_s = time.perf_counter()
        outcome = decide(wanted, self._targets.known(key), self._clock(), self._rule)
        self._log.decided(time.perf_counter() - began_s)
        return outcome

    def _wanted(
        self, request: InferRequest, placements: frozenset[str], context: CallContext, now: float
    ) -> Request:
        self._turns += 1
        return routed.wanted(
            request,
            context,
            now,
            origin_site=context.origin_site,
            objective=self._wishes.objective_of(request.model),
            tiers=placements,
            draw=self._random.getrandbits(64),
            turn=self._turns,
        )

    async def _call(
        self,
        decision: Decision,
        wanted: Request,
        request: InferRequest,
        version: str,
        context: CallContext,
        patience: float | None,
    ) -> Answered:
        try:
            return await self._targets[decision.target].infer(
                request,
                version,
                wanted,
                deadline=context.deadline,
                priority=context.priority,
                patience_s=patience,
                trace=context.trace,
            )
        except TimeoutError:
            raise _late(request.model) from None

    def _record(
        self,
        under_way: Attempt,
        decision: Decision,
        reason: str,
        answer: Answered | None,
        taken_s: float,
        outcome: str,
        way: Way,
        asleep: frozenset[str],
    ) -> None:
        place = self._targets.known((under_way.model, under_way.version))[decision.target]
        rates = self._targets[decision.target].rates
        cost = self._ledger.ended(
            under_way, decision, reason, place, rates, answer, taken_s, outcome
        )
        self._log.add(
            DecisionRecord(
                at=under_way.at,
                request_id=under_way.request_id,
                model=under_way.model,
                version=under_way.version,
                target=decision.target,
                reason=reason,
                attempt=under_way.number,
                expected_s=decision.expected_s,
                taken_s=taken_s,
                outcome=outcome,
                verdicts=decision.verdicts,
                cost=cost,
                way=way,
                asleep=asleep,
            )
        )


def _patience_s(decision: Decision, slack_s: float, asleep: frozenset[str]) -> float | None:
    """Return what `patience_s` says; places that sleep count while there is time for a start."""
    found = patience_s(decision, slack_s)
    if asleep and found == math.inf:
        awake = tuple(v for v in decision.verdicts if v.target not in asleep)
        return patience_s(decision._replace(verdicts=awake), slack_s)
    return found


def _late(model: str) -> DeadlineExceeded:
    return DeadlineExceeded(
        f"the deadline passed before model '{model}' could answer", field="timeout"
    )


def _left(model: str) -> Unavailable:
    """The model was unloaded at the target between the decision and the call."""
    return Unavailable(f"model '{model}' is being moved or unloaded", retry_after_s=1.0)


def _hopeless(model: str, found: Hopeless) -> Overloaded:
    return Overloaded(
        f"no target can answer for model '{model}' before the deadline",
        retry_after_s=found.retry_after_s,
        details={"reason": "deadline"},
    )


def _no_target(model: str, decision: NoTarget) -> Unavailable:
    found = ", ".join(f"{v.target}: {v.ruled_out}" for v in decision.verdicts) or "none placed"
    return Unavailable(
        f"no target can serve model '{model}' now ({found})",
        hint="`prime-spark status` shows the targets",
        retry_after_s=1.0,
    )
