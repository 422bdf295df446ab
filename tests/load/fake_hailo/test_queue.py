"""The queue, the foreign callback thread, timeouts, and what destroying joins."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from load.fake_hailo.device import FakeDevice
from tests.load.fake_hailo.rig import Rig, run_child, status_of, until


def test_a_full_queue_refuses_and_goes_on(device: FakeDevice, rig: Rig) -> None:
    device.slow(50)
    assert rig.configured.get_async_queue_size() == 2
    frames = [rig.frame(code) for code in (1, 2, 3)]
    jobs = [rig.configured.run_async([frame.bindings]) for frame in frames[:2]]
    with pytest.raises(rig.errors.HailoRTException, match=r"82 \(HAILO_QUEUE_IS_FULL\)"):
        rig.configured.run_async([frames[2].bindings])
    rig.configured.wait_for_async_ready(5000, 1)
    jobs.append(rig.configured.run_async([frames[2].bindings]))
    for job in jobs:
        job.wait(5000)
    assert [frame.output[0, 0, 0] for frame in frames] == [1, 2, 3]


def test_a_batch_counts_by_its_frames(device: FakeDevice, rig: Rig) -> None:
    with pytest.raises(rig.errors.HailoRTException, match="82 "):
        rig.configured.run_async([rig.frame().bindings for _ in range(3)])
    frames = [rig.frame(code) for code in (7, 8)]
    rig.configured.run([frame.bindings for frame in frames], 5000)
    assert [frame.output[0, 0, 0] for frame in frames] == [7, 8]


def test_a_batch_may_take_less_than_its_frames_one_by_one(
    device: FakeDevice, hailo: Any, hef: bytes
) -> None:
    device.create(latency_s=0.05, further_s=0.001, queue_size=16)
    with Rig(hailo, hef) as rig:
        begun = time.monotonic()
        rig.configured.run([rig.frame().bindings for _ in range(16)], 5000)
        together_s = time.monotonic() - begun
        begun = time.monotonic()
        for _ in range(16):
            rig.run()
        assert 0.05 + 15 * 0.001 <= together_s < time.monotonic() - begun


def test_waiting_for_more_room_than_there_is_times_out(rig: Rig) -> None:
    rig.configured.wait_for_async_ready(0, 2)
    begun = time.monotonic()
    with pytest.raises(rig.errors.HailoRTTimeout):
        rig.configured.wait_for_async_ready(timeout_ms=60, frames_count=3)
    assert time.monotonic() - begun >= 0.06


def test_callbacks_come_in_order_on_one_foreign_thread(device: FakeDevice, rig: Rig) -> None:
    seen: list[tuple[int, int, str, Any]] = []

    def callback_of(number: int) -> Callable[..., None]:
        def callback(completion_info: Any) -> None:
            thread = threading.current_thread()
            seen.append((number, thread.native_id or 0, type(thread).__name__, completion_info))

        return callback

    for number in range(12):
        rig.configured.wait_for_async_ready(5000)
        job = rig.configured.run_async([rig.frame().bindings], callback_of(number))
    job.wait(5000)
    assert [number for number, *_ in seen] == list(range(12))
    assert len({thread for _, thread, *_ in seen}) == 1
    assert seen[0][1] != threading.get_native_id()
    assert {kind for _, _, kind, _ in seen} == {"_DummyThread"}  # not made by `threading`
    assert all(info.exception is None for *_, info in seen)


@pytest.mark.usefixtures("child_hef")
def test_a_raising_callback_aborts_the_process(device: FakeDevice) -> None:
    code, output, errors = run_child(
        device,
        """
from tests.load.fake_hailo.rig import Rig
rig = Rig.of_child()
def callback(completion_info):
    raise ValueError("forgotten")
try:
    rig.configured.run_async([rig.frame().bindings], callback).wait(10000)
finally:
    print("survived")
