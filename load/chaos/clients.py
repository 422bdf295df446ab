"""Clients of the site, in a process of their own: at a steady rate, each answer checked.

    python -m load.chaos.clients SPEC.json

Requests are sent when they are due, whatever became of those before them, on keep-alive
connections and one gRPC channel. Each ends as one line on standard output (`Ended`, a JSON list).
Standard input takes `burst N`: that many requests at once, to have some under way when something
is about to be killed. It ends with standard input, after what is under way has ended.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from random import Random
from typing import Any, Final, NamedTuple

import grpc
import grpc.aio
import numpy as np

from load.chaos import models
from load.chaos.answers import Kind, check
from load.http1 import Connection, Response, connect
from load.oip import Payload, binary_request, grpc_request, read_grpc_output, read_output

REST: Final = "rest"
GRPC: Final = "grpc"
BURST: Final = "burst"
GRACE_S: Final = 1.0  # beyond its deadline, before a request counts as lost
IDLE_S: Final = 20.0  # a connection unused for longer is not used again: the server may close it
ROWS: Final = (1, 1, 1, 1, 3)
_VARIANTS: Final = 64
_INFER: Final = "/inference.GRPCInferenceService/ModelInfer"


@dataclass(frozen=True, slots=True)
class Stream:
    """One client. credential: `key` or `token`."""

    name: str
    protocol: str
    model: str
    rate_per_s: float
    credential: str = "key"


@dataclass(frozen=True, slots=True)
class Spec:
    """What the process is told. models: the folder that `load.chaos.models` has filled."""

    models: str
    host: str
    rest_port: int
    grpc_port: int
    key: str
    token: str
    streams: tuple[Stream, ...]
    deadline_s: float
    seed: int

    def write(self, path: Path) -> None:
        path.write_text(json.dumps(asdict(self)))
        path.chmod(0o600)

    @classmethod
    def read(cls, path: Path) -> Spec:
        told = json.loads(path.read_bytes())
        return cls(**{**told, "streams": tuple(Stream(**each) for each in told["streams"])})


class Ended(NamedTuple):
    """One request; times on the machine's monotonic clock. code: of a refusal; rung: as named."""

    stream: str
    model: str
    due_s: float
    sent_s: float
    ended_s: float
    kind: str
    rung: str = ""
    code: str = ""
    detail: str = ""


@dataclass(frozen=True, slots=True)
class _Request:
    picked: tuple[int, ...]
    content: bytes


