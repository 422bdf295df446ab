"""Exceptions of the Python layer, and the table from status numbers to them.

    Exception
     +-- HailoStatusInvalidValueException            a number that this library does not know
     +-- HailoRTException                            every status that has no class of its own
          +-- HailoRTTimeout                              4
          +-- HailoRTInvalidArgumentException             2
          +-- HailoRTInvalidOperationException            6
          +-- InvalidProtocolVersionException            15
          +-- HailoRTFirmwareControlFailedException      18
          +-- HailoRTEthException                        19
          +-- UdpRecvError                               21, 4.x only
          +-- HailoRTInvalidFrameException               25
          +-- HailoRTInvalidHEFException                 26
          +-- HailoRTDriverOperationFailedException      36
          +-- HailoRTUnsupportedOpcodeException          48
          +-- HailoRTNotFoundException                   61
          +-- HailoCommunicationClosedException          62
          +-- HailoRTStreamAborted                       63
          +-- HailoRTStreamAbortedByUser                 exported, never raised
          +-- HailoRTNetworkGroupNotActivatedException   69
          +-- HailoRTHEFNotCompatibleWithDevice          93

A mapped class does not say its number; it is in `__cause__.args[0]`, and only when a call
raised it. The others say `libhailort failed with error: N (NAME)`.
"""

from __future__ import annotations

from types import TracebackType

from .._native.library import MAJOR
from .._native.statuses import Status, status_of
from . import _pyhailort
from ._pyhailort import HailoRTStatusException


class HailoRTException(Exception):
    """Base of what the Python layer raises, and the class of statuses without their own."""


class InvalidProtocolVersionException(HailoRTException):
    """Status 15."""


class HailoRTFirmwareControlFailedException(HailoRTException):
    """Status 18."""


class HailoRTInvalidFrameException(HailoRTException):
    """Status 25."""


class HailoRTUnsupportedOpcodeException(HailoRTException):
    """Status 48."""


class HailoRTTimeout(HailoRTException):
    """Status 4."""


class HailoRTStreamAborted(HailoRTException):
    """Status 63."""


class HailoRTStreamAbortedByUser(HailoRTException):
    """No status any more; kept for callers that catch it."""


class HailoRTInvalidOperationException(HailoRTException):
    """Status 6."""


class HailoRTInvalidArgumentException(HailoRTException):
    """Status 2."""


class HailoRTNotFoundException(HailoRTException):
    """Status 61."""


class HailoRTInvalidHEFException(HailoRTException):
    """Status 26."""


class HailoRTHEFNotCompatibleWithDevice(HailoRTException):
    """Status 93."""


class HailoRTEthException(HailoRTException):
    """Status 19."""


class HailoRTDriverOperationFailedException(HailoRTException):
    """Status 36."""


class HailoRTNetworkGroupNotActivatedException(HailoRTException):
    """Status 69."""


class HailoCommunicationClosedException(HailoRTException):
    """Status 62."""


class UdpRecvError(HailoRTException):
    """Status 21, in 4.x."""


class HailoStatusInvalidValueException(Exception):
    """A status number that this library does not know."""


_SEE_LOG = "See hailort.log for more information"
_CLASSES: dict[int, tuple[type[HailoRTException], str]] = {
    Status.INVALID_ARGUMENT: (HailoRTInvalidArgumentException, f"Invalid argument. {_SEE_LOG}"),
    Status.TIMEOUT: (HailoRTTimeout, "Received a timeout"),
    Status.INVALID_OPERATION: (HailoRTInvalidOperationException, f"Invalid operation. {_SEE_LOG}"),
    Status.UNSUPPORTED_CONTROL_PROTOCOL_VERSION: (
        InvalidProtocolVersionException,
        "The device speaks another version of the control protocol",
    ),
    Status.FW_CONTROL_FAILURE: (
        HailoRTFirmwareControlFailedException,
        "libhailort control operation failed",
    ),
    Status.ETH_FAILURE: (HailoRTEthException, f"Ethernet failure. {_SEE_LOG}"),
    Status.INVALID_FRAME: (HailoRTInvalidFrameException, "An invalid frame was received"),
    Status.INVALID_HEF: (HailoRTInvalidHEFException, f"Invalid HEF. {_SEE_LOG}"),
    Status.DRIVER_OPERATION_FAILED: (
        HailoRTDriverOperationFailedException,
        "An ioctl of the driver failed. See dmesg",
    ),
    Status.UNSUPPORTED_OPCODE: (
        HailoRTUnsupportedOpcodeException,
        "The device does not know this opcode",
    ),
    Status.NOT_FOUND: (HailoRTNotFoundException, f"Item not found. {_SEE_LOG}"),
    Status.COMMUNICATION_CLOSED: (HailoCommunicationClosedException, "Communication closed"),
    Status.STREAM_ABORT: (HailoRTStreamAborted, "Stream was aborted"),
    Status.NETWORK_GROUP_NOT_ACTIVATED: (
        HailoRTNetworkGroupNotActivatedException,
        "Network group is not activated",
    ),
    Status.HEF_NOT_COMPATIBLE_WITH_DEVICE: (
        HailoRTHEFNotCompatibleWithDevice,
        f"HEF file is not compatible with device. {_SEE_LOG}",
    ),
}
if MAJOR < 5:
    _CLASSES[Status.ETH_RECV_FAILURE] = (UdpRecvError, "Failed to receive data")

for _class in (*(c for c, _ in _CLASSES.values()), HailoRTException, HailoRTStreamAbortedByUser):
    _class.__module__ = f"{__package__}.pyhailort"  # where callers import them from


def get_status_message(status: int) -> str:
    """The name of a status number; HailoStatusInvalidValueException for one unknown here."""
    name = _pyhailort.get_status_message(status)
    if not name:
        raise HailoStatusInvalidValueException(f"Value {status} is not a valid status")
    return name


class ExceptionWrapper:
    """Turns the binding's exception into one of those above."""

    def __enter__(self) -> None:
        """Nothing to prepare."""

    def __exit__(
        self,
        exception_type: type[BaseException] | None,
        value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Raise the indicative exception, caused by the binding's."""
        if exception_type is HailoRTStatusException and isinstance(value, HailoRTStatusException):
            raise self.create_exception_from_status(status_of(value)) from value

    @staticmethod
    def create_exception_from_status(error_code: int) -> HailoRTException:
        """The exception for a status number."""
        name = get_status_message(error_code)
        if error_code in _CLASSES:
            indicative, text = _CLASSES[error_code]
            return indicative(text)
        return HailoRTException(f"libhailort failed with error: {int(error_code)} ({name})")
