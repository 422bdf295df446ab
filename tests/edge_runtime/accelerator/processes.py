"""What the system knows of processes and descriptors."""

from __future__ import annotations

import gc
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).parents[3]


def is_alive(pid: int) -> bool:
    """Tell whether a process runs; one that nobody has waited for does not."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state not in "ZX"


def is_known(pid: int) -> bool:
    """Tell whether a process runs, or has ended and nobody has waited for it."""
    return Path(f"/proc/{pid}").exists()


def program_of(pid: int) -> str:
    """Return the interpreter that a process was started with."""
    return Path(f"/proc/{pid}/cmdline").read_text().split("\0")[0]


def children() -> set[int]:
    """Return the ids of this process's children, dead ones that nobody waited for among them."""
    found = [(task / "children").read_text().split() for task in Path("/proc/self/task").iterdir()]
    return {int(pid) for pids in found for pid in pids}


def descriptors(pid: int | str = "self") -> int:
    """Return how many descriptors a process has open."""
    gc.collect()
    return len(list(Path(f"/proc/{pid}/fd").iterdir()))


def mapped_tensors() -> int:
    """Return how many models' memory is mapped here."""
    gc.collect()
    return Path("/proc/self/maps").read_text().count("prime-spark-tensors")


@contextmanager
def no_descriptors_left() -> Iterator[None]:
    kept = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, kept[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, kept)
