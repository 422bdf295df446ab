"""The clients of the soak: those who ask well, those who ask wrongly, leave, load and unload.

Everybody counts what comes back: answers that were right, by the rung that gave them; answers that
were wrong; errors that had to come (a malformed request, a model that is being unloaded, a refusal
for load); errors that had not.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from load.bench.models import BenchModel
from load.edge.box import HOST
from load.http1 import Connection, Response, connect, request_bytes
from load.oip import HEADER_LENGTH, binary_request, infer_path, json_request, read_output

RUNG: Final = b"prime-spark-rung"
CONNECT_AGAIN_S: Final = 0.05
LOADED_S: Final = 2.0
UNLOADED_S: Final = 1.0
DESERT_S: Final = 0.03
MALFORMED_EVERY_S: Final = 0.01
REFUSALS: Final = range(400, 500)


@dataclass(slots=True)
class Counts:
    """rungs: right answers by model and rung; expected, unexpected: errors by what they were."""

    rungs: Counter[str] = field(default_factory=Counter)
    wrong: Counter[str] = field(default_factory=Counter)
    expected: Counter[str] = field(default_factory=Counter)
    unexpected: Counter[str] = field(default_factory=Counter)
    first_unexpected: str = ""

    @property
    def answers(self) -> int:
        return self.rungs.total()

    def surprise(self, what: str, text: str = "") -> None:
        self.unexpected[what] += 1
        self.first_unexpected = self.first_unexpected or f"{what}: {text}"


@dataclass(slots=True)
class Guest:
    """The model that comes and goes. since: of its present state, on the performance counter."""

    name: str
    is_loaded: bool = True
    since: float = 0.0
    turns: int = 0


@dataclass(frozen=True, slots=True)
class Question:
    """A request for a model with the right answer. device_tolerance: of what a device computes."""

    name: str
    model: BenchModel
    request: bytes
    device_tolerance: float

    def is_right(self, response: Response) -> bool:
        answer = read_output(response)
        if response.headers.get(RUNG) == b"hailo":
            expected = self.model.expected
            return answer.shape == expected.shape and bool(
                abs(answer - expected).max() <= self.device_tolerance
            )
        try:
            self.model.check(answer)
        except ValueError:
            return False
        return True


class Crowd:
    """Everybody who comes over HTTP. pause_s: of each asker between two requests."""

    def __init__(self, port: int, headers: Mapping[str, str], pause_s: float, seed: int) -> None:
        self.counts = Counts()
        self._port = port
        self._host = f"{HOST}:{port}"
        self._headers = headers
        self._pause_s = pause_s
        self._seed = seed

    def question(self, name: str, example: BenchModel, device_tolerance: float = 0.0) -> Question:
        """Return a request for an example under a model's name."""
        payload = type(example.payload)(name, example.payload.input, example.payload.data)
        request = binary_request(payload, self._host, self._headers)
        return Question(name, example, request, device_tolerance)

    async def ask(self, number: int, questions: Sequence[Question], guest: Guest | None) -> None:
        """Ask until cancelled; guest: when it is a model that may be away."""
        rng = random.Random(self._seed + number)  # noqa: S311 (which question comes next)
        connection: Connection | None = None
        try:
            while True:
                question = rng.choice(questions)
                asked_at = time.perf_counter()
                try:
                    if connection is None or not connection.is_open:
                        connection = await connect(HOST, self._port)
                    response = await connection.ask(question.request)
                except OSError as error:
                    self.counts.surprise(f"{type(error).__name__} of an asker", str(error))
                    await asyncio.sleep(CONNECT_AGAIN_S)
                    continue
                self._count(question, response, guest, asked_at)
                if self._pause_s:
                    await asyncio.sleep(self._pause_s)
        finally:
            if connection is not None:
                connection.close()

    def _count(
        self, question: Question, response: Response, guest: Guest | None, asked_at: float
    ) -> None:
        name = question.name
        if response.status == 200:
            if question.is_right(response):
                rung = response.headers.get(RUNG, b"").decode()
                self.counts.rungs[f"{name} on {rung}"] += 1
            else:
                self.counts.wrong[name] += 1
            return
        what = f"{name}: status {response.status}"
        if response.status == 503 and b'"overloaded"' in response.body:
            self.counts.expected[f"{what}, more than it can do in time"] += 1
            return
        was_there = guest is None or (guest.is_loaded and guest.since < asked_at)
        if was_there or response.status != 503:
            self.counts.surprise(what, response.body[:300].decode("utf-8", "replace"))
        else:
            self.counts.expected[f"{what}, while it is away"] += 1

    async def switch(self, guest: Guest) -> None:
        """Unload and load a model again and again, until cancelled."""
        connection = await connect(HOST, self._port)
        while True:
            await asyncio.sleep(LOADED_S)
            guest.is_loaded = False
            await self._order(connection, guest.name, "unload")
            await asyncio.sleep(UNLOADED_S)
            await self._order(connection, guest.name, "load")
            guest.is_loaded, guest.since = True, time.perf_counter()
            guest.turns += 1

    async def _order(self, connection: Connection, name: str, verb: str) -> None:
        path = f"/v2/repository/models/{name}/{verb}"
        try:
            response = await connection.ask(request_bytes("POST", path, self._host, self._headers))
        except OSError as error:
            self.counts.surprise(f"{verb}: {type(error).__name__}", str(error))
            return
        if response.status != 200:
            text = response.body[:300].decode("utf-8", "replace")
            self.counts.surprise(f"{verb}: status {response.status}", text)

    async def desert(self, number: int, questions: Sequence[Question]) -> None:
        """Send a request, or a part of one, and go away before the answer; until cancelled."""
        rng = random.Random(self._seed + number)  # noqa: S311 (when to leave)
        while True:
            request = rng.choice(questions).request
            size = len(request) if rng.random() < 0.7 else rng.randrange(1, len(request))
            try:
                _, writer = await asyncio.open_connection(HOST, self._port)
            except OSError as error:
                self.counts.surprise(f"{type(error).__name__} of a deserter", str(error))
                await asyncio.sleep(CONNECT_AGAIN_S)
                continue
            with contextlib.suppress(OSError):
                writer.write(request[:size])
                await asyncio.sleep(rng.random() * DESERT_S)
            writer.transport.abort()
            self.counts.expected["left before the answer"] += 1
            await asyncio.sleep(self._pause_s or rng.random() * DESERT_S)

    async def misbehave(self, number: int, example: BenchModel) -> None:
        """Send malformed requests, each of which has to be refused; until cancelled."""
        rng = random.Random(self._seed + number)  # noqa: S311 (which one comes next)
        bent = malformed(example, self._host, self._headers)
        connection: Connection | None = None
        while True:
            kind = rng.choice(list(bent))
            try:
                if connection is None or not connection.is_open:
                    connection = await connect(HOST, self._port)
                response = await connection.ask(bent[kind])
            except ConnectionError:
                connection = None
                self.counts.expected[f"malformed, {kind}: hung up"] += 1
            except OSError as error:
                self.counts.surprise(f"{type(error).__name__}, malformed", str(error))
            else:
                what = f"malformed, {kind}: status {response.status}"
                if response.status in REFUSALS:
                    self.counts.expected[what] += 1
                else:
                    self.counts.surprise(what, response.body[:300].decode("utf-8", "replace"))
            await asyncio.sleep(self._pause_s or MALFORMED_EVERY_S)


