"""A host that is no process, and does at each moment what a test tells it; for a virtual loop.

It computes y = 2 x + 1 in the very memory that it is given. Like a real one it takes one message
after the other, so a model that takes long to load keeps everybody waiting; whatever fails leaves
noise in the outputs, and so do runs under way when a host is killed: late, into memory it has.
"""

from __future__ import annotations

import asyncio
import mmap
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from edge_runtime.accelerator import wire
from edge_runtime.accelerator.process import Ended, Heard

NOISE = -77.0


@dataclass
class Plan:
    """What the device and its hosts do from now on.

    run: what happens to the next run, once: "die", "hang", "twice", "unknown", or a status;
    load: what happens to the next loads, each once: "die", "hang", or a status; by_model: to
    every load of a model. after_done: called once, in the loop's turn in which a run has ended.
    """

    is_present: bool = True
    cannot_start: bool = False
    hello: str = ""  # "import", "open", "die", "mute", or nothing special
    hello_s: float = 0.1
    load_s: float = 0.05
    row_s: float = 0.001
    temperature_c: float | None = 40.0
    is_full: bool = False
    run: list[str | int] = field(default_factory=list)
    load: list[str | int] = field(default_factory=list)
    by_model: dict[int, str | int] = field(default_factory=dict)
    after_done: Callable[[], object] | None = None


class StandIn:
    """The device; `start` is what an accelerator starts hosts with."""

    def __init__(self) -> None:
        self.plan = Plan()
        self.hosts: list[StandInHost] = []
        self.pythons: list[str] = []

    def start(self, python: str, driver_path: str, heard: Heard, ended: Ended) -> StandInHost:
        self.pythons.append(python)
        if self.plan.cannot_start:
            raise FileNotFoundError(2, "No such file or directory")
        host = StandInHost(len(self.hosts) + 1, self.plan, heard, ended)
        self.hosts.append(host)
        return host

    @property
    def running(self) -> list[StandInHost]:
        return [host for host in self.hosts if host.is_running]

    @property
    def host(self) -> StandInHost:
        (host,) = self.running
        return host


