from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from serve_apps.scaling.ledger import MODELS, Ledger
from serve_apps.scaling.spool import GatewayCounts, Outlook

BEGIN = 1_700_000_000.0
DAY_S = 240.0


def _ledger(season_s: float = DAY_S, *, spare_edge: bool = False) -> Ledger:
    return Ledger(season_s, 5.0, spare_edge)


def _run(
    ledger: Ledger,
    rate: Callable[[int], int],
    seconds: int,
    begin: float = BEGIN,
    busy: float = 0.0,
    target: str = "cloud",
    done: Callable[[int], int] | None = None,
    replicas: int = 1,
    waiting: int = 0,
) -> Outlook:
    """Let a gateway count so many requests of 0.1 s each second, all answered if not said else."""
    came = answered = 0
    for second in range(seconds):
        came += rate(second)
        answered += (done or rate)(second)
        counts = GatewayCounts(
            "a", float(second), {"m": {target: came}}, {"m": 0.1}, replicas, busy,
            done={"m": answered}, waiting=waiting,
        )  # fmt: skip
        ledger.take({"gateway-0.json": counts}, begin + second)
    return ledger.outlook(begin + seconds - 1, float(seconds - 1))


def test_the_work_that_came_is_counted_second_by_second() -> None:
    found = _run(_ledger(), lambda second: 30 if second >= 100 else 10, 103)
    assert found.rate == pytest.approx(3.0)
    assert found.fast_rate == pytest.approx(2.0)
    assert found.long_rate == pytest.approx((57 * 1.0 + 3 * 3.0) / 60)
    assert found.idle_s == 0.0


def test_only_what_the_cloud_was_asked_for_keeps_it_awake() -> None:
    ledger = _ledger()
    assert _run(ledger, lambda second: 0, 50).idle_s == 49.0  # as far as one knows
    busy = _run(_ledger(), lambda second: 1 if second < 30 else 0, 50)
    assert busy.idle_s == 20.0
    assert _run(_ledger(), lambda second: 1, 50, target="edge/lab").idle_s == 49.0


def test_several_gateways_add_up_and_one_that_begins_anew_is_not_counted_twice() -> None:
    ledger = _ledger()
    for second, (life, one, other) in enumerate(
        [("a", 10, 5), ("a", 20, 8), ("b", 4, 11), ("b", 7, 14)]
    ):
        counts = {
            "gateway-0.json": GatewayCounts(life, float(second), {"m": {"cloud": one}}, {"m": 1.0}),
            "gateway-1.json": GatewayCounts(
                "z", float(second), {"m": {"cloud": other}}, {"m": 1.0}
            ),
        }
        ledger.take(counts, BEGIN + second)
    found = ledger.outlook(BEGIN + 3, 3.0)
    # 10 + 3, then 3 of the second gateway alone, then 3 + 3.
    assert found.rate == pytest.approx((13 + 3 + 6) / 3)


def test_what_replicas_do_in_a_second_is_measured() -> None:
    assert _run(_ledger(), lambda _: 5, 400, busy=1.0).capacity == pytest.approx(0.51, abs=0.03)
    assert _run(_ledger(), lambda _: 5, 400, busy=0.25).capacity == pytest.approx(1.95, abs=0.1)
    # Requests of 64 rows each, where the time of one row is told.
    assert _run(_ledger(), lambda _: 1, 400, busy=6.4).capacity == pytest.approx(1 / 64, rel=0.1)


def test_answers_tell_how_fast_replicas_are_and_not_what_came() -> None:
    found = _run(_ledger(), lambda _: 50, 400, busy=1.0, done=lambda _: 5)
    assert found.capacity == pytest.approx(0.51, abs=0.03)


@pytest.mark.parametrize(("waiting", "least", "most"), [(3, 0.5, 0.6), (2, 1.2, 1.6)])
def test_a_capacity_that_was_wrong_is_soon_right_where_requests_wait_at_all_replicas(
    waiting: int, least: float, most: float
) -> None:
    ledger = _ledger()
    assert _run(ledger, lambda _: 60, 400, busy=3.0, replicas=3).capacity > 1.9
    found = _run(
        ledger, lambda _: 99, 60, BEGIN + 400, 3.0, done=lambda _: 15, replicas=3, waiting=waiting
    )
    assert least < found.capacity < most


def test_answers_that_take_several_seconds_tell_the_same() -> None:
    found = _run(
        _ledger(), lambda _: 5, 400, busy=1.0, done=lambda second: 20 * (second % 4 == 3), waiting=1
    )
    assert found.capacity == pytest.approx(0.5, abs=0.1)


