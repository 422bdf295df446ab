"""Recorded traffic is read whole: nothing is dropped in silence, retries count once."""

from __future__ import annotations

import json
import os
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edge_runtime.errors import InvalidInput, NotFound
from load.simulator.readers import read, read_home, write_table
from load.simulator.recording import Recorded, recording_of
from serve_apps.gateway.request_log import RequestRecord, encode
from tests.load.simulator import logs

names = st.text(st.characters(exclude_categories=("Cs", "Cc", "Z")), max_size=12)
moments = st.floats(0, 2e9).map(lambda at: round(at, 6))
tabled = st.builds(
    lambda **values: Recorded(**values),  # so that only what a table has is drawn
    at=moments,
    size_bytes=st.integers(0, 2**40),
    slack_s=st.none() | st.floats(0, 1e3),
    model=names,
    objective=st.sampled_from(["latency", "balanced", "cost"]),
    origin_site=names,
    place=names,
    taken_s=st.none() | st.floats(0, 1e3),
    outcome=st.sampled_from(["ok", "deadline_exceeded"]),
)
recordings = st.lists(tabled, min_size=2, max_size=20).filter(lambda r: len({x.at for x in r}) > 1)
anywhere = settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


def line(**changes: Any) -> dict[str, Any]:
    base = {
        "v": 1, "at": 100.0, "id": "a", "tenant": "t", "model": "digits", "version": "1",
        "target": "edge", "tier": "edge", "site": "plant-1", "reason": "least_cost",
        "objective": "cost", "attempt": 1, "slack_ms": 150.0, "bytes": 640, "origin_site": None,
        "expected_ms": 20.0, "taken_ms": 25.0, "late": 0.01, "outcome": "ok", "usd": 3e-6,
        "parts": {"replica": 1e-6, "egress": 2e-6, "energy": 0.0, "carbon": 0.0},
        "joules": 1.0, "carbon_g": 0.0,
    }  # fmt: skip
    return {**base, **changes}


OTHER = line(at=300.0, id="z")


@anywhere
@given(recordings)
def test_a_table_that_is_written_reads_as_it_was(tmp_path: Path, requests: list[Recorded]) -> None:
    path = tmp_path / "some.csv"
    write_table(path, requests)
    found = read(path)
    assert list(found.requests) == sorted(requests, key=lambda request: request.at)
    assert not found.problems


@anywhere
@given(
    st.lists(
        st.fixed_dictionaries(
            {
                "at": moments,
                "model": names,
                "target": names,
                "bytes": st.integers(0, 2**40),
                "slack_ms": st.integers(0, 10**6).map(float),
                "taken_ms": st.integers(0, 10**6).map(float),
                "usd": st.floats(0, 1.0),
                "origin_site": st.none() | names,
                "objective": st.sampled_from(["latency", "balanced", "cost"]),
            }
        ),
        min_size=2,
        max_size=20,
    ).filter(lambda r: len({x["at"] for x in r}) > 1)
)
def test_a_request_log_reads_as_it_was_written(
    tmp_path: Path, written: list[dict[str, Any]]
) -> None:
    path = logs.write(tmp_path, [line(**one) for one in written], gateway="gw-1")
    found = read(path)
    assert not found.problems
    written.sort(key=lambda one: float(one["at"]))
    for request, one in zip(found.requests, written, strict=True):
        assert request.at == one["at"]
        assert (request.model, request.place) == (one["model"], one["target"])
        assert (request.size_bytes, request.objective) == (one["bytes"], one["objective"])
        assert request.slack_s == one["slack_ms"] / 1e3
        assert request.taken_s == one["taken_ms"] / 1e3
        assert request.usd == one["usd"]
        assert request.moved_usd == 2e-6
        assert request.origin_site == (one["origin_site"] or "")
        assert request.gateway == "gw-1"


