"""Which gateway a client enters by.

The nearest in measured time, kept while no other is clearly nearer: a client that changes for a
millisecond changes all day, and loses warm connections each time. Both bounds have to be met, the
share because times vary with themselves, the seconds because near gateways differ by noise.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, Literal, NamedTuple

BETTER_BY: Final = 0.2  # share of the time to the gateway in use
BETTER_BY_S: Final = 0.005

Why = Literal["only_one", "nearest", "kept", "nearer", "failover", "none"]


class Candidate(NamedTuple):
    """A gateway as a client sees it. rtt_s: measured, None while it does not answer.

    zone: where it is, as a law sees it; empty when unknown.
    """

    url: str
    site: str
    zone: str
    rtt_s: float | None


class Entry(NamedTuple):
    """url: the gateway to use, None when there is none; why: a stable code.

    `only_one` can be used, `nearest` of those there are, `kept` although another may be a little
    nearer, `nearer` by enough to change, `failover` because the one in use is gone, `none`.
    """

    url: str | None
    why: Why


def choose_gateway(
    candidates: Sequence[Candidate],
    current: str | None = None,
    zones: frozenset[str] | None = None,
    excluded: frozenset[str] = frozenset(),
) -> Entry:
    """Return the gateway to use.

    current: the URL in use; zones: where requests may go, anywhere when None; excluded: URLs that
    failed this very request. Of gateways that are equally near, the first by URL.
    """
    usable = {
        candidate.url: candidate.rtt_s
        for candidate in candidates
        if candidate.rtt_s is not None
        and candidate.url not in excluded
        and (zones is None or candidate.zone in zones)
    }
    if not usable:
        return Entry(None, "none")
    rtt_s, best = min((rtt_s, url) for url, rtt_s in usable.items())
    if current is not None and current not in usable:
        return Entry(best, "failover")
    if len(usable) == 1:
        return Entry(best, "only_one")
    if current is None:
        return Entry(best, "nearest")
    gain_s = usable[current] - rtt_s
    if gain_s >= BETTER_BY_S and gain_s >= BETTER_BY * usable[current]:
        return Entry(best, "nearer")
    return Entry(current, "kept")
