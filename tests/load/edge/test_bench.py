"""That the tool measures everything it says it does; no time is asserted."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jsonschema  # type: ignore[import-untyped]
import psutil
import pytest

from load.edge import hop, overhead, start, throughput
from load.edge.__main__ import main
from load.edge.models import Models
from load.edge.subjects import SUBJECTS
from tests.load.edge.conftest import PLAN

NUMBER = {"type": "number"}
SPREAD = {
    "type": "object",
    "properties": {"value": NUMBER, "least": NUMBER, "most": NUMBER},
    "required": ["value", "least", "most"],
    "additionalProperties": False,
}
SCHEMA = {
    "type": "object",
    "required": ["machine", "plan", "took_s", "marks", "results"],
    "properties": {
        "machine": {"type": "object", "required": ["date", "commit", "cpu", "load_before"]},
        "plan": {"type": "object", "required": ["rounds"]},
        "marks": {
            "type": "array",
            "items": {
                "type": "object",
                "required": ["mark", "found", "is_met"],
                "properties": {
                    "mark": {
                        "type": "object",
                        "required": ["subject", "title", "unit", "how", "limit"],
                        "properties": {
                            "subject": {"enum": list(SUBJECTS)},
                            "how": {"enum": ["at_most", "at_least"]},
                        },
                    },
                    "found": SPREAD,
                    "is_met": {"type": "boolean"},
                },
            },
        },
        "results": {"type": "object", "required": list(SUBJECTS)},
    },
}


def numbers(value: Any) -> Iterator[float]:
    match value:
        case dict():
            for inner in value.values():
                yield from numbers(inner)
        case list():
            for inner in value:
                yield from numbers(inner)
        case float() | int():
            yield float(value)


def test_the_raw_results_have_every_subject_and_every_mark(document: dict[str, Any]) -> None:
    jsonschema.validate(document, SCHEMA)
    marks = [(v["mark"]["subject"], v["mark"]["limit"]) for v in document["marks"]]
    assert marks == [
        ("start", 0.6),
        ("start", 110.0),
        ("start", 110.0),
        ("http", 1.1),
        ("hop", 0.1),
        ("death", 20.0),
        ("death", 300.0),
        ("death", 1.0),
        ("death", 0.0),
        ("throughput", 0.9),
        ("throughput", 0.9),
        ("throughput", 0.9),
    ]
    assert all(math.isfinite(number) for number in numbers(document["results"]))


def test_the_exit_code_says_whether_every_mark_holds(
    written: tuple[int, Path], document: dict[str, Any]
) -> None:
    assert written[0] == (0 if all(v["is_met"] for v in document["marks"]) else 1)


def test_each_round_measures_ours_and_its_floor(document: dict[str, Any]) -> None:
    results = document["results"]
    starts = results["start"]["starts"]
    assert {name: len(of) for name, of in starts.items()} == {start.OURS: 1, start.FLOOR: 1}
    for rounds in results["http"]["rounds"].values():
        assert set(rounds) == {overhead.OURS, overhead.NICE, overhead.ALONE, overhead.BARE}
    kinds = [one["kind"] for one in results["hop"]["rounds"][0]]
    assert kinds == [hop.FLOOR, *hop.KINDS]
    for measured in results["throughput"]["models"].values():
        rounds = measured["rounds"]
        assert {throughput.ENGINE, throughput.ALONE, throughput.HTTP} <= set(rounds)
        assert all(rate > 0 for rates in rounds.values() for rate in rates)


def test_memory_is_that_of_the_process(document: dict[str, Any]) -> None:
    for starts in document["results"]["start"]["starts"].values():
        for memory in (starts[0]["rest"], starts[0]["after"]):
            parts = memory["anon"] + memory["file"] + memory["shmem"]
            assert abs(parts - memory["rss"]) < 1e6
            assert memory["pss"] <= memory["rss"] <= memory["peak"]


def test_the_hop_is_longer_than_the_hosts_part_of_it(document: dict[str, Any]) -> None:
    for one in document["results"]["hop"]["rounds"][0]:
        assert one["calls"] == 20
        assert one["host_p50_ms"] < one["p50_ms"]


def test_a_killed_and_a_hung_host_are_noticed_and_nobody_gets_a_wrong_answer(
    document: dict[str, Any],
) -> None:
    found = document["results"]["death"]
    assert [blow["kind"] for blow in found["blows"]] == ["kill", "hang"]
    for blow in found["blows"]:
        assert 0 < blow["noticed_s"] < blow["back_s"] <= blow["serving_s"]
        assert blow["wrong"] == 0
        assert all(wait > 0 for wait in blow["in_flight_s"])
    assert found["blows"][1]["limit_s"] >= 0.25
    assert len(found["floor"]) == 1


def test_the_page_has_marks_tables_methods_and_the_raw_results(
    written: tuple[int, Path], document: dict[str, Any]
) -> None:
    page = (written[1] / "edge-quick.md").read_text("utf-8")
    assert "[edge-quick.json](edge-quick.json)" in page
    assert document["machine"]["commit"][:12] in page
    for subject in SUBJECTS.values():
        assert f"## {subject.title}" in page
        assert subject.how.strip().splitlines()[0] in page
    tables = [line for line in page.splitlines() if line.startswith("|")]
    assert all(line.endswith("|") for line in tables)
    assert (written[1] / "edge-quick.svg").read_text("utf-8").startswith("<?xml")


def test_nothing_runs_on_afterwards(publish: Callable[[Path], Models], tmp_path: Path) -> None:
    before = set(psutil.Process().children(recursive=True))  # other tests keep an edge node
    main(["--quick", "--only", "start", "--out", str(tmp_path)], publish, PLAN)
    left = set(psutil.Process().children(recursive=True)) - before
    assert [p.cmdline() for p in left] == []


def test_one_subject_by_itself_is_written_under_its_own_name_and_printed(
    publish: Callable[[Path], Models], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["--quick", "--only", "hop", "--rounds", "1", "--json", "--out", str(tmp_path)]
    code = main(arguments, publish, PLAN)
    written = (tmp_path / "edge-quick-hop.json").read_text("utf-8")
    assert capsys.readouterr().out == written
    assert code in (0, 1)
    assert list(tmp_path.iterdir()) != []


def test_no_rounds_at_all_are_refused(publish: Callable[[Path], Models], tmp_path: Path) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(["--rounds", "0", "--out", str(tmp_path)], publish)
    assert stopped.value.code == 2
    assert list(tmp_path.iterdir()) == []
