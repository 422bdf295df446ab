"""Warming up with work, throttling, and what the control channel says of it."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from load.fake_hailo.device import FakeDevice
from tests.load.fake_hailo.rig import Rig, run_child, status_of


def run_until(rig: Rig, condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline, "it never came"
        rig.run()


@pytest.fixture
def control(rig: Rig) -> Iterator[Any]:
    """The control channel of the opened device."""
    (physical,) = rig.vdevice.get_physical_devices()
    with physical:
        yield physical.control


@pytest.fixture
def quick(device: FakeDevice) -> FakeDevice:
    """A device that follows its surroundings within a tenth of a second."""
    device.create(latency_s=0.005, thermal_s=0.1)
    return device


def test_work_warms_the_chip_and_rest_cools_it(quick: FakeDevice, rig: Rig, control: Any) -> None:
    cold = control.get_chip_temperature()
    assert cold.ts0_temperature == pytest.approx(40.0)
    assert cold.ts1_temperature < cold.ts0_temperature
    run_until(rig, lambda: control.get_chip_temperature().ts0_temperature > 60)
    assert quick.temperature_c > 55
    watts = control.power_measurement()
    assert watts > 1.2
    time.sleep(0.5)
    assert control.get_chip_temperature().ts0_temperature < 45
    assert control.power_measurement() < watts


def test_a_hot_chip_runs_at_a_slower_clock(quick: FakeDevice, rig: Rig, control: Any) -> None:
    health = control._get_health_information()
    assert health.current_temperature_throttling_level == -1
    assert health.requested_temperature_clock_freq == 400_000_000
    quick.set_temperature(130.0)
    run_until(rig, lambda: quick.throttling_level == 3)
    health = control._get_health_information()
    assert health.current_temperature_throttling_level == 3
    assert health.requested_temperature_clock_freq == 200_000_000
    assert health.current_temperature_zone == 2
    begun = time.monotonic()
    for _ in range(10):
        rig.run()
    assert time.monotonic() - begun >= 10 * 0.005 * 2
    quick.set_temperature(20.0)
    run_until(rig, lambda: quick.throttling_level == -1)


def test_the_throttling_state_says_whether_protection_is_on_not_whether_it_acts(
    quick: FakeDevice, rig: Rig, control: Any
) -> None:
    assert control.get_throttling_state() is True
    control.set_throttling_state(False)
    assert control.get_throttling_state() is False
    quick.set_temperature(150.0)
    run_until(rig, lambda: quick.temperature_c > 125)
    assert quick.throttling_level == -1


def test_a_level_is_left_only_below_its_hysteresis(hailo: Any) -> None:
    thermal = hailo._native.thermal
    place = thermal.Place(ambient_c=90.0, time_constant_s=1.0)
    warm = thermal.Heat(104.5)
    hot = thermal.after(warm, 0.0, place, works=False, protected=True)
    assert (hot.level, hot.clock_hz) == (0, 350_000_000)
    between = thermal.after(thermal.Heat(103.0, level=0), 0.0, place, works=True, protected=True)
    assert between.level == 0
    assert thermal.after(thermal.Heat(103.0), 0.0, place, works=True, protected=True).level == -1
    cool = thermal.after(thermal.Heat(101.9, level=0), 0.0, place, works=True, protected=True)
    assert cool.level == -1


def test_warming_in_two_steps_is_warming_in_one(hailo: Any) -> None:
    thermal = hailo._native.thermal
    place = thermal.Place(ambient_c=25.0, time_constant_s=30.0)
    start = thermal.at_rest(25.0)
    one = thermal.after(start, 10.0, place, works=True, protected=True)
    two = thermal.after(start, 4.0, place, works=True, protected=True)
    two = thermal.after(two, 6.0, place, works=True, protected=True)
    assert two.temperature_c == pytest.approx(one.temperature_c)
    assert two.load == pytest.approx(one.load)


def test_a_change_of_clock_is_notified_on_another_thread(
    quick: FakeDevice, rig: Rig, control: Any
) -> None:
    seen: list[Any] = []
    control.set_notification_callback(
        lambda device, notification, opaque: seen.append((notification, opaque)),
        rig.errors.NotificationId.HEALTH_MONITOR_CLOCK_CHANGED_EVENT,
        "mine",
    )
    quick.set_temperature(140.0)
    run_until(rig, lambda: bool(seen))
    notification, opaque = seen[0]
    assert opaque == "mine"
    assert notification.previous_clock == 400
    assert notification.current_clock < 400


@pytest.mark.usefixtures("child_hef")
def test_a_raising_notification_callback_aborts_the_process(device: FakeDevice) -> None:
    device.set_temperature(120.0)
    code, _, errors = run_child(
        device,
        """
from tests.load.fake_hailo.rig import Rig
def callback(device, notification, opaque):
    raise ValueError("forgotten")
with Rig.of_child() as rig:
    (physical,) = rig.vdevice.get_physical_devices()
    alarm = rig.errors.NotificationId.HEALTH_MONITOR_CLOCK_CHANGED_EVENT
    physical.control.set_notification_callback(callback, alarm, None)
    for _ in range(10_000):
        rig.run()
""",
    )
    assert code == -signal.SIGABRT
    assert "ValueError: forgotten" in errors


def test_boards_without_a_sensor_measure_no_power(
    device: FakeDevice, load: Callable[[], Any]
) -> None:
    device.create(power_sensor=False)
    hailo = load()
    with hailo.Device() as found:
        features = found.control.get_extended_device_information().supported_features
        assert not features.current_monitoring
        with pytest.raises(hailo.HailoRTException) as raised:
            found.control.power_measurement()
    assert status_of(raised.value) == 18


def test_a_series_of_power_measurements_counts_its_samples(hailo: Any) -> None:
    with hailo.Device() as found:
        with pytest.raises(hailo.HailoRTException):
            found.control.get_power_measurement()
        found.control.set_power_measurement()
        found.control.start_power_measurement()
        time.sleep(0.02)
        measured = found.control.get_power_measurement()
        assert measured.total_number_of_samples >= 5
        assert measured.average_value == pytest.approx(1.0)


def test_a_released_control_channel_is_of_no_use(hailo: Any) -> None:
    found = hailo.Device()
    control = found.control
    found.release()
    with pytest.raises(hailo.HailoRTException, match="released"):
        control.identify()
    with pytest.raises(hailo.HailoRTException, match="released"):
        hailo.Device().control.identify()  # nobody holds the device any more
