"""Where a request should run: values (`types`), knowledge (`table`) and decisions (`utility`)."""

from policies.routing.deciding import RULES, decide
from policies.routing.table import RoutingTable, Rule, Sent
from policies.routing.types import (
    Decision,
    Hopeless,
    Load,
    NoTarget,
    Objective,
    Outcome,
    Request,
    Target,
    Verdict,
)
from policies.routing.utility import WEIGHTS, Weights, choose

__all__ = [
    "RULES",
    "WEIGHTS",
    "Decision",
    "Hopeless",
    "Load",
    "NoTarget",
    "Objective",
    "Outcome",
    "Request",
    "RoutingTable",
    "Rule",
    "Sent",
    "Target",
    "Verdict",
    "Weights",
    "choose",
    "decide",
]
