"""The sleep of one target: since when, who waits for its end, and how long starts take.

A tier whose replicas may all end (`inference.min_replicas: 0`) sleeps while none runs. Whoever is
sent there waits here, in the gateway, until one answers, at most until the deadline, so that its
time left is right when it gets there. One call through Serve's handle is what starts a replica:
its controller does that as soon as a call waits at a handle. It is made for the first who needs it
and kept until it is answered.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Final

from policies.routing.waking import StartTimes

logger = logging.getLogger(__name__)

RETRY_S: Final = 0.5
WAITING: Final = 128  # at once; half of what the front door gives a gateway, for others go on
SERVED, LATE, LOST, CANCELLED = "served", "late", "lost", "cancelled"


class Sleep:
    """Use on one event loop. start_s: seconds that a start takes, until one was measured.

    waiting: requests now; waits: requests that waited, by how that ended; waited_s:
    their seconds, summed; wakes: how often it was asked to wake; starting_s: seconds those took.
    """

    def __init__(self, name: str, start_s: float, clock: Callable[[], float]) -> None:
        self._name = name
        self._starts = StartTimes(start_s)
        self._clock = clock
        self._asked_at: float | None = None
        self._asked = asyncio.Event()
        self._ended = asyncio.Event()
        self._is_served = False
        self.is_asleep = False
        self.waiting = 0
        self.waits: Counter[str] = Counter()
        self.waited_s = 0.0
        self.wakes = 0
        self.starting_s = 0.0

    @property
    def is_waking(self) -> bool:
        return self._asked_at is not None

    def begin(self) -> bool:
        """Fall asleep; False when it sleeps already."""
        if self.is_asleep:
            return False
        logger.info("target %s sleeps: no replica runs", self._name)
        self.is_asleep = True
        self._ended.clear()
        return True

    def end(self, *, is_up: bool) -> None:
        """Let those go who wait. is_up: it answers, else it cannot be reached any more."""
        if not self.is_asleep:
            return
        if is_up and self._asked_at is not None:
            took_s = self._clock() - self._asked_at
            self._starts.took(took_s)
            self.starting_s += took_s
            logger.info("target %s is awake after %.1f s", self._name, took_s)
        self.is_asleep = False
        self._is_served = is_up
        self._asked_at = None
        self._asked.clear()
        self._ended.set()

    def wake(self) -> None:
        """Ask for a replica, unless that was done."""
        if self.is_asleep and self._asked_at is None:
            self._asked_at = self._clock()
            self.wakes += 1
            self._asked.set()

    @property
    def left_s(self) -> float:
        """Seconds until a request that needs it now would find it awake."""
        asked_at = self._asked_at
        return self._starts.left_s(0.0 if asked_at is None else self._clock() - asked_at)

    @property
    def problem(self) -> str:
        """What is to be said of it while it sleeps."""
        if self._asked_at is None:
            return f"no replica runs; who needs one waits about {self.left_s:.0f} s"
        passed_s = self._clock() - self._asked_at
        return f"a replica is starting, for {passed_s:.0f} s; about {self.left_s:.0f} s are left"

    async def over(self, deadline: float) -> None:
        """Wait until it is over, however it ends. Raises TimeoutError at the deadline."""
        began, outcome = self._clock(), CANCELLED
        self.waiting += 1
        try:
            async with asyncio.timeout_at(deadline):
                await self._ended.wait()
            outcome = SERVED if self._is_served else LOST
        except TimeoutError:
            outcome = LATE
            raise
        finally:
            self.waiting -= 1
            self.waits[outcome] += 1
            self.waited_s += self._clock() - began

    async def run(self, start: Callable[[], Awaitable[None]]) -> None:
        """Call `start` whenever it is asked for, again where that fails, until cancelled."""
        has_failed = False
        while True:
            await self._asked.wait()
            try:
                await start()
                has_failed = False
            except Exception as error:  # Ray raises many types; each means the same here
                if not has_failed:
                    logger.warning("target %s does not wake: %s", self._name, type(error).__name__)
                has_failed = True
            if self._asked.is_set():  # still asleep, whatever was answered
                await asyncio.sleep(RETRY_S)
