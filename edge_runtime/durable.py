"""Files that are there whole or not at all, after a power cut too.

Write beside the target, flush to the device, rename, flush the folder: renaming is atomic, and a
rename whose folder was not flushed may be undone by a power cut (Pillai et al., "All File Systems
Are Not Created Equal", OSDI 2014).
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path


def write(path: Path, content: bytes) -> None:
    """Replace a file in one step. Raises OSError; the old content or the new is there then."""
    staged = path.with_name(f".{path.name}.new")
    try:
        with staged.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        staged.replace(path)
    except OSError:
        with contextlib.suppress(OSError):
            staged.unlink()
        raise
    flush_folder(path.parent)


def make_folder(folder: Path) -> None:
    """Make a folder and those above it that are not there yet. Raises OSError."""
    if folder.is_dir():
        return
    make_folder(folder.parent)
    folder.mkdir(exist_ok=True)
    flush_folder(folder.parent)


def flush_folder(folder: Path) -> None:
    """Make what was renamed, made or removed in a folder survive a power cut. Raises OSError."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
