"""Targets, requests, loads and tables to test routing with.

Times are multiples of 1/256 s and prices of 1/64 $, so that equal ones are common and sums of a few
are exact.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from hypothesis import strategies as st

from policies.routing import Load, Request, RoutingTable, Target
from policies.routing.lateness import Errors
from policies.routing.sizes import BUCKETS
from policies.routing.types import SLACKS

NOW = 1000.0
TIERS = ("colocated", "cloud", "edge")
SITES = ("plant-a", "plant-b", "cloud")
ZONES = ("", "eu", "us")
TENANTS = ("", "acme", "initech")


def seconds(most: float) -> st.SearchStrategy[float]:
    return st.integers(0, round(256 * most)).map(lambda n: n / 256)


def rarely(usual: Any, *others: Any) -> st.SearchStrategy[Any]:
    """Return the usual value in most cases, so that several targets are left to choose from."""
    return st.sampled_from([usual] * 3 * len(others) + list(others))


dollars = st.integers(0, 128).map(lambda n: n / 64)
eighths = st.integers(0, 8).map(lambda n: n / 8)
ratios = st.integers(1, 64).map(lambda n: n / 16)
errors = st.lists(ratios, max_size=6).map(lambda found: tuple(sorted(found)))
sizes = st.one_of(
    st.just(()), ratios.map(lambda step: tuple(step * (1 + n / 4) for n in range(BUCKETS)))
)
slacks = st.one_of(seconds(2.0), st.sampled_from([-0.5, 0.0, 1.0, 5.0, 60.0]))


@st.composite
def aheads(draw: st.DrawFn) -> tuple[float, ...]:
    """Return work ahead by slack, in up to three steps upwards."""
    base_s = draw(seconds(1.0))
    steps = draw(st.lists(st.tuples(st.sampled_from(SLACKS), seconds(1.0)), max_size=2))
    return tuple(base_s + sum(s for at, s in steps if limit >= at) for limit in SLACKS)


loads = st.builds(
    Load,
    queued=st.integers(0, 9),
    running=st.integers(0, 2),
    ahead_s=aheads(),
    service_s=seconds(0.5),
    row_s=seconds(0.25),
    busy=eighths,
    alone_s=seconds(1.0),
    idle_s=seconds(20.0),
)
requests = st.builds(
    Request,
    slack_s=slacks,
    bucket=st.integers(0, BUCKETS - 1),
    moved_bytes=st.integers(0, 8),
    objective=st.sampled_from(["latency", "balanced", "cost"]),
    tiers=rarely(None, frozenset({"edge"}), frozenset({"cloud", "colocated"})),
    tier=rarely(None, *TIERS),
    origin_site=st.sampled_from([None, *SITES]),
    tenant=st.sampled_from(TENANTS),
    zones=rarely(None, frozenset({"eu"}), frozenset({"", "us"})),
    excluded=rarely(frozenset(), frozenset({"t0"}), frozenset({"t1", "t2"})),
    draw=st.integers(0, 2**64 - 1),
    turn=st.integers(0, 2**32),
)
# Of somebody whom every target may serve that is able to.
free_requests = requests.map(
    lambda request: request._replace(
        tiers=None, tier=None, zones=None, tenant="", excluded=frozenset()
    )
)


def middle(found: Errors) -> float:
    return found[len(found) // 2] if found else 1.0


FIELDS: Final = {
    "tier": st.sampled_from(TIERS),
    "site": st.sampled_from(SITES),
    "rtt_s": seconds(0.5),
    "ahead_s": aheads(),
    "ahead_at": seconds(3.0).map(lambda age_s: NOW - age_s),
    "heard_at": seconds(3.0).map(lambda age_s: NOW - age_s),
    "service_s": seconds(0.5),
    "row_s": seconds(0.25),
    "busy": eighths,
    "sizes": sizes,
    "outstanding": st.integers(0, 9),
    "errors": errors,
    "peak_s": seconds(1.0),
    "peak_at": seconds(20.0).map(lambda age_s: NOW - age_s),
    "prior_s": seconds(0.5),
    "usd": dollars,
    "usd_per_s": dollars,
    "usd_per_byte": dollars,
}


@st.composite
def a_target(draw: st.DrawFn) -> Target:
    """Return one that may serve everybody."""
    found: dict[str, Any] = draw(st.fixed_dictionaries(FIELDS))
    return Target(name="t0", bias=middle(found["errors"]), **found)


@st.composite
def usable_targets(draw: st.DrawFn, min_size: int = 1, max_size: int = 5) -> list[Target]:
    """Return targets that may serve whoever does not ask for more; their names are t0, t1, …"""
    found = draw(st.lists(a_target(), min_size=min_size, max_size=max_size))
    return [target._replace(name=f"t{index}") for index, target in enumerate(found)]


@st.composite
def targets(draw: st.DrawFn, max_size: int = 5) -> list[Target]:
    """Return targets that may serve, and others that may not for one reason or several."""
    found = draw(usable_targets(min_size=0, max_size=max_size))
    return [
        target._replace(
            zone=draw(st.sampled_from(ZONES)),
            tenants=draw(rarely(None, frozenset({"acme"}), frozenset({"", "initech"}))),
            is_up=draw(rarely(True, False)),
            is_silent=draw(rarely(False, True)),
            is_draining=draw(rarely(False, True)),
            is_ejected=draw(rarely(False, True)),
            is_asleep=draw(rarely(False, True)),
            has_model=draw(rarely(True, False)),
        )
        for target in found
    ]


def changed(found: Sequence[Target], index: int, **values: Any) -> RoutingTable:
    """Return a table of these targets, one of them with other values."""
    one = found[index]._replace(**values)
    return RoutingTable([*found[:index], one, *found[index + 1 :]])