def test_what_a_gateway_writes_is_read(tmp_path: Path) -> None:
    record = RequestRecord(
        at=100.5, id="a", tenant="t", model="digits", version="1", target="edge", tier="edge",
        site="plant-1", reason="origin_site", objective="cost", attempt=1, slack_s=0.15, bytes=640,
        origin_site=None, expected_s=0.02, taken_s=0.025, late=0.01, outcome="ok",
    )  # fmt: skip
    path = tmp_path / "requests-gw-0-1000.jsonl"
    path.write_bytes(encode(record) + encode(record._replace(at=200.0, attempt=0)))
    found = read(path)
    assert not found.problems
    request = found.requests[0]
    assert (request.at, request.place, request.gateway) == (100.5, "edge", "gw-0")
    assert (request.slack_s, request.taken_s) == (0.15, 0.025)


def test_attempts_are_one_request_from_its_arrival_to_the_last_answer(tmp_path: Path) -> None:
    first = line(outcome="target_lost", taken_ms=40.0, slack_ms=150.0)
    second = line(at=100.04, attempt=2, target="cloud", reason="failover", slack_ms=110.0)
    found = read(logs.write(tmp_path, [first, second, OTHER]))
    assert len(found.requests) == 2
    assert found.retries == 1
    request = found.requests[0]
    assert (request.at, request.slack_s, request.place) == (100.0, 0.150, "cloud")
    assert request.taken_s == pytest.approx(0.065)
    assert request.usd == pytest.approx(6e-6)
    assert request.outcome == "ok"


def test_an_attempt_whose_first_one_is_in_the_file_before_is_no_request_of_its_own(
    tmp_path: Path,
) -> None:
    before = tmp_path / "requests-gw-1000.jsonl"
    before.write_text(json.dumps(line(outcome="target_lost")) + "\n")
    after = tmp_path / "logs" / "requests"
    after.mkdir(parents=True)
    before.rename(after / before.name)
    rest = [line(at=100.04, attempt=2), OTHER]
    (after / "requests-gw-2000.jsonl").write_text("".join(json.dumps(one) + "\n" for one in rest))
    for path in after.iterdir():
        os.utime(path, (400.0, 400.0))
    found = read_home(tmp_path, "last-1h", now=400.0)
    assert len(found.requests) == 2
    assert found.retries == 1


def test_equal_ids_of_requests_that_succeeded_stay_apart(tmp_path: Path) -> None:
    found = read(logs.write(tmp_path, [line(id=""), line(id="", at=101.0), OTHER]))
    assert len(found.requests) == 3
    assert found.retries == 0


def test_a_tier_that_the_caller_insisted_on_is_kept(tmp_path: Path) -> None:
    found = read(logs.write(tmp_path, [line(reason="tier_requested"), OTHER]))
    assert [request.insisted for request in found.requests] == ["edge", None]


@pytest.mark.parametrize(
    ("broken", "says"),
    [
        ('{"v": 1, "at": 1', "no JSON"),
        ("[1]", "no JSON object"),
        (json.dumps(line(v=99)), "version 99"),
        (json.dumps(line(at=None)), "no at"),
        (json.dumps(line(taken_ms=-1)), "taken_ms is -1"),
        (json.dumps(line(bytes="many")), "bytes is no number"),
        (json.dumps(line(objective="speed")), "objective 'speed'"),
        (json.dumps(line(model=3)), "model is no text"),
    ],
)
def test_a_line_that_cannot_be_read_is_named_and_the_others_are_read(
    tmp_path: Path, broken: str, says: str
) -> None:
    path = logs.write(tmp_path, [line(), OTHER])
    path.write_text(path.read_text() + broken + "\n")
    found = read(path)
    assert len(found.requests) == 2
    (problem,) = found.problems
    assert (problem.file, problem.line) == (path.name, 3)
    assert says in problem.why


