"""The gateway deployment: where the parts of a gateway replica are built and wired.

Serve gives the replica its place, its life cycle, its health checks and the handles to the
inference applications. The protocol servers are the replica's own, on Unix sockets behind the
front door (ADR 2): nothing of the gateway listens on the network.
"""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import Coroutine, Sequence
from typing import TYPE_CHECKING, Any

from cluster.config import Settings
from cluster.home import Home
from cluster.identity.apikeys import ApiKeyStore
from cluster.registry.embedded import EmbeddedRegistry
from edge_runtime.auth import Authenticator, TokenVerifier
from edge_runtime.engine import Engine, EngineOptions
from edge_runtime.protocol.body import ByteBudget
from edge_runtime.protocol.grpc_service import build_grpc_server
from edge_runtime.protocol.rest import ExtraRoute, build_rest_app
from serve_apps.gateway.catalogue import Catalogue
from serve_apps.gateway.decisions import DecisionLog
from serve_apps.gateway.dispatch import Dispatcher
from serve_apps.gateway.metrics import metrics_text
from serve_apps.gateway.overview import target_overview
from serve_apps.gateway.service import GatewayService
from serve_apps.gateway.sockets import HttpServer, claim_slot
from serve_apps.gateway.targets import AnyTarget, LocalTarget, RemoteTarget, TargetTable
from serve_apps.loopback import stay_on_loopback
from serve_apps.model_sync import ModelSync
from serve_apps.options import engine_defaults, protocol_limits
from serve_apps.replica_log import log_to
from serve_apps.wire import Call, ReplicaReport, Reply

if TYPE_CHECKING:
    from ray.serve.handle import DeploymentHandle

logger = logging.getLogger(__name__)

GRPC_STOP_S = 10.0


class HandleBacking:
    """Reaches an inference application through its Serve handle."""

    def __init__(self, handle: DeploymentHandle[Any]) -> None:
        self._handle = handle
        self._infer = handle.infer

    async def call(self, call: Call) -> Reply:
        response: Any = self._infer.remote(call)
        try:
            reply: Reply = await response
        except asyncio.CancelledError:
            response.cancel()
            raise
        return reply

    async def probe(self) -> Sequence[ReplicaReport]:
        answers = await self._handle.broadcast("report").results_async(return_exceptions=True)
        reports = [answer for answer in answers if isinstance(answer, ReplicaReport)]
        if answers and not reports:
            raise ConnectionError("no replica answered")
        return reports


class Gateway:
    """One gateway replica. Serve constructs it on the replica's event loop."""

    async def __init__(self, settings: Settings, version: str) -> None:  # type: ignore[misc]
        stay_on_loopback()
        home = Home.at(settings.home)
        self._slot = claim_slot(home, settings.gateway.max_replicas)
        log_to(home.logs, f"gateway-{self._slot.number}")
        registry = EmbeddedRegistry(home.registry)
        defaults = engine_defaults(settings)
        loop = asyncio.get_running_loop()
        limits = protocol_limits(settings)
        budget = ByteBudget(limits.max_inflight_bytes)
        self._engine = Engine(EngineOptions(defaults=defaults))
        sync = ModelSync(self._engine, registry, "colocated", defaults)
        self._catalogue = Catalogue(registry, defaults)
        targets = TargetTable(_targets(settings, self._engine, sync, loop))
        log = DecisionLog()
        dispatcher = Dispatcher(targets, log)
        service = GatewayService(self._catalogue, targets, dispatcher, registry, version)
        authenticator = Authenticator(
            TokenVerifier(json.loads(home.jwks.read_text())),
            ApiKeyStore(home.api_keys),
            time.time,
        )
        app = build_rest_app(
            service,
            authenticator,
            limits,
            metrics_text(self._engine, log, targets, budget),
            budget,
            extra=(
                ExtraRoute("/v2/prime-spark/decisions", "metrics:read", log.read),
                ExtraRoute("/v2/prime-spark/targets", "metrics:read", target_overview(targets)),
            ),
        )
        self._http = HttpServer(app, self._slot.http_path)
        self._grpc = build_grpc_server(service, authenticator, limits, budget)
        self._grpc.add_insecure_port(f"unix:{self._slot.grpc_path}")
        await asyncio.gather(sync.step(), self._catalogue.refresh())
        await targets.probe()
        await self._http.start()
        await self._grpc.start()
        self._tasks = [
            _background(loop, work) for work in (sync.run(), self._catalogue.run(), targets.run())
        ]
        logger.info("gateway slot %d serves", self._slot.number)

    async def check_health(self) -> None:
        """Called by Serve; raises when the replica should be replaced."""
        for task in self._tasks:
            if task.done():
                task.result()
        if not self._http.is_running:
            raise RuntimeError("the REST server ended")

    async def __del__(self) -> None:
        await self._http.stop()
        await self._grpc.stop(GRPC_STOP_S)
        for task in self._tasks:
            task.cancel()
        await self._engine.close()
        self._slot.release()


def _targets(
    settings: Settings, engine: Engine, sync: ModelSync, loop: asyncio.AbstractEventLoop
) -> Sequence[AnyTarget]:
    from ray import serve

    def remote(name: str, tier: str, site: str) -> RemoteTarget:
        handle = serve.get_deployment_handle("Inference", app_name=tier)
        return RemoteTarget(name, tier, site, HandleBacking(handle), loop.time)

    found: list[AnyTarget] = [
        LocalTarget("colocated", settings.site, engine, sync),
        remote("cloud", "cloud", settings.site),
    ]
    if settings.edge.enabled:
        found.append(remote(f"edge/{settings.edge.site}", "edge", settings.edge.site))
    return found


def _background(
    loop: asyncio.AbstractEventLoop, work: Coroutine[Any, Any, None]
) -> asyncio.Task[None]:
    return loop.create_task(work)
