"""A client that finds the best gateway by itself, without DNS tricks.

It is given the addresses of one or a few gateways (seeds), asks one of them for all sites
(`GET /v1/sites`), probes every gateway, and enters by the nearest (`policies.entry`). A thread
behind it probes again now and then, with jitter. When the gateway in use fails, the request and
all after it go to the next one at once; inference keeps no state, so repeating it is safe. A
request that waits long makes the thread look after its gateway: if that has gone silent, while
another answers, the request is let go and sent there.

    with EntryClient(["https://gateway.example.com"], token=token) as client:
        answer = client.infer("digits", {"inputs": [...]})
        print(answer.json()["outputs"], answer.gateway)
"""

from __future__ import annotations

import contextlib
import http.client
import json
import logging
import random
import ssl
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self
from urllib.parse import quote

from edge_runtime.entry import sitelist
from edge_runtime.entry.connections import Answer, Call, Connections, GatewayGone, ask
from edge_runtime.entry.gateways import Gateways, Seen
from edge_runtime.entry.probe import probe
from edge_runtime.errors import (
    DeadlineExceeded,
    InvalidInput,
    Overloaded,
    PrimeSparkError,
    Unavailable,
    kind_of,
)

logger = logging.getLogger(__name__)

ATTEMPTS: Final = 3  # gateways that one request tries
PROBES_AT_ONCE: Final = 8
SOON_S: Final = 1.0  # after which a gateway that failed is probed again; doubles each time
JITTER: Final = 0.2
LIST_ROUNDS: Final = 10  # of probing, between two looks at the list of sites
SITES_PATH: Final = "/v1/sites"

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
        self._seeds = sitelist.seeds_of(seeds, allow_http=allow_http)
        self._token, self._api_key = token, api_key
        self._allow_http = allow_http
        self._sites_file = sites_file
        self._probe_every_s, self._probe_timeout_s = probe_every_s, probe_timeout_s
        self._patience_s = patience_s
        self._jitter = jitter
        self._context = _context(ca)
        self._gateways = Gateways(self._seeds, zones, probe_every_s / 4.0)
        self._connections: dict[str, Connections] = {}
        self._calls: set[Call] = set()
        self._changed = threading.Condition()
        self._first = threading.Lock()
        self._looked_at = -float("inf")
        self._is_ready = self._is_closed = self._is_urgent = False
        self._probers = ThreadPoolExecutor(PROBES_AT_ONCE, "prime-spark-probe")
        self._keeper = threading.Thread(target=self._keep, name="prime-spark-entry", daemon=True)

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
        self._begin()
        self._look_around(float("inf"))
        return self._gateways.seen()

    def sites(self) -> Any:
        """Return what the nearest gateway says of all sites (`GET /v1/sites`).

        Raises what it refuses with, or Unavailable when no gateway can be reached.
        """
        self._begin()
        url = self._entry(float("inf"))
        if url is None:
            raise self._nobody()
        return self._get(url, SITES_PATH, float("inf")).json()

    @property
    def gateways(self) -> list[Seen]:
        """All gateways as they were seen last, the nearest first."""
        return self._gateways.seen()

    def close(self) -> None:
        """End the thread and the connections; requests under way fail."""
        with self._changed:
            self._is_closed = True
            calls = list(self._calls)
            self._changed.notify_all()
        for call in calls:
            call.abandon()
        if self._keeper.is_alive():
            self._keeper.join()
        self._probers.shutdown()
        for connections in list(self._connections.values()):
            connections.close()

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
        content, kind = _content(body)
        fields = {"content-type": kind, **_checked(headers or {})}
        if json_bytes is not None:
            fields |= {
                "content-type": "application/octet-stream",
                "inference-header-content-length": str(json_bytes),
            }
        return self._everywhere(call, path, content, fields, time.monotonic() + timeout_s)

    def _everywhere(
        self, call: Call, path: str, body: bytes, headers: dict[str, str], deadline: float
    ) -> Answer:
        """Send a request to the best gateway, and to others when that cannot answer it."""
        self._begin()
        url = self._entry(deadline)
        tried: frozenset[str] = frozenset()
        failed: PrimeSparkError | None = None
        while url is not None and len(tried) < ATTEMPTS:
            tried |= {url}
            try:
                answer = self._once(call, url, path, body, headers, deadline)
                refusal = refusal_of(answer)
                if refusal is None:
                    return answer
                if not isinstance(refusal, Overloaded | Unavailable):
                    raise refusal
                failed = refusal
            except GatewayGone as error:
                if call.is_abandoned:
                    raise
                failed = error
                self._lose(url, error.message.removeprefix(f"{url} "))
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
        fields = {
            "prime-spark-timeout-ms": str(max(1, int(left_s * 1e3))),
            **headers,
            **self._credential(),
        }
        with self._changed:
            if self._is_closed:
                raise Unavailable("this client is closed")
            call.begin(url)
            self._calls.add(call)
            if len(self._calls) == 1:
                self._changed.notify_all()  # the keeper may have to look after it
        try:
            return self._to(url).exchange(call, "POST", path, body, fields, deadline)
        finally:
            with self._changed:
                self._calls.discard(call)

    def _entry(self, deadline: float) -> str | None:
        """Return the gateway to enter by; look around once more when none is left."""
        found = self._gateways.choose().url
        if found is None:
            with self._first:  # one look for all who find none
                if time.monotonic() - self._looked_at >= SOON_S:
                    self._look_around(deadline)
            found = self._gateways.choose().url
        return found

    def _look_around(self, deadline: float) -> None:
        before = self._gateways.urls
        self._probe(before, deadline)
        self._read_sites(deadline)
        self._probe([url for url in self._gateways.urls if url not in before], deadline)
        self._gateways.choose()
        self._looked_at = time.monotonic()

    def _begin(self) -> None:
        """Look around before the first request."""
        if self._is_ready:
            return
        with self._changed:
            if self._is_closed:
                raise Unavailable("this client is closed")
            if self._is_ready:
                return
            self._is_ready = True
            self._keeper.start()
        if self._sites_file is not None:
            kept = sitelist.load(self._sites_file, self._seeds, allow_http=self._allow_http)
            self._gateways.take(kept)

    def _nobody(self) -> Unavailable:
        problems = self._gateways.problems()
        told = "; ".join(f"{url} {why}" for url, why in list(problems.items())[:8])
        return Unavailable(
            f"no gateway can be used ({told or 'none is known'})",
            hint="check the addresses and the network; `prime-spark sites --probe` shows them",
            retry_after_s=SOON_S,
        )

    def _lose(self, url: str, why: str) -> None:
        """Take a gateway out for everybody, and look for it again soon."""
        self._gateways.failed(url, why)
        self._gateways.choose()
        with self._changed:
            self._is_urgent = True
            self._changed.notify_all()

    def _keep(self) -> None:
        """Probe in rounds, and look after gateways that keep a request waiting; until closed."""
        rounds, soon_s = 0, SOON_S
        due = time.monotonic() + self._spread(self._probe_every_s)
        looked: dict[Call, float] = {}
        while True:
            with self._changed:
                if self._is_urgent:
                    self._is_urgent, soon_s = False, SOON_S
                    due = min(due, time.monotonic() + self._spread(soon_s))
                now = time.monotonic()
                waiting = {call: max(call.began_at, looked.get(call, 0.0)) for call in self._calls}
                looks = [at + self._patience_s for at in waiting.values()]
                if not self._is_closed and min([due, *looks]) > now:
                    self._changed.wait(min([due, *looks]) - now)
                    continue
                if self._is_closed:
                    return
                slow = [call for call, at in waiting.items() if at + self._patience_s <= now]
            if slow:
                self._look_after(slow)
                now = time.monotonic()
                looked = dict.fromkeys(slow, now) | {
                    call: at for call, at in looked.items() if call in waiting and call not in slow
                }
            if now >= due:
                rounds += 1
                self._round(reads_sites=rounds % LIST_ROUNDS == 0)
                soon_s = min(2.0 * soon_s, self._probe_every_s)
                every_s = soon_s if self._gateways.has_down else self._probe_every_s
                due = time.monotonic() + self._spread(every_s)

    def _round(self, *, reads_sites: bool) -> None:
        try:
            self._probe(self._gateways.urls)
            if reads_sites or self._gateways.current is None:
                self._read_sites()
            self._gateways.choose()
        except Exception:  # a caller's `token` may raise anything, and the next round may do
            logger.exception("a round of probing failed")

    def _look_after(self, slow: Sequence[Call]) -> None:
        """Probe the gateways of calls that wait; let go of those that can go elsewhere."""
        urls = {call.url for call in slow}
        self._probe(tuple(urls), time.monotonic() + self._patience_s)
        self._gateways.choose()
        for url in urls:
            if self._gateways.is_down(url) and self._gateways.beside(frozenset((url,))):
                with self._changed:
                    for call in [call for call in self._calls if call.url == url]:
                        call.let_go()

    def _probe(self, urls: Sequence[str], deadline: float = float("inf")) -> None:
        """Probe gateways side by side and take in what they said."""
        timeout_s = min(self._probe_timeout_s, deadline - time.monotonic())
        if timeout_s <= 0.0:
            return

        def one(url: str) -> None:
            try:
                rtt_s = probe(self._to(url), timeout_s)
            except Unavailable as error:
                self._gateways.failed(url, error.message)
            else:
                self._gateways.answered(url, rtt_s, time.monotonic())

        with contextlib.suppress(RuntimeError):  # closed meanwhile
            list(self._probers.map(one, urls))

    def _read_sites(self, deadline: float = float("inf")) -> None:
        """Ask the nearest gateway that answers for all of them."""
        for url in [seen.url for seen in self._gateways.seen()]:
            if self._gateways.is_down(url):
                continue
            try:
                listed = self._ask_for_sites(url, deadline)
            except PrimeSparkError as error:
                logger.warning("%s gives no list of sites: %s", url, error)
                continue
            if not listed:
                return  # of a cluster that names no gateways: what was given is all there is
            if self._gateways.take(listed) and self._sites_file is not None:
                try:
                    sitelist.save(self._sites_file, self._seeds, listed)
                except OSError as error:
                    logger.warning("the list of sites is not kept: %s", error)
            return

    def _ask_for_sites(self, url: str, deadline: float) -> tuple[sitelist.Gateway, ...]:
        document = self._get(url, SITES_PATH, deadline).json()
        return sitelist.read_list(document, url, allow_http=self._allow_http)

    def _get(self, url: str, path: str, deadline: float) -> Answer:
        until = min(deadline, time.monotonic() + self._probe_timeout_s)
        try:
            connection = self._to(url).connect(until)
            try:
                answer = ask(
                    connection,
                    "GET",
                    path,
                    headers=self._credential(),
                    deadline=until,
                    most_bytes=sitelist.MAX_BYTES,
                )
            finally:
                connection.close()
        except (OSError, http.client.HTTPException) as error:
            raise Unavailable(f"{url} does not answer: {error or type(error).__name__}") from None
        answer = answer._replace(gateway=url)
        refusal = refusal_of(answer)
        if refusal is not None:
            raise refusal
        return answer

    def _to(self, url: str) -> Connections:
        return self._connections.setdefault(url, Connections(url, self._context))

    def _credential(self) -> dict[str, str]:
        if self._api_key is not None:
            return {"x-api-key": self._api_key}
        if self._token is None:
            return {}
        token = self._token if isinstance(self._token, str) else self._token()
        return {"authorization": f"Bearer {token.strip()}"}

    def _spread(self, seconds: float) -> float:
        return seconds * (1.0 + JITTER * (2.0 * self._jitter() - 1.0))