@pytest.mark.parametrize(
    ("row", "says"),
    [
        ("soon,1,1", "time is 'soon'"),
        ("3,-1,1", "size is -1"),
        ("3,1,nan", "slack is nan"),
        ("3,1,1,5", "more cells"),
    ],
)
def test_a_row_that_cannot_be_read_is_named_and_the_others_are_read(
    tmp_path: Path, row: str, says: str
) -> None:
    path = tmp_path / "some.csv"
    path.write_text(f"time,size,slack\n2026-01-01T00:00:00+00:00,10,0.5\n{row}\n1767225605,10,\n")
    found = read(path)
    assert [request.slack_s for request in found.requests] == [0.5, None]
    assert found.duration_s == 5.0
    assert [problem.line for problem in found.problems] == [3]
    assert says in found.problems[0].why


def test_a_public_trace_is_read_past_a_broken_line(tmp_path: Path) -> None:
    path = tmp_path / "azure.csv"
    rows = ["2023-11-16 18:17:03.98,4808,10", "never,1,1", "2023-11-16 18:17:05.5,30,8"]
    path.write_text("TIMESTAMP,ContextTokens,GeneratedTokens\n" + "\n".join(rows) + "\n")
    found = read(path)
    assert [request.size_bytes for request in found.requests] == [4818, 38]
    assert [problem.line for problem in found.problems] == [3]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("Timestamp,User Count,Type,Name\n", "PRIME_SPARK_LOAD_REQUESTS"),
        ("time,size,colour\n1,1,red\n", "columns are"),
        ("a,b\n1,2\n", "a trace is"),
        ("", "a trace is"),
        ("time,size\n1,1\n", "what a trace may be"),
    ],
)
def test_a_file_that_is_no_trace_is_refused_with_what_to_do(
    tmp_path: Path, text: str, says: str
) -> None:
    path = tmp_path / "some.csv"
    path.write_text(text)
    with pytest.raises(InvalidInput) as refused:
        read(path)
    assert says in (refused.value.hint or "")


def test_a_window_takes_what_came_in_it_from_all_gateways(tmp_path: Path) -> None:
    folder = tmp_path / "logs" / "requests"
    now = 1_000_000.0
    times = {"gw-a": [now - 90_000, now - 80_000], "gw-b": [now - 3_000, now - 10, now + 5]}
    for gateway, ats in times.items():
        path = logs.write(folder, [line(at=at, id=str(at)) for at in ats], gateway)
        os.utime(path, (now, now))
    found = read_home(tmp_path, "last-24h", now)
    assert [request.at for request in found.requests] == [now - 80_000, now - 3_000, now - 10]
    assert found.gateways == 2


def test_a_home_without_requests_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(NotFound) as refused:
        read_home(tmp_path, "last-24h", 1e9)
    assert "prime-spark up" in (refused.value.hint or "")


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 6), st.integers(2, 60), st.integers(0, 99))
def test_a_whole_factor_of_load_gives_each_request_so_many_times(
    factor: int, count: int, seed: int
) -> None:
    requests = [Recorded(float(at), size_bytes=at) for at in range(count)]
    recording = recording_of("some", requests, [], files=[])
    found = recording.replay(seed, load=float(factor)).requests
    assert sorted(arrival.size_bytes for arrival in found) == sorted(
        at for at in range(count) for _ in range(factor)
    )
    assert all(a.at <= b.at for a, b in pairwise(found))
    assert all(abs(arrival.at - arrival.size_bytes) <= 5.0 for arrival in found)


def test_speed_moves_arrivals_and_nothing_else() -> None:
    recording = recording_of("some", [Recorded(10.0, 7, 0.2), Recorded(30.0, 8, 0.3)], [], files=[])
    slow, fast = recording.replay(1), recording.replay(1, speed=4.0)
    assert [arrival.at for arrival in slow.requests] == [0.0, 20.0]
    assert [arrival.at for arrival in fast.requests] == [0.0, 5.0]
    assert [arrival.slack_s for arrival in fast.requests] == [0.2, 0.3]
    with pytest.raises(InvalidInput):
        recording.replay(1, speed=0.0)
