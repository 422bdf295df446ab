from __future__ import annotations

import pytest

from load.bench.marks import MARKS, Mark, judge
from load.bench.rounds import Measurement
from load.bench.worker import Measured


def measurement(subject: str, number: int, p50_ms: float, per_s: float) -> Measurement:
    measured = Measured(100, 0, 1.0, per_s, {"p50": p50_ms}, p50_ms, 0.1)
    return Measurement("mlp", 1, number, subject, measured, None)


def mark(how: str, limit: float, metric: str = "p50_ms") -> Mark:
    return Mark("t", "mlp", 1, metric, "ours", "theirs", how, limit)  # type: ignore[arg-type]


SEEN = [
    measurement(name, number, p50_ms, per_s)
    for number, (ours_ms, theirs_ms) in enumerate([(1.0, 2.0), (3.0, 4.0), (1.0, 4.0)])
    for name, p50_ms, per_s in (
        ("ours", ours_ms, 1000 / ours_ms),
        ("theirs", theirs_ms, 1000 / theirs_ms),
    )
]


@pytest.mark.parametrize(
    ("bound", "is_met"),
    [
        (mark("ratio_at_most", 0.5), True),
        (mark("ratio_at_most", 0.49), False),
        (mark("ratio_at_least", 2.0, "per_s"), True),
        (mark("ratio_at_least", 2.1, "per_s"), False),
        (mark("difference_at_most", -1.0), True),
        (mark("difference_at_most", -1.1), False),
    ],
)
def test_a_mark_is_judged_by_the_median_of_the_rounds(bound: Mark, is_met: bool) -> None:
    (verdict,) = judge(SEEN, [bound])
    assert verdict.is_met is is_met


def test_rounds_are_paired_by_number_and_not_by_order() -> None:
    bound = mark("ratio_at_most", 0.5)
    assert judge(SEEN, [bound]) == judge(list(reversed(SEEN)), [bound])


def test_a_mark_whose_subjects_were_not_measured_is_left_out() -> None:
    assert judge(SEEN, MARKS) == []
