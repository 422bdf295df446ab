"""How much memory the processes under attack hold."""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence
from typing import Final

import psutil

READINGS: Final = 5
APART_S: Final = 0.3


def resident_bytes(pids: Sequence[int]) -> int:
    """Return the median of a few readings of what all processes hold together.

    Raises psutil.NoSuchProcess when one has died.
    """
    processes = [psutil.Process(pid) for pid in pids]
    readings: list[int] = []
    for _ in range(READINGS):
        readings.append(sum(process.memory_info().rss for process in processes))
        time.sleep(APART_S)
    return int(statistics.median(readings))


def settled_bytes(pids: Sequence[int], goal: float, within_s: float) -> int:
    """Wait until the memory is down to goal bytes, at most within_s; return what it is then."""
    end = time.monotonic() + within_s
    held = resident_bytes(pids)
    while held > goal and time.monotonic() < end:
        held = resident_bytes(pids)
    return held
