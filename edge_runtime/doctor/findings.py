"""What an examination finds: checks, and the report that they make."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final, Literal

from edge_runtime.doctor.box import Unread

State = Literal["ok", "warning", "problem", "unknown"]
_MARKS: Final[dict[State, str]] = {"ok": "ok", "warning": "!", "problem": "!!", "unknown": "?"}


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that was looked at. remedy: what to do, with the exact command where one is known;
    empty where nothing is to be done.
    """

    name: str
    state: State
    found: str
    remedy: str = ""


@dataclass(frozen=True, slots=True)
class Report:
    """Everything that was looked at."""

    checks: Sequence[Check]

    @property
    def is_good(self) -> bool:
        """Whether nothing is a problem; warnings and what could not be read are none."""
        return all(check.state != "problem" for check in self.checks)

    def document(self) -> dict[str, Any]:
        """Return it as a JSON value."""
        return {"checks": [asdict(check) for check in self.checks]}

    def rows(self) -> list[list[str]]:
        """Return it as a table for people: mark, check, found; a remedy has a row of its own."""
        rows: list[list[str]] = []
        for check in self.checks:
            rows.append([_MARKS[check.state], check.name, check.found])
            if check.remedy:
                rows.append(["", "", f"-> {check.remedy}"])
        return rows


def unreadable(name: str, unread: Unread, remedy: str = "") -> Check:
    """Return the check of something that could not be read."""
    return Check(name, "unknown", f"could not be read: {unread.why}", remedy)
