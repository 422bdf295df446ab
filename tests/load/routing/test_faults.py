"""What is made of a run with faults: phases, marks, a page."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from load.routing.faults import Plan, Seen, _phase, markdown, verdicts

PLAN = Plan(30.0, 300.0, 60.0, 40.0, 400, 0.008, 1)
MACHINE = {
    "date": "today", "commit": "0" * 40, "has_local_changes": False, "cores": 2,
    "load_before": [0.5],
}  # fmt: skip


def phases(away: float = 1.0, slow: float = 1.0) -> dict[str, dict[str, Any]]:
    found = _phase([], PLAN, 0.0, 1.0)
    return {"away": {**found, "in_time": away}, "slow": {**found, "in_time": slow}}


def test_a_request_counts_when_it_was_due_and_answered_in_time() -> None:
    seen = [
        Seen(1.0, 0.1, 200, "cloud"),
        Seen(1.5, 0.5, 200, "cloud"),  # late
        Seen(1.9, 0.1, 503, ""),
        Seen(2.0, 0.1, 200, "edge/lab"),  # of the next phase
    ]
    found = _phase(seen, PLAN, 1.0, 2.0)
    assert (found["requests"], found["in_time"]) == (3, 1 / 3)
    assert found["statuses"] == {"200": 2, "503": 1}
    assert found["targets"] == {"cloud": 2, "none": 1}


def test_each_mark_can_fail() -> None:
    def held(**changed: Any) -> list[bool]:
        values = {"phases": phases(), "dead": 0, "returned_s": 1.0, **changed}
        return [verdict.is_met for verdict in verdicts(**values)]

    assert held() == [True] * 4
    assert held(dead=1) == [False, True, True, True]
    assert held(phases=phases(away=0.94)) == [True, False, True, True]
    assert held(phases=phases(slow=0.94)) == [True, True, False, True]
    assert held(returned_s=90.0) == [True, True, True, False]


def test_the_page_shows_phases_and_marks() -> None:
    marks = [asdict(verdict) for verdict in verdicts(phases(away=0.5), 0, 1.0)]
    document = {
        "machine": MACHINE,
        "plan": asdict(PLAN),
        "phases": phases(),
        "returned_s": 1.0,
        "marks": marks,
    }
    page = markdown(document)
    assert "| away | answered in time | 0.5 | 0.95 | **not held** |" in page
    assert "stopped for 300 s" in page