class _Clients:
    def __init__(self, spec: Spec) -> None:
        self.spec = spec
        self.subjects = models.read(Path(spec.models))
        self.random = Random(spec.seed)  # noqa: S311
        self.free: list[tuple[Connection, float]] = []
        self.under_way: set[asyncio.Task[None]] = set()
        self.bodies = {
            (stream.protocol, stream.model, stream.credential): self._requests(stream)
            for stream in (*spec.streams, _BURST)
        }
        self.channel: Any = grpc.aio.insecure_channel(
            f"{spec.host}:{spec.grpc_port}",
            options=[
                ("grpc.initial_reconnect_backoff_ms", 100),
                ("grpc.max_reconnect_backoff_ms", 200),
            ],
        )
        self.infer = self.channel.unary_unary(_INFER)

    async def run(self) -> None:
        print(json.dumps("ready"), flush=True)
        reader = asyncio.StreamReader()
        loop = asyncio.get_running_loop()
        await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
        sending = [loop.create_task(self._keep_rate(each)) for each in self.spec.streams]
        while line := await reader.readline():
            for _ in range(int(line.split()[1])):
                self._send(_BURST, time.monotonic())
        for task in sending:
            task.cancel()
        await asyncio.gather(*sending, return_exceptions=True)
        if self.under_way:
            await asyncio.wait(self.under_way)
        await self.channel.close()
        for connection, _ in self.free:
            connection.close()

    async def _keep_rate(self, stream: Stream) -> None:
        pause_s = 1.0 / stream.rate_per_s
        due = time.monotonic() + self.random.random() * pause_s
        while True:
            await asyncio.sleep(max(0.0, due - time.monotonic()))
            self._send(stream, due)
            due += pause_s

    def _send(self, stream: Stream, due: float) -> None:
        bodies = self.bodies[stream.protocol, stream.model, stream.credential]
        task = asyncio.get_running_loop().create_task(
            self._ask(stream, self.random.choice(bodies), due)
        )
        self.under_way.add(task)
        task.add_done_callback(self.under_way.discard)

    async def _ask(self, stream: Stream, request: _Request, due: float) -> None:
        sent = time.monotonic()
        ask = self._ask_grpc if stream.protocol == GRPC else self._ask_rest
        patience_s = self.spec.deadline_s + GRACE_S
        try:
            async with asyncio.timeout(patience_s):
                told = await ask(stream, request)
        except TimeoutError:
            told = (Kind.LOST, "", "", f"no answer within {patience_s:g} s")
        except OSError as error:
            told = (Kind.LOST, "", "", f"{type(error).__name__}: {error}")
        except ValueError as error:  # what came is no answer of the protocol
            told = (Kind.WRONG, "", "", str(error)[:300])
        ended = Ended(stream.name, stream.model, due, sent, time.monotonic(), *told)
        print(json.dumps(ended), flush=True)

    async def _ask_rest(self, stream: Stream, request: _Request) -> tuple[Kind, str, str, str]:
        connection = self._take() or await connect(self.spec.host, self.spec.rest_port)
        try:
            response = await connection.ask(request.content)
        except BaseException:
            connection.close()
            raise
        if connection.is_open:
            self.free.append((connection, time.monotonic()))
        if response.status != 200:
            return _refusal(response)
        rung = response.headers.get(b"prime-spark-rung", b"").decode()
        return self._judge(stream, request, rung, read_output(response))

    async def _ask_grpc(self, stream: Stream, request: _Request) -> tuple[Kind, str, str, str]:
        # Its own deadline is later than the one that the server is told: else both say at the
        # same time that it is over.
        call = self.infer(
            request.content,
            timeout=self.spec.deadline_s + 2 * GRACE_S,
            metadata=tuple(self._headers(stream.credential).items()),
            wait_for_ready=True,  # else it fails for a while after the server is back
        )
        try:
            answer: bytes = await call
        except grpc.aio.AioRpcError as error:
            return _grpc_refusal(error)
        return self._judge(stream, request, _rung_of(answer), read_grpc_output(answer))

    def _judge(
        self, stream: Stream, request: _Request, rung: str, rows: models.Floats
    ) -> tuple[Kind, str, str, str]:
        verdict = check(self.subjects[stream.model], request.picked, rung, rows)
        return verdict.kind, rung, "", verdict.detail

    def _take(self) -> Connection | None:
        while self.free:
            connection, used_at = self.free.pop()
            if connection.is_open and time.monotonic() - used_at < IDLE_S:
                return connection
            connection.close()
        return None

    def _headers(self, credential: str) -> Mapping[str, str]:
        told = {"prime-spark-timeout-ms": str(round(self.spec.deadline_s * 1e3))}
        if credential == "token":
            return {**told, "authorization": f"Bearer {self.spec.token}"}
        return {**told, "x-api-key": self.spec.key}

    def _requests(self, stream: Stream) -> list[_Request]:
        """Make a client's requests; what they ask is drawn from the seed."""
        subject = self.subjects[stream.model]
        authority = f"{self.spec.host}:{self.spec.rest_port}"
        headers = self._headers(stream.credential)
        found = []
        for _ in range(_VARIANTS):
            count = self.random.choice(ROWS)
            picked = tuple(self.random.sample(range(len(subject.inputs)), count))
            rows = np.ascontiguousarray(subject.inputs[list(picked)])
            payload = Payload(stream.model, subject.input, rows)
            if stream.protocol == GRPC:
                found.append(_Request(picked, grpc_request(payload)))
            else:
                found.append(_Request(picked, binary_request(payload, authority, headers)))
        return found


_BURST: Final = Stream(BURST, REST, models.DIGITS, 0.0)


def streams(digits_per_s: float = 44.0, others_per_s: float = 16.0) -> tuple[Stream, ...]:
    """Return the site's clients: most of them ask for digits, one over gRPC."""

    def spread() -> Iterator[Stream]:
        for number in range(3):
            yield Stream(f"rest-{number}", REST, models.DIGITS, digits_per_s / 4)
        yield Stream("grpc", GRPC, models.DIGITS, digits_per_s / 4)
        yield Stream("plain", REST, models.PLAIN, others_per_s / 2)
        yield Stream("token", REST, models.PLAIN, others_per_s / 8, "token")
        yield Stream("lone", REST, models.LONE, others_per_s * 3 / 16)
        yield Stream("lone-stale", REST, models.LONE_STALE, others_per_s * 3 / 16)

    return tuple(spread())


def _refusal(response: Response) -> tuple[Kind, str, str, str]:
    """Read a refusal: with a code and a reason, or it is none."""
    try:
        document = json.loads(response.body)
        code, why = str(document["code"]), str(document["error"])
    except (ValueError, KeyError, TypeError):
        code, why = "", f"status {response.status} without a code and a reason"
    kind = Kind.LATE if response.status == 504 else Kind.REFUSED
    return kind, "", code, f"{response.status}: {why}"[:300]


def _grpc_refusal(error: Any) -> tuple[Kind, str, str, str]:
    trailers = {k: v for k, v in error.trailing_metadata() or () if isinstance(v, str)}
    code = trailers.get("prime-spark-code", "")
    text = f"{error.code().name}: {error.details()}"[:300]
    if not code:  # of the transport, not of the server
        return Kind.LOST, "", "", text
    is_late = error.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    return (Kind.LATE if is_late else Kind.REFUSED), "", code, text


def _rung_of(answer: bytes) -> str:
    from tritonclient.grpc import service_pb2 as pb

    parameters = pb.ModelInferResponse.FromString(answer).parameters
    rung: str = parameters["prime_spark_rung"].string_param
    return rung


def main(arguments: Sequence[str] | None = None) -> int:
    """Send until standard input ends."""
    (path,) = sys.argv[1:] if arguments is None else arguments

    async def run() -> None:
        await _Clients(Spec.read(Path(path))).run()

    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(run())
    return 0


if __name__ == "__main__":
    sys.exit(main())
