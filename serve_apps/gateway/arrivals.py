"""What comes to this gateway, counted for scaling and told to the forecaster once a second."""

from __future__ import annotations

import asyncio
import logging
import time
import uuid
from collections import Counter
from pathlib import Path
from typing import Final

from serve_apps.gateway.targets import TargetTable
from serve_apps.scaling import spool

logger = logging.getLogger(__name__)

CLOUD: Final = "cloud"
EVERY_S: Final = 1.0
MOST_MODELS: Final = 64  # further ones count under OTHERS, so that memory is bounded
OTHERS: Final = "(others)"
# Minutes: what a request takes changes with batches and neighbours, and its history in seconds of a
# replica would change with that. How fast replicas are now is measured beside it.
SMOOTHING: Final = 1 / 300
WAITS_S: Final = 0.25  # a replica with a queue of that does all it can


class Arrivals:
    """Counts requests by model and by the target they were sent to first, and cloud answers."""

    def __init__(self) -> None:
        self._life = uuid.uuid4().hex
        self._came: dict[str, Counter[str]] = {}
        self._done: Counter[str] = Counter()
        self._work_s: dict[str, float] = {}

    def came(self, model: str, target: str = CLOUD) -> None:
        """Count a request. target: `cloud` also for one that no target could take in time."""
        if model not in self._came and len(self._came) >= MOST_MODELS:
            model = OTHERS
        self._came.setdefault(model, Counter())[target] += 1

    def done(self, model: str, target: str) -> None:
        """Count an answer of a target to a request that came."""
        if target == CLOUD:
            self._done[model if model in self._came else OTHERS] += 1

    def counts(self, targets: TargetTable, now_s: float) -> spool.GatewayCounts:
        """Return everything counted, and how the cloud replicas are."""
        reports = [r for t in targets if t.tier == CLOUD for r in t.reports]
        busy = queued_s = 0.0
        waiting = 0
        rows: dict[str, list[float]] = {}
        for report in reports:
            found = sum(load.busy for load in report.loads.values())
            if any(load.queued and load.wait_s > WAITS_S for load in report.loads.values()):
                waiting += 1
                found = max(1.0, found)  # it may not get to compute all the time
            busy += found
            for (model, _), load in report.loads.items():
                row_s = load.row_s or load.service_s
                queued_s += load.queued * row_s
                if row_s:
                    rows.setdefault(model, []).append(row_s)
        for model, values in rows.items():
            if model in self._came:
                new_s = sum(values) / len(values)
                old_s = self._work_s.setdefault(model, new_s)
                self._work_s[model] = old_s + SMOOTHING * (new_s - old_s)
        if OTHERS in self._came and self._work_s:
            self._work_s[OTHERS] = sum(self._work_s.values()) / len(self._work_s)
        return spool.GatewayCounts(
            life=self._life,
            at_s=now_s,
            came={model: dict(counts) for model, counts in self._came.items()},
            done=dict(self._done),
            work_s=dict(self._work_s),
            replicas=len(reports),
            busy=busy,
            queued_s=queued_s,
            waiting=waiting,
        )

    async def run(
        self, folder: Path, slot: int, targets: TargetTable, every_s: float = EVERY_S
    ) -> None:
        """Tell the forecaster for ever; a full disk is no reason to stop serving."""
        path = spool.counts_path(folder, slot)
        has_failed = False
        while True:
            try:
                spool.write(path, self.counts(targets, time.monotonic()))
                has_failed = False
            except OSError as error:
                if not has_failed:
                    logger.warning("%s cannot be written: %s", path, error)
                has_failed = True
            await asyncio.sleep(every_s)
