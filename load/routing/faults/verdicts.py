"""Figures of the pieces of a run, and whether they are good enough."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, Final

from load.bench.stats import percentile
from load.edge.marks import Found, Mark, Verdict, judge
from load.routing.faults.phases import (
    ANY,
    AWAY,
    BACK_S,
    BEFORE,
    DETECTED_S,
    GOING,
    QUICK,
    SLOW,
    WHILE_AWAY,
    WHILE_SLOW,
    Piece,
    Plan,
    Run,
)
from load.routing.faults.traffic import Seen
from serve_apps.gateway.targets import TargetSilent

GOOD: Final = 0.95
PATIENCE_S: Final = 1.0  # at most, of a request that was sent just before the box went away
_IN_TIME: Final = "quick model, answered in time"


def figures(run: Run, plan: Plan) -> list[dict[str, Any]]:
    """Return what became of the requests of every piece."""
    return [{**_of(piece, run.seen, plan), "piece": piece} for piece in run.pieces]


def _of(piece: Piece, seen: Sequence[Seen], plan: Plan) -> dict[str, Any]:
    mine = [s for s in seen if s.kind == piece.kind and piece.since <= s.at < piece.until]
    answered = [each for each in mine if each.status == 200]
    good = [each for each in answered if each.taken_s <= plan.late_ms / 1e3]
    return {
        "requests": len(mine),
        "good": len(good),
        "taken_ms": sorted(round(1e3 * each.taken_s, 2) for each in answered),
        "statuses": Counter(str(each.status) for each in mine),
        "targets": Counter(each.target or "none" for each in mine),
    }


def table(found: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return one row for each phase and kind, in the order in which they came.

    good_per_s: answered in time; busy: share of the processors, a mean over pieces.
    """
    rows: list[dict[str, Any]] = []
    for phase, kind in dict.fromkeys((f["piece"].phase, f["piece"].kind) for f in found):
        mine = [f for f in found if (f["piece"].phase, f["piece"].kind) == (phase, kind)]
        seconds = sum(f["piece"].until - f["piece"].since for f in mine)
        requests, good = sum(f["requests"] for f in mine), sum(f["good"] for f in mine)
        taken_ms = sorted(ms for f in mine for ms in f["taken_ms"])
        busy = sum(f["piece"].busy * (f["piece"].until - f["piece"].since) for f in mine)
        rows.append(
            {
                "phase": phase,
                "kind": kind,
                "seconds": seconds,
                "requests": requests,
                "good_per_s": good / seconds,
                "in_time": good / max(1, requests),
                "p50_ms": percentile(taken_ms, 0.5) if taken_ms else 0.0,
                "p99_ms": percentile(taken_ms, 0.99) if taken_ms else 0.0,
                "statuses": dict(sum((f["statuses"] for f in mine), Counter[str]())),
                "targets": dict(sum((f["targets"] for f in mine), Counter[str]())),
                "busy": busy / seconds,
            }
        )
    return rows


def kept(
    found: Sequence[Mapping[str, Any]], phase: str, left: Sequence[str], since: str = ""
) -> Found:
    """Return the goodput of who could go anywhere, by that of those kinds alone in each round.

    left: what is summed up as the capacity; since: their phase, where it is another one, of which
    the mean is taken. Raises ValueError without a round.
    """
    rates: dict[tuple[str, str], dict[int, float]] = {}
    for each in found:
        piece: Piece = each["piece"]
        rate = each["good"] / (piece.until - piece.since)
        rates.setdefault((piece.phase, piece.kind), {})[piece.round] = rate
    ours = rates.get((phase, ANY), {})
    if since:
        others = [list(rates[since, kind].values()) for kind in left]
        capacity = sum(sum(values) / len(values) for values in others)
        return Found.median([rate / capacity for rate in ours.values()])
    return Found.median(
        [rate / sum(rates[phase, kind][number] for kind in left) for number, rate in ours.items()]
    )


def left_early(run: Run) -> tuple[int, int]:
    """Return how many requests left the box for its silence: while it was away, and otherwise."""
    moments = [send.at for send in run.sends if send.outcome == TargetSilent.code]
    away = sum(run.gone_at - PATIENCE_S <= at < run.back_at for at in moments)
    return away, len(moments) - away


def verdicts(found: Sequence[Mapping[str, Any]], run: Run) -> list[Verdict]:
    """Judge a run."""
    rows = {(row["phase"], row["kind"]): row for row in table(found)}
    dead = float(sum(run.gone_at + DETECTED_S < s.at < run.back_at for s in run.sends))
    left = "paced model, goodput by what is left, median of rounds"
    marks = [
        (Mark(GOING, _IN_TIME, "", "at_least", GOOD), _plain(rows[GOING, QUICK]["in_time"])),
        (Mark(AWAY, "requests sent to the box after 2 s", "", "at_most", 0.0), _plain(dead)),
        (Mark(AWAY, _IN_TIME, "", "at_least", GOOD), _plain(rows[AWAY, QUICK]["in_time"])),
        (
            Mark(AWAY, f"{left} (the cloud alone)", "", "at_least", GOOD),
            kept(found, AWAY, WHILE_AWAY[1:]),
        ),
        (
            Mark(AWAY, f"{left} (before the box came)", "", "at_least", GOOD),
            kept(found, AWAY, (ANY,), BEFORE),
        ),
        (
            Mark("back", "seconds until it is used again", "s", "at_most", BACK_S - 1),
            _plain(run.returned_s),
        ),
        (Mark(SLOW, _IN_TIME, "", "at_least", GOOD), _plain(rows[SLOW, QUICK]["in_time"])),
        (
            Mark(SLOW, f"{left} (cloud and box alone)", "", "at_least", GOOD),
            kept(found, SLOW, WHILE_SLOW[1:]),
        ),
    ]
    return [judge(mark, value) for mark, value in marks]


def _plain(value: float) -> Found:
    return Found(value, value, value)
