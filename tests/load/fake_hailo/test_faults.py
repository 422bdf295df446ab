"""Faults on command: what fails, what else fails with it, and what ends it."""

from __future__ import annotations

import importlib
import signal
import threading
import time
from typing import Any

import pytest

from load.fake_hailo.device import MARKER, FakeDevice
from tests.load.fake_hailo.rig import Rig, run_child, status_of, until


def is_marked(frame: Any) -> bool:
    return all(bool((output == MARKER).all()) for output in frame.outputs.values())


def test_driver_and_commander_mean_the_same_marker(hailo: Any) -> None:
    assert importlib.import_module("hailo_platform._native.pipeline").MARKER == MARKER


def test_a_frame_takes_its_time(device: FakeDevice, rig: Rig) -> None:
    begun = time.monotonic()
    for _ in range(20):
        rig.run()
    assert time.monotonic() - begun >= 20 * 0.001
    device.slow(100)
    begun = time.monotonic()
    rig.run()
    assert time.monotonic() - begun >= 0.1
    assert device.frames == 21


@pytest.mark.parametrize("status", [4, 8, 36, 62, 63, 76, 87])
def test_an_error_in_a_running_job_breaks_the_device_until_it_is_opened_anew(
    device: FakeDevice, hailo: Any, hef: bytes, status: int
) -> None:
    with Rig(hailo, hef) as rig:
        rig.run()
        device.fail(status)
        frame = rig.frame(1)
        with pytest.raises(rig.errors.HailoRTException) as raised:
            rig.configured.run([frame.bindings], 5000)
        assert status_of(raised.value) == status
        assert is_marked(frame)
        for again in (rig.run, rig.model.configure, rig.configured.wait_for_async_ready):
            with pytest.raises(rig.errors.HailoRTException) as raised:
                again()
            assert status_of(raised.value) == status
    with Rig(hailo, hef) as rig:
        assert rig.run(5).tolist() == [[[5, 5, 5, 5]]]


def test_a_failure_in_the_middle_of_a_batch_fails_and_marks_all_of_it(
    device: FakeDevice, hailo: Any, hef: bytes
) -> None:
    device.create(queue_size=8)
    with Rig(hailo, hef) as rig:
        device.fail(87, after_frames=3)
        frames = [rig.frame(code) for code in range(1, 7)]
        with pytest.raises(rig.errors.HailoRTException, match="HAILO_DRIVER_TIMEOUT"):
            rig.configured.run([frame.bindings for frame in frames], 5000)
    assert device.frames == 3
    assert all(is_marked(frame) for frame in frames)


def test_jobs_behind_a_failed_one_are_aborted(device: FakeDevice, hailo: Any, hef: bytes) -> None:
    device.create(queue_size=3)
    device.slow(100)
    seen: list[Any] = []
    with Rig(hailo, hef) as rig:
        device.fail(87, after_frames=1)
        frames = [rig.frame(code) for code in (1, 2, 3)]
        for frame in frames:
            rig.configured.run_async(
                [frame.bindings], lambda completion_info: seen.append(completion_info.exception)
            )
        until(lambda: len(seen) == 3)
    assert seen[0] is None
    assert "87 (HAILO_DRIVER_TIMEOUT)" in str(seen[1])
    assert isinstance(seen[2], rig.errors.HailoRTStreamAborted)
    assert [is_marked(frame) for frame in frames] == [False, True, True]


@pytest.mark.parametrize("status", [2, 6, 61, 81, 82])
def test_a_refusal_on_command_breaks_nothing(device: FakeDevice, rig: Rig, status: int) -> None:
    device.fail(status, after_frames=1)
    rig.run()
    with pytest.raises(rig.errors.HailoRTException) as raised:
        rig.configured.run_async([rig.frame().bindings])
    assert status_of(raised.value) == status
    assert rig.run(2).tolist() == [[[2, 2, 2, 2]]]


def test_a_bad_frame_fails_its_job_and_nothing_else(device: FakeDevice, rig: Rig) -> None:
    device.fail(25)
    frame = rig.frame(1)
    with pytest.raises(rig.errors.HailoRTInvalidFrameException):
        rig.configured.run([frame.bindings], 5000)
    assert is_marked(frame)
    rig.run()


def test_a_device_that_vanishes_at_a_frame_is_gone_until_it_is_put_back(
    device: FakeDevice, hailo: Any, hef: bytes
) -> None:
    rig = Rig(hailo, hef)
    device.vanish(after_frames=2)
    rig.run()
    rig.run()
    assert hailo.Device.scan()
    frame = rig.frame()
    with pytest.raises(rig.errors.HailoCommunicationClosedException):
        rig.configured.run([frame.bindings], 5000)
    assert is_marked(frame)
    assert hailo.Device.scan() == []
    rig.close()
    with pytest.raises(hailo.HailoRTException, match="74 "):
        hailo.VDevice()
    device.put_back()
    with Rig(hailo, hef) as rig:
        rig.run()


