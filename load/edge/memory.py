"""What a process holds, from /proc."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Final

MB: Final = 1e6
MIB: Final = 2**20


@dataclass(frozen=True, slots=True)
class Memory:
    """Bytes. rss = anon + file + shmem; pss counts shared pages once; peak: largest rss so far."""

    rss: int
    anon: int
    file: int
    shmem: int
    peak: int
    pss: int
    threads: int


def read(pid: int) -> Memory:
    """Raises OSError when the process has gone."""
    status = _fields(Path(f"/proc/{pid}/status"))
    rolled = _fields(Path(f"/proc/{pid}/smaps_rollup"))
    return Memory(
        rss=_bytes(status["VmRSS"]),
        anon=_bytes(status["RssAnon"]),
        file=_bytes(status["RssFile"]),
        shmem=_bytes(status["RssShmem"]),
        peak=_bytes(status["VmHWM"]),
        pss=_bytes(rolled["Pss"]),
        threads=int(status["Threads"]),
    )


def resident(pid: int) -> tuple[int, int]:
    """Return resident bytes and threads; quicker. Raises OSError when the process has gone."""
    status = _fields(Path(f"/proc/{pid}/status"))
    return _bytes(status.get("VmRSS", "0 kB")), int(status["Threads"])


def processor_s(pid: int) -> float:
    """Return the processor time taken so far. Raises OSError when the process has gone."""
    fields = Path(f"/proc/{pid}/stat").read_text("utf-8").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def descriptors(pid: int) -> int:
    """Count open files. Raises OSError when the process has gone."""
    return sum(1 for _ in Path(f"/proc/{pid}/fd").iterdir())


def _fields(path: Path) -> dict[str, str]:
    lines = (line.partition(":") for line in path.read_text("ascii", "replace").splitlines())
    return {name: value.strip() for name, _, value in lines}


def _bytes(text: str) -> int:
    return int(text.split()[0]) * 1024
