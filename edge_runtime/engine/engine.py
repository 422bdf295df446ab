"""The engine: many loaded models in one process, loaded and unloaded while it serves.

The gateway holds one for co-located models, each cloud and edge replica holds one, and the
edge runtime holds one: what is true of one is true of all. It owns a thread pool for
computation, as wide as the machine unless told otherwise; everything else runs on the event loop
that made it.
"""

from __future__ import annotations

import asyncio
import logging
import math
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from functools import partial
from typing import Any, Final, Protocol

from edge_runtime.backends.base import AcceleratorBackend, Backend, BackendLoader, BackendOptions
from edge_runtime.backends.onnx import has_cuda, load_onnx, load_onnx_on_cuda
from edge_runtime.engine.memory import data_bytes, trim_heap
from edge_runtime.engine.recall import Recall
from edge_runtime.engine.residency import Residency
from edge_runtime.engine.rungs import AcceleratorRung, Ladder, ProcessorRung, Rung
from edge_runtime.engine.runner import Answered, ModelOptions, ModelRunner
from edge_runtime.engine.source import Damaged, ModelSource, Variant
from edge_runtime.engine.threads import compute_pool
from edge_runtime.errors import InvalidInput, NotFound, PrimeSparkError, Unavailable, Unsupported
from edge_runtime.protocol.types import InferRequest, ModelStatistics, Signature, Tensor
from policies.routing.types import SLACKS, Load

logger = logging.getLogger(__name__)

# What the processor runs, in the order of preference.
LOADERS: Final[Mapping[str, BackendLoader]] = {"onnx-int8": load_onnx, "onnx": load_onnx}
RUNG_NAMES: Final = {"onnx-int8": "cpu-int8", "onnx": "cpu-fp32"}

Key = tuple[str, str]


@dataclass(frozen=True, slots=True)
class EngineOptions:
    """threads: computations at once in this process (0: one per processor).

    max_model_bytes: of all loaded models, as measured (0: no limit); result_cache_bytes: of answers
    kept for models that allow it.
    """

    threads: int = 0
    drain_s: float = 30.0
    max_model_bytes: int = 0
    result_cache_bytes: int = 16 * 1024 * 1024
    defaults: ModelOptions = field(default_factory=ModelOptions)


class Accelerator(Protocol):
    """A device that some artifacts are made for. name: of the rung that it is."""

    @property
    def name(self) -> str: ...

    async def open(self, source: ModelSource, signature: Signature) -> AcceleratorBackend | None:
        """Return the version on this device, None when it has no artifact for it.

        It returns when the device has taken the model or is known to be away; in the latter case
        the model is put on it when it comes back. Raises what is wrong with the artifact.
        """
        ...


