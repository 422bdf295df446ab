"""What a request costs is a sum of prices times quantities."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from policies.cost import FREE, PARTS, Cost, Rates, cost_of, standing

prices = st.floats(0.0, 1e3)
quantities = st.floats(0.0, 1e9)
rates = st.builds(Rates, *[prices] * len(Rates._fields))


@given(rates, quantities, quantities)
def test_no_part_of_a_cost_is_negative_and_the_parts_are_all_of_it(
    place: Rates, work_s: float, away_bytes: float
) -> None:
    found = cost_of(place, work_s, away_bytes)
    assert min(found) >= 0.0
    assert found.usd == pytest.approx(sum(getattr(found, part) for part in PARTS))


@given(rates, quantities, quantities, quantities, quantities)
def test_two_requests_cost_what_one_that_does_both_would(
    place: Rates, work_s: float, other_s: float, away: float, other_away: float
) -> None:
    both = cost_of(place, work_s + other_s, away + other_away)
    apart = cost_of(place, work_s, away).plus(cost_of(place, other_s, other_away))
    assert tuple(apart) == pytest.approx(tuple(both))
    assert apart.plus(FREE) == apart


@given(rates, st.sampled_from(Rates._fields), quantities, quantities, quantities, quantities)
def test_more_work_more_bytes_or_a_higher_price_never_cost_less(
    place: Rates, price: str, work_s: float, more_s: float, away: float, more_away: float
) -> None:
    usd = cost_of(place, work_s, away).usd
    assert cost_of(place, work_s + more_s, away).usd >= usd
    assert cost_of(place, work_s, away + more_away).usd >= usd
    dearer = place._replace(**{price: getattr(place, price) + 1.0})
    assert cost_of(dearer, work_s, away).usd >= usd


@given(rates, quantities)
def test_what_routing_weighs_a_second_with_is_what_a_second_is_charged(
    place: Rates, work_s: float
) -> None:
    assert cost_of(place, work_s, 0.0).usd == pytest.approx(place.usd_per_s * work_s)


def test_a_second_on_a_box_costs_its_energy_and_the_carbon_of_that() -> None:
    box = Rates(
        busy_w=10.0,
        idle_w=4.0,
        energy_usd_per_j=0.36 / 3.6e6,
        carbon_g_per_j=360 / 3.6e6,
        carbon_usd_per_g=100 / 1e6,
    )
    found = cost_of(box, 3600.0, 1e6)
    assert found.joules == 36_000.0
    assert found.energy == pytest.approx(0.0036)
    assert found.carbon_g == pytest.approx(3.6)
    assert found.carbon == pytest.approx(3.6e-4)
    assert (found.replica, found.egress) == (0.0, 0.0)
    waiting = standing(box, 3600.0)
    assert (waiting.joules, waiting.egress) == (14_400.0, 0.0)


def test_a_rented_place_is_paid_for_while_it_waits_as_well() -> None:
    rented = Rates(replica_usd_per_s=2.0, egress_usd_per_byte=3.0)
    assert cost_of(rented, 5.0, 7.0) == Cost(replica=10.0, egress=21.0)
    assert standing(rented, 5.0) == Cost(replica=10.0)
