"""The gateway's share for decisions, but for the cluster: `make bench-decision` has one."""

from __future__ import annotations

from dataclasses import asdict

import pytest

from load.access import NoGateway
from load.routing.share import ROADS, Round, decided_s, main, markdown, routing_s, verdicts

METRICS = """\
# TYPE prime_spark_gateway_decisions_total counter
prime_spark_gateway_decisions_total 100.0
# TYPE prime_spark_gateway_decision_seconds_total counter
prime_spark_gateway_decision_seconds_total 0.125
"""


def rounds(**shares: float) -> list[Round]:
    return [
        Round(road, 200.0, 200.0 * shares.get(road, 0.01) * off, 20.0, 4000.0)
        for road in ROADS
        for off in (0.5, 1.0, 3.0)
    ]


def test_the_gateway_itself_says_what_its_decisions_took() -> None:
    assert decided_s(METRICS) == 0.125
    with pytest.raises(NoGateway, match="decision_seconds"):
        decided_s("# TYPE other_total counter\nother_total 1.0\n")


def test_each_road_is_judged_by_the_median_of_its_rounds() -> None:
    assert [verdict.is_met for verdict in verdicts(rounds())] == [True, True, True]
    assert [verdict.is_met for verdict in verdicts(rounds(any=0.021))] == [True, True, False]


def test_the_page_has_a_row_for_each_road_and_says_what_did_not_hold() -> None:
    found = rounds(cloud=0.03)
    page = markdown(
        {
            "machine": {
                "date": "now", "commit": "c" * 40, "has_local_changes": False, "cores": 2,
                "load_before": [0.5],
            },
            "plan": {"model": "digits", "rounds": 3, "seconds": 5.0, "clients": 16},
            "rounds": [asdict(one) | {"share": one.share} for one in found],
            "marks": [asdict(verdict) for verdict in verdicts(found)],
        }
    )  # fmt: skip
    assert "| cloud | 4000 | 200 | 6.00 | 3.00 | 1.50 to 9.00 | 20.0 | **not held** |" in page
    assert page.count("| held |") == len(ROADS) - 1


def test_all_of_routing_takes_time() -> None:
    assert routing_s(3, 200, 1) > 0.0


@pytest.mark.parametrize("wrong", [["--rounds", "0"], ["--clients", "0"], ["--seconds", "0"]])
def test_nothing_to_measure_is_an_error(wrong: list[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(wrong)
