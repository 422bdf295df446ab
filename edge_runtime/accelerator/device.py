"""The accelerator: a host process kept alive, and the models on it.

One task starts a host, gives it the models, watches it, and starts the next when it ends. The way
out of every failure is the same: what was under way is reported lost at once (and computed again
elsewhere), the host is killed, a new one gets fresh memory. Nothing of a failed run is ever read.
After a failure the new host serves only when it has been healthy for a while
(`policies.degradation`), shown by runs of zeros.

A failure is: the socket ends (the child died), a run fails with a status that is not about its
own request, or a run takes longer than its limit. A run's limit grows with what was sent before
it, and before it is declared hanging, what has come on the socket is read: a runtime that was
itself stopped for a while must not blame the device.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from edge_runtime.accelerator import wire
from edge_runtime.accelerator.explain import explain
from edge_runtime.accelerator.model import AcceleratorModel
from edge_runtime.accelerator.process import HostProcess, make_memory
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
    restart_after_s,
)

logger = logging.getLogger(__name__)

START_S: Final = 20.0  # a host that has said nothing by then is killed
LOAD_S: Final = 30.0
OPEN_S: Final = 2.0  # that loading a model waits for a device which is starting
PROBE_S: Final = 0.25  # between signs of health while it is on probation
IDLE_PROBE_S: Final = 1.0  # without a run, before one of zeros
LATE_S: Final = 0.05  # of the event loop itself: no judgement on the device then
# About the request, not the device (HailoRT: INVALID_ARGUMENT, INVALID_OPERATION, INVALID_FRAME,
# NOT_FOUND, QUEUE_IS_FULL).
REFUSALS: Final = frozenset({2, 6, 25, 61, 82})
BAD_ARTIFACT: Final = frozenset({2, 26, 91, 92, 93, 94})  # no restart makes it good
SYSTEM_PYTHON: Final = "/usr/bin/python3"


@dataclass(slots=True, eq=False)
class _Pending:
    """A run under way. is_abandoned: nobody waits for it, but its slot is the host's still."""

    model: AcceleratorModel
    slot: int
    future: asyncio.Future[None]
    sent_at: float
    due_at: float
    timer: asyncio.TimerHandle | None = None


@dataclass(slots=True, eq=False)
class Sensors:
    """What the device last said of itself; None: it has no such sensor."""

    temperature_c: float | None = None
    is_throttled: bool = False
    power_w: float | None = None
    at: float = -float("inf")


@dataclass(slots=True)
class Counts:
    """Since the process began, for metrics."""

    starts: int = 0
    faults: dict[str, int] = field(default_factory=dict)
    runs: int = 0
    lost: int = 0


