"""One order of events each, on a loop of virtual time: what `test_states` may or may not meet."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path

import pytest

from edge_runtime.accelerator import wire
from edge_runtime.accelerator.device import OPEN_S
from edge_runtime.accelerator.model import SLOTS
from edge_runtime.accelerator.runtimes import FIRST_LIMIT_S
from edge_runtime.backends.base import AcceleratorFault, TooSlow
from edge_runtime.engine.source import Variant
from edge_runtime.errors import Corrupt, InvalidInput, Unsupported
from edge_runtime.protocol.types import Signature, TensorSpec
from tests.edge_runtime.accelerator.bench import SIGNATURE, Bench, is_whole, numbers, source
from tests.edge_runtime.accelerator.processes import (
    descriptors,
    mapped_tensors,
    no_descriptors_left,
)
from tests.edge_runtime.accelerator.standin import StandIn


def ended(job: int, status: int, taken_ns: int = 0) -> bytes:
    return wire.DONE + wire.DONE_BODY.pack(job, status, taken_ns)


# Loading.


def test_a_model_that_comes_while_the_device_starts_is_loaded_at_once(bench: Bench) -> None:
    model = bench.open()
    assert (model.why, bench.host.loads) == ("", [model.number])


def test_a_model_that_comes_while_the_first_signs_of_health_are_awaited_is_loaded_too(
    bench: Bench,
) -> None:
    bench.plan.row_s = 0.5
    first = bench.loop.create_task(bench.accelerator.open(source(), SIGNATURE))
    bench.until(lambda: bool(bench.host.ran))
    second = bench.loop.create_task(bench.accelerator.open(source("other"), SIGNATURE))
    bench.until(lambda: first.done() and second.done())
    for task in (first, second):
        model = task.result()
        assert model is not None
        assert not model.why
    assert len(bench.standin.hosts) == 1


def test_a_model_that_comes_while_the_device_is_away_waits_and_is_loaded_later(
    bench: Bench,
) -> None:
    bench.plan.is_present = False
    bench.loop.live(1.0)
    model = bench.open()
    assert "status 74" in model.why
    bench.plan.is_present = True
    bench.until(lambda: not model.why, 10.0)
    bench.ask(model, 2)


def test_opening_waits_only_so_long_for_a_device_that_does_not_greet(bench: Bench) -> None:
    bench.plan.hello = "mute"
    began = bench.loop.time()
    model = bench.open()
    assert bench.loop.time() - began == pytest.approx(OPEN_S)
    assert model.why == "starting"
    bench.plan.hello = ""
    bench.until(lambda: not model.why, 40.0)


def test_a_host_that_dies_while_it_loads_is_replaced_and_the_next_loads_the_model(
    bench: Bench,
) -> None:
    bench.until_it_serves()
    bench.plan.load = ["die"]
    model = bench.open()
    assert model.why
    bench.until(lambda: not model.why, 10.0)
    bench.ask(model)


def test_a_load_that_never_ends_ends_the_host(bench: Bench) -> None:
    first = bench.open()
    bench.plan.load = ["hang"]
    second = bench.open("other")
    assert "not loaded within" in second.why
    bench.until(lambda: not first.why and not second.why, 10.0)
    assert bench.accelerator.counts.faults == {"load": 1}


def test_a_model_that_is_closed_while_it_loads_is_taken_off_again(bench: Bench) -> None:
    bench.until_it_serves()
    opening = bench.loop.create_task(bench.accelerator.open(source(), SIGNATURE))
    bench.until(lambda: bool(bench.host.loads))
    opening.cancel()
    bench.loop.live(1.0)
    assert opening.cancelled()
    assert bench.host.networks == {}
    assert bench.open().free_slots == SLOTS


def test_a_waiting_model_that_is_closed_while_a_session_loads_it_stays_closed(
    bench: Bench,
) -> None:
    bench.plan.is_present = False
    bench.loop.live(1.0)
    model = bench.open()
    bench.plan.is_present = True
    bench.until(lambda: any(host.loads for host in bench.standin.running), 10.0)
    model.close()
    bench.loop.live(1.0)
    assert (model.why, model.is_loaded) == ("unloaded", False)
    assert bench.host.networks == {}


def test_while_a_model_is_loaded_no_run_of_another_is_held_against_the_device(
    bench: Bench,
) -> None:
    first = bench.open()
    for _ in range(30):
        bench.ask(first)
    bench.plan.load_s = 2.0
    opening = bench.loop.create_task(bench.accelerator.open(source("other"), SIGNATURE))
    bench.loop.live(0.01)
    waiting = bench.asking(first, 3)
    bench.loop.live(0.2)
    assert first.why == ""
    bench.loop.live(0.1)
    assert first.why == "it takes in another model"
    bench.until(waiting.done, 0.3)
    assert isinstance(waiting.exception(), AcceleratorFault)  # it is computed elsewhere
    bench.until(opening.done)
    bench.loop.live(0.1)
    assert (first.why, is_whole(first)) == ("", True)
    bench.ask(first, 3)
    assert bench.accelerator.counts.faults == {}
    assert first.times.limit_s(1) < 1.0  # what the load took is not the model's pace


def test_a_run_that_waited_for_a_load_has_its_whole_time_afterwards(bench: Bench) -> None:
    first = bench.open()
    for _ in range(30):
        bench.ask(first)
    limit_s = first.times.limit_s(1)
    bench.plan.load_s = 1.75 * limit_s  # it ends between two looks
    opening = bench.loop.create_task(bench.accelerator.open(source("other"), SIGNATURE))
    bench.loop.live(0.01)
    bench.plan.row_s = 0.9 * limit_s
    waiting = bench.asking(first)
    bench.until(opening.done)
    bench.loop.live(limit_s)
    assert isinstance(waiting.exception(), AcceleratorFault)
    assert bench.accelerator.counts.faults == {}
    assert is_whole(first)


def test_the_first_run_after_a_load_sets_the_device_up_and_may_take_long(bench: Bench) -> None:
    model = bench.open()
    for _ in range(30):
        bench.ask(model)
    bench.plan.by_model[model.number] = 8
    bench.plan.run = [62]
    lost = bench.asking(model)
    bench.until(lost.done)
    assert isinstance(lost.exception(), AcceleratorFault)
    other = bench.open("other")
    bench.until(lambda: not other.why, 10.0)
    bench.plan.by_model.clear()
    while not model.is_loaded:
        bench.ask(other)  # no need to probe
        bench.loop.live(0.1)
    bench.plan.row_s = FIRST_LIMIT_S - 0.1
    asked = [bench.asking(model), bench.asking(model), bench.asking(other)]
    bench.loop.live(0.01)
    bench.plan.row_s = 0.001
    bench.until(lambda: all(task.done() for task in asked), 1.0)
    assert {type(task.exception()) for task in asked} == {TooSlow}  # to be computed elsewhere
    bench.until(lambda: is_whole(model) and is_whole(other), FIRST_LIMIT_S)
    bench.ask(model)
    assert bench.accelerator.counts.faults == {"status 62": 1, "load": 2}


@pytest.mark.parametrize("fault", [8, "die"])
def test_a_model_that_can_never_be_loaded_does_not_take_the_device_from_others(
    bench: Bench, fault: str | int
) -> None:
    bench.plan.is_present = False
    bad, good = bench.open("bad"), bench.open("good")
    bench.plan.by_model[bad.number] = fault
    bench.plan.is_present = True
    bench.until(lambda: bool(bench.standin.running) and bool(bench.host.loads), 10.0)
    before = len(bench.standin.hosts)
    bench.until(lambda: not good.why, 15.0)
    assert len(bench.standin.hosts) - before == (2 if fault == 8 else 3)
    for _ in range(300):
        bench.loop.live(1.0)
        assert bad.why
        if not good.why:
            bench.ask(good)
    # A retry may cost a host, but there are few: after 1, 2, 4 ... minutes.
    assert len(bench.standin.hosts) < 12
    bench.plan.by_model.clear()
    bench.until(lambda: not bad.why, 600.0)
    bench.ask(bad)


def test_a_lone_model_that_cannot_be_loaded_is_tried_with_every_host(bench: Bench) -> None:
    bench.plan.load = [8] * 10
    model = bench.open()
    assert "status 8" in model.why
    bench.until(lambda: not bench.plan.load, 60.0)
    bench.until(lambda: not model.why, 10.0)


def test_hosts_that_die_while_the_first_of_two_is_loaded_are_not_held_against_the_second(
    bench: Bench,
) -> None:
    bench.plan.is_present = False
    first, second = bench.open("first"), bench.open("second")
    bench.plan.load = ["die"] * 3
    bench.plan.is_present = True
    bench.until(lambda: not second.why, 15.0)
    assert second.failed_loads == 0
    bench.until(lambda: not first.why, 70.0)


def test_a_model_is_loaded_once_there_are_descriptors_for_its_memory_again(bench: Bench) -> None:
    bench.until_it_serves()
    with no_descriptors_left():
        model = bench.open()
    assert "no memory" in model.why
    assert "Too many open files" in model.why
    bench.until(lambda: not model.why, 10.0)
    assert len(bench.standin.hosts) == 1


@pytest.mark.parametrize(("status", "kind"), [(26, Corrupt), (91, Corrupt), (92, Unsupported)])
def test_an_artifact_that_the_device_refuses_is_told_and_harms_nobody(
    bench: Bench, status: int, kind: type[Exception]
) -> None:
    good = bench.open()
    bench.plan.load = [status]
    with pytest.raises(kind, match=f"m.hef: status {status}"):
        bench.open("bad")
    assert len(bench.standin.hosts) == 1
    bench.ask(good)


def test_a_hef_for_another_chip_is_unsupported_and_says_for_which(bench: Bench) -> None:
    bench.until_it_serves()
    with pytest.raises(Unsupported, match="hailo8l, and the device is a hailo8"):
        bench.open(target="hailo8l")


def test_a_version_without_a_hef_is_none_of_the_device_s_business(bench: Bench) -> None:
    onnx = replace(source(), variants=(Variant("onnx", Path("m.onnx")),))
    assert bench.loop.run(bench.accelerator.open(onnx, SIGNATURE)) is None


def test_a_damaged_hef_is_corrupt_and_one_for_another_chip_does_not_matter(
    bench: Bench, tmp_path: Path
) -> None:
    damaged = Variant("hef", tmp_path / "gone.hef", "hailo8l", "0" * 64)
    bench.until_it_serves()
    with pytest.raises(Corrupt, match=r"gone\.hef"):
        bench.loop.run(bench.accelerator.open(replace(source(), variants=(damaged,)), SIGNATURE))
    both = replace(source(), variants=(damaged, *source().variants))
    model = bench.loop.run(bench.accelerator.open(both, SIGNATURE))
    assert model is not None
    bench.ask(model)


@pytest.mark.parametrize(
    ("inputs", "outputs"),
    [
        ([("x", "BOOL", (-1, 4))], [("y", "FP32", (-1, 4))]),
        ([("x", "FP32", (-1, -1))], [("y", "FP32", (-1, 4))]),
        ([("x", "FP32", ())], [("y", "FP32", (-1, 4))]),
        ([("x", "FP32", (-1, 4))], [("y", "FP32", (1, 4))]),
        ([("x", "FP32", (2, 4))], [("y", "FP32", (2, 4))]),
        ([], [("y", "FP32", (-1, 4))]),
        ([("x", "FP32", (-1, 4))], []),
    ],
)
def test_a_model_that_no_device_can_take_is_unsupported(
    bench: Bench,
    inputs: list[tuple[str, str, tuple[int, ...]]],
    outputs: list[tuple[str, str, tuple[int, ...]]],
) -> None:
    signature = Signature(
        tuple(TensorSpec(*spec) for spec in inputs), tuple(TensorSpec(*spec) for spec in outputs)
    )
    with pytest.raises(Unsupported):
        bench.loop.run(bench.accelerator.open(source(), signature))


# Runs.


def test_a_request_larger_than_a_slot_takes_turns(bench: Bench) -> None:
    model = bench.open(max_rows=3)
    bench.ask(model, 1, 10, 2)
    assert [rows for _, rows in bench.host.ran[-5:]] == [3, 3, 3, 3, 1]


def test_who_gives_up_frees_the_slot_when_the_run_has_ended(bench: Bench) -> None:
    model = bench.open()
    bench.plan.row_s = 0.1
    task = bench.asking(model)
    task.cancel()
    bench.loop.live(0.01)
    assert task.cancelled()
    assert model.free_slots == SLOTS - 1
    bench.loop.live(0.2)
    assert is_whole(model)


def test_who_gives_up_in_the_moment_that_the_run_ends_frees_the_slot(bench: Bench) -> None:
    model = bench.open()
    task = bench.asking(model)
    bench.plan.after_done = task.cancel
    bench.until(task.done)
    assert task.cancelled()
    assert is_whole(model)


def test_who_gives_up_in_the_moment_that_the_run_is_refused_frees_the_slot_once(
    bench: Bench,
) -> None:
    model = bench.open()
    bench.plan.run = [82]
    task = bench.asking(model)
    bench.plan.after_done = task.cancel
    bench.until(task.done)
    assert model.free_slots == SLOTS


def test_more_runs_than_there_are_slots_are_lost_and_harm_nobody(bench: Bench) -> None:
    model = bench.open()
    tasks = [bench.asking(model) for _ in range(SLOTS + 1)]
    bench.until(lambda: all(task.done() for task in tasks))
    assert [type(task.exception()) for task in tasks] == [type(None)] * SLOTS + [AcceleratorFault]
    assert is_whole(model)


@pytest.mark.parametrize("status", [2, 6, 25, 61, 82])
def test_a_refusal_is_the_request_s_own_and_the_host_goes_on(bench: Bench, status: int) -> None:
    model = bench.open()
    bench.plan.run = [status]
    task = bench.asking(model)
    bench.until(task.done)
    with pytest.raises(AcceleratorFault, match=f"status {status}"):
        task.result()
    bench.ask(model, 2)
    assert len(bench.standin.hosts) == 1


@pytest.mark.parametrize("status", [4, 36, 62, 63, 81, 87, 999])
def test_a_failed_run_takes_all_that_is_under_way_with_it(bench: Bench, status: int) -> None:
    model = bench.open()
    bench.plan.run = [status]
    tasks = [bench.asking(model, 1), bench.asking(model, 2)]
    bench.until(lambda: all(task.done() for task in tasks))
    for task in tasks:
        with pytest.raises(AcceleratorFault, match=f"status {status}"):
            task.result()
    assert bench.accelerator.counts.faults == {f"status {status}": 1}
    assert bench.accelerator.counts.lost == 2
    bench.until_it_serves()
    bench.ask(model, 3)


def test_two_that_fail_in_one_moment_are_one_failure(bench: Bench) -> None:
    model = bench.open()
    bench.plan.run = ["hang", "hang"]
    tasks = [bench.asking(model), bench.asking(model)]
    bench.loop.live(0.01)
    bench.hear(*(ended(job, 62) for job in range(100)))  # whichever they are
    bench.until(lambda: all(task.done() for task in tasks))
    assert [type(task.exception()) for task in tasks] == [AcceleratorFault] * 2
    assert bench.accelerator.counts.faults == {"status 62": 1}
    assert bench.accelerator.counts.lost == 2


def test_the_end_of_a_run_that_is_told_twice_or_of_none_counts_once(bench: Bench) -> None:
    model = bench.open()
    for what in ("twice", "unknown"):
        bench.plan.run = [what]
        before = bench.accelerator.counts.runs
        bench.ask(model, 2)
        assert bench.accelerator.counts.runs == before + 1
        assert is_whole(model)


def test_unloading_a_model_with_a_run_under_way_does_not_end_the_host(bench: Bench) -> None:
    other = bench.open("other")
    model = bench.open()
    bench.plan.row_s = 0.1
    task = bench.asking(model)
    model.close()
    bench.until(task.done)
    assert isinstance(task.exception(), AcceleratorFault)
    bench.ask(other)
    assert len(bench.standin.hosts) == 1


def test_a_run_of_an_unloaded_model_is_lost(bench: Bench) -> None:
    model = bench.open()
    model.close()
    model.close()
    assert bench.host.unloads == [model.number] or not bench.host.unloads
    task = bench.asking(model)
    bench.until(task.done)
    assert str(task.exception()) == "unloaded"


def test_requests_that_do_not_fit_are_the_caller_s_fault_and_keep_no_slot(bench: Bench) -> None:
    model = bench.open()
    (x,) = numbers(2)
    for bad, outputs in [
        ({}, ["y"]),
        ({"x": x.astype("float64")}, ["y"]),
        ({"x": x[:, :3]}, ["y"]),
        ({"x": x[0]}, ["y"]),
        ({"x": x}, ["z"]),
    ]:
        with pytest.raises(InvalidInput):
            bench.loop.run(model.run([bad], outputs))
    assert is_whole(model)


def test_inputs_of_one_request_have_the_same_rows_and_an_unbatched_model_takes_one(
    bench: Bench,
) -> None:
    two = Signature((*SIGNATURE.inputs, TensorSpec("z", "FP32", (-1, 1))), SIGNATURE.outputs)
    one = Signature((TensorSpec("x", "FP32", (1, 4)),), (TensorSpec("y", "FP32", (1, 4)),))
    (x,) = numbers(2)
    for signature, inputs in [(two, {"x": x, "z": x[:1, :1]}), (one, {"x": x})]:
        bench.plan.is_present = False
        model = bench.loop.run(bench.accelerator.open(source(), signature))
        assert model is not None
        with pytest.raises(InvalidInput, match="row"):
            bench.loop.run(model.run([inputs], ["y"]))


# Hangs, and what looks like one.


def test_a_hang_is_found_within_the_limit_and_everything_under_way_is_lost(bench: Bench) -> None:
    model = bench.open()
    for _ in range(30):
        bench.ask(model)
    bench.plan.run = ["hang"]
    began = bench.loop.time()
    tasks = [bench.asking(model), bench.asking(model)]
    bench.until(lambda: any(isinstance(t.exception(), AcceleratorFault) for t in tasks if t.done()))
    assert 0.2 < bench.loop.time() - began < 0.4
    assert bench.accelerator.counts.faults == {"hang": 1}
    assert "hangs since" in bench.accelerator.why
    bench.until_it_serves()
    bench.ask(model)


def test_a_large_batch_of_a_slow_model_that_ran_single_rows_so_far_does_not_hang(
    bench: Bench,
) -> None:
    bench.plan.row_s = 0.1
    model = bench.open(max_rows=32)
    bench.loop.live(10.0)
    bench.ask(model, 32)
    assert bench.accelerator.counts.faults == {}


def test_a_run_behind_large_batches_of_another_model_does_not_hang(bench: Bench) -> None:
    bench.plan.row_s = 0.1
    slow, quick = bench.open("slow", 32), bench.open("quick")
    for _ in range(30):
        bench.ask(quick)
    bench.ask(slow, 32)
    bench.host.is_stopped = True
    tasks = [bench.asking(slow, 32), bench.asking(quick)]
    bench.loop.live(3.0)
    assert bench.accelerator.counts.faults == {}
    bench.host.is_stopped = False
    bench.until(lambda: all(task.done() for task in tasks))


def test_time_in_which_this_process_stood_still_is_not_held_against_the_device(
    bench: Bench,
) -> None:
    model = bench.open()
    for _ in range(30):
        bench.ask(model)
    for stop_s in (0.1, 0.26, 0.5, 5.0):
        task = bench.asking(model)
        bench.loop.hold_up(stop_s)  # the host, too: its run goes on behind this
        bench.until(task.done)
        assert task.exception() is None
        bench.host.is_stopped = True
        task = bench.asking(model)
        bench.loop.hold_up(stop_s)
        bench.loop.live(0.03)
        bench.host.is_stopped = False
        bench.until(task.done)
        assert task.exception() is None
    assert bench.accelerator.counts.faults == {}


def test_what_the_host_has_said_is_read_before_it_is_said_to_hang(bench: Bench) -> None:
    model = bench.open()
    bench.ask(model)
    host, unread = bench.host, list[bytes]()
    say = host.say
    host.say = unread.append  # type: ignore[method-assign, assignment]
    host.read = lambda: [say(unread.pop(0)) for _ in list(unread)]  # type: ignore[method-assign, assignment]
    task = bench.asking(model, 3)
    bench.until(task.done, 1.0)
    assert task.exception() is None
    assert bench.accelerator.counts.faults == {}


def test_a_process_that_is_always_late_still_finds_a_device_that_hangs(bench: Bench) -> None:
    model = bench.open()
    bench.ask(model)
    loop = bench.loop

    def stumble() -> None:
        loop.hold_up(0.3)
        stumbling[0] = loop.call_soon(stumble)

    stumbling = [loop.call_soon(stumble)]
    bench.host.is_stopped = True
    task = bench.asking(model)
    bench.until(task.done, 10.0)
    stumbling[0].cancel()
    assert isinstance(task.exception(), AcceleratorFault)


def test_a_stopped_host_is_found_although_nobody_asks_for_anything(bench: Bench) -> None:
    bench.open()
    bench.host.is_stopped = True
    bench.until(lambda: bool(bench.accelerator.why), 8.0)
    bench.until_it_serves()


# The life of hosts.


def test_a_host_that_takes_no_more_is_ended_and_whoever_sends_is_told(bench: Bench) -> None:
    model = bench.open()
    bench.plan.is_full = True
    task = bench.asking(model)
    assert "takes no more requests" in str(task.exception())
    bench.plan.is_full = False
    bench.until_it_serves()
    bench.plan.is_full = True
    model.close()
    assert not bench.standin.running
    bench.plan.is_full = False
    bench.until_it_serves(70.0)
    bench.plan.is_full = True
    other = bench.open()
    assert other.why
    bench.plan.is_full = False
    bench.until(lambda: not other.why, 70.0)


def test_a_host_that_died_unnoticed_is_noticed_by_whoever_sends(bench: Bench) -> None:
    model = bench.open()
    host = bench.host
    host.read = host.die  # type: ignore[method-assign]  # its end is in the socket
    bench.plan.is_full = True
    task = bench.asking(model)
    bench.plan.is_full = False
    assert str(task.exception()) == "its host died"
    assert bench.accelerator.counts.faults == {"died": 1}


@pytest.mark.parametrize("hello", ["import", "die"])
def test_the_next_interpreter_is_tried_when_one_has_no_binding_or_does_not_survive_it(
    bench: Bench, hello: str
) -> None:
    bench.plan.hello = hello
    bench.until(lambda: len(bench.standin.pythons) == 4)
    assert bench.standin.pythons == ["first", "second", "first", "second"]


def test_an_interpreter_that_cannot_be_started_is_told_and_the_next_is_tried(
    bench: Bench,
) -> None:
    bench.loop.live(1.0)
    bench.plan.cannot_start = True
    bench.host.die()
    bench.until(lambda: len(bench.standin.pythons) >= 3)
    assert set(bench.standin.pythons) == {"first", "second"}
    assert "cannot be started: No such file" in bench.accelerator.why
    bench.plan.cannot_start = False
    bench.until_it_serves()


def test_an_interpreter_that_had_the_device_is_kept_when_the_device_goes_away(
    bench: Bench,
) -> None:
    bench.open()
    bench.plan.is_present = False
    bench.host.die()
    bench.loop.live(30.0)
    assert set(bench.standin.pythons) == {"first"}


def test_a_device_that_was_away_for_hours_comes_back(bench: Bench) -> None:
    model = bench.open()
    bench.plan.is_present = False
    bench.host.die()
    bench.loop.live(3 * 3600.0)
    assert "status 74" in bench.accelerator.why
    bench.plan.is_present = True
    bench.until(lambda: not model.why, 10.0)
    bench.ask(model)


def test_a_device_that_falls_again_as_soon_as_it_is_back_is_left_alone_for_a_minute(
    bench: Bench,
) -> None:
    model = bench.open()
    bench.loop.live(100.0)
    bench.host.die()
    bench.until(lambda: not model.why, 2.0)
    bench.host.die()
    fell_at = bench.loop.time()
    bench.until(lambda: not model.why, 70.0)
    assert bench.loop.time() - fell_at >= 60.0
    bench.host.die()
    fell_at = bench.loop.time()
    bench.until(lambda: not model.why, 70.0)
    assert bench.loop.time() - fell_at >= 60.0


def test_two_hundred_hosts_that_died_leave_no_memory_and_no_descriptor(bench: Bench) -> None:
    model = bench.open()
    bench.ask(model)
    before = descriptors()
    for _ in range(200):
        bench.host.die()
        bench.loop.live_until(lambda: model.is_loaded, 20.0, 0.25)
        bench.standin.hosts[:] = bench.standin.running
    bench.loop.live(2.0)  # the last timers of the hosts before
    assert mapped_tensors() == 2  # here, and in the stand-in
    assert descriptors() == before
    bench.until_it_serves(70.0)
    bench.ask(model)


class Broken(StandIn):
    """Cannot be started, and not for a reason that anybody has thought of."""

    def start(self, *arguments: object) -> object:  # type: ignore[override]
        raise RuntimeError("unheard of")


def test_whatever_goes_wrong_in_keeping_it_is_counted_and_tried_again() -> None:
    bench = Bench()
    bench.standin.__class__, kept = Broken, StandIn
    bench.accelerator = type(bench.accelerator)(["first"], start_host=bench.standin.start)
    bench.start()
    bench.loop.live(5.0)
    assert bench.accelerator.counts.faults["keeper"] > 3
    bench.standin.__class__ = kept
    bench.finish()


@pytest.mark.parametrize("hello", ["", "mute"])
@pytest.mark.parametrize("after_s", [0.0, 0.05, 0.12, 1.0])
def test_closing_at_any_moment_leaves_nothing(bench: Bench, hello: str, after_s: float) -> None:
    bench.plan.hello = hello
    opening = bench.loop.create_task(bench.accelerator.open(source(), SIGNATURE))
    bench.loop.live(after_s)
    bench.loop.run(bench.accelerator.close())
    bench.until(opening.done)
    assert bench.accelerator.why == "closed"
    assert bench.accelerator.host_pid is None
    assert all(host.is_reaped for host in bench.standin.hosts)


def test_closing_while_an_ended_host_is_waited_for_waits_for_it_too(bench: Bench) -> None:
    bench.open()
    bench.host.die()
    bench.loop.live(0.0)
    bench.loop.run(bench.accelerator.close())
    assert bench.standin.hosts[-1].is_reaped


def test_closing_does_not_wait_forever_for_a_host_that_is_stuck_in_the_driver(
    bench: Bench,
) -> None:
    bench.open()
    host = bench.host
    never = asyncio.Event()

    async def reap() -> None:
        await never.wait()

    kept, host.reap = host.reap, reap  # type: ignore[method-assign]
    host.die()
    bench.loop.live(1.0)
    bench.loop.run(bench.accelerator.close())
    host.reap = kept  # type: ignore[method-assign]
    bench.loop.run(host.reap())


def test_a_run_is_lost_when_the_device_is_closed(bench: Bench) -> None:
    model = bench.open()
    task = bench.asking(model)
    bench.loop.run(bench.accelerator.close())
    assert isinstance(task.exception(), AcceleratorFault)
    assert model.why == "closed"


def test_a_run_that_a_load_has_delayed_says_nothing_of_the_model_s_pace(bench: Bench) -> None:
    model = bench.open()
    bench.ask(model)
    bench.plan.run = ["hang"]
    task = bench.asking(model)
    bench.plan.load = ["hang"]
    opening = bench.loop.create_task(bench.accelerator.open(source("other"), SIGNATURE))
    bench.until(task.done, 1.0)
    assert isinstance(task.exception(), AcceleratorFault)
    bench.loop.live(5.0)
    bench.hear(*(ended(job, 0, 5 * 10**9) for job in range(100)))
    assert is_whole(model)
    assert model.times.limit_s(1) < 1.0
    bench.until(opening.done, 40.0)


# What hosts say.


@pytest.mark.parametrize(
    "message",
    [
        b"?",
        b"?{}",
        b"D",
        b"D" + b"\xff" * 10,
        b"S",
        b"S\xff\xfe",
        b"S[]",
        b'S"text"',
        b'S{"temperature_c": "hot"}',
        b'S{"temperature_c": 1' + b"0" * 400 + b"}",
        b'S{"throttling_level": []}',
        b"L{}",
        b'L{"model": []}',
        b"H[1]",
        b"L" + b"[" * 60_000,
    ],
    ids=lambda message: message[:12].hex(),
)
def test_a_host_that_makes_no_sense_is_replaced(bench: Bench, message: bytes) -> None:
    model = bench.open()
    task = bench.asking(model)
    bench.hear(message)
    bench.loop.live(0.0)
    assert isinstance(task.exception(), AcceleratorFault)
    assert bench.accelerator.counts.faults == {"garbled": 1}
    bench.until_it_serves()
    bench.ask(model, 2)


@pytest.mark.parametrize(
    "message",
    [
        b"H{}",
        b'L{"model": 99}',
        b'S{"temperature_c": null}',
        b'S{"temperature_c": NaN, "power_w": Infinity}',
        ended(999, 62),
    ],
)
def test_what_a_host_says_out_of_turn_is_passed_over(bench: Bench, message: bytes) -> None:
    model = bench.open()
    bench.hear(message)
    bench.ask(model, 2)
    assert len(bench.standin.hosts) == 1
    assert bench.accelerator.sensors.power_w is None


def test_a_run_that_took_forever_by_the_host_s_clock_does_not_move_the_limit(
    bench: Bench,
) -> None:
    model = bench.open()
    bench.plan.run = ["hang"]
    task = bench.asking(model)
    bench.loop.live(0.01)
    bench.hear(*(ended(job, 0, 2**64 - 1) for job in range(100)))
    bench.until(task.done)
    assert isinstance(task.exception(), AssertionError)  # nothing was computed, of course
    assert model.times.limit_s(1) < 1.0


def test_a_load_that_fails_in_words_that_make_no_sense_is_a_failed_load(bench: Bench) -> None:
    bench.until_it_serves()
    bench.plan.load = ["hang"]
    opening = bench.loop.create_task(bench.accelerator.open(source(), SIGNATURE))
    bench.until(lambda: not bench.plan.load)
    bench.hear(b'L{"model": 1, "error": {}, "status": []}')
    bench.until(opening.done)
    model = opening.result()
    assert model is not None
    bench.until(lambda: not model.why)


# Heat.


def test_a_hot_device_rests_until_it_is_cooler_and_a_warm_one_takes_less(bench: Bench) -> None:
    model = bench.open()
    bench.loop.live(2.0)
    assert model.depth == 2
    for temperature_c, why, depth in [
        (99.0, "", 1),
        (105.5, "it is 106 degrees hot and rests", 1),
        (96.0, "it is 96 degrees hot and rests", 2),
        (94.0, "", 2),
        (104.0, "", 1),
        (None, "", 2),
    ]:
        bench.plan.temperature_c = temperature_c
        bench.loop.live(1.5)
        assert (model.why, model.depth) == (why, depth)
    assert bench.accelerator.sensors.temperature_c is None
