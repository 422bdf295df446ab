"""The accelerator: a host process kept alive, and the models on it.

One task starts a host, gives it the models, watches it, and starts the next when it ends. The way
out of every failure is the same: what was under way is reported lost at once (and computed again
elsewhere), the host is killed, a new one gets fresh memory. Nothing of a failed run is ever read.
After a failure the new host serves only when it has been healthy for a while
(`policies.degradation`), shown by runs of zeros.

A failure is: the socket ends (the child died) or says what makes no sense, a run fails with a
status that is not about its own request, a model cannot be put on the device for a reason that is
not in its artifact, or a run hangs (`runs`). A model that fails so again and again while there are
others is set aside for a time, so that it does not take the device from them.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import math
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import inf
from pathlib import Path
from typing import Any, Final

from edge_runtime.accelerator import wire
from edge_runtime.accelerator.explain import explain
from edge_runtime.accelerator.model import AcceleratorModel, Slot
from edge_runtime.accelerator.process import Host, HostProcess, StartHost, make_memory
from edge_runtime.accelerator.runs import Counts, Runs
from edge_runtime.backends.base import AcceleratorFault
from edge_runtime.engine.source import ModelSource, Variant
from edge_runtime.errors import Corrupt, PrimeSparkError, Unsupported
from edge_runtime.protocol.types import Signature
from policies.degradation import (
    Breaker,
    Heat,
    fell,
    felt,
    is_healthy,
    is_in_pace,
    restart_after_s,
    set_aside_s,
)
from policies.eviction import Resident, victims

logger = logging.getLogger(__name__)

START_S: Final = 20.0  # a host that has said nothing by then is killed
LOAD_S: Final = 30.0
TAKE_IN_S: Final = 0.25  # that requests wait while another model is put on the device
OPEN_S: Final = 2.0  # that loading a model waits for a device which is starting
END_S: Final = 5.0  # that closing waits for a killed host, which may be stuck in the driver
PROBE_S: Final = 0.25  # between signs of health while it is on probation
IDLE_PROBE_S: Final = 1.0  # without a run, before one of zeros
MEMORY_RETRY_S: Final = 5.0
IN_USE_S: Final = 10.0  # since it was asked for; a model in use is not taken off for another
# About the request, not the device (HailoRT: INVALID_ARGUMENT, INVALID_OPERATION, INVALID_FRAME,
# NOT_FOUND, QUEUE_IS_FULL).
REFUSALS: Final = frozenset({2, 6, 25, 61, 82})
BAD_ARTIFACT: Final = frozenset({2, 26, 91, 92, 93, 94})  # no restart makes it good
DAMAGED: Final = frozenset({26, 91})
SYSTEM_PYTHON: Final = "/usr/bin/python3"


@dataclass(slots=True, eq=False)
class Sensors:
    """What the device last said of itself; None: it has no such sensor."""

    temperature_c: float | None = None
    is_throttled: bool = False
    power_w: float | None = None
    at: float = -float("inf")


class HailoAccelerator:
    """The Hailo device of this box. `start` it on the engine's event loop; `close` ends it.

    pythons: interpreters to try, the first that has the vendor's binding is kept; driver_path: a
    folder for the front of its search path; max_models: on the device at once, 0 for any number.
    With more, those asked for least recently leave it to others and are computed on the processor.
    """

    name = "hailo"

    def __init__(
        self,
        pythons: Sequence[str],
        driver_path: str = "",
        start_host: StartHost = HostProcess,
        max_models: int = 0,
    ) -> None:
        self._pythons = list(pythons)
        self._driver_path = driver_path
        self._start_host = start_host
        self._max_models = max_models
        self._host: Host | None = None
        self._models: dict[int, AcceleratorModel] = {}
        self._numbers = itertools.count(1)
        self._loop: asyncio.AbstractEventLoop
        self._hello: asyncio.Future[Mapping[str, Any]]
        self._loading: dict[int, asyncio.Future[Mapping[str, Any]]] = {}
        self._loading_since = 0.0
        self._loaded_at = -inf
        self._runs = Runs(self._send, self._read, self._hangs, self._held_until, Counts())
        self._lost = asyncio.Event()
        self._settled = asyncio.Event()
        self._breaker = Breaker()
        self._heat = Heat()
        self._keeper: asyncio.Task[None] | None = None
        self._why = "starting"
        self._fault = ""
        self._is_ending = False
        self._has_served = False
        self._ran_at = -float("inf")
        self.info: Mapping[str, Any] = {}
        self.sensors = Sensors()

    @property
    def counts(self) -> Counts:
        return self._runs.counts

    def start(self) -> None:
        """Begin to look for the device; returns at once."""
        self._loop = asyncio.get_running_loop()
        self._keeper = self._loop.create_task(self._keep())

    async def close(self) -> None:
        """End the host and its keeper."""
        if self._keeper is not None:
            self._keeper.cancel()
            await asyncio.gather(self._keeper, return_exceptions=True)
        if self._host is not None:  # the keeper was ended while it waited for this
            try:
                async with asyncio.timeout(END_S):
                    await self._host.reap()
            except TimeoutError:
                logger.error("the accelerator's host %d does not end", self._host.pid)
        self._host = None
        self._why = "closed"
        self._settled.set()

    @property
    def why(self) -> str:
        """Why the device takes nothing now; empty when it does."""
        if self._host is None or not self._host.is_running:
            return self._why
        if self._breaker.is_open:
            return f"on probation after: {self._fault}" if self._fault else self._why
        if self._heat.is_resting:
            return f"it is {self.sensors.temperature_c or 0:.0f} degrees hot and rests"
        if self._loading and self._loop.time() - self._loading_since > TAKE_IN_S:
            return "it takes in another model"
        return ""

    @property
    def host_pid(self) -> int | None:
        """The child's process id while one runs."""
        return self._host.pid if self._host is not None and self._host.is_running else None

    @property
    def architecture(self) -> str:
        return str(self.info.get("architecture", ""))

    async def open(self, source: ModelSource, signature: Signature) -> AcceleratorModel | None:
        """Put a version on the device; None when it has no HEF. See `engine.Accelerator`."""
        variants = [variant for variant in source.variants if variant.format == "hef"]
        if not variants:
            return None
        model = AcceleratorModel(
            next(self._numbers),
            f"{source.model}:{source.version}",
            await _sound(variants),
            signature,
            source.options.max_batch_size,
            self._run,
            lambda: self.why,
            lambda: self._heat.is_careful,
            self._forget,
            asked_at=asyncio.get_running_loop().time(),
            is_pinned=bool(source.options.pinned),
        )
        self._models[model.number] = model
        try:
            await self._put_on(model)
        except BaseException:
            model.close()
            raise
        return model

    async def _put_on(self, model: AcceleratorModel) -> None:
        """Give a new model to the device, or leave it to the session that starts.

        Raises what is wrong with its artifact.
        """
        if self._settled.is_set() and self._host is not None and self._host.is_running:
            error = await self._load(model)
            if error is not None:
                raise error
            return
        model.detach("waits for the device")
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(OPEN_S):
                await self._settled.wait()

    def _make_room(self, model: AcceleratorModel) -> bool:
        """Take others off the device where it holds as many as it may; False when they stay.

        Those asked for within a few seconds stay: models that are in use would only take turns at
        being loaded. A pinned model has precedence over those that are not.
        """
        others = [
            other
            for other in self._models.values()
            if other is not model and (other.is_loaded or other.number in self._loading)
        ]
        recently = inf if model.is_pinned else model.asked_at - IN_USE_S
        residents = [
            Resident(
                str(other.number),
                1,
                other.asked_at,
                is_pinned=other.is_pinned or not other.is_loaded,
                is_busy=other.is_busy or other.asked_at > recently,
            )
            for other in others
        ]
        leaving = victims(residents, 1, self._max_models)
        if leaving is None:
            return False
        for other in others:
            if str(other.number) in leaving:
                logger.info("%s makes room on the accelerator for %s", other.label, model.label)
                other.detach(self._full)
                self._send(wire.UNLOAD + wire.encode({"model": other.number}))
        return True

    @property
    def _full(self) -> str:
        """Why a model is not on it that has no fault."""
        return f"it holds {self._max_models} other models, as many as edge.accelerator.max_models"

    def _forget(self, model: AcceleratorModel) -> None:
        if self._models.pop(model.number, None) is not None:
            with contextlib.suppress(AcceleratorFault):  # then it is off with the host
                self._send(wire.UNLOAD + wire.encode({"model": model.number}))

    # The life of hosts.

    async def _keep(self) -> None:
        failures = 0
        while True:
            served = False
            try:
                served = await self._session()
            except Exception:
                logger.exception("keeping the accelerator's host failed")
                self._count("keeper")
            failures = 0 if served else failures + 1
            self._settled.set()
            await asyncio.sleep(restart_after_s(failures))

    async def _session(self) -> bool:
        """Live through one host; True when it had served."""
        self._settled.clear()
        self._lost.clear()
        self._is_ending = self._has_served = False
        self._hello = self._loop.create_future()
        self.counts.starts += 1
        try:
            host = self._start_host(
                self._pythons[0], self._driver_path, self._heard, self._host_ended
            )
        except OSError as error:
            self._try_another_python()
            self._unavailable(f"its host cannot be started: {error.strerror}")
            return False
        self._host = host
        try:
            if await self._greet():
                await self._put_models_on()
                self._settled.set()
                await self._watch()
        finally:
            self._is_ending = True
            host.kill()
            await host.reap()
            self._host = None
        return self._has_served

    async def _greet(self) -> bool:
        """Wait for the host to say what it has."""
        try:
            async with asyncio.timeout(START_S):
                told = await self._hello
        except TimeoutError:
            self._unavailable("its host hung while it opened the device")
            return False
        except AcceleratorFault:
            if not self.info:  # the binding may crash this interpreter
                self._try_another_python()
            self._unavailable("its host ended while it opened the device")
            return False
        if "error" in told:
            if told.get("stage") == "import":
                self._try_another_python()
            self._unavailable(explain(told.get("status"), str(told["error"])))
            return False
        self.info = told
        return True

    def _try_another_python(self) -> None:
        self._pythons.append(self._pythons.pop(0))

    async def _put_models_on(self) -> None:
        """Load every model, and look whether the device is well; others may come meanwhile."""
        tried: set[int] = set()
        is_well = False
        while not self._lost.is_set():
            todo = [m for m in self._models.values() if self._is_due(m) and m.number not in tried]
            if todo:
                # First those that spoil nothing, then those in use: there may not be room for all.
                model = min(todo, key=lambda m: (m.failed_loads, not m.is_pinned, -m.asked_at))
                tried.add(model.number)
                await self._load(model)
                is_well = False
            elif not is_well:
                await self._look_after()
                is_well = True
            else:
                return

    def _is_due(self, model: AcceleratorModel) -> bool:
        is_aside = model.retry_at is not None and model.retry_at > self._loop.time()
        return not is_aside or len(self._models) == 1

    async def _watch(self) -> None:
        """Look for signs of health until the host is lost."""
        while not self._lost.is_set():
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(PROBE_S):
                    await self._lost.wait()
            for model in list(self._models.values()):
                if self._may_return(model):
                    await self._load(model)
            await self._look_after()

    def _may_return(self, model: AcceleratorModel) -> bool:
        """Tell whether to load a model that is not on the device, while others are."""
        if model.is_loaded or model.number in self._loading:
            return False
        if model.retry_at is not None:
            return model.retry_at <= self._loop.time()
        return model.why == self._full and self._loop.time() - model.asked_at < IN_USE_S

    async def _look_after(self) -> None:
        """Probe where nothing else tells of health, and let the device serve when it has lasted."""
        in_pace = True
        if self._breaker.is_open or self._loop.time() - self._ran_at >= IDLE_PROBE_S:
            in_pace = await self._probe()
        if self._lost.is_set():
            return
        self._breaker = is_healthy(self._breaker, self._loop.time(), in_pace=in_pace)
        if not self._breaker.is_open and not self._has_served:
            logger.info("the accelerator serves%s", " again" if self._fault else "")
            self._has_served = True
            self._fault = ""

    async def _probe(self) -> bool:
        """Run zeros; False when that took much longer than such a run does, or was refused."""
        model = next((m for m in self._models.values() if m.is_loaded), None)
        if model is None:
            return True
        usual_s = model.times.usual_s(1)
        try:
            return is_in_pace(await model.probe(), usual_s)
        except AcceleratorFault:
            return False

    # Models on it.

    async def _load(self, model: AcceleratorModel) -> PrimeSparkError | None:
        """Give a model to the host; return what is wrong with its artifact."""
        if self.host_pid is None:
            return None
        try:
            if not self._make_room(model):
                model.detach(self._full)
                return None
        except AcceleratorFault:
            return None
        model.retry_at = None
        variant = self._choose(model)
        if variant is None:
            targets = ", ".join(v.target for v in model.variants)
            error = Unsupported(
                f"{model.label} has a HEF for {targets}, and the device is a {self.architecture}"
            )
            model.detach(error.message)
            return error
        try:
            answer, memory = await self._hand_over(model, variant)
        except AcceleratorFault:
            self._could_not_load(model, "the host was lost while it loaded the model")
            return None
        except OSError as error:
            model.detach(f"there is no memory for its tensors: {error.strerror}")
            model.retry_at = self._loop.time() + MEMORY_RETRY_S
            return None
        if model.number not in self._models:  # closed meanwhile, and taken off behind this
            return None
        if "error" in answer:
            return self._not_loaded(model, variant, answer)
        model.attach(memory)
        return None

    async def _hand_over(
        self, model: AcceleratorModel, variant: Variant
    ) -> tuple[Mapping[str, Any], Any]:
        """Send a model with fresh memory; return the answer, and the memory mapped here."""
        descriptor, memory = make_memory(model.slots.size_bytes)
        try:
            self._send(
                wire.load_message(model.number, str(variant.path), model.slots), [descriptor]
            )
        finally:
            os.close(descriptor)
        if not self._loading:
            self._loading_since = self._loop.time()
        self._loading[model.number] = loaded = self._loop.create_future()
        try:
            async with asyncio.timeout(LOAD_S):
                return await loaded, memory
        except TimeoutError:
            self._fail("load", f"{model.label} was not loaded within {LOAD_S:.0f} s")
            raise AcceleratorFault(self._why) from None
        finally:
            del self._loading[model.number]
            self._loaded_at = self._loop.time()

    def _not_loaded(
        self, model: AcceleratorModel, variant: Variant, answer: Mapping[str, Any]
    ) -> PrimeSparkError | None:
        status = answer.get("status")
        status = status if isinstance(status, int) else None
        why = explain(status, str(answer["error"]))
        logger.error("%s cannot be put on the accelerator: %s", model.label, why)
        if status in BAD_ARTIFACT:
            model.detach(why)
            kind = Corrupt if status in DAMAGED else Unsupported
            return kind(f"{variant.path.name}: {why}")
        if not self._could_not_load(model, why):
            self._fail("load", why)
        return None

    def _could_not_load(self, model: AcceleratorModel, why: str) -> bool:
        """Note that it failed; True when it is set aside, because the device is there for others.

        The host may be ended otherwise: a new one may take the model.
        """
        model.detach(why)
        model.failed_loads += 1
        pause_s = set_aside_s(model.failed_loads) if len(self._models) > 1 else 0.0
        if not pause_s:
            return False
        logger.error("%s is set aside for %.0f s: %s", model.label, pause_s, why)
        model.retry_at = self._loop.time() + pause_s
        return any(other.is_loaded for other in self._models.values())

    def _choose(self, model: AcceleratorModel) -> Variant | None:
        exact = [v for v in model.variants if v.target and v.target == self.architecture]
        anywhere = [v for v in model.variants if not v.target or not self.architecture]
        return next(iter([*exact, *anywhere]), None)

    def _held_until(self) -> float:
        """Return when the host has last taken in a model; inf while it does."""
        return inf if self._loading else self._loaded_at

    # Failures.

    def _unavailable(self, why: str) -> None:
        if why != self._why:
            logger.warning("the accelerator cannot be used: %s", why)
        self._why = why
        self._breaker = fell(self._breaker, self._loop.time())
        for model in self._models.values():
            model.detach("waits for the device")

    def _fail(self, kind: str, why: str) -> None:
        """The device failed: everything under way is lost, the host is ended."""
        if self._host is None or not self._host.is_running:
            return
        logger.warning("the accelerator failed: %s", why)
        self._count(kind)
        self._why = self._fault = why
        self._is_ending = True
        self._host.kill()

    def _hangs(self, why: str) -> None:
        self._fail("hang", why)

    def _count(self, kind: str) -> None:
        self.counts.faults[kind] = self.counts.faults.get(kind, 0) + 1

    def _host_ended(self) -> None:
        if not self._is_ending:
            self._count("died")
            if self._hello.done():
                self._why = self._fault = "its host died"
                logger.warning("the accelerator's host died")
        self._breaker = fell(self._breaker, self._loop.time())
        for model in self._models.values():
            model.detach("waits for the device")
        self._runs.lose(self._why)
        for waited in (self._hello, *self._loading.values()):
            if not waited.done():
                waited.set_exception(AcceleratorFault(self._why))
        self._lost.set()

    # Talking to the host.

    async def _run(self, model: AcceleratorModel, slot: Slot, rows: int) -> float:
        return await self._runs.run(model, slot, rows)

    def _send(self, message: bytes, fds: Sequence[int] = ()) -> None:
        """Tell the host something. Raises AcceleratorFault when it has gone, or is ended for it."""
        if self._host is None:
            raise AcceleratorFault(self._why)
        try:
            self._host.send(message, fds)
        except OSError:
            self._host.read()  # it may have died and that is all
            self._fail("stuck", "its host takes no more requests")
            raise AcceleratorFault(self._why) from None

    def _read(self) -> None:
        if self._host is not None:
            self._host.read()

    def _heard(self, kind: bytes, body: bytes) -> None:
        try:
            self._take_in(kind, body)
        except Exception as error:  # whatever bytes come, this process goes on
            logger.debug("from the accelerator's host", exc_info=True)
            self._fail("garbled", f"its host makes no sense: {type(error).__name__}: {error}")

    def _take_in(self, kind: bytes, body: bytes) -> None:
        if kind == wire.DONE:
            job, status, taken_ns = wire.DONE_BODY.unpack_from(body)
            self._done(job, status, taken_ns, body[wire.DONE_BODY.size :])
            return
        told = wire.decode(body)
        if not isinstance(told, dict):
            raise TypeError(f"{type(told).__name__} instead of a document")
        if kind == wire.SENSED:
            self._sensed(told)
        elif kind == wire.LOADED:
            loading = self._loading.get(told["model"])
            if loading is not None and not loading.done():
                loading.set_result(told)
        elif kind == wire.HELLO:
            if not self._hello.done():
                self._is_ending = "error" in told  # it has said why, and ends
                self._hello.set_result(told)
        else:
            raise ValueError(f"a message of kind {kind!r}")

    def _done(self, job: int, status: int, taken_ns: int, text: bytes) -> None:
        model = self._runs.model_of(job)
        if model is None:
            return
        if status == 0:
            self._ran_at = self._loop.time()
            self._runs.succeeded(job, taken_ns)
            return
        why = explain(status, text.decode("utf-8", "replace"))
        if status in REFUSALS or model.number not in self._models:  # unloading aborts its runs
            self._runs.refused(job, why)
        else:
            self._fail(f"status {status}", why)

    def _sensed(self, told: Mapping[str, Any]) -> None:
        sensors = Sensors(
            _number(told.get("temperature_c")),
            int(told.get("throttling_level", -1)) >= 0,
            _number(told.get("power_w")),
            self._loop.time(),
        )
        heat = felt(self._heat, sensors.temperature_c, is_throttled=sensors.is_throttled)
        if heat != self._heat:
            logger.warning("the accelerator's heat: %s, %s", sensors, heat)
        self.sensors, self._heat = sensors, heat


async def _sound(variants: Sequence[Variant]) -> list[Variant]:
    """Return those whose files are what was installed. Raises Corrupt when none is."""
    found: list[Variant] = []
    errors: list[Corrupt] = []
    for variant in variants:
        try:
            await asyncio.to_thread(variant.verify)
        except Corrupt as error:
            logger.error("%s", error)
            errors.append(error)
        else:
            found.append(variant)
    if not found:
        raise errors[0]
    return found


def _number(value: Any) -> float | None:
    return None if value is None or not math.isfinite(value) else float(value)


def interpreters(configured: str) -> list[str]:
    """Return which interpreters to try: the one that is set, else the system's and our own."""
    if configured:
        return [configured]
    found = [SYSTEM_PYTHON] if Path(SYSTEM_PYTHON).exists() else []
    return [*found, *([sys.executable] if sys.executable not in found else [])]


def has_signs() -> bool:
    """Tell whether a device node of a Hailo is there."""
    return any(Path("/dev").glob("hailo[0-9]*")) or any(Path("/dev").glob("h1x-[0-9]*"))
