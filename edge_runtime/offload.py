"""Sending to the cloud what this box cannot serve in time, and taking it back.

The choice is the gateway's: `policies.routing.choose` over two targets, the engine here and the
cloud's gateway at the end of a link that is measured. At this site the engine is taken while it is
in time and not much slower; a model that is not here, or a queue that refuses, leaves the cloud,
unless a rule keeps the request (`policies.leaving`) or the caller insists on the edge.

A link that dies is known within a second by a probe that gets no answer; calls that wait on it are
let go then, and computed here if there is time and the model is.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from typing import Final

import grpc

from edge_runtime.config import OffloadSettings
from edge_runtime.engine import Engine
from edge_runtime.errors import (
    BudgetExceeded,
    DeadlineExceeded,
    NotFound,
    Overloaded,
    PrimeSparkError,
    Unavailable,
)
from edge_runtime.protocol.context import SITE_HEADER
from edge_runtime.protocol.grpc_client import OipClient, WayLost
from edge_runtime.protocol.service import (
    REASON_PARAMETER,
    TARGET_PARAMETER,
    CallContext,
    InferResult,
    Limits,
    computed_on,
)
from edge_runtime.protocol.types import InferRequest
from edge_runtime.routed import wanted
from edge_runtime.service import EngineService
from policies.cost import EGRESS_USD_PER_BYTE
from policies.leaving import LeavingRules, may_leave
from policies.routing import Decision, Outcome, Request, RoutingTable, Target, decide

logger = logging.getLogger(__name__)

CLOUD: Final = "cloud"
HERE: Final = "here"
PROBE_EVERY_S: Final = 1.0
PROBE_S: Final = 1.0
MOST_TABLES: Final = 256
_SMOOTHING: Final = 0.2


class CloudLink:
    """The way to the cloud's gateway. `run` keeps its measure; use on one event loop."""

    def __init__(self, settings: OffloadSettings, site: str, limits: Limits) -> None:
        credentials = None
        if settings.tls:
            ca = settings.ca.read_bytes() if settings.ca is not None else None
            credentials = grpc.ssl_channel_credentials(root_certificates=ca)
        self._token_file = settings.token_file
        self._site = site
        self._token: tuple[float, str] = (-1.0, "")
        self._client = OipClient(
            settings.gateway, limits, credentials=credentials, headers=self._headers
        )
        self._rtt_s = 0.0
        self._service_s: dict[str, float] = {}
        self._down = asyncio.Event()
        self._down.set()
        self.why = "not reached yet"
        self.sent = 0
        self.taken_back = 0

    @property
    def is_up(self) -> bool:
        return not self.why

    @property
    def rtt_s(self) -> float:
        """Seconds there and back, without any work."""
        return self._rtt_s

    def service_s(self, model: str) -> float:
        """Return seconds that the cloud takes for a request, waiting included; 0 when unknown."""
        return self._service_s.get(model, 0.0)

    async def infer(self, request: InferRequest, context: CallContext) -> InferResult:
        """Send a request. Raises WayLost at the latest when a probe has found the link dead."""
        loop = asyncio.get_running_loop()
        began = time.perf_counter()
        self.sent += 1
        asking = loop.create_task(
            self._client.infer(
                request,
                request.version,
                timeout_s=max(0.001, context.deadline - loop.time()),
                priority=context.priority,
                trace=context.trace,
            )
        )
        dying = loop.create_task(self._down.wait())
        try:
            await asyncio.wait((asking, dying), return_when=asyncio.FIRST_COMPLETED)
            if not asking.done():
                raise WayLost(f"the link to the cloud died: {self.why}")
            response = asking.result()
        except WayLost as lost:
            self._lose(lost.message)
            raise
        finally:
            for task in (asking, dying):
                task.cancel()
            await asyncio.gather(asking, dying, return_exceptions=True)
        taken_s = max(0.0, time.perf_counter() - began - self._rtt_s)
        before = self._service_s.get(request.model)
        self._service_s[request.model] = (
            taken_s if before is None else before + _SMOOTHING * (taken_s - before)
        )
        target = str(response.parameters.get(TARGET_PARAMETER, CLOUD))
        reason = str(response.parameters.get(REASON_PARAMETER, ""))
        rung, age_s = computed_on(response.parameters)
        return InferResult(replace(response, model=request.model), target, reason, rung, age_s)

    async def run(self) -> None:
        """Probe until cancelled."""
        while True:
            began = time.perf_counter()
            try:
                is_ready = await self._client.ready(PROBE_S)
            except PrimeSparkError as error:
                self._lose(error.message)
            else:
                if is_ready:
                    self._found(time.perf_counter() - began)
                else:
                    self._lose("its gateway is not ready")
            await asyncio.sleep(PROBE_EVERY_S)

    async def close(self) -> None:
        await self._client.close()

    def _found(self, rtt_s: float) -> None:
        self._rtt_s = rtt_s if self.why else self._rtt_s + _SMOOTHING * (rtt_s - self._rtt_s)
        if self.why:
            logger.info("the cloud is reached, %.0f ms away", rtt_s * 1e3)
        self.why = ""
        self._down.clear()

    def _lose(self, why: str) -> None:
        if not self.why:
            logger.warning("the link to the cloud is down: %s", why)
        self.why = why
        self._down.set()

    def _headers(self) -> dict[str, str]:
        """Return the credential, read again when its file has changed, and where we are."""
        headers = {SITE_HEADER: self._site}
        if self._token_file is not None:
            with contextlib.suppress(OSError):
                changed = self._token_file.stat().st_mtime
                if changed != self._token[0]:
                    self._token = (changed, self._token_file.read_text("utf-8").strip())
            if self._token[1]:
                headers["authorization"] = f"Bearer {self._token[1]}"
        return headers


