"""A price book says what a tier at a site costs."""

from __future__ import annotations

import pytest

from policies.cost import Grid, Machine, Price, PriceBook, Setup, SiteSetup

BOOK = PriceBook(
    machines={
        "box": Machine(Price(0.0), Price(10.0), Price(4.0)),
        "rented": Machine(Price(0.72), Price(100.0), Price(30.0)),
    },
    grids={"here": Grid(Price(0.36), Price(360.0)), "there": Grid(Price(0.0), Price(36.0))},
    tiers={"edge": Setup("box", "here", Price(0.0)), "cloud": Setup("rented", "there", Price(0.1))},
    sites={"hydro": SiteSetup(grid="there"), "rack": SiteSetup("rented", None, Price(0.5))},
)


def test_rates_are_of_the_machine_and_the_grid_of_a_tier_in_seconds_bytes_and_joules() -> None:
    cloud = BOOK.rates("cloud", "anywhere")
    assert cloud.replica_usd_per_s == pytest.approx(2e-4)
    assert cloud.egress_usd_per_byte == pytest.approx(1e-10)
    assert (cloud.busy_w, cloud.idle_w, cloud.energy_usd_per_j) == (100.0, 30.0, 0.0)
    assert cloud.carbon_g_per_j == pytest.approx(1e-5)
    assert cloud.carbon_usd_per_g == 0.0
    assert BOOK.rates("edge", "anywhere").energy_usd_per_j == pytest.approx(1e-7)


def test_a_site_has_what_it_says_and_the_rest_from_its_tier() -> None:
    assert BOOK.setup("edge", "hydro") == Setup("box", "there", Price(0.0))
    assert BOOK.setup("edge", "rack") == Setup("rented", "here", Price(0.5))


def test_carbon_costs_something_where_a_tonne_has_a_price() -> None:
    priced = PriceBook(BOOK.machines, BOOK.grids, BOOK.tiers, {}, Price(80.0))
    assert priced.rates("edge", "a").carbon_usd_per_g == pytest.approx(8e-5)
    assert priced.rates("edge", "a").usd_per_s > BOOK.rates("edge", "a").usd_per_s


def test_a_tier_or_a_machine_without_prices_is_not_made_up() -> None:
    with pytest.raises(KeyError):
        BOOK.rates("moon", "a")
    with pytest.raises(KeyError):
        BOOK.rates_of("box", "moon", 0.0)
