from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from load.scaling.__main__ import main
from load.scaling.rules import Fixed, Omniscient
from load.scaling.shapes import SHAPES
from load.scaling.simulation import SLOTS, WORK_PER_S, Plan, Traffic, simulate
from load.simulator.trace import Trace, calm
from policies.scaling import Bounds, Decision, Memory, Observed, Predictive, Reactive, Season

SERVICE_S = SLOTS / WORK_PER_S  # of a request of unit work


def _waits(times: list[float], replicas: int) -> list[float]:
    """First come, first served by so many slots, worked out the slow way (Lindley)."""
    free = [0.0] * (replicas * SLOTS)
    found = []
    for at in times:
        slot = min(range(len(free)), key=free.__getitem__)
        start = max(at, free[slot])
        free[slot] = start + SERVICE_S
        found.append(start - at)
    return found


@settings(deadline=None)
@given(st.lists(st.floats(0, 20), min_size=2, max_size=120).map(sorted), st.integers(1, 3))
def test_waits_are_those_of_a_queue_first_come_first_served(
    times: list[float], replicas: int
) -> None:
    traffic = Traffic(np.array(times), np.ones(len(times)))
    # As many as the first minute needs are there at once; the rule keeps to them.
    begin = max(1, int(np.ceil(traffic.came()[:60].mean() / (0.7 * WORK_PER_S))))
    found = simulate(Plan(traffic, Fixed(begin)))
    assert found.waits.tolist() == pytest.approx(_waits(times, begin))


def test_replicas_that_become_slower_are_seen_to_be() -> None:
    traffic = Traffic(np.arange(0.0, 100.0, 1.0), np.ones(100), slower=3.0)
    assert traffic.capacity().tolist() == [WORK_PER_S] * 50 + [WORK_PER_S / 3.0] * 50
    learned = _learned(traffic, 1)
    assert learned[50.0] == pytest.approx(WORK_PER_S)
    assert WORK_PER_S / 3.0 < learned[100.0] < 0.6 * WORK_PER_S  # as much of what was as of what is


def test_they_are_soon_seen_to_be_where_requests_wait() -> None:
    times = np.arange(0.0, 100.0, 0.05)
    learned = _learned(Traffic(times, np.ones(len(times)), slower=3.0), 2)
    assert learned[50.0] == pytest.approx(WORK_PER_S)
    assert learned[95.0] == pytest.approx(WORK_PER_S / 3.0, rel=0.15)


def _learned(traffic: Traffic, replicas: int) -> dict[float, float]:
    """Return what so many replicas are taken to do, by the time."""
    found: dict[float, float] = {}

    class Watching:
        def decide(self, seen: Observed, memory: Memory) -> tuple[Decision, Memory]:
            found[seen.now] = seen.capacity
            return Fixed(replicas).decide(seen, memory)

    simulate(Plan(traffic, Watching()))
    return found


def test_a_new_replica_serves_after_its_cold_start_and_is_paid_for_from_the_decision() -> None:
    times = np.sort(np.random.default_rng(1).uniform(0, 60, 200))
    found = simulate(Plan(Traffic(times, np.ones(200)), Fixed(5), cold_s=10.0))
    assert found.replicas[0] == 1
    assert set(found.replicas[1:].tolist()) == {5.0}


def test_what_waited_too_long_is_refused_and_counts_as_a_miss() -> None:
    times = np.concatenate((np.linspace(0, 1, 100), [30.0]))
    traffic = Traffic(times, np.ones(101))
    patient, strict = (simulate(Plan(traffic, Fixed(1), refuse_s=each)) for each in (None, 0.5))
    assert np.isfinite(patient.waits).all()
    assert np.isnan(strict.waits).sum() > 50
    assert np.nanmax(strict.waits) <= 0.5
    assert strict.misses == pytest.approx(np.isnan(strict.waits).mean())