def test_as_long_as_nothing_is_answered_nothing_is_learned() -> None:
    ledger = _ledger()
    found = _run(ledger, lambda _: 5, 50, busy=1.0, done=lambda _: 0, waiting=1)
    assert found.capacity == 1.0


def test_a_gateway_that_is_new_tells_nothing_of_the_time_before() -> None:
    ledger = _ledger()
    counts = GatewayCounts("a", 0.0, {"m": {"cloud": 99}}, {"m": 0.1}, 1, 1.0, done={"m": 99})
    ledger.take({"gateway-0.json": counts}, BEGIN)
    assert ledger.outlook(BEGIN, 0.0).capacity == 1.0


def test_answers_of_several_gateways_add_up() -> None:
    ledger = _ledger()
    for second in range(200):
        counts = {
            f"gateway-{slot}.json": GatewayCounts(
                "a", float(second), {}, {"m": 0.1}, 1, 1.0, done={"m": 5 * second}
            )
            for slot in range(2)
        }
        ledger.take(counts, BEGIN + second)
    assert ledger.outlook(BEGIN + 199, 199.0).capacity == pytest.approx(1.0, abs=0.02)


def test_a_peak_of_past_days_is_expected_after_a_restart_too(tmp_path: Path) -> None:
    def rate(second: int) -> int:
        phase = (BEGIN + second) % DAY_S
        return 100 if 100 <= phase < 130 else 20

    ledger, path = _ledger(), tmp_path / "scaling" / "history.npz"
    lasting = int(2 * DAY_S) + 60
    _run(ledger, rate, lasting)
    ledger.save(path, BEGIN + lasting)
    again = _ledger()
    again.load(path, BEGIN + lasting)
    # Until shortly before the next peak.
    more = int((96 - (BEGIN + lasting)) % DAY_S)
    found = _run(again, lambda second: rate(second + lasting), more, BEGIN + lasting)
    assert (found.basis, found.why_not) == ("season", "")
    assert found.peak > 9.0
    forgetful = _run(_ledger(), lambda second: rate(second + lasting), more, BEGIN + lasting)
    assert forgetful.peak < 9.0


@pytest.mark.parametrize("content", [b"", b"no archive", b"PK\x03\x04 cut"])
def test_a_damaged_history_is_left_alone(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "history.npz"
    path.write_bytes(content)
    ledger = _ledger()
    ledger.load(path, BEGIN)
    assert _run(ledger, lambda _: 10, 5).why_not == "no_history"


def test_a_history_of_another_season_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "history.npz"
    ledger = _ledger(86400.0)
    _run(ledger, lambda _: 10, 300)
    ledger.save(path, BEGIN + 300)
    other = _ledger()
    other.load(path, BEGIN + 300)
    assert other.outlook(BEGIN + 300, 300.0).seasons == 0


def test_models_are_bounded_and_the_one_with_the_least_work_goes(tmp_path: Path) -> None:
    ledger = _ledger()
    for second in range(3):
        came = {f"m{n}": {"cloud": second * (n + 1)} for n in range(MODELS + 5)}
        counts = GatewayCounts("a", float(second), came, dict.fromkeys(came, 1.0))
        ledger.take({"gateway-0.json": counts}, BEGIN + second)
    path = tmp_path / "history.npz"
    ledger.save(path, BEGIN + 3)
    with np.load(path) as file:
        assert len([name for name in file if name.startswith("works_")]) == MODELS


def test_the_work_of_the_busiest_edge_site_is_spared_where_it_is_asked_for() -> None:
    found = _run(_ledger(spare_edge=True), lambda _: 20, 100, target="edge/lab")
    assert found.rate == 0.0
    assert found.spare == pytest.approx(2.0)
    assert _run(_ledger(), lambda _: 20, 100, target="edge/lab").spare == 0.0


def test_a_season_is_found_where_none_is_given() -> None:
    period_s = 3600.0
    ledger = Ledger(0.0, 10.0, spare_edge=False)
    assert ledger.outlook(BEGIN, 0.0).period_s == 86400.0
    came = 0
    for minute in range(300):
        came += 30 if minute % 60 < 20 else 5
        counts = GatewayCounts("a", 60.0 * minute, {"m": {"cloud": came}}, {"m": 1.0})
        ledger.take({"gateway-0.json": counts}, BEGIN + 60.0 * minute)
    found = ledger.outlook(BEGIN + 60.0 * 300, 0.0)
    assert found.period_s == pytest.approx(period_s, rel=0.05)
