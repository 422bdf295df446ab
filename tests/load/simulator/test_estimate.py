"""What a fleet takes is found again from the log of a fleet whose times are known."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from edge_runtime.errors import InvalidInput
from load.simulator.estimate import Estimate, PlaceEstimate, estimate
from load.simulator.readers import read
from load.simulator.recording import Recorded, Recording, recording_of
from policies.routing.sizes import bucket
from tests.load.simulator import logs

SMALL, LARGE = bucket(logs.SMALL), bucket(logs.LARGE)


def recorded(folder: Path, rate: float, *, says_work: bool = False) -> Recording:
    found = logs.lines(logs.fleet(), logs.traffic(1, rate, 6000 / rate), says_work=says_work)
    return read(logs.write(folder, list(found)))


def place(found: Estimate, name: str) -> PlaceEstimate:
    return next(place for place in found.places if place.name == name)


@pytest.mark.parametrize("rate", [5.0, 20.0, 60.0])
def test_times_are_found_from_requests_that_found_the_place_empty(
    tmp_path: Path, rate: float
) -> None:
    found = estimate(recorded(tmp_path, rate))
    edge = place(found, "edge")
    way_s = edge.way_s or 0.0
    # Where work cannot be told from the way, their sum is still right.
    assert edge.seconds["digits"][SMALL][1] + way_s == pytest.approx(0.024, rel=0.07)
    assert edge.seconds["digits"][LARGE][1] + way_s == pytest.approx(0.044, rel=0.07)
    cloud = place(found, "cloud")
    assert cloud.seconds["resnet"][SMALL][1] + (cloud.way_s or 0.0) == pytest.approx(0.032, rel=0.1)
    assert found.fleet.gateways == {"cloud-1": 1}


def test_times_and_the_way_are_told_apart_where_the_log_says_how_long_computing_took(
    tmp_path: Path,
) -> None:
    found = estimate(recorded(tmp_path, 60.0, says_work=True))
    for name, way_s, model, small_s in (
        ("edge", 0.004, "digits", 0.020),
        ("cloud", 0.002, "resnet", 0.030),
    ):
        there = place(found, name)
        assert there.way_s == pytest.approx(way_s, rel=0.02)
        assert there.seconds[model][SMALL][1] == pytest.approx(small_s, rel=0.02)
        count, median_s, p95_s = there.seconds[model][SMALL]
        assert count > 100
        assert p95_s / median_s == pytest.approx(logs.times(1.0).at(0.95), rel=0.05)


def test_how_much_a_place_does_at_once_is_read_from_its_busiest_moments(tmp_path: Path) -> None:
    found = estimate(recorded(tmp_path, 60.0, says_work=True))
    assert place(found, "edge").lanes == 1
    assert place(found, "cloud").lanes == 2


def test_a_place_that_was_never_busy_is_not_said_to_do_more_than_one_at_once(
    tmp_path: Path,
) -> None:
    found = estimate(recorded(tmp_path, 5.0))
    assert place(found, "cloud").lanes is None
    assert next(p for p in found.fleet.places if p.name == "cloud").replicas == 1


def test_prices_are_found_from_what_requests_cost(tmp_path: Path) -> None:
    found = estimate(recorded(tmp_path, 20.0, says_work=True))
    assert place(found, "cloud").usd_per_s == pytest.approx(1.5e-4, rel=0.03)
    assert place(found, "cloud").usd_per_byte == pytest.approx(9e-11, rel=0.001)
    assert place(found, "edge").usd_per_s == pytest.approx(1e-6, rel=0.03)
    assert place(found, "edge").usd_per_byte == 0.0


def test_requests_that_took_long_are_as_many_as_they_were() -> None:
    rng = np.random.default_rng(3)
    at = free_at = 0.0
    requests: list[Recorded] = []
    for _ in range(8000):
        at += float(rng.exponential(0.1))
        taken_s = 0.2 if rng.random() < 0.1 else 0.01
        free_at = max(free_at, at) + taken_s  # one at a time, in order of arrival
        requests.append(Recorded(at, 9, model="m", place="edge", taken_s=free_at - at))
    found = estimate(recording_of("some", requests, [], files=[]))
    times = found.fleet.world().nodes[0].services["m"].times(bucket(9))
    slow = [times.at(rank) > 0.1 for rank in np.linspace(0.0, 1.0, 201)]
    assert np.mean(slow) == pytest.approx(0.1, abs=0.03)


def test_each_place_serves_the_models_that_were_seen_there(tmp_path: Path) -> None:
    found = estimate(recorded(tmp_path, 60.0))
    serving = {node.target: set(node.services) for node in found.fleet.world().nodes}
    assert serving == {"edge": {"digits"}, "cloud": {"digits", "resnet"}}


def test_a_model_that_nobody_was_answered_for_is_named() -> None:
    answered = Recorded(0.0, model="digits", place="edge", taken_s=0.1)
    refused = Recorded(1.0, model="lost", outcome="unavailable")
    found = estimate(recording_of("some", [answered, refused, answered], [], files=[]))
    assert found.unserved == ["lost"]


def test_attempts_that_failed_before_do_not_make_a_place_slow() -> None:
    quick = [
        Recorded(float(at), model="m", place="edge", taken_s=0.1, size_bytes=9) for at in range(40)
    ]
    moved = [replace_at(quick[0], 100.0 + at) for at in range(40)]
    found = estimate(recording_of("some", [*quick, *moved], [], files=[]))
    assert found.places[0].seconds["m"][bucket(9)][1] == pytest.approx(0.1)


def replace_at(request: Recorded, at: float) -> Recorded:
    return request._replace(at=at, taken_s=2.0, attempts=2)


def test_a_trace_that_says_nothing_of_places_asks_for_a_fleet() -> None:
    silent = recording_of("some", [Recorded(0.0), Recorded(1.0)], [], files=[])
    with pytest.raises(InvalidInput) as refused:
        estimate(silent)
    assert "--fleet" in (refused.value.hint or "")


def test_the_gateways_are_where_they_compute_themselves() -> None:
    own = Recorded(0.0, tier="colocated", site="hall", place="here", taken_s=0.1)
    others = [
        Recorded(float(at), tier="edge", site="plant-1", place="edge", taken_s=0.1)
        for at in range(1, 9)
    ]
    cloud = own._replace(tier="cloud", site="region")
    assert recording_of("some", [own, cloud, *others], [], files=[]).gateway_site == "hall"
    assert recording_of("some", [cloud, *others], [], files=[]).gateway_site == "region"
    assert recording_of("some", others, [], files=[]).gateway_site == "plant-1"


def test_a_fleet_with_twice_the_time_is_found_to_be_twice_as_slow(tmp_path: Path) -> None:
    slower = replace(
        logs.fleet(),
        nodes=tuple(
            replace(
                node,
                base_s=2 * node.base_s,
                services={
                    m: logs.service(2 * s.usual_s, 4 * s.usual_s) for m, s in node.services.items()
                },
            )
            for node in logs.fleet().nodes
        ),
    )
    traffic = logs.traffic(1, 10.0, 300.0)
    found = [
        estimate(read(logs.write(tmp_path / str(i), list(logs.lines(w, traffic, says_work=True)))))
        for i, w in enumerate((logs.fleet(), slower))
    ]
    before, after = (place(one, "edge").seconds["digits"][SMALL][1] for one in found)
    assert after / before == pytest.approx(2.0, rel=0.05)
