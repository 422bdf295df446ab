"""The regret of rules: paired by request, against who was cheaper, over all of the time."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from load.routing.regret import BINS, ORACLES, RULES, Run, Scenario, cheapest, main, run, summary
from load.routing.scenarios import WORLDS
from load.simulator.trace import calm

SHORT = calm(1, duration_s=60.0)
AT_S = np.arange(10.0)


def a_run(usd: float, missed: int) -> Run:
    """Return one with that price each, of which the last ones missed."""
    return Run(AT_S, np.full(10, usd), (10 - missed <= AT_S).astype(np.float64), [])


def test_regret_is_what_a_request_costs_more_with_what_a_miss_is_worth() -> None:
    runs = {"rule": [a_run(3.0, 2)], "bound": [a_run(1.0, 1)]}
    found = summary(runs, "bound", 20.0, (0.0, 20.0))["rule"]
    assert found["regret_usd"] == [pytest.approx(2.0 + 0.1 * 20.0)]
    assert found["regret_by_miss_usd"] == {"0": pytest.approx(2.0), "20": pytest.approx(4.0)}
    assert found["misses"] == pytest.approx(0.2)


def test_the_curve_adds_up_to_all_of_the_regret() -> None:
    runs = {"rule": [a_run(3.0, 2), a_run(2.0, 0)], "bound": [a_run(1.0, 1), a_run(1.0, 0)]}
    found = summary(runs, "bound", 20.0, (20.0,))["rule"]
    assert len(found["curve_usd"]) == BINS
    assert found["curve_usd"][-1] == pytest.approx(10 * np.mean(found["regret_usd"]))
    assert found["curve_usd"][BINS // 2] == pytest.approx((12.0 + 6.0) / 2, abs=2.0)
    assert set(summary(runs, "bound", 20.0, (20.0,))["bound"]["curve_usd"]) == {0.0}


def test_it_is_compared_with_whoever_was_cheaper() -> None:
    runs = {"fast": [a_run(5.0, 0)], "cheap": [a_run(1.0, 3)]}
    assert cheapest(runs, ["fast", "cheap"], 1.0) == "cheap"
    assert cheapest(runs, ["fast", "cheap"], 100.0) == "fast"


@pytest.mark.parametrize("world", WORLDS)
def test_all_rules_get_the_same_requests(world: str) -> None:
    scenario = Scenario("short", SHORT, world)
    ours = run(scenario, 0.6, "learned", 1)
    bound = run(scenario, 0.6, "omniscient, delay", 1)
    assert np.array_equal(ours.at_s, bound.at_s)
    assert len(ours.decisions) >= len(ours.at_s)
    assert not bound.decisions


def test_the_command_writes_page_picture_and_raw_results(tmp_path: Path) -> None:
    file = tmp_path / "tiny.csv"
    rows = [f"2023-11-16 18:17:{i // 10:02}.{i % 10},{100 + 37 * (i % 11)},5" for i in range(300)]
    file.write_text("TIMESTAMP,ContextTokens,GeneratedTokens\n" + "\n".join(rows) + "\n")
    options = ["--trace", str(file), "--seeds", "1", "--calm-s", "20", "--out", str(tmp_path)]
    assert main(options) == 0
    document = json.loads((tmp_path / "regret.json").read_text())
    names = [scenario["name"] for scenario in document["scenarios"]]
    assert names == ["tiny", "calm", "calm, drifting", "calm, swinging", "calm, misled"]
    for scenario in document["scenarios"]:
        assert set(scenario["rules"]) == {*RULES, *ORACLES}
        assert scenario["rules"][scenario["oracle"]]["regret_usd"] == [0.0]
        assert len(scenario["rules"]["learned"]["believed"]) == BINS
        assert scenario["rules"]["balanced"]["believed"] == []
    page = (tmp_path / "regret.md").read_text()
    assert "## calm, drifting" in page
    assert "`learned`: believed for" in page
    assert (tmp_path / "regret.svg").stat().st_size > 1000


def test_a_model_that_is_told_lies_is_not_believed_while_it_is() -> None:
    trace = calm(2, duration_s=1500.0)
    found = run(Scenario("misled", trace, "throttled", is_misled=True), 0.6, "learned_latency", 1)
    marked = summary({"rule": [found]}, "rule", 1.0, (1.0,))["rule"]
    before, meanwhile = marked["believed"][12:18], marked["believed"][26:36]
    assert np.mean(before) > 0.3
    assert np.mean(meanwhile) < 0.1
    assert np.mean(marked["changed"][26:36]) < 0.05


def test_a_file_that_is_no_trace_ends_the_command_with_its_reason(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--trace", str(tmp_path / "none.csv")]) == 2
    assert "cannot be read" in capsys.readouterr().err


@pytest.mark.parametrize(
    "options",
    [
        ["--seeds", "0"],
        ["--utilisation", "0"],
        ["--calm-s", "1"],
        ["--miss-usd", "nan"],
        ["--only", "x"],
    ],
)
def test_options_that_make_no_sense_are_refused(options: list[str]) -> None:
    with pytest.raises(SystemExit):
        main(options)
