"""Which rules are compared, and how each of them runs."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from typing import Final

from policies.routing import WEIGHTS, Objective, Rule, choose, learned
from policies.routing.classical import PROBED, RULES
from policies.routing.prequal import PROBES


@dataclass(frozen=True)
class Subject:
    """A rule in the benchmark.

    rule: None for the omniscient router; replies: loads come with replies; weighted: it is one of
    the classical rules that know what a request takes at a place, the fair ones to be compared
    with; probes: sent with each request.
    """

    rule: Rule | None
    objective: Objective = "latency"
    replies: bool = False
    weighted: bool = False
    probes: int = 0


_NEVER: Final = 4.0  # a third of it is a P(late) that nothing has
_TAKING_ALL: Final = {name: replace(weight, refuse_at=_NEVER) for name, weight in WEIGHTS.items()}


def taking_all(rule: Rule | None) -> Rule | None:
    """Return the default rule so that it refuses nobody; other rules never do.

    Delays are compared of the same requests only: who refuses the slow ones has quick answers.
    """
    return partial(choose, weights=_TAKING_ALL) if rule is choose else rule


SUBJECTS: Final[dict[str, Subject]] = {
    **{
        name: Subject(
            rule,
            weighted=name.startswith("weighted_") or name == "shortest_delay",
            probes=PROBES if name in PROBED else 0,
        )
        for name, rule in RULES.items()
    },
    "shortest_delay_replies": Subject(RULES["shortest_delay"], replies=True),
    "latency": Subject(choose, "latency", replies=True),
    "balanced": Subject(choose, "balanced", replies=True),
    "cost": Subject(choose, "cost", replies=True),
    "learned_latency": Subject(learned.choose, "latency", replies=True),
    "learned": Subject(learned.choose, "balanced", replies=True),
    "omniscient": Subject(None),
}
# With queues by deadline: the rules that are worth it, and ours.
SERIOUS: Final = (
    "weighted_round_robin",
    "weighted_least_outstanding",
    "shortest_delay",
    "shortest_delay_replies",
    "latency",
    "balanced",
    "cost",
    "learned_latency",
    "learned",
    "omniscient",
)
# With queues by arrival: all but those that refuse who would be late.
BY_ARRIVAL: Final = tuple(
    name for name, subject in SUBJECTS.items() if subject.rule is not learned.choose
)
