"""The policy that Ray Serve's controller asks about ten times a second.

It looks whether the forecast was replaced, takes the controller's own live numbers, and calls
`policies.scaling`. Nothing here waits for anybody. Whatever changes the number of replicas is
written down with its inputs, one JSON object a line, in `logs/scaling.log` of the home.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable
from dataclasses import asdict, replace
from logging.handlers import RotatingFileHandler
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from policies.scaling import (
    NOTHING,
    Bounds,
    Decision,
    Forecast,
    History,
    Observed,
    Predictive,
    Reactive,
    Rule,
)
from policies.scaling.bounds import HOUR_S
from serve_apps.scaling.spool import STALE_S, Outlook, OutlookReader

if TYPE_CHECKING:
    from cluster.config import Settings

LOG_BYTES: Final = 2 * 1024 * 1024
LOG_BACKUPS: Final = 2


def rule_of(settings: Settings) -> Predictive:
    """Return the rule that the settings ask for."""
    scale = settings.inference
    budget = None if scale.budget_replicas is None else HOUR_S * scale.budget_replicas
    bounds = Bounds(scale.min_replicas, scale.max_replicas, budget)
    return Predictive(
        Reactive(
            bounds,
            scale.target_ongoing_requests,
            scale.upscale_delay_s,
            scale.downscale_delay_s,
            idle_s=scale.sleep_after_s,
        ),
        utilisation=scale.utilisation,
        burst_utilisation=min(scale.utilisation, 0.85),
        stale_s=STALE_S,
        idle_s=scale.sleep_after_s,
    )


class PredictivePolicy:
    """Serve makes one for a deployment and calls it with an `AutoscalingContext`."""

    def __init__(self, settings: dict[str, Any], run: str, log: str) -> None:
        """settings: as JSON; run: folder of the forecast; log: file of the decisions."""
        from cluster.config import Settings

        self._decider = Decider(
            rule_of(Settings.model_validate(settings)), Path(run), decision_log(Path(log))
        )

    def __call__(self, context: Any) -> tuple[int, dict[str, Any]]:
        """Return the number of replicas and what Serve should remember (nothing)."""
        return (
            self._decider.decide(
                running=context.current_num_replicas,
                target=context.target_num_replicas,
                ongoing=context.total_num_requests,
            ),
            {},
        )


class Decider:
    """Combines the latest forecast with live numbers.

    tell: is given what changed something; clock: monotonic, as that of the forecaster.
    """

    def __init__(
        self,
        rule: Predictive,
        folder: Path,
        tell: Callable[[dict[str, Any]], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._rule: Rule = rule
        self._paid = rule.reactive.bounds.paid
        self._reader = OutlookReader(folder, clock)
        self._tell = tell
        self._memory = NOTHING
        self._extra = History(1.0, int(HOUR_S))
        self._clock = clock
        self._asked_at: float | None = None
        self._target: int | None = None
        self._awake_since = clock()
        self._sleep_after_s = rule.idle_s

    def decide(self, running: int, target: int, ongoing: float) -> int:
        """Return the number of replicas there should be.

        ongoing: requests in progress, averaged over Serve's look-back.
        """
        now = self._clock()
        there = max(running, target)
        if self._asked_at is not None:
            extra = max(0, there - self._paid)
            self._extra.add(now, extra * max(0.0, now - self._asked_at))
        self._asked_at = now
        if not there:
            self._awake_since = now
        seen = self._observed(running, target, ongoing, now)
        if self._target == 0 and target > 0:
            # Serve's controller does that by itself as soon as a request waits at a handle.
            self._tell(
                _document(Decision(target, target, "wake", "serve", replace(seen, target=0)))
            )
        decision, self._memory = self._rule.decide(seen, self._memory)
        if decision.target != target:
            self._tell(_document(decision))
        self._target = decision.target
        return decision.target

    def _observed(self, running: int, target: int, ongoing: float, now: float) -> Observed:
        outlook = self._reader.read()
        starting = max(0, target - running)
        spent = self._extra.total
        if outlook is None:
            return Observed(
                now, ongoing=ongoing, running=running, starting=starting, target=target,
                extra_spent=spent,
            )  # fmt: skip
        return Observed(
            now=now,
            rate=outlook.rate + outlook.spare,
            fast_rate=outlook.fast_rate + outlook.spare,
            long_rate=outlook.long_rate + outlook.spare,
            ongoing=ongoing,
            queued=outlook.queued,
            running=running,
            starting=starting,
            target=target,
            capacity=outlook.capacity,
            idle_s=self._idle_s(outlook, now, is_asleep=not max(running, target)),
            extra_spent=spent,
            forecast=_forecast(outlook),
        )

    def _idle_s(self, outlook: Outlook, now: float, *, is_asleep: bool) -> float:
        """Return since when nothing came, as it matters for sleeping.

        Whatever else is known: who was woken stays for a while, and a forecaster that begins anew,
        and knows of no silence, is no reason to wake anybody.
        """
        if is_asleep:
            return max(outlook.idle_s, self._sleep_after_s)
        return min(outlook.idle_s, now - self._awake_since)


def _forecast(outlook: Outlook) -> Forecast:
    return Forecast(
        made_at=outlook.forecast_at_s,
        peak=outlook.peak + outlook.spare,
        basis="season" if outlook.basis == "season" else "level",
        headroom=outlook.headroom,
        loss=outlook.loss,
        level_loss=outlook.level_loss,
        covered=outlook.covered,
        seasons=outlook.seasons,
        why_not=outlook.why_not,
    )


def decision_log(path: Path) -> Callable[[dict[str, Any]], None]:
    """Return a function that appends to a bounded file."""
    logger = logging.getLogger(f"{__name__}.{path}")
    logger.propagate = False
    logger.setLevel(logging.INFO)
    if not logger.handlers:
        logger.addHandler(
            RotatingFileHandler(path, maxBytes=LOG_BYTES, backupCount=LOG_BACKUPS, delay=True)
        )
    return lambda document: logger.info("%s", json.dumps({"at": time.time(), **document}))


def _document(decision: Decision) -> dict[str, Any]:
    return {
        "from": decision.seen.target,
        "to": decision.target,
        "wanted": decision.wanted,
        "reason": decision.reason,
        "rule": decision.rule,
        "seen": asdict(decision.seen),
    }
