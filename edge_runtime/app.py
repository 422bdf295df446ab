"""The edge runtime's process: where its parts are built, wired, and ended in the opposite order.

It listens before its models are loaded, and says so: live, not ready yet. Then it is ready or
degraded, with reasons, until SIGTERM or SIGINT; then it takes no new requests, finishes what it
accepted, and ends with 0. A second signal ends it at once.

Clients of the site come over REST and gRPC with a token or an API key. Callers on the same box
come over a Unix socket; who may open it is the file's mode, and no credential is asked for.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import gc
import logging
import os
import signal
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final

from starlette.types import ASGIApp

from edge_runtime.accelerator.device import HailoAccelerator, has_signs, interpreters
from edge_runtime.accelerator.process import HostProcess
from edge_runtime.auth import ApiKeys, Authenticates, Authenticator, LocalCaller, TokenVerifier
from edge_runtime.config import AcceleratorSettings, EdgeSettings, EngineSettings, LimitSettings
from edge_runtime.engine import Engine, EngineOptions, ModelSource
from edge_runtime.engine.memory import trim_heap, unmap_code
from edge_runtime.errors import Conflict, PrimeSparkError, Unavailable
from edge_runtime.grpc_door import Address, GrpcDoor, Make, TcpAddress, UnixAddress
from edge_runtime.http_server import HttpServer, tcp_listener, unix_listener
from edge_runtime.packages import Package, PackageFolder
from edge_runtime.protocol.body import ByteBudget
from edge_runtime.protocol.gate import Gate
from edge_runtime.protocol.rest import ExtraRoute, build_rest_app
from edge_runtime.service import EngineService
from edge_runtime.serving_state import ServingState
from edge_runtime.status import overview
from edge_runtime.systemd import Notifier
from policies.leaving import LeavingRules

if TYPE_CHECKING:
    from edge_runtime.metrics import Metrics
    from edge_runtime.offload import CloudLink
    from edge_runtime.protocol.service import Limits

logger = logging.getLogger(__name__)

HEALTH_EVERY_S: Final = 1.0
MOST_PROBLEMS: Final = 20  # of packages that health names one by one
# Why no requests are taken.
LOADING: Final = "models are being loaded"
DRAINED: Final = "the runtime is being drained"
STOPPING: Final = "the runtime is stopping"


@dataclass(frozen=True, slots=True)
class Places:
    """Where the process keeps things: run for sockets (short path), state for decisions."""

    models: Path
    state: Path
    run: Path

    @property
    def socket(self) -> Path:
        return self.run / "edge.sock"

    @property
    def grpc_socket(self) -> Path:
        return self.run / "edge-grpc.sock"


@dataclass(frozen=True, slots=True)
class RuntimeConfig:
    """Everything the process is told. jwks: key set that tokens are checked against."""

    places: Places
    edge: EdgeSettings
    engine: EngineSettings
    limits: LimitSettings
    jwks: Mapping[str, object]
    api_keys: ApiKeys | None
    version: str


class EdgeRuntime:
    """One runtime; `start`, then `stop`. Use on one event loop."""

    def __init__(self, config: RuntimeConfig) -> None:
        self._config = config
        self._closing = AsyncExitStack()
        self._metrics: Metrics | None = None
        self._loading: asyncio.Task[None] | None = None
        self._scanning = asyncio.Lock()
        self._held: list[str] = []
        self._server_ends: list[Callable[[], Awaitable[None]]] = []
        limits = config.limits.limits()
        self.budget, self.gate = ByteBudget(limits.max_inflight_bytes), Gate()
        self.packages = PackageFolder(config.places.models)
        self.state = ServingState(config.places.state / "serving.json")
        self.origins: dict[tuple[str, str], str] = {}
        self._package_problems: list[str] = []
        self.accelerator = _accelerator(config.edge.accelerator)
        self.engine = Engine(
            EngineOptions(
                config.engine.threads,
                drain_s=config.edge.drain_s,
                max_model_bytes=config.edge.models.max_bytes,
                result_cache_bytes=config.edge.models.cache_bytes,
            ),
            accelerator=self.accelerator,
        )
        self.link: CloudLink | None = None
        self.service = EngineService(
            self.engine,
            (),
            version=config.version,
            target=f"edge/{config.edge.site}",
            decided=self._decided,
            problems=self.problems,
        )
        if config.edge.offload.gateway:
            self.link, self.service = self._offloading(limits)

    def _offloading(self, limits: Limits) -> tuple[CloudLink, EngineService]:
        from edge_runtime.offload import CloudLink, OffloadingService  # with gRPC's library

        config, offload = self._config, self._config.edge.offload
        link = CloudLink(offload, config.edge.site, limits)
        rules = LeavingRules(
            offload.models, offload.tenants, offload.keep_models, offload.keep_tenants
        )
        service = OffloadingService(
            self.engine,
            site=config.edge.site,
            rules=rules,
            link=link,
            version=config.version,
            target=f"edge/{config.edge.site}",
            decided=self._decided,
            problems=self.problems,
        )
        return link, service

    def problems(self) -> Sequence[str]:
        """Return what is wrong beside the models, one sentence each."""
        found = self._package_problems[:MOST_PROBLEMS]
        if (more := len(self._package_problems) - len(found)) > 0:
            found.append(f"{more} more packages")
        if self.state.problem:
            found.append(self.state.problem)
        if self.accelerator is not None and self.accelerator.why:
            found.append(f"accelerator: {self.accelerator.why}")
        return found

    async def start(self) -> None:
        """Listen, then load what ought to be loaded. Raises Conflict (port, second process)."""
        try:
            await self._start()
        except BaseException:
            await self._closing.aclose()
            raise

    async def _start(self) -> None:
        config = self._config
        self._closing.callback(os.close, _own(config.places.run / "edge.lock"))
        if self.accelerator is not None:
            self._closing.push_async_callback(self.accelerator.close)
            self.accelerator.start()
        self._closing.push_async_callback(self.engine.close, 0.0)  # the servers have waited
        if self.link is not None:
            self._closing.push_async_callback(self.link.close)
            probing = asyncio.get_running_loop().create_task(self.link.run())
            self._closing.push_async_callback(_end, probing)
        self._hold(LOADING)
        limits = config.limits.limits()
        verifier = TokenVerifier(config.jwks)
        authenticator = Authenticator(verifier, config.api_keys, time.time)
        extra = (
            ExtraRoute("/v2/prime-spark/edge", "metrics:read", lambda _: overview(self)),
            ExtraRoute("/v2/prime-spark/drain", "models:write", self._drain, "POST"),
            ExtraRoute("/v2/prime-spark/resume", "models:write", self._resume, "POST"),
            ExtraRoute("/v2/prime-spark/rescan", "models:write", self._rescan, "POST"),
        )

        def app(who: Authenticates) -> ASGIApp:
            return build_rest_app(
                self.service,
                who,
                limits,
                self._metrics_text,
                self.budget,
                self.gate,
                extra,
            )

        places, drain_s = config.places, config.edge.drain_s
        for path in (places.socket, places.grpc_socket):
            path.unlink(missing_ok=True)  # of a process that was killed: we have the lock
            self._closing.callback(path.unlink, missing_ok=True)
        self._closing.push_async_callback(self._end_servers)
        bound = tcp_listener(config.edge.address, config.edge.ports.rest)
        site = HttpServer(app(authenticator), bound, drain_s)
        self._server_ends.append(site.stop)
        local = HttpServer(app(LocalCaller()), unix_listener(places.socket), drain_s)
        self._server_ends.append(local.stop)
        self._listen_for_grpc(authenticator, limits)
        await site.start()
        await local.start()
        self._loading = asyncio.get_running_loop().create_task(self._load())

    def _listen_for_grpc(self, authenticator: Authenticates, limits: Limits) -> None:
        config, places = self._config, self._config.places

        def open_door(address: Address, who: Authenticates) -> None:
            def load() -> Make:
                from edge_runtime.protocol.grpc_service import build_grpc_server

                return lambda: build_grpc_server(
                    self.service, who, limits, self.budget, self.gate, may_share_port=True
                )

            door = GrpcDoor(address, load, config.edge.drain_s)
            self._server_ends.append(door.stop)
            door.start()

        inner = places.run / "edge-grpc-site.sock"
        self._closing.callback(inner.unlink, missing_ok=True)
        open_door(TcpAddress(config.edge.address, config.edge.ports.grpc, inner), authenticator)
        open_door(UnixAddress(places.grpc_socket), LocalCaller())

    async def ready(self) -> None:
        """Wait until the models that ought to be loaded are, or have failed."""
        if self._loading is not None:
            await asyncio.shield(self._loading)

    async def _load(self) -> None:
        await asyncio.to_thread(self.packages.sweep)
        await self._scan()
        await self.service.load_all(self._is_wanted)
        if self._config.edge.models.startup != "none":
            await self.service.load_older(
                lambda source: self.state.is_wanted((source.model, source.version), True)
            )
        self._hold(LOADING, False)
        gc.collect()
        trim_heap()
        await asyncio.to_thread(unmap_code)
        gc.freeze()  # what the start made stays; looking through it again would cost requests

    async def _scan(self) -> None:
        """Make known what is in the models folder; reads manifests only."""
        async with self._scanning:
            found, self._package_problems = await asyncio.to_thread(self._read_folder)
            self.origins = {package.key: package.manifest.origin for package, _ in found}
            for _, source in found:
                if source is not None:
                    self.service.add(source)
            for entry in self.service.repository_index(ready_only=False):
                key = (entry.name, entry.version)
                is_here = key in self.origins or self.packages.has(*key)
                if entry.state != "READY" and not is_here:
                    self.service.drop(*key)
                    await self.engine.unload(*key)
                    await asyncio.to_thread(self.state.forget, *key)

    def _read_folder(self) -> tuple[list[tuple[Package, ModelSource | None]], list[str]]:
        """Return packages with what an engine loads of each, and what is wrong; on any thread."""
        defaults = self._config.engine.options()
        packages, problems = self.packages.scan()
        found: list[tuple[Package, ModelSource | None]] = []
        for package in packages:
            try:
                found.append((package, package.source(defaults)))
            except PrimeSparkError as error:
                model, version = package.key
                problems.append(f"{model}:{version}: {error.message}")
                found.append((package, None))
        return found, problems

    async def _rescan(self, _: Mapping[str, str]) -> object:
        await self._scan()
        return {"packages": len(self.service.repository_index(ready_only=False))}

    def _is_wanted(self, source: ModelSource) -> bool:
        match self._config.edge.models.startup:
            case "all":
                default = True
            case "newest":
                default = self.service.is_newest(source)
            case "none":
                default = False
        return self.state.is_wanted((source.model, source.version), default)

    def _metrics_text(self) -> tuple[bytes, str]:
        if self._metrics is None:
            from edge_runtime.metrics import Metrics

            self._metrics = Metrics(self)
        return self._metrics.text()

    def _drain(self, _: Mapping[str, str]) -> object:
        self._hold(DRAINED)
        return {"draining": True, "in_progress": self.gate.in_progress}

    def _resume(self, _: Mapping[str, str]) -> object:
        self._hold(DRAINED, False)
        return {"draining": False, "in_progress": self.gate.in_progress}

    def _hold(self, why: str, is_held: bool = True) -> None:
        """Take no requests for this reason, or not for this reason any more."""
        self._held = [other for other in self._held if other != why]
        if is_held:
            self._held.append(why)
        self.service.hold("; ".join(self._held))

    async def _decided(self, model: str, version: str, is_loaded: bool) -> None:
        await asyncio.to_thread(self.state.decide, model, version, is_loaded)

    async def _end_servers(self) -> None:
        """Stop all of them at the same time; each finishes what it accepted."""
        ended = await asyncio.gather(*(end() for end in self._server_ends), return_exceptions=True)
        for error in ended:
            if error is not None:  # it must not keep the others from ending
                logger.error("a server did not end well", exc_info=error)

    async def stop(self) -> None:
        """Take no new requests, finish what was accepted, end everything."""
        self._hold(STOPPING)
        if self._loading is not None and not self._loading.done():
            self._loading.cancel()
            await asyncio.wait((self._loading,))
        await self._closing.aclose()


async def serve(config: RuntimeConfig, notifier: Notifier) -> None:
    """Run until a signal asks for the end. Raises what starting raises."""
    loop = asyncio.get_running_loop()
    asked = asyncio.Event()

    def on_signal() -> None:
        if asked.is_set():
            os._exit(1)
        asked.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, on_signal)
    runtime = EdgeRuntime(config)
    await runtime.start()
    alive = loop.create_task(notifier.keep_alive())
    try:
        starting = loop.create_task(runtime.ready())
        waiting = loop.create_task(asked.wait())
        await asyncio.wait((starting, waiting), return_when=asyncio.FIRST_COMPLETED)
        if starting.done():
            starting.result()
            notifier.tell(READY="1", STATUS=_status(runtime))
            logger.info("serving: %s", _status(runtime))
        telling = loop.create_task(_tell_status(runtime, notifier))
        await waiting
        await _end(telling)
        notifier.tell(STOPPING="1", STATUS="finishing what was accepted")
        logger.info("stopping")
    finally:
        await runtime.stop()
        await _end(alive)
    logger.info("stopped")


async def _tell_status(runtime: EdgeRuntime, notifier: Notifier) -> None:
    """Log and tell systemd when health changes, with the reasons."""
    before = _status(runtime)
    while True:
        await asyncio.sleep(HEALTH_EVERY_S)
        now = _status(runtime)
        if now != before:
            logger.warning("now %s", now)
            notifier.tell(STATUS=now)
            before = now


def _status(runtime: EdgeRuntime) -> str:
    health = runtime.service.health()
    return (
        ": ".join([health.status, "; ".join(health.reasons)]) if health.reasons else health.status
    )


def _accelerator(settings: AcceleratorSettings) -> HailoAccelerator | None:
    driver_path = str(settings.driver_path or "")
    if settings.kind == "none" or (settings.kind == "auto" and not (has_signs() or driver_path)):
        return None
    environment = dict(pair.split("=", 1) for pair in settings.environment)
    start_host = partial(HostProcess, environment=environment)
    return HailoAccelerator(
        interpreters(settings.python), driver_path, start_host, settings.max_models
    )


async def _end(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


def _own(path: Path) -> int:
    """Lock a file for the life of this process. Raises Conflict, Unavailable."""
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise Unavailable(f"{path} cannot be made: {error.strerror}") from None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        with contextlib.suppress(OSError):
            os.close(descriptor)
        raise Conflict(
            "another edge runtime uses this home", hint="`prime-spark edge status` shows it"
        ) from None
    return descriptor
