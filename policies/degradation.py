"""When a part that failed may be trusted again, and when a slow one is not worth its place.

A circuit breaker (Nygard, "Release It!", 2007) with a hold: after a fall the part has to be
healthy for a while before it serves again, longer when it has fallen often, so that a part that
works for a moment after each restart does not flap. Times are seconds on any one clock.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

RECENT_S: Final = 60.0  # falls in this time count
FLAP_S: Final = 2.0  # a return that lasts no longer was none ...
QUIET_S: Final = (
    60.0  # ... and the next one has to wait, so that there is one flap a minute at most
)
HOLD_S: Final = 0.5  # of health asked for after a first fall; doubled with each further one
MAX_HOLD_S: Final = 4.0
SLOW_HOLD_S: Final = 3.0  # more, while it is slow: that may be the processor, which feeds it
MAX_RESTART_S: Final = 4.0
_MAX_DOUBLINGS: Final = 32  # a power of two that a float can hold, and larger than any bound here

SPOILED_LOADS: Final = 3  # in a row, before a model that spoils the device for others is set aside
SET_ASIDE_S: Final = 60.0  # ... for so long, doubled with each further one
MAX_SET_ASIDE_S: Final = 3600.0

SLOW_FACTOR: Final = 1.5  # slower than the next rung by this, and ...
UNUSUAL_FACTOR: Final = 3.0  # ... than its own usual pace by this, is too slow
SLACK_S: Final = 0.01  # ... beyond what a busy processor does to any run: it is not the device's
_SMOOTHING: Final = 0.05
SLOW_RUNS: Final = 5  # in a row, before a rung steps back
FAST_RUNS: Final = 3  # in a row, before it comes back
PROBE_EVERY_S: Final = 0.5  # one request in this time tries a rung that has stepped back

REST_C: Final = 105.0  # a Hailo-8 is specified to 105 degrees at its junction, and shuts down above
RESUME_C: Final = 95.0
CAREFUL_C: Final = 98.0  # one batch at a time from here on


@dataclass(frozen=True, slots=True)
class Breaker:
    """A part's history.

    is_open: it does not serve; falls: those of the last minute; returned_at: when it served again
    after a fall; healthy_since: while open, of its health; not_before: it may not return earlier.
    """

    is_open: bool = True
    has_fallen: bool = False
    falls: tuple[float, ...] = ()
    returned_at: float = -float("inf")
    healthy_since: float | None = None
    not_before: float = -float("inf")


def fell(breaker: Breaker, now: float) -> Breaker:
    """Return the breaker after a failure."""
    recent = tuple(at for at in breaker.falls if now - at < RECENT_S)
    if breaker.is_open:
        return replace(breaker, falls=recent, healthy_since=None)
    flapped = now - breaker.returned_at < FLAP_S
    return Breaker(
        is_open=True,
        has_fallen=True,
        falls=(*recent, now),
        returned_at=breaker.returned_at,
        healthy_since=None,
        not_before=now + QUIET_S if flapped else breaker.not_before,
    )


def is_healthy(breaker: Breaker, now: float, *, in_pace: bool = True) -> Breaker:
    """Return the breaker after a sign of health; it closes when health has lasted.

    in_pace: whether the sign came as soon as is usual.
    """
    if not breaker.is_open:
        return breaker
    since = now if breaker.healthy_since is None else breaker.healthy_since
    needed_s = hold_s(breaker, now) + (0.0 if in_pace else SLOW_HOLD_S)
    if now >= breaker.not_before and now - since >= needed_s:
        returned_at = now if breaker.has_fallen else breaker.returned_at
        return replace(breaker, is_open=False, returned_at=returned_at, healthy_since=None)
    return replace(breaker, healthy_since=since)


def hold_s(breaker: Breaker, now: float) -> float:
    """Return how long health has to last before the part serves again; 0 before a first fall."""
    falls = sum(1 for at in breaker.falls if now - at < RECENT_S)
    return _doubled(HOLD_S, falls - 1, MAX_HOLD_S)


def restart_after_s(failures: int) -> float:
    """Return the pause before another start after so many that failed in a row."""
    return _doubled(0.25, failures - 1, MAX_RESTART_S)


def set_aside_s(failed_loads: int) -> float:
    """Return how long the others are spared a model that failed to load so often in a row."""
    return _doubled(SET_ASIDE_S, failed_loads - SPOILED_LOADS, MAX_SET_ASIDE_S)


def _doubled(first_s: float, times: int, most_s: float) -> float:
    """Return the first value doubled so often, 0 for a negative number of times."""
    return 0.0 if times < 0 else min(most_s, first_s * 2.0 ** min(times, _MAX_DOUBLINGS))


@dataclass(frozen=True, slots=True)
class Pace:
    """Whether a rung is worth its place.

    run_s, row_s: means of a run and of a row of one when nothing is wrong, 0 while unknown; slow,
    fast: runs in a row; probed_at: latest attempt while it is out.
    """

    is_out: bool = False
    run_s: float = 0.0
    row_s: float = 0.0
    slow: int = 0
    fast: int = 0
    probed_at: float = -float("inf")

    def usual_s(self, rows: int) -> float:
        """Return what so many rows take at most when nothing is wrong.

        Batches differ in size: fewer rows take no longer than a larger batch, and more no longer
        than their share of a smaller one.
        """
        return max(self.run_s, self.row_s * rows)


def ran(pace: Pace, rows: int, seconds: float, next_s: float) -> Pace:
    """Return the pace after a run. next_s: seconds of the same on the next rung, 0: not known.

    A small model may be quicker on the processor than on an accelerator that is in best health;
    that is no reason to leave it, so a rung is measured by its own usual pace too. Nor is it one
    that other programs keep the processor busy, which holds every run up by some milliseconds:
    stepping back would give the processor more to do.
    """
    is_unusual = not is_in_pace(seconds, pace.usual_s(rows))
    if is_unusual and 0 < next_s * SLOW_FACTOR < seconds - SLACK_S:
        return gave_up(pace)
    fast = pace.fast + 1
    is_out = pace.is_out and fast < FAST_RUNS
    if is_unusual:
        return replace(pace, is_out=is_out, slow=0, fast=fast)
    run_s, row_s = _smoothed(pace.run_s, seconds), _smoothed(pace.row_s, seconds / rows)
    return replace(pace, is_out=is_out, run_s=run_s, row_s=row_s, slow=0, fast=fast)


def gave_up(pace: Pace) -> Pace:
    """Return the pace after a run that took too long, or that nobody waited for any longer."""
    slow = pace.slow + 1
    return replace(pace, is_out=pace.is_out or slow >= SLOW_RUNS, slow=slow, fast=0)


def is_in_pace(seconds: float, usual_s: float) -> bool:
    """Tell whether a run took about as long as is usual; 0: that is not known."""
    return not 0 < usual_s * UNUSUAL_FACTOR < seconds - SLACK_S


def _smoothed(mean: float, value: float) -> float:
    return mean + _SMOOTHING * (value - mean) if mean else value


def may_try(pace: Pace, now: float) -> bool:
    """Tell whether the next request may run on this rung."""
    return not pace.is_out or now - pace.probed_at >= PROBE_EVERY_S


@dataclass(frozen=True, slots=True)
class Heat:
    """is_resting: too hot to serve; is_careful: one batch at a time."""

    is_resting: bool = False
    is_careful: bool = False


def felt(heat: Heat, temperature_c: float | None, *, is_throttled: bool) -> Heat:
    """Return what to do at this temperature; None: not known, and only throttling counts."""
    if temperature_c is None:
        return Heat(is_resting=False, is_careful=is_throttled)
    limit_c = RESUME_C if heat.is_resting else REST_C
    return Heat(
        is_resting=temperature_c >= limit_c,
        is_careful=is_throttled or temperature_c >= CAREFUL_C,
    )
