"""Distances are those of the Earth; what was measured wins while it is fresh, and says so."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from policies.geography import (
    DETOUR,
    FRESH_S,
    HALF_LIFE_S,
    RADIUS_KM,
    WINDOW_S,
    MeasuredRtt,
    Measurements,
    Position,
    distance_km,
    estimate,
    great_circle_rtt_s,
    measure,
    nearest,
    position,
    zones_of,
)

FRANKFURT = Position(50.1109, 8.6821)
NEW_YORK = Position(40.7128, -74.0060)
SYDNEY = Position(-33.8688, 151.2093)

POSITIONS = st.builds(position, st.floats(-90, 90), st.floats(-180, 180))
RTTS = st.floats(0.0, 2.0)
SAMPLES = st.lists(st.tuples(RTTS, st.floats(0.0, 30.0)), min_size=1, max_size=30)


def measured(samples: list[tuple[float, float]]) -> MeasuredRtt:
    """Return what is known after samples (round trip, seconds since the one before)."""
    now, known = 0.0, None
    for rtt_s, after_s in samples:
        now += after_s
        known = measure(known, rtt_s, now)
    assert known is not None
    return known


@pytest.mark.parametrize(
    ("one", "other", "km"),
    [(FRANKFURT, NEW_YORK, 6201.8), (FRANKFURT, SYDNEY, 16489.6), (NEW_YORK, SYDNEY, 15988.8)],
)
def test_distances_between_cities_are_right_within_a_percent(
    one: Position, other: Position, km: float
) -> None:
    assert distance_km(one, other) == pytest.approx(km, rel=0.01)


@given(POSITIONS, POSITIONS)
def test_a_distance_is_that_of_the_chord(one: Position, other: Position) -> None:
    """A second way: the chord through the sphere, from points in space."""

    def point(where: Position) -> tuple[float, float, float]:
        phi, lam = math.radians(where.latitude), math.radians(where.longitude)
        return math.cos(phi) * math.cos(lam), math.cos(phi) * math.sin(lam), math.sin(phi)

    chord = math.dist(point(one), point(other))
    expected = 2.0 * RADIUS_KM * math.asin(min(1.0, chord / 2.0))
    assert distance_km(one, other) == pytest.approx(expected, rel=1e-6, abs=1e-3)


@given(POSITIONS, POSITIONS, POSITIONS)
def test_a_detour_is_never_shorter(one: Position, via: Position, other: Position) -> None:
    assert distance_km(one, other) == pytest.approx(distance_km(other, one))
    assert distance_km(one, other) <= distance_km(one, via) + distance_km(via, other) + 1e-3


def test_places_on_both_sides_of_the_date_line_are_near() -> None:
    assert distance_km(Position(0.0, 179.9), Position(0.0, -179.9)) == pytest.approx(
        22.24, rel=0.01
    )


def test_a_hundred_kilometres_are_a_millisecond_times_the_detour() -> None:
    one, other = Position(0.0, 0.0), Position(0.0, math.degrees(100.0 / RADIUS_KM))
    assert great_circle_rtt_s(one, other) == pytest.approx(0.001 * DETOUR)
    assert 1.5 <= DETOUR <= 2.5


@pytest.mark.parametrize(
    ("latitude", "longitude"),
    [(90.1, 0), (-91, 0), (0, 180.5), (0, -181), (math.nan, 0), (0, math.nan), (math.inf, 0)],
)
def test_what_is_not_on_the_earth_is_refused(latitude: float, longitude: float) -> None:
    with pytest.raises(ValueError, match="degrees"):
        position(latitude, longitude)


def test_the_nearest_place_is_found_within_its_bound() -> None:
    places = {"fra": FRANKFURT, "nyc": NEW_YORK}
    paris = Position(48.8566, 2.3522)
    assert nearest(paris, places) == "fra"
    assert nearest(paris, places, within_km=400.0) is None
    assert nearest(paris, {}) is None
    assert nearest(paris, {"b": FRANKFURT, "a": FRANKFURT}) == "a"


@given(SAMPLES)
def test_a_measured_value_lies_among_what_was_measured(samples: list[tuple[float, float]]) -> None:
    values = [rtt_s for rtt_s, _ in samples]
    assert min(values) - 1e-9 <= measured(samples).rtt_s <= max(values) + 1e-9


@given(st.lists(RTTS, min_size=1, max_size=20))
def test_within_a_window_the_least_counts(values: list[float]) -> None:
    samples = [(rtt_s, WINDOW_S / 40) for rtt_s in values]
    assert measured(samples).rtt_s == min(values)


def test_a_slow_answer_now_and_then_changes_nothing() -> None:
    samples = [(0.5 if number % 4 else 0.02, 1.0) for number in range(100)]
    assert measured(samples).rtt_s < 0.2
    assert measured([*samples, (0.02, 1.0)]).rtt_s < 0.2


def test_a_way_that_became_longer_or_shorter_is_followed() -> None:
    before = [(0.01, 2.0)] * 20
    longer = measured([*before, *[(0.05, 2.0)] * 50])
    assert longer.rtt_s == pytest.approx(0.05, rel=0.05)
    shorter = measured([*before, *[(0.001, 2.0)] * 100])
    assert shorter.rtt_s == pytest.approx(0.001, rel=0.1)


def test_after_a_long_silence_the_new_measurement_counts_nearly_alone() -> None:
    assert measured([(0.2, 0.0), (0.01, 60 * WINDOW_S)]).rtt_s == pytest.approx(0.01)


def test_a_clock_that_seems_to_step_back_is_taken_as_standing() -> None:
    known = MeasuredRtt.first(0.02, 100.0).and_then(0.01, 50.0)
    assert (known.at, known.rtt_s) == (100.0, 0.01)


@pytest.mark.parametrize("wrong", [-0.001, math.nan, math.inf])
def test_a_measurement_that_cannot_be_is_refused(wrong: float) -> None:
    with pytest.raises(ValueError, match="round trip"):
        MeasuredRtt.first(wrong, 0.0)
    with pytest.raises(ValueError, match="round trip"):
        MeasuredRtt.first(0.1, 0.0).and_then(wrong, 1.0)


def test_without_anything_known_the_way_is_unknown() -> None:
    assert estimate(None, None, 5.0) == (None, "unknown", None)


def test_before_a_measurement_the_great_circle_counts() -> None:
    assert estimate(None, 0.04, 5.0) == (0.04, "great_circle", None)


@given(RTTS, RTTS, st.floats(0.0, FRESH_S))
def test_a_fresh_measurement_wins(rtt_s: float, prior_s: float, age_s: float) -> None:
    found = estimate(MeasuredRtt.first(rtt_s, 0.0), prior_s, age_s)
    assert (found.source, found.age_s) == ("measured", age_s)
    assert found.rtt_s == pytest.approx(rtt_s)


@given(RTTS, RTTS, st.lists(st.floats(0.0, 10_000.0), min_size=2, max_size=10))
def test_an_old_measurement_goes_back_to_the_great_circle_bit_by_bit(
    rtt_s: float, prior_s: float, ages: list[float]
) -> None:
    known = MeasuredRtt.first(rtt_s, 0.0)
    found = [estimate(known, prior_s, age_s) for age_s in sorted(ages)]
    gaps = [abs((value.rtt_s or 0.0) - prior_s) for value in found]
    assert all(later <= earlier + 1e-9 for earlier, later in pairwise(gaps))
    sources = [value.source for value in found]
    assert sources == sorted(sources, reverse=True)  # measured first, great_circle after it
    assert estimate(known, prior_s, 1e6).rtt_s == pytest.approx(prior_s)
    assert estimate(known, prior_s, 1e6).source == "great_circle"


def test_an_old_measurement_without_a_great_circle_is_given_up() -> None:
    known = MeasuredRtt.first(0.05, 0.0)
    assert estimate(known, None, FRESH_S + HALF_LIFE_S) == (0.05, "measured", FRESH_S + HALF_LIFE_S)
    assert estimate(known, None, FRESH_S + 1.01 * HALF_LIFE_S).source == "unknown"


def test_a_pair_is_the_same_from_both_ends_and_those_measured_long_ago_make_room() -> None:
    known = Measurements(limit=2)
    known.add("b", "a", 0.03, 1.0)
    known.add("a", "c", 0.04, 2.0)
    known.add("a", "b", 0.02, 3.0)
    assert (
        known.between("a", "b") == known.between("b", "a") == MeasuredRtt(None, 0.02, 1.0, 1.0, 3.0)
    )
    known.add("c", "d", 0.05, 4.0)
    assert len(known) == 2
    assert known.between("a", "c") is None


def test_a_tenant_without_a_rule_goes_anywhere_unless_there_is_one_for_everybody() -> None:
    rules = {"acme": frozenset({"eu"})}
    assert zones_of("acme", rules) == frozenset({"eu"})
    assert zones_of("other", rules) is None
    assert zones_of("other", rules | {"*": frozenset({"eu", "us"})}) == frozenset({"eu", "us"})
