"""The pass marks: what the measurements are compared with, and whether they hold."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal

from load.bench.rounds import Measurement
from load.bench.stats import Spread, paired_differences, paired_ratios

Metric = Literal["p50_ms", "per_s"]


@dataclass(frozen=True, slots=True)
class Mark:
    """A bound on a paired comparison. how: the comparison and on which side of limit it holds."""

    title: str
    model: str
    clients: int
    metric: Metric
    ours: str
    theirs: str
    how: Literal["ratio_at_most", "ratio_at_least", "difference_at_most"]
    limit: float


@dataclass(frozen=True, slots=True)
class Verdict:
    """A mark beside what was found."""

    mark: Mark
    found: Spread
    is_met: bool


_COLOCATED: Final = "prime-spark-colocated"
_HANDLE: Final = "prime-spark-cloud"
_RIVALS: Final = (
    "litserve",
    "mlserver-rest",
    "mlserver-grpc",
    "mlserver-inline-rest",
    "mlserver-inline-grpc",
)

MARKS: Final[Sequence[Mark]] = (
    *(
        Mark(
            f"co-located p50 against {rival}",
            "mlp", 1, "p50_ms", _COLOCATED, rival, "ratio_at_most", 0.75,
        )
        for rival in _RIVALS
    ),
    *(
        Mark(
            f"co-located throughput against {rival}",
            "mlp", 8, "per_s", _COLOCATED, rival, "ratio_at_least", 1.5,
        )
        for rival in _RIVALS
    ),
    Mark(
        "handle path p50 less that of a bare Serve handle (ms)",
        "mlp", 1, "p50_ms", _HANDLE, "serve-handle", "difference_at_most", 0.3,
    ),
    Mark(
        "handle path throughput against a bare Serve handle",
        "mlp", 8, "per_s", _HANDLE, "serve-handle", "ratio_at_least", 0.9,
    ),
    Mark(
        "co-located p50 against the onnxruntime floor",
        "resnet18", 1, "p50_ms", _COLOCATED, "onnxruntime", "ratio_at_most", 1.35,
    ),
    Mark(
        "handle path p50 against the onnxruntime floor",
        "resnet18", 1, "p50_ms", _HANDLE, "onnxruntime", "ratio_at_most", 2.0,
    ),
)  # fmt: skip


def judge(measurements: Sequence[Measurement], marks: Sequence[Mark] = MARKS) -> list[Verdict]:
    """Compare; marks whose subjects were not measured are left out."""
    verdicts = []
    for mark in marks:
        ours = series(measurements, mark.model, mark.clients, mark.ours, mark.metric)
        theirs = series(measurements, mark.model, mark.clients, mark.theirs, mark.metric)
        if not ours or not theirs:
            continue
        match mark.how:
            case "ratio_at_most":
                found = paired_ratios(ours, theirs)
                is_met = found.median <= mark.limit
            case "ratio_at_least":
                found = paired_ratios(ours, theirs)
                is_met = found.median >= mark.limit
            case "difference_at_most":
                found = paired_differences(ours, theirs)
                is_met = found.median <= mark.limit
        verdicts.append(Verdict(mark, found, is_met))
    return verdicts


def series(
    measurements: Sequence[Measurement], model: str, clients: int, subject: str, metric: str
) -> list[float]:
    """Return a metric of one subject, round by round. metric: per_s, or a percentile as p50_ms."""
    found = sorted(
        (m for m in measurements if (m.model, m.clients, m.subject) == (model, clients, subject)),
        key=lambda m: m.round,
    )
    if metric == "per_s":
        return [m.measured.per_s for m in found]
    return [m.measured.latency_ms[metric.removesuffix("_ms")] for m in found]
