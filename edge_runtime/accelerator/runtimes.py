"""How long runs of one model take, and how long one may take before it hangs.

A device that hangs says nothing, so a run has a limit: eight times what nearly all runs stay below,
200 ms at least. With what a late process is excused it is found within ten times, or 250 ms.
Those far beyond the usual do not count there while they are the minority: a device that was slow
for a moment would be given seconds before it hangs. Batches differ in size. More rows never take
longer than their share of a smaller batch, and fewer never longer than a larger one, so both bounds
are kept and the larger counts.
"""

from __future__ import annotations

import math
from collections import deque
from statistics import median
from typing import Final

from policies.degradation import is_in_pace

MIN_LIMIT_S: Final = 0.2
LIMIT_FACTOR: Final = 8.0
FIRST_LIMIT_S: Final = 5.0  # while nothing is known; the first run also sets the device up
SAMPLES: Final = 200
_RECOUNT: Final = 20


class RunTimes:
    """The latest runs of a model, by their rows."""

    def __init__(self) -> None:
        self._runs: deque[tuple[int, float]] = deque(maxlen=SAMPLES)
        self._since_count = 0
        self._usual = (0.0, 0.0)  # of a run, of a row of one
        self._typical = (0.0, 0.0)

    def saw(self, rows: int, seconds: float) -> None:
        """Learn from a run that has ended well."""
        self._runs.append((rows, seconds))
        self._since_count += 1
        if self._since_count >= _RECOUNT or len(self._runs) < _RECOUNT:
            self._since_count = 0
            self._count()

    def _count(self) -> None:
        self._usual = median(s for _, s in self._runs), median(s / r for r, s in self._runs)
        counted = [(r, s) for r, s in self._runs if is_in_pace(s, self.usual_s(r))]
        self._typical = (
            _percentile_99([s for _, s in counted]),
            _percentile_99([s / r for r, s in counted]),
        )

    def usual_s(self, rows: int) -> float:
        """Return the seconds of a median run, which a few slow ones do not move; 0: unknown."""
        run_s, row_s = self._usual
        return max(run_s, row_s * rows)

    def typical_s(self, rows: int) -> float:
        """Return the seconds that 99 % of such runs in pace stay below; 0: nothing is known."""
        run_s, row_s = self._typical
        return max(run_s, row_s * rows)

    def limit_s(self, rows: int) -> float:
        """Return the seconds after which a run of rows hangs."""
        if not self._runs:
            return FIRST_LIMIT_S
        return max(LIMIT_FACTOR * self.typical_s(rows), MIN_LIMIT_S)


def _percentile_99(values: list[float]) -> float:
    values.sort()
    return values[math.ceil(0.99 * len(values)) - 1]
