"""The engine beside the gateway, as a target among the others."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Final

from edge_runtime.engine import Answered, Engine, LoadReport
from edge_runtime.errors import DeadlineExceeded
from edge_runtime.protocol.types import InferRequest
from policies.cost import NO_BOOK, Rates
from policies.routing import Request, Target
from serve_apps.gateway.knowledge import Key, Knowledge, place
from serve_apps.gateway.sleep import Sleep
from serve_apps.model_sync import ModelSync
from serve_apps.wire import ReplicaReport

LOOK_S: Final = 0.004  # what was sent since the last look is counted anyway
IDLE_LOOK_S: Final = 0.02  # while nothing is under way there, nothing happens there
JUST_LATE: Final = 1.001  # of its time; what was given up would have taken that at least


class LocalTarget:
    """The engine in this process."""

    def __init__(
        self,
        name: str,
        site: str,
        engine: Engine,
        sync: ModelSync,
        clock: Callable[[], float] = time.monotonic,
        rates: Rates = NO_BOOK,
    ) -> None:
        self.name = name
        self.tier = "colocated"
        self.site = site
        self.rates = rates
        self.is_up = True
        self.is_silent = False
        self.is_due = False
        self.has_spare = False
        self.problem = ""
        self.sleep: Sleep | None = None
        self._engine = engine
        self._sync = sync
        self._clock = clock
        self._look_at: dict[Key, float] = {}
        self.join(Knowledge())

    def join(self, knowledge: Knowledge) -> None:
        """Write what is learned of this target to what a gateway knows of all."""
        self._knowledge = knowledge
        knowledge.add(place(self.name, self.tier, self.site, self.rates))

    def view(self, key: Key) -> Target:
        """Return what routing knows of this target for one model version, as of now."""
        self.look(key)
        return self._knowledge.table(key)[self.name]

    def look(self, key: Key) -> None:
        """See how the engine is, before a decision; there is no need to be told."""
        now = self._clock()
        if now < self._look_at.get(key, 0.0):
            return
        load = self._engine.load_of(key)
        self._knowledge.saw(self.name, key, load, now)
        self._look_at[key] = _next_look(load, now)

    async def infer(
        self,
        request: InferRequest,
        version: str,
        wanted: Request,
        *,
        deadline: float,
        priority: int,
        patience_s: float | None,
        trace: str = "",
    ) -> Answered:
        key = (request.model, version)
        table = self._knowledge.table(key)
        sent = table.sent(self.name, wanted, self._clock())
        try:
            found = await self._engine.answer(
                request, version, deadline=deadline, priority=priority
            )
        except DeadlineExceeded:
            table.late(sent, self._clock(), JUST_LATE * wanted.slack_s)
            raise
        except BaseException:
            table.ended(sent)
            raise
        now = self._clock()
        load = self._engine.load_of(key)
        table.answered(sent, now, load.for_routing(found.alone_s) if load else None, now)
        if load is not None and table[self.name].has_model:
            # Said with the answer, so that at full load no decision has to look.
            self._look_at[key] = _next_look(load, now)
        return found

    @property
    def reports(self) -> Sequence[ReplicaReport]:
        report = ReplicaReport(
            loads=self._engine.load_report(),
            failures=self._sync.failures,
            statistics=tuple(self._engine.statistics()),
            generation=self._sync.generation,
        )
        return (report,)

    async def probe(self) -> None:
        """Nothing to ask: the engine is here."""


def _next_look(load: LoadReport | None, now: float) -> float:
    is_idle = load is not None and not (load.queued or load.running)
    return now + (IDLE_LOOK_S if is_idle else LOOK_S)
