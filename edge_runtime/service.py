"""The protocol over one engine: the model server of an edge box, and of tests and benchmarks.

No registry, no routing, no Ray: the models are the sources it was given (a repository on disk),
loaded and unloaded by name. Without a version the newest loaded one answers, in the order in
which the sources came.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections import defaultdict
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Final

from edge_runtime.engine import Engine, ModelSource
from edge_runtime.engine.runner import ModelRunner
from edge_runtime.errors import (
    DeadlineExceeded,
    InvalidInput,
    NotFound,
    PrimeSparkError,
    Unavailable,
    Unsupported,
)
from edge_runtime.protocol.classification import classify_outputs
from edge_runtime.protocol.service import (
    LOAD_PARAMETER,
    SERVER_EXTENSIONS,
    CallContext,
    Health,
    InferResult,
    origin_parameters,
)
from edge_runtime.protocol.types import (
    InferRequest,
    InferResponse,
    ModelConfig,
    ModelMetadata,
    ModelStatistics,
    ParameterValue,
    RepositoryEntry,
    ServerMetadata,
)

logger = logging.getLogger(__name__)

SERVER_NAME: Final = "prime-spark-edge"
REASON: Final = "local"

Key = tuple[str, str]


class EngineService:
    """Answers the protocol from an engine; use on the engine's event loop.

    target: the name that answers carry as their origin; decided: told of every version that is
    loaded or unloaded by name; problems: what else is a reason to be degraded, one sentence each.
    """

    def __init__(
        self,
        engine: Engine,
        sources: Sequence[ModelSource],
        *,
        version: str,
        target: str = "edge",
        decided: Callable[[str, str, bool], Awaitable[None]] | None = None,
        problems: Callable[[], Sequence[str]] = tuple,
    ) -> None:
        self._engine = engine
        self._version = version
        self._target = target
        self._decided = decided
        self._problems = problems
        self._not_ready = ""
        self._failures: dict[Key, str] = {}
        self._configs: dict[Key, ModelConfig] = {}  # as loaded last
        self._by_name: defaultdict[Key, asyncio.Lock] = defaultdict(asyncio.Lock)
        self._loads: set[asyncio.Task[None]] = set()
        self._repository: dict[str, dict[str, ModelSource]] = {}
        for source in sources:
            self.add(source)

    def add(self, source: ModelSource) -> None:
        """Make a version known; it counts as the newest of its model."""
        versions = self._repository.setdefault(source.model, {})
        versions.pop(source.version, None)
        versions[source.version] = source

    def drop(self, model: str, version: str) -> None:
        """Forget a version that is not loaded any more."""
        versions = self._repository.get(model, {})
        versions.pop(version, None)
        if not versions:
            self._repository.pop(model, None)
        self._failures.pop((model, version), None)
        self._configs.pop((model, version), None)

    async def load_all(self, wanted: Callable[[ModelSource], bool] = lambda source: True) -> None:
        """Load the versions wanted; one that cannot be is reported by `health` and the index."""
        for versions in list(self._repository.values()):
            for source in list(versions.values()):
                if not wanted(source):
                    continue
                try:
                    await self._load(source)
                except PrimeSparkError:
                    continue  # `_load` has kept the reason

    async def load_older(self, allowed: Callable[[ModelSource], bool]) -> None:
        """Load the next older version allowed of each model whose wanted ones all failed.

        An old model is better than none: a box that finds its newest file damaged while it is
        offline has nobody to ask for another. What failed stays a reason to be degraded.
        """
        for model, versions in list(self._repository.items()):
            has_failed = any((model, version) in self._failures for version in versions)
            if not has_failed or self._answering(model):
                continue
            for version, source in reversed(list(versions.items())):
                if (model, version) in self._failures or not allowed(source):
                    continue
                try:
                    await self._load(source)
                except PrimeSparkError:
                    continue  # `_load` has kept the reason
                logger.warning("%s version %s serves in place of a newer one", model, version)
                break

    def is_newest(self, source: ModelSource) -> bool:
        """Tell whether a version is the newest known of its model."""
        return next(reversed(self._repository[source.model])) == source.version

    def hold(self, why: str) -> None:
        """Take no new requests, for this reason; an empty one lets them in again."""
        self._not_ready = why

    @property
    def is_held(self) -> bool:
        """True while it takes no requests."""
        return bool(self._not_ready)

    def version_for(self, model: str, version: str | None) -> str | None:
        """Return the version that would answer here, None when there is none."""
        known = self._answering(model)
        if version is None:
            return known[-1] if known else None
        return version if version in known else None

    def health(self) -> Health:
        if self._not_ready:
            return Health("unready", (self._not_ready,))
        reasons = [f"{name}:{version}: {why}" for (name, version), why in self._failures.items()]
        reasons += [
            f"{runner.model}:{runner.version}: {why}"
            for runner in self._engine.runners()
            for why in runner.ladder.reasons()
        ]
        reasons += self._problems()
        return Health("degraded" if reasons else "ready", tuple(reasons))

    def server_metadata(self) -> ServerMetadata:
        return ServerMetadata(SERVER_NAME, self._version, SERVER_EXTENSIONS)

    def is_model_ready(self, model: str, version: str | None) -> bool:
        try:
            self._runner(model, version)
        except Unavailable:  # one that had to make room is loaded when it is asked for
            evicted = self._engine.residency.evicted
            return any(m == model and version in (None, v) for m, v in evicted)
        return True

    def model_metadata(self, model: str, version: str | None) -> ModelMetadata:
        config = self.model_config(model, version)
        return ModelMetadata(model, self._answering(model), config.platform, config.signature)

    def model_config(self, model: str, version: str | None) -> ModelConfig:
        """Describe a version that is loaded, or was before it had to make room."""
        key = (model, self.version_for(model, version) or "")
        if key in self._engine.residency.evicted and key in self._configs:
            return self._configs[key]
        return _config(self._runner(model, version))

    async def model_statistics(
        self, model: str | None, version: str | None
    ) -> Sequence[ModelStatistics]:
        if model is None:
            return sorted(self._engine.statistics(), key=lambda found: (found.name, found.version))
        chosen = self._runner(model, version)
        if version is not None:
            return (chosen.stats.snapshot(),)
        return [self._engine.runner(model, each).stats.snapshot() for each in self._loaded(model)]

    def repository_index(self, *, ready_only: bool) -> Sequence[RepositoryEntry]:
        entries: list[RepositoryEntry] = []
        for model, versions in sorted(self._repository.items()):
            loaded = self._loaded(model)
            for version in versions:
                if version in loaded:
                    entries.append(RepositoryEntry(model, version, "READY"))
                elif not ready_only:
                    is_out = (model, version) in self._engine.residency.evicted
                    idle = (
                        "made room for another, loaded when asked for" if is_out else "not loaded"
                    )
                    why = self._failures.get((model, version), idle)
                    entries.append(RepositoryEntry(model, version, "UNAVAILABLE", why))
        return entries

    async def load_model(
        self, model: str, parameters: Mapping[str, ParameterValue], context: CallContext
    ) -> None:
        """Load a version, the newest known without one. Raises what loading raises."""
        if "config" in parameters or any(name.startswith("file:") for name in parameters):
            raise Unsupported(
                "config and file overrides are not offered",
                field="parameters",
                hint="put the model into the repository and load it from there",
            )
        versions = self._known(model)
        wanted = _version(parameters) or next(reversed(versions))
        if wanted not in versions:
            raise _no_version(model, wanted)
        loading = asyncio.get_running_loop().create_task(self._load_by_name(versions[wanted]))
        self._loads.add(loading)
        loading.add_done_callback(self._end_load)
        try:
            async with asyncio.timeout_at(context.deadline):
                await asyncio.shield(loading)  # who gives up does not undo what was asked for
        except TimeoutError:
            raise _still_loading(model) from None

    async def unload_model(
        self, model: str, parameters: Mapping[str, ParameterValue], context: CallContext
    ) -> None:
        """Unload a version, or all of them, after finishing what they accepted."""
        versions = self._known(model)
        wanted = _version(parameters)
        if wanted is not None and wanted not in versions:
            raise _no_version(model, wanted)
        engine = self._engine
        there = {*engine.loaded, *engine.loading, *engine.residency.evicted}
        chosen = [v for v in versions if (model, v) in there] if wanted is None else [wanted]
        for version in chosen:
            async with self._by_name[model, version]:
                await self._decide(model, version, False)
                await engine.unload(model, version)
                self._failures.pop((model, version), None)

    async def infer(self, request: InferRequest, context: CallContext) -> InferResult:
        if self._not_ready:
            raise Unavailable(self._not_ready, retry_after_s=1.0)
        if not self._engine.residency.limit_bytes:
            runner = self._runner(request.model, request.version)
            return await self._answer(runner, request, context)
        key = (request.model, self.version_for(request.model, request.version) or "")
        with self._engine.residency.hold(key):
            runner = await self._resident(request.model, request.version, context)
            return await self._answer(runner, request, context)

    async def _answer(
        self, runner: ModelRunner, request: InferRequest, context: CallContext
    ) -> InferResult:
        found = await self._engine.answer(
            request, runner.version, deadline=context.deadline, priority=context.priority
        )
        logger.debug("answered %s on %s, trace %s", request.model, found.rung, context.trace)
        parameters = origin_parameters(self._target, REASON, found.rung, found.age_s)
        load = self._engine.load_of((runner.model, runner.version)) if context.wants_load else None
        if load is not None:
            said = {**load.document(), "alone_s": found.alone_s}
            parameters[LOAD_PARAMETER] = json.dumps(said)
        response = InferResponse(
            model=request.model,
            version=runner.version,
            outputs=classify_outputs(
                request, found.outputs, is_batched=runner.signature.is_batched
            ),
            id=request.id,
            parameters=parameters,
        )
        return InferResult(response, self._target, REASON, found.rung, found.age_s)

    async def _load_by_name(self, source: ModelSource) -> None:
        async with self._by_name[source.model, source.version]:
            await self._load(source)
            await self._decide(source.model, source.version, True)

    def _end_load(self, task: asyncio.Task[None]) -> None:
        self._loads.discard(task)
        if not task.cancelled():
            task.exception()  # whoever waits is told; perhaps nobody waits any more

    async def _decide(self, model: str, version: str, is_loaded: bool) -> None:
        if self._decided is not None:
            await self._decided(model, version, is_loaded)

    async def _load(self, source: ModelSource) -> None:
        """Load a version and keep why it cannot be. Raises PrimeSparkError."""
        key = (source.model, source.version)
        try:
            await self._engine.load(source)
        except PrimeSparkError as error:
            there = (*self._engine.residency.evicted, *self._engine.loaded)
            is_passing = isinstance(error, Unavailable) and key in there
            if not is_passing:  # others are busy now; it comes back, or what was there serves on
                self._failures[key] = error.message
            raise
        except Exception:
            logger.exception("loading %s version %s failed", *key)
            self._failures[key] = "it failed unexpectedly; the log has more"
            raise PrimeSparkError(f"model '{source.model}' failed unexpectedly") from None
        self._failures.pop(key, None)
        if key in self._engine.loaded:
            self._configs[key] = _config(self._engine.runner(*key))

    def _runner(self, model: str, version: str | None) -> ModelRunner:
        """Return what answers for a model. Raises NotFound, or Unavailable if not loaded."""
        versions = self._known(model)
        if version is not None and version not in versions:
            raise _no_version(model, version)
        loaded = self._loaded(model)
        wanted = version or (loaded[-1] if loaded else None)
        if wanted is None or wanted not in loaded:
            raise Unavailable(
                f"model '{model}' version '{wanted or next(reversed(versions))}' is not loaded",
                hint="load it through the repository",
                retry_after_s=5.0,
            )
        return self._engine.runner(model, wanted)

    async def _resident(self, model: str, version: str | None, context: CallContext) -> ModelRunner:
        """Return what answers for a model; one that had to make room is loaded again first."""
        evicted = self._engine.residency.evicted
        if not evicted:
            return self._runner(model, version)
        versions = self._known(model)
        wanted = self.version_for(model, version)
        if wanted is not None and (model, wanted) in evicted:
            try:
                async with asyncio.timeout_at(context.deadline):
                    await self._load(versions[wanted])
            except TimeoutError:
                raise _still_loading(model) from None
        return self._runner(model, version if wanted is None else wanted)

    def _known(self, model: str) -> dict[str, ModelSource]:
        versions = self._repository.get(model)
        if versions is None:
            raise NotFound(f"there is no model '{model[:128]}'", field="model")
        return versions

    def _answering(self, model: str) -> tuple[str, ...]:
        """Versions that answer when they are asked, oldest first."""
        here = (*self._engine.loaded, *self._engine.residency.evicted)
        return tuple(v for v in self._repository.get(model, ()) if (model, v) in here)

    def _loaded(self, model: str) -> tuple[str, ...]:
        """Loaded versions, oldest first."""
        loaded = self._engine.loaded
        return tuple(v for v in self._repository.get(model, ()) if (model, v) in loaded)


def _config(runner: ModelRunner) -> ModelConfig:
    backend, options = runner.ladder.rungs[0].backend, runner.options
    return ModelConfig(
        name=runner.model,
        platform=backend.platform,
        backend=backend.name,
        signature=backend.signature,
        max_batch_size=options.max_batch_size if backend.signature.is_batched else 0,
        max_queue_delay_us=int(options.max_delay_ms * 1e3),
        instances=min(max(1, options.instances), runner.workers),
        parameters={"version": runner.version},
    )


def _version(parameters: Mapping[str, ParameterValue]) -> str | None:
    value = parameters.get("version")
    if value is not None and not isinstance(value, str):
        raise InvalidInput("parameter 'version' must be text", field="version")
    return value


def _still_loading(model: str) -> DeadlineExceeded:
    return DeadlineExceeded(f"model '{model}' is still loading", field="timeout")


def _no_version(model: str, version: str) -> NotFound:
    return NotFound(f"model '{model}' has no version '{version[:64]}'", field="version")
