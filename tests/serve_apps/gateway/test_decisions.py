"""The decision log is bounded, counts everything and is read newest first."""

from __future__ import annotations

from dataclasses import replace

import orjson
import pytest

from edge_runtime.errors import InvalidInput
from policies.routing import Verdict
from serve_apps.gateway.decisions import CAPACITY, DecisionLog, DecisionRecord

RECORD = DecisionRecord(
    at=7.5,
    request_id="r",
    model="m",
    version="1",
    target="cloud",
    reason="least_expected",
    attempt=1,
    expected_s=0.0012344,
    taken_s=0.5,
    outcome="ok",
    verdicts=(Verdict("cloud", 0.0012344, None, 0.25, 1e-6), Verdict("edge/lab", 0.25, "silent")),
    asleep=frozenset({"cloud"}),
)


def _filled(count: int, capacity: int) -> DecisionLog:
    log = DecisionLog(capacity)
    for number in range(count):
        log.add(replace(RECORD, request_id=str(number)))
    return log


def test_the_oldest_records_go_first_and_are_counted() -> None:
    found = _filled(7, capacity=3).read({})
    assert [d["id"] for d in found["decisions"]] == ["6", "5", "4"]
    assert (found["total"], found["dropped"]) == (7, 4)


@pytest.mark.parametrize(("limit", "read"), [("1", 1), ("2", 2), ("3", 3), ("9999999", 3)])
def test_the_newest_are_read_up_to_a_limit(limit: str, read: int) -> None:
    found = _filled(3, capacity=5).read({"limit": limit})["decisions"]
    assert [d["id"] for d in found] == ["2", "1", "0"][:read]


def test_a_hundred_are_read_unless_more_are_asked_for() -> None:
    log = _filled(CAPACITY + 1, capacity=CAPACITY)
    assert len(log.read({})["decisions"]) == 100
    assert len(log.read({"limit": str(CAPACITY)})["decisions"]) == CAPACITY


@pytest.mark.parametrize("limit", ["0", "-1", "1.5", "many", "", "12345678", "\u0663"])
def test_a_limit_that_makes_no_sense_is_refused_by_name(limit: str) -> None:
    with pytest.raises(InvalidInput) as error:
        DecisionLog().read({"limit": limit})
    assert error.value.field == "limit"


def test_counts_and_times_cover_what_was_dropped_too() -> None:
    log = _filled(7, capacity=3)
    log.add(replace(RECORD, target="edge/lab", outcome="target_lost", taken_s=0.25))
    assert log.counts == {
        ("cloud", "least_expected", "ok"): 7,
        ("edge/lab", "least_expected", "target_lost"): 1,
    }
    assert log.taken_s["cloud", "least_expected", "ok"] == pytest.approx(3.5)
    assert log.taken_s["edge/lab", "least_expected", "target_lost"] == 0.25


def test_a_record_reads_as_json_with_milliseconds_and_what_was_considered() -> None:
    (found,) = orjson.loads(orjson.dumps(_filled(1, capacity=1).read({})))["decisions"]
    assert (found["expected_ms"], found["taken_ms"]) == (1.234, 500.0)
    assert (found["reason"], found["attempt"], found["outcome"]) == ("least_expected", 1, "ok")
    assert found["considered"] == [
        {
            "target": "cloud",
            "expected_ms": 1.234,
            "late": 0.25,
            "usd": 1e-06,
            "ruled_out": None,
            "is_asleep": True,
        },
        {
            "target": "edge/lab",
            "expected_ms": 250.0,
            "late": 0.0,
            "usd": 0.0,
            "ruled_out": "silent",
            "is_asleep": False,
        },
    ]


def test_a_request_is_found_by_its_id_with_all_its_attempts() -> None:
    log = _filled(3, capacity=5)
    log.add(replace(RECORD, request_id="1", attempt=2))
    found = log.read({"id": "1"})["decisions"]
    assert [(d["id"], d["attempt"]) for d in found] == [("1", 2), ("1", 1)]
    assert log.read({"id": "none"})["decisions"] == []


def test_what_a_model_says_of_a_target_is_shown_where_one_was_asked() -> None:
    log = DecisionLog()
    asked = RECORD.verdicts[0]._replace(model_s=0.25, model_late=0.125)
    log.add(replace(RECORD, verdicts=(asked, RECORD.verdicts[1])))
    ((first, second),) = [d["considered"] for d in log.read({})["decisions"]]
    assert (first["model_ms"], first["model_late"]) == (250.0, 0.125)
    assert "model_ms" not in second
