"""What the gateway believes of a target that answers, hangs, fails, dies and comes back."""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace

import pytest

from edge_runtime.engine import Answered
from edge_runtime.errors import InvalidInput, Overloaded
from policies.routing import Request
from policies.routing.types import SLACKS
from serve_apps.gateway.targets import (
    CALLS,
    FRESH_S,
    GONE_S,
    PROBE_EVERY_S,
    REFRESH_S,
    SILENCE_S,
    STRIKES,
    RemoteTarget,
    TargetLost,
    TargetSilent,
    TargetTable,
    failures,
)
from serve_apps.wire import Failure, ReplicaReport
from tests.serve_apps.gateway.place import (
    IDLE,
    KEY,
    Clock,
    Place,
    later,
    remote,
    report,
    request,
    until,
)

WANTED = Request(slack_s=60.0)


@pytest.fixture
def place() -> Place:
    return Place()


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
async def target(place: Place, clock: Clock) -> RemoteTarget:
    made = remote("cloud", place, clock)
    await made.probe()
    return made


def _send(target: RemoteTarget, *, patience_s: float | None = None) -> asyncio.Task[Answered]:
    sent = target.infer(request(), "1", WANTED, deadline=later(), priority=0, patience_s=patience_s)
    return asyncio.create_task(sent)


async def _lost(task: asyncio.Task[Answered]) -> None:
    with pytest.raises(TargetLost):
        await task


async def test_a_target_is_down_until_it_was_heard_of(place: Place, clock: Clock) -> None:
    target = remote("cloud", place, clock)
    assert not target.is_up
    await target.probe()
    view = target.view(KEY)
    assert target.is_up
    assert (view.name, view.tier, view.site) == ("cloud", "cloud", "dc")
    assert view.has_model
    assert view.service_s == IDLE.service_s
    assert not target.view(("m", "2")).has_model


async def test_a_way_that_was_slow_at_first_is_seen_to_be_quick_without_any_calls(
    clock: Clock,
) -> None:
    class Starting(Place):
        async def probe(self) -> Sequence[ReplicaReport]:
            if not self.probes:
                clock.advance(0.5)
            return await super().probe()

    target = remote("edge/lab", Starting(), clock)
    await target.probe()
    assert target.view(KEY).rtt_s >= 0.5
    await target.probe()
    assert target.view(KEY).rtt_s < 0.5


async def test_an_answer_brings_outputs_and_the_load_of_the_replica(
    target: RemoteTarget, place: Place, clock: Clock
) -> None:
    clock.advance(1.0)
    before = target.view(KEY).heard_at
    place.load = replace(IDLE, wait_s=0.5)
    (y,) = (await _send(target)).outputs
    assert y.data.tolist() == [[2.0, 4.0]]
    assert target.view(KEY).ahead_s[-1] == 0.5
    assert target.view(KEY).heard_at >= before + 1.0


async def test_the_waits_of_replicas_are_averaged_by_hurry(
    target: RemoteTarget, place: Place
) -> None:
    steps = tuple(0.125 * n for n in range(len(SLACKS)))
    loads = (replace(IDLE, wait_s=steps[-1], ahead_s=steps), replace(IDLE, wait_s=0.5))
    place.reports = [report(load) for load in loads]
    await target.probe()
    assert target.view(KEY).ahead_s == tuple((step + 0.5) / 2 for step in steps)


async def test_requests_are_outstanding_until_they_end_in_whatever_way(
    target: RemoteTarget, place: Place
) -> None:
    place.hang()
    tasks = [_send(target) for _ in range(3)]
    await until(lambda: place.running == 3)
    assert target.view(KEY).outstanding == 3
    tasks[0].cancel()
    await asyncio.wait(tasks[:1])
    assert target.view(KEY).outstanding == 2
    place.fail()
    await asyncio.wait(tasks)
    assert target.view(KEY).outstanding == 0


async def test_a_caller_that_gives_up_cancels_the_call_behind_it(
    target: RemoteTarget, place: Place
) -> None:
    place.hang()
    task = _send(target)
    await until(lambda: place.running == 1)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert (place.running, place.cancelled) == (0, 1)
    assert target.is_up


async def test_a_refusal_keeps_its_type_and_counts_as_a_sign_of_life(
    target: RemoteTarget, place: Place
) -> None:
    place.refuse(InvalidInput("input 'x' is missing", field="x"))
    for _ in range(STRIKES):
        with pytest.raises(InvalidInput) as error:
            await _send(target)
        assert error.value.field == "x"
    assert target.is_up


async def test_a_refusal_of_the_backing_itself_is_no_loss(clock: Clock) -> None:
    class Full(Place):
        async def call(self, call: object) -> object:  # type: ignore[override]
            raise Overloaded("too many")

    target = remote("cloud", Full(), clock)
    await target.probe()
    for _ in range(STRIKES):
        with pytest.raises(Overloaded):
            await _send(target)
    assert target.is_up


