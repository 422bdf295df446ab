"""The report of latency against cost and carbon."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from cluster.cost.prices import read_book
from load.routing.cells import Cell, run
from load.routing.pareto import (
    ACROSS,
    BOUND,
    COMPARED,
    UPWARDS,
    is_on_front,
    main,
    named,
    table,
    with_risk,
)
from load.routing.rules import SUBJECTS
from load.simulator.trace import calm
from policies.cost import Price

SHORT = calm(1, duration_s=60.0)
CELL = Cell("calm", 0.6, True, "balanced", 1)
COST, MISSES = ACROSS["micro-dollars a request"], UPWARDS["misses, %"]


def test_our_rule_with_the_budget_of_an_objective_is_that_objective() -> None:
    assert named(0.004) == "balanced (0.004)"
    assert named(0.03) == "risk 0.03"
    assert run(SHORT, CELL, with_risk(0.004)) == run(SHORT, CELL)
    latency = replace(CELL, subject="latency")
    assert run(SHORT, latency, with_risk(0.0)) == run(SHORT, latency, SUBJECTS["latency"])


def test_prices_change_what_a_request_costs_and_watts_what_it_emits() -> None:
    book = read_book()
    cheap = run(SHORT, CELL, SUBJECTS["shortest_delay"], book)
    priced = replace(book, carbon_usd_per_tonne=Price(1e6))
    dear = run(SHORT, CELL, SUBJECTS["shortest_delay"], priced)
    assert (dear.p99_s, dear.carbon_g) == (cheap.p99_s, cheap.carbon_g)
    # A million dollars a tonne is a dollar a gram.
    assert dear.cost_usd - cheap.cost_usd == pytest.approx(cheap.carbon_g)
    assert cheap.carbon_g == pytest.approx(cheap.joules * 436 / 3.6e6)
    assert cheap.standing_j > 0.0


def test_the_front_has_no_rule_that_another_beats_and_never_the_omniscient_router() -> None:
    best = replace(run(SHORT, CELL), misses=0.1, cost_usd=2e-6)
    results = [
        best,
        replace(best, misses=0.2, cost_usd=3e-6),
        replace(best, misses=0.2, cost_usd=1e-6),
        replace(best, cell=replace(CELL, subject=BOUND), misses=0.0, cost_usd=0.0),
    ]
    assert [is_on_front(one, results, COST, MISSES) for one in results] == [
        True,
        False,
        True,
        False,
    ]
    rows = table(results).splitlines()[2:]
    assert [row.split("|")[6].strip() for row in rows] == ["2*", "3", "1*", "0"]


def test_the_command_writes_table_picture_and_raw_results(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    trace = tmp_path / "tiny.csv"
    rows = [f"2023-11-16 18:17:{i // 10:02}.{i % 10},{100 + 37 * (i % 11)},5" for i in range(300)]
    trace.write_text("TIMESTAMP,ContextTokens,GeneratedTokens\n" + "\n".join(rows) + "\n")
    options = ["--trace", str(trace), "--risks", "0,0.1", "--processes", "1", "--json"]
    assert main([*options, "--out", str(tmp_path)]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document == json.loads((tmp_path / "pareto.json").read_text())
    shown = [point["cell"]["subject"] for point in document["points"]]
    assert shown == ["latency (0)", "risk 0.1", *COMPARED]
    assert all(name in (tmp_path / "pareto.svg").read_text() for name in ("risk 0.1", BOUND))
    assert (tmp_path / "pareto.md").read_text().count("\n") == 2 + len(shown)


@pytest.mark.parametrize(
    "options", [["--risks", "0,2"], ["--risks", "a"], ["--utilisation", "0"], ["--processes", "0"]]
)
def test_an_option_that_makes_no_sense_is_refused(options: list[str]) -> None:
    with pytest.raises(SystemExit) as error:
        main(options)
    assert error.value.code == 2


@pytest.mark.parametrize("option", ["--trace", "--prices"])
def test_a_file_that_is_not_there_is_named(
    tmp_path: Path, option: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([option, str(tmp_path / "nowhere"), "--out", str(tmp_path)]) == 2
    assert "nowhere" in capsys.readouterr().err