class StandInHost:
    def __init__(self, pid: int, plan: Plan, heard: Heard, ended: Ended) -> None:
        self.pid = pid
        self.plan = plan
        self.is_running = True
        self.is_stopped = False
        self.is_reaped = False
        self.reads = 0
        self.networks: dict[int, tuple[wire.Slots, mmap.mmap]] = {}
        self.loads: list[int] = []
        self.unloads: list[int] = []
        self.ran: list[tuple[int, int]] = []
        self._under_way: set[tuple[int, int]] = set()
        self._heard = heard
        self._ended = ended
        self._loop = asyncio.get_running_loop()
        self._inbox: asyncio.Queue[tuple[bytes, bytes, int]] = asyncio.Queue()
        self._worker = self._loop.create_task(self._work())

    def send(self, message: bytes, fds: Sequence[int] = ()) -> None:
        if not self.is_running:
            raise BrokenPipeError
        if self.plan.is_full:
            raise BlockingIOError
        fd = os.dup(fds[0]) if fds else -1
        self._inbox.put_nowait((message[:1], message[1:], fd))

    def read(self) -> None:
        self.reads += 1

    def kill(self) -> None:
        if not self.is_running:
            return
        self.is_running = False
        self._worker.cancel()
        for model, slot in self._under_way:  # the device writes on
            slots, memory = self.networks[model]
            slots.views(memory, slot)[1][0][:] = NOISE
        while not self._inbox.empty():
            _, _, fd = self._inbox.get_nowait()
            if fd >= 0:
                os.close(fd)
        self._ended()

    async def reap(self) -> None:
        assert not self.is_running
        await asyncio.sleep(0.002)
        self.is_reaped = True

    def say(self, message: bytes) -> None:
        """Send anything to the runtime."""
        if self.is_running:
            self._heard(message[:1], message[1:])

    def sense(self) -> None:
        """Report the temperature, now and every second."""
        if self.is_running:
            self.say(wire.SENSED + wire.encode({"temperature_c": self.plan.temperature_c}))
            self._loop.call_later(1.0, self.sense)

    async def _work(self) -> None:
        await self._greet()
        while True:
            kind, body, fd = await self._inbox.get()
            while self.is_stopped:  # noqa: ASYNC110 (what stops it tells nobody)
                await asyncio.sleep(0.01)
            if kind == wire.LOAD:
                await self._load(wire.decode(body), fd)
            elif kind == wire.UNLOAD:
                number = wire.decode(body)["model"]
                self.unloads.append(number)
                self.networks.pop(number, None)
                self._under_way = {(m, slot) for m, slot in self._under_way if m != number}
            else:
                self._run(*wire.RUN_BODY.unpack(body))

    async def _greet(self) -> None:
        await asyncio.sleep(self.plan.hello_s)
        if self.plan.hello == "mute":
            await asyncio.Event().wait()
        if self.plan.hello == "die":
            self._die()
        told: dict[str, Any] = {"architecture": "hailo8"}
        if self.plan.hello == "import":
            told = {"error": "ImportError: no binding", "stage": "import"}
        elif self.plan.hello == "open" or not self.plan.is_present:
            told = {"error": "no device", "status": 74, "stage": "open"}
        self.say(wire.HELLO + wire.encode(told))
        if "error" in told:
            self._die()
        self.sense()

    async def _load(self, document: dict[str, Any], fd: int) -> None:
        number = document["model"]
        self.loads.append(number)
        try:
            slots = wire.read_slots(document)
            memory = mmap.mmap(fd, slots.size_bytes)
        finally:
            os.close(fd)
        await asyncio.sleep(self.plan.load_s)
        what = self.plan.by_model.get(number) or (self.plan.load.pop(0) if self.plan.load else "")
        if what == "die":
            self._die()
        if what == "hang":
            await asyncio.Event().wait()
        answer: dict[str, Any] = {"model": number}
        if isinstance(what, int):
            answer.update(error="refused", status=what)
        else:
            self.networks[number] = slots, memory
        self.say(wire.LOADED + wire.encode(answer))

    def _run(self, job: int, model: int, slot: int, rows: int) -> None:
        self.ran.append((model, rows))
        if model not in self.networks:
            self.done(job, -1, "KeyError")
            return
        assert (model, slot) not in self._under_way, "a slot is used twice"
        self._under_way.add((model, slot))
        self._loop.call_later(self.plan.row_s * rows, self._finish, job, model, slot, rows)

    def _finish(self, job: int, model: int, slot: int, rows: int) -> None:
        if not self.is_running:
            return
        self._under_way.discard((model, slot))
        if model not in self.networks:  # unloading aborts what is under way
            self.done(job, 63, "stream aborted")
            return
        slots, memory = self.networks[model]
        (x,), (y,) = slots.views(memory, slot)
        what = self.plan.run.pop(0) if self.plan.run else ""
        if not self.plan.is_present:
            what = 62
        if what == "die":
            self.die()
        elif what == "hang":
            self._under_way.add((model, slot))
        else:
            y[:] = NOISE
            if not isinstance(what, int):
                y[:rows] = 2 * x[:rows] + 1
            taken_ns = int(self.plan.row_s * rows * 1e9)
            if what == "unknown":
                self.done(job + 1000, 0)
            self.done(job, what if isinstance(what, int) else 0, taken_ns=taken_ns)
            if what == "twice":
                self.done(job, 0)

    def done(self, job: int, status: int, text: str = "", taken_ns: int = 0) -> None:
        self.say(wire.DONE + wire.DONE_BODY.pack(job, status, taken_ns) + text.encode())
        then, self.plan.after_done = self.plan.after_done, None
        if then is not None:
            then()

    def die(self) -> None:
        """End as a process does, without being told to."""
        self.kill()

    def _die(self) -> None:
        """The same from within its own work."""
        self._loop.call_soon(self.kill)
        raise asyncio.CancelledError
