"""How far the gateways of other sites are: a connection is opened to each now and then.

Opening a TCP connection takes one round trip (RFC 9293, section 3.5) and nothing of the other
side's work, TLS or credentials; it is closed at once.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import socket
import time
from collections.abc import Callable
from typing import Final
from urllib.parse import urlsplit

from serve_apps.gateway.geography import Geography

EVERY_S: Final = 10.0
JITTER: Final = 0.2  # of that, so that many gateways do not measure in step
TIMEOUT_S: Final = 2.0
AT_ONCE: Final = 16


class Neighbours:
    """Measures the ways to other sites' gateways; `run` does so for ever."""

    def __init__(
        self,
        geography: Geography,
        clock: Callable[[], float] = time.monotonic,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        self._geography = geography
        self._clock = clock
        self._jitter = jitter
        self._answers: dict[str, bool] = {}
        self._room = asyncio.Semaphore(AT_ONCE)

    def answers(self, url: str) -> bool | None:
        """Return whether a gateway took the latest connection; None before the first."""
        return self._answers.get(url)

    async def run(self) -> None:
        """Measure in rounds until cancelled."""
        while True:
            await self.measure()
            await asyncio.sleep(EVERY_S * (1.0 + JITTER * (2.0 * self._jitter() - 1.0)))

    async def measure(self) -> None:
        """Measure every gateway of other sites once, side by side."""
        await asyncio.gather(
            *(
                self._measure(site.name, url)
                for site in self._geography.sites.values()
                if site.name != self._geography.here
                for url in site.gateways
            )
        )

    async def _measure(self, site: str, url: str) -> None:
        parts = urlsplit(url)
        loop = asyncio.get_running_loop()
        async with self._room:
            try:
                async with asyncio.timeout(TIMEOUT_S):
                    # The way to the name server is not the way to the gateway.
                    found = await loop.getaddrinfo(
                        parts.hostname, parts.port, type=socket.SOCK_STREAM
                    )
                    address = found[0][4]
                    began = self._clock()
                    _, writer = await asyncio.open_connection(str(address[0]), parts.port)
                    now = self._clock()
            except (OSError, TimeoutError):
                self._answers[url] = False
                return
        self._answers[url] = True
        self._geography.measured(site, now - began, now)
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()
