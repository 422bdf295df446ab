"""Small JSON files that one process replaces and others read, on one machine.

They are replaced by renaming, so a reader sees an old one or a new one, never a half. Moments in
them are of the system-wide monotonic clock, which all processes of a machine share.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Final, Self

from cluster.scaling_view import FORECAST

STALE_S: Final = 6.0  # of what is written every second
_GATEWAY: Final = "gateway-"


@dataclass(frozen=True, slots=True)
class GatewayCounts:
    """What a gateway has seen since it began, and the cloud replicas as it knows them now.

    life: another one after each start; at_s: monotonic. came: requests by model and target name,
    those that no target could take under `cloud`; done: by model, answers of the cloud; work_s:
    seconds of a cloud replica that one request of a model takes; replicas: how many answer; busy:
    of them, summed (2.0 are two fully busy ones); waiting: of them, those where requests wait for
    long; queued_s: seconds of work that waits at all of them.
    """

    life: str
    at_s: float
    came: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    work_s: Mapping[str, float] = field(default_factory=dict)
    replicas: int = 0
    busy: float = 0.0
    queued_s: float = 0.0
    done: Mapping[str, int] = field(default_factory=dict)
    waiting: int = 0

    @classmethod
    def of(cls, document: Mapping[str, Any]) -> Self:
        """Read what an older or newer release wrote. Raises TypeError where it is none."""
        return cls(**_known(cls, document))


@dataclass(frozen=True, slots=True)
class Outlook:
    """What the forecaster says once a second: work in seconds of a cloud replica, per second.

    at_s, forecast_at_s: when it was written and when the forecast was made, monotonic. rate,
    fast_rate, long_rate: over the last 3, 6 and 60 s; capacity: of a replica, measured. The rest is
    that of `policies.scaling.Forecast`.
    """

    at_s: float
    rate: float = 0.0
    fast_rate: float = 0.0
    long_rate: float = 0.0
    queued: float = 0.0
    idle_s: float = 0.0
    capacity: float = 0.0
    spare: float = 0.0
    period_s: float = 0.0
    forecast_at_s: float = 0.0
    peak: float = 0.0
    basis: str = "level"
    headroom: float = 0.0
    loss: float = 0.0
    level_loss: float = 0.0
    covered: float = 0.0
    seasons: int = 0
    why_not: str = "no_history"

    @classmethod
    def of(cls, document: Mapping[str, Any]) -> Self:
        """Read what an older or newer release wrote. Raises TypeError where it is none."""
        return cls(**_known(cls, document))


def _known(kind: type[GatewayCounts | Outlook], document: object) -> dict[str, Any]:
    if not isinstance(document, dict):
        raise TypeError("it is no JSON object")
    names = {each.name for each in fields(kind)}
    return {name: value for name, value in document.items() if name in names}


def write(path: Path, value: GatewayCounts | Outlook) -> None:
    """Replace a file. Raises OSError."""
    staged = path.with_suffix(".new")
    staged.write_text(json.dumps(asdict(value)), "utf-8")
    staged.replace(path)


def forecast_path(folder: Path) -> Path:
    return folder / FORECAST


def counts_path(folder: Path, slot: int) -> Path:
    return folder / f"{_GATEWAY}{slot}.json"


def read_counts(folder: Path, now_s: float, fresh_s: float) -> dict[str, GatewayCounts]:
    """Return what gateways have written lately, by file name; what cannot be read is left out."""
    found: dict[str, GatewayCounts] = {}
    for path in sorted(folder.glob(f"{_GATEWAY}*.json")):
        try:
            counts = GatewayCounts.of(json.loads(path.read_text("utf-8")))
            if 0 <= now_s - counts.at_s <= fresh_s:
                found[path.name] = counts
        except (OSError, ValueError, TypeError):  # gone, or of somebody who is being replaced
            continue
    return found


class OutlookReader:
    """Reads the forecast again only when it was replaced: one `stat` else. clock: monotonic."""

    def __init__(self, folder: Path, clock: Callable[[], float]) -> None:
        self._path = forecast_path(folder)
        self._clock = clock
        self._seen: tuple[int, int] | None = None
        self._found: Outlook | None = None

    def read(self) -> Outlook | None:
        """Return the latest, None where there is none that can be read, or it is too old."""
        try:
            stat = os.stat(self._path)  # noqa: PTH116 (a third of the time, ten times a second)
            seen = (stat.st_mtime_ns, stat.st_ino)
            if seen != self._seen:
                self._found = Outlook.of(json.loads(self._path.read_text("utf-8")))
                self._seen = seen
        except (OSError, ValueError, TypeError):
            self._seen = self._found = None
        found = self._found
        return found if found and 0.0 <= self._clock() - found.at_s <= STALE_S else None
