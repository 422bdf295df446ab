"""The benchmark of routing rules: what it runs, how it judges, what it writes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from load.routing.__main__ import cells_of, main
from load.routing.cells import BINS, Cell, Result, run
from load.routing.judge import Table, verdicts
from load.routing.plot import front
from load.routing.report import half_width
from load.routing.rules import SUBJECTS, taking_all
from load.simulator.trace import Trace, calm
from policies.routing import RULES, Decision, Hopeless, Request, RoutingTable, Target, choose
from policies.routing.types import SLACKS

SHORT = calm(1, duration_s=60.0)


def result(cell: Cell, **changes: Any) -> Result:
    values: dict[str, Any] = {
        "cell": cell,
        "requests": 1000,
        "p50_s": 0.1,
        "p95_s": 0.2,
        "p99_s": 0.3,
        "misses": 0.1,
        "interactive": 0.1,
        "cost_usd": 1e-5,
        "calibration": ((0, 0.0, 0.0),) * (len(BINS) - 1),
        "cut_misses": 0.1,
        "dead_sends": 0,
    }
    return Result(**{**values, **changes})


def judged(trace: Trace, **worse: Any) -> dict[str, bool]:
    """Judge results that are alike, but for what `balanced` and `latency` do worse."""
    results = [
        result(cell, **(worse if cell.subject in ("balanced", "latency") else {}))
        for cell in cells_of([trace.name], 3)
    ]
    found = verdicts(Table(results), {trace.name: trace})
    return {f"{v.mark.subject}: {v.mark.title}": v.is_met for v in found}


def test_rules_that_are_as_good_as_the_best_hold_all_marks_but_that_of_the_price() -> None:
    found = judged(SHORT)
    assert len(found) == 6 + 6 + 8 + 3
    failed = [title for title, is_met in found.items() if not is_met]
    assert all("cost" in title or "by arrival" in title for title in failed)
    assert sum("cost" in title for title in failed) == 3


@pytest.mark.parametrize(
    ("worse", "says"),
    [
        ({"p99_s": 0.4}, "p99 of `latency` / omniscient"),
        ({"misses": 0.3}, "goodput of `balanced`"),
        ({"interactive": 0.3}, "interactive goodput"),
        ({"dead_sends": 1}, "dead target"),
        ({"cut_misses": 0.2}, "goodput meanwhile"),
        ({"calibration": ((500, 0.07, 0.3),) * 5}, "P(late) 0.05 to 0.1"),
    ],
)
def test_a_rule_that_is_worse_fails_the_mark_for_it(worse: dict[str, Any], says: str) -> None:
    before, after = judged(SHORT), judged(SHORT, **worse)
    broken = [title for title, is_met in after.items() if not is_met and before.get(title, True)]
    assert any(says in title for title in broken)


def test_a_cell_runs_and_counts_what_was_late() -> None:
    found = run(SHORT, Cell("calm", 0.6, True, "balanced", 1))
    assert 0.0 <= found.misses <= 1.0
    assert 0.0 < found.p50_s <= found.p95_s <= found.p99_s
    assert found.requests == 3 * len(SHORT.times)
    again = run(SHORT, Cell("calm", 0.6, True, "balanced", 1))
    assert again == found


def test_nobody_is_refused_where_delays_are_compared() -> None:
    table = RoutingTable(
        [Target("slow", "edge", "a", service_s=1.0, row_s=1.0, ahead_s=(9.0,) * len(SLACKS))]
    )
    assert isinstance(choose(Request(0.5), table, 0.0), Hopeless)
    eager = taking_all(choose)
    assert eager is not None
    assert isinstance(eager(Request(0.5), table, 0.0), Decision)
    assert taking_all(RULES["nearest"]) is RULES["nearest"]


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), min_size=1, max_size=20))
def test_the_front_has_who_is_beaten_by_nobody(points: list[tuple[int, int]]) -> None:
    kept = front(points)
    for x, y in points:
        beaten = any(a <= x and b <= y and (a, b) != (x, y) for a, b in points)
        assert ((x, y) in kept) == (not beaten)


def test_an_interval_narrows_with_the_number_of_seeds() -> None:
    assert half_width([1.0]) == 0.0
    assert half_width([1.0, 2.0, 3.0]) == pytest.approx(4.30 / 3**0.5)
    assert half_width([1.0, 2.0, 3.0] * 3) < half_width([1.0, 2.0, 3.0])


def test_the_command_writes_page_picture_and_raw_results(tmp_path: Path) -> None:
    file = tmp_path / "tiny.csv"
    rows = [f"2023-11-16 18:17:{i // 10:02}.{i % 10},{100 + 37 * (i % 11)},5" for i in range(300)]
    file.write_text("TIMESTAMP,ContextTokens,GeneratedTokens\n" + "\n".join(rows) + "\n")
    options = ["--trace", str(file), "--no-calm", "--seeds", "1", "--processes", "1"]
    assert main([*options, "--out", str(tmp_path)]) in (0, 1)
    document = json.loads((tmp_path / "routing.json").read_text())
    assert {r["cell"]["subject"] for r in document["results"]} == set(SUBJECTS)
    page = (tmp_path / "routing.md").read_text()
    assert "## tiny, 85%, queues by deadline" in page
    assert (tmp_path / "routing.svg").stat().st_size > 1000


def test_a_file_that_is_no_trace_ends_the_command_with_its_reason(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--trace", str(tmp_path / "none.csv")]) == 2
    assert "cannot be read" in capsys.readouterr().err
