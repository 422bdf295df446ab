"""What can be set about money: where the price book is, what the request log keeps, budgets."""

from __future__ import annotations

import difflib
from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from edge_runtime.config import Place, Section
from policies.cost import Budget
from policies.cost.budget import ALERTS, PERIODS

Share = Annotated[float, Field(gt=0, le=10)]
Dollars = Annotated[float, Field(gt=0)]


class CostSettings(Section):
    """price_book: a YAML file with prices that differ from the default ones.

    log_bytes, log_days: what the request log keeps on disk, all gateways together.
    """

    price_book: Place | None = None
    log_bytes: Annotated[int, Field(ge=8 * 1024 * 1024)] = 256 * 1024 * 1024
    log_days: Annotated[float, Field(gt=0)] = 30.0


class BudgetSettings(Section):
    """One budget: exactly one of the usd_per_... says how much and for how long.

    tenant, model: whose requests count, everybody's when unset; action: on requests while the
    budget is exceeded; alerts: shares of it that are reported.
    """

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$")]
    usd_per_hour: Dollars | None = None
    usd_per_day: Dollars | None = None
    usd_per_month: Dollars | None = None
    tenant: str | None = None
    model: str | None = None
    action: Literal["alert", "degrade", "queue", "refuse"] = "alert"
    alerts: tuple[Share, ...] = ALERTS

    @model_validator(mode="before")
    @classmethod
    def _names_are_known(cls, found: Any) -> Any:
        if isinstance(found, dict):
            for key in found:
                if key not in cls.model_fields:
                    near = difflib.get_close_matches(str(key), cls.model_fields, n=1, cutoff=0.5)
                    hint = f"; did you mean '{near[0]}'?" if near else ""
                    raise ValueError(f"unknown key '{key}' of a budget{hint}")
        return found

    @model_validator(mode="after")
    def _has_one_amount(self) -> Self:
        if sum(getattr(self, f"usd_per_{period}") is not None for period in PERIODS) != 1:
            raise ValueError("a budget has one of usd_per_hour, usd_per_day, usd_per_month")
        return self

    def budget(self) -> Budget:
        """Return it as the policies read it."""
        amounts = {period: getattr(self, f"usd_per_{period}") for period in PERIODS}
        ((period, usd),) = ((p, usd) for p, usd in amounts.items() if usd is not None)
        return Budget(
            self.name, usd, period, self.action, self.tenant, self.model, tuple(self.alerts)
        )


class BudgetsSettings(Section):
    """limits: the budgets; each has a name of its own."""

    limits: tuple[BudgetSettings, ...] = ()

    @model_validator(mode="after")
    def _names_are_distinct(self) -> Self:
        names = [limit.name for limit in self.limits]
        twice = next((name for name in names if names.count(name) > 1), None)
        if twice is not None:
            raise ValueError(f"two budgets are named '{twice}'")
        return self

    def budgets(self) -> tuple[Budget, ...]:
        """Return them as the policies read them."""
        return tuple(limit.budget() for limit in self.limits)
