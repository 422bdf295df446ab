"""What is measured of a cluster becomes what is simulated, and figures are judged as they are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest

from edge_runtime.errors import InvalidInput
from load.http1 import request_bytes
from load.routing.fidelity import calibration
from load.routing.fidelity.calibration import Alone, Busy, Parameters, PlaceParameters
from load.routing.fidelity.judge import Cell, Figures, Seen, order, verdicts
from load.routing.fidelity.replayed import Stretch, simulate
from load.routing.fidelity.traffic import CLASSES, Arrival, Client, part
from load.simulator.trace import calm
from tests.load.server import response, serving

EDGE = PlaceParameters(
    "edge/e1", "edge", "e1", 0.09, 0.55, 0.0, 0.005, 2, True, usd_per_s=1e-6, usd_per_byte=0.0
)
CLOUD = PlaceParameters(
    "cloud", "cloud", "c1", 0.03, 0.5, 0.0, 0.002, 1, False, usd_per_s=1e-4, usd_per_byte=1e-9
)
MEASURED = Parameters((CLOUD, EDGE), 0.001, 0.0005, 0.4, "c1", 8)
PRIORS = {"cloud": 0.03, "edge/e1": 0.09}


def figures(seconds: float, misses: float = 0.0) -> Figures:
    return Figures(100, seconds, seconds, seconds, seconds, misses, {"cloud": 1.0})


def cell(subject: str, real: Sequence[float], simulated: float) -> Cell:
    return Cell(
        subject,
        0.5,
        figures(float(np.mean(real))),
        figures(simulated),
        [figures(one) for one in real],
        [figures(simulated)] * len(real),
    )


def test_a_place_is_measured_as_it_is() -> None:
    base_s, fixed, way_s = 0.09, 0.55, 0.005
    busy = [
        Busy(runs * base_s * (fixed + (1 - fixed) * rows), runs, runs * rows)
        for rows, runs in ((1, 60), (2, 40), (5, 20))
    ]
    taken = [base_s + way_s + noise for noise in (-0.002, 0.0, 0.002)]
    known = {"tier": "edge", "site": "e1", "usd_per_s": 1e-6, "usd_per_byte": 0.0}
    alone = Alone(taken, [one + 0.001 for one in taken], base_s)
    found = calibration.place("edge/e1", known, alone, busy, is_serial=True, workers=2)
    assert found.base_s == pytest.approx(base_s)
    assert found.fixed == pytest.approx(fixed)
    assert found.way_s == pytest.approx(way_s)
    assert calibration.door_s([alone]) == pytest.approx(0.001)


def test_batches_of_one_size_do_not_make_a_curve() -> None:
    with pytest.raises(ValueError, match="one size"):
        calibration.curve([(4.0, 0.1), (4.0, 0.11)], [10.0, 10.0])


def test_parameters_survive_being_written() -> None:
    assert Parameters.of(MEASURED.document()) == MEASURED


def test_a_part_of_a_trace_has_the_rate_that_is_asked_for_whatever_part_it_is() -> None:
    trace = calm(3, duration_s=600.0)
    for seed in range(5):
        found = part(trace, 40.0, 30.0, seed)
        assert len(found) == 1200
        assert found == sorted(found, key=lambda one: one.at_s)
        assert found[0].at_s == 0.0
        assert found[-1].at_s == pytest.approx(30.0)
        hurried = sum(one.slack_s == CLASSES[0][1] for one in found) / len(found)
        assert hurried == pytest.approx(CLASSES[0][0], abs=0.06)
    assert part(trace, 40.0, 30.0, 1) == part(trace, 40.0, 30.0, 1)
    with pytest.raises(InvalidInput, match="has"):
        part(trace, 1e4, 30.0, 1)


def test_one_request_at_a_time_takes_what_was_measured() -> None:
    arrivals = [Arrival(float(second), 1.5) for second in range(20)]
    both = [Stretch(10.0, "balanced", arrivals), Stretch(40.0, "latency", arrivals)]
    for found in simulate(
        MEASURED, PRIORS, both, "shortest_delay", origin_site="e1", judged_from_s=5.0, seed=1
    ):
        assert len(found) == 15
        taken = [one.taken_s for one in found if one.taken_s is not None]
        assert taken == pytest.approx([0.001 + 0.002 + 0.03] * 15)


def test_a_rule_that_knows_nothing_is_slower_than_one_that_does() -> None:
    arrivals = part(calm(3, duration_s=600.0), 0.6 * MEASURED.capacity, 40.0, 1)

    def mean_s(rule: str) -> float:
        (found,) = simulate(
            MEASURED, PRIORS, [Stretch(0.0, "balanced", arrivals)], rule,
            origin_site="e1", judged_from_s=0.0, seed=1,
        )  # fmt: skip
        return Figures.of(found).mean_s

    assert mean_s("shortest_delay") < 0.8 * mean_s("random")


def test_a_request_without_an_answer_counts_with_all_its_time() -> None:
    found = Figures.of([Seen(1.5, 0.1, "cloud"), Seen(1.5, None, ""), Seen(0.2, 0.1, "edge/e1")])
    assert found.mean_s == pytest.approx((0.1 + 1.5 + 0.1) / 3)
    assert found.misses == pytest.approx(1 / 3)
    assert found.share == {"cloud": 0.5, "edge/e1": 0.5}


def test_near_rules_have_no_order_and_those_apart_must_keep_theirs() -> None:
    real = {"a": [1.0, 0.5, 1.5], "b": [1.05, 0.6, 1.5], "c": [2.0, 1.9, 2.1], "d": [2.4, 1.8, 3.0]}
    found = order(real, {"a": 2.0, "b": 1.0, "c": 3.0, "d": 2.9})
    assert found.tied == 2  # a and b are near, the rounds do not agree on c and d
    assert (found.pairs, found.wrong, found.tau) == (4, [], 1.0)
    turned = order(real, {"a": 2.5, "b": 1.0, "c": 2.0, "d": 2.9})
    assert turned.wrong == [("a", "c")]
    assert turned.tau == pytest.approx(0.5)


def test_figures_beyond_the_margins_and_a_wrong_order_do_not_hold() -> None:
    cells = [cell("quick", [1.0, 1.1], 1.19), cell("slow", [2.0, 2.1], 1.1)]
    held = {(v.mark.subject, v.mark.title): v.is_met for v in verdicts(cells)}
    assert held["quick, 50%", "p50 simulated apart from real"]
    assert held["quick, 50%", "p99 simulated apart from real"]
    assert not held["slow, 50%", "p50 simulated apart from real"]
    assert not held["slow, 50%", "p99 simulated apart from real"]
    assert not held["50%", "order of rules by mean time, tau"]
    same = [replace(one, simulated=one.real, simulated_rounds=one.real_rounds) for one in cells]
    assert all(verdict.is_met for verdict in verdicts(same))


async def test_requests_are_sent_when_they_are_due_whatever_becomes_of_those_before() -> None:
    def answer(body: bytes) -> bytes | None:
        if body == b"lost":
            return None
        return response(200, b"{}", b"prime-spark-target: cloud\r\n")

    async with serving(answer) as server:
        requests = {
            slack_s: request_bytes("POST", "/", "here", body=body)
            for slack_s, body in ((0.2, b"quick"), (1.5, b"lost"))
        }
        client = Client("127.0.0.1", server.port, requests)
        arrivals = [Arrival(0.0, 0.2), Arrival(0.01, 1.5), Arrival(0.02, 0.2)]
        found = await client.replay(arrivals)
        client.close()
    assert [one.status for one in found] == [200, 0, 200]
    assert [one.target for one in found] == ["cloud", "", "cloud"]
    assert server.bodies == [b"quick", b"lost", b"quick"]
    assert all(one.taken_s >= one.late_s for one in found)
