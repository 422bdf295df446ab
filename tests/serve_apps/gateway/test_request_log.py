"""The request log keeps to its format and its bounds, and never holds a request up."""

from __future__ import annotations

import asyncio
import json
import os
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from edge_runtime.auth import Principal
from edge_runtime.errors import DeadlineExceeded, Unavailable
from edge_runtime.protocol.service import CallContext
from policies.cost import Cost
from serve_apps.gateway import request_log
from serve_apps.gateway.decisions import DecisionLog
from serve_apps.gateway.dispatch import Dispatcher
from serve_apps.gateway.ledger import Ledger
from serve_apps.gateway.request_log import LEAST_FILE_BYTES, RequestLog, RequestRecord, encode
from serve_apps.gateway.targets import TargetTable
from tests.serve_apps.gateway.place import Clock, Place, later, remote, request

RECORD = RequestRecord(
    at=1_790_000_000.25,
    id='a "quoted" \u00fc',
    tenant="acme",
    model="m",
    version="1",
    target="edge/lab",
    tier="edge",
    site="lab",
    reason="least_cost",
    objective="balanced",
    attempt=1,
    slack_s=0.15,
    bytes=4096,
    origin_site=None,
    expected_s=0.0101239,
    taken_s=0.02,
    late=0.123456,
    outcome="ok",
    cost=Cost(1.0, 2.0, 3.0, 4.0, 5.0, 6.0),
)
DAY_S = 86_400.0


