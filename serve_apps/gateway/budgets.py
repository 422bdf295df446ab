"""Budgets at the gateway: what an exceeded one does to a request, and the exchange of spending.

The request path asks plain values in memory. A background task writes what this gateway spent to
the home and reads what the others did, once a second, and reports shares that are reached. When
the home cannot be written the budgets hold for what this gateway knows: no request fails for that.
"""

from __future__ import annotations

import asyncio
import logging
import math
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

from cluster.cost.spending import read_spent, write_spent
from edge_runtime.errors import BudgetExceeded
from policies.cost import Exceeded, Spending, Spent

logger = logging.getLogger(__name__)

EXCHANGE_S: Final = 1.0
CHEAP_TIERS: Final = frozenset({"edge"})


class Budgets:
    """The budgets of one gateway. Use on one event loop; `run` keeps them in step with others.

    gateway: names its file in `folder`; wall: unix seconds.
    """

    def __init__(
        self,
        spending: Spending,
        folder: Path,
        gateway: str,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self.spending = spending
        self._folder = folder
        self._gateway = gateway
        self._wall = wall
        self._is_failing = False
        self._said: Mapping[str, Spent] = {}
        self._writing = threading.Lock()
        self._asked = self._written = 0  # writes, in the order in which they were asked for
        self._is_without_cheap_place = False
        self.without_cheap_place = 0
        self.actions: Counter[tuple[str, str]] = Counter()

    async def admit(
        self, tenant: str, model: str, *, can_wait: bool, slack_s: float
    ) -> frozenset[str]:
        """Return the tiers that the request should go to, where one can serve it; none: any.

        can_wait: the caller marked it as a batch request; under the action `queue` such a one
        waits until the window turns, where that is before its deadline in slack_s. Raises
        BudgetExceeded where it must not run now.
        """
        while self.spending:
            exceeded = self.spending.exceeded(tenant, model, self._wall())
            for action in ("alert", "refuse"):
                if action in exceeded:
                    self._count(exceeded[action], action)
            if "refuse" in exceeded:
                raise _refusal(exceeded["refuse"])
            waits = exceeded.get("queue")
            if waits is None or not can_wait:
                if "degrade" not in exceeded:
                    break
                self._count(exceeded["degrade"], "degrade")
                return CHEAP_TIERS
            self._count(waits, "queue")
            if waits.turns_in_s >= slack_s:
                raise _refusal(waits)
            await asyncio.sleep(waits.turns_in_s)
            slack_s -= waits.turns_in_s
        return frozenset()

    def degraded(self, *, is_cheap: bool) -> None:
        """Take note of whether a cheap place served a request that should go to one."""
        if not is_cheap:
            self.without_cheap_place += 1
            if not self._is_without_cheap_place:
                logger.warning("a budget is spent, but no edge place can serve: the cloud does")
        self._is_without_cheap_place = not is_cheap

    def _count(self, found: Exceeded, action: str) -> None:
        self.actions[found.budget.name, action] += 1

    def restore(self) -> None:
        """Take up what a gateway of this name spent before."""
        now = self._wall()
        found = read_spent(self._folder)
        self.spending.restore(found.pop(self._gateway, {}), now)
        self.spending.learn(list(found.values()), now)

    async def run(self) -> None:
        """Exchange for ever; what was spent last is written when this is cancelled."""
        try:
            while True:
                await self.exchange()
                await asyncio.sleep(EXCHANGE_S)
        finally:
            self._asked += 1
            self._write(self._asked, self.spending.own(self._wall()))

    async def exchange(self) -> None:
        """Tell the others what was spent, hear what they did, report what is reached."""
        own = self.spending.own(self._wall())
        if own != self._said:
            self._asked += 1
            await asyncio.to_thread(self._write, self._asked, own)
        found = dict(await asyncio.to_thread(read_spent, self._folder))
        found.pop(self._gateway, None)
        now = self._wall()
        self.spending.learn(list(found.values()), now)
        for reached in self.spending.reached(now):
            budget = reached.budget
            logger.warning(
                "budget %s: %.0f %% of %g dollars for this %s are spent (%.4g); action %s, "
                "turns in %s",
                budget.name,
                100 * reached.share,
                budget.usd,
                budget.period,
                reached.spent_usd,
                budget.action,
                _in_words(reached.turns_in_s),
            )

    def shares(self) -> Mapping[str, float]:
        """Return, by budget, the share that all gateways have spent of it."""
        totals = self.spending.totals(self._wall())
        return {found.budget.name: found.spent_usd / found.budget.usd for found in totals}

    def _write(self, number: int, own: Mapping[str, Spent]) -> None:
        """Write in a thread, or at the end while one may still be at it; the newest stays."""
        with self._writing:
            if number < self._written:
                return
            self._written = number
            try:
                write_spent(self._folder, self._gateway, own)
                self._said = own
                self._is_failing = False
            except OSError as error:
                if not self._is_failing:
                    logger.warning("what was spent cannot be written: %s", error.strerror or error)
                self._is_failing = True


def _refusal(found: Exceeded) -> BudgetExceeded:
    budget = found.budget
    return BudgetExceeded(
        f"budget '{budget.name}' is spent: {budget.usd:g} dollars for this {budget.period}",
        hint=f"it turns in {_in_words(found.turns_in_s)}; `prime-spark budgets` shows all",
        retry_after_s=found.turns_in_s,
        details={"budget": budget.name},
    )


def _in_words(seconds: float) -> str:
    if seconds >= 5400:
        return f"{seconds / 3600:.0f} h"
    return f"{math.ceil(seconds / 60)} min" if seconds >= 90 else f"{math.ceil(seconds)} s"
