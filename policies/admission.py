"""Whether to take a request in, decided before it costs anything.

Refusing at once what would finish too late keeps the accepted requests fast and tells the
caller when to come back (SRE book, "Handling Overload"; Dagor, SoCC 2018). The estimate of
the wait is the work ahead divided by the workers; nothing is assumed about its spread.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

MIN_RETRY_S: Final = 0.1  # sooner, a refused caller who obeys would add to the overload


@dataclass(frozen=True, slots=True)
class QueueState:
    """A model's queue as a request finds it.

    queued: requests waiting; capacity: how many may wait; work_ahead_s: seconds of work queued
    and running, 0 when service times are unknown; workers: batches that run at once; before_s: of
    the work ahead, what goes before this request; all of it when None.
    """

    queued: int
    capacity: int
    work_ahead_s: float
    workers: int
    before_s: float | None = None


@dataclass(frozen=True, slots=True)
class Admitted:
    """Come in; wait_s is what is expected before the work begins."""

    wait_s: float


@dataclass(frozen=True, slots=True)
class Refused:
    """Not now. reason: `queue_full`, `queue_wait` or `deadline`; retry_after_s from now."""

    reason: str
    retry_after_s: float


def admit(
    state: QueueState, service_s: float, slack_s: float, max_wait_s: float
) -> Admitted | Refused:
    """Decide on one request.

    service_s: expected time of the batch it would be part of, 0 when unknown; slack_s: time to
    its deadline; max_wait_s: the longest wait the operator allows. Where others queue, the
    batch counts against it as well, so that it bounds what an accepted request waits in all;
    a model that takes longer than that still runs, one request at a time.
    """
    wait_s = state.work_ahead_s / max(1, state.workers)
    if state.queued >= state.capacity:
        return Refused("queue_full", max(wait_s, MIN_RETRY_S))
    bounded_s = wait_s + service_s if state.queued else wait_s
    if bounded_s > max_wait_s:
        return Refused("queue_wait", max(bounded_s - max_wait_s, MIN_RETRY_S))
    if state.before_s is not None:
        wait_s = state.before_s / max(1, state.workers)
    if wait_s + service_s > slack_s:
        return Refused("deadline", max(wait_s, MIN_RETRY_S))
    return Admitted(wait_s)
