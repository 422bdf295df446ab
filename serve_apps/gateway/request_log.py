"""The request log: what became of every request and what it cost, for analysis and replay.

One JSON object a line in `logs/requests/requests-<gateway>-<start>.jsonl` of the home. A line is
one attempt; a request that was refused before it was sent anywhere has one line with attempt 0
and an empty target (one that made no sense, or was not allowed, has none). So the lines with an
attempt of 0 or 1 are the requests that came, and a request's outcome is that of its last attempt.
Version 1 has these keys, none is ever missing:

    v            version of this format; readers skip lines of one that they do not know
    at           unix seconds of arrival (of this attempt)
    id           as the caller named it; may be empty, need not be unique; `shadow:` and that id
                 where it is a copy for a version that is being tried, which nobody waits for
    tenant, model, version
    target, tier, site    where it was sent; empty for attempt 0
    reason       why there (`policies.routing.types.REASONS`, `failover`)
    objective    of the decision: latency, balanced, cost
    attempt      0 (never sent), 1, 2
    slack_ms     time to the deadline then
    bytes        of the input tensors
    origin_site  where the caller said it is, or null
    expected_ms  predicted time to the answer
    taken_ms     time to the end of the attempt
    late         predicted P(late), 0 to 1
    outcome      `ok`, `cancelled` or the code of an error
    usd          all it cost, in dollars
    parts        the same by part: replica, egress, energy, carbon
    joules, carbon_g      energy, and grams of CO2 equivalent

The request path only appends to a bounded queue; one background task encodes in slices and hands
batches to a thread that writes. When the disk is slower than the traffic, records are dropped and
counted: telemetry never holds a request up. What a process that is killed had not written yet is
lost, up to `FLUSH_S` of it; a power cut may take what the kernel had not written either. Files
are rotated by size and the oldest are removed, so that all of them together keep to a bound.
"""

from __future__ import annotations

import asyncio
import logging
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final, NamedTuple

import orjson

from policies.cost import FREE, PARTS, Cost

logger = logging.getLogger(__name__)

VERSION: Final = 1
CAPACITY: Final = 20_000  # records in memory, some 10 MB
FLUSH_S: Final = 0.5
SLICE: Final = 128  # records encoded before the loop may do something else, under 1 ms
PIECE: Final = 64  # lines, some 32 kB, between which a file may turn out to be full
LEAST_FILE_BYTES: Final = 64 * 1024
FILES: Final = 8  # that the bound is made of; the oldest goes as a whole
PATTERN: Final = "requests-*.jsonl"
_DAY_S: Final = 86_400.0


class RequestRecord(NamedTuple):
    """One attempt; see the module for what the fields mean. Times are seconds here."""

    at: float
    id: str
    tenant: str
    model: str
    version: str
    objective: str
    attempt: int
    slack_s: float
    bytes: int
    origin_site: str | None
    outcome: str
    target: str = ""
    tier: str = ""
    site: str = ""
    reason: str = ""
    expected_s: float = 0.0
    taken_s: float = 0.0
    late: float = 0.0
    cost: Cost = FREE


def encode(record: RequestRecord) -> bytes:
    """Return the line of a record, its end included."""
    cost = record.cost
    return orjson.dumps(
        {
            "v": VERSION,
            "at": record.at,
            "id": record.id,
            "tenant": record.tenant,
            "model": record.model,
            "version": record.version,
            "target": record.target,
            "tier": record.tier,
            "site": record.site,
            "reason": record.reason,
            "objective": record.objective,
            "attempt": record.attempt,
            "slack_ms": round(record.slack_s * 1e3, 3),
            "bytes": record.bytes,
            "origin_site": record.origin_site,
            "expected_ms": round(record.expected_s * 1e3, 3),
            "taken_ms": round(record.taken_s * 1e3, 3),
            "late": round(record.late, 4),
            "outcome": record.outcome,
            "usd": cost.usd,
            "parts": {part: getattr(cost, part) for part in PARTS},
            "joules": cost.joules,
            "carbon_g": cost.carbon_g,
        },
        option=orjson.OPT_APPEND_NEWLINE,
    )


