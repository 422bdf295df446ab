"""How many replicas there should be: values (`types`), what came (`history`), rules."""

from policies.scaling.capacity import Capacity
from policies.scaling.edge import left_for_cloud
from policies.scaling.forecast import Forecast, Season, forecast
from policies.scaling.history import History
from policies.scaling.knative import Knative
from policies.scaling.predictive import Predictive
from policies.scaling.reactive import Reactive
from policies.scaling.season import find_period
from policies.scaling.types import NOTHING, REASONS, Bounds, Decision, Memory, Observed, Rule

__all__ = [
    "NOTHING",
    "REASONS",
    "Bounds",
    "Capacity",
    "Decision",
    "Forecast",
    "History",
    "Knative",
    "Memory",
    "Observed",
    "Predictive",
    "Reactive",
    "Rule",
    "Season",
    "find_period",
    "forecast",
    "left_for_cloud",
]