def test_replicas_that_are_taken_away_finish_what_they_run() -> None:
    trace = calm(5, 60.0, 400.0)
    traffic = Traffic.of(trace, 5.0, 5)
    rule = Reactive(Bounds(1, 40), 0.7 * SLOTS, 1.0, 2.0)
    found = simulate(Plan(traffic, rule))
    assert np.isfinite(found.waits).all()
    assert found.reasons["less_load"] > 3


def test_a_trace_with_few_requests_keeps_its_bursts_at_a_higher_load() -> None:
    times = np.concatenate((np.arange(0, 100, 5.0), 50 + np.linspace(0, 0.9, 30)))
    trace = Trace("few", np.sort(times), np.ones(50))
    found = Traffic.of(trace, 5.0, 1)
    assert found.works.sum() / 95 == pytest.approx(60.0, rel=0.1)
    assert found.came().argmax() in (50, 51)
    assert found.works.mean() == pytest.approx(1.0)


@pytest.mark.parametrize("name", list(SHAPES))
def test_shapes_have_the_rate_asked_for_and_repeat_by_seed(name: str) -> None:
    one, again, other = (SHAPES[name](seed, 30.0) for seed in (1, 1, 2))
    assert one.rate == pytest.approx(30.0, rel=0.05)
    assert one.times.tolist() == again.times.tolist()
    assert one.times.tolist() != other.times.tolist()


def test_a_run_is_the_same_for_the_same_seed() -> None:
    traffic = Traffic.of(SHAPES["step"](1, 60.0), 5.0, 1)
    rule = Reactive(Bounds(1, 40), 2.8)
    one, again = (simulate(Plan(traffic, rule, seed=3)) for _ in range(2))
    assert one.replicas.tolist() == again.replicas.tolist()
    assert one.waits.tolist() == again.waits.tolist()


def test_knowing_the_season_spares_misses_and_knowing_the_future_more() -> None:
    traffic = Traffic.of(SHAPES["bells"](7, 60.0), 5.0, 7)
    tuned = Reactive(Bounds(1, 40), 0.7 * SLOTS)
    reacting = simulate(Plan(traffic, tuned))
    foreseeing = simulate(Plan(traffic, Predictive(tuned), Season.of(1440.0, 10.0)))
    knowing = simulate(Plan(traffic, Omniscient(traffic, 10.0)))
    assert knowing.misses < foreseeing.misses < 0.5 * reacting.misses
    assert foreseeing.replicas.mean() < reacting.replicas.mean()


def test_a_budget_holds_over_a_whole_run() -> None:
    traffic = Traffic.of(calm(2, 60.0, 4000.0), 5.0, 2)
    rule = Predictive(Reactive(Bounds(1, 40, 6.0 * 3600), 0.7 * SLOTS))
    found = simulate(Plan(traffic, rule, Season.of(1440.0, 10.0)))
    hours = np.convolve(found.replicas, np.ones(3600), "valid")
    assert hours.max() <= 6.0 * 3600 + 40  # those that leave end what they run
    assert found.reasons.get("budget", 0) > 0


def test_the_benchmark_writes_its_page_and_judges(tmp_path: Path) -> None:
    main(["--shape", "ramp", "--seeds", "1", "--processes", "1", "--out", str(tmp_path)])
    document = json.loads((tmp_path / "scaling.json").read_text())
    page = (tmp_path / "scaling.md").read_text()
    assert (tmp_path / "scaling.svg").stat().st_size > 0
    held = sum(verdict["is_met"] for verdict in document["marks"])
    assert f"Marks: {held} of 2 held" in page
    replicas = {
        result["cell"]["subject"]: result["replicas"]
        for result in document["results"]
        if result["cell"]["variant"] == "plain"
    }
    mark = document["marks"][1]
    rival = mark["mark"]["title"].rpartition(" ")[2]
    assert mark["found"]["value"] == pytest.approx(replicas["predictive"] / replicas[rival])
    assert replicas["fixed"] == pytest.approx(12.0, abs=0.01)


def test_a_trace_that_cannot_be_read_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--trace", str(tmp_path / "none.csv")]) == 2
    assert "a trace cannot be read" in capsys.readouterr().err