def test_a_device_that_vanishes_fails_the_frame_that_runs(device: FakeDevice, rig: Rig) -> None:
    device.slow(10_000)
    jobs = [rig.configured.run_async([rig.frame().bindings]) for _ in range(2)]
    device.vanish()
    with pytest.raises(rig.errors.HailoCommunicationClosedException):
        jobs[0].wait(5000)
    with pytest.raises(rig.errors.HailoRTStreamAborted):
        jobs[1].wait(5000)


def test_a_replugged_device_has_to_be_opened_anew(device: FakeDevice, hailo: Any, rig: Rig) -> None:
    control = hailo.Device()
    device.vanish()
    device.put_back()
    with pytest.raises(rig.errors.HailoCommunicationClosedException):
        rig.run()
    with pytest.raises(rig.errors.HailoRTDriverOperationFailedException) as raised:
        control.control.get_chip_temperature()
    assert status_of(raised.value) == 36


def test_a_hung_device_completes_nothing_until_it_is_healed(device: FakeDevice, rig: Rig) -> None:
    device.hang(after_frames=1)
    rig.run()
    frame = rig.frame(8)
    job = rig.configured.run_async([frame.bindings])
    with pytest.raises(rig.errors.HailoRTTimeout):
        job.wait(100)
    assert not frame.output.any()
    device.heal()
    job.wait(5000)
    assert frame.output.tolist() == [[[8, 8, 8, 8]]]


def test_a_hang_that_opening_anew_cures(device: FakeDevice, hailo: Any, hef: bytes) -> None:
    device.hang(until="reopened")
    with Rig(hailo, hef) as rig:  # this opening came after the hang, and cured it
        rig.run()
        device.hang(until="reopened")
        job = rig.configured.run_async([rig.frame().bindings])
        with pytest.raises(rig.errors.HailoRTTimeout):
            job.wait(50)
    with Rig(hailo, hef) as rig:
        rig.run()


def test_a_hang_that_only_a_reset_cures(device: FakeDevice, hailo: Any, hef: bytes) -> None:
    device.hang(until="reset")
    with Rig(hailo, hef) as rig:
        job = rig.configured.run_async([rig.frame().bindings])
        with pytest.raises(rig.errors.HailoRTTimeout):
            job.wait(50)
        with hailo.Device() as control:
            control.control.chip_reset()
        with pytest.raises(rig.errors.HailoCommunicationClosedException):
            job.wait(5000)
    with Rig(hailo, hef) as rig:
        rig.run()
    assert device.resets == 1


def test_a_hang_may_block_closing_too(device: FakeDevice, hailo: Any, hef: bytes) -> None:
    rig = Rig(hailo, hef)
    device.hang(blocks_release=True)
    job = rig.configured.run_async([rig.frame().bindings])
    with pytest.raises(rig.errors.HailoRTTimeout):
        job.wait(50)
    closer = threading.Thread(target=rig.close)
    closer.start()
    closer.join(0.15)
    assert closer.is_alive()
    device.heal()
    closer.join(10)
    assert not closer.is_alive()


@pytest.mark.usefixtures("child_hef")
def test_a_segmentation_fault_kills_the_process_once(device: FakeDevice) -> None:
    device.segfault(after_frames=2)
    program = """
from tests.load.fake_hailo.rig import Rig
with Rig.of_child() as rig:
    for code in range(5):
        print(rig.run(code)[0, 0, 0], flush=True)
"""
    code, output, _ = run_child(device, program)
    assert code == -signal.SIGSEGV
    assert output.split() == ["0", "1"]
    assert device.frames == 2
    assert not device.is_in_use
    code, output, _ = run_child(device, program)
    assert code == 0
    assert output.split() == ["0", "1", "2", "3", "4"]
    assert device.frames == 7


def test_healing_ends_everything_that_was_commanded(
    device: FakeDevice, hailo: Any, hef: bytes
) -> None:
    device.fail(87)
    device.segfault()
    device.hang()
    device.vanish()
    device.refuse_open(77)
    device.update_driver("4.1.0")
    device.remove_library()
    device.slow(1e6)
    device.heal()
    with Rig(hailo, hef) as rig:
        assert rig.run(1).tolist() == [[[1, 1, 1, 1]]]
