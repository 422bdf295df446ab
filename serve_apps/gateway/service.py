"""The gateway as an `InferenceService`: catalogue, routing and repository behind the protocol."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Mapping, Sequence
from typing import Final

from cluster.registry.interface import Registry
from cluster.registry.types import PLACEMENTS, ServingEntry
from edge_runtime.engine import model_options
from edge_runtime.engine.batch import check
from edge_runtime.errors import (
    BudgetExceeded,
    DeadlineExceeded,
    InvalidInput,
    NotFound,
    Unavailable,
    Unsupported,
)
from edge_runtime.protocol.classification import classify_outputs
from edge_runtime.protocol.service import (
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
    merge_statistics,
)
from policies.routing.splits import of_engine
from serve_apps.gateway.budgets import Budgets
from serve_apps.gateway.catalogue import Catalogue, ServedModel
from serve_apps.gateway.dispatch import DEGRADED, Dispatcher
from serve_apps.gateway.shadows import Shadows
from serve_apps.gateway.targets import TargetTable, failures

SERVER_NAME: Final = "prime-spark"
LOAD_POLL_S: Final = 0.05
LOAD_PARAMETERS: Final = frozenset({"version", "placement"})


class GatewayService:
    """Answers the protocol from the catalogue and the targets; all on one event loop."""

    def __init__(
        self,
        catalogue: Catalogue,
        targets: TargetTable,
        dispatcher: Dispatcher,
        registry: Registry,
        version: str,
        budgets: Budgets | None = None,
    ) -> None:
        self._numbers = itertools.count()
        self.shadows = Shadows(dispatcher)
        self._catalogue = catalogue
        self._targets = targets
        self._dispatcher = dispatcher
        self._registry = registry
        self._version = version
        self._budgets = budgets

    def health(self) -> Health:
        if self._catalogue.snapshot.generation < 0:
            return Health("unready", (self._catalogue.problem or "the registry was not read yet",))
        reasons = [
            f"target {target.name} is {'silent' if target.is_up else 'down'}: {target.problem}"
            for target in self._targets
            if not target.is_up or target.is_silent
        ]
        ejected = sorted(self._targets.ejections.now())
        reasons += [f"target {name} is left alone for a while: it fails" for name in ejected]
        if self._catalogue.problem:
            reasons.append(f"the registry cannot be read: {self._catalogue.problem}")
        for (model, version), where in failures(self._targets).items():
            reasons += [
                f"{model}:{version} fails on {name}: {why.message}" for name, why in where.items()
            ]
        return Health("degraded" if reasons else "ready", tuple(reasons))

    def server_metadata(self) -> ServerMetadata:
        return ServerMetadata(SERVER_NAME, self._version, SERVER_EXTENSIONS)

    def is_model_ready(self, model: str, version: str | None) -> bool:
        try:
            served = self._catalogue.snapshot.resolve(model, version)
        except Unavailable:
            return False
        return self._is_ready(served)

    def model_metadata(self, model: str, version: str | None) -> ModelMetadata:
        snapshot = self._catalogue.snapshot
        served = snapshot.resolve(model, version)
        return ModelMetadata(
            name=model,
            versions=tuple(s.version.version for s in snapshot.served[model]),
            platform="onnxruntime_onnx",
            signature=served.version.signature,
        )

    def model_config(self, model: str, version: str | None) -> ModelConfig:
        served = self._catalogue.snapshot.resolve(model, version)
        signature = served.version.signature
        return ModelConfig(
            name=model,
            platform="onnxruntime_onnx",
            backend="onnxruntime",
            signature=signature,
            max_batch_size=served.options.max_batch_size if signature.is_batched else 0,
            max_queue_delay_us=int(served.options.max_delay_ms * 1e3),
            instances=max(1, served.options.instances),
            parameters={
                "version": served.version.version,
                "placement": ",".join(sorted(served.entry.placements)),
                "dataset": served.version.card.dataset or "",
            },
        )

    async def model_statistics(
        self, model: str | None, version: str | None
    ) -> Sequence[ModelStatistics]:
        if model is not None:
            resolved = self._catalogue.snapshot.resolve(model, version).version.version
        await self._targets.probe()
        grouped: dict[tuple[str, str], list[ModelStatistics]] = {}
        for found in self._targets.statistics():
            if model is None or (found.name == model and version in (None, found.version)):
                grouped.setdefault((found.name, found.version), []).append(found)
        if model is not None and not grouped:
            return (ModelStatistics(model, resolved),)
        return [merge_statistics(parts) for _, parts in sorted(grouped.items())]

    def repository_index(self, *, ready_only: bool) -> Sequence[RepositoryEntry]:
        snapshot = self._catalogue.snapshot
        broken = failures(self._targets)
        entries: list[RepositoryEntry] = []
        for model, versions in sorted(snapshot.registered.items()):
            served = {s.version.version: s for s in snapshot.served.get(model, ())}
            for version in versions:
                found = served.get(version.version)
                why = broken.get((model, version.version))
                if found is None:
                    entry = RepositoryEntry(model, version.version, "UNAVAILABLE", "not served")
                elif self._is_ready(found):
                    entry = RepositoryEntry(model, version.version, "READY")
                elif why:
                    reason = "; ".join(f"{name}: {text.message}" for name, text in why.items())
                    entry = RepositoryEntry(model, version.version, "UNAVAILABLE", reason)
                else:
                    entry = RepositoryEntry(model, version.version, "LOADING")
                if entry.state == "READY" or not ready_only:
                    entries.append(entry)
        return entries

    async def load_model(
        self, model: str, parameters: Mapping[str, ParameterValue], context: CallContext
    ) -> None:
        """Serve a version and wait until every target that answers has it, with these options.

        Raises what the registry, or the first target that could not load it, refuses with.
        """
        if "config" in parameters or any(name.startswith("file:") for name in parameters):
            raise Unsupported(
                "models are loaded from the registry; config and file overrides are not offered",
                field="parameters",
                hint="register a new version with `prime-spark model register`",
            )
        ref = _text(parameters, "version")
        wanted = await asyncio.to_thread(self._registry.resolve, model, ref)
        served = self._served(model, wanted.version)
        placements = _placements(_text(parameters, "placement"), served)
        options = {k: v for k, v in parameters.items() if k not in LOAD_PARAMETERS}
        model_options(served.options if served else self._catalogue.defaults, of_engine(options))
        kept = dict(served.entry.options) if served else {}
        entry = ServingEntry(
            model=model,
            version=wanted.version,
            placements=placements,
            options={**kept, **options},
            actor=context.principal.subject,
            at=time.time(),
        )
        generation = await asyncio.to_thread(self._registry.serve, entry)
        await self._awake(placements, context)  # else nobody would know whether it can be loaded
        await self._settled(generation, context)
        for name, failure in failures(self._targets).get((model, wanted.version), {}).items():
            raise failure.error(f"model '{model}' was not loaded by {name}")
        served = self._served(model, wanted.version)
        if served is None or not self._is_ready(served):
            raise Unavailable(f"model '{model}' was not loaded: no target is up", retry_after_s=1.0)

    async def unload_model(
        self, model: str, parameters: Mapping[str, ParameterValue], context: CallContext
    ) -> None:
        """Stop serving a version (or all of them) and wait until every target let go of it."""
        version = _text(parameters, "version")
        snapshot = self._catalogue.snapshot
        if model not in snapshot.registered:
            raise NotFound(f"there is no model '{model[:128]}'", field="model")
        served = [s.version.version for s in snapshot.served.get(model, ())]
        if version is not None and version not in served:
            raise NotFound(f"model '{model}' version '{version}' is not served", field="version")
        generation = snapshot.generation
        for each in served if version is None else [version]:
            generation = await asyncio.to_thread(
                self._registry.stop_serving, model, each, actor=context.principal.subject
            )
        await self._settled(generation, context)

    async def infer(self, request: InferRequest, context: CallContext) -> InferResult:
        snapshot = self._catalogue.snapshot
        # Requests without a name are drawn one by one, and each has the same version everywhere.
        key = context.session or request.id or f"number {next(self._numbers)}"
        served = snapshot.resolve(request.model, request.version, key)
        version = served.version.version
        names = tuple(output.name for output in request.outputs)
        check(served.version.signature, request.inputs, names)
        placements = served.entry.placements
        prefer = await self._admitted(request, version, placements, context)
        found = await self._dispatcher.infer(request, version, placements, context, prefer)
        answer = found.answer
        if prefer and self._budgets is not None:  # nor are copies sent that cost as much again
            self._budgets.degraded(is_cheap=found.reason == DEGRADED)
        elif request.version is None and (copies := snapshot.shadows(request.model, version, key)):
            self.shadows.send(request, copies, context, answer.outputs)
        response = InferResponse(
            model=request.model,
            version=version,
            outputs=classify_outputs(
                request, answer.outputs, is_batched=served.version.signature.is_batched
            ),
            id=request.id,
            parameters=origin_parameters(found.target, found.reason, answer.rung, answer.age_s),
        )
        return InferResult(response, found.target, found.reason, answer.rung, answer.age_s)

    async def _admitted(
        self,
        request: InferRequest,
        version: str,
        placements: frozenset[str],
        context: CallContext,
    ) -> frozenset[str]:
        """Return the tiers that budgets leave it, none where they do not care.

        Raises BudgetExceeded.
        """
        if self._budgets is None:
            return frozenset()
        try:
            return await self._budgets.admit(
                context.principal.tenant,
                request.model,
                can_wait=context.priority > 0,
                slack_s=context.deadline - asyncio.get_running_loop().time(),
            )
        except BudgetExceeded as error:
            self._dispatcher.refused(request, version, placements, context, error)
            raise

    def _served(self, model: str, version: str) -> ServedModel | None:
        for served in self._catalogue.snapshot.served.get(model, ()):
            if served.version.version == version:
                return served
        return None

    def _is_ready(self, served: ServedModel) -> bool:
        key = (served.version.model, served.version.version)
        views = self._targets.views(key, served.entry.placements)
        return any(view.is_up and view.has_model for view in views)

    async def _awake(self, placements: frozenset[str], context: CallContext) -> None:
        """Wake those targets of some tiers that sleep, and wait until they are up."""
        found = [t.sleep for t in self._targets if t.tier in placements and t.sleep is not None]
        asleep = [sleep for sleep in found if sleep.is_asleep]
        for sleep in asleep:
            sleep.wake()
        try:
            await asyncio.gather(*(sleep.over(context.deadline) for sleep in asleep))
        except TimeoutError:
            raise DeadlineExceeded("the targets did not start in time", field="timeout") from None

    async def _settled(self, generation: int, context: CallContext) -> None:
        """Wait until catalogue and targets have caught up with a generation of the table."""
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.gather(self._catalogue.refresh(), self._targets.probe())
            reached = [self._catalogue.snapshot.generation] + [
                report.generation
                for target in self._targets
                if target.is_up and not target.is_silent
                for report in target.reports
            ]
            if min(reached) >= generation:
                return
            if loop.time() > context.deadline:
                raise DeadlineExceeded("the targets did not follow in time", field="timeout")
            await asyncio.sleep(LOAD_POLL_S)


def _text(parameters: Mapping[str, ParameterValue], name: str) -> str | None:
    value = parameters.get(name)
    if value is not None and not isinstance(value, str):
        raise InvalidInput(f"parameter '{name}' must be text", field=name)
    return value


def _placements(text: str | None, served: ServedModel | None) -> frozenset[str]:
    if text is None:
        return served.entry.placements if served else frozenset({"cloud", "edge"})
    wanted = frozenset(part.strip() for part in text.split(",") if part.strip())
    if not wanted or not wanted <= PLACEMENTS:
        raise InvalidInput(
            f"placement must be one or more of {', '.join(sorted(PLACEMENTS))}", field="placement"
        )
    return wanted