""",
    )
    assert code == -signal.SIGABRT
    assert "survived" not in output
    assert "ValueError: forgotten" in errors


def test_an_array_is_written_after_its_wait_timed_out(device: FakeDevice, rig: Rig) -> None:
    device.slow(200)
    frame = rig.frame(9)
    job = rig.configured.run_async([frame.bindings])
    with pytest.raises(rig.errors.HailoRTTimeout) as raised:
        job.wait(10)
    assert status_of(raised.value) == 4
    assert not frame.output.any()
    until(lambda: bool(frame.output.all()))
    assert frame.output.tolist() == [[[9, 9, 9, 9]]]
    job.wait(5000)


def test_a_wait_lasts_up_to_twice_its_timeout(device: FakeDevice, rig: Rig) -> None:
    device.slow(200)  # the job takes 0.2 s, and its callback does not return
    go_on = threading.Event()

    def callback(completion_info: Any) -> None:
        go_on.wait(10)

    job = rig.configured.run_async([rig.frame().bindings], callback)
    begun = time.monotonic()
    with pytest.raises(rig.errors.HailoRTTimeout):
        job.wait(300)
    waited = time.monotonic() - begun
    go_on.set()
    assert waited >= 0.45
    job.wait(5000)


@pytest.mark.parametrize("way", ["exit", "release"])
def test_destroying_waits_for_a_stuck_callback(rig: Rig, way: str) -> None:
    go_on, entered = threading.Event(), threading.Event()

    def callback(completion_info: Any) -> None:
        entered.set()
        go_on.wait(10)

    def destroy() -> None:
        if way == "exit":
            rig.configured.__exit__(None, None, None)
        else:
            rig.vdevice.release()

    rig.configured.run_async([rig.frame().bindings], callback)
    assert entered.wait(10)
    destroyer = threading.Thread(target=destroy)
    destroyer.start()
    destroyer.join(0.15)
    assert destroyer.is_alive()
    go_on.set()
    destroyer.join(10)
    assert not destroyer.is_alive()


@pytest.mark.usefixtures("child_hef")
def test_a_model_that_is_dropped_before_its_callback_ends_takes_the_process_with_it(
    device: FakeDevice,
) -> None:
    # The job holds the model; after the callback it is destroyed on the thread that it joins.
    code, output, errors = run_child(
        device,
        """
import threading
from tests.load.fake_hailo.rig import Rig
rig = Rig.of_child()
go_on = threading.Event()
job = rig.configured.run_async([rig.frame().bindings], lambda completion_info: go_on.wait(10))
del rig.configured, job
go_on.set()
threading.Event().wait(10)
print("survived")
""",
    )
    assert code == -signal.SIGABRT, errors
    assert "survived" not in output


def test_destroying_aborts_what_is_queued_and_calls_back(device: FakeDevice, rig: Rig) -> None:
    device.slow(1000)
    seen: list[Any] = []
    frames = [rig.frame(1), rig.frame(1)]
    for frame in frames:
        rig.configured.run_async(
            [frame.bindings], lambda completion_info: seen.append(completion_info.exception)
        )
    rig.configured.__exit__(None, None, None)
    assert [type(error) for error in seen] == [rig.errors.HailoRTStreamAborted] * 2
    assert all(error.__cause__ is None for error in seen)
    assert all((frame.output == 0xA5).all() for frame in frames)
    with pytest.raises(AttributeError):
        rig.configured.run_async([frames[0].bindings])


def test_after_shutdown_nothing_is_written_and_nothing_runs(device: FakeDevice, rig: Rig) -> None:
    device.slow(1000)
    frame = rig.frame(1)
    job = rig.configured.run_async([frame.bindings])
    rig.configured.shutdown()
    with pytest.raises(rig.errors.HailoRTStreamAborted):
        job.wait(0)
    frame.output[:] = 1
    with pytest.raises(rig.errors.HailoRTStreamAborted):
        rig.configured.run_async([frame.bindings])
    time.sleep(0.05)
    assert (frame.output == 1).all()


def test_two_networks_share_the_device(hailo: Any, rig: Rig, hef: bytes) -> None:
    second = rig.vdevice.create_infer_model(hef).configure()
    frame = rig.frame(4)
    with second:
        bindings = second.create_bindings()
        bindings.input().set_buffer(np.full((1, 1, 4), 5, np.uint8))
        bindings.output().set_buffer(np.zeros((1, 1, 4), np.uint8))
        jobs = [rig.configured.run_async([frame.bindings]), second.run_async([bindings])]
        for job in jobs:
            job.wait(5000)
        assert bindings.output().get_buffer().tolist() == [[[5, 5, 5, 5]]]
    assert frame.output.tolist() == [[[4, 4, 4, 4]]]


def test_closing_one_network_in_the_middle_of_a_job_leaves_the_other_alone(
    device: FakeDevice, rig: Rig
) -> None:
    second = rig.model.configure()
    device.slow(100)
    job = rig.configured.run_async([rig.frame(4).bindings])
    rig.configured.__exit__(None, None, None)
    with pytest.raises(rig.errors.HailoRTStreamAborted):
        job.wait(0)
    rig.configured = second
    assert rig.run(5).tolist() == [[[5, 5, 5, 5]]]


@pytest.mark.usefixtures("child_hef")
def test_a_program_that_forgets_to_release_still_ends(device: FakeDevice) -> None:
    code, output, _ = run_child(
        device,
        """
from tests.load.fake_hailo.rig import Rig
rig = Rig.of_child()
print(rig.run(6).tolist())
""",
    )
    assert (code, output) == (0, "[[[6, 6, 6, 6]]]\n")
    assert not device.is_in_use