class RequestLog:
    """The log of one gateway; `run` writes it. Use on one event loop.

    gateway: names the files; max_bytes, max_days: of what all gateways of the folder keep there,
    of which this one may take `share`.
    """

    def __init__(
        self,
        folder: Path,
        gateway: str,
        *,
        max_bytes: int,
        max_days: float,
        share: float = 1.0,
        capacity: int = CAPACITY,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self._folder = folder
        self._gateway = gateway
        self._own_bytes = max(FILES * LEAST_FILE_BYTES, int(max_bytes * share))
        self._max_s = max_days * _DAY_S
        self._capacity = capacity
        self._wall = wall
        self._waiting: deque[RequestRecord] = deque()
        self._lines: list[bytes] = []
        self._writing = threading.Lock()
        self._path: Path | None = None
        self._is_failing = False
        self.written = 0
        self.dropped = 0

    def add(self, record: RequestRecord) -> None:
        """Take a record in, or count it as dropped; never waits."""
        if len(self._waiting) >= self._capacity:
            self.dropped += 1
        else:
            self._waiting.append(record)

    async def run(self) -> None:
        """Write for ever; what is left is written when this is cancelled."""
        try:
            while True:
                await asyncio.sleep(FLUSH_S)
                await self.flush()
        finally:
            self._encode(len(self._waiting))
            self._write()

    async def flush(self) -> None:
        """Write what is waiting now. A disk that refuses costs these records, and is logged."""
        left = len(self._waiting)
        while left > 0:
            self._encode(min(SLICE, left))
            left -= SLICE
            await asyncio.sleep(0)
        if self._lines:
            await asyncio.to_thread(self._write)

    def _encode(self, count: int) -> None:
        lines = [encode(self._waiting.popleft()) for _ in range(count)]
        with self._writing:
            self._lines += lines

    def _write(self) -> None:
        """Write the encoded lines; in a thread, or at the end while one may still be at it."""
        with self._writing:
            lines, self._lines = self._lines, []
            for start in range(0, len(lines), PIECE):
                self._append(lines[start : start + PIECE])

    def _append(self, lines: Sequence[bytes]) -> None:
        try:
            with self._file().open("ab") as file:
                file.write(b"".join(lines))
        except OSError as error:
            self.dropped += len(lines)
            if not self._is_failing:
                logger.warning("the request log cannot be written: %s", error.strerror or error)
            self._is_failing = True
        else:
            self.written += len(lines)
            self._is_failing = False

    def _file(self) -> Path:
        """Return the file to append to: a new one when there is none, or it is full."""
        path = self._path
        if path is not None and _size(path) < self._own_bytes // FILES:
            return path
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        path = self._folder / f"requests-{self._gateway}-{int(self._wall() * 1e3)}.jsonl"
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        os.close(descriptor)
        self._path = path
        self._make_room()
        return path

    def _make_room(self) -> None:
        """Remove files that are too old, and the oldest of this gateway beyond its share."""
        oldest_at = self._wall() - self._max_s
        for path in self._folder.glob(PATTERN):
            if path != self._path and _changed_at(path) < oldest_at:
                path.unlink(missing_ok=True)
        left = self._own_bytes - self._own_bytes // FILES  # the new one will need that
        own = self._folder.glob(f"requests-{self._gateway}-*.jsonl")
        for path in sorted(own, key=_started, reverse=True):
            left -= _size(path)
            if left < 0:
                path.unlink(missing_ok=True)


def _started(path: Path) -> int:
    """Return the milliseconds in a file's name; 0 for a name that is not ours."""
    digits = path.stem.rpartition("-")[2]
    return int(digits) if digits.isascii() and digits.isdigit() else 0


def _size(path: Path) -> int:
    """Return how long a file is; endless when it was removed, so that a new one is made."""
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 1 << 62


def _changed_at(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except FileNotFoundError:
        return float("inf")
