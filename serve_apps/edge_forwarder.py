"""The edge tier's replica: a thin forwarder to the edge runtime of the node it runs on.

The runtime owns the models and the accelerator and outlives this replica, its raylet and the
head. What comes through Serve goes over the runtime's Unix socket with deadline, priority and
trace, and comes back with the rung that computed it; an answer of the runtime, a refusal too, is a
reply, and a runtime that cannot be reached is `Unavailable`, which sends the request elsewhere.

Where the node has the registry, the replica also hands the runtime the versions that the serving
table places on the edge: it installs their packages on the node's disk, so that the runtime has
them after a reboot without a network, and it never touches packages that were installed there by
hand. On a box with a home of its own there is none yet, and what was installed there is what it
serves.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import time
from collections.abc import Mapping
from contextlib import AsyncExitStack
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any, Final

from ray import serve

from cluster.config import Settings
from cluster.home import Home
from cluster.nodes import NODE_HOME
from cluster.registry.embedded import EmbeddedRegistry
from edge_runtime.engine import Answered, LoadReport, ModelOptions, ModelSource
from edge_runtime.errors import NotFound, PrimeSparkError, Unavailable
from edge_runtime.local_client import ask
from edge_runtime.packages import Incoming, PackageFolder
from edge_runtime.protocol.context import LOAD_HEADER, TIER_HEADER
from edge_runtime.protocol.grpc_client import OipClient, WayLost
from edge_runtime.protocol.grpc_documents import read_statistics
from edge_runtime.protocol.service import LOAD_PARAMETER, Limits, computed_on
from edge_runtime.protocol.types import ModelStatistics, Parameters
from serve_apps.heap import settle
from serve_apps.loopback import stay_on_loopback
from serve_apps.model_sync import ModelSync
from serve_apps.replica_log import log_to
from serve_apps.tasks import end
from serve_apps.wire import (
    FOLLOWS_NONE,
    Call,
    ReplicaReport,
    Reply,
    decode_call,
    encode_answer,
    encode_error,
)

logger = logging.getLogger(__name__)

ASK_S: Final = 1.0  # a runtime that does not say how it is within this is away
LOAD_S: Final = 120.0
# What a gateway sent here does not go to one again, and the gateway learns how busy the box is.
HEADERS: Final = {TIER_HEADER: "edge", LOAD_HEADER: "1"}
ORIGIN: Final = "cluster"  # of packages that the serving table put here

Key = tuple[str, str]


class EdgeForwarder:
    """Serves calls of the gateway from the runtime beside it; see `inference.Inference`."""

    async def __init__(self, settings: Settings) -> None:  # type: ignore[misc]
        self._closing = AsyncExitStack()
        try:
            await self._start(settings)
        except BaseException:
            await self._closing.aclose()
            raise

    async def _start(self, settings: Settings) -> None:
        stay_on_loopback()
        theirs = Home.of(settings.home)  # the settings are the head's
        home = Home.at(os.environ.get(NODE_HOME) or settings.home)
        log_to(home.logs, f"inference-edge-{serve.get_replica_context().replica_id.unique_id}")
        limits, options = settings.limits.limits(), settings.engine.options()
        self._runtime = RuntimeOfNode(home.edge_run, limits, options)
        self._closing.push_async_callback(self._runtime.close)
        await self._runtime.refresh()
        settle()
        self._sync: ModelSync | None = None
        if home != theirs and not home.registry.exists():
            return
        registry = EmbeddedRegistry(home.registry)
        self._closing.callback(registry.close)
        self._sync = ModelSync(self._runtime, registry, "edge", options)
        await self._sync.step()
        self._syncing = asyncio.get_running_loop().create_task(self._sync.run())
        self._closing.push_async_callback(end, (self._syncing,))

    async def infer(self, packed: tuple[Any, ...]) -> tuple[Any, ...]:
        """Forward one `Call`, return one `Reply`, both as plain tuples."""
        return tuple(await self._runtime.forward(Call.of(packed)))

    async def report(self) -> ReplicaReport:
        """Say what the runtime has loaded and how busy it is. Raises Unavailable without one."""
        await self._runtime.refresh()
        return ReplicaReport(
            loads=self._runtime.loads,
            failures=dict(self._sync.failures) if self._sync else {},
            statistics=await self._runtime.statistics(),
            generation=self._sync.generation if self._sync else FOLLOWS_NONE,
        )

    async def check_health(self) -> None:
        """Called by Serve; raises when the replica should be replaced.

        A runtime that is away is no reason: another replica would find none either.
        """
        if self._sync is not None and self._syncing.done():
            raise RuntimeError("the model sync ended") from self._syncing.exception()

    async def __del__(self) -> None:
        await self._closing.aclose()


class RuntimeOfNode:
    """The edge runtime of this node, as what a `ModelSync` drives and calls are forwarded to.

    run: the folder of its sockets; limits: of its answers; defaults: how models are served.
    """

    def __init__(self, run: Path, limits: Limits, defaults: ModelOptions) -> None:
        self._socket = run / "edge.sock"
        self._client = OipClient(f"unix:{run / 'edge-grpc.sock'}", limits)
        self._defaults = defaults
        self._models: Mapping[Key, Mapping[str, Any]] = {}
        self._folder: PackageFolder | None = None

    @property
    def loads(self) -> dict[Key, LoadReport]:
        """How busy each loaded model was when the runtime was asked last."""
        return {
            key: LoadReport.of(model) for key, model in self._models.items() if "service_s" in model
        }

    @property
    def loaded(self) -> tuple[Key, ...]:
        """Versions loaded that this cluster put there."""
        return tuple(key for key, model in self._models.items() if model["origin"] == ORIGIN)

    def options_of(self, key: Key) -> ModelOptions | None:
        """Return the options that a loaded version is served with."""
        model = self._models.get(key)
        return None if model is None else ModelOptions(**model["options"])

    async def refresh(self) -> None:
        """Ask the runtime how it is. Raises Unavailable."""
        document = await asyncio.to_thread(
            ask, self._socket, "GET", "/v2/prime-spark/edge", timeout_s=ASK_S
        )
        self._models = {(m["model"], m["version"]): m for m in document["models"]}
        self._folder = PackageFolder(Path(document["models_folder"]))

    async def load(self, source: ModelSource) -> None:
        """Install a version on the node and have it loaded. Raises what that raises."""
        folder = self._packages()
        files = [Incoming(v.format, v.path, v.target, v.digest) for v in source.variants]
        defaults = asdict(self._defaults)
        changed = {n: v for n, v in asdict(source.options).items() if v != defaults[n]}
        install = partial(
            folder.install,
            source.model,
            source.version,
            files,
            options=changed,
            signature=source.signature,
            origin=ORIGIN,
            installed_at=time.time(),
        )
        await asyncio.to_thread(install)
        await self._rescan()
        await self._client.load(source.model, {"version": source.version}, LOAD_S)
        await self.refresh()

    async def unload(self, model: str, version: str) -> None:
        """Have a version unloaded and remove its package, if it came from this cluster."""
        if (model, version) not in self.loaded:
            return
        await self._client.unload(model, {"version": version}, LOAD_S)
        try:
            await asyncio.to_thread(self._packages().remove, model, version)
        except NotFound:
            logger.info("%s:%s was removed already", model, version)
        await self._rescan()
        await self.refresh()

    async def forward(self, call: Call) -> Reply:
        """Send a call to the runtime; whatever goes wrong is in the reply."""
        began_s = time.perf_counter()
        try:
            answer = await self._client.infer(
                decode_call(call),
                call.version,
                timeout_s=call.slack_s,
                priority=call.priority,
                trace=call.trace,
                extra=HEADERS,
            )
            load, alone_s = _load_of(answer.parameters)
            found = Answered(answer.outputs, *computed_on(answer.parameters), alone_s)
            return encode_answer(found, load, time.perf_counter() - began_s)
        except WayLost as lost:
            refusal: PrimeSparkError = Unavailable(
                f"the edge runtime does not answer: {lost.message}", retry_after_s=1.0
            )
        except PrimeSparkError as error:
            refusal = error
        except Exception:
            logger.exception("forwarding a call for %s failed", call.model)
            refusal = PrimeSparkError(f"model '{call.model}' failed unexpectedly")
        return encode_error(refusal, None, time.perf_counter() - began_s)

    async def statistics(self) -> tuple[ModelStatistics, ...]:
        """Return the counters of every model. Raises Unavailable."""
        return tuple(read_statistics(await self._client.statistics(ASK_S)))

    async def close(self) -> None:
        await self._client.close()

    def _packages(self) -> PackageFolder:
        if self._folder is None:
            raise Unavailable("the edge runtime has not been reached yet")
        return self._folder

    async def _rescan(self) -> None:
        await asyncio.to_thread(ask, self._socket, "POST", "/v2/prime-spark/rescan")


def _load_of(parameters: Parameters) -> tuple[LoadReport | None, float]:
    """Return the load that came with an answer, if it did, and its request's time alone."""
    said = parameters.get(LOAD_PARAMETER)
    if not isinstance(said, str):
        return None, 0.0
    document = json.loads(said)
    return LoadReport.of(document), document["alone_s"]
