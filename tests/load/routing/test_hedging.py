"""The benchmark of hedging: what it runs, how it judges, what it writes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from load.routing.hedging import OURS, RULES, cells_of, main, pairs_of, verdicts
from tests.load.routing.test_routing import result


def judged(hedged: dict[str, Any]) -> list[bool]:
    results = []
    for cell in cells_of(["t"], 3):
        changes = hedged if cell.hedge and cell.subject == OURS else {}
        results.append(result(cell, busy=0.05, **changes))
    return [verdict.is_met for verdict in verdicts(pairs_of(results))]


def test_hedging_that_changes_nothing_is_not_worth_it() -> None:
    assert judged({}) == [False, False, False, True]


def test_hedging_that_takes_a_tenth_off_the_p99_of_our_rule_is_worth_it() -> None:
    assert judged({"p99_s": 0.26}) == [True] * 4


def test_a_budget_that_is_overspent_is_told() -> None:
    assert judged({"p99_s": 0.26, "copies": 0.06}) == [True, True, True, False]


def test_the_command_writes_a_page_and_raw_results_in_pairs(tmp_path: Path) -> None:
    file = tmp_path / "tiny.csv"
    rows = [f"2023-11-16 18:17:{i // 10:02}.{i % 10},{100 + 37 * (i % 11)},5" for i in range(300)]
    file.write_text("TIMESTAMP,ContextTokens,GeneratedTokens\n" + "\n".join(rows) + "\n")
    assert main(["--trace", str(file), "--seeds", "1", "--out", str(tmp_path)]) in (0, 1)
    document = json.loads((tmp_path / "hedging.json").read_text())
    cells = [result["cell"] for result in document["results"]]
    assert [cell["hedge"] for cell in cells] == [False, True] * (3 * len(RULES))
    page = (tmp_path / "hedging.md").read_text()
    assert "## tiny, 85%" in page
    assert all(f"| {rule} |" in page for rule in RULES)


def test_there_is_nothing_to_compare_without_a_trace(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main([])
    assert "name a --trace" in capsys.readouterr().err


def test_a_file_that_is_no_trace_ends_the_command_with_its_reason(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--trace", str(tmp_path / "none.csv")]) == 2
    assert "cannot be read" in capsys.readouterr().err