def malformed(example: BenchModel, host: str, headers: Mapping[str, str]) -> Mapping[str, bytes]:
    """Return requests that no server may answer well, by what is wrong with them."""
    payload = example.payload
    path = infer_path(payload.model)
    good = binary_request(payload, host, headers)

    def post(body: bytes, more: Mapping[str, str] | None = None, to: str = path) -> bytes:
        return request_bytes("POST", to, host, {**headers, **(more or {})}, body)

    def document(**changes: object) -> bytes:
        tensor: dict[str, object] = {
            "name": payload.input,
            "shape": list(payload.data.shape),
            "datatype": "FP32",
            "data": payload.data.reshape(-1).tolist(),
            **changes,
        }
        return json.dumps({"inputs": [tensor]}).encode()

    wrong: Mapping[str, Callable[[], bytes]] = {
        "no JSON": lambda: post(b'{"inputs": ['),
        "not an object": lambda: post(b"[1, 2, 3]"),
        "no inputs": lambda: post(b"{}"),
        "wrong shape": lambda: post(document(shape=[1, 3])),
        "wrong datatype": lambda: post(document(datatype="INT64")),
        "unknown input": lambda: post(document(name="nobody")),
        "text for numbers": lambda: post(document(data=["x"] * payload.data.size)),
        "length beyond the body": lambda: post(b"{}", {HEADER_LENGTH: "1000"}),
        "too few bytes": lambda: good.replace(b"FP32", b"FP64", 1),
        "unknown model": lambda: post(document(), to=infer_path("nobody")),
        "no such route": lambda: post(b"", to="/v2/nowhere"),
        "no token": lambda: json_request(payload, host, {}),
        "not HTTP": lambda: b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03 hello\r\n\r\n",
    }
    return {kind: make() for kind, make in wrong.items()}
