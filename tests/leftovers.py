"""What killed runs left below the temporary folder: homes of clusters, and their sockets."""

from __future__ import annotations

import os
import re
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import psutil

HOMES: Final = re.compile(r"ps-(\w{8}|\d+-[0-9a-f]{10}(-edge)?)")  # mkdtemp's, `cluster.home`'s
QUIET_S: Final = 3600.0  # longer than a test needs from making a home to its first process


def sweep(folder: Path | None = None) -> list[Path]:
    """Remove homes of earlier runs that no process uses; return them.

    Others' and those changed within the last hour stay: their test may only be beginning.
    """
    folder = folder or Path(tempfile.gettempdir())
    old = [path for path in folder.iterdir() if HOMES.fullmatch(path.name) and _is_old(path)]
    if not old:
        return []
    used = "\n".join(_mentions())
    gone = [path for path in old if not re.search(rf"{re.escape(str(path))}(?![\w-])", used)]
    for path in gone:
        shutil.rmtree(path, ignore_errors=True)
    return gone


def _is_old(path: Path) -> bool:
    try:
        status = path.lstat()
    except FileNotFoundError:
        return False
    return status.st_uid == os.geteuid() and status.st_mtime < time.time() - QUIET_S


def _mentions() -> Iterator[str]:
    """Every text of a living process that may have the path of its home."""
    for process in psutil.process_iter():
        try:
            yield from process.cmdline()
            yield from process.environ().values()
            yield process.cwd()
            yield from (file.path for file in process.open_files())
            yield from (str(found.laddr) for found in process.net_connections("unix"))
        except (psutil.Error, OSError):
            continue
