"""What an engine remembers of a model's requests: counters and a latency histogram.

Plain additions on the event loop; nothing here is on a lock.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from dataclasses import dataclass

from edge_runtime.protocol.types import BatchStat, DurationStat, ModelStatistics

LATENCY_BUCKETS_S = (
    0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0,
)  # fmt: skip
_BUSY_EVERY_S = 0.1
_LARGE_BATCH = 256  # from here on sizes are counted by powers of two, so that callers who send
# every size do not fill the memory


@dataclass(slots=True)
class _Duration:
    count: int = 0
    ns: int = 0

    def add(self, ns: int, count: int = 1) -> None:
        self.count += count
        self.ns += ns

    def freeze(self) -> DurationStat:
        return DurationStat(self.count, self.ns)


class BusyShare:
    """The share of time in which something computed, as an exponential mean over a second or so."""

    __slots__ = ("_ns", "_read_at", "_share")

    def __init__(self) -> None:
        self._read_at = 0.0
        self._ns = 0
        self._share = 0.0

    def read(self, now: float, computed_ns: int, workers: int) -> float:
        """Return it. computed_ns: of all runs until now; workers: runs that may go on at once.

        A run under way should count with what it has taken so far: one that counts at its end
        seems to be more than there can be within a moment, which is cut. A run that is given up
        may take away what it counted for.
        """
        passed_s = now - self._read_at
        if passed_s >= _BUSY_EVERY_S:
            share = (computed_ns - self._ns) / (passed_s * 1e9 * max(1, workers))
            share = min(1.0, max(0.0, share))
            self._share += (share - self._share) * (1.0 - math.exp(-passed_s))
            self._read_at, self._ns = now, computed_ns
        return self._share


class ModelStats:
    """Counters of one loaded model version, since it was loaded.

    Every request taken in ends as one of success, fail or cancel; expired counts those of the
    failed whose deadline passed. rejected were not taken in. replayed were computed again after an
    accelerator lost them. rungs: batches and rows by the rung that computed them.
    """

    def __init__(self, model: str, version: str) -> None:
        self.model = model
        self.version = version
        self.last_inference_ms = 0
        self.inference_count = 0
        self.execution_count = 0
        self.rejected = 0
        self.expired = 0
        self.replayed = 0
        self.rungs: dict[str, tuple[int, int]] = {}
        self.success = _Duration()
        self.fail = _Duration()
        self.queue = _Duration()
        self.compute_input = _Duration()
        self.compute_infer = _Duration()
        self.compute_output = _Duration()
        self.cancel = _Duration()
        self.cache_hit = _Duration()
        self._batches: dict[int, tuple[_Duration, _Duration, _Duration]] = {}
        self.latency_counts = [0] * (len(LATENCY_BUCKETS_S) + 1)
        self.latency_sum_s = 0.0

    def executed(self, rows: int, input_ns: int, infer_ns: int, output_ns: int) -> None:
        """Record one run of the backend over `rows` rows."""
        self.inference_count += rows
        self.execution_count += 1
        self.compute_input.add(input_ns)
        self.compute_infer.add(infer_ns)
        self.compute_output.add(output_ns)
        size = rows if rows <= _LARGE_BATCH else 1 << (rows.bit_length() - 1)
        parts = self._batches.get(size)
        if parts is None:
            parts = self._batches[size] = (_Duration(), _Duration(), _Duration())
        for part, ns in zip(parts, (input_ns, infer_ns, output_ns), strict=True):
            part.add(ns)

    def ran_on(self, rung: str, rows: int) -> None:
        """Record where a run took place."""
        batches, all_rows = self.rungs.get(rung, (0, 0))
        self.rungs[rung] = (batches + 1, all_rows + rows)

    def succeeded(self, total_s: float, queued_s: float, unix_ms: int) -> None:
        """Record an answered request."""
        self.success.add(int(total_s * 1e9))
        self.queue.add(int(queued_s * 1e9))
        self.last_inference_ms = unix_ms
        self.latency_counts[bisect_left(LATENCY_BUCKETS_S, total_s)] += 1
        self.latency_sum_s += total_s

    def recalled(self, seconds: float) -> None:
        """Record a request that was answered from memory."""
        self.cache_hit.add(int(seconds * 1e9))

    def snapshot(self) -> ModelStatistics:
        """Return the counters as an immutable value."""
        return ModelStatistics(
            name=self.model,
            version=self.version,
            last_inference_ms=self.last_inference_ms,
            inference_count=self.inference_count,
            execution_count=self.execution_count,
            success=self.success.freeze(),
            fail=self.fail.freeze(),
            queue=self.queue.freeze(),
            compute_input=self.compute_input.freeze(),
            compute_infer=self.compute_infer.freeze(),
            compute_output=self.compute_output.freeze(),
            cancel=self.cancel.freeze(),
            cache_hit=self.cache_hit.freeze(),
            rejected=self.rejected,
            batches=tuple(
                BatchStat(rows, parts[0].freeze(), parts[1].freeze(), parts[2].freeze())
                for rows, parts in sorted(self._batches.items())
            ),
        )
