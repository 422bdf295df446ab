"""The decision log: why each of the last requests ran where it ran.

Bounded by count; the oldest go first and are counted. Reading it needs the scope
`metrics:read`, because model and site names are in it, but no tensors.
"""

from __future__ import annotations

from collections import Counter, defaultdict, deque
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

from edge_runtime.errors import InvalidInput
from policies.cost import FREE, PARTS, Cost
from policies.routing import Verdict

CAPACITY: Final = 1000


class Way(NamedTuple):
    """What is known of where a request came from, and of the way to its target.

    origin_from: see `geography.Origin`; rtt_from: what the round trip to the site of the target is
    from (`measured`, `great_circle`, `unknown`).
    """

    origin_site: str | None = None
    origin_from: str = ""
    rtt_from: str = "unknown"


NO_WAY: Final = Way()


@dataclass(frozen=True, slots=True)
class DecisionRecord:
    """One request: what was chosen and why, and what it cost.

    at: unix seconds; outcome: `ok` or an error code; asleep: targets that slept then.
    """

    at: float
    request_id: str
    model: str
    version: str
    target: str
    reason: str
    attempt: int
    expected_s: float
    taken_s: float
    outcome: str
    verdicts: tuple[Verdict, ...]
    cost: Cost = FREE
    way: Way = NO_WAY
    asleep: frozenset[str] = frozenset()


class DecisionLog:
    """The last `capacity` records, and counts over all of them.

    decisions, deciding_s: how many were made, those that refused included, and what they took.
    """

    def __init__(self, capacity: int = CAPACITY) -> None:
        self._records: deque[DecisionRecord] = deque(maxlen=capacity)
        self.counts: Counter[tuple[str, str, str]] = Counter()
        self.taken_s: defaultdict[tuple[str, str, str], float] = defaultdict(float)
        self.total = 0
        self.decisions = 0
        self.deciding_s = 0.0

    def decided(self, seconds: float) -> None:
        """Count a decision and the seconds it took."""
        self.decisions += 1
        self.deciding_s += seconds

    def add(self, record: DecisionRecord) -> None:
        key = (record.target, record.reason, record.outcome)
        self.counts[key] += 1
        self.taken_s[key] += record.taken_s
        self.total += 1
        self._records.append(record)

    def read(self, query: Mapping[str, str]) -> dict[str, Any]:
        """Return the newest records first, as JSON values.

        query: `limit` (1 to capacity), `id` of a request: then those of its attempts only.
        """
        limit = query.get("limit", "100")
        if not (limit.isascii() and limit.isdigit() and len(limit) < 8 and int(limit) > 0):
            raise InvalidInput("limit must be a positive whole number", field="limit")
        wanted = query.get("id")
        kept = [r for r in self._records if wanted is None or r.request_id == wanted]
        newest = kept[: -int(limit) - 1 : -1]
        return {
            "total": self.total,
            "dropped": self.total - len(self._records),
            "decisions": [_document(record) for record in newest],
        }


def _document(record: DecisionRecord) -> dict[str, Any]:
    return {
        "at": record.at,
        "id": record.request_id,
        "model": record.model,
        "version": record.version,
        "target": record.target,
        "reason": record.reason,
        "attempt": record.attempt,
        "expected_ms": round(record.expected_s * 1e3, 3),
        "taken_ms": round(record.taken_s * 1e3, 3),
        "outcome": record.outcome,
        "usd": record.cost.usd,
        "parts": {part: getattr(record.cost, part) for part in PARTS},
        "joules": record.cost.joules,
        "carbon_g": record.cost.carbon_g,
        **record.way._asdict(),
        "considered": [_considered(verdict, record.asleep) for verdict in record.verdicts],
    }


def _considered(verdict: Verdict, asleep: frozenset[str]) -> dict[str, Any]:
    found: dict[str, Any] = {
        "target": verdict.target,
        "expected_ms": round(verdict.expected_s * 1e3, 3),
        "late": round(verdict.late, 4),
        "usd": verdict.usd,
        "ruled_out": verdict.ruled_out,
        "is_asleep": verdict.target in asleep,
    }
    if verdict.model_s is not None and verdict.model_late is not None:
        found["model_ms"] = round(verdict.model_s * 1e3, 3)
        found["model_late"] = round(verdict.model_late, 4)
    return found
