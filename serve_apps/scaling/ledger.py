"""What came, from the counts of all gateways: histories by model, and how fast replicas are.

Histories of past seasons survive a restart in one bounded file of the home.
"""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final
from zipfile import BadZipFile

import numpy as np

from edge_runtime import durable
from policies.scaling import Capacity, Forecast, History, Season, find_period, forecast
from policies.scaling.forecast import Basis
from policies.scaling.history import Flow, added
from serve_apps.scaling.spool import GatewayCounts, Outlook

logger = logging.getLogger(__name__)

CLOUD: Final = "cloud"
EDGE: Final = "edge/"
MODELS: Final = 64
DAY_S: Final = 86400.0
LOOK_FOR_SEASON_S: Final = 600.0


class Ledger:
    """Takes in counts, once a second, and gives out forecasts.

    season_s: after which traffic repeats, 0 to find out. Times given are unix seconds, so that a
    phase of the day stays what it is over a restart.
    """

    def __init__(self, season_s: float, start_s: float, spare_edge: bool) -> None:
        self._finds_season = season_s == 0
        self._start_s = start_s
        self._spare_edge = spare_edge
        self._season = Season.of(season_s or DAY_S, start_s)
        self._bucket_s = self._season.past().bucket_s  # of the file; a season found keeps to it
        self._buckets = self._season.past().buckets
        self._past: dict[str, History] = {}
        self._recent = self._season.recent()
        self._edge: dict[str, History] = {}
        self._before: dict[str, GatewayCounts] = {}
        self._capacity = Capacity()
        self._queued = 0.0
        self._came_at: float | None = None
        self._looked_at = -float("inf")
        self._basis: Basis = "level"

    def take(self, counts: Mapping[str, GatewayCounts], now: float) -> None:
        """Count what came since the last time. A gateway that began anew began from nothing."""
        seen_s = now - 0.5  # in the second that is over
        to_cloud = done = 0.0
        is_known = False
        for name, found in counts.items():
            before = self._before.get(name)
            is_same = before is not None and before.life == found.life
            is_known |= is_same
            for model, targets in found.came.items():
                old = before.came.get(model, {}) if is_same and before is not None else {}
                for target, number in targets.items():
                    # Of a gateway first seen now, nobody knows when its requests came.
                    new = number - old.get(target, 0) if is_same else 0
                    work = max(0, new) * found.work_s.get(model, 0.0)
                    if target.startswith(EDGE):
                        self._at_edge(target).add(seen_s, work)
                    elif target == CLOUD:
                        to_cloud += work
                        self._of(model).add(seen_s, work)
                        if new > 0:
                            self._came_at = now
            for model, number in found.done.items():
                new = number - before.done.get(model, 0) if is_same and before is not None else 0
                done += max(0, new) * found.work_s.get(model, 0.0)
        if self._came_at is None:  # as far as one knows
            self._came_at = now
        self._before = dict(counts)
        self._recent.add(seen_s, to_cloud)
        # All gateways see the same replicas; the latest report is as good as any.
        latest = max(counts.values(), key=lambda each: each.at_s, default=None)
        self._queued = latest.queued_s if latest else 0.0
        if is_known and latest is not None:
            all_wait = 0 < latest.replicas == latest.waiting
            self._capacity.learn(done, latest.busy, latest.replicas, all_wait=all_wait)

    def outlook(self, now: float, monotonic_s: float) -> Outlook:
        """Return what is there and what will come. monotonic_s: the same moment, on that clock."""
        self._find_season(now)
        past = list(self._past.values()) or [self._empty()]
        found: Forecast = forecast(past, self._recent, self._season, now, self._basis)
        self._basis = found.basis
        fine = Flow((self._recent,), now)
        return Outlook(
            at_s=monotonic_s,
            rate=fine.over(fine.end_s - 3, fine.end_s),
            fast_rate=fine.over(fine.end_s - 6, fine.end_s),
            long_rate=fine.over(fine.end_s - 60, fine.end_s),
            queued=self._queued,
            idle_s=0.0 if self._came_at is None else max(0.0, now - self._came_at),
            capacity=self._capacity.value,
            spare=self._spare(now),
            period_s=self._season.period_s,
            forecast_at_s=monotonic_s - (now - found.made_at),
            peak=found.peak,
            basis=found.basis,
            headroom=found.headroom,
            loss=found.loss,
            level_loss=found.level_loss,
            covered=found.covered,
            seasons=found.seasons,
            why_not=found.why_not,
        )

    def save(self, path: Path, now: float) -> None:
        """Replace the file. Raises OSError."""
        durable.make_folder(path.parent)
        known = {model: history.known(now) for model, history in self._past.items()}
        about = {
            "bucket_s": self._bucket_s,
            "models": [{"model": model, "begin_s": begin} for model, (begin, _) in known.items()],
        }
        packed = io.BytesIO()
        arrays: dict[str, Any] = {
            f"works_{number}": works for number, (_, works) in enumerate(known.values())
        }
        np.savez_compressed(packed, about=np.array(json.dumps(about)), **arrays)
        durable.write(path, packed.getvalue())

    def load(self, path: Path, now: float) -> None:
        """Read the file; one that is damaged, or of another season, is left and logged."""
        if not path.exists():
            return
        try:
            with np.load(path, allow_pickle=False) as file:
                about = json.loads(str(file["about"]))
                if about["bucket_s"] != self._bucket_s:
                    raise ValueError("it is of another season")
                for number, entry in enumerate(about["models"][:MODELS]):
                    works = np.asarray(file[f"works_{number}"], np.float64)
                    if not (np.isfinite(works).all() and (works >= 0).all()):
                        raise ValueError("it holds what is no work")
                    if entry["begin_s"] + len(works) * about["bucket_s"] <= now + about["bucket_s"]:
                        self._of(entry["model"]).restore(entry["begin_s"], works.tolist())
        except (OSError, EOFError, ValueError, LookupError, TypeError, BadZipFile) as error:
            logger.warning("the history in %s is not used: %s", path, error)
            self._past = {}

    def _find_season(self, now: float) -> None:
        if not self._finds_season or now - self._looked_at < LOOK_FOR_SEASON_S or not self._past:
            return
        self._looked_at = now
        works = added(list(self._past.values()), now)
        found = find_period(works, self._bucket_s, 10 * self._start_s)
        if found is not None and found != self._season.period_s and found <= DAY_S:
            logger.info("traffic repeats after %.0f s", found)
            self._season = Season.of(found, self._start_s)

    def _of(self, model: str) -> History:
        if model not in self._past:
            if len(self._past) >= MODELS:
                del self._past[min(self._past, key=lambda name: self._past[name].total)]
            self._past[model] = self._empty()
        return self._past[model]

    def _empty(self) -> History:
        return History(self._bucket_s, self._buckets)

    def _at_edge(self, target: str) -> History:
        return self._edge.setdefault(target, History(1.0, 120))

    def _spare(self, now: float) -> float:
        """Return work a second that would come if the busiest edge site were lost."""
        if not self._spare_edge or not self._edge:
            return 0.0
        flows = (Flow((history,), now) for history in self._edge.values())
        return max(flow.over(flow.end_s - 60, flow.end_s) for flow in flows)
