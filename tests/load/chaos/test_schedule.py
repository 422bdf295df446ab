"""The same seed gives the same faults; a run has every kind."""

from __future__ import annotations

import pytest

from load.chaos.schedule import ACCELERATOR, BOX, CLUSTER, KINDS, Pace, kinds, schedule

LAYERS = (ACCELERATOR, BOX, CLUSTER)
HALF_AN_HOUR = 1800.0


def test_the_same_seed_gives_the_same_schedule_and_another_another() -> None:
    first = schedule(7, HALF_AN_HOUR, Pace(), LAYERS)
    assert first == schedule(7, HALF_AN_HOUR, Pace(), LAYERS)
    assert first != schedule(8, HALF_AN_HOUR, Pace(), LAYERS)


def test_half_an_hour_has_every_kind_at_the_paces_asked_for() -> None:
    found = schedule(1, HALF_AN_HOUR, Pace(), LAYERS)
    assert {fault.kind for fault in found} == set(kinds())
    per_layer = {layer: [f for f in found if f.layer == layer] for layer in LAYERS}
    assert len(per_layer[ACCELERATOR]) == pytest.approx(180, abs=2)
    assert 20 <= len(per_layer[BOX]) <= 30
    assert 10 <= len(per_layer[CLUSTER]) <= 15
    assert [fault.at_s for fault in found] == sorted(fault.at_s for fault in found)


def test_a_bag_is_emptied_before_a_kind_comes_again() -> None:
    faults = schedule(3, HALF_AN_HOUR, Pace(), [ACCELERATOR])
    count = len(KINDS[ACCELERATOR])
    for begin in range(0, len(faults) - count, count):
        assert len({fault.kind for fault in faults[begin : begin + count]}) == count


def test_a_layer_that_is_left_out_changes_nothing_in_the_others() -> None:
    all_layers = schedule(5, HALF_AN_HOUR, Pace(), LAYERS)
    without = schedule(5, HALF_AN_HOUR, Pace(), [ACCELERATOR, BOX])
    assert without == [fault for fault in all_layers if fault.layer != CLUSTER]


def test_only_the_kinds_asked_for_happen() -> None:
    found = schedule(5, 300.0, Pace(), LAYERS, only=["kill", "reboot"])
    assert {fault.kind for fault in found} == {"kill", "reboot"}
    assert not [fault for fault in found if fault.layer == CLUSTER]


def test_what_strikes_once_is_not_lifted_and_what_lasts_has_a_time() -> None:
    for fault in schedule(2, HALF_AN_HOUR, Pace(), LAYERS):
        if fault.kind in ("kill", "stop", "segfault", "reboot", "raylet-kill"):
            assert fault.lasts_s == 0.0
        if fault.kind == "vanish":
            assert 1.0 <= fault.lasts_s <= 4.0
