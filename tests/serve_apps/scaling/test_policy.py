from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from cluster.config import Settings
from serve_apps.scaling import spool
from serve_apps.scaling.policy import Decider, PredictivePolicy, decision_log, rule_of
from serve_apps.scaling.spool import STALE_S, Outlook

SETTINGS = Settings.model_validate(
    {
        "inference": {
            "scaling": "predictive",
            "min_replicas": 1,
            "max_replicas": 8,
            "target_ongoing_requests": 2.0,
            "upscale_delay_s": 5.0,
            "utilisation": 0.5,
        }
    }
)


class Controller:
    """Asks as Serve's controller does, ten times a second."""

    def __init__(self, folder: Path, settings: Settings = SETTINGS) -> None:
        self.now = 1000.0
        self.target = 1
        self.told: list[dict[str, Any]] = []
        self.folder = folder
        self._decider = Decider(rule_of(settings), folder, self.told.append, lambda: self.now)

    def forecast(self, peak: float, why_not: str = "", idle_s: float = 0.0) -> None:
        outlook = Outlook(
            self.now,
            idle_s=idle_s,
            capacity=1.0,
            peak=peak,
            why_not=why_not,
            forecast_at_s=self.now,
        )
        spool.write(spool.forecast_path(self.folder), outlook)

    def ask(self, seconds: float = 0.1, ongoing: float = 1.0) -> int:
        for _ in range(round(seconds * 10)):
            self.now += 0.1
            self.target = self._decider.decide(self.target, self.target, ongoing)
        return self.target


def test_the_latest_forecast_decides_and_is_written_down(tmp_path: Path) -> None:
    controller = Controller(tmp_path)
    controller.forecast(2.0)
    assert controller.ask() == 4
    (line,) = controller.told
    assert (line["from"], line["to"], line["rule"], line["reason"]) == (
        1,
        4,
        "predictive",
        "forecast",
    )
    assert line["seen"]["forecast"]["peak"] == 2.0
    controller.ask(5.0)
    assert len(controller.told) == 1


def test_a_forecaster_that_died_is_noticed_and_requests_in_progress_decide(tmp_path: Path) -> None:
    controller = Controller(tmp_path)
    controller.forecast(0.4)
    controller.ask(1.0)
    assert controller.ask(STALE_S - 2.0, ongoing=12.0) == 1
    assert controller.ask(8.0, ongoing=12.0) == 6
    assert controller.told[-1]["rule"] == "reactive"
    controller.forecast(1.5)
    assert controller.ask() == 3


def test_a_forecast_that_is_no_good_is_not_followed(tmp_path: Path) -> None:
    controller = Controller(tmp_path)
    controller.forecast(4.0, why_not="error")
    assert controller.ask(3.0) == 1


def test_the_budget_of_an_hour_holds(tmp_path: Path) -> None:
    scale = SETTINGS.inference.model_copy(update={"budget_replicas": 2.0})
    controller = Controller(tmp_path, SETTINGS.model_copy(update={"inference": scale}))
    spent = 0.0
    for _ in range(3600):
        controller.forecast(3.9)
        spent += controller.ask(1.0)
    assert 1.9 * 3600 < spent <= 2.0 * 3600 + 8
    assert {line["reason"] for line in controller.told} >= {"forecast", "budget"}


def _sleepy(folder: Path) -> Controller:
    scale = SETTINGS.inference.model_copy(update={"min_replicas": 0, "sleep_after_s": 60.0})
    return Controller(folder, SETTINGS.model_copy(update={"inference": scale}))


@pytest.mark.parametrize("why_not", ["", "no_history"])
def test_the_last_replica_ends_after_the_time_that_was_set(tmp_path: Path, why_not: str) -> None:
    controller = _sleepy(tmp_path)
    for second in range(70):
        controller.forecast(0.0, why_not, idle_s=100.0 + second)
        if not controller.ask(1.0, ongoing=0.0):
            break
    assert 59 <= second <= 60
    assert controller.told[-1]["reason"] == "idle"


def test_a_peak_that_is_foreseen_keeps_it(tmp_path: Path) -> None:
    controller = _sleepy(tmp_path)
    for second in range(200):
        controller.forecast(0.1, idle_s=100.0 + second)
        assert controller.ask(1.0, ongoing=0.0) == 1


def test_what_serve_wakes_by_itself_is_written_down_and_stays_for_that_time(
    tmp_path: Path,
) -> None:
    controller = _sleepy(tmp_path)
    controller.target = 0
    controller.forecast(0.0, idle_s=500.0)
    assert controller.ask(1.0, ongoing=0.0) == 0
    controller.target = 1
    for second in range(58):
        controller.forecast(0.0, idle_s=500.0 + second)
        assert controller.ask(1.0, ongoing=0.0) == 1
    (line,) = controller.told
    assert (line["from"], line["to"], line["reason"], line["rule"]) == (0, 1, "wake", "serve")


def test_decisions_are_json_lines_in_a_bounded_file(tmp_path: Path) -> None:
    tell = decision_log(tmp_path / "scaling.log")
    for number in range(3):
        tell({"to": number})
    lines = [json.loads(line) for line in (tmp_path / "scaling.log").read_text().splitlines()]
    assert [line["to"] for line in lines] == [0, 1, 2]
    assert all(line["at"] > 1e9 for line in lines)


def test_serve_gets_whole_replicas_from_what_it_was_given(tmp_path: Path) -> None:
    policy = PredictivePolicy(
        SETTINGS.model_dump(mode="json"), str(tmp_path), str(tmp_path / "scaling.log")
    )

    class Context:
        current_num_replicas = 1
        target_num_replicas = 1
        total_num_requests = 1.5

    assert policy(Context()) == (1, {})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"budget_replicas": 2.0}, "needs scaling 'predictive'"),
        ({"scaling": "predictive", "budget_replicas": 1.0, "min_replicas": 2}, "does not pay"),
        ({"season_s": 60.0}, "9.6 times start_s"),
        ({"min_replicas": -1}, "min_replicas"),
    ],
)
def test_settings_that_cannot_be_kept_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Settings.model_validate({"inference": {"max_replicas": 4, **changes}})
