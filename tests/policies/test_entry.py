"""A client enters by the nearest gateway, and does not change for little."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from policies.entry import BETTER_BY, BETTER_BY_S, Candidate, Entry, choose_gateway

URLS = ("https://a", "https://b", "https://c", "https://d")


@st.composite
def gateways(draw: st.DrawFn) -> list[Candidate]:
    urls = draw(st.lists(st.sampled_from(URLS), unique=True))
    return [
        Candidate(
            url, url[-1], draw(st.sampled_from(("", "eu", "us"))), draw(st.none() | st.floats(0, 1))
        )
        for url in urls
    ]


CURRENT = st.none() | st.sampled_from((*URLS, "https://gone"))
ZONES = st.none() | st.frozensets(st.sampled_from(("eu", "us")))
EXCLUDED = st.frozensets(st.sampled_from(URLS), max_size=2)


def gateway(letter: str, rtt_s: float | None, zone: str = "") -> Candidate:
    return Candidate(f"https://{letter}", letter, zone, rtt_s)


@given(gateways(), CURRENT, ZONES, EXCLUDED)
def test_what_is_chosen_answers_is_allowed_and_has_not_failed(
    candidates: list[Candidate],
    current: str | None,
    zones: frozenset[str] | None,
    excluded: frozenset[str],
) -> None:
    usable = [
        c
        for c in candidates
        if c.rtt_s is not None and c.url not in excluded and (zones is None or c.zone in zones)
    ]
    found = choose_gateway(candidates, current, zones, excluded)
    assert (found.url is None) == (not usable)
    assert found.url is None or found.url in {c.url for c in usable}


@given(st.permutations(URLS), st.lists(st.floats(0, 1), min_size=4, max_size=4), CURRENT)
def test_the_order_of_the_list_does_not_matter(
    order: list[str], times: list[float], current: str | None
) -> None:
    listed = [Candidate(url, "s", "", rtt) for url, rtt in zip(URLS, times, strict=True)]
    shuffled = sorted(listed, key=lambda c: order.index(c.url))
    assert choose_gateway(listed, current) == choose_gateway(shuffled, current)


@given(gateways(), CURRENT)
def test_what_was_chosen_is_kept_while_nothing_changes(
    candidates: list[Candidate], current: str | None
) -> None:
    first = choose_gateway(candidates, current)
    assert choose_gateway(candidates, first.url).url == first.url


@given(gateways(), st.sampled_from(URLS))
def test_a_change_away_from_what_answers_gains_by_both_bounds(
    candidates: list[Candidate], current: str
) -> None:
    times = {c.url: c.rtt_s for c in candidates}
    found = choose_gateway(candidates, current)
    before_s = times.get(current)
    if before_s is None or found.url is None or found.url == current:
        return
    after_s = times[found.url]
    assert after_s is not None
    assert before_s - after_s >= BETTER_BY_S
    assert before_s - after_s >= BETTER_BY * before_s
    assert after_s == min(rtt_s for rtt_s in times.values() if rtt_s is not None)


def test_the_reason_says_what_led_to_the_choice() -> None:
    a, b = gateway("a", 0.030), gateway("b", 0.060)
    assert choose_gateway([a]) == Entry("https://a", "only_one")
    assert choose_gateway([b, a]) == Entry("https://a", "nearest")
    assert choose_gateway([b, a], "https://b") == Entry("https://a", "nearer")
    assert choose_gateway([gateway("a", None), b], "https://a") == Entry("https://b", "failover")
    assert choose_gateway([gateway("a", None)], "https://a") == Entry(None, "none")


def test_a_little_nearer_is_not_near_enough() -> None:
    in_use = gateway("b", 0.100)
    assert choose_gateway([gateway("a", 0.081), in_use], "https://b").why == "kept"  # under 20 %
    near = gateway("b", 0.006)
    assert choose_gateway([gateway("a", 0.002), near], "https://b").why == "kept"  # under 5 ms


def test_a_gateway_without_a_zone_is_in_none() -> None:
    unknown, far = gateway("a", 0.001), gateway("b", 0.2, "eu")
    assert choose_gateway([unknown, far], None, frozenset({"eu"})).url == "https://b"
    assert choose_gateway([unknown], None, frozenset({"eu"})).url is None