class HailoAccelerator:
    """The Hailo device of this box. `start` it on the engine's event loop; `close` ends it.

    pythons: interpreters to try, the first that has the vendor's binding is kept; driver_path: a
    folder for the front of its search path.
    """

    name = "hailo"

    def __init__(self, pythons: Sequence[str], driver_path: str = "") -> None:
        self._pythons = list(pythons)
        self._driver_path = driver_path
        self._host: HostProcess | None = None
        self._models: dict[int, AcceleratorModel] = {}
        self._numbers = itertools.count(1)
        self._jobs = itertools.count(1)
        self._pending: dict[int, _Pending] = {}
        self._loading: dict[int, asyncio.Future[Mapping[str, Any]]] = {}
        self._hello: asyncio.Future[Mapping[str, Any]] | None = None
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
        self.counts = Counts()

    def start(self) -> None:
        """Begin to look for the device; returns at once."""
        self._keeper = asyncio.get_running_loop().create_task(self._keep())

    async def close(self) -> None:
        """End the host and its keeper."""
        if self._keeper is not None:
            self._keeper.cancel()
            await asyncio.gather(self._keeper, return_exceptions=True)

    @property
    def why(self) -> str:
        """Why the device takes nothing now; empty when it does."""
        if self._host is None or not self._host.is_running:
            return self._why
        if self._breaker.is_open:
            return f"on probation after: {self._fault}" if self._fault else self._why
        if self._heat.is_resting:
            return f"it is {self.sensors.temperature_c or 0:.0f} degrees hot and rests"
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
        for variant in variants:
            await asyncio.to_thread(variant.verify)
        model = AcceleratorModel(
            next(self._numbers),
            f"{source.model}:{source.version}",
            variants,
            signature,
            source.options.max_batch_size,
            self._submit,
            lambda: self.why,
            lambda: self._heat.is_careful,
            self._forget,
        )
        self._models[model.number] = model
        if self._settled.is_set() and self._host is not None and self._host.is_running:
            error = await self._load(model)
            if error is not None:
                del self._models[model.number]
                raise error
            return model
        model.detach("waits for the device")
        with contextlib.suppress(TimeoutError):  # the session that starts will load it
            async with asyncio.timeout(OPEN_S):
                await self._settled.wait()
        return model

    def _forget(self, model: AcceleratorModel) -> None:
        self._models.pop(model.number, None)
        if model.is_loaded and self._host is not None:
            with contextlib.suppress(OSError):
                self._host.send(wire.UNLOAD + wire.encode({"model": model.number}))

    # The life of hosts.

    async def _keep(self) -> None:
        failures = 0
        while True:
            served = await self._session()
            failures = 0 if served else failures + 1
            self._settled.set()
            await asyncio.sleep(restart_after_s(failures))

    async def _session(self) -> bool:
        """Live through one host; True when it had served."""
        loop = asyncio.get_running_loop()
        self._settled.clear()
        self._lost.clear()
        self._is_ending = self._has_served = False
        self._hello = loop.create_future()
        self.counts.starts += 1
        try:
            host = HostProcess([self._pythons[0]], self._driver_path, self._heard, self._host_ended)
        except OSError as error:
            self._unavailable(f"its host cannot be started: {error.strerror}")
            return False
        self._host = host
        try:
            if not await self._greet():
                return False
            tried: set[int] = set()
            while todo := [m for m in self._models.values() if m.number not in tried]:
                tried.add(todo[0].number)
                await self._load(todo[0])
            await self._look_after()
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
        hello = self._hello
        lost = asyncio.ensure_future(self._lost.wait())
        if hello is None:
            return False
        either: set[asyncio.Future[Any]] = {hello, lost}
        try:
            await asyncio.wait(either, timeout=START_S, return_when=asyncio.FIRST_COMPLETED)
        finally:
            lost.cancel()
        if not hello.done():
            hello.cancel()
            self._unavailable("its host ended or hung while it opened the device")
            return False
        told = hello.result()
        if "error" in told:
            if told.get("stage") == "import" and len(self._pythons) > 1:
                self._pythons.append(self._pythons.pop(0))  # another interpreter may have it
            self._unavailable(explain(told.get("status"), str(told["error"])))
            return False
        self.info = told
        return True

    async def _watch(self) -> None:
        """Look for signs of health until the host is lost."""
        while not self._lost.is_set():
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(PROBE_S):
                    await self._lost.wait()
            await self._look_after()

    async def _look_after(self) -> None:
        """Probe where nothing else tells of health, and let the device serve when it has lasted."""
        loop = asyncio.get_running_loop()
        if self._breaker.is_open or loop.time() - self._ran_at >= IDLE_PROBE_S:
            await self._probe()
        if self._lost.is_set():
            return
        self._breaker = is_healthy(self._breaker, loop.time())
        if not self._breaker.is_open and not self._has_served:
            logger.info("the accelerator serves%s", " again" if self._fault else "")
            self._has_served = True
            self._fault = ""

    async def _probe(self) -> None:
        model = next((m for m in self._models.values() if m.is_loaded), None)
        if model is not None:
            with contextlib.suppress(AcceleratorFault):
                await model.probe()

    async def _load(self, model: AcceleratorModel) -> PrimeSparkError | None:
        """Give a model to the host; return what is wrong with its artifact."""
        host = self._host
        variant = self._choose(model)
        if variant is None:
            targets = ", ".join(v.target for v in model.variants)
            error = Unsupported(
                f"{model.label} has a HEF for {targets}, and the device is a {self.architecture}"
            )
            model.detach(error.message)
            return error
        if host is None:
            return None
        descriptor, memory = make_memory(model.slots.size_bytes)
        loaded: asyncio.Future[Mapping[str, Any]] = asyncio.get_running_loop().create_future()
        self._loading[model.number] = loaded
        try:
            message = wire.load_message(model.number, str(variant.path), model.slots)
            host.send(message, [descriptor])
            async with asyncio.timeout(LOAD_S):
                answer = await loaded
        except (OSError, AcceleratorFault):
            model.detach("the host was lost while it loaded the model")
            return None
        except TimeoutError:
            self._fail("load", f"{model.label} was not loaded within {LOAD_S:.0f} s")
            return None
        finally:
            self._loading.pop(model.number, None)
            os.close(descriptor)
        if "error" not in answer:
            model.attach(memory)
            return None
        return self._not_loaded(model, variant, answer)

    def _not_loaded(
        self, model: AcceleratorModel, variant: Variant, answer: Mapping[str, Any]
    ) -> PrimeSparkError | None:
        status = answer.get("status")
        why = explain(status, str(answer["error"]))
        model.detach(why)
        logger.error("%s cannot be put on the accelerator: %s", model.label, why)
        if status in BAD_ARTIFACT:
            kind = Corrupt if status in (26, 91) else Unsupported
            return kind(f"{variant.path.name}: {why}")
        self._fail("load", why)
        return None

    def _choose(self, model: AcceleratorModel) -> Variant | None:
        exact = [v for v in model.variants if v.target and v.target == self.architecture]
        anywhere = [v for v in model.variants if not v.target or not self.architecture]
        return next(iter([*exact, *anywhere]), None)

    def _unavailable(self, why: str) -> None:
        if why != self._why:
            logger.warning("the accelerator cannot be used: %s", why)
        self._why = why
        self._breaker = fell(self._breaker, asyncio.get_running_loop().time())
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

    def _count(self, kind: str) -> None:
        self.counts.faults[kind] = self.counts.faults.get(kind, 0) + 1

    # What a host says.

    def _heard(self, kind: bytes, body: bytes) -> None:
        if kind == wire.DONE:
            job, status, _ = wire.DONE_BODY.unpack_from(body)
            self._done(job, status, body[wire.DONE_BODY.size :])
        elif kind == wire.SENSED:
            self._sensed(wire.decode(body))
        elif kind == wire.LOADED:
            answer = wire.decode(body)
            loading = self._loading.get(answer["model"])
            if loading is not None and not loading.done():
                loading.set_result(answer)
        elif kind == wire.HELLO and self._hello is not None and not self._hello.done():
            told = wire.decode(body)
            self._is_ending = "error" in told  # it has said why, and ends
            self._hello.set_result(told)

    def _host_ended(self) -> None:
        if not self._is_ending:
            self._count("died")
            self._why = self._fault = "its host died"
            logger.warning("the accelerator's host died")
        self._breaker = fell(self._breaker, asyncio.get_running_loop().time())
        for model in self._models.values():
            model.detach("waits for the device")
        lost = AcceleratorFault(self._why)
        for pending in self._pending.values():
            if pending.timer is not None:
                pending.timer.cancel()
            if not pending.future.done():
                self.counts.lost += 1
                pending.future.set_exception(lost)
        self._pending.clear()
        for loading in self._loading.values():
            if not loading.done():
                loading.set_exception(lost)
        self._lost.set()

    def _sensed(self, told: Mapping[str, Any]) -> None:
        temperature = told.get("temperature_c")
        self.sensors.temperature_c = None if temperature is None else float(temperature)
        self.sensors.is_throttled = int(told.get("throttling_level", -1)) >= 0
        power = told.get("power_w")
        self.sensors.power_w = None if power is None else float(power)
        self.sensors.at = asyncio.get_running_loop().time()
        before = self._heat
        self._heat = felt(
            before, self.sensors.temperature_c, is_throttled=self.sensors.is_throttled
        )
        if self._heat != before:
            logger.warning("the accelerator's heat: %s, %s", self.sensors, self._heat)

    # Runs.

    async def _submit(self, model: AcceleratorModel, slot: int, rows: int) -> None:
        """Run a filled slot. Raises AcceleratorFault when the run is lost or refused."""
        host = self._host
        if host is None or not host.is_running:
            raise AcceleratorFault(self._why)
        loop = asyncio.get_running_loop()
        now = loop.time()
        ahead_s = sum(pending.model.typical_s for pending in self._pending.values())
        limit_s = model.limit_s + ahead_s
        job = next(self._jobs)
        pending = _Pending(model, slot, loop.create_future(), now, now + limit_s)
        self._pending[job] = pending
        try:
            host.send(wire.RUN + wire.RUN_BODY.pack(job, model.number, slot, rows))
        except OSError:
            self._fail("stuck", "its host takes no more requests")
            raise AcceleratorFault(self._why) from None
        pending.timer = loop.call_at(now + 0.8 * limit_s, self._suspect, job)
        await pending.future

    def _done(self, job: int, status: int, text: bytes) -> None:
        pending = self._pending.pop(job, None)
        if pending is None:
            return
        if pending.timer is not None:
            pending.timer.cancel()
        now = asyncio.get_running_loop().time()
        if status == 0:
            self.counts.runs += 1
            self._ran_at = now
            pending.model.saw(now - pending.sent_at)
            if pending.future.done():  # whoever waited has given up
                pending.model.release(pending.slot)
            else:
                pending.future.set_result(None)
            return
        why = explain(status, text.decode("utf-8", "replace"))
        if status in REFUSALS:
            pending.model.release(pending.slot)
            if not pending.future.done():
                pending.future.set_exception(AcceleratorFault(why))
            return
        self._pending[job] = pending  # lost with the others
        self._fail(f"status {status}", why)

    def _suspect(self, job: int) -> None:
        """A run is about to take too long: see whether it has ended, else wait for the rest."""
        if self._host is not None:
            self._host.read()
        pending = self._pending.get(job)
        if pending is None:
            return
        loop = asyncio.get_running_loop()
        left_s = max(pending.due_at - loop.time(), LATE_S)
        when = loop.time() + left_s
        pending.timer = loop.call_at(when, self._hangs, job, when)

    def _hangs(self, job: int, expected_at: float) -> None:
        if self._host is not None:
            self._host.read()
        pending = self._pending.get(job)
        if pending is None:
            return
        loop = asyncio.get_running_loop()
        now = loop.time()
        if now - expected_at > LATE_S:  # this process was held up, and so perhaps was the host
            when = now + LATE_S
            pending.timer = loop.call_at(when, self._hangs, job, when)
            return
        waited_s = now - pending.sent_at
        self._fail("hang", f"a run of {pending.model.label} hangs since {waited_s:.2f} s")


def interpreters(configured: str) -> list[str]:
    """Return which interpreters to try: the one that is set, else the system's and our own."""
    if configured:
        return [configured]
    found = [SYSTEM_PYTHON] if Path(SYSTEM_PYTHON).exists() else []
    return [*found, *([sys.executable] if sys.executable not in found else [])]


def has_signs() -> bool:
    """Tell whether a device node of a Hailo is there."""
    return any(Path("/dev").glob("hailo[0-9]*")) or any(Path("/dev").glob("h1x-[0-9]*"))
