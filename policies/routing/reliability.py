"""Making predicted chances come true: those of 30 % should happen in three of ten cases.

Shares of past errors rank targets well, but may be off as probabilities: whoever is chosen is
chosen because it looked good, requests in a hurry pass others where deadlines order, and errors of
both are kept together. So it is counted how often what was predicted came true, in bins of the
predicted share, and predictions are put through the line that this gives (histogram binning,
Zadrozny and Elkan, 2001, made monotone by pooling adjacent violators, Ayer et al., 1955). Bins with
little in them stay near what was predicted.
"""

from __future__ import annotations

from bisect import bisect_right
from typing import Final

EDGES: Final = (0.01, 0.03, 0.06, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.7, 0.9)
PRIOR: Final = 20.0  # outcomes that the prediction itself counts as, in each bin
MEMORY: Final = 400.0  # outcomes of a bin that count; older ones fade
_EVERY: Final = 16  # outcomes between two fits

Line = tuple[tuple[float, ...], tuple[float, ...]]
IDENTITY: Final[Line] = ((0.0, 1.0), (0.0, 1.0))


class Reliability:
    """Counts predictions and outcomes; `line` is what predictions are put through."""

    __slots__ = ("_bins", "_since", "line")

    def __init__(self) -> None:
        # By bin: outcomes, sum of predicted shares, how many were late.
        self._bins = [[0.0, 0.0, 0.0] for _ in range(len(EDGES) + 1)]
        self._since = 0
        self.line = IDENTITY

    def saw(self, predicted: float, *, is_late: bool) -> None:
        """Learn from one outcome. predicted: the share of past errors, before any correction."""
        found = self._bins[bisect_right(EDGES, predicted)]
        if found[0] >= MEMORY:
            for index in range(3):
                found[index] *= 1.0 - 1.0 / MEMORY
        found[0] += 1.0
        found[1] += predicted
        found[2] += is_late
        self._since += 1
        if self._since >= _EVERY:
            self._since = 0
            self.line = self._fit()

    def _fit(self) -> Line:
        blocks: list[tuple[float, float, float]] = []  # weight, predicted, happened
        for count, predicted, late in self._bins:
            if count:
                share = predicted / count
                weight = count + PRIOR
                blocks.append((weight, share, (late + PRIOR * share) / weight))
                while len(blocks) > 1 and blocks[-2][2] >= blocks[-1][2]:
                    blocks[-2:] = [_pooled(blocks[-2], blocks[-1])]
        shares = [share for _, share, _ in blocks if 0.0 < share < 1.0]
        happened = [late for _, share, late in blocks if 0.0 < share < 1.0]
        return (0.0, *shares, 1.0), (0.0, *happened, 1.0)


def corrected_share(line: Line, share: float) -> float:
    """Return a predicted share put through a line; 0 stays 0 and 1 stays 1."""
    if line is IDENTITY or share <= 0.0 or share >= 1.0:
        return share
    xs, ys = line
    right = bisect_right(xs, share)
    left = right - 1
    x0, x1, y0, y1 = xs[left], xs[right], ys[left], ys[right]
    return y0 + (y1 - y0) * (share - x0) / (x1 - x0)


def _pooled(
    left: tuple[float, float, float], right: tuple[float, float, float]
) -> tuple[float, float, float]:
    weight = left[0] + right[0]
    return (
        weight,
        (left[0] * left[1] + right[0] * right[1]) / weight,
        (left[0] * left[2] + right[0] * right[2]) / weight,
    )
