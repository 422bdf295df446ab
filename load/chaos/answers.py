"""Whether an answer is what it says: the result of this very input, on the rung that it names."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

import numpy as np

from load.chaos.models import Floats, Reference, Subject
from load.fake_hailo.device import MARKER

KEPT_RUNGS: Final = ("stale", "cache")  # answers computed before, by any rung
_MARKER_FLOAT: Final = np.frombuffer(bytes([MARKER] * 4), np.float32)[0]
_MARKER_SHARE: Final = 1e-4  # of its value: a decoded code is exact but for float32


class Kind(StrEnum):
    """How a request ended.

    stale: right, and kept from before; late: told that its time is over; wrong, leak: an answer
    that is another's or of a failed job; lost: the connection broke, or nothing came in time.
    """

    RIGHT = "right"
    STALE = "stale"
    REFUSED = "refused"
    LATE = "late"
    WRONG = "wrong"
    LEAK = "leak"
    LOST = "lost"


@dataclass(frozen=True, slots=True)
class Verdict:
    """How an answer is; detail: what is wrong with it."""

    kind: Kind
    detail: str = ""


def check(subject: Subject, picked: Sequence[int], rung: str, rows: Floats) -> Verdict:
    """Judge the answer to the inputs of these numbers, computed by a rung as it says."""
    width = next(iter(subject.references.values())).rows.shape[1]
    if rows.shape != (len(picked), width):
        return Verdict(Kind.WRONG, f"{list(rows.shape)} for {len(picked)} inputs")
    if any(_is_marker(subject, row) for row in rows):
        return Verdict(Kind.LEAK, f"the outputs of a failed job, from {rung or 'nobody'}")
    if rung in subject.references:
        candidates = [rung]
    elif rung in KEPT_RUNGS:
        candidates = list(subject.references)
    else:
        return Verdict(Kind.WRONG, f"there is no rung '{rung}'")
    if any(_fits(subject.references[name], picked, rows) for name in candidates):
        return Verdict(Kind.STALE if rung == "stale" else Kind.RIGHT)
    return Verdict(Kind.WRONG, _explain(subject, picked, rung, rows))


def _is_marker(subject: Subject, row: Floats) -> bool:
    if bool(np.all(row == _MARKER_FLOAT)):
        return True
    if subject.marker is None:
        return False
    slack = max(1e-6, abs(subject.marker) * _MARKER_SHARE)
    return bool(np.all(np.abs(row - subject.marker) <= slack))


def _fits(reference: Reference, picked: Sequence[int], rows: Floats) -> bool:
    expected = reference.rows[list(picked)]
    return bool(np.isfinite(rows).all()) and bool(
        np.abs(rows - expected).max() <= reference.tolerance
    )


def _explain(subject: Subject, picked: Sequence[int], rung: str, rows: Floats) -> str:
    """Say whose answer it is, if it is anybody's."""
    for name, reference in subject.references.items():
        if _fits(reference, picked, rows):
            return f"named {rung}, and it is of {name}"
    for at, (number, row) in enumerate(zip(picked, rows, strict=True)):
        for name, reference in subject.references.items():
            apart = np.abs(reference.rows - row).max(axis=1)
            nearest = int(np.nanargmin(apart)) if np.isfinite(apart).any() else -1
            if nearest == number and apart[nearest] <= reference.tolerance:
                break
            if nearest >= 0 and apart[nearest] <= reference.tolerance:
                return f"row {at} is {name}'s answer to input {nearest}, not {number}"
        else:
            own = subject.references.get(rung) or next(iter(subject.references.values()))
            off = float(np.abs(own.rows[number] - row).max())
            return f"row {at}, input {number}, from {rung}: off by {off:.4g}"
    return f"rows of several rungs, named {rung}"
