"""A client that finds the best gateway by itself, without DNS tricks.

It is given the addresses of one or a few gateways (seeds), asks one of them for all sites
(`GET /v1/sites`), probes every gateway, and enters by the nearest (`policies.entry`). A thread
behind it (`keeper`) probes again now and then. When the gateway in use fails, the request and all
after it go to the next one at once; inference keeps no state, so repeating it is safe. A request
that waits for a gateway that has gone silent is let go and sent to another.

    with EntryClient(["https://gateway.example.com"], token=token) as client:
        answer = client.infer("digits", {"inputs": [...]})
        print(answer.json()["outputs"], answer.gateway)
"""

from __future__ import annotations

import json
import random
import ssl
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self
from urllib.parse import quote

from edge_runtime.entry.answers import Answer, GatewayGone, refusal_of
from edge_runtime.entry.connections import Call
from edge_runtime.entry.gateways import Gateways, Seen
from edge_runtime.entry.keeper import SOON_S, Keeper
from edge_runtime.entry.sitelist import seeds_of
from edge_runtime.entry.survey import SITES_PATH, Survey
from edge_runtime.errors import (
    DeadlineExceeded,
    InvalidInput,
    Overloaded,
    PrimeSparkError,
    Unavailable,
)

ATTEMPTS: Final = 3  # gateways that one request tries

Token = str | Callable[[], str]


