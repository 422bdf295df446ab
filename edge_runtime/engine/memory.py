"""The memory of this process: what it takes, and giving back what is free."""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Final

_DONTNEED: Final = 4  # MADV_DONTNEED


def trim_heap() -> None:
    """Give freed memory back to the system; glibc keeps it otherwise (docs/explanation)."""
    if sys.platform != "linux":
        return
    try:
        trim = ctypes.CDLL(None).malloc_trim
    except AttributeError:  # not glibc
        return
    trim(0)


def unmap_code() -> None:
    """Take the code of programs and libraries out; what is used comes back by itself.

    Most of it runs at the start only. It stays in the system's page cache, where it is the
    first to give way when memory is short. (Kernels since 6.16 map libraries in pieces of up to
    2 MB, so that little use makes nearly all of a library resident.)
    """
    if sys.platform != "linux":
        return
    madvise = ctypes.CDLL(None).madvise
    madvise.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
    try:
        with Path("/proc/self/smaps").open(encoding="ascii", errors="replace") as smaps:
            found = unchanged_code(smaps)
    except OSError:
        return
    for begin, size in found:
        madvise(begin, size, _DONTNEED)


def unchanged_code(smaps: Iterable[str]) -> list[tuple[int, int]]:
    """Return address and bytes of mappings that have what is in their program or library, no more.

    smaps: lines as in proc(5). Only what is executable: constants lie beside data that the linker
    has written to, whose own pages do not show while they are swapped out. Code that was written
    to has pages of its own ("Anonymous", "Swap") and stays.
    """
    found: dict[tuple[int, int], bool] = {}
    mapping: tuple[int, int] | None = None
    for line in smaps:
        name, _, rest = line.partition(" ")
        if not name.endswith(":"):
            fields = rest.split(maxsplit=4)
            is_code = fields[0] == "r-xp" and len(fields) > 4 and fields[4].startswith("/")
            first, _, last = name.partition("-")
            mapping = (int(first, 16), int(last, 16) - int(first, 16)) if is_code else None
            if mapping is not None:
                found[mapping] = True
        elif mapping is not None and name in ("Anonymous:", "Swap:") and rest.split()[0] != "0":
            found[mapping] = False
    return [mapping for mapping, is_unchanged in found.items() if is_unchanged]


def data_bytes() -> int:
    """Return the resident memory that is no file's, 0 where it cannot be told: code is left out."""
    try:
        fields = Path("/proc/self/statm").read_text("ascii").split()
        return (int(fields[1]) - int(fields[2])) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError, IndexError):
        return 0
