"""The memory of this process: what it takes, and giving back what is free."""

from __future__ import annotations

import ctypes
import os
import sys
from pathlib import Path


def trim_heap() -> None:
    """Give freed memory back to the system; glibc keeps it otherwise (docs/explanation)."""
    if sys.platform != "linux":
        return
    try:
        trim = ctypes.CDLL(None).malloc_trim
    except AttributeError:  # not glibc
        return
    trim(0)


def resident_bytes() -> int:
    """Return the resident set of this process, 0 where it cannot be told."""
    try:
        pages = int(Path("/proc/self/statm").read_text("ascii").split()[1])
    except (OSError, ValueError, IndexError):
        return 0
    return pages * os.sysconf("SC_PAGE_SIZE")
