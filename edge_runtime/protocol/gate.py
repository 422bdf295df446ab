"""Turning requests away when the process itself has fallen behind, whatever its models do.

A small model costs less than the protocol around it, so its queue stays empty while requests pile
up in front of the event loop. What stands in front (the gateway's front door) stamps each request
with the time at which it came; the difference to now is what the request has waited, in the front
door and for this process. `policies.shedding` decides; refusing costs a fraction of serving,
nothing of the body is kept, and so it brings the process back in time.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Callable
from typing import Final

from edge_runtime.errors import Overloaded, PrimeSparkError
from policies.shedding import NO_BACKLOG, Backlog, shed

START_HEADER: Final = "x-request-start"  # "t=" and milliseconds since 1970, as others use it
TARGET_S: Final = 0.4  # the front door gives out fewer requests than make this of a sound loop
HOLD_S: Final = 0.1  # how late a refusal for load comes
_START = re.compile(r"t=([0-9]{1,15})", re.ASCII)
_SANE_S: Final = 60.0  # beyond that, one of the clocks was set


class Gate:
    """Shared by the protocol servers of a process; use on one event loop.

    wall: unix seconds, as in the stamp; clock: seconds that never step.
    """

    def __init__(
        self,
        wall: Callable[[], float] = time.time,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._wall = wall
        self._clock = clock
        self._backlog: Backlog = NO_BACKLOG
        self.in_progress = 0
        self.refused = 0

    def check(self, start: str | None) -> None:
        """Raise Overloaded when a request with this stamp (or none) should be turned away."""
        delay_s = self._delay_s(start)
        self._backlog, is_refused = shed(self._backlog, delay_s, self._clock(), TARGET_S)
        if is_refused:
            self.refused += 1
            raise Overloaded(
                "the server is behind with its requests",
                retry_after_s=1.0,
                details={"reason": "behind"},
            )

    def __enter__(self) -> None:
        """Count a request that is in progress, until the end of the `with`."""
        self.in_progress += 1

    def __exit__(self, *_: object) -> None:
        self.in_progress -= 1

    def _delay_s(self, start: str | None) -> float:
        found = _START.fullmatch(start) if start else None
        if found is None:
            return 0.0
        delay_s = self._wall() - int(found[1]) / 1e3
        return delay_s if 0.0 < delay_s < _SANE_S else 0.0


async def hold(error: PrimeSparkError) -> None:
    """Keep a refusal for load back for a moment.

    A refusal costs a good part of what serving a small request costs. Callers who ask again the
    moment they are refused would take the processor from those who are served; a timer takes
    nothing.
    """
    if isinstance(error, Overloaded):
        error.with_traceback(None)  # which holds the request's bytes
        await asyncio.sleep(HOLD_S)
