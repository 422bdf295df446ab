"""Budgets: how much may be spent in an hour, a day or a month, and what happens after that.

A state machine without I/O and without a clock. Windows are those of the calendar in UTC, so that
an operator can say when one turns, and a refused caller can be told. Each gateway counts what it
spent itself (`charge`) and learns what the others say they spent (`learn`, which replaces, so that
nothing is counted twice); a budget is exceeded when both together reach it. Between two exchanges
each gateway spends without knowing of the others, and requests under way are charged when they
end: a budget can be passed by that much.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final, Literal, NamedTuple

Period = Literal["hour", "day", "month"]
Action = Literal["alert", "degrade", "queue", "refuse"]
PERIODS: Final[tuple[Period, ...]] = ("hour", "day", "month")
ACTIONS: Final[tuple[Action, ...]] = ("alert", "degrade", "queue", "refuse")
ALERTS: Final = (0.5, 0.8, 1.0)
LATE_S: Final = 60.0  # what is told that late counts in the window that has begun meanwhile


@dataclass(frozen=True, slots=True)
class Budget:
    """usd may be spent in each period; action: on requests while it is exceeded.

    tenant, model: whose requests count, everybody's when None. alerts: shares of it that are
    reported when they are reached.
    """

    name: str
    usd: float
    period: Period
    action: Action = "alert"
    tenant: str | None = None
    model: str | None = None
    alerts: tuple[float, ...] = ALERTS

    def covers(self, tenant: str, model: str) -> bool:
        """True when a request of this tenant to this model counts."""
        return self.tenant in (None, tenant) and self.model in (None, model)


class Spent(NamedTuple):
    """What one gateway says it spent of a budget in the window that began then (unix seconds)."""

    period: Period
    begin: float
    usd: float


class Exceeded(NamedTuple):
    """A budget that is exceeded, and the seconds until its window turns."""

    budget: Budget
    spent_usd: float
    turns_in_s: float


class Reached(NamedTuple):
    """A share of a budget that was reached."""

    budget: Budget
    share: float
    spent_usd: float
    turns_in_s: float


def window(period: Period, now: float) -> tuple[float, float]:
    """Return begin and end of the calendar window (UTC) in which unix second now lies."""
    at = datetime.fromtimestamp(now, UTC).replace(minute=0, second=0, microsecond=0)
    if period == "hour":
        end = at + timedelta(hours=1)
    elif period == "day":
        at = at.replace(hour=0)
        end = at + timedelta(days=1)
    else:
        at = at.replace(hour=0, day=1)
        end = (at + timedelta(days=32)).replace(day=1)
    return at.timestamp(), end.timestamp()


class _Meter:
    """The spending of one budget in its present window."""

    __slots__ = ("begin", "budget", "end", "others_usd", "own_usd", "told")

    def __init__(self, budget: Budget) -> None:
        self.budget = budget
        self.begin = self.end = 0.0
        self._empty()

    def _empty(self) -> None:
        self.own_usd = self.others_usd = 0.0
        self.told = 0.0

    def turn(self, now: float) -> None:
        if now >= self.end or now < self.begin - LATE_S:
            self.begin, self.end = window(self.budget.period, now)
            self._empty()

    @property
    def usd(self) -> float:
        return self.own_usd + self.others_usd

    def is_now(self, spent: Spent) -> bool:
        return spent.period == self.budget.period and spent.begin == self.begin


class Spending:
    """What was spent of every budget; one owner tells it what happens and when."""

    def __init__(self, budgets: Iterable[Budget]) -> None:
        """Raises ValueError when two budgets have one name."""
        self._meters: dict[str, _Meter] = {}
        for budget in budgets:
            if budget.name in self._meters:
                raise ValueError(f"there are two budgets '{budget.name}'")
            self._meters[budget.name] = _Meter(budget)

    def __bool__(self) -> bool:
        return bool(self._meters)

    def charge(self, tenant: str, model: str, usd: float, now: float) -> None:
        """Count what a request cost, in every budget that covers it."""
        for meter in self._covering(tenant, model, now):
            meter.own_usd += usd

    def exceeded(self, tenant: str, model: str, now: float) -> Mapping[Action, Exceeded]:
        """Return the exceeded budgets that cover a request, by what they ask for.

        Of several that ask for the same, the one whose window turns last.
        """
        found: dict[Action, Exceeded] = {}
        for meter in self._covering(tenant, model, now):
            budget = meter.budget
            if meter.usd >= budget.usd:
                known = found.get(budget.action)
                turns_in_s = meter.end - now
                if known is None or turns_in_s > known.turns_in_s:
                    found[budget.action] = Exceeded(budget, meter.usd, turns_in_s)
        return found

    def own(self, now: float) -> Mapping[str, Spent]:
        """Return what this gateway spent, by budget, for the others and for its next life."""
        return {
            meter.budget.name: Spent(meter.budget.period, meter.begin, meter.own_usd)
            for meter in self._turned(now)
        }

    def restore(self, own: Mapping[str, Spent], now: float) -> None:
        """Take up what this gateway spent in a former life; what is of past windows is over.

        Shares that were reached then are not reported again.
        """
        for meter in self._turned(now):
            spent = own.get(meter.budget.name)
            if spent is not None and meter.is_now(spent):
                meter.own_usd = spent.usd
                meter.told = spent.usd / meter.budget.usd

    def learn(self, others: Sequence[Mapping[str, Spent]], now: float) -> None:
        """Replace what is known of the other gateways by what each of them says."""
        for meter in self._turned(now):
            said = (other.get(meter.budget.name) for other in others)
            meter.others_usd = sum(s.usd for s in said if s is not None and meter.is_now(s))

    def reached(self, now: float) -> Sequence[Reached]:
        """Return the shares that were reached since the last call, once each in a window.

        Of several of one budget, the highest.
        """
        found: list[Reached] = []
        for meter in self._turned(now):
            budget, share = meter.budget, meter.usd / meter.budget.usd
            alerts = [alert for alert in budget.alerts if meter.told < alert <= share]
            if alerts:
                found.append(Reached(budget, max(alerts), meter.usd, meter.end - now))
            meter.told = max(meter.told, share)
        return found

    def totals(self, now: float) -> Sequence[Exceeded]:
        """Return every budget with what all gateways spent of it, exceeded or not."""
        return [Exceeded(m.budget, m.usd, m.end - now) for m in self._turned(now)]

    def _covering(self, tenant: str, model: str, now: float) -> Iterator[_Meter]:
        return (meter for meter in self._turned(now) if meter.budget.covers(tenant, model))

    def _turned(self, now: float) -> Iterator[_Meter]:
        for meter in self._meters.values():
            meter.turn(now)
            yield meter
