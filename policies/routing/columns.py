"""The targets of a large table as arrays, and the default rule over them.

From some dozens of targets on, a loop over values is slower than a pass over arrays that are kept
beside them. The figures are the same; a property test holds both ways against each other.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from policies.routing.delay import STALE_S
from policies.routing.filters import ruled_out
from policies.routing.reliability import IDENTITY, Line
from policies.routing.sizes import BUCKETS
from policies.routing.types import SLACKS, Request, Target

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]

_NUMBERS: Final = (
    "rtt_s", "ahead_at", "heard_at", "service_s", "row_s", "busy", "outstanding", "bias",
    "usd", "usd_per_s", "usd_per_byte",
)  # fmt: skip
_SEARCH: Final = (128, 64, 32, 16, 8, 4, 2, 1)  # steps of a search among up to 255 errors
_ROOM_OF_ERRORS: Final = 256
_FINITE_SLACKS: Final = np.array(SLACKS[:-1])


class Columns:
    """Arrays over targets by index; they grow by doubling."""

    def __init__(self, targets: Sequence[Target]) -> None:
        self.count = 0
        self._room = 0
        self._values: list[Target | None] = []
        self._codes: dict[str, int] = {}
        self._numbers: Floats = np.empty((len(_NUMBERS), 0))
        self._ahead: Floats = np.empty((len(SLACKS), 0))
        self._sizes: Floats = np.empty((BUCKETS, 0))
        self._errors: Floats = np.empty((0, _ROOM_OF_ERRORS))
        self._error_counts: Floats = np.empty(0)
        self._places: npt.NDArray[np.int64] = np.empty((3, 0), np.int64)  # tier, site, zone
        self._is_open: Bools = np.empty(0, np.bool_)
        self._restricted: set[int] = set()
        self._grow(2 * len(targets))
        for index, target in enumerate(targets):
            self.put(index, target)

    def put(self, index: int, target: Target) -> None:
        """Write a target's value to its place."""
        if index >= self._room:
            self._grow(2 * (index + 1))
        before = self._values[index]
        self._values[index] = target
        self.count = max(self.count, index + 1)
        self._numbers[:, index] = [getattr(target, name) for name in _NUMBERS]
        self._ahead[:, index] = target.ahead_s
        self._is_open[index] = (
            target.has_model
            and target.is_up
            and not (target.is_draining or target.is_silent or target.is_ejected)
        )
        if before is None or before.sizes is not target.sizes:
            self._sizes[:, index] = target.sizes or 1.0
        if before is None or before.errors is not target.errors:
            count = len(target.errors)
            self._errors[index, :count] = target.errors
            self._errors[index, count:] = np.inf
            self._error_counts[index] = count
        if before is None or before[1:5] != target[1:5]:
            names = (target.tier, target.site, target.zone)
            self._places[:, index] = [self._code(name) for name in names]
            (self._restricted.discard if target.tenants is None else self._restricted.add)(index)

    def open_to(self, request: Request) -> Bools:
        """Return which targets may serve a request."""
        count = self.count
        found = self._is_open[:count].copy()
        tiers, _, zones = self._places[:, :count]
        if request.tiers is not None:
            found &= self._is_one_of(request.tiers)[tiers]
        if request.tier is not None:
            found &= tiers == self._codes.get(request.tier, -1)
        if request.zones is not None:
            found &= self._is_one_of(request.zones)[zones]
        for index in self._restricted:
            target = self._values[index]
            if found[index] and target is not None:
                found[index] = ruled_out(request, target) is None
        return found

    def look(
        self, request: Request, now: float, line: Line
    ) -> tuple[Floats, Floats, Floats, Floats, Floats, Bools]:
        """Return expected seconds, shares late, dollars, busy shares, and who is away.

        Second are the expected seconds without the correction by the usual error.
        """
        count, slack_s = self.count, request.slack_s
        (
            rtt_s, ahead_at, heard_at, service_s, row_s, busy, outstanding, bias,
            usd, usd_per_s, usd_per_byte,
        ) = self._numbers[:, :count]  # fmt: skip
        left_s = slack_s - rtt_s
        gone_s = np.maximum(0.0, now + 0.5 * rtt_s - ahead_at)
        behind = np.searchsorted(_FINITE_SLACKS, left_s + gone_s)
        waits_s = self._ahead[behind, np.arange(count)] - gone_s
        is_stale = now - heard_at > STALE_S
        if is_stale.any():
            waits_s = np.where(is_stale, np.maximum(waits_s, outstanding * row_s), waits_s)
        work_s = service_s * self._sizes[request.bucket, :count]
        there_s = np.maximum(waits_s, 0.0) + work_s
        expected_s = rtt_s + np.maximum(0.0, bias * (there_s + service_s) - service_s)
        late = self._late_share(there_s, service_s, left_s)
        if line is not IDENTITY:
            late = np.interp(late, *line)
        home = self._codes.get(request.origin_site, -1) if request.origin_site is not None else -1
        is_away = self._places[1, :count] != home
        leaving_usd = np.where(is_away, usd_per_byte * request.moved_bytes, 0.0)
        price = usd + usd_per_s * work_s + leaving_usd
        return expected_s, rtt_s + there_s, late, price, busy, is_away

    def _late_share(self, there_s: Floats, service_s: Floats, left_s: Floats) -> Floats:
        """Return the share of errors beyond which each would be late; see `lateness`."""
        count = self.count
        total = there_s + service_s
        most = (left_s + service_s) / np.where(total > 0.0, total, 1.0)
        flat = self._errors.ravel()
        begin = np.arange(count) * _ROOM_OF_ERRORS
        at = begin.copy()
        for step in _SEARCH:
            at += step * (flat[at + (step - 1)] <= most)
        counts = self._error_counts[:count]
        late = (counts - (at - begin)) / np.maximum(counts, 1.0)
        late = np.where(counts > 0.0, late, there_s > left_s)
        late = np.where((there_s <= 0.0) & (counts > 0.0), 0.0, late)
        found: Floats = np.where(left_s <= 0.0, 1.0, late)
        return found

    def _is_one_of(self, names: frozenset[str]) -> Bools:
        """Return for each code whether its name is one of some."""
        found = np.zeros(len(self._codes), np.bool_)
        for name in names:
            code = self._codes.get(name)
            if code is not None:
                found[code] = True
        return found

    def _code(self, name: str) -> int:
        return self._codes.setdefault(name, len(self._codes))

    def _grow(self, room: int) -> None:
        more = room - self._room

        def wider(array: Any, axis: int = -1) -> Any:
            shape = list(array.shape)
            shape[axis] = more
            return np.concatenate((array, np.zeros(shape, array.dtype)), axis=axis)

        self._numbers, self._ahead = wider(self._numbers), wider(self._ahead)
        self._sizes, self._errors = wider(self._sizes), wider(self._errors, 0)
        self._error_counts, self._places = wider(self._error_counts), wider(self._places)
        self._is_open = wider(self._is_open)
        self._values += [None] * more
        self._room = room