class EntryClient:
    """Sends requests to the best gateway. Threads may share it; `close` ends it.

    seeds: addresses of gateways, `https://HOST:PORT`; token: a token, or what returns a valid one
    whenever it is called; api_key: instead of it. zones: send to gateways of these zones only,
    None for any. ca: who signed the certificates (PEM), the system's when None. sites_file: where
    the list of sites is kept for the day when no seed answers. allow_http: plain HTTP to other
    machines too, which carries the credential readable.

    probe_every_s, probe_timeout_s: of each gateway; patience_s: how long a request waits before its
    gateway is looked after, and how long that one has to answer then. Raises InvalidInput for seeds
    and files that cannot be used.
    """

    def __init__(
        self,
        seeds: Sequence[str],
        *,
        token: Token | None = None,
        api_key: str | None = None,
        zones: frozenset[str] | None = None,
        ca: Path | None = None,
        sites_file: Path | None = None,
        allow_http: bool = False,
        probe_every_s: float = 30.0,
        probe_timeout_s: float = 2.0,
        patience_s: float = 1.0,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        if isinstance(seeds, str):
            raise InvalidInput("seeds is a list of addresses", field="seeds")
        known = seeds_of(seeds, allow_http=allow_http)
        self._token, self._api_key = token, api_key
        self._gateways = Gateways(known, zones, probe_every_s / 4.0)
        self._survey = Survey(
            self._gateways,
            known,
            self._credential,
            _context(ca),
            probe_timeout_s,
            allow_http=allow_http,
            sites_file=sites_file,
        )
        self._keeper = Keeper(self._gateways, self._survey, probe_every_s, patience_s, jitter)

    def infer(
        self,
        model: str,
        body: Mapping[str, Any] | bytes,
        *,
        version: str | None = None,
        json_bytes: int | None = None,
        headers: Mapping[str, str] | None = None,
        timeout_s: float = 30.0,
    ) -> Answer:
        """Ask a model, as the Open Inference Protocol v2 says (REST).

        body: the request as JSON values, or its bytes; json_bytes: of them before the binary
        tensors, if there are any. timeout_s: for everything, other gateways included. Raises what
        the gateway refused with, DeadlineExceeded, or Unavailable when no gateway can be reached.
        """
        return self.call(Call(), model, body, version, json_bytes, headers, timeout_s)

    def refresh(self) -> list[Seen]:
        """Look for sites and probe all gateways now; return what was found, the nearest first."""
        self._keeper.begin()
        self._keeper.look_around(float("inf"), is_thorough=True)
        return self._gateways.seen()

    def sites(self) -> Any:
        """Return what the nearest gateway says of all sites (`GET /v1/sites`).

        Raises what it refuses with, or Unavailable when no gateway can be reached.
        """
        return self._survey.get(self._entry(float("inf")), SITES_PATH).json()

    @property
    def gateways(self) -> list[Seen]:
        """All gateways as they were seen last, the nearest first."""
        return self._gateways.seen()

    def close(self) -> None:
        """End the thread and the connections; requests under way fail."""
        self._keeper.close()
        self._survey.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        self.close()

    def call(
        self,
        call: Call,
        model: str,
        body: Mapping[str, Any] | bytes,
        version: str | None,
        json_bytes: int | None,
        headers: Mapping[str, str] | None,
        timeout_s: float,
    ) -> Answer:
        """As `infer`, of a call that another thread may abandon."""
        path = f"/v2/models/{quote(model, safe='')}"
        path += f"/versions/{quote(version, safe='')}/infer" if version else "/infer"
        fields = {"content-type": "application/json", **_checked(headers or {})}
        if json_bytes is not None:
            fields["content-type"] = "application/octet-stream"
            fields["inference-header-content-length"] = str(json_bytes)
        return self._everywhere(call, path, _content(body), fields, time.monotonic() + timeout_s)

    def _everywhere(
        self, call: Call, path: str, body: bytes, headers: Mapping[str, str], deadline: float
    ) -> Answer:
        """Send a request to the best gateway, and to others when that cannot answer it."""
        url: str | None = self._entry(deadline)
        tried: frozenset[str] = frozenset()
        failed: PrimeSparkError | None = None
        while url is not None and len(tried) < ATTEMPTS:
            tried |= {url}
            try:
                answer = self._once(call, url, path, body, headers, deadline)
            except GatewayGone as error:
                if call.is_abandoned:
                    raise
                self._keeper.lost(url, error.message.removeprefix(f"{url} "))
                failed = error
            else:
                refusal = refusal_of(answer)
                if refusal is None:
                    return answer
                if not isinstance(refusal, Overloaded | Unavailable):
                    raise refusal
                failed = refusal
            url = self._gateways.beside(tried)
        raise failed or self._nobody()

    def _once(
        self,
        call: Call,
        url: str,
        path: str,
        body: bytes,
        headers: Mapping[str, str],
        deadline: float,
    ) -> Answer:
        left_s = deadline - time.monotonic()
        if left_s <= 0.0:
            raise DeadlineExceeded("the deadline passed before a gateway answered")
        timeout = {"prime-spark-timeout-ms": str(max(1, int(left_s * 1e3)))}
        fields = timeout | dict(headers) | self._credential()
        try:
            with self._keeper.watching(call, url):
                return self._survey.to(url).exchange(call, "POST", path, body, fields, deadline)
        except DeadlineExceeded:
            self._keeper.suspect(url)  # which may be slow with this request, or silent for all
            raise

    def _entry(self, deadline: float) -> str:
        """Return the gateway to enter by. Raises DeadlineExceeded, Unavailable."""
        self._keeper.begin()
        found = self._gateways.choose().url
        if found is None:
            self._keeper.look_around(deadline)
            found = self._gateways.choose().url
        if found is not None:
            return found
        if time.monotonic() >= deadline:
            raise DeadlineExceeded("the deadline passed before a gateway was found")
        raise self._nobody()

    def _nobody(self) -> Unavailable:
        problems = self._gateways.problems()
        told = "; ".join(f"{url} {why}" for url, why in list(problems.items())[:8])
        return Unavailable(
            f"no gateway can be used ({told or 'none answered'})",
            hint="check the addresses and the network; `prime-spark sites --probe` shows them",
            retry_after_s=SOON_S,
        )

    def _credential(self) -> dict[str, str]:
        if self._api_key is not None:
            return {"x-api-key": self._api_key}
        if self._token is None:
            return {}
        token = self._token if isinstance(self._token, str) else self._token()
        return {"authorization": f"Bearer {token.strip()}"}


def _checked(headers: Mapping[str, str]) -> dict[str, str]:
    for name, value in headers.items():
        if not (value.isascii() and value.isprintable() and name.isascii() and name.isprintable()):
            raise InvalidInput("a header is one line of ASCII", field=name)
    return {name.lower(): value for name, value in headers.items()}


def _content(body: Mapping[str, Any] | bytes) -> bytes:
    if isinstance(body, bytes):
        return body
    try:
        return json.dumps(body, allow_nan=False).encode()
    except (TypeError, ValueError) as error:
        raise InvalidInput(f"the request is not JSON: {error}", field="body") from None


def _context(ca: Path | None) -> ssl.SSLContext:
    try:
        return ssl.create_default_context(cafile=None if ca is None else str(ca))
    except (OSError, ssl.SSLError) as error:
        raise InvalidInput(f"{ca} holds no certificates: {error}", field="ca") from None
