"""The clients' process against a server that does what no server should: all of it is found."""

from __future__ import annotations

import asyncio
import json
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from cluster.ports import free_port
from load.chaos import models
from load.chaos.answers import Kind
from load.chaos.clients import REST, Ended, Spec, Stream
from load.chaos.ledger import Ledger
from load.chaos.models import DIGITS, FP32, HAILO, Floats, Subject

DEADLINE_S = 0.3


class Server:
    """Answers request n as the n-th of its ways says, and begins anew after the last."""

    def __init__(self, subject: Subject, ways: Sequence[str]) -> None:
        self._subject = subject
        self._ways = ways
        self._count = 0
        self.sent: Counter[str] = Counter()

    async def talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                headers = dict(
                    line.split(": ", 1) for line in head.decode().split("\r\n")[1:] if line
                )
                body = await reader.readexactly(int(headers["content-length"]))
                way = self._ways[self._count % len(self._ways)]
                self._count += 1
                self.sent[way] += 1
                if way == "silence":
                    await asyncio.sleep(60.0)
                if way == "hang up":
                    break
                writer.write(self._answer(way, headers, body))
        except asyncio.IncompleteReadError:
            pass
        finally:
            writer.close()

    def _answer(self, way: str, headers: Mapping[str, str], body: bytes) -> bytes:
        if way == "refusal":
            return _http(503, json.dumps({"error": "not now", "code": "overloaded"}).encode())
        if way == "silent refusal":
            return _http(500, b"oops")
        if way == "late":
            told = {"error": "the deadline passed", "code": "deadline_exceeded"}
            return _http(504, json.dumps(told).encode())
        at = int(headers["inference-header-content-length"])
        rows = np.frombuffer(body[at:], np.float32).reshape(-1, *self._subject.inputs.shape[1:])
        picked = [
            int(np.argmax([np.array_equal(row, known) for known in self._subject.inputs]))
            for row in rows
        ]
        outputs = self._subject.references[FP32].rows[picked].copy()
        rung = FP32
        if way == "another's":
            outputs[0] = self._subject.references[FP32].rows[picked[0] - 1]
        if way == "marker":
            outputs[-1], rung = self._subject.marker, HAILO
        return _outputs(outputs, rung)


def _http(status: int, body: bytes, headers: Sequence[str] = ()) -> bytes:
    lines = [f"HTTP/1.1 {status} x", f"content-length: {len(body)}", *headers, "", ""]
    return "\r\n".join(lines).encode() + body


def _outputs(rows: Floats, rung: str) -> bytes:
    told = {
        "name": "logits",
        "datatype": "FP32",
        "shape": list(rows.shape),
        "parameters": {"binary_data_size": rows.nbytes},
    }
    head = json.dumps({"outputs": [told]}).encode()
    length = f"inference-header-content-length: {len(head)}"
    return _http(200, head + rows.tobytes(), [length, f"prime-spark-rung: {rung}"])


async def observe(folder: Path, server: Server, seconds: float, bursts: int = 0) -> Ledger:
    listening = await asyncio.start_server(server.talk, "127.0.0.1", 0)
    port = listening.sockets[0].getsockname()[1]
    spec = Spec(
        models=str(folder),
        host="127.0.0.1",
        rest_port=port,
        grpc_port=free_port(),
        key="key",
        token="token",
        streams=(Stream("one", REST, DIGITS, 50.0),),
        deadline_s=DEADLINE_S,
        seed=1,
    )
    path = folder / "spec.json"
    spec.write(path)
    child = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "load.chaos.clients", str(path)),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    assert child.stdin is not None
    assert child.stdout is not None
    ledger = Ledger()
    ledger.take(await child.stdout.readline())
    if bursts:
        child.stdin.write(f"burst {bursts}\n".encode())
    await asyncio.sleep(seconds)
    child.stdin.close()
    async for line in child.stdout:
        ledger.take(line)
    assert await child.wait() == 0
    listening.close()
    return ledger


async def test_each_way_to_fail_is_found_and_named(
    folder: Path, subjects: dict[str, Subject]
) -> None:
    ways = {
        "right": Kind.RIGHT,
        "another's": Kind.WRONG,
        "marker": Kind.LEAK,
        "hang up": Kind.LOST,
        "silence": Kind.LOST,
        "refusal": Kind.REFUSED,
        "silent refusal": Kind.REFUSED,
        "late": Kind.LATE,
    }
    server = Server(subjects[DIGITS], list(ways))
    ledger = await observe(folder, server, 2.0)
    found = Counter(ended.kind for ended in ledger.ended)
    expected: Counter[str] = Counter()
    for way, count in server.sent.items():
        expected[ways[way]] += count
    assert len(server.sent) == len(ways)
    assert found == expected
    assert len(ledger.without_reason()) == server.sent["silent refusal"]
    assert all("input" in e.detail for e in ledger.of(Kind.WRONG))
    assert {e.detail for e in ledger.of(Kind.LOST)} >= {
        f"no answer within {DEADLINE_S + 1.0:g} s",
        "ConnectionError: the server closed the connection before it answered",
    }


async def test_a_server_that_is_not_there_loses_every_request(
    folder: Path, subjects: dict[str, Subject]
) -> None:
    class Closed(Server):
        async def talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.transport.abort()

    ledger = await observe(folder, Closed(subjects[DIGITS], ["right"]), 0.5)
    assert ledger.ended
    assert {ended.kind for ended in ledger.ended} == {Kind.LOST}


async def test_a_burst_is_sent_at_once(folder: Path, subjects: dict[str, Subject]) -> None:
    ledger = await observe(folder, Server(subjects[DIGITS], ["right"]), 0.5, bursts=8)
    burst = [ended for ended in ledger.ended if ended.stream == "burst"]
    assert len(burst) == 8
    assert max(e.sent_s for e in burst) - min(e.sent_s for e in burst) < 0.25


def test_a_line_says_all_of_a_request() -> None:
    ended = Ended("rest-0", DIGITS, 1.0, 1.5, 2.0, Kind.RIGHT, HAILO)
    ledger = Ledger()
    ledger.take(json.dumps(ended))
    assert ledger.ended == [ended]


def test_references_come_back_as_they_were_written(folder: Path) -> None:
    again = models.read(folder)
    assert set(again) == {"digits", "plain", "lone", "lone-stale"}
    assert again["digits"].references[HAILO].rows.shape == (len(again["digits"].inputs), 10)
