"""What counts as a flap, and what does not."""

from __future__ import annotations

from load.chaos.rungs import Change, History, flaps, most_within


def changes(*times: float) -> list[Change]:
    """Fall, return, fall, ...: on top until the first of these times."""
    return [Change(0.0, True), *(Change(at, bool(n % 2)) for n, at in enumerate(times))]


def test_a_fall_right_after_a_return_is_a_flap() -> None:
    assert flaps(changes(10.0, 14.0, 15.0), strikes=[10.0]) == [15.0]


def test_a_fall_after_it_has_held_for_a_while_is_none() -> None:
    assert flaps(changes(10.0, 14.0, 16.5), strikes=[10.0]) == []


def test_a_fall_that_was_caused_is_none() -> None:
    assert flaps(changes(10.0, 14.0, 15.0), strikes=[10.0, 14.5]) == []


def test_the_first_fall_is_none_however_early() -> None:
    assert flaps(changes(0.5), strikes=[]) == []


def test_every_fall_of_a_row_counts() -> None:
    assert flaps(changes(10.0, 11.0, 12.0, 13.0, 14.0), strikes=[9.9]) == [12.0, 14.0]


def test_flaps_a_minute_are_counted_wherever_the_minute_begins() -> None:
    assert most_within([], 60.0) == 0
    assert most_within([50.0, 70.0, 109.0, 111.0], 60.0) == 3
    assert most_within([0.0, 60.0, 120.0], 60.0) == 1


def test_history_keeps_changes_and_knows_since_when_the_top_rung_computes() -> None:
    history = History()
    assert history.top_since() is None
    for at_s, is_top in ((1.0, True), (2.0, True), (3.0, False), (4.0, True), (5.0, True)):
        history.saw(at_s, is_top=is_top)
    assert [change.at_s for change in history.changes] == [1.0, 3.0, 4.0]
    assert history.top_since() == 4.0
    assert history.fell_after(2.5)
    assert not history.fell_after(3.5)
