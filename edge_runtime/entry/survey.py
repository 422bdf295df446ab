"""Looking around: which gateways there are, which of them answer, and how far they are."""

from __future__ import annotations

import contextlib
import http.client
import logging
import ssl
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final

from edge_runtime.entry import sitelist
from edge_runtime.entry.answers import Answer, refusal_of
from edge_runtime.entry.connections import Connections, ask
from edge_runtime.entry.gateways import Gateways
from edge_runtime.entry.probe import probe
from edge_runtime.errors import PrimeSparkError, Unavailable

logger = logging.getLogger(__name__)

AT_ONCE: Final = 8
SITES_PATH: Final = "/v1/sites"

Headers = dict[str, str]


class Survey:
    """Fills what a client knows of its gateways. Threads may share it.

    credential: headers for those who may see them; timeout_s: of a probe, and of reading the list.
    """

    def __init__(
        self,
        gateways: Gateways,
        seeds: Sequence[sitelist.Gateway],
        credential: Callable[[], Headers],
        context: ssl.SSLContext,
        timeout_s: float,
        *,
        allow_http: bool,
        sites_file: Path | None,
    ) -> None:
        self._gateways = gateways
        self._seeds = seeds
        self._credential = credential
        self._context = context
        self._timeout_s = timeout_s
        self._allow_http = allow_http
        self._sites_file = sites_file
        self._connections: dict[str, Connections] = {}
        self._threads = ThreadPoolExecutor(AT_ONCE, "prime-spark-probe")

    def to(self, url: str) -> Connections:
        """Return the connections to a gateway."""
        return self._connections.setdefault(url, Connections(url, self._context))

    def recall(self) -> None:
        """Begin with the list that was kept on disk, if there is one."""
        if self._sites_file is not None:
            self._gateways.take(
                sitelist.load(self._sites_file, self._seeds, allow_http=self._allow_http)
            )

    def look_around(self, told: Callable[[], None] = lambda: None) -> None:
        """Probe all gateways, ask one for the list of sites, and probe those that are new.

        told: called whenever more is known.
        """
        before = self._gateways.urls
        self.probe(before, told=told)
        self.read_sites()
        self.probe([url for url in self._gateways.urls if url not in before], told=told)

    def probe(
        self,
        urls: Sequence[str],
        timeout_s: float | None = None,
        told: Callable[[], None] = lambda: None,
    ) -> None:
        """Probe gateways side by side, and take in what they said."""
        limit_s = self._timeout_s if timeout_s is None else timeout_s

        def one(url: str) -> None:
            try:
                rtt_s = probe(self.to(url), limit_s)
            except Unavailable as error:
                self._gateways.failed(url, error.message)
            else:
                self._gateways.answered(url, rtt_s, time.monotonic())
            told()

        with contextlib.suppress(RuntimeError):  # closed meanwhile
            list(self._threads.map(one, urls))

    def read_sites(self) -> None:
        """Ask the nearest gateway that answers for all of them."""
        for url in [seen.url for seen in self._gateways.seen()]:
            if self._gateways.is_down(url):
                continue
            try:
                document = self.get(url, SITES_PATH).json()
                listed = sitelist.read_list(document, url, allow_http=self._allow_http)
            except PrimeSparkError as error:
                logger.warning("%s gives no list of sites: %s", url, error)
                continue
            if listed and self._gateways.take(listed):
                self._keep(listed)
            return  # a cluster that names no gateways: what was given is all there is

    def get(self, url: str, path: str) -> Answer:
        """Read a document from a gateway. Raises Unavailable, or what it refuses with."""
        until = time.monotonic() + self._timeout_s
        try:
            with contextlib.closing(self.to(url).connect(until)) as connection:
                answer = ask(
                    connection,
                    "GET",
                    path,
                    headers=self._credential(),
                    deadline=until,
                    most_bytes=sitelist.MAX_BYTES,
                )
        except (OSError, http.client.HTTPException) as error:
            raise Unavailable(f"{url} does not answer: {error or type(error).__name__}") from None
        answer = answer._replace(gateway=url)
        refusal = refusal_of(answer)
        if refusal is not None:
            raise refusal
        return answer

    def close(self) -> None:
        """Wait for what is under way, and close the connections."""
        self._threads.shutdown()
        for connections in list(self._connections.values()):
            connections.close()

    def _keep(self, listed: Sequence[sitelist.Gateway]) -> None:
        if self._sites_file is None:
            return
        try:
            sitelist.save(self._sites_file, self._seeds, listed)
        except OSError as error:
            logger.warning("the list of sites is not kept: %s", error)
