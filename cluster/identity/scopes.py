"""What a credential may allow. The routes that ask for a scope are in `edge_runtime.protocol`."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import Final

from edge_runtime.errors import InvalidInput

SCOPES: Final = {
    "infer": "call models and read what they are",
    "models:write": "load and unload models",
    "metrics:read": "read metrics, statistics of routing and decisions",
    "admin": "everything",
}
MAX_NAME: Final = 256
KINDS: Final = ("user", "service", "device")


def check_scopes(scopes: Iterable[str]) -> frozenset[str]:
    """Return the scopes as a set. Raises InvalidInput for none, and for one that is unknown."""
    found = frozenset(scopes)
    if not found:
        raise InvalidInput("a credential needs at least one scope", field="scope", hint=_hint())
    for scope in sorted(found):
        if scope not in SCOPES:
            nearest = difflib.get_close_matches(scope, SCOPES, n=1)
            raise InvalidInput(
                f"unknown scope {scope[:64]!r}",
                field="scope",
                hint=f"did you mean '{nearest[0]}'?" if nearest else _hint(),
            )
    return found


def check_name(field: str, text: str) -> None:
    """Raise InvalidInput unless text can name a caller; field: subject or tenant."""
    if not text or len(text) > MAX_NAME or not text.isprintable() or text != text.strip():
        raise InvalidInput(
            f"a {field} is 1 to {MAX_NAME} printable characters, not {text[:300]!r}", field=field
        )


def check_kind(kind: str) -> None:
    """Raise InvalidInput unless kind is one of KINDS."""
    if kind not in KINDS:
        raise InvalidInput(
            f"unknown kind of caller {kind[:64]!r}", field="kind", hint="one of " + ", ".join(KINDS)
        )


def _hint() -> str:
    return "one or more of " + ", ".join(SCOPES)
