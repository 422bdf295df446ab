"""A table knows what it was told, counts each send once, and ends it once."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from policies.routing import Decision, Load, Request, RoutingTable, Sent, Target
from policies.routing.delay import expected_delay, place_s, wait_s, with_work
from policies.routing.lateness import ENOUGH, FORGET_S
from policies.routing.table import FADE_S, PEAK_S, RISK_PRICES, faded, moving_peak
from policies.routing.types import SLACKS
from tests.policies.routing.strategies import NOW, aheads, loads, requests, seconds, slacks

HERE = Target("here", "edge", "plant-a", service_s=0.25, row_s=0.25, ahead_at=NOW, heard_at=NOW)
THERE = Target("there", "cloud", "cloud", service_s=0.25, row_s=0.25, ahead_at=NOW, heard_at=NOW)
ASKED = Request(1.0)
BUSY = Load(
    queued=3, running=1, ahead_s=(0.5,) * len(SLACKS), service_s=0.125, row_s=0.0625, busy=0.75
)


def table_of(*targets: Target) -> RoutingTable:
    return RoutingTable(targets or [HERE, THERE])


def prove(table: RoutingTable, name: str, error: float, times: int = 1, at: float = NOW) -> None:
    """Let a place answer so that its prediction was wrong by this factor."""
    for _ in range(times):
        sent = table.sent(name, ASKED, at)
        taken_s = error * (sent.place_s + sent.service_s) - sent.service_s
        table.answered(sent, at + taken_s, None, at)


def spending(spent: float | None) -> Decision:
    return Decision("here", "least_cost", 0.1, (), spent=spent)


# What it is told.


def test_a_second_target_of_the_same_name_is_refused() -> None:
    with pytest.raises(ValueError, match="'here' already"):
        table_of(HERE, HERE)


def test_it_knows_the_targets_that_were_added() -> None:
    table = table_of(HERE)
    assert "there" not in table
    table.add(THERE)
    assert "there" in table
    assert table["there"] == THERE


def test_a_change_of_one_target_leaves_the_others_alone() -> None:
    table = table_of()
    table.change("here", is_up=False, usd=2.0)
    assert table["here"] == HERE._replace(is_up=False, usd=2.0)
    assert table["there"] == THERE


def test_a_field_that_no_target_has_is_not_changed_silently() -> None:
    with pytest.raises(ValueError, match="is_upp"):
        table_of().change("here", is_upp=False)


def test_a_report_says_how_much_work_is_ahead_and_what_work_takes() -> None:
    table = table_of()
    table.heard("here", BUSY, NOW + 1.0)
    found = table["here"]
    assert (found.ahead_s, found.service_s, found.row_s) == (BUSY.ahead_s, 0.125, 0.0625)
    assert (found.busy, found.heard_at) == (0.75, NOW + 1.0)


def test_a_report_says_nothing_of_other_places() -> None:
    table = table_of()
    table.heard("here", BUSY, NOW + 1.0)
    assert table["there"] == THERE


def test_an_older_report_says_nothing() -> None:
    table = table_of()
    table.heard("here", BUSY, NOW + 1.0)
    before = table["here"]
    table.heard("here", Load(service_s=9.0, busy=1.0), NOW + 0.75)
    assert table["here"] == before


def test_of_two_reports_of_the_same_moment_the_last_is_believed() -> None:
    table = table_of()
    table.heard("here", BUSY, NOW + 1.0)
    table.heard("here", BUSY._replace(busy=0.25), NOW + 1.0)
    assert table["here"].busy == 0.25


def test_a_load_that_an_answer_brings_after_a_newer_report_says_nothing() -> None:
    table = table_of()
    sent = table.sent("here", ASKED, NOW)
    table.heard("here", BUSY, NOW + 1.0)
    table.answered(sent, NOW + 1.0, Load(busy=0.125), NOW + 0.75)
    assert table["here"].busy == 0.75


def test_the_first_measured_way_is_taken_as_it_is() -> None:
    table = table_of()
    table.measured("here", 0.5)
    assert table["here"].rtt_s == 0.5


def test_a_way_cannot_be_shorter_than_nothing() -> None:
    table = table_of()
    table.measured("here", -0.5)
    assert table["here"].rtt_s == 0.0


@settings(max_examples=50, deadline=None)
@given(seconds(1.0).filter(bool), st.lists(seconds(1.0), min_size=1, max_size=20))
def test_the_way_is_a_mean_of_what_was_measured(first_s: float, others_s: list[float]) -> None:
    table = table_of()
    for measured_s in (first_s, *others_s):
        table.measured("here", measured_s)
    assert min(first_s, *others_s) <= table["here"].rtt_s <= max(first_s, *others_s)


def test_a_measured_way_moves_the_mean_by_a_tenth_of_the_difference() -> None:
    table = table_of(HERE._replace(rtt_s=1.0))
    table.measured("here", 2.0)
    assert table["here"].rtt_s == pytest.approx(1.1)


def test_an_answer_measures_the_way_too() -> None:
    table = table_of(HERE._replace(rtt_s=1.0))
    table.answered(table.sent("here", ASKED, NOW), NOW + 1.0, None, NOW, way_s=2.0)
    assert table["here"].rtt_s == pytest.approx(1.1)


def test_an_answer_teaches_what_its_size_costs_there() -> None:
    table = table_of()
    sent = table.sent("here", ASKED._replace(bucket=5), NOW)
    table.answered(sent, NOW + 1.0, BUSY._replace(alone_s=0.5), NOW + 0.5)
    assert table["here"].sizes[5] == 4.0


@pytest.mark.parametrize(
    "load", [None, Load(service_s=0.25, alone_s=0.0), Load(service_s=0.0, alone_s=0.5)]
)
def test_an_answer_that_does_not_say_what_it_took_alone_teaches_no_size(load: Load | None) -> None:
    table = table_of()
    table.answered(table.sent("here", ASKED, NOW), NOW + 1.0, load, NOW + 0.5)
    assert table["here"].sizes == ()


# What it has sent.


def test_a_send_is_predicted_by_what_was_known_before_it() -> None:
    table = table_of(HERE._replace(rtt_s=0.5, ahead_s=(1.0,) * len(SLACKS), sizes=(3.0,)))
    predicted_s = place_s(table["here"], 0, ASKED.slack_s - 0.5, NOW)
    sent = table.sent("here", ASKED, NOW)
    assert (sent.place_s, sent.rtt_s, sent.service_s) == (predicted_s, 0.5, 0.25)
    assert predicted_s == 1.0 - 0.25 + 0.75


def test_whoever_comes_next_waits_for_what_was_sent_before() -> None:
    table = table_of()
    before_s = expected_delay(table["here"], ASKED, NOW)
    table.sent("here", ASKED, NOW)
    assert expected_delay(table["here"], ASKED, NOW) == before_s + HERE.row_s


def test_whoever_is_in_more_of_a_hurry_does_not_wait_for_it() -> None:
    table = table_of()
    table.sent("here", ASKED, NOW)
    assert wait_s(table["here"], 0.1, NOW) == 0.0


def test_a_large_request_is_as_much_work_ahead_as_it_is_large() -> None:
    table = table_of(HERE._replace(sizes=(1.0, 4.0)))
    table.sent("here", ASKED._replace(bucket=1), NOW)
    assert wait_s(table["here"], 1.0, NOW) == 4.0 * HERE.row_s


@settings(max_examples=100, deadline=None)
@given(
    rtt_s=seconds(1.0),
    sends=st.lists(st.tuples(seconds(0.5), slacks), max_size=8),
    done=st.sets(st.integers(0, 7)),
    age_s=seconds(1.0),
    said=aheads(),
)
def test_a_report_is_added_to_by_what_the_place_had_not_got_and_by_nothing_else(
    rtt_s: float,
    sends: list[tuple[float, float]],
    done: set[int],
    age_s: float,
    said: tuple[float, ...],
) -> None:
    table = table_of(HERE._replace(rtt_s=rtt_s, heard_at=0.0))
    now, under_way = NOW, list[tuple[float, float]]()
    for number, (pause_s, slack_s) in enumerate(sends):
        now += pause_s
        sent = table.sent("here", Request(slack_s), now)
        if number in done:
            table.ended(sent)
        else:
            under_way.append((now, slack_s - rtt_s))
    table.heard("here", Load(ahead_s=said, row_s=0.25), now - age_s)
    expected = said
    for at, slack_s in under_way:
        after_s = at - (now - age_s - rtt_s / 2)
        if after_s > 0.0:
            expected = with_work(expected, after_s, slack_s, 0.25)
    assert table["here"].ahead_s == expected


def test_work_that_drains_before_a_request_arrives_is_not_taken_off_its_own() -> None:
    table = table_of(HERE._replace(rtt_s=0.5, ahead_s=(0.125,) * len(SLACKS)))
    table.sent("here", ASKED, NOW)
    assert wait_s(table["here"], 1.0, NOW) == HERE.row_s


@pytest.mark.parametrize(("said_after_s", "missed"), [(0.125, 1), (0.25, 0), (0.375, 0)])
def test_a_place_has_got_what_had_half_of_the_way_behind_it(
    said_after_s: float, missed: int
) -> None:
    table = table_of(HERE._replace(rtt_s=0.5, heard_at=0.0, sizes=(1.0, 4.0)))
    table.sent("here", ASKED._replace(bucket=1), NOW)
    table.heard("here", Load(row_s=0.125), NOW + said_after_s)
    assert wait_s(table["here"], 1.0, NOW) == missed * 4.0 * 0.125


ENDS: dict[str, Callable[[RoutingTable, Sent], None]] = {
    "answered": lambda table, sent: table.answered(sent, NOW + 1.0, BUSY, NOW + 1.0, 0.125),
    "late": lambda table, sent: table.late(sent, NOW + 1.0, 2.0),
    "ended": lambda table, sent: table.ended(sent),
}


@pytest.mark.parametrize("first", ENDS)
@pytest.mark.parametrize("second", ENDS)
def test_what_has_ended_does_not_end_again(first: str, second: str) -> None:
    table = table_of()
    table.sent("here", ASKED, NOW)
    sent = table.sent("here", ASKED, NOW)
    ENDS[first](table, sent)
    assert table["here"].outstanding == 1
    before = list(table.targets)
    ENDS[second](table, sent)
    assert table.targets == before


# What its predictions were worth.


def test_before_anything_was_answered_nothing_is_corrected() -> None:
    table = table_of()
    table.ended(table.sent("here", ASKED, NOW))
    assert expected_delay(table["here"], ASKED, NOW + 5.0) == HERE.service_s


def test_a_place_that_takes_twice_as_long_as_was_predicted_is_expected_to() -> None:
    table = table_of(HERE._replace(row_s=0.0))
    prove(table, "here", 2.0, ENOUGH)
    assert expected_delay(table["here"], ASKED, NOW) == 2.0 * 0.5 - 0.25


def test_until_a_place_has_errors_enough_those_of_all_places_count_for_it() -> None:
    table = table_of(HERE._replace(row_s=0.0), THERE._replace(row_s=0.0))
    prove(table, "there", 3.0, 2 * ENOUGH)
    prove(table, "here", 1.5, ENOUGH - 1)
    assert expected_delay(table["here"], ASKED, NOW) == 3.0 * 0.5 - 0.25
    prove(table, "here", 1.5)
    assert expected_delay(table["here"], ASKED, NOW) == 1.5 * 0.5 - 0.25


def test_a_place_that_was_bad_is_forgiven_when_it_has_not_been_asked_for_long() -> None:
    table = table_of(HERE._replace(row_s=0.0), THERE._replace(row_s=0.0))
    prove(table, "here", 3.0, ENOUGH)
    prove(table, "there", 1.0, 2 * ENOUGH)
    load = Load(service_s=0.25)
    asked_at = NOW + 3.0 * 0.5 - 0.25
    table.heard("here", load, asked_at + FORGET_S)
    assert expected_delay(table["here"], ASKED, asked_at + FORGET_S) == 3.0 * 0.5 - 0.25
    table.heard("here", load, asked_at + FORGET_S + 0.5)
    assert expected_delay(table["here"], ASKED, asked_at + FORGET_S + 0.5) == 0.25


def test_what_was_forgiven_does_not_come_back_with_the_next_answer() -> None:
    table = table_of(HERE._replace(row_s=0.0), THERE._replace(row_s=0.0))
    prove(table, "here", 3.0, ENOUGH)
    prove(table, "there", 1.0, 2 * ENOUGH)
    later = NOW + 3.0 + FORGET_S
    table.heard("here", Load(service_s=0.25), later)
    prove(table, "here", 1.0, at=later)
    assert expected_delay(table["here"], ASKED, later) == 0.25


def test_time_on_the_way_is_no_error_of_the_place() -> None:
    for rtt_s in (0.0, 0.5):
        answered, late = (table_of(HERE._replace(rtt_s=rtt_s)) for _ in range(2))
        answered.answered(answered.sent("here", ASKED, NOW), NOW + rtt_s + 0.25, None, NOW)
        late.late(late.sent("here", ASKED, NOW), NOW, rtt_s + 0.25)
        assert answered["here"].errors == late["here"].errors == (1.0,)


def test_a_request_that_was_given_up_counts_with_what_it_would_at_least_have_taken() -> None:
    told, seen = table_of(), table_of()
    told.late(told.sent("here", ASKED, NOW), NOW + 0.5, 2.0)
    seen.answered(seen.sent("here", ASKED, NOW), NOW + 2.0, None, NOW)
    assert told["here"].errors == seen["here"].errors
    assert told["here"].outstanding == 0


def test_a_request_that_ended_by_itself_says_nothing_of_the_place() -> None:
    table = table_of()
    before = table["here"]
    table.ended(table.sent("here", ASKED, NOW))
    after = table["here"]
    assert after._replace(ahead_s=before.ahead_s) == before


def test_where_no_time_was_predicted_an_answer_says_nothing_of_the_prediction() -> None:
    table = table_of(HERE._replace(service_s=0.0))
    table.answered(table.sent("here", ASKED, NOW), NOW + 9.0, None, NOW)
    assert table["here"].errors == HERE.errors


# Moving values.


def test_the_peak_goes_up_at_once() -> None:
    table = table_of(HERE._replace(peak_s=0.25, peak_at=NOW))
    table.answered(table.sent("here", ASKED, NOW), NOW + 2.0, None, NOW)
    assert (table["here"].peak_s, table["here"].peak_at) == (2.0, NOW + 2.0)


def test_the_peak_comes_down_slowly() -> None:
    table = table_of(HERE._replace(peak_s=2.0, peak_at=NOW))
    table.answered(table.sent("here", ASKED, NOW + 0.5), NOW + 1.0, None, NOW)
    share = math.exp(-1.0 / PEAK_S)
    assert table["here"].peak_s == pytest.approx(2.0 * share + 0.5 * (1.0 - share))


@settings(max_examples=100, deadline=None)
@given(seconds(2.0), seconds(2.0), st.floats(-10.0, 100.0))
def test_a_moving_peak_is_between_what_it_was_and_what_it_moves_to(
    peak_s: float, towards_s: float, passed_s: float
) -> None:
    found_s = moving_peak(HERE._replace(peak_s=peak_s, peak_at=NOW), NOW + passed_s, towards_s)
    assert min(peak_s, towards_s) - 1e-12 <= found_s <= max(peak_s, towards_s) + 1e-12


@settings(max_examples=100, deadline=None)
@given(seconds(2.0), seconds(2.0), st.floats(0.0, 100.0), st.floats(0.0, 100.0))
def test_a_time_that_was_learned_goes_back_to_the_prior_and_never_beyond_it(
    learned_s: float, prior_s: float, idle_s: float, more_s: float
) -> None:
    sooner_s, later_s = (faded(learned_s, prior_s, idle) for idle in (idle_s, idle_s + more_s))
    assert min(learned_s, prior_s) <= later_s <= sooner_s <= learned_s


def test_a_time_that_was_learned_has_gone_by_two_thirds_after_a_while() -> None:
    assert faded(2.0, 1.0, 0.0) == 2.0
    assert faded(2.0, 1.0, FADE_S) == pytest.approx(1.37, abs=0.01)
    assert faded(2.0, 1.0, 100.0 * FADE_S) == pytest.approx(1.0)


@pytest.mark.parametrize(("learned_s", "prior_s"), [(0.5, 1.0), (0.5, 0.0)])
def test_a_place_that_is_quicker_than_its_prior_or_has_none_stays_as_it_was_learned(
    learned_s: float, prior_s: float
) -> None:
    assert faded(learned_s, prior_s, 100.0 * FADE_S) == learned_s


def test_a_place_that_was_slow_is_quick_again_for_what_comes_behind_as_well() -> None:
    table = table_of(HERE._replace(prior_s=0.125))
    slow = Load(service_s=0.5, row_s=0.25)
    table.heard("here", slow, NOW)
    assert (table["here"].service_s, table["here"].row_s) == (0.5, 0.25)
    table.heard("here", slow._replace(idle_s=100 * FADE_S), NOW + 1.0)
    assert table["here"].service_s == pytest.approx(0.125)
    assert table["here"].row_s == pytest.approx(0.0625)


def test_a_place_that_was_never_asked_is_judged_by_the_errors_of_the_others() -> None:
    table = table_of(HERE, HERE._replace(name="there"))
    prove(table, "here", 2.0, ENOUGH)
    assert table["there"].errors == ()
    table.heard("there", Load(service_s=0.125), NOW)
    assert table["there"].bias == pytest.approx(2.0)
    assert len(table["there"].errors) == ENOUGH


def test_a_place_that_gives_up_is_as_slow_as_one_that_answers_late() -> None:
    table = table_of(HERE)
    table.late(table.sent("here", ASKED, NOW), NOW + 0.5, 3.0)
    assert (table["here"].peak_s, table["here"].peak_at) == (3.0, NOW + 0.5)


@pytest.mark.parametrize("chance", [0.01, 0.1, 0.3, 0.9])
def test_the_budget_holds_however_much_one_decision_spends(chance: float) -> None:
    """Take the risk whenever its price is less than what it saves, the whole price difference."""
    table = table_of(HERE)
    taken = 0.0
    for _ in range(20_000):
        takes = table.risk_price("balanced") * chance < 1.0
        taken += chance * takes
        table.decided(spending(takes * chance / 0.004), "balanced")
    assert taken / 20_000 <= 0.004 * 1.05


def test_the_first_report_is_the_prior_of_a_place_that_has_none() -> None:
    table = table_of()
    table.heard("here", Load(service_s=0.5), NOW + 1.0)
    table.heard("here", Load(service_s=1.5, idle_s=100.0 * FADE_S), NOW + 2.0)
    assert table["here"].prior_s == 0.5
    assert table["here"].service_s == pytest.approx(0.5)


def test_a_prior_that_was_configured_is_not_replaced_by_reports() -> None:
    table = table_of(HERE._replace(prior_s=0.75))
    table.heard("here", Load(service_s=0.5), NOW + 1.0)
    assert table["here"].prior_s == 0.75


# The price of risk.


@pytest.mark.parametrize("spent", [1.01, 2.0, 1e9, math.inf])
def test_the_price_of_risk_rises_while_decisions_spend_more_than_the_budget(spent: float) -> None:
    table = table_of()
    before = table.risk_price("balanced")
    table.decided(spending(spent), "balanced")
    assert table.risk_price("balanced") > before


@pytest.mark.parametrize("spent", [0.0, 0.5, 0.99])
def test_the_price_of_risk_falls_while_decisions_spend_less_than_the_budget(spent: float) -> None:
    table = table_of()
    before = table.risk_price("balanced")
    table.decided(spending(spent), "balanced")
    assert table.risk_price("balanced") < before


def test_a_decision_without_a_budget_or_a_choice_leaves_the_price_of_risk() -> None:
    table = table_of()
    before = table.risk_price("balanced")
    table.decided(spending(None), "balanced")
    assert table.risk_price("balanced") == before


def test_each_objective_has_a_price_of_risk_of_its_own() -> None:
    table = table_of()
    before = table.risk_price("cost")
    table.decided(spending(20.0), "balanced")
    assert table.risk_price("cost") == before


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(st.floats(0.0, 1e6), st.integers(1, 300)), max_size=8))
def test_the_price_of_risk_stays_within_its_bounds(spends: list[tuple[float, int]]) -> None:
    table = table_of()
    for spent, times in spends:
        for _ in range(times):
            table.decided(spending(spent), "cost")
            assert RISK_PRICES[0] <= table.risk_price("cost") <= RISK_PRICES[1]


@pytest.mark.parametrize(("spent", "bound"), [(0.0, RISK_PRICES[0]), (20.0, RISK_PRICES[1])])
def test_the_price_of_risk_comes_back_from_either_bound(spent: float, bound: float) -> None:
    table = table_of()
    for _ in range(500):
        table.decided(spending(spent), "cost")
    assert table.risk_price("cost") == bound
    table.decided(spending(20.0 - spent), "cost")
    assert table.risk_price("cost") != bound


# Whatever happens, in whatever order.

NAMES = ("a", "b", "c")
END = ("answered", "late", "ended")


class TableMachine(RuleBasedStateMachine):
    """Sends are counted beside the table; reports by when they were made."""

    def __init__(self) -> None:
        super().__init__()
        self.table = RoutingTable(
            Target(name, "edge", name, rtt_s=0.25 * index, row_s=0.25, service_s=0.25)
            for index, name in enumerate(NAMES)
        )
        self.now = NOW
        self.under_way: list[tuple[str, Sent]] = []
        self.over: list[Sent] = []
        self.newest: dict[str, tuple[float, Load]] = {}

    def end(self, how: str, sent: Sent, load: Load | None, at: float) -> None:
        ends: dict[str, Callable[[], None]] = {
            "answered": lambda: self.table.answered(sent, self.now, load, at, 0.125),
            "late": lambda: self.table.late(sent, self.now, 2.0),
            "ended": lambda: self.table.ended(sent),
        }
        ends[how]()

    def told(self, name: str, load: Load, at: float) -> None:
        if at >= self.newest.get(name, (0.0, load))[0]:
            self.newest[name] = at, load

    @rule(passed_s=seconds(20.0))
    def wait(self, passed_s: float) -> None:
        self.now += passed_s

    @rule(name=st.sampled_from(NAMES), request=requests)
    def send(self, name: str, request: Request) -> None:
        self.under_way.append((name, self.table.sent(name, request, self.now)))

    @precondition(lambda self: self.under_way)
    @rule(
        data=st.data(),
        how=st.sampled_from(END),
        load=st.one_of(st.none(), loads),
        age_s=seconds(3.0),
    )
    def let_one_end(self, data: st.DataObject, how: str, load: Load | None, age_s: float) -> None:
        index = data.draw(st.integers(0, len(self.under_way) - 1))
        name, sent = self.under_way.pop(index)
        self.over.append(sent)
        self.end(how, sent, load, self.now - age_s)
        if load is not None and how == "answered":
            self.told(name, load, self.now - age_s)

    @precondition(lambda self: self.over)
    @rule(data=st.data(), how=st.sampled_from(END), load=loads)
    def let_one_end_again(self, data: st.DataObject, how: str, load: Load) -> None:
        before = list(self.table.targets)
        self.end(how, data.draw(st.sampled_from(self.over)), load, self.now)
        assert self.table.targets == before

    @rule(name=st.sampled_from(NAMES), load=loads, age_s=seconds(5.0))
    def hear(self, name: str, load: Load, age_s: float) -> None:
        self.table.heard(name, load, self.now - age_s)
        self.told(name, load, self.now - age_s)

    @rule(name=st.sampled_from(NAMES), rtt_s=seconds(1.0))
    def measure(self, name: str, rtt_s: float) -> None:
        self.table.measured(name, rtt_s)

    @rule(name=st.sampled_from(NAMES), is_up=st.booleans(), usd=seconds(1.0))
    def change(self, name: str, is_up: bool, usd: float) -> None:
        self.table.change(name, is_up=is_up, usd=usd)

    @invariant()
    def every_send_that_has_not_ended_is_outstanding(self) -> None:
        waiting = [name for name, _ in self.under_way]
        assert {t.name: t.outstanding for t in self.table.targets} == {
            name: waiting.count(name) for name in NAMES
        }

    @invariant()
    def work_ahead_is_never_negative_and_never_less_for_who_has_more_time(self) -> None:
        for target in self.table.targets:
            assert target.ahead_s[0] >= 0.0
            assert list(target.ahead_s) == sorted(target.ahead_s)

    @invariant()
    def the_newest_report_is_believed(self) -> None:
        for name, (at, load) in self.newest.items():
            target = self.table[name]
            assert (target.heard_at, target.busy) == (at, load.busy)
            assert 0.0 <= target.row_s <= load.row_s

    @invariant()
    def every_expectation_is_a_time(self) -> None:
        for target in self.table.targets:
            assert target.rtt_s >= 0.0
            assert 0.0 <= wait_s(target, 1.0, self.now) < math.inf
            assert target.rtt_s <= expected_delay(target, ASKED, self.now) < math.inf


TableMachine.TestCase.settings = settings(max_examples=100, stateful_step_count=30, deadline=None)
TestTable = TableMachine.TestCase


def test_an_idle_place_has_no_work_ahead_when_its_way_became_shorter() -> None:
    table = RoutingTable([Target("a", "edge", "s", rtt_s=0.2)])
    table.ended(table.sent("a", Request(1.0), 0.0))
    table.change("a", rtt_s=0.0)
    table.ended(table.sent("a", Request(1.0), 0.0))
    assert table["a"].ahead_s == (0.0,) * len(SLACKS)


def test_the_way_never_takes_less_than_no_time() -> None:
    table = RoutingTable([Target("a", "edge", "s", rtt_s=0.01)])
    table.measured("a", -1.0)
    assert table["a"].rtt_s >= 0.0


def test_a_place_that_has_measured_nothing_yet_does_not_work_for_nothing() -> None:
    table = RoutingTable([Target("a", "edge", "s", service_s=0.1, prior_s=0.1)])
    table.heard("a", Load(), 1.0)
    assert table["a"].service_s == 0.1
