"""The library's status numbers, and the one exception that its binding throws.

Numbers are those of HailoRT 4.23; the last four came with 5.x.
"""

from __future__ import annotations

from enum import IntEnum


class Status(IntEnum):
    """A number from `hailort.h`; its name there is `HAILO_` and the name here."""

    SUCCESS = 0
    UNINITIALIZED = 1
    INVALID_ARGUMENT = 2
    OUT_OF_HOST_MEMORY = 3
    TIMEOUT = 4
    INSUFFICIENT_BUFFER = 5
    INVALID_OPERATION = 6
    NOT_IMPLEMENTED = 7
    INTERNAL_FAILURE = 8
    DATA_ALIGNMENT_FAILURE = 9
    CHUNK_TOO_LARGE = 10
    INVALID_LOGGER_LEVEL = 11
    CLOSE_FAILURE = 12
    OPEN_FILE_FAILURE = 13
    FILE_OPERATION_FAILURE = 14
    UNSUPPORTED_CONTROL_PROTOCOL_VERSION = 15
    UNSUPPORTED_FW_VERSION = 16
    INVALID_CONTROL_RESPONSE = 17
    FW_CONTROL_FAILURE = 18
    ETH_FAILURE = 19
    ETH_INTERFACE_NOT_FOUND = 20
    ETH_RECV_FAILURE = 21
    ETH_SEND_FAILURE = 22
    INVALID_FIRMWARE = 23
    INVALID_CONTEXT_COUNT = 24
    INVALID_FRAME = 25
    INVALID_HEF = 26
    PCIE_NOT_SUPPORTED_ON_PLATFORM = 27
    INTERRUPTED_BY_SIGNAL = 28
    START_VDMA_CHANNEL_FAIL = 29
    SYNC_VDMA_BUFFER_FAIL = 30
    STOP_VDMA_CHANNEL_FAIL = 31
    CLOSE_VDMA_CHANNEL_FAIL = 32
    ATR_TABLES_CONF_VALIDATION_FAIL = 33
    EVENT_CREATE_FAIL = 34
    READ_EVENT_FAIL = 35
    DRIVER_OPERATION_FAILED = 36
    INVALID_FIRMWARE_MAGIC = 37
    INVALID_FIRMWARE_CODE_SIZE = 38
    INVALID_KEY_CERTIFICATE_SIZE = 39
    INVALID_CONTENT_CERTIFICATE_SIZE = 40
    MISMATCHING_FIRMWARE_BUFFER_SIZES = 41
    INVALID_FIRMWARE_CPU_ID = 42
    CONTROL_RESPONSE_MD5_MISMATCH = 43
    GET_CONTROL_RESPONSE_FAIL = 44
    GET_D2H_EVENT_MESSAGE_FAIL = 45
    MUTEX_INIT_FAIL = 46
    OUT_OF_DESCRIPTORS = 47
    UNSUPPORTED_OPCODE = 48
    USER_MODE_RATE_LIMITER_NOT_SUPPORTED = 49
    RATE_LIMIT_MAXIMUM_BANDWIDTH_EXCEEDED = 50
    ANSI_TO_UTF16_CONVERSION_FAILED = 51
    UTF16_TO_ANSI_CONVERSION_FAILED = 52
    UNEXPECTED_INTERFACE_INFO_FAILURE = 53
    UNEXPECTED_ARP_TABLE_FAILURE = 54
    MAC_ADDRESS_NOT_FOUND = 55
    NO_IPV4_INTERFACES_FOUND = 56
    SHUTDOWN_EVENT_SIGNALED = 57
    THREAD_ALREADY_ACTIVATED = 58
    THREAD_NOT_ACTIVATED = 59
    THREAD_NOT_JOINABLE = 60
    NOT_FOUND = 61
    COMMUNICATION_CLOSED = 62
    STREAM_ABORT = 63
    DRIVER_NOT_INSTALLED = 64
    NOT_AVAILABLE = 65
    TRAFFIC_CONTROL_FAILURE = 66
    INVALID_SECOND_STAGE = 67
    INVALID_PIPELINE = 68
    NETWORK_GROUP_NOT_ACTIVATED = 69
    VSTREAM_PIPELINE_NOT_ACTIVATED = 70
    OUT_OF_FW_MEMORY = 71
    STREAM_NOT_ACTIVATED = 72
    DEVICE_IN_USE = 73
    OUT_OF_PHYSICAL_DEVICES = 74
    INVALID_DEVICE_ARCHITECTURE = 75
    INVALID_DRIVER_VERSION = 76
    RPC_FAILED = 77
    INVALID_SERVICE_VERSION = 78
    NOT_SUPPORTED = 79
    NMS_BURST_INVALID_DATA = 80
    OUT_OF_HOST_CMA_MEMORY = 81
    QUEUE_IS_FULL = 82
    DMA_MAPPING_ALREADY_EXISTS = 83
    CANT_MEET_BUFFER_REQUIREMENTS = 84
    DRIVER_INVALID_RESPONSE = 85
    DRIVER_INVALID_IOCTL = 86
    DRIVER_TIMEOUT = 87
    DRIVER_INTERRUPTED = 88
    CONNECTION_REFUSED = 89
    DRIVER_WAIT_CANCELED = 90
    HEF_FILE_CORRUPTED = 91
    HEF_NOT_SUPPORTED = 92
    HEF_NOT_COMPATIBLE_WITH_DEVICE = 93
    INVALID_HEF_USE = 94
    OPERATION_ABORTED = 95
    DEVICE_NOT_CONNECTED = 96
    DEVICE_TEMPORARILY_UNAVAILABLE = 97


FIRST_OF_5 = Status.INVALID_HEF_USE

# Refusals of a call: nothing was started, and the pipeline goes on.
REFUSALS = frozenset(
    {
        Status.INVALID_ARGUMENT,
        Status.INVALID_OPERATION,
        Status.NOT_FOUND,
        Status.OUT_OF_HOST_CMA_MEMORY,
        Status.QUEUE_IS_FULL,
    }
)
# Everything else that a running job can end with shuts the pipeline down, except a bad frame.
HARMLESS = REFUSALS | {Status.SUCCESS, Status.INVALID_FRAME}


class HailoRTStatusException(Exception):
    """What the binding throws: the status number as text is its only argument."""


def failed(status: int) -> HailoRTStatusException:
    """The exception for a status number."""
    return HailoRTStatusException(str(int(status)))


def status_of(error: HailoRTStatusException) -> int:
    """The number in such an exception."""
    return int(error.args[0])


def status_name(status: int, major: int) -> str:
    """The name in the header of that library, or nothing for a number that it does not know."""
    if status not in Status.__members__.values() or (status >= FIRST_OF_5 and major < 5):
        return ""
    return f"HAILO_{Status(status).name}"
