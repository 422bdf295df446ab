"""What a process and the children of it hold, second by second."""

from __future__ import annotations

import asyncio
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import psutil

from load.edge.memory import descriptors, resident


@dataclass(frozen=True, slots=True)
class Sample:
    """at_s: since the beginning; host_rss: of all children together; answers: so far."""

    at_s: float
    rss: int
    host_rss: int
    descriptors: int
    threads: int
    answers: int


async def watch(
    pid: int, samples: list[Sample], answers: Callable[[], int], every_s: float
) -> None:
    """Add a sample every so often, until cancelled. Raises OSError when the process has gone."""
    began = time.perf_counter()
    due = began
    while True:
        rss, threads = resident(pid)
        samples.append(
            Sample(
                at_s=time.perf_counter() - began,
                rss=rss,
                host_rss=_children_rss(pid),
                descriptors=descriptors(pid),
                threads=threads,
                answers=answers(),
            )
        )
        due += every_s
        await asyncio.sleep(max(0.0, due - time.perf_counter()))


def tenths(samples: Sequence[Sample], of: Callable[[Sample], float]) -> tuple[float, float]:
    """Return the median over the first and over the last tenth of the time.

    Raises ValueError for no samples.
    """
    if not samples:
        raise ValueError("nothing was sampled")
    first_s, last_s = samples[0].at_s, samples[-1].at_s
    tenth_s = (last_s - first_s) / 10
    return (
        statistics.median(of(s) for s in samples if s.at_s <= first_s + tenth_s),
        statistics.median(of(s) for s in samples if s.at_s >= last_s - tenth_s),
    )


def _children_rss(pid: int) -> int:
    total = 0
    try:
        for process in psutil.Process(pid).children(recursive=True):
            total += process.memory_info().rss
    except psutil.Error:
        return total  # one that ends at this moment
    return total
