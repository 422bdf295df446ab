"""Who may open the device, across processes, driver versions and families."""

from __future__ import annotations

import signal
from collections.abc import Callable
from typing import Any

import pytest

from load.fake_hailo.device import FakeDevice
from tests.children import exit_status, fork
from tests.load.fake_hailo.rig import Rig, start_child

HOLD = """
import hailo_platform
vdevice = hailo_platform.VDevice()
print("open", flush=True)
input()
"""


def refusal(hailo: Any, **arguments: Any) -> str:
    with pytest.raises(hailo.HailoRTException) as raised:
        hailo.VDevice(**arguments)
    return str(raised.value)


def test_one_process_has_the_device_until_it_dies(device: FakeDevice, hailo: Any) -> None:
    child = start_child(device, HOLD)
    assert child.stdout is not None
    assert child.stdout.readline() == "open\n"
    assert device.is_in_use
    assert "error: 74 " in refusal(hailo)
    assert "error: 73 " in refusal(hailo, device_ids=hailo.Device.scan())
    child.send_signal(signal.SIGKILL)
    child.communicate()
    assert not device.is_in_use
    hailo.VDevice().release()


def test_the_same_process_cannot_open_it_twice(hailo: Any) -> None:
    with hailo.VDevice():
        assert "error: 74 " in refusal(hailo)
    with hailo.VDevice():
        pass


def test_a_device_that_is_dropped_without_release_is_free_again(hailo: Any) -> None:
    vdevice = hailo.VDevice()
    del vdevice
    hailo.VDevice().release()


def test_a_forked_child_can_neither_use_nor_free_its_parents_device(
    device: FakeDevice, hailo: Any, hef: bytes
) -> None:
    vdevice = hailo.VDevice()

    def use() -> None:
        with pytest.raises(hailo.HailoRTException, match="only from the process"):
            vdevice.create_infer_model(hef)
        vdevice.release()

    assert exit_status(fork(use)) == 0
    assert device.is_in_use
    vdevice.release()
    assert not device.is_in_use


def test_control_needs_no_exclusive_access(device: FakeDevice, hailo: Any) -> None:
    with hailo.VDevice() as vdevice:
        (physical,) = vdevice.get_physical_devices()
        assert physical.control.identify().board_name == "Hailo-8"
        assert vdevice.get_physical_devices_ids() == hailo.Device.scan()


@pytest.mark.parametrize(
    ("architecture", "firmware"), [("HAILO8", "4.23.0"), ("HAILO8L", "4.22.0")]
)
def test_identity_says_chip_and_firmware(
    device: FakeDevice, load: Callable[[], Any], architecture: Any, firmware: str
) -> None:
    device.create(architecture=architecture, firmware_version=firmware)
    with load().Device() as control:
        found = control.control.identify()
    assert str(found.device_architecture) == architecture
    assert str(found.firmware_version).startswith(firmware)


def test_after_an_os_update_the_driver_is_of_another_version(
    device: FakeDevice, hailo: Any, rig: Rig
) -> None:
    device.update_driver("4.24.0")
    rig.run()  # what was open before goes on
    rig.close()
    assert "error: 76 (HAILO_INVALID_DRIVER_VERSION)" in refusal(hailo)
    device.heal()
    hailo.VDevice().release()


def test_without_a_kernel_module_nothing_opens(device: FakeDevice, hailo: Any) -> None:
    device.update_driver("")
    assert hailo.Device.scan() == []
    assert "error: 64 " in refusal(hailo)


def test_a_library_of_the_other_family_loads_and_finds_no_driver(
    device: FakeDevice, load: Callable[[], Any]
) -> None:
    device.create(architecture="HAILO10H", library_version="4.23.0")
    hailo = load()
    assert hailo.Device.scan() == []
    assert "error: 64 " in refusal(hailo)


def test_the_vendors_service_is_not_there(hailo: Any) -> None:
    params = hailo.VDevice.create_params()
    params.multi_process_service = True
    assert "error: 77 " in refusal(hailo, params=params)


def test_opening_the_control_channel_raises_what_the_vendor_forgot_to_translate(
    device: FakeDevice, hailo: Any
) -> None:
    (device_id,) = hailo.Device.scan()
    device.vanish()
    untranslated = hailo.pyhailort._pyhailort.HailoRTStatusException
    with pytest.raises(untranslated, match=r"^74$"):
        hailo.Device(device_id)
    assert not issubclass(untranslated, hailo.HailoRTException)
    with pytest.raises(hailo.HailoRTException, match="not found"):
        hailo.Device()
