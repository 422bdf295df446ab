"""Names, signatures, statuses and defaults of the two flavours, as the vendor publishes them."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from load.fake_hailo.device import FakeDevice
from tests.load.fake_hailo.rig import Rig, status_of

MAPPED = {
    2: "HailoRTInvalidArgumentException",
    4: "HailoRTTimeout",
    6: "HailoRTInvalidOperationException",
    15: "InvalidProtocolVersionException",
    18: "HailoRTFirmwareControlFailedException",
    25: "HailoRTInvalidFrameException",
    26: "HailoRTInvalidHEFException",
    36: "HailoRTDriverOperationFailedException",
    48: "HailoRTUnsupportedOpcodeException",
    61: "HailoRTNotFoundException",
    62: "HailoCommunicationClosedException",
    63: "HailoRTStreamAborted",
    69: "HailoRTNetworkGroupNotActivatedException",
    93: "HailoRTHEFNotCompatibleWithDevice",
}
UNMAPPED = {
    8: "INTERNAL_FAILURE",
    64: "DRIVER_NOT_INSTALLED",
    73: "DEVICE_IN_USE",
    74: "OUT_OF_PHYSICAL_DEVICES",
    76: "INVALID_DRIVER_VERSION",
    77: "RPC_FAILED",
    78: "INVALID_SERVICE_VERSION",
    81: "OUT_OF_HOST_CMA_MEMORY",
    82: "QUEUE_IS_FULL",
    85: "DRIVER_INVALID_RESPONSE",
    86: "DRIVER_INVALID_IOCTL",
    87: "DRIVER_TIMEOUT",
    88: "DRIVER_INTERRUPTED",
    91: "HEF_FILE_CORRUPTED",
    92: "HEF_NOT_SUPPORTED",
}
SIGNATURES = {
    "VDevice.__init__": "(self, params=None, *, device_ids=None)",
    "VDevice.create_params": "()",
    "VDevice.release": "(self)",
    "VDevice.create_infer_model": "(self, hef_source, name='')",
    "VDevice.get_physical_devices": "(self)",
    "VDevice.get_physical_devices_ids": "(self)",
    "InferModel.input": "(self, name='')",
    "InferModel.output": "(self, name='')",
    "InferModel.set_batch_size": "(self, batch_size)",
    "InferModel.set_power_mode": "(self, power_mode)",
    "InferModel.configure": "(self)",
    "InferModel.InferStream.set_format_type": "(self, type)",
    "InferModel.InferStream.set_format_order": "(self, order)",
    "InferModel.InferStream.set_nms_score_threshold": "(self, threshold)",
    "ConfiguredInferModel.activate": "(self)",
    "ConfiguredInferModel.deactivate": "(self)",
    "ConfiguredInferModel.create_bindings": "(self, input_buffers=None, output_buffers=None)",
    "ConfiguredInferModel.wait_for_async_ready": "(self, timeout_ms=1000, frames_count=1)",
    "ConfiguredInferModel.run": "(self, bindings, timeout)",
    "ConfiguredInferModel.run_async": "(self, bindings, callback=None)",
    "ConfiguredInferModel.set_scheduler_timeout": "(self, timeout_ms)",
    "ConfiguredInferModel.set_scheduler_threshold": "(self, threshold)",
    "ConfiguredInferModel.set_scheduler_priority": "(self, priority)",
    "ConfiguredInferModel.get_async_queue_size": "(self)",
    "ConfiguredInferModel.shutdown": "(self)",
    "ConfiguredInferModel.Bindings.input": "(self, name='')",
    "ConfiguredInferModel.Bindings.output": "(self, name='')",
    "ConfiguredInferModel.Bindings.InferStream.set_buffer": "(self, buffer)",
    "ConfiguredInferModel.Bindings.InferStream.get_buffer": "(self, tf_format=False)",
    "AsyncInferJob.wait": "(self, timeout_ms)",
    "Device.scan": "()",
    "Device.__init__": "(self, device_id=None)",
    "Control.identify": "(self)",
    "Control.get_chip_temperature": "(self)",
    "Control.get_throttling_state": "(self)",
    "Control.get_extended_device_information": "(self)",
    "Control.chip_reset": "(self)",
    "Control.set_notification_callback": "(self, callback_func, notification_id, opaque)",
}


def binding(hailo: Any) -> Any:
    return hailo.pyhailort.pyhailort


def create_10h(device: FakeDevice) -> None:
    device.create(architecture="HAILO10H")


def bare(function: Callable[..., object]) -> str:
    signature = inspect.signature(function)
    parameters = [p.replace(annotation=p.empty) for p in signature.parameters.values()]
    return str(signature.replace(parameters=parameters, return_annotation=signature.empty))


@pytest.mark.parametrize("name", SIGNATURES)
def test_every_call_has_the_vendors_signature(hailo: Any, name: str) -> None:
    found: Any = binding(hailo)
    for part in name.split("."):
        found = getattr(found, part)
    assert bare(found) == SIGNATURES[name]


@pytest.mark.parametrize("status", MAPPED)
def test_a_mapped_status_is_a_class_and_its_number_is_in_the_cause(
    device: FakeDevice, hailo: Any, status: int
) -> None:
    device.refuse_open(status)
    with pytest.raises(hailo.HailoRTException) as raised:
        hailo.VDevice()
    assert type(raised.value) is getattr(binding(hailo), MAPPED[status])
    assert type(raised.value).__module__ == "hailo_platform.pyhailort.pyhailort"
    assert status_of(raised.value) == status
    assert str(status) not in str(raised.value)


@pytest.mark.parametrize("status", UNMAPPED)
def test_another_status_is_the_base_class_and_says_its_number(
    device: FakeDevice, hailo: Any, status: int
) -> None:
    device.refuse_open(status)
    with pytest.raises(hailo.HailoRTException) as raised:
        hailo.VDevice()
    assert type(raised.value) is hailo.HailoRTException
    expected = f"libhailort failed with error: {status} (HAILO_{UNMAPPED[status]})"
    assert str(raised.value) == expected


def test_only_three_errors_are_exported_at_the_top(hailo: Any) -> None:
    exported = [getattr(hailo, name) for name in hailo.__all__]
    errors = {e.__name__ for e in exported if isinstance(e, type) and issubclass(e, Exception)}
    assert errors == {
        "HailoRTException",
        "HailoRTStreamAbortedByUser",
        "HailoCommunicationClosedException",
    }


def test_line_4_opens_without_a_scheduler_and_line_5_with_one(
    device: FakeDevice, load: Callable[[], Any]
) -> None:
    hailo = load()
    assert hailo.__version__ == "4.23.0"
    algorithms = hailo.HailoSchedulingAlgorithm
    assert hailo.VDevice.create_params().scheduling_algorithm == algorithms.NONE
    create_10h(device)
    hailo = load()
    assert hailo.__version__ == "5.2.0"
    algorithms = hailo.HailoSchedulingAlgorithm
    assert hailo.VDevice.create_params().scheduling_algorithm == algorithms.ROUND_ROBIN


def test_line_5_has_lost_the_classes_of_line_4(device: FakeDevice, load: Callable[[], Any]) -> None:
    hailo = load()
    gone = ["PcieDevice", "EthernetDevice", "UDPRateLimiter"]
    assert all(hasattr(hailo, name) and name in hailo.__all__ for name in gone)
    with hailo.Device() as control:
        assert control.read_log(10, hailo.HailoCpuId.CPU0) == b""
        assert hasattr(control.control, "i2c_read")
    create_10h(device)
    hailo = load()
    assert not any(hasattr(hailo, name) or name in hailo.__all__ for name in gone)
    with hailo.Device() as control:
        assert not hasattr(control, "read_log")
        assert not hasattr(control.control, "i2c_read")


def test_line_4_does_not_know_the_statuses_of_line_5(
    device: FakeDevice, load: Callable[[], Any]
) -> None:
    hailo = load()
    device.refuse_open(96)
    with pytest.raises(binding(hailo).HailoStatusInvalidValueException):
        hailo.VDevice()
    create_10h(device)
    device.refuse_open(96)
    hailo = load()
    with pytest.raises(hailo.HailoRTException, match=r"96 \(HAILO_DEVICE_NOT_CONNECTED\)"):
        hailo.VDevice()


def test_ids_as_an_argument_drop_the_params(hailo: Any, hef: bytes) -> None:
    params = hailo.VDevice.create_params()
    params.scheduling_algorithm = hailo.HailoSchedulingAlgorithm.ROUND_ROBIN
    with hailo.VDevice(params, device_ids=hailo.Device.scan()) as vdevice:
        model = vdevice.create_infer_model(hef)
        with model.configure() as configured:
            configured.activate()  # would be refused if the scheduler had been kept


def test_ids_in_the_params_keep_the_params(hailo: Any, hef: bytes) -> None:
    params = hailo.VDevice.create_params()
    params.scheduling_algorithm = hailo.HailoSchedulingAlgorithm.ROUND_ROBIN
    params.device_ids = hailo.Device.scan()
    with hailo.VDevice(params) as vdevice:
        model = vdevice.create_infer_model(hef)
        with (
            model.configure() as configured,
            pytest.raises(binding(hailo).HailoRTInvalidOperationException),
        ):
            configured.activate()


def test_ids_in_both_places_are_refused(hailo: Any) -> None:
    params = hailo.VDevice.create_params()
    params.device_ids = hailo.Device.scan()
    with pytest.raises(binding(hailo).HailoRTInvalidOperationException) as raised:
        hailo.VDevice(params, device_ids=hailo.Device.scan())
    assert status_of(raised.value) == 6


def test_without_a_scheduler_a_network_runs_only_while_it_is_activated(
    hailo: Any, hef: bytes
) -> None:
    with hailo.VDevice() as vdevice:
        model = vdevice.create_infer_model(hef)
        with model.configure() as configured:
            bindings = configured.create_bindings()
            for port in (bindings.input(), bindings.output()):
                port.set_buffer(np.zeros((1, 1, 4), np.uint8))
            with pytest.raises(binding(hailo).HailoRTNetworkGroupNotActivatedException):
                configured.run([bindings], 1000)
            configured.activate()
            configured.run([bindings], 1000)
            configured.deactivate()
            with pytest.raises(binding(hailo).HailoRTInvalidOperationException):
                configured.set_scheduler_timeout(10)


def test_with_a_scheduler_its_options_are_taken(rig: Rig) -> None:
    rig.configured.set_scheduler_timeout(10)
    rig.configured.set_scheduler_threshold(2)
    rig.configured.set_scheduler_priority(17)


def test_the_older_api_is_not_implemented_on_a_hailo_10h(
    device: FakeDevice, load: Callable[[], Any]
) -> None:
    create_10h(device)
    hailo = load()
    with pytest.raises(hailo.HailoRTException, match=r"7 \(HAILO_NOT_IMPLEMENTED\)"):
        hailo.InferVStreams(None, {}, {})


def test_a_missing_shared_library_fails_the_import(
    device: FakeDevice, load: Callable[[], Any]
) -> None:
    device.remove_library()
    with pytest.raises(ImportError, match=r"libhailort\.so\.4\.23\.0: cannot open shared object"):
        load()


def test_a_compiled_module_of_another_version_fails_the_import(
    device: FakeDevice, load: Callable[[], Any]
) -> None:
    device.mismatch_binding("4.22.0")
    with pytest.raises(ImportError, match=r"4\.22\.0.* does not match .*4\.23\.0"):
        load()


def test_the_library_without_any_device_imports_and_finds_none(
    load: Callable[[], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("FAKE_HAILO_DIR")
    hailo = load()
    assert hailo.Device.scan() == []
    with pytest.raises(hailo.HailoRTException, match="74 "):
        hailo.VDevice()
