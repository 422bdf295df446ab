"""What callers use of the binding: devices here, the rest taken together from its neighbours."""

from __future__ import annotations

import gc
import os
from types import TracebackType
from typing import Any, NoReturn

from .._native import hef as hef_format
from .._native.board import Board
from .._native.chip import Chip, VDeviceParams, check_access, open_chip, scan
from .._native.enums import (
    AveragingFactor,
    DeviceArchitectureTypes,
    DvmTypes,
    Endianness,
    FormatOrder,
    FormatType,
    HailoCpuId,
    HailoFormatFlags,
    HailoPowerMode,
    HailoSchedulingAlgorithm,
    HailoStreamDirection,
    HailoStreamInterface,
    MeasurementBufferIndex,
    NotificationId,
    PowerMeasurementTypes,
    SamplingPeriod,
)
from .._native.infer_model import InferModelHandle
from .._native.library import FOLDER, MAJOR, VERSION
from .._native.statuses import Status, failed
from ._control import (
    BoardInformation,
    Control,
    Control4,
    ExtendedDeviceInformation,
    HealthInformation,
    TemperatureInfo,
)
from ._errors import (
    ExceptionWrapper,
    HailoCommunicationClosedException,
    HailoRTDriverOperationFailedException,
    HailoRTEthException,
    HailoRTException,
    HailoRTFirmwareControlFailedException,
    HailoRTHEFNotCompatibleWithDevice,
    HailoRTInvalidArgumentException,
    HailoRTInvalidFrameException,
    HailoRTInvalidHEFException,
    HailoRTInvalidOperationException,
    HailoRTNetworkGroupNotActivatedException,
    HailoRTNotFoundException,
    HailoRTStreamAborted,
    HailoRTStreamAbortedByUser,
    HailoRTTimeout,
    HailoRTUnsupportedOpcodeException,
    HailoStatusInvalidValueException,
    InvalidProtocolVersionException,
    get_status_message,
)
from ._infer import (
    HEF,
    AsyncInferCompletionInfo,
    AsyncInferJob,
    ConfiguredInferModel,
    InferModel,
    VStreamInfo,
)

__all__ = [
    "HEF",
    "AsyncInferCompletionInfo",
    "AsyncInferJob",
    "AveragingFactor",
    "BoardInformation",
    "ConfiguredInferModel",
    "Control",
    "Device",
    "DeviceArchitectureTypes",
    "DvmTypes",
    "Endianness",
    "ExceptionWrapper",
    "ExtendedDeviceInformation",
    "FormatOrder",
    "FormatType",
    "HailoCommunicationClosedException",
    "HailoCpuId",
    "HailoFormatFlags",
    "HailoPowerMode",
    "HailoRTDriverOperationFailedException",
    "HailoRTEthException",
    "HailoRTException",
    "HailoRTFirmwareControlFailedException",
    "HailoRTHEFNotCompatibleWithDevice",
    "HailoRTInvalidArgumentException",
    "HailoRTInvalidFrameException",
    "HailoRTInvalidHEFException",
    "HailoRTInvalidOperationException",
    "HailoRTNetworkGroupNotActivatedException",
    "HailoRTNotFoundException",
    "HailoRTPCIeDriverException",
    "HailoRTStreamAborted",
    "HailoRTStreamAbortedByUser",
    "HailoRTTimeout",
    "HailoRTUnsupportedOpcodeException",
    "HailoSchedulingAlgorithm",
    "HailoStatusInvalidValueException",
    "HailoStreamDirection",
    "HailoStreamInterface",
    "HealthInformation",
    "InferModel",
    "InvalidProtocolVersionException",
    "MeasurementBufferIndex",
    "NotificationId",
    "PowerMeasurementTypes",
    "SamplingPeriod",
    "TemperatureInfo",
    "VDevice",
    "VDeviceParams",
    "VStreamInfo",
    "get_status_message",
]

if MAJOR < 5:
    from ._errors import UdpRecvError

    __all__ += ["UdpRecvError"]

# The old name, which the vendor keeps.
HailoRTPCIeDriverException = HailoRTDriverOperationFailedException