async def test_a_failed_probe_does_not_take_down_a_target_that_was_just_heard(
    target: RemoteTarget, place: Place, clock: Clock
) -> None:
    place.fail()
    await target.probe()
    assert target.is_up
    clock.advance(SILENCE_S)
    await target.probe()
    assert not target.is_up
    assert "ConnectionError" in target.problem
    assert target.reports == ()


async def test_the_way_there_may_fail_as_a_timeout_or_a_cancellation(clock: Clock) -> None:
    class Failing(Place):
        error: BaseException = TimeoutError()

        async def call(self, call: object) -> object:  # type: ignore[override]
            raise self.error

    place = Failing()
    target = remote("cloud", place, clock)
    await target.probe()
    await _lost(_send(target))
    assert target.is_due
    place.error = asyncio.CancelledError()
    await _lost(_send(target))
    assert target.view(KEY).outstanding == 0


async def test_the_deadline_ends_a_wait_and_is_no_loss(target: RemoteTarget, place: Place) -> None:
    place.hang()
    for _ in range(STRIKES):
        with pytest.raises(TimeoutError):
            await target.infer(
                request(), "1", WANTED, deadline=later(0.01), priority=0, patience_s=math.inf
            )
    assert target.is_up
    assert (place.running, place.cancelled) == (0, STRIKES)


async def test_calls_under_way_are_bounded_by_model_and_replica(clock: Clock) -> None:
    place = Place(replicas=2)
    target = remote("cloud", place, clock)
    await target.probe()
    place.hang()
    tasks = [_send(target) for _ in range(2 * CALLS)]
    await until(lambda: place.running == 2 * CALLS)
    with pytest.raises(Overloaded) as error:
        await _send(target)
    assert error.value.retry_after_s
    other = target.infer(request(), "2", WANTED, deadline=later(), priority=0, patience_s=None)
    elsewhere = asyncio.create_task(other)
    await until(lambda: place.running == 2 * CALLS + 1)
    place.recover()
    await asyncio.gather(*tasks, elsewhere)
    await _send(target)


async def test_probes_are_rare_while_answers_come(
    target: RemoteTarget, place: Place, clock: Clock
) -> None:
    clock.advance(PROBE_EVERY_S)
    assert target.is_due
    await _send(target)
    assert not target.is_due
    clock.advance(FRESH_S)
    assert target.is_due
    await _send(target)
    clock.advance(REFRESH_S - FRESH_S)
    await _send(target)
    assert target.is_due  # answers tell of one model and one replica only
    await target.probe()
    assert not target.is_due


async def test_a_failed_call_asks_for_a_probe(clock: Clock) -> None:
    place = Place(replicas=2)
    target = remote("cloud", place, clock)
    await target.probe()
    assert not target.is_due
    place.fails_next = 1
    await _lost(_send(target))
    assert target.is_up
    assert target.is_due


async def test_a_target_that_is_down_is_always_due(target: RemoteTarget) -> None:
    target.lose("for the test")
    assert target.is_due


async def test_a_target_without_replicas_is_down_at_once(
    target: RemoteTarget, place: Place
) -> None:
    place.reports = []
    await target.probe()
    assert (target.is_up, target.problem) == (False, "no replica is running")


async def test_silence_is_noticed_within_two_seconds(
    target: RemoteTarget, place: Place, clock: Clock
) -> None:
    assert PROBE_EVERY_S + SILENCE_S < 2.0
    place.silence()
    await target.probe()
    assert not target.is_silent
    clock.advance(SILENCE_S)
    await target.probe()
    assert (target.is_up, target.is_silent) == (True, True)
    assert target.view(KEY).is_silent


async def test_a_target_that_is_silent_for_long_is_down_and_comes_back(
    target: RemoteTarget, place: Place, clock: Clock
) -> None:
    place.silence()
    clock.advance(GONE_S)
    await target.probe()
    assert not target.is_up
    place.recover()
    await target.probe()
    assert (target.is_up, target.is_silent, target.problem) == (True, False, "")


async def test_silence_moves_those_who_can_go_elsewhere_and_the_others_stay(
    target: RemoteTarget, place: Place, clock: Clock
) -> None:
    place.silence()
    moving, staying = _send(target, patience_s=math.inf), _send(target)
    await until(lambda: place.running == 2)
    clock.advance(SILENCE_S)
    await target.probe()
    await _lost(moving)
    assert not staying.done()
    assert target.is_silent
    place.recover()
    await staying
    assert not target.is_silent  # the answer ended it before any probe


