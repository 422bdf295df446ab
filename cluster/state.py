"""What `up` started, written down before it is needed: `run/cluster.json`.

A part is recorded as soon as it has a process, so `down` finds it even when `up` was killed a
moment later. The boot id keeps process ids of an earlier boot from being believed.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from cluster.home import Home
from cluster.processes import Session


@dataclass(frozen=True, slots=True)
class ClusterState:
    """The recorded sessions and the settings that endpoints come from."""

    sessions: tuple[Session, ...] = ()
    is_complete: bool = False

    def with_session(self, session: Session) -> ClusterState:
        """Return the state with a part's session replaced."""
        others = tuple(s for s in self.sessions if s.part != session.part)
        return replace(self, sessions=(*others, session))


def read_state(home: Home) -> ClusterState:
    """Return what is recorded; nothing when there is no record of this boot."""
    try:
        document: Any = json.loads(home.state.read_text("utf-8"))
        if document["boot_id"] != _boot_id():
            return ClusterState()
        sessions = tuple(Session(**entry) for entry in document["sessions"])
        return ClusterState(sessions, bool(document["is_complete"]))
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return ClusterState()


def write_state(home: Home, state: ClusterState) -> None:
    """Replace the record in one step."""
    document = {
        "boot_id": _boot_id(),
        "is_complete": state.is_complete,
        "sessions": [asdict(session) for session in state.sessions],
    }
    staged = home.state.with_suffix(".new")
    staged.write_text(json.dumps(document), "utf-8")
    staged.replace(home.state)


def _boot_id() -> str:
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text("ascii").strip()
    except OSError:
        return "unknown"
