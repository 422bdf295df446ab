"""Names that callers find in the vendor's compiled module, above all what `Device(...)` raises.

The vendor's `Device` does not translate the statuses of opening and of scanning: there a
HailoRTStatusException arrives, which is no HailoRTException.
"""

from __future__ import annotations

from .._native.board import Notification
from .._native.chip import VDeviceParams
from .._native.enums import (
    FormatOrder,
    FormatType,
    NotificationId,
)
from .._native.library import BINDING_VERSION, MAJOR
from .._native.statuses import HailoRTStatusException, status_name

__all__ = [
    "FormatOrder",
    "FormatType",
    "HailoRTStatusException",
    "Notification",
    "NotificationId",
    "VDeviceParams",
    "__version__",
    "get_status_message",
]

__version__ = BINDING_VERSION


def get_status_message(status: int) -> str:
    """The name of a status number, or nothing."""
    return status_name(status, MAJOR)
