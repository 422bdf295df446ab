"""The wall clock of one process tree, to be set while it runs (`clock_step.c` says how)."""

from __future__ import annotations

import shutil
import struct
import subprocess
from pathlib import Path
from typing import Final

_SOURCE: Final = Path(__file__).with_name("clock_step.c")


class Clock:
    """Its files are below a folder. Raises NoCompiler when there is none."""

    def __init__(self, folder: Path) -> None:
        compiler = shutil.which("cc") or shutil.which("gcc")
        if compiler is None:
            raise NoCompiler("no C compiler (apt-get install gcc libc6-dev)")
        self._library = folder / "clock_step.so"
        self._offset = folder / "clock"
        self._offset.write_bytes(struct.pack("d", 0.0))
        subprocess.run(
            [compiler, "-shared", "-fPIC", "-O1", "-o", str(self._library), str(_SOURCE), "-ldl"],
            check=True,
            capture_output=True,
        )

    @property
    def environment(self) -> dict[str, str]:
        """What a process needs to live by this clock."""
        return {"LD_PRELOAD": str(self._library), "CHAOS_CLOCK": str(self._offset)}

    def step(self, offset_s: float) -> None:
        """Let the clock be so far ahead of this machine's, at once."""
        with self._offset.open("r+b") as file:  # in place: it is mapped
            file.write(struct.pack("d", offset_s))


class NoCompiler(Exception):
    """The clock cannot be built here."""