class Device:
    """The control channel to a device; several may be open, also beside a VDevice."""

    @classmethod
    def scan(cls) -> list[str]:
        """Ids of the devices that are there."""
        return scan(FOLDER)

    def __init__(self, device_id: str | None = None) -> None:
        gc.collect()
        self._device: Board | None = None
        if device_id is None:
            found = Device.scan()
            if not found:
                raise HailoRTException("HailoRT device not found in the system")
            device_id = found[0]
        # As in the vendor's class nothing here is translated: a HailoRTStatusException goes out.
        check_access(FOLDER, [device_id])
        self._device_id = device_id
        self._device = Board(FOLDER, device_id)
        self._control_object = (Control if MAJOR >= 5 else Control4)(self._device)

    def __enter__(self) -> Device:
        """Use it within a block."""
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc_value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Release it."""
        self.release()

    def __del__(self) -> None:
        """Release it."""
        self.release()

    def __repr__(self) -> str:
        """With its id."""
        return f"Device({self._device_id!r})"

    def release(self) -> None:
        """Close the channel."""
        if self._device is not None:
            self._device.release()
            self._device = None

    @property
    def device_id(self) -> str:
        """The PCI address."""
        return self._device_id

    @property
    def control(self) -> Control:
        """The control API."""
        return self._control_object


if MAJOR < 5:

    def _read_log(self: Device, count: int, cpu_id: HailoCpuId) -> bytes:
        """The firmware's log; that of the fake is empty."""
        return b""

    Device.read_log = _read_log  # type: ignore[attr-defined]


class VDevice:
    """A device for inference; of the processes that try, one gets it."""

    def __init__(
        self, params: VDeviceParams | None = None, *, device_ids: list[str] | None = None
    ) -> None:
        gc.collect()
        self._vdevice: Chip | None = None
        self._params = VDevice.create_params() if params is None else params
        self._creation_pid = os.getpid()
        with ExceptionWrapper():
            self._vdevice = open_chip(FOLDER, self._params, device_ids or [])

    def __enter__(self) -> VDevice:
        """Use it within a block."""
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc_value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Release it."""
        self.release()

    def __del__(self) -> None:
        """Release it."""
        self.release()

    @staticmethod
    def create_params() -> VDeviceParams:
        """Params with this library's defaults."""
        return VDeviceParams()

    def release(self) -> None:
        """End everything that runs on it, joining the callback threads, and give it back."""
        if self._vdevice is not None:
            self._vdevice.release()
            self._vdevice = None

    def get_physical_devices_ids(self) -> list[str]:
        """The id of the device beneath."""
        return [self._opened.device_id]

    def get_physical_devices(self) -> list[Device]:
        """The control channel of the device beneath."""
        return [Device(device_id) for device_id in self.get_physical_devices_ids()]

    def create_infer_model(self, hef_source: str | bytes, name: str = "") -> InferModel:
        """Read a HEF by its path (str) or from its bytes; any other type is a TypeError."""
        if os.getpid() != self._creation_pid:
            raise HailoRTException(
                "InferModel can be created only from the process VDevice was created in."
            )
        with ExceptionWrapper():
            if type(hef_source) is bytes:
                hef = hef_format.parse(hef_source)
            elif isinstance(hef_source, str):
                hef = hef_format.read_file(hef_source)
            else:
                raise TypeError(
                    "create_infer_model_from_file(): incompatible function arguments: "
                    f"a str, not {type(hef_source).__name__}"
                )
            if name not in ("", hef.network):
                raise failed(Status.NOT_FOUND)
            hef_format.check(hef, self._opened.architecture, VERSION)
            return InferModel(InferModelHandle(self._opened, hef), hef_source)

    def configure(self, hef: HEF, configure_params_by_name: Any = None) -> NoReturn:
        """The older API: 7 on a Hailo-10H, and not in the fake anywhere else."""
        refuse_older_api()

    @property
    def _opened(self) -> Chip:
        if self._vdevice is None:
            raise AttributeError("'NoneType' object has no attribute of an open device")
        return self._vdevice


def refuse_older_api() -> NoReturn:
    """InferVStreams and its kin are not implemented on a Hailo-10H, and not in the fake."""
    if FOLDER.orders().architecture == "HAILO10H":
        with ExceptionWrapper():
            raise failed(Status.NOT_IMPLEMENTED)
    raise NotImplementedError("the fake has only the asynchronous API: create_infer_model")
