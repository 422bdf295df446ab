"""Keeps an engine at what the registry says ought to run at its placement.

The serving table is the desired state; every process that holds an engine polls its generation
(one small read) and closes the difference: what is missing is loaded, what is served with other
options now is replaced without dropping a request, what is gone is unloaded after its accepted
requests are answered. A model that cannot be loaded is remembered with the reason and tried
again later; the others go on.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from typing import Final, Protocol

from cluster.registry.interface import Registry
from cluster.registry.types import Artifact, ModelVersion, ServingEntry
from edge_runtime.engine import ModelOptions, ModelSource, Variant, model_options
from edge_runtime.errors import InvalidInput, PrimeSparkError, Unsupported
from serve_apps.wire import Failure

logger = logging.getLogger(__name__)

POLL_S: Final = 0.25
RETRY_S: Final = 10.0
CPU_FORMATS: Final = ("onnx", "onnx-int8")
EDGE: Final = "edge"  # the placement that may have accelerators: it gets every artifact

Key = tuple[str, str]


class Loads(Protocol):
    """What holds loaded versions: an engine here, or one in another process."""

    @property
    def loaded(self) -> tuple[Key, ...]: ...

    def options_of(self, key: Key) -> ModelOptions | None: ...

    async def load(self, source: ModelSource) -> None: ...

    async def unload(self, model: str, version: str) -> None: ...


class ModelSync:
    """Drives one engine. `run` polls for ever; `step` does one round (tests, start-up)."""

    def __init__(
        self,
        engine: Loads,
        registry: Registry,
        placement: str,
        defaults: ModelOptions,
        retry_s: float = RETRY_S,
    ) -> None:
        self._engine = engine
        self._registry = registry
        self._placement = placement
        self._defaults = defaults
        self._retry_s = retry_s
        self._failures: dict[Key, Failure] = {}
        self._retry_at: dict[Key, float] = {}
        self.generation = -1

    @property
    def failures(self) -> Mapping[Key, Failure]:
        """Versions that could not be loaded, with the reason."""
        return self._failures

    async def run(self) -> None:
        """Poll until cancelled; a registry that cannot be read is retried, and logged once."""
        is_reading = True
        while True:
            try:
                await self.step()
                is_reading = True
            except PrimeSparkError as error:
                if is_reading:
                    logger.error("the registry cannot be read: %s", error)
                is_reading = False
            await asyncio.sleep(POLL_S)

    async def step(self) -> None:
        """Close the difference between the serving table and the engine once."""
        now = asyncio.get_running_loop().time()
        generation = await asyncio.to_thread(self._registry.serving_generation)
        due = [key for key, at in self._retry_at.items() if at <= now]
        if generation == self.generation and not due:
            return
        generation, entries = await asyncio.to_thread(self._registry.serving)
        wanted = {
            (entry.model, entry.version): entry
            for entry in entries
            if self._placement in entry.placements
        }
        missing = [entry for entry in wanted.values() if not self._is_loaded(entry)]
        gone = [key for key in self._engine.loaded if key not in wanted]
        for key in self._failures.keys() - {(entry.model, entry.version) for entry in missing}:
            self._forget(key)
        await asyncio.gather(
            *(self._load(entry) for entry in missing),
            *(self._engine.unload(model, version) for model, version in gone),
        )
        self.generation = generation

    def _is_loaded(self, entry: ServingEntry) -> bool:
        """True when the version runs with the options that the entry asks for."""
        running = self._engine.options_of((entry.model, entry.version))
        if running is None:
            return False
        try:
            return running == model_options(self._defaults, entry.engine_options)
        except InvalidInput:
            return False  # loading it says why

    async def _load(self, entry: ServingEntry) -> None:
        key = (entry.model, entry.version)
        try:
            source = await asyncio.to_thread(self._source, entry)
            await self._engine.load(source)
        except PrimeSparkError as error:
            self._failed(key, Failure(error.code, error.message), None)
        except Exception as error:
            # A model that crashes in its warm-up, a disk that fails: one version must not take
            # the replica, and with it every other version, down.
            message = f"{type(error).__name__}: {error}"
            self._failed(key, Failure(PrimeSparkError.code, message), error)
        else:
            self._forget(key)

    def _failed(self, key: Key, why: Failure, unexpected: Exception | None) -> None:
        if self._failures.get(key) != why:  # said once, not at every attempt
            logger.error("cannot load %s version %s: %s", *key, why.message, exc_info=unexpected)
        self._failures[key] = why
        self._retry_at[key] = asyncio.get_running_loop().time() + self._retry_s

    def _forget(self, key: Key) -> None:
        self._failures.pop(key, None)
        self._retry_at.pop(key, None)

    def _source(self, entry: ServingEntry) -> ModelSource:
        """Find and verify the artifact to run; reads the whole file."""
        options = model_options(self._defaults, entry.engine_options)
        version = self._registry.get(entry.model, entry.version)
        is_edge = self._placement == EDGE
        artifacts = version.artifacts if is_edge else (runnable_artifact(version),)
        variants = tuple(
            Variant(
                artifact.format,
                self._registry.artifact_path(artifact, verify=True),
                artifact.target,
                artifact.digest if is_edge else "",  # checked here already
            )
            for artifact in artifacts
        )
        return ModelSource(entry.model, entry.version, variants, options, version.signature)


def runnable_artifact(version: ModelVersion) -> Artifact:
    """Return the artifact that a processor can run. Raises Unsupported."""
    for wanted in CPU_FORMATS:
        for artifact in version.artifacts:
            if artifact.format == wanted:
                return artifact
    raise Unsupported(
        f"{version.model}:{version.version} has nothing that a processor can run",
        hint="register an artifact of format " + " or ".join(CPU_FORMATS),
    )
