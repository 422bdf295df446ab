"""What the gateway knows of its targets, for each model version that some of them have."""

from __future__ import annotations

from dataclasses import replace

import pytest

from policies.routing import Request, Target
from serve_apps.gateway.knowledge import Knowledge
from tests.serve_apps.gateway.place import IDLE, KEY

OTHER = ("m", "2")
BUSY = replace(IDLE, wait_s=0.5, row_s=0.25, busy=0.75)


@pytest.fixture
def knowledge() -> Knowledge:
    made = Knowledge()
    made.add(Target("cloud", "cloud", "dc"))
    made.add(Target("edge/lab", "edge", "lab"))
    return made


def test_nobody_has_a_model_that_nothing_was_heard_of(knowledge: Knowledge) -> None:
    assert not any(target.has_model for target in knowledge.table(KEY).targets)


def test_a_report_says_what_a_target_has_and_how_busy_it_is(knowledge: Knowledge) -> None:
    knowledge.heard("cloud", {KEY: BUSY}, 1.0)
    table = knowledge.table(KEY)
    assert table["cloud"].has_model
    assert not table["edge/lab"].has_model
    assert (table["cloud"].ahead_s[-1], table["cloud"].row_s, table["cloud"].busy) == (
        0.5,
        0.25,
        0.75,
    )


def test_what_a_report_leaves_out_is_gone_and_its_table_with_the_last_target(
    knowledge: Knowledge,
) -> None:
    knowledge.heard("cloud", {KEY: IDLE, OTHER: IDLE}, 1.0)
    knowledge.heard("edge/lab", {KEY: IDLE}, 1.0)
    kept = knowledge.table(KEY)
    knowledge.heard("cloud", {OTHER: IDLE}, 2.0)
    assert knowledge.table(KEY) is kept
    assert not kept["cloud"].has_model
    knowledge.heard("edge/lab", {}, 2.0)
    assert knowledge.table(KEY) is not kept


def test_a_table_stays_while_a_request_of_it_is_under_way(knowledge: Knowledge) -> None:
    knowledge.heard("cloud", {KEY: IDLE}, 1.0)
    table = knowledge.table(KEY)
    sent = table.sent("cloud", Request(slack_s=1.0), 1.0)
    knowledge.heard("cloud", {}, 2.0)
    assert knowledge.table(KEY) is table
    table.ended(sent)
    knowledge.heard("cloud", {}, 3.0)
    assert knowledge.table(KEY) is not table


def test_a_change_of_a_target_holds_for_tables_of_now_and_of_later(knowledge: Knowledge) -> None:
    knowledge.heard("cloud", {KEY: IDLE}, 1.0)
    knowledge.change("cloud", is_silent=True)
    knowledge.heard("cloud", {KEY: IDLE, OTHER: IDLE}, 2.0)
    assert knowledge.table(KEY)["cloud"].is_silent
    assert knowledge.table(OTHER)["cloud"].is_silent


def test_an_engine_in_this_process_is_seen_as_it_is(knowledge: Knowledge) -> None:
    knowledge.saw("cloud", KEY, None, 1.0)
    assert not knowledge.table(KEY)["cloud"].has_model
    knowledge.saw("cloud", KEY, BUSY, 1.0)
    assert knowledge.table(KEY)["cloud"].has_model
    assert knowledge.table(KEY)["cloud"].ahead_s[-1] == 0.5
    table = knowledge.table(KEY)
    knowledge.saw("cloud", KEY, None, 2.0)
    assert knowledge.table(KEY) is not table


def test_a_target_that_comes_later_is_in_every_table(knowledge: Knowledge) -> None:
    knowledge.heard("cloud", {KEY: IDLE}, 1.0)
    knowledge.add(Target("edge/barn", "edge", "barn"))
    assert not knowledge.table(KEY)["edge/barn"].has_model
    assert "edge/barn" in knowledge.table(OTHER)


def test_who_sleeps_is_taken_to_have_what_is_asked_for_until_it_says_what_it_has(
    knowledge: Knowledge,
) -> None:
    knowledge.heard("edge/lab", {KEY: IDLE}, 1.0)
    knowledge.asleep("cloud", 8.0, 2.0)
    for key in (KEY, OTHER):
        cloud = knowledge.table(key)["cloud"]
        assert (cloud.has_model, cloud.is_asleep, cloud.ahead_s[0]) == (True, True, 8.0)
    knowledge.woke("cloud")
    knowledge.heard("cloud", {KEY: IDLE}, 12.0)
    cloud = knowledge.table(KEY)["cloud"]
    assert (cloud.has_model, cloud.is_asleep, cloud.ahead_s[0]) == (True, False, 0.0)
    assert not knowledge.table(OTHER)["cloud"].has_model
    assert knowledge.table(OTHER) is not knowledge.table(OTHER)  # nobody keeps what nobody has
