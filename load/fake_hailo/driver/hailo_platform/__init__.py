"""A stand-in for the vendor's `hailo_platform`, in the flavours 4.x and 5.x.

What the device is and which faults it has stands in the folder that the environment variable
FAKE_HAILO_DIR names; the vendor's names, signatures, statuses and hazards are here, taken
from public sources of HailoRT 4.23 and 5.2, and no code of it.
Names of the older streaming API exist, as they do there, and refuse to be used.
"""

from __future__ import annotations

from typing import Any

from ._native.library import BINDING_VERSION, MAJOR, VERSION

__version__ = VERSION
if __version__ != BINDING_VERSION:
    raise ImportError(
        f"_pyhailort version ({BINDING_VERSION}) does not match pyhailort version ({__version__})"
    )

from .pyhailort.pyhailort import (
    HEF,
    AsyncInferJob,
    AveragingFactor,
    Device,
    DvmTypes,
    Endianness,
    FormatOrder,
    FormatType,
    HailoCommunicationClosedException,
    HailoCpuId,
    HailoFormatFlags,
    HailoPowerMode,
    HailoRTException,
    HailoRTStreamAbortedByUser,
    HailoSchedulingAlgorithm,
    HailoStreamDirection,
    HailoStreamInterface,
    MeasurementBufferIndex,
    PowerMeasurementTypes,
    SamplingPeriod,
    VDevice,
    refuse_older_api,
)

__all__ = [
    "HEF",
    "AsyncInferJob",
    "AveragingFactor",
    "Device",
    "DvmTypes",
    "Endianness",
    "FormatOrder",
    "FormatType",
    "HailoCommunicationClosedException",
    "HailoCpuId",
    "HailoFormatFlags",
    "HailoPowerMode",
    "HailoRTException",
    "HailoRTStreamAbortedByUser",
    "HailoSchedulingAlgorithm",
    "HailoStreamDirection",
    "HailoStreamInterface",
    "MeasurementBufferIndex",
    "PowerMeasurementTypes",
    "SamplingPeriod",
    "VDevice",
]

_OLDER_API = [
    "ConfigureParams",
    "InferVStreams",
    "InputVStreamParams",
    "InputVStreams",
    "OutputVStreamParams",
    "OutputVStreams",
]
_GONE_IN_5 = [
    "EthernetDevice",
    "IspLightFrequency",
    "MipiClockSelection",
    "MipiDataTypeRx",
    "MipiIspImageInOrder",
    "MipiIspImageOutDataType",
    "MipiPixelsPerClock",
    "PcieDevice",
    "UDPRateLimiter",
]
_ABSENT = _OLDER_API if MAJOR >= 5 else _OLDER_API + _GONE_IN_5
__all__ += _ABSENT


def __getattr__(name: str) -> Any:
    """Names that the vendor exports and that the fake does not implement."""
    if name not in _ABSENT:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

    def refuse(*_: object, **__: object) -> None:
        if name in _OLDER_API:
            refuse_older_api()
        raise NotImplementedError(f"the fake has no {name}")

    return type(name, (), {"__init__": refuse})
