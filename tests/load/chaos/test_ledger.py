"""Which requests count, and against whom."""

from __future__ import annotations

import json

from load.chaos.answers import Kind
from load.chaos.clients import Ended
from load.chaos.ledger import EXCLUDED, OFF, Ledger, Window
from load.chaos.models import DIGITS, LONE, LONE_STALE, PLAIN


def ended(
    kind: str, at_s: float = 10.0, taken_s: float = 0.1, model: str = DIGITS, code: str = "x"
) -> Ended:
    return Ended("rest-0", model, at_s, at_s, at_s + taken_s, kind, "", code)


def test_refused_and_late_requests_count_against_availability() -> None:
    ledger = Ledger([*[ended(Kind.RIGHT)] * 1998, ended(Kind.REFUSED), ended(Kind.LATE)])
    counts = ledger.counts()
    assert (counts.right, counts.refused, counts.late) == (1998, 1, 1)
    assert counts.availability == 1998 / 2000


def test_models_that_need_the_device_do_not_count() -> None:
    ledger = Ledger([ended(Kind.RIGHT), ended(Kind.REFUSED, model=LONE)])
    assert ledger.counts().availability == 1.0
    assert ledger.bereft() == {f"{LONE} refused": 1}


def test_what_fails_while_the_box_is_off_counts_apart() -> None:
    window = Window("reboot", since_s=10.0, until_s=12.0)
    ledger = Ledger(off=[window])
    for at_s, taken_s, expected in (
        (9.0, 0.5, Kind.LOST),  # ended before
        (9.8, 0.5, OFF),  # under way when it went off
        (11.0, 0.1, OFF),
        (11.9, 3.0, OFF),  # sent while it was off
        (12.1, 0.1, Kind.LOST),  # ready, and lost all the same
    ):
        assert ledger.category(ended(Kind.LOST, at_s, taken_s)) == expected


def test_wrong_answers_and_leaks_count_whatever_is_off() -> None:
    ledger = Ledger(off=[Window("reboot", since_s=0.0)])
    assert ledger.category(ended(Kind.WRONG)) == Kind.WRONG
    assert ledger.category(ended(Kind.LEAK)) == Kind.LEAK


def test_an_excluded_model_may_refuse_and_may_not_lose() -> None:
    ledger = Ledger(excluded=[Window("damaged", since_s=0.0, model=PLAIN)])
    assert ledger.category(ended(Kind.REFUSED, model=PLAIN)) == EXCLUDED
    assert ledger.category(ended(Kind.REFUSED, model=DIGITS)) == Kind.REFUSED
    assert ledger.category(ended(Kind.LOST, model=PLAIN)) == Kind.LOST


def test_a_refusal_without_a_code_shows() -> None:
    ledger = Ledger([ended(Kind.REFUSED), ended(Kind.REFUSED, code="")])
    assert len(ledger.without_reason()) == 1


def test_requests_under_way_at_a_moment_are_those_answered_after_it() -> None:
    ledger = Ledger(
        [
            ended(Kind.RIGHT, 9.0, 0.5),
            ended(Kind.RIGHT, 9.9, 0.3),
            ended(Kind.REFUSED, 9.9, 0.3),
            ended(Kind.RIGHT, 9.9, 0.3, model=LONE_STALE),
            ended(Kind.RIGHT, 10.1, 0.5),
        ]
    )
    assert [e.sent_s for e in ledger.in_flight(10.0)] == [9.9]


def test_lines_of_the_clients_are_taken_and_their_greeting_is_not() -> None:
    ledger = Ledger()
    ledger.take(json.dumps("ready"))
    ledger.take(json.dumps(ended(Kind.STALE)).encode())
    assert ledger.ended == [ended(Kind.STALE)]
