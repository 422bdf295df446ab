from __future__ import annotations

from dataclasses import replace

import pytest

from load.openloop import OpenLoop, Sent
from load.overload import Observed, judge, recovery, summarise


def sent(due_s: float, taken_s: float, status: int = 200, retry: bool = True) -> Sent:
    return Sent(due_s, 0.0, taken_s, status, retry and status == 503)


GOOD = Observed(
    unloaded_p50_ms=50.0,
    unloaded_p99_ms=100.0,
    sustainable_per_s=20.0,
    offered_per_s=40.0,
    accepted=1200,
    accepted_p50_ms=900.0,
    accepted_p99_ms=1300.0,
    refused=1200,
    refused_p50_ms=2.0,
    refused_p99_ms=20.0,
    refused_without_retry_after=0,
    other_statuses={},
    lost=0,
    unsent=0,
    client_late_p99_ms=1.0,
    recovered_s=1.0,
)


def test_a_gateway_that_bends_and_comes_back_passes() -> None:
    assert all(check.holds for check in judge(GOOD, 1000.0))


@pytest.mark.parametrize(
    ("what", "broken"),
    [
        ("p99 of accepted", replace(GOOD, accepted_p99_ms=1301.0)),
        ("p99 of accepted", replace(GOOD, accepted=0)),
        ("it was an overload", replace(GOOD, refused=0)),
        ("refusals come quickly", replace(GOOD, refused_p99_ms=1400.0)),
        ("every refusal says", replace(GOOD, refused_without_retry_after=1)),
        ("nothing but", replace(GOOD, other_statuses={500: 1})),
        ("nothing but", replace(GOOD, lost=1)),
        ("recovered", replace(GOOD, recovered_s=None)),
        ("the client", replace(GOOD, unsent=1)),
    ],
)
def test_each_violation_fails_its_own_check_and_no_other(what: str, broken: Observed) -> None:
    failed = [check.what for check in judge(broken, 1000.0) if not check.holds]
    assert len(failed) == 1
    assert failed[0].startswith(what)


def test_recovery_is_the_first_second_in_which_every_answer_is_well_and_in_time() -> None:
    after = [sent(0.5, 0.9), sent(1.2, 0.1), sent(1.8, 0.1, 503), sent(2.1, 0.1), sent(2.6, 0.2)]
    assert recovery(after, 0.2) == 3.0


def test_a_second_without_answers_is_no_recovery() -> None:
    assert recovery([sent(0.5, 6.0)], 0.2) is None


def test_what_was_sent_is_reduced_to_counts_by_kind() -> None:
    storm = OpenLoop("h", 1, b"", 1)
    storm.sent = [sent(0, 1.0), sent(0, 0.1, 503), sent(0, 0.1, 503, False), sent(0, 0.1, 500)]
    storm.sent += [sent(0, 0.1, 0)]
    seen = summarise([50.0], 10.0, 20.0, storm, [sent(0.1, 0.05)])
    assert (seen.accepted, seen.refused, seen.lost) == (1, 2, 1)
    assert seen.refused_without_retry_after == 1
    assert seen.other_statuses == {500: 1}
    assert seen.recovered_s == 1.0
