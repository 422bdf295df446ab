"""Which models leave the memory when another has to come in: the least recently used first.

A model that is pinned, that has work, or that comes in itself stays. Sizes are what the process was
measured to grow by when a model was loaded, not what its file has.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Resident:
    """A loaded model. used_at: seconds on any one clock; is_busy: it has work now."""

    name: str
    size_bytes: int
    used_at: float
    is_pinned: bool = False
    is_busy: bool = False


def victims(residents: Sequence[Resident], needed_bytes: int, limit_bytes: int) -> list[str] | None:
    """Return who has to go so that needed_bytes fit below the limit, the first to go first.

    None when not even all that may go would make room. A limit of 0 means none.
    """
    if limit_bytes == 0:
        return []
    excess = sum(resident.size_bytes for resident in residents) + needed_bytes - limit_bytes
    movable = [r for r in residents if not r.is_pinned and not r.is_busy]
    chosen: list[str] = []
    for resident in sorted(movable, key=lambda r: (r.used_at, r.name)):
        if excess <= 0:
            break
        chosen.append(resident.name)
        excess -= resident.size_bytes
    return chosen if excess <= 0 else None