# What travels of a load report, in this order; a newer release may add to it at the end.
LOAD_FIELDS: Final = (
    "queued", "running", "wait_s", "service_s", "row_s", "busy", "idle_s", "ahead_s",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class LoadReport:
    """How busy a model is here: what a router needs to know.

    wait_s: expected wait of a new request that has all time; service_s: expected work of one row;
    row_s: by how much one more row lengthens the wait; busy: share of the last second or so in
    which it computed; idle_s: since its last run, which is how old the times are; ahead_s: expected
    wait by the time to the deadline, for each of `policies.routing.types.SLACKS`, empty where it is
    wait_s for everybody; is_able: False while no rung of its ladder is left.
    """

    queued: int
    running: int
    wait_s: float
    service_s: float
    row_s: float = 0.0
    busy: float = 0.0
    idle_s: float = 0.0
    ahead_s: tuple[float, ...] = ()
    is_able: bool = True

    @property
    def waits(self) -> tuple[float, ...]:
        """Expected wait by the time to the deadline, for each of `SLACKS`."""
        return self.ahead_s or (self.wait_s,) * len(SLACKS)

    def document(self) -> dict[str, Any]:
        """Return it as JSON values; `of` reads them."""
        return {name: getattr(self, name) for name in LOAD_FIELDS}

    @classmethod
    def of(cls, document: Mapping[str, Any]) -> LoadReport:
        """Read what an older release wrote, or a newer one, which has more to say."""
        values = {name: document[name] for name in LOAD_FIELDS if name in document}
        return cls(**{**values, "ahead_s": tuple(values.get("ahead_s", ()))})

    def for_routing(self, alone_s: float = 0.0) -> Load:
        """Return it as routing reads it. alone_s: see `Answered`."""
        return Load(
            queued=self.queued,
            running=self.running,
            ahead_s=self.waits,
            alone_s=alone_s,
            service_s=self.service_s,
            row_s=self.row_s or self.service_s,
            busy=self.busy,
            idle_s=self.idle_s,
        )


class Engine:
    """Loaded models by (model, version). Use on one event loop; `close` at the end."""

    def __init__(
        self,
        options: EngineOptions,
        loaders: Mapping[str, BackendLoader] = LOADERS,
        wall: Callable[[], float] = time.time,
        accelerator: Accelerator | None = None,
        measure: Callable[[], int] = data_bytes,
    ) -> None:
        self._options = options
        self._loaders = loaders
        self._wall = wall
        self._accelerator = accelerator
        self._has_cuda = loaders is LOADERS and has_cuda()
        self._threads = options.threads or os.cpu_count() or 1
        self._pool = compute_pool(self._threads)
        self._runners: dict[Key, ModelRunner] = {}
        self._loading: dict[Key, tuple[ModelSource, asyncio.Task[None]]] = {}
        self._draining: dict[asyncio.Task[None], Key] = {}
        self.recall = Recall(options.result_cache_bytes, self._pool)
        self.residency = Residency(
            options.max_model_bytes, self._is_busy, self._evict, time.monotonic, measure
        )

    @property
    def loaded(self) -> tuple[Key, ...]:
        return tuple(self._runners)

    @property
    def loading(self) -> tuple[Key, ...]:
        return tuple(self._loading)

    def runner(self, model: str, version: str) -> ModelRunner:
        """Return a loaded model. Raises NotFound or, while it loads, Unavailable."""
        found = self._runners.get((model, version))
        if found is None:
            if (model, version) in self._loading:
                raise Unavailable(f"model '{model}' is still loading", retry_after_s=1.0)
            raise NotFound(f"model '{model}' version '{version}' is not loaded here")
        return found

    def options_of(self, key: Key) -> ModelOptions | None:
        """Return the options a version is served with; None when it is not loaded."""
        runner = self._runners.get(key)
        return None if runner is None else runner.options

    async def load(self, source: ModelSource) -> None:
        """Load and warm up a model; many callers of the same share one load.

        A version that is loaded with the same options stays as it is. With other options, or when
        a file of it was damaged then, it is opened and warmed anew beside the old one, which serves
        until then and finishes what it accepted afterwards: no request is dropped. At most two
        copies are in memory at a time.

        Raises Corrupt, Unsupported; what was loaded before goes on then.
        """
        key = (source.model, source.version)
        while (other := self._loading.get(key)) is not None and other[0] != source:
            await asyncio.wait((other[1],))
        if other is None:
            if self.options_of(key) == source.options and not self._runners[key].ladder.is_damaged:
                return
            task = asyncio.get_running_loop().create_task(self._open(source))
            self._loading[key] = (source, task)
            task.add_done_callback(lambda done: self._finish_loading(key, done))
        else:
            task = other[1]
        try:
            await asyncio.shield(task)
        except asyncio.CancelledError:
            if task.cancelled():  # by `close`; this caller is told why
                raise Unavailable("the engine is being closed") from None
            raise

    async def unload(self, model: str, version: str) -> None:
        """Stop serving a model, finish what it accepted, give its memory back."""
        key = (model, version)
        while (loading := self._loading.get(key)) is not None:
            await asyncio.wait((loading[1],))
        try:
            await self._take_out(key)
        finally:  # whoever waits may give up, the model goes all the same
            self.residency.gone(key)
            self.recall.forget(model, version)

    async def infer(
        self, request: InferRequest, version: str, *, deadline: float, priority: int = 0
    ) -> tuple[Tensor, ...]:
        """Compute a request on a loaded version; see `answer`."""
        return (await self.answer(request, version, deadline=deadline, priority=priority)).outputs

    async def answer(
        self, request: InferRequest, version: str, *, deadline: float, priority: int = 0
    ) -> Answered:
        """Answer a request on a loaded version, from memory where the model allows it.

        See `ModelRunner.answer`.
        """
        runner = self.runner(request.model, version)
        if self.residency.limit_bytes:
            self.residency.touch((request.model, version))
        return await self.recall.answer(runner, request, deadline=deadline, priority=priority)

    def statistics(self) -> Sequence[ModelStatistics]:
        return [runner.stats.snapshot() for runner in self._runners.values()]

    def load_report(self) -> Mapping[Key, LoadReport]:
        """Return how busy each model is."""
        return {key: _load(runner) for key, runner in self._runners.items()}

    def load_of(self, key: Key) -> LoadReport | None:
        """Return how busy one model is; None when it is not loaded."""
        runner = self._runners.get(key)
        return None if runner is None else _load(runner)

    def runners(self) -> Sequence[ModelRunner]:
        return tuple(self._runners.values())

    async def close(self, drain_s: float | None = None) -> None:
        """Unload everything, all models at the same time, and end the threads.

        drain_s: instead of the option's, where nobody is left who waits for an answer.
        """
        if drain_s is not None:
            self._options = replace(self._options, drain_s=drain_s)
        for _, task in list(self._loading.values()):
            task.cancel()
        async with asyncio.TaskGroup() as unloading:
            for model, version in {*self._loading, *self._runners, *self._draining.values()}:
                unloading.create_task(self.unload(model, version))
        end = partial(self._pool.shutdown, wait=True, cancel_futures=True)
        await asyncio.get_running_loop().run_in_executor(None, end)  # a last run may go on

    def _finish_loading(self, key: Key, done: asyncio.Task[None]) -> None:
        del self._loading[key]
        if not done.cancelled():
            done.exception()  # whoever waits is told; perhaps nobody waits any more

    def _drain(self, key: Key, runner: ModelRunner) -> None:
        """Let a runner that gets no new requests finish and go, in a task of its own."""
        task = asyncio.get_running_loop().create_task(self._close(runner))
        self._draining[task] = key
        task.add_done_callback(self._draining.pop)

    async def _drained(self, key: Key) -> None:
        """Wait until nothing of a version drains; whoever waits may give up, the drain goes on."""
        tasks = [task for task, drained in self._draining.items() if drained == key]
        if tasks:
            await asyncio.wait(tasks)

    async def _take_out(self, key: Key) -> None:
        runner = self._runners.pop(key, None)
        if runner is not None:
            self._drain(key, runner)
        await self._drained(key)

    async def _evict(self, key: Key) -> None:
        logger.info("%s version %s makes room for another", *key)
        await self._take_out(key)  # its answers stay: it comes back when it is asked for

    def _is_busy(self, key: Key) -> bool:
        runner = self._runners.get(key)
        return runner is not None and not runner.is_idle

    async def _close(self, runner: ModelRunner) -> None:
        try:
            await runner.close(self._options.drain_s)
        except Exception:  # of a backend that cannot even be closed
            logger.exception("closing %s version %s failed", runner.model, runner.version)
        trim_heap()

    async def _open(self, source: ModelSource) -> None:
        async with self.residency.room_for(source):
            await self._open_in_room(source)

    async def _open_in_room(self, source: ModelSource) -> None:
        key = (source.model, source.version)
        await self._drained(key)  # a third copy would have to wait for the first to go
        ladder = await self._ladder(source)
        runner = ModelRunner(source.model, source.version, ladder, source.options, self._wall)
        try:
            await runner.warm_up()
        except BaseException:
            ladder.close()
            raise
        old = self._runners.get(key)
        self._runners[key] = runner
        logger.info("loaded %s version %s: %s", *key, ", ".join(r.name for r in ladder.rungs))
        if old is not None:
            runner.stats = old.stats  # the same version: its counters go on
            self._drain(key, old)

    async def _ladder(self, source: ModelSource) -> Ladder:
        """Open the version's rungs: the accelerator's, and the best that this processor can run.

        Raises what the first artifact failed with when nothing can be opened.
        """
        failures: list[PrimeSparkError] = []
        processor = await self._processor_rung(source, failures)
        rungs: list[Rung] = [] if processor is None else [processor]
        if (cuda := await self._cuda_rung(source, failures)) is not None:
            rungs.insert(0, cuda)
        signature = source.signature if processor is None else processor.backend.signature
        if self._accelerator is not None and signature is not None:
            try:
                backend = await self._accelerator.open(source, signature)
            except PrimeSparkError as error:
                failures.append(error)
            else:
                if backend is not None:
                    rungs.insert(0, AcceleratorRung(self._accelerator.name, backend))
        if rungs:
            is_damaged = any(isinstance(failure, Damaged) for failure in failures)
            problems = [failure.message for failure in failures]
            return Ladder(rungs, problems, is_damaged=is_damaged)
        if failures:
            raise failures[0]
        formats = ", ".join(sorted(variant.name for variant in source.variants))
        raise Unsupported(
            f"artifacts of format {formats or 'none'} cannot be run here",
            hint="this engine runs " + ", ".join(self._loaders),
        )

    async def _cuda_rung(
        self, source: ModelSource, failures: list[PrimeSparkError]
    ) -> ProcessorRung | None:
        """Open the fp32 artifact on a CUDA device where ONNX Runtime knows one."""
        variant = next((v for v in source.variants if v.format == "onnx"), None)
        if variant is None or not self._has_cuda:
            return None
        open_it = partial(_open_variant, load_onnx_on_cuda, variant, BackendOptions())
        try:
            backend = await asyncio.get_running_loop().run_in_executor(self._pool, open_it)
        except PrimeSparkError as error:
            failures.append(error)
            return None
        return ProcessorRung("cuda", backend, self._pool, self._threads)

    async def _processor_rung(
        self, source: ModelSource, failures: list[PrimeSparkError]
    ) -> ProcessorRung | None:
        """Open the first artifact that can be, in the order of the loaders; note the others."""
        loop = asyncio.get_running_loop()
        options = BackendOptions(intra_op_threads=source.options.intra_op_threads)
        for kind, loader in self._loaders.items():
            for variant in source.variants:
                if variant.format != kind:
                    continue
                open_it = partial(_open_variant, loader, variant, options)
                try:
                    backend = await loop.run_in_executor(self._pool, open_it)
                except PrimeSparkError as error:
                    failures.append(error)
                    continue
                return ProcessorRung(RUNG_NAMES.get(kind, kind), backend, self._pool, self._threads)
        return None


def _open_variant(loader: BackendLoader, variant: Variant, options: BackendOptions) -> Backend:
    variant.verify()
    return loader(variant.path, options)


def _load(runner: ModelRunner) -> LoadReport:
    ahead_s = runner.wait_s(time.monotonic())  # what the loop's clock shows, in finer steps
    return LoadReport(
        queued=runner.queued,
        running=runner.running,
        wait_s=ahead_s[-1],
        service_s=runner.service.lone(1),
        row_s=runner.service.row_s / runner.workers,
        busy=runner.busy_share(),
        idle_s=runner.idle_s,
        is_able=runner.ladder.best() is not None,
        ahead_s=ahead_s,
    )


def model_options(defaults: ModelOptions, overrides: Mapping[str, object]) -> ModelOptions:
    """Apply a model's own options to the defaults. Raises InvalidInput naming the option."""
    known = {f.name: f.type for f in fields(ModelOptions)}
    values: dict[str, Any] = {}
    for name, value in overrides.items():
        if name not in known:
            raise InvalidInput(
                f"unknown serving option '{name}'", field=name, hint="use " + ", ".join(known)
            )
        values[name] = _option(name, value, is_whole=known[name] == "int")
    merged = replace(defaults, **values)
    if merged.max_batch_size < 1 or merged.max_queue < 1 or merged.intra_op_threads < 1:
        raise InvalidInput("max_batch_size, max_queue and intra_op_threads must be 1 or more")
    return merged


def _option(name: str, value: object, *, is_whole: bool) -> float:
    if not isinstance(value, int | float) or isinstance(value, bool) or not 0 <= value < math.inf:
        raise InvalidInput(f"serving option '{name}' must be a number, 0 or more", field=name)
    if not is_whole:
        return float(value)
    if value != int(value):
        raise InvalidInput(f"serving option '{name}' must be a whole number", field=name)
    return int(value)
