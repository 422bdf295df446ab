"""How an operator wants requests to be routed: the rule, and the objective of each model."""

from __future__ import annotations

from dataclasses import dataclass
from fnmatch import fnmatchcase

from policies.routing import RULES, Objective, Rule
from policies.routing.deciding import UTILITY


@dataclass(frozen=True, slots=True)
class Wishes:
    """rule: a name in `policies.routing.RULES`; objective: of models that no pattern matches.

    objectives: shell patterns of model names with an objective; the first that matches counts.
    """

    rule: str = UTILITY
    objective: Objective = "balanced"
    objectives: tuple[tuple[str, Objective], ...] = ()

    @property
    def decides(self) -> Rule:
        """The rule itself."""
        return RULES[self.rule]

    def objective_of(self, model: str) -> Objective:
        """Return what routing looks at for a model's requests whose callers say nothing."""
        for pattern, objective in self.objectives:
            if fnmatchcase(model, pattern):
                return objective
        return self.objective
