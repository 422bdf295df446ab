"""What the box says of itself, asked ten times a second, and what of it the marks need."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Mapping
from typing import Any, Final

from load.chaos.box import Box
from load.chaos.models import DIGITS, HAILO
from load.chaos.rungs import History

EVERY_S: Final = 0.1
SLOW_S: Final = 2.0


class Watch:
    """Asks until it is cancelled. document: the latest answer, empty while nobody answers."""

    def __init__(self, box: Box) -> None:
        self._box = box
        self.history = History()
        self.rungs: list[tuple[float, str]] = []
        self.document: Mapping[str, Any] = {}
        self.asked_s = 0.0

    async def run(self) -> None:
        """Never raises: a box that does not answer is what this is about."""
        while True:
            began = time.monotonic()
            await self.look()
            await asyncio.sleep(max(0.01, EVERY_S - (time.monotonic() - began)))

    async def look(self) -> None:
        """Ask once."""
        try:
            status, body = await self._box.local("GET", "/v2/prime-spark/edge", timeout_s=SLOW_S)
            self.document = json.loads(body) if status == 200 else {}
        except (OSError, ValueError):
            self.document = {}
        now = self.asked_s = time.monotonic()
        rung = self.rung
        if not self.rungs or self.rungs[-1][1] != rung:
            self.rungs.append((now, rung))
        self.history.saw(now, is_top=rung == HAILO, why=self.why)

    @property
    def rung(self) -> str:
        """Where digits would be computed: a rung, `nothing`, or `off` when nobody answers."""
        if not self.document:
            return "off"
        model = self.model(DIGITS)
        return str(model["rung"] or "nothing") if model is not None else "nothing"

    @property
    def why(self) -> str:
        """Why the accelerator does not serve, or what else is wrong, in its own words."""
        if not self.document:
            return "nobody answers"
        return str((self.document.get("accelerator") or {}).get("why") or "") or "; ".join(
            self.reasons[:3]
        )

    @property
    def reasons(self) -> list[str]:
        return [str(reason) for reason in self.document.get("reasons", ())]

    @property
    def accelerator(self) -> Mapping[str, Any]:
        found: Mapping[str, Any] = self.document.get("accelerator") or {}
        return found

    def model(self, name: str) -> Mapping[str, Any] | None:
        """Return what is said of a loaded model."""
        return next((m for m in self.document.get("models", ()) if m["model"] == name), None)
