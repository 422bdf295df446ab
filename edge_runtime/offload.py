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
from edge_runtime.service import EngineService
from policies.leaving import LeavingRules, may_leave
from policies.routing import Decision, NoTarget, Request, Target, choose

logger = logging.getLogger(__name__)

CLOUD: Final = "cloud"
HERE: Final = "here"
PROBE_EVERY_S: Final = 1.0
PROBE_S: Final = 1.0
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
        self._outstanding = 0
        self._down = asyncio.Event()
        self._down.set()
        self.why = "not reached yet"
        self.sent = 0
        self.taken_back = 0

    @property
    def is_up(self) -> bool:
        return not self.why

    def view(self, model: str) -> Target:
        """Return the cloud as routing sees it."""
        return Target(
            name=CLOUD,
            tier="cloud",
            site=CLOUD,
            is_up=self.is_up,
            rtt_s=self._rtt_s,
            service_s=self._service_s.get(model, 0.0),
            outstanding=self._outstanding,
        )

    async def infer(self, request: InferRequest, context: CallContext) -> InferResult:
        """Send a request. Raises WayLost at the latest when a probe has found the link dead."""
        loop = asyncio.get_running_loop()
        began = time.perf_counter()
        self._outstanding += 1
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
            self._outstanding -= 1
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
        for _ in range(2):
            decision = self._choose(request, context, link, excluded)
            if isinstance(decision, NoTarget):
                break
            try:
                if decision.target != CLOUD:
                    return await super().infer(request, context)
                return await link.infer(request, context)
            except WayLost as error:
                link.taken_back += 1
                failed = failed or error
            except (Overloaded, Unavailable, NotFound) as error:
                failed = error if failed is None or isinstance(failed, WayLost) else failed
            excluded = excluded | {decision.target}
        if failed is None or isinstance(failed, WayLost):
            return await super().infer(request, context)  # it says what is wrong here
        raise failed

    def _choose(
        self,
        request: InferRequest,
        context: CallContext,
        link: CloudLink,
        excluded: frozenset[str],
    ) -> Decision | NoTarget:
        slack_s = context.deadline - asyncio.get_running_loop().time()
        if slack_s <= 0:
            raise DeadlineExceeded("the deadline has passed", field="timeout")
        targets = [self._engine_here(request), link.view(request.model)]
        wanted = Request(
            slack_s=slack_s, tier=context.tier, origin_site=self._site, excluded=excluded
        )
        return choose(wanted, targets)

    def _engine_here(self, request: InferRequest) -> Target:
        """Return the engine of this box as routing sees it."""
        version = self.version_for(request.model, request.version)
        load = None if version is None else self._engine.load_of((request.model, version))
        return Target(
            name=HERE,
            tier="edge",
            site=self._site,
            is_up=load is None or load.is_able,
            has_model=version is not None,
            wait_s=load.wait_s if load else 0.0,
            service_s=load.service_s if load else 0.0,
        )
