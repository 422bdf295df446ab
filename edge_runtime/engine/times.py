"""How long a model's runs take, learned from those seen, and which may run on the event loop.

Admission, batching and routing read the times. A run on the loop saves a thread hop of about
0.1 ms, and on a busy machine the wait of a pool thread for the interpreter's lock, which
requests of a tenth of a millisecond would queue up for; but it stops everybody else, so only
runs of less than `INLINE_S` may.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

INLINE_S: Final = 0.0005
LEARN_EVERY: Final = 16  # batches, then one row alone: see `is_single_due`
_SMOOTHING: Final = 0.2
_FORGETTING: Final = 1.01


class ServiceTimes:
    """Expected seconds of a batch by its rows.

    Sizes are kept in powers of two. A size not seen yet is judged by the nearest size that was:
    as long as a smaller one, as long as its share of a larger one. Means are exponentially
    weighted. On a busy machine a run takes longer than it is; what tells models apart there is
    the least time, forgotten slowly, and the processor time of the thread that ran it.

    has_fixed_rows: every row of a batch is the same amount of work. row_s: mean seconds of a row,
    batches included.
    """

    def __init__(self, *, has_fixed_rows: bool) -> None:
        self._has_fixed_rows = has_fixed_rows
        self._mean_s: dict[int, float] = {}
        self._least_s: dict[int, float] = {}
        self._thread_s: dict[int, float] = {}
        self._batches_since_single = 0
        self.row_s = 0.0

    def saw(self, rows: int, seconds: float, thread_s: float | None = None) -> None:
        """Learn from one run. thread_s: of its thread on the processor, all of it by default."""
        size = rows.bit_length()
        thread_s = seconds if thread_s is None else thread_s
        seen = self._mean_s.get(size)
        if seen is None:
            self._mean_s[size] = self._least_s[size] = seconds
            self._thread_s[size] = thread_s
        else:
            self._mean_s[size] = seen + _SMOOTHING * (seconds - seen)
            self._least_s[size] = min(seconds, self._least_s[size] * _FORGETTING)
            self._thread_s[size] += _SMOOTHING * (thread_s - self._thread_s[size])
        per_row = seconds / rows
        self.row_s = per_row if not self.row_s else self.row_s + _SMOOTHING * (per_row - self.row_s)
        self._batches_since_single = 0 if rows == 1 else self._batches_since_single + 1

    def estimate(self, rows: int) -> float:
        """Return expected seconds for a batch of rows; 0 when nothing was seen yet."""
        return _nearest(self._mean_s, rows)

    def least(self, rows: int) -> float:
        """Return the seconds of an undisturbed run of rows; 0 when nothing was seen yet."""
        return _nearest(self._least_s, rows)

    def thread(self, rows: int) -> float:
        """Return a thread's expected processor seconds for rows; 0 when nothing was seen yet.

        Never less than what fewer rows have taken.
        """
        size = rows.bit_length()
        most = _nearest(self._thread_s, rows)
        for other, seconds in self._thread_s.items():
            if other < size and seconds > most:
                most = seconds
        return most

    def lone(self, rows: int) -> float:
        """Return the seconds that a request takes by itself, once it runs.

        On a busy machine a quick model takes many times its work, and so would everything that
        could be done with the request instead; its work is what it compares by.
        """
        return self.least(rows) if self.is_quick(rows) else self.estimate(rows)

    def alone(self, rows: int) -> float:
        """Return the same where rows are what work depends on, else 0."""
        return self.lone(rows) if self._has_fixed_rows else 0.0

    def is_quick(self, rows: int) -> bool:
        """Tell whether a batch of rows may run on the loop.

        Judged by what a run is, not by what it takes while others want the processor or the
        interpreter's lock: else a busy model would leave the loop and, behind a busy loop, never
        be quick enough to come back.
        """
        return (
            self._has_fixed_rows
            and 0.0 < self.least(rows) < INLINE_S
            and self.thread(rows) < 2 * INLINE_S
        )

    def quick_rows(self, least_rows: int, most_rows: int) -> int:
        """Return how large a batch may be that runs on the loop; 0: not even least_rows."""
        rows = most_rows
        while rows > least_rows:
            if self.is_quick(rows):
                return rows
            rows //= 2
        return least_rows if self.is_quick(least_rows) else 0

    def is_single_due(self) -> bool:
        """Tell whether to run one row alone, so that a quick model that is busy is seen as such."""
        return self._batches_since_single >= LEARN_EVERY and (
            self._has_fixed_rows and 0.0 < self.least(1) < INLINE_S
        )


def _nearest(seconds: Mapping[int, float], rows: int) -> float:
    size = rows.bit_length()
    seen = seconds.get(size)
    if seen is not None:
        return seen
    if not seconds:
        return 0.0
    nearest = min(seconds, key=lambda other: abs(other - size))
    return seconds[nearest] * float(max(1.0, 2.0 ** (size - nearest)))
