"""The same key gets the same version; a share is a share; more of one takes from the default."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from policies.routing.splits import Shares, draw, is_shadowed, of_engine, shares_of, version_for

KEYS = [f"request-{number}" for number in range(4000)]
shares = st.floats(0.0, 0.5)
keys = st.text(max_size=20)


def counted(default: str, canaries: list[tuple[str, float]]) -> dict[str, float]:
    """Return the share of keys that each version gets."""
    found: dict[str, float] = {}
    for key in KEYS:
        version = version_for(key, default, canaries)
        found[version] = found.get(version, 0.0) + 1 / len(KEYS)
    return found


def test_without_canaries_everybody_gets_the_default() -> None:
    assert counted("1", []) == pytest.approx({"1": 1.0})
    assert counted("1", [("2", 0.0)]) == pytest.approx({"1": 1.0})


def test_a_share_is_what_a_version_gets() -> None:
    found = counted("1", [("2", 0.1), ("3", 0.3)])
    assert found == pytest.approx({"1": 0.6, "2": 0.1, "3": 0.3}, abs=0.03)


def test_a_canary_that_has_everything_leaves_the_default_nothing() -> None:
    assert set(counted("1", [("2", 1.0)])) == {"2"}
    assert set(counted("1", [("2", 1.0), ("3", 1.0)])) == {"2", "3"}


@settings(max_examples=300, deadline=None)
@given(keys, shares, shares, shares)
def test_who_has_a_canary_keeps_it_while_its_share_grows(
    key: str, share: float, more: float, other: float
) -> None:
    before = version_for(key, "1", [("2", share), ("3", other)])
    after = version_for(key, "1", [("2", min(1.0 - other, share + more)), ("3", other)])
    assert after == "2" or before != "2"


@settings(max_examples=200, deadline=None)
@given(keys, st.permutations([("2", 0.25), ("3", 0.125), ("4", 0.5)]))
def test_the_order_of_canaries_is_no_matter(key: str, canaries: list[tuple[str, float]]) -> None:
    assert version_for(key, "1", canaries) == version_for(key, "1", sorted(canaries))


@settings(max_examples=200, deadline=None)
@given(keys, shares, shares)
def test_a_growing_shadow_only_adds_requests(key: str, share: float, more: float) -> None:
    assert is_shadowed(key, "2", share + more) or not is_shadowed(key, "2", share)


def test_a_shadow_gets_copies_of_its_share_whoever_has_the_canary() -> None:
    canary = [key for key in KEYS if version_for(key, "1", [("2", 0.5)]) == "2"]
    assert sum(is_shadowed(key, "2", 0.2) for key in KEYS) / len(KEYS) == pytest.approx(
        0.2, abs=0.03
    )
    both = sum(is_shadowed(key, "2", 0.2) for key in canary) / len(canary)
    assert both == pytest.approx(0.2, abs=0.04)
    assert not any(is_shadowed(key, "2", 0.0) for key in KEYS)
    assert all(is_shadowed(key, "2", 1.0) for key in KEYS)


def test_a_draw_is_the_same_in_every_process() -> None:
    assert draw("a", "b") == pytest.approx(0.2717, abs=1e-4)
    assert draw("", "") != draw("", "a")


def test_shares_are_read_from_the_options_of_a_version() -> None:
    options = {"canary_percent": 12.5, "max_batch_size": 4}
    assert shares_of(options) == Shares(0.125, 0.0)
    assert of_engine({**options, "shadow_percent": 1}) == {"max_batch_size": 4}


@pytest.mark.parametrize("value", [-1, 101, True, "10", float("nan")])
def test_what_is_no_share_is_refused_by_name(value: object) -> None:
    with pytest.raises(ValueError, match="shadow_percent must be a number from 0 to 100"):
        shares_of({"shadow_percent": value})
