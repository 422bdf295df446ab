"""The values that routing speaks in. Times are seconds."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Target:
    """A place that can serve a request, as last heard of.

    tier: `colocated`, `cloud` or `edge`; is_silent: it owes an answer to a probe, but nothing
    says that it is gone; rtt_s: measured time on the way, there and back;
    wait_s: expected wait in its queue when it reported, report_age_s ago; service_s: its work
    for one request, 0 while unknown; outstanding: requests of this gateway it has not answered.
    """

    name: str
    tier: str
    site: str
    is_up: bool = True
    is_silent: bool = False
    is_draining: bool = False
    has_model: bool = True
    rtt_s: float = 0.0
    wait_s: float = 0.0
    service_s: float = 0.0
    report_age_s: float = 0.0
    outstanding: int = 0


@dataclass(frozen=True, slots=True)
class Request:
    """What matters about a request for choosing where it runs.

    slack_s: time to its deadline; tier: where the caller insists; origin_site: where it comes
    from; excluded: targets that were tried already.
    """

    slack_s: float
    tier: str | None = None
    origin_site: str | None = None
    excluded: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Verdict:
    """What was found of one target: seconds to the answer, or the rule that ruled it out."""

    target: str
    expected_s: float
    ruled_out: str | None = None


@dataclass(frozen=True, slots=True)
class Decision:
    """The choice. reason: a stable code of `choose.REASONS`."""

    target: str
    reason: str
    expected_s: float
    verdicts: tuple[Verdict, ...]


@dataclass(frozen=True, slots=True)
class NoTarget:
    """Nothing can serve the request; verdicts say which rule ruled out which target."""

    verdicts: tuple[Verdict, ...]
