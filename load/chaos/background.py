"""A share of the processor for what would be on another machine in real life (cgroups).

A head has some twenty processes in sessions of their own, and the kernel gives each session the
same share (autogroup), whatever its nice value. In here all of them weigh as much as one.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import Final

# The controller's folder, the file with a group's weight, and the weight of one session.
_CONTROLLERS: Final = (
    (Path("/sys/fs/cgroup/cpu"), "cpu.shares", "1024"),
    (Path("/sys/fs/cgroup"), "cpu.weight", "100"),
)


class Background:
    """A control group for the commands that are run with `prefix`, and all they start."""

    def __init__(self) -> None:
        self._group: Path | None = None
        for controller, weight, value in _CONTROLLERS:
            group = controller / f"psc-{os.getpid()}"
            with contextlib.suppress(OSError):
                group.mkdir()
                try:
                    (group / weight).write_text(value)
                except OSError:
                    group.rmdir()
                    continue
                self._group = group
                return

    @property
    def is_there(self) -> bool:
        return self._group is not None and self._group.exists()

    @property
    def prefix(self) -> list[str]:
        """What a command begins with; empty where there are no control groups."""
        if self._group is None:
            return []
        script = f'echo $$ > {self._group}/cgroup.procs && exec "$@"'
        return ["sh", "-c", script, "sh"]

    def remove(self) -> None:
        """Remove the group; fails silently while something runs in it (`is_there` tells)."""
        if self._group is not None:
            with contextlib.suppress(OSError):
                self._group.rmdir()
