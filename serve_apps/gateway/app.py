"""The gateway deployment: where the parts of a gateway replica are built and wired.

Serve gives the replica its place, its life cycle, its health checks and the handles to the
inference applications. The protocol servers are the replica's own, on Unix sockets behind the
front door (ADR 2): nothing of the gateway listens on the network.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import time
from collections.abc import Sequence
from contextlib import AsyncExitStack
from pathlib import Path

from cluster.config import Settings
from cluster.cost.prices import read_book
from cluster.home import Home
from cluster.identity.apikeys import ApiKeyStore
from cluster.registry.embedded import EmbeddedRegistry
from edge_runtime.auth import Authenticator, TokenVerifier
from edge_runtime.engine import Engine, EngineOptions
from edge_runtime.http_server import HttpServer, unix_listener
from edge_runtime.protocol.body import ByteBudget
from edge_runtime.protocol.gate import Gate
from edge_runtime.protocol.grpc_service import build_grpc_server
from edge_runtime.protocol.rest import ExtraRoute, build_rest_app
from policies.cost import Spending
from serve_apps.gateway.arrivals import Arrivals
from serve_apps.gateway.backing import HandleBacking
from serve_apps.gateway.budgets import Budgets
from serve_apps.gateway.catalogue import Catalogue
from serve_apps.gateway.decisions import DecisionLog
from serve_apps.gateway.dispatch import Dispatcher
from serve_apps.gateway.geography import Geography
from serve_apps.gateway.ledger import Ledger
from serve_apps.gateway.local import LocalTarget
from serve_apps.gateway.metrics import metrics_text
from serve_apps.gateway.neighbours import Neighbours
from serve_apps.gateway.overview import target_overview
from serve_apps.gateway.request_log import RequestLog
from serve_apps.gateway.service import GatewayService
from serve_apps.gateway.site_overview import described, site_overview
from serve_apps.gateway.sockets import claim_slot
from serve_apps.gateway.targets import AnyTarget, RemoteTarget, TargetTable
from serve_apps.gateway.wishes import Wishes
from serve_apps.heap import settle
from serve_apps.loopback import stay_on_loopback
from serve_apps.model_sync import ModelSync
from serve_apps.replica_log import log_to
from serve_apps.scaling.spool import OutlookReader
from serve_apps.tasks import end

logger = logging.getLogger(__name__)

GRPC_STOP_S = 10.0


class Gateway:
    """One gateway replica. Serve constructs it on the replica's event loop."""

    async def __init__(self, settings: Settings, version: str) -> None:  # type: ignore[misc]
        self._tasks: list[asyncio.Task[None]] = []
        self._closing = AsyncExitStack()  # what was built is ended in the opposite order
        try:
            await self._start(settings, version)
        except BaseException:
            await self._closing.aclose()
            raise

    async def _start(self, settings: Settings, version: str) -> None:
        stay_on_loopback()
        home = Home.at(settings.home)
        slot = claim_slot(home, settings.gateway.max_replicas)
        self._closing.callback(slot.release)
        log_to(home.logs, f"gateway-{slot.number}")
        registry = EmbeddedRegistry(home.registry)
        self._closing.callback(registry.close)
        defaults = settings.engine.options()
        loop = asyncio.get_running_loop()
        limits = settings.limits.limits()
        budget, gate = ByteBudget(limits.max_inflight_bytes), Gate()
        engine = Engine(EngineOptions(settings.engine.threads, defaults=defaults))
        self._closing.push_async_callback(engine.close)
        sync = ModelSync(engine, registry, "colocated", defaults)
        catalogue = Catalogue(registry, defaults)
        geography = await asyncio.to_thread(Geography.of, settings)
        neighbours = Neighbours(geography)
        ejection = settings.routing.ejection.rules()
        targets = TargetTable(_targets(settings, engine, sync), geography, ejection)
        log = DecisionLog()
        name = f"gateway-{slot.number}"
        requests = RequestLog(
            home.requests,
            name,
            max_bytes=settings.cost.log_bytes,
            max_days=settings.cost.log_days,
            share=1 / settings.gateway.max_replicas,
        )
        spending = Spending(settings.budgets.budgets())
        budgets = Budgets(spending, home.budgets, name)
        budgets.restore()
        ledger = Ledger(requests, spending)
        routing = settings.routing
        wishes = Wishes(routing.rule, routing.objective, routing.by_model())
        arrivals = Arrivals()
        outlook = OutlookReader(home.scaling_run, time.monotonic).read
        dispatcher = Dispatcher(
            targets, log, ledger=ledger, wishes=wishes, geography=geography, arrivals=arrivals
        )
        service = GatewayService(catalogue, targets, dispatcher, registry, version, budgets)
        self._closing.push_async_callback(service.shadows.close)
        authenticator = Authenticator(
            TokenVerifier(json.loads(home.jwks.read_text())),
            ApiKeyStore(home.api_keys),
            time.time,
        )
        app = build_rest_app(
            service,
            authenticator,
            limits,
            metrics_text(
                engine, log, targets, budget, gate, ledger, budgets, service.shadows, outlook
            ),
            budget,
            gate,
            extra=(
                ExtraRoute("/v2/prime-spark/decisions", "metrics:read", log.read),
                ExtraRoute("/v2/prime-spark/targets", "metrics:read", target_overview(targets)),
                ExtraRoute(
                    "/v1/sites",
                    "infer",
                    site_overview(geography, targets, neighbours),
                    describe=described,
                ),
            ),
        )
        self._http = HttpServer(app, unix_listener(Path(slot.http_path)))
        self._grpc = build_grpc_server(service, authenticator, limits, budget, gate)
        self._closing.push_async_callback(self._stop)
        await asyncio.gather(sync.step(), catalogue.refresh())
        await targets.probe()
        settle()
        await self._http.start()
        # It listens from here on, and who listens is sent requests.
        self._grpc.add_insecure_port(f"unix:{slot.grpc_path}")
        os.chmod(slot.grpc_path, 0o600)  # noqa: PTH101 (a call of microseconds, at the start)
        await self._grpc.start()
        works = [sync.run(), catalogue.run(), targets.run(), requests.run(), neighbours.run()]
        if spending:
            works.append(budgets.run())
        if geography.geoip is not None:
            works.append(geography.geoip.run())
        if settings.inference.scaling == "predictive":
            works.append(arrivals.run(home.scaling_run, slot.number, targets))
        self._tasks += [loop.create_task(work) for work in works]
        logger.info("gateway slot %d serves", slot.number)

    async def check_health(self) -> None:
        """Called by Serve; raises when the replica should be replaced."""
        for task in self._tasks:
            if task.done():
                raise RuntimeError("a background task ended") from task.exception()
        if not self._http.is_running:
            raise RuntimeError("the REST server ended")

    async def _stop(self) -> None:
        """Finish what was accepted, on both protocols at once, then end the background tasks."""
        await asyncio.gather(self._http.stop(), self._grpc.stop(GRPC_STOP_S))
        await end(self._tasks)

    async def __del__(self) -> None:
        await self._closing.aclose()


def _targets(settings: Settings, engine: Engine, sync: ModelSync) -> Sequence[AnyTarget]:
    from ray import serve

    book = read_book(settings.cost.price_book)

    scale = settings.inference

    def remote(name: str, tier: str, site: str, *, may_sleep: bool = False) -> RemoteTarget:
        handle = serve.get_deployment_handle("Inference", app_name=tier)
        # The scale of the loop's clock, which itself moves in steps of a millisecond here.
        backing = HandleBacking(handle, may_sleep=may_sleep)
        start_s = scale.start_s if may_sleep else None
        rates = book.rates(tier, site)
        return RemoteTarget(name, tier, site, backing, time.monotonic, rates, start_s)

    found: list[AnyTarget] = [
        LocalTarget(
            "colocated", settings.site, engine, sync, rates=book.rates("colocated", settings.site)
        ),
        remote("cloud", "cloud", settings.site, may_sleep=not scale.min_replicas),
    ]
    if settings.edge.enabled:
        found.append(remote(f"edge/{settings.edge.site}", "edge", settings.edge.site))
    return found
