"""A second backing beside Serve's handle: replicas in this process that a test makes misbehave."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

import numpy as np

from edge_runtime.engine import Answered, LoadReport
from edge_runtime.errors import PrimeSparkError
from edge_runtime.protocol.types import InferRequest, Tensor
from serve_apps.gateway.targets import RemoteTarget
from serve_apps.wire import Call, ReplicaReport, Reply, decode_call, encode_answer, encode_error

KEY = ("m", "1")
IDLE = LoadReport(queued=0, running=0, wait_s=0.0, service_s=0.001)


class Clock:
    """The loop's clock, which a test may put forward."""

    def __init__(self) -> None:
        self._ahead_s = 0.0

    def __call__(self) -> float:
        return asyncio.get_running_loop().time() + self._ahead_s

    def advance(self, seconds: float) -> None:
        self._ahead_s += seconds


class Place:
    """Doubles what it is sent, while it is well.

    hang: calls and probes wait until `recover`; silence: the same, but probes say at once that
    they got no answer; fail: both raise; refuse: calls are answered with an error; sleep: no
    replica is left, until somebody has asked for one and `start` lets it come, with the report
    `comes`.
    """

    def __init__(self, replicas: int = 1, load: LoadReport = IDLE) -> None:
        self.load = load
        self.reports: Sequence[ReplicaReport] = [report(load)] * replicas
        self.calls: list[Call] = []
        self.probes = 0
        self.running = 0
        self.cancelled = 0
        self.fails_next = 0
        self.refusal: PrimeSparkError | None = None
        self.garbles = False
        self.wakes = 0
        self.fails_to_wake = 0
        self.comes = report(load)
        self._started = asyncio.Event()
        self._calls_go = asyncio.Event()
        self._calls_go.set()
        self._is_broken = False
        self._is_silent = False
        self._well = asyncio.Event()
        self._well.set()

    def hang(self) -> None:
        self._well.clear()

    def silence(self) -> None:
        self._is_silent = True
        self._well.clear()

    def fail(self) -> None:
        """The way to it fails, for what is under way too."""
        self._is_broken = True
        self._well.set()

    def refuse(self, error: PrimeSparkError) -> None:
        self.refusal = error

    def recover(self) -> None:
        self._is_broken = self._is_silent = False
        self._well.set()

    def sleep(self) -> None:
        self._started.clear()
        self.reports = []

    def start(self) -> None:
        self._started.set()

    async def wake(self) -> None:
        self.wakes += 1
        if self.fails_to_wake:
            self.fails_to_wake -= 1
            raise ConnectionError("nobody can be asked")
        await self._started.wait()
        await self._get_through()
        self.reports = [self.comes]

    def hold_calls(self) -> None:
        """Calls wait, while probes are answered."""
        self._calls_go.clear()

    def let_calls_go(self) -> None:
        self._calls_go.set()

    async def call(self, call: Call) -> Reply:
        self.calls.append(call)
        self.running += 1
        try:
            if self.fails_next:
                self.fails_next -= 1
                raise ConnectionError("a replica died")
            await self._get_through()
            await self._calls_go.wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        finally:
            self.running -= 1
        if self.refusal is not None:
            return encode_error(self.refusal, self.load, 0.0)
        (x,) = decode_call(call).inputs
        doubled = np.asarray(x.data, dtype=np.float32) * np.float32(2)
        found = Answered((Tensor("y", "FP32", doubled),), "cpu-fp32")
        reply = encode_answer(found, self.load, 0.0)
        return reply._replace(outputs=(reply.outputs[0][:2],)) if self.garbles else reply  # type: ignore[arg-type]

    async def probe(self) -> Sequence[ReplicaReport]:
        self.probes += 1
        if self._is_silent:
            raise TimeoutError
        await self._get_through()
        return self.reports

    async def _get_through(self) -> None:
        await asyncio.sleep(0)  # no way there is without any time
        await self._well.wait()
        if self._is_broken:
            raise ConnectionError("nobody is there")


def report(load: LoadReport | None = None) -> ReplicaReport:
    """Return a replica's report; without a load it has not loaded the model."""
    return ReplicaReport({} if load is None else {KEY: load}, {}, (), generation=1)


def remote(name: str, place: Place, clock: Clock, start_s: float | None = None) -> RemoteTarget:
    """Return a target over a place: `cloud` at the site dc, `edge/...` at the site behind it."""
    tier, _, site = name.partition("/")
    return RemoteTarget(name, tier, site or "dc", place, clock, start_s=start_s)


def request() -> InferRequest:
    x = np.array([[1.0, 2.0]], dtype=np.float32)
    return InferRequest("m", None, (Tensor("x", "FP32", x),), id="r1")


def later(seconds: float = 60.0) -> float:
    return asyncio.get_running_loop().time() + seconds


async def until(condition: Callable[[], bool]) -> None:
    """Wait for a condition; the test's own time limit ends a wait in vain."""
    while not condition():  # noqa: ASYNC110 (what is waited for tells nobody)
        await asyncio.sleep(0.001)