class OffloadingService(EngineService):
    """An engine's service with a link to the cloud beside it.

    link: None while there is none to send to; site: where this box is.
    """

    def __init__(
        self,
        engine: Engine,
        *,
        site: str,
        rules: LeavingRules,
        link: CloudLink | None,
        version: str,
        target: str,
        decided: Callable[[str, str, bool], Awaitable[None]],
        problems: Callable[[], Sequence[str]],
    ) -> None:
        super().__init__(
            engine, (), version=version, target=target, decided=decided, problems=problems
        )
        self._site = site
        self._rules = rules
        self._link = link
        self._tables: dict[str, RoutingTable] = {}

    async def infer(self, request: InferRequest, context: CallContext) -> InferResult:
        """Answer here, or from the cloud; see the module."""
        link = self._link
        if (
            link is None
            or context.tier == "edge"
            or self.is_held
            or may_leave(self._rules, request.model, context.principal.tenant) is not None
        ):
            return await super().infer(request, context)
        return await self._infer_somewhere(request, context, link)

    async def _infer_somewhere(
        self, request: InferRequest, context: CallContext, link: CloudLink
    ) -> InferResult:
        excluded: frozenset[str] = frozenset()
        failed: PrimeSparkError | None = None
        table = self._table(request.model)
        for _ in range(2):
            asked = self._wanted(request, context, excluded)
            decision = self._choose(table, asked, request, link)
            if not isinstance(decision, Decision):
                break
            sent = table.sent(decision.target, asked, self._now())
            try:
                if decision.target != CLOUD:
                    result = await super().infer(request, context)
                else:
                    result = await link.infer(request, context)
                table.answered(sent, self._now(), None, 0.0)
                return result
            except WayLost as error:
                link.taken_back += 1
                failed = failed or error
            except (Overloaded, Unavailable, NotFound, BudgetExceeded) as error:
                failed = error if failed is None or isinstance(failed, WayLost) else failed
            finally:
                table.ended(sent)
            excluded = excluded | {decision.target}
        if failed is None or isinstance(failed, WayLost):
            return await super().infer(request, context)  # it says what is wrong here
        raise failed

    def _wanted(
        self, request: InferRequest, context: CallContext, excluded: frozenset[str]
    ) -> Request:
        found = wanted(request, context, asyncio.get_running_loop().time(), origin_site=self._site)
        if found.slack_s <= 0:
            raise DeadlineExceeded("the deadline has passed", field="timeout")
        return found._replace(excluded=excluded)

    def _choose(
        self, table: RoutingTable, asked: Request, request: InferRequest, link: CloudLink
    ) -> Outcome:
        """Decide, with what is known at this moment of the engine here and of the link."""
        self._see_here(table, request)
        service_s = link.service_s(request.model)
        table.change(
            CLOUD, is_up=link.is_up, rtt_s=link.rtt_s, service_s=service_s, row_s=service_s
        )
        return decide(asked, table, self._now())

    def _table(self, model: str) -> RoutingTable:
        """Return what is known for a model; callers may name any, so the oldest are forgotten."""
        table = self._tables.pop(model, None) or RoutingTable(
            (
                Target(HERE, "edge", self._site),
                # What leaves the site costs something, so that it leaves for a reason.
                Target(CLOUD, "cloud", CLOUD, usd_per_byte=EGRESS_USD_PER_BYTE),
            )
        )
        self._tables[model] = table
        if len(self._tables) > MOST_TABLES:
            del self._tables[next(iter(self._tables))]
        return table

    def _see_here(self, table: RoutingTable, request: InferRequest) -> None:
        """See how the engine of this box is now."""
        version = self.version_for(request.model, request.version)
        load = None if version is None else self._engine.load_of((request.model, version))
        table.change(HERE, is_up=load is None or load.is_able, has_model=version is not None)
        if load is not None:
            table.heard(HERE, load.for_routing(), self._now())

    @staticmethod
    def _now() -> float:
        return time.monotonic()