def files(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.jsonl"))


def lines(folder: Path) -> list[dict[str, Any]]:
    """All that is there, file by file in the order of their beginning."""
    return [
        json.loads(line) for path in files(folder) for line in path.read_text("utf-8").splitlines()
    ]


def test_a_line_has_every_key_of_version_one() -> None:
    document = json.loads(encode(RECORD))
    assert document == {
        "v": 1,
        "at": 1_790_000_000.25,
        "id": 'a "quoted" \u00fc',
        "tenant": "acme",
        "model": "m",
        "version": "1",
        "target": "edge/lab",
        "tier": "edge",
        "site": "lab",
        "reason": "least_cost",
        "objective": "balanced",
        "attempt": 1,
        "slack_ms": 150.0,
        "bytes": 4096,
        "origin_site": None,
        "expected_ms": 10.124,
        "taken_ms": 20.0,
        "late": 0.1235,
        "outcome": "ok",
        "usd": 10.0,
        "parts": {"replica": 1.0, "egress": 2.0, "energy": 3.0, "carbon": 4.0},
        "joules": 5.0,
        "carbon_g": 6.0,
    }
    described = request_log.__doc__ or ""
    assert [key for key in document if key not in described] == []


async def test_records_are_written_in_the_order_of_their_end(tmp_path: Path) -> None:
    log = RequestLog(tmp_path / "requests", "gateway-0", max_bytes=1 << 30, max_days=1)
    for number in range(1000):
        log.add(RECORD._replace(id=str(number)))
    await log.flush()
    assert [line["id"] for line in lines(tmp_path / "requests")] == [str(n) for n in range(1000)]
    assert (log.written, log.dropped) == (1000, 0)
    (path,) = files(tmp_path / "requests")
    assert path.name.startswith("requests-gateway-0-")
    assert path.stat().st_mode & 0o777 == 0o600


async def test_what_is_left_is_written_when_the_gateway_stops(tmp_path: Path) -> None:
    log = RequestLog(tmp_path, "gateway-0", max_bytes=1 << 20, max_days=1)
    task = asyncio.create_task(log.run())
    await asyncio.sleep(0)
    for _ in range(300):
        log.add(RECORD)
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task
    assert len(lines(tmp_path)) == log.written == 300


async def test_records_beyond_the_memory_are_dropped_and_counted(tmp_path: Path) -> None:
    log = RequestLog(tmp_path, "gateway-0", max_bytes=1 << 20, max_days=1, capacity=10)
    for number in range(25):
        log.add(RECORD._replace(id=str(number)))
    await log.flush()
    assert [line["id"] for line in lines(tmp_path)] == [str(n) for n in range(10)]
    assert (log.written, log.dropped) == (10, 15)


async def test_files_keep_to_the_bound_and_the_newest_records_stay(tmp_path: Path) -> None:
    bound = 8 * LEAST_FILE_BYTES
    now = [1_790_000_000.0]
    log = RequestLog(tmp_path, "gateway-0", max_bytes=bound, max_days=1, wall=lambda: now[0])
    count = 4 * bound // len(encode(RECORD))
    for number in range(count):
        log.add(RECORD._replace(id=f"{number:06}"))
        if number % 50 == 49:
            now[0] += 1.0
            await log.flush()
            assert sum(path.stat().st_size for path in files(tmp_path)) <= bound * 1.1
    await log.flush()
    kept = [line["id"] for line in lines(tmp_path)]
    assert len(kept) > count / 8
    assert kept == [f"{n:06}" for n in range(count - len(kept), count)]


async def test_files_that_are_too_old_go_whoever_wrote_them(tmp_path: Path) -> None:
    old = tmp_path / "requests-gateway-7-1.jsonl"
    young = tmp_path / "requests-gateway-7-2.jsonl"
    foreign = tmp_path / "notes.txt"
    for path in (old, young, foreign):
        path.write_text("")
    now = young.stat().st_mtime
    os.utime(old, (now - 3 * DAY_S, now - 3 * DAY_S))
    os.utime(foreign, (now - 3 * DAY_S, now - 3 * DAY_S))
    log = RequestLog(tmp_path, "gateway-0", max_bytes=1, max_days=2, wall=lambda: now)
    log.add(RECORD)
    await log.flush()
    assert not old.exists()
    assert young.exists()
    assert foreign.exists()


async def test_a_file_that_somebody_removed_is_begun_anew(tmp_path: Path) -> None:
    log = RequestLog(tmp_path, "gateway-0", max_bytes=1 << 20, max_days=1)
    log.add(RECORD)
    await log.flush()
    for path in files(tmp_path):
        path.unlink()
    log.add(RECORD._replace(id="after"))
    await log.flush()
    assert [line["id"] for line in lines(tmp_path)] == ["after"]


async def test_a_disk_that_refuses_costs_records_and_nothing_else(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = tmp_path / "requests"
    folder.write_text("a file where the folder should be")
    log = RequestLog(folder, "gateway-0", max_bytes=1 << 20, max_days=1)
    for _ in range(2):
        log.add(RECORD)
        await log.flush()
    assert (log.written, log.dropped) == (0, 2)
    assert caplog.text.count("cannot be written") == 1
    folder.unlink()
    log.add(RECORD)
    await log.flush()
    assert (log.written, len(lines(folder))) == (1, 1)


async def test_every_attempt_and_every_refusal_has_its_line(tmp_path: Path) -> None:
    clock, place = Clock(), Place()
    table = TargetTable([remote("cloud", place, clock)])
    log = RequestLog(tmp_path, "gateway-0", max_bytes=1 << 20, max_days=1)
    dispatcher = Dispatcher(table, DecisionLog(), clock=clock, ledger=Ledger(log))
    await table.probe()

    async def send(timeout_s: float = 60.0) -> None:
        context = CallContext(Principal("tester", frozenset()), later(timeout_s))
        await dispatcher.infer(request(), "1", frozenset({"cloud"}), context)

    await send()
    with pytest.raises(DeadlineExceeded):
        await send(-1.0)
    place.fail()
    for _ in range(2):
        with pytest.raises(Unavailable):
            await send()
    await log.flush()
    told = [(line["attempt"], line["target"], line["outcome"]) for line in lines(tmp_path)]
    assert told[:2] == [(1, "cloud", "ok"), (0, "", "deadline_exceeded")]
    assert told[2] == (1, "cloud", "target_lost")
    assert lines(tmp_path)[0]["tenant"] == "default"
    assert lines(tmp_path)[0]["bytes"] == 8
