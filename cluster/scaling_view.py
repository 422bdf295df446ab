"""What scaling does and why, read from what its parts write: the forecast, the decision log."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from cluster.config import Settings
from cluster.home import Home
from policies.scaling import REASONS

FORECAST: Final = "forecast.json"  # below `Home.scaling_run`


@dataclass(frozen=True, slots=True)
class ScalingView:
    """scaling: the setting; forecast: as the forecaster wrote it, with `age_s`, None where there is
    none; decisions: those that changed something, the newest first.
    """

    scaling: str
    minimum: int
    maximum: int
    forecast: Mapping[str, Any] | None
    decisions: tuple[Mapping[str, Any], ...]

    def document(self) -> dict[str, Any]:
        """Return it as a JSON value."""
        return {
            "scaling": self.scaling,
            "min_replicas": self.minimum,
            "max_replicas": self.maximum,
            "forecast": self.forecast,
            "decisions": list(self.decisions),
        }

    def rows(self) -> list[list[str]]:
        """Return the decisions as a table for people: when, change, reason, rule, work."""
        found = []
        for line in self.decisions:
            at = datetime.fromtimestamp(line["at"], UTC).strftime("%Y-%m-%d %H:%M:%S")
            change = f"{line['from']} to {line['to']}"
            why = REASONS.get(line["reason"], line["reason"])
            found.append([at, change, line["reason"], why, line["rule"]])
        return found


def read_scaling(settings: Settings, limit: int) -> ScalingView:
    """Read what there is; what cannot be read is left out. limit: of decisions."""
    home = Home.of(settings.home)
    scale = settings.inference
    return ScalingView(
        scale.scaling,
        scale.min_replicas,
        scale.max_replicas,
        _forecast(home.scaling_run / FORECAST),
        tuple(_decisions(home.scaling_log, limit)),
    )


def _forecast(path: Path) -> Mapping[str, Any] | None:
    try:
        found: dict[str, Any] = json.loads(path.read_text("utf-8"))
        return {"age_s": round(time.monotonic() - found["at_s"], 3), **found}
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _decisions(path: Path, limit: int) -> list[Mapping[str, Any]]:
    """Return the newest; the file before the last rotation is read where one is not enough."""
    found: list[Mapping[str, Any]] = []
    for each in (path, path.with_name(f"{path.name}.1")):
        try:
            lines = each.read_text("utf-8").splitlines()
        except OSError:
            break
        for line in reversed(lines):
            if len(found) == limit:
                return found
            try:
                found.append(json.loads(line))
            except ValueError:  # a line cut off by a crash
                continue
    return found
