"""What a home's gateways recorded in the last hours or days."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

from cluster.home import Home
from edge_runtime.errors import InvalidInput, NotFound
from load.simulator.readers.request_log import read_request_logs
from load.simulator.recording import Recording
from serve_apps.gateway.request_log import PATTERN

_WINDOW: Final = re.compile(r"last-(\d{1,5})([mhd])$")
_SECONDS: Final = {"m": 60.0, "h": 3600.0, "d": 86400.0}
_HINT: Final = (
    "requests are recorded while a cluster of this home runs (`prime-spark up`); send some, name "
    "another home with --home, a longer time such as last-7d, or a file with --trace FILE"
)


def window_s(text: str) -> float | None:
    """Return the seconds of `last-24h`, `last-30m` or `last-7d`; None for anything else."""
    found = _WINDOW.match(text)
    if found is None:
        return None
    seconds = int(found[1]) * _SECONDS[found[2]]
    if not seconds:
        raise InvalidInput(f"'{text}' is no time at all", field="trace")
    return seconds


def read_home(home: Path, window: str, now: float) -> Recording:
    """Read what was recorded in a window that ends now (unix seconds).

    Raises NotFound when nothing was, and says what to do.
    """
    length_s = window_s(window)
    if length_s is None:
        raise InvalidInput(f"'{window}' is no time such as last-24h", field="trace")
    folder = Home.of(home).requests
    begin = now - length_s
    paths = [path for path in folder.glob(PATTERN) if _changed_at(path) >= begin]
    if not paths:
        raise NotFound(
            f"no request of {window.replace('-', ' ')} was recorded in {folder}",
            field="trace",
            hint=_HINT,
        )
    try:
        return read_request_logs(window, paths, begin=begin, end=now)
    except InvalidInput as error:
        raise NotFound(
            f"{folder} holds too few requests of {window.replace('-', ' ')}: {error.message}",
            field="trace",
            hint=_HINT,
        ) from None


def _changed_at(path: Path) -> float:
    """Return when a file was written last; long ago for one that was removed meanwhile."""
    try:
        return path.stat().st_mtime
    except FileNotFoundError:
        return 0.0