def refusal_of(answer: Answer) -> PrimeSparkError | None:
    """Return the error that an answer carries; None when it is a success."""
    if answer.status < 400:
        return None
    try:
        document = answer.json()
    except Unavailable:
        document = None
    said = document if isinstance(document, dict) else {}
    code = str(said.get("code", ""))
    # Something between us and a gateway, without the protocol's error form.
    plain = {502: Unavailable, 503: Unavailable, 504: DeadlineExceeded}.get(answer.status)
    kind = kind_of(code) if code or plain is None else plain
    if answer.status in (502, 503) and not issubclass(kind, Overloaded | Unavailable):
        kind = Unavailable  # a kind of it that this version does not know
    retry_after = answer.headers.get("retry-after", "")
    return kind(
        str(said.get("error", f"{answer.gateway} answers with status {answer.status}")),
        field=said.get("field"),
        hint=said.get("hint"),
        retry_after_s=float(retry_after) if retry_after.isdigit() else None,
        details={"status": answer.status, "gateway": answer.gateway},
    )


def _checked(headers: Mapping[str, str]) -> dict[str, str]:
    for name, value in headers.items():
        if not (value.isascii() and value.isprintable() and name.isascii() and name.isprintable()):
            raise InvalidInput("a header is one line of ASCII", field=name)
    return {name.lower(): value for name, value in headers.items()}


def _content(body: Mapping[str, Any] | bytes) -> tuple[bytes, str]:
    if isinstance(body, bytes):
        return body, "application/json"
    try:
        return json.dumps(body, allow_nan=False).encode(), "application/json"
    except (TypeError, ValueError) as error:
        raise InvalidInput(f"the request is not JSON: {error}", field="body") from None


def _context(ca: Path | None) -> ssl.SSLContext:
    try:
        return ssl.create_default_context(cafile=None if ca is None else str(ca))
    except (OSError, ssl.SSLError) as error:
        raise InvalidInput(f"{ca} holds no certificates: {error}", field="ca") from None
