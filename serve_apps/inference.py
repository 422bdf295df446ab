"""The inference deployment: one engine in a Serve replica, on cloud or edge nodes.

A replica loads everything that the serving table places on its tier before Serve calls it
ready, and follows the table from then on, so a scaled-up or restarted replica is complete when
its first request arrives. Autoscaling sees the requests in progress; admission inside is the
engine's.
"""

from __future__ import annotations

import asyncio
import logging
import time
from contextlib import AsyncExitStack
from typing import Any

from ray import serve

from cluster.config import Settings
from cluster.home import Home
from cluster.registry.embedded import EmbeddedRegistry
from edge_runtime.engine import Engine, EngineOptions
from edge_runtime.errors import PrimeSparkError
from serve_apps.heap import settle
from serve_apps.loopback import stay_on_loopback
from serve_apps.model_sync import ModelSync
from serve_apps.replica_log import log_to
from serve_apps.tasks import end
from serve_apps.wire import Call, ReplicaReport, Reply, decode_call, encode_answer, encode_error

logger = logging.getLogger(__name__)


class Inference:
    """Serves calls of the gateway; every method answers on the replica's event loop."""

    async def __init__(self, settings: Settings, tier: str) -> None:  # type: ignore[misc]
        self._closing = AsyncExitStack()  # what was built is ended in the opposite order
        try:
            await self._start(settings, tier)
        except BaseException:
            await self._closing.aclose()
            raise

    async def _start(self, settings: Settings, tier: str) -> None:
        stay_on_loopback()
        home = Home.at(settings.home)
        log_to(home.logs, f"inference-{tier}-{serve.get_replica_context().replica_id.unique_id}")
        defaults = settings.engine.options()
        registry = EmbeddedRegistry(home.registry)
        self._closing.callback(registry.close)
        self._engine = Engine(EngineOptions(settings.engine.threads, defaults=defaults))
        self._closing.push_async_callback(self._engine.close)
        self._sync = ModelSync(self._engine, registry, tier, defaults)
        await self._sync.step()
        settle()
        self._syncing = asyncio.get_running_loop().create_task(self._sync.run())
        self._closing.push_async_callback(end, (self._syncing,))

    async def infer(self, packed: tuple[Any, ...]) -> tuple[Any, ...]:
        """Compute one `Call`, return one `Reply`, both as plain tuples; errors are in the reply."""
        return tuple(await answer(self._engine, Call.of(packed)))

    async def report(self) -> ReplicaReport:
        """Say what is loaded and how busy it is."""
        return ReplicaReport(
            loads=dict(self._engine.load_report()),
            failures=dict(self._sync.failures),
            statistics=tuple(self._engine.statistics()),
            generation=self._sync.generation,
        )

    async def check_health(self) -> None:
        """Called by Serve; raises when the replica should be replaced."""
        if self._syncing.done():
            raise RuntimeError("the model sync ended") from self._syncing.exception()

    async def __del__(self) -> None:
        await self._closing.aclose()


async def answer(engine: Engine, call: Call) -> Reply:
    """Compute a call on a loaded version; whatever goes wrong is in the reply."""
    began_s = time.perf_counter()  # the loop's clock moves in steps of a millisecond
    now = asyncio.get_running_loop().time()
    key = (call.model, call.version)
    try:
        found = await engine.answer(
            decode_call(call), call.version, deadline=now + call.slack_s, priority=call.priority
        )
        taken_s = time.perf_counter() - began_s
        return encode_answer(found, engine.load_of(key), taken_s)
    except PrimeSparkError as error:
        refusal = error
    except Exception:
        # A fault of this model; raised through the handle it would look like a lost replica.
        logger.exception("%s version %s failed a request", *key)
        refusal = PrimeSparkError(f"model '{call.model}' failed unexpectedly")
    return encode_error(refusal, engine.load_of(key), time.perf_counter() - began_s)
