"""The load generator, a process of its own: a job in (JSON on stdin), a measurement out.

Closed loop: each of N clients sends its next request when its answer has come. HTTP goes over
`load.http1`; gRPC over `grpc.aio` with bytes that were serialised once; "onnx" calls
onnxruntime in this process, which is the floor of every server.
"""

from __future__ import annotations

import asyncio
import gc
import json
import resource
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path

from load.bench.stats import percentile
from load.http1 import Response, connect

PERCENTILES = (1, 5, 25, 50, 75, 90, 95, 99, 99.9)
GRPC_METHOD = "/inference.GRPCInferenceService/ModelInfer"
CONNECT_S = 10.0


@dataclass(frozen=True, slots=True)
class Job:
    """What to measure. request: file with the request's bytes (for "onnx": the input, .npy)."""

    protocol: str
    host: str
    port: int
    request: str
    clients: int
    warm_s: float
    measure_s: float
    metadata: tuple[tuple[str, str], ...] = ()
    artifact: str = ""


@dataclass(frozen=True, slots=True)
class Measured:
    """What was seen. latency_ms: by percentile; client_cpu_share: of one core."""

    answers: int
    failures: int
    seconds: float
    per_s: float
    latency_ms: dict[str, float]
    mean_ms: float
    client_cpu_share: float
    first_failure: str = ""


@dataclass(slots=True)
class _Recorder:
    """Collects what completes inside the window."""

    opens: float
    closes: float
    taken_s: list[float] = field(default_factory=list)
    failures: int = 0
    first_failure: str = ""
    cpu_at_opening_s: float | None = None

    def add(self, began: float, ended: float, failure: str | None) -> bool:
        """Record one request; False when the window has closed."""
        if ended >= self.opens:
            if self.cpu_at_opening_s is None:
                self.cpu_at_opening_s = _cpu_s()
            if ended < self.closes:
                if failure is None:
                    self.taken_s.append(ended - began)
                else:
                    self.failures += 1
                    self.first_failure = self.first_failure or failure
        return ended < self.closes

    def result(self) -> Measured:
        seconds = self.closes - self.opens
        used_s = _cpu_s() - (self.cpu_at_opening_s or 0.0)
        ordered = sorted(self.taken_s)
        if not ordered:
            why = self.first_failure or "no answer within the window"
            return Measured(0, self.failures, seconds, 0.0, {}, 0.0, used_s / seconds, why)
        return Measured(
            answers=len(ordered),
            failures=self.failures,
            seconds=seconds,
            per_s=len(ordered) / seconds,
            latency_ms={f"p{p:g}": percentile(ordered, p / 100) * 1e3 for p in PERCENTILES},
            mean_ms=sum(ordered) / len(ordered) * 1e3,
            client_cpu_share=used_s / seconds,
            first_failure=self.first_failure,
        )


def main() -> int:
    """Read a job, run it, print what was measured."""
    document = json.load(sys.stdin)
    document["metadata"] = tuple((name, value) for name, value in document["metadata"])
    json.dump(asdict(run(Job(**document))), sys.stdout)
    return 0


def run(job: Job) -> Measured:
    """Measure in this process."""
    gc.disable()  # a pause of the client is not the server's
    match job.protocol:
        case "http":
            return asyncio.run(_http(job, Path(job.request).read_bytes()))
        case "grpc":
            return asyncio.run(_grpc(job, Path(job.request).read_bytes()))
        case "onnx":
            return _onnx(job)
        case _:
            raise ValueError(f"unknown protocol '{job.protocol}'")


async def _http(job: Job, request: bytes) -> Measured:
    connections = [await connect(job.host, job.port) for _ in range(job.clients)]
    recorder = _window(job)
    loop = asyncio.get_running_loop()
    ends = [loop.create_future() for _ in connections]
    for connection, end in zip(connections, ends, strict=True):
        _Loop(connection.exchange, request, recorder, end).send()
    await asyncio.gather(*ends)
    for connection in connections:
        connection.close()
    return recorder.result()


class _Loop:
    """One client: sends until the window closes or its connection is lost."""

    __slots__ = ("_began", "_end", "_exchange", "_recorder", "_request")

    def __init__(
        self,
        exchange: Callable[[bytes, Callable[[Response | None], None]], None],
        request: bytes,
        recorder: _Recorder,
        end: asyncio.Future[None],
    ) -> None:
        self._exchange = exchange
        self._request = request
        self._recorder = recorder
        self._end = end
        self._began = 0.0

    def send(self) -> None:
        self._began = time.perf_counter()
        self._exchange(self._request, self._answered)

    def _answered(self, response: Response | None) -> None:
        ended = time.perf_counter()
        failure = None
        if response is None:
            failure = "the connection was lost"
        elif response.status != 200:
            failure = f"status {response.status}: {response.body[:200]!r}"
        goes_on = self._recorder.add(self._began, ended, failure)
        if goes_on and response is not None:
            self.send()
        elif not self._end.done():
            self._end.set_result(None)


async def _grpc(job: Job, request: bytes) -> Measured:
    import grpc

    async with grpc.aio.insecure_channel(f"{job.host}:{job.port}") as channel:
        call = channel.unary_unary(GRPC_METHOD)
        await asyncio.wait_for(channel.channel_ready(), CONNECT_S)
        recorder = _window(job)

        async def client() -> None:
            goes_on = True
            while goes_on:
                began = time.perf_counter()
                failure = None
                try:
                    await call(request, metadata=job.metadata)
                except grpc.aio.AioRpcError as error:
                    failure = f"{error.code().name}: {error.details()}"
                goes_on = recorder.add(began, time.perf_counter(), failure)

        await asyncio.gather(*(client() for _ in range(job.clients)))
    return recorder.result()


def _onnx(job: Job) -> Measured:
    import numpy as np

    from edge_runtime.backends.ort import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    session = ort.InferenceSession(job.artifact, options, providers=["CPUExecutionProvider"])
    feed = {session.get_inputs()[0].name: np.load(job.request)}
    names = [session.get_outputs()[0].name]
    recorder = _window(job)
    goes_on = True
    while goes_on:
        began = time.perf_counter()
        session.run(names, feed)
        goes_on = recorder.add(began, time.perf_counter(), None)
    return recorder.result()


def _window(job: Job) -> _Recorder:
    opens = time.perf_counter() + job.warm_s
    return _Recorder(opens, opens + job.measure_s)


def _cpu_s() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


if __name__ == "__main__":
    sys.exit(main())
