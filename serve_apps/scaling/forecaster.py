"""The forecaster: one Serve replica that turns what gateways counted into a forecast a second.

Serve starts it again when it dies, and ends it with the applications. Until it is back its last
forecast grows old, and whoever decides goes on without.
"""

from __future__ import annotations

import asyncio
import logging
import time
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Final

from cluster.config import Settings
from cluster.home import Home
from serve_apps.loopback import stay_on_loopback
from serve_apps.replica_log import log_to
from serve_apps.scaling import spool
from serve_apps.scaling.ledger import Ledger
from serve_apps.tasks import end

logger = logging.getLogger(__name__)

EVERY_S: Final = 1.0
SAVE_EVERY_S: Final = 60.0
FRESH_S: Final = 5.0  # a gateway that has written nothing for longer is gone
HISTORY: Final = "history.npz"


def step(ledger: Ledger, folder: Path, now: float, monotonic_s: float) -> None:
    """Count what came and write the forecast. Raises OSError.

    While no gateway tells anything, nobody knows that nothing comes: the last forecast grows old.
    """
    counts = spool.read_counts(folder, monotonic_s, FRESH_S)
    if counts:
        ledger.take(counts, now)
        spool.write(spool.forecast_path(folder), ledger.outlook(now, monotonic_s))


class Forecaster:
    """Serve constructs it on the replica's event loop."""

    async def __init__(self, settings: Settings) -> None:  # type: ignore[misc]
        self._closing = AsyncExitStack()
        stay_on_loopback()
        home = Home.at(settings.home)
        log_to(home.logs, "scaling-forecaster")
        scale = settings.inference
        self._ledger = Ledger(scale.season_s, scale.start_s, scale.spare_edge)
        self._history = home.scaling / HISTORY
        self._folder = home.scaling_run
        self._ledger.load(self._history, time.time())
        self._closing.callback(self._save)
        self._task = asyncio.get_running_loop().create_task(self.run())
        self._closing.push_async_callback(end, (self._task,))

    async def run(self) -> None:
        """Count, forecast and write for ever."""
        saved_s = time.monotonic()
        has_failed = False
        while True:
            now, monotonic_s = time.time(), time.monotonic()
            try:
                step(self._ledger, self._folder, now, monotonic_s)
                has_failed = False
            except OSError as error:
                if not has_failed:
                    logger.warning("the forecast cannot be written: %s", error)
                has_failed = True
            if monotonic_s - saved_s >= SAVE_EVERY_S:
                saved_s = monotonic_s
                self._save()
            await asyncio.sleep(EVERY_S - (time.monotonic() - monotonic_s) % EVERY_S)

    async def check_health(self) -> None:
        """Called by Serve; raises when the replica should be replaced."""
        if self._task.done():
            raise RuntimeError("the forecaster ended") from self._task.exception()

    def _save(self) -> None:
        try:
            self._ledger.save(self._history, time.time())
        except OSError as error:
            logger.warning("the history cannot be written: %s", error)

    async def __del__(self) -> None:
        await self._closing.aclose()
