"""Which targets get nothing for a while because they fail (`policies.routing.ejection`).

The dispatcher tells of every attempt; routing sees the outcome as `is_ejected` of its targets.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Final

from edge_runtime.errors import Corrupt, PrimeSparkError, Unavailable
from policies.routing.ejection import Attempt, EjectionRules, Ejector
from serve_apps.gateway.knowledge import Knowledge

logger = logging.getLogger(__name__)

OK: Final = "ok"
LOST: Final = "target_lost"
# Codes of failures that are the target's own. A refusal for load, a model that it has not loaded,
# an error of the caller and a deadline are none.
FAILURES: Final = frozenset({LOST, Unavailable.code, Corrupt.code, PrimeSparkError.code})


class Ejections:
    """The ejections of one gateway. rules: None for none; up: who could serve now."""

    def __init__(
        self,
        knowledge: Knowledge,
        up: Callable[[], frozenset[str]],
        rules: EjectionRules | None,
        clock: Callable[[], float],
    ) -> None:
        self._knowledge = knowledge
        self._up = up
        self._clock = clock
        self._ejector = None if rules is None else Ejector(rules)
        self._shown: frozenset[str] = frozenset()

    def now(self) -> frozenset[str]:
        """Return who is ejected now, and let routing know."""
        if self._ejector is not None and not (self._ejector.is_quiet and not self._shown):
            found = self._ejector.ejected(self._clock(), self._up())
            for name in found ^ self._shown:
                self._knowledge.change(name, is_ejected=name in found)
            self._shown = found
        return self._shown

    def sent(self, target: str) -> Attempt | None:
        """Record that a request goes to a target."""
        if self._ejector is None:
            return None
        return self._ejector.sent(target)

    def ended(self, attempt: Attempt | None, outcome: str) -> None:
        """Record how that ended. outcome: `ok`, `cancelled` or the code of an error."""
        if self._ejector is None or attempt is None:
            return
        has_failed = outcome in FAILURES if outcome in {OK, *FAILURES} else None
        # Who is up is asked only where it matters: most requests go well, and nobody is away.
        up = self._up() if has_failed or not self._ejector.is_quiet else frozenset[str]()
        times = self._ejector.ejections(attempt.target)
        self._ejector.ended(attempt, self._clock(), up, has_failed=has_failed)
        if self._ejector.ejections(attempt.target) > times:
            logger.warning("target %s is ejected: it fails with %s", attempt.target, outcome)
