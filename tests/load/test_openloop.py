from __future__ import annotations

import random

from load.http1 import request_bytes
from load.openloop import LOST, ClosedLoop, OpenLoop
from tests.load.server import response, serving

REQUEST = request_bytes("GET", "/", "h")


async def test_every_request_that_is_due_is_sent_and_its_answer_counted() -> None:
    answers = iter([200, 503] * 10_000)

    def answer(_: bytes) -> bytes:
        status = next(answers)
        return response(status, b"", b"retry-after: 1\r\n" if status == 503 else b"")

    async with serving(answer) as seen:
        loop = OpenLoop("127.0.0.1", seen.port, REQUEST, connections=64)
        await loop.run(400.0, 0.25, random.Random(3))
        loop.close()
    assert len(loop.sent) + loop.unsent > 0
    assert len(seen.heads) == len(loop.sent)
    assert all(sent.has_retry_after == (sent.status == 503) for sent in loop.sent)
    assert all(0.0 <= sent.due_s <= 0.25 for sent in loop.sent)
    assert all(sent.taken_s >= sent.late_s for sent in loop.sent)


async def test_arrivals_are_the_same_for_the_same_seed() -> None:
    async with serving(lambda _: response(200, b"")) as seen:
        due = []
        for _ in range(2):
            loop = OpenLoop("127.0.0.1", seen.port, REQUEST, connections=1000)
            await loop.run(200.0, 0.2, random.Random(8))
            loop.close()
            due.append(sorted(round(sent.due_s, 6) for sent in loop.sent))
    assert due[0] == due[1]


async def test_a_lost_connection_is_counted_and_does_not_end_the_run() -> None:
    async with serving(lambda _: None) as seen:
        loop = OpenLoop("127.0.0.1", seen.port, REQUEST, connections=8)
        await loop.run(200.0, 0.1, random.Random(2))
    assert {sent.status for sent in loop.sent} == {LOST}


async def test_a_server_that_is_not_there_is_counted_as_lost() -> None:
    async with serving(lambda _: None) as seen:
        port = seen.port
    loop = OpenLoop("127.0.0.1", port, REQUEST, connections=8)
    await loop.run(200.0, 0.1, random.Random(2))
    assert {sent.status for sent in loop.sent} == {LOST}


async def test_a_closed_loop_has_as_many_connections_as_clients() -> None:
    async with serving(lambda _: response(200, b"")) as seen:
        loop = ClosedLoop("127.0.0.1", seen.port, REQUEST, clients=3)
        await loop.run(0.1)
    assert seen.connections == 3
    assert len(loop.sent) == len(seen.heads) > 0
