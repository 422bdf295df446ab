"""What every subject is given."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from load.edge.models import Models
from load.edge.plan import Plan


@dataclass(frozen=True, slots=True)
class Stage:
    """scratch: an empty folder that is removed afterwards; say: tells the person who waits."""

    models: Models
    plan: Plan
    scratch: Path
    say: Callable[[str], None]