async def test_whose_patience_ends_leaves_a_target_that_has_said_nothing_since(
    target: RemoteTarget, place: Place
) -> None:
    place.silence()
    moving, staying = _send(target, patience_s=0.01), _send(target)
    with pytest.raises(TargetSilent):
        await moving
    assert not staying.done()
    assert not target.is_silent, "a short while says nothing of the place"
    assert target.view(KEY).errors, "but what the request saw counts as late"
    place.recover()
    await staying
    assert target.view(KEY).outstanding == 0


async def test_who_waits_at_a_target_that_answers_others_stays(clock: Clock) -> None:
    class Busy(Place):
        async def probe(self) -> Sequence[ReplicaReport]:
            return self.reports

    place = Busy()
    target = remote("cloud", place, clock)
    await target.probe()
    place.hang()
    waiting = _send(target, patience_s=0.01)
    await until(lambda: place.running == 1)
    await target.probe()
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(asyncio.shield(waiting), 0.05)
    place.recover()
    await waiting


async def test_everybody_who_waits_is_told_when_a_target_is_gone(
    target: RemoteTarget, place: Place, clock: Clock
) -> None:
    place.silence()
    tasks = [_send(target) for _ in range(CALLS)]
    await until(lambda: place.running == CALLS)
    clock.advance(GONE_S)
    await target.probe()
    found = await asyncio.gather(*tasks, return_exceptions=True)
    assert {type(each) for each in found} == {TargetLost}
    assert (place.running, place.cancelled) == (0, CALLS)
    assert target.view(KEY).outstanding == 0


async def test_calls_failed_in_a_row_mark_a_lone_replica_down(
    target: RemoteTarget, place: Place, caplog: pytest.LogCaptureFixture
) -> None:
    place.hang()
    tasks = [_send(target) for _ in range(50)]
    await until(lambda: place.running == 50)
    with caplog.at_level(logging.WARNING, "serve_apps.gateway.targets"):
        place.fail()
        found = await asyncio.gather(*tasks, return_exceptions=True)
    assert {type(each) for each in found} == {TargetLost}
    assert not target.is_up
    assert "ConnectionError" in target.problem
    assert len(caplog.records) == 2  # the first failed call, and that it is down


async def test_an_answer_between_failed_calls_keeps_a_target_up(
    target: RemoteTarget, place: Place
) -> None:
    for _ in range(2 * STRIKES):
        place.fails_next = STRIKES - 1
        await _lost(_send(target))
        await _send(target)
    assert target.is_up


async def test_the_death_of_one_of_two_replicas_leaves_the_other_s_calls_alone(
    clock: Clock,
) -> None:
    place = Place(replicas=2)
    target = remote("cloud", place, clock)
    await target.probe()
    place.hang()
    elsewhere = _send(target)
    await until(lambda: place.running == 1)
    place.fails_next = 10
    for _ in range(10):
        await _lost(_send(target))
    assert target.is_up
    place.recover()
    await elsewhere
    place.reports = [report(IDLE)]
    await target.probe()
    assert target.is_up
    assert not target.has_spare


async def test_a_model_counts_as_loaded_when_every_replica_has_it(
    target: RemoteTarget, place: Place
) -> None:
    place.reports = [report(IDLE), report()]
    await target.probe()
    assert not target.view(KEY).has_model
    place.reports = [report(replace(IDLE, wait_s=0.2)), report(replace(IDLE, wait_s=0.4))]
    await target.probe()
    assert target.view(KEY).has_model
    assert target.view(KEY).ahead_s[-1] == pytest.approx(0.3)


async def test_failures_are_told_by_model_and_target(clock: Clock) -> None:
    place, well = Place(), Place()
    why = Failure("corrupt", "the file is damaged")
    place.reports = [ReplicaReport({}, {KEY: why}, (), 1)]
    table = TargetTable([remote("cloud", place, clock), remote("edge/lab", well, clock)])
    await table.probe()
    assert failures(table) == {KEY: {"cloud": why}}


async def test_the_table_shows_only_the_tiers_asked_for(clock: Clock) -> None:
    table = TargetTable([remote(name, Place(), clock) for name in ("cloud", "edge/lab")])
    assert [view.name for view in table.views(KEY, frozenset({"edge"}))] == ["edge/lab"]
    assert len(table.views(KEY, frozenset({"edge", "cloud"}))) == 2


async def test_a_target_that_hangs_or_fails_delays_no_other_and_ends_no_probing(
    clock: Clock,
) -> None:
    hanging, failing, well = Place(), Place(), Place()
    hanging.hang()
    failing.fail()
    places = {"cloud": hanging, "edge/a": failing, "edge/b": well}
    table = TargetTable([remote(name, place, clock) for name, place in places.items()])
    running = asyncio.create_task(table.run())
    await until(lambda: well.probes >= 2)
    assert hanging.probes == 1
    assert not table["cloud"].is_up
    assert table["edge/b"].is_up
    hanging.recover()
    failing.recover()
    await until(lambda: all(target.is_up for target in table))
    running.cancel()
    with suppress(asyncio.CancelledError):
        await running
