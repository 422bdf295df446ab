"""What is made of a run in which the edge box goes away: figures, marks, a page."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, replace
from typing import Any

import pytest

from load.edge.marks import Verdict
from load.routing.faults.page import markdown
from load.routing.faults.phases import (
    ANY,
    AWAY,
    BACK_S,
    BEFORE,
    CLOUD,
    DETECTED_S,
    EDGE,
    GOING,
    QUICK,
    SLOW,
    Piece,
    Plan,
    Run,
    Send,
)
from load.routing.faults.traffic import Seen
from load.routing.faults.verdicts import figures, kept, left_early, table, verdicts

PLAN = Plan(20.0, 300.0, 90.0, 12.0, 40.0, 75.0, 400, 0.025, 0.015, 1)
MACHINE = {
    "date": "today", "commit": "0" * 40, "has_local_changes": False, "cores": 2,
    "load_before": [0.5],
}  # fmt: skip
GONE, BACK = 100.0, 400.0
# Answers in time a second: phase, kind and the rate of each round, a second long.
RATES: Mapping[tuple[str, str], tuple[int, ...]] = {
    (BEFORE, ANY): (40, 42),
    (GOING, QUICK): (20,),
    (AWAY, QUICK): (20,),
    (AWAY, ANY): (38, 40, 39),
    (AWAY, CLOUD): (40, 40, 40),
    (SLOW, QUICK): (20,),
    (SLOW, ANY): (60, 58),
    (SLOW, CLOUD): (40, 41),
    (SLOW, EDGE): (22, 19),
}


def run(rates: Mapping[tuple[str, str], tuple[int, ...]] = RATES, **changed: Any) -> Run:
    """Return a run with those answers, and one refusal more in every piece."""
    pieces: list[Piece] = []
    seen: list[Seen] = []
    for (phase, kind), values in rates.items():
        for number, rate in enumerate(values):
            since = float(len(pieces))
            pieces.append(Piece(phase, kind, number, since, since + 1.0, 0.5))
            at = since + 0.5
            seen += [Seen(kind, at, 0.1, 200, "cloud")] * rate + [Seen(kind, at, 0.1, 503, "")]
    return replace(Run(pieces, seen, (), GONE, BACK, 1.0), **changed)


def judged(found: Run) -> list[Verdict]:
    return verdicts(figures(found, PLAN), found)


def test_a_request_counts_in_its_piece_and_is_good_when_it_was_answered_in_time() -> None:
    seen = [
        Seen(ANY, 1.0, 0.1, 200, "cloud"),
        Seen(ANY, 1.5, 0.5, 200, "cloud"),  # late
        Seen(ANY, 1.9, 0.1, 503, ""),
        Seen(CLOUD, 1.9, 0.1, 200, "cloud"),  # of another kind
        Seen(ANY, 3.0, 0.1, 200, "edge/lab"),  # of the next piece
    ]
    pieces = [Piece(AWAY, ANY, 0, 1.0, 3.0, 0.4), Piece(AWAY, ANY, 1, 3.0, 5.0, 0.6)]
    (row,) = table(figures(Run(pieces, seen, (), 0.0, 9.0, 1.0), PLAN))
    assert (row["requests"], row["in_time"], row["good_per_s"]) == (4, 0.5, 0.5)
    assert row["statuses"] == {"200": 3, "503": 1}
    assert row["targets"] == {"cloud": 2, "none": 1, "edge/lab": 1}
    assert row["busy"] == pytest.approx(0.5)


def test_goodput_is_compared_with_what_is_left_round_by_round() -> None:
    found = figures(run(), PLAN)
    assert kept(found, AWAY, (CLOUD,)).value == 39 / 40
    assert kept(found, AWAY, (CLOUD,)).least == 38 / 40
    assert kept(found, AWAY, (ANY,), BEFORE).value == 39 / 41
    assert kept(found, SLOW, (CLOUD, EDGE)).most == 60 / 62


def test_each_mark_can_fail() -> None:
    def failed(found: Run) -> list[tuple[str, str]]:
        return [(v.mark.subject, v.mark.title) for v in judged(found) if not v.is_met]

    def at(phase: str, kind: str, *rates: int) -> Run:
        return run({**RATES, (phase, kind): rates})

    assert failed(run()) == []
    in_time = "quick model, answered in time"
    for phase in (GOING, AWAY, SLOW):
        assert failed(at(phase, QUICK, 10)) == [(phase, in_time)]
    left = "paced model, goodput by what is left, median of rounds"
    assert failed(at(AWAY, CLOUD, 50, 50, 50)) == [(AWAY, f"{left} (the cloud alone)")]
    assert failed(at(BEFORE, ANY, 50, 50)) == [(AWAY, f"{left} (before the box came)")]
    assert failed(at(SLOW, EDGE, 40, 40)) == [(SLOW, f"{left} (cloud and box alone)")]
    assert failed(run(returned_s=BACK_S)) == [("back", "seconds until it is used again")]
    sent = (AWAY, "requests sent to the box after 2 s")
    early, late, after = (
        Send(at, "ok") for at in (GONE + DETECTED_S - 0.1, GONE + DETECTED_S + 0.1, BACK + 0.1)
    )
    assert failed(run(sends=(late,))) == [sent]
    assert failed(run(sends=(early, after))) == []


def test_those_who_leave_a_box_that_is_there_are_counted_apart() -> None:
    silent = [Send(at, "target_silent") for at in (50.0, GONE - 0.2, GONE + 0.5, BACK + 5.0)]
    assert left_early(run(sends=(*silent, Send(GONE, "ok")))) == (2, 2)


@pytest.mark.parametrize(("seconds", "kinds"), [(298.0, 2), (90.0, 3), (30.0, 2), (12.0, 3)])
def test_rounds_and_the_quick_model_fill_a_phase(seconds: float, kinds: int) -> None:
    quick_s, rounds = PLAN.parts(seconds, (ANY,) * kinds)
    assert quick_s + rounds * kinds * PLAN.slice_s == pytest.approx(seconds)
    assert quick_s >= 0.2 * seconds


def test_a_plan_without_a_round_is_seen() -> None:
    assert PLAN.has_rounds
    assert not replace(PLAN, partition_s=20.0).has_rounds
    assert not replace(PLAN, slow_s=40.0).has_rounds


def test_the_page_shows_phases_marks_and_how_the_box_was_cut_off() -> None:
    found = run({**RATES, (AWAY, QUICK): (1,)})
    rows = figures(found, PLAN)
    document = {
        "machine": MACHINE,
        "plan": asdict(PLAN),
        "how": "network",
        "took_s": 600.0,
        "rows": table(rows),
        "returned_s": found.returned_s,
        "left_early": (26, 0),
        "marks": [asdict(verdict) for verdict in verdicts(rows, found)],
    }
    page = markdown(document)
    assert "| away | quick model, answered in time | 0.5 |  | ≥ 0.95 | **not held** |" in page
    assert "| away: paced, cloud alone | 123 | 40.0 | 97.56 |" in page
    assert "Everything on the link" in page
    assert "26 requests left it before their deadline while it was away, and 0 at any" in page
    assert "All processes of the box are stopped" in markdown({**document, "how": "stopped"})
