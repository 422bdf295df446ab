"""Ridge regression that goes on learning and forgets what is long past.

Kept are sums of products, which fade by a factor with each outcome; weights follow from them every
few outcomes by solving `(X'X + L) w = X'y`. Since L stays as it is while the sums fade, what is not
seen any more goes back to nothing, and nothing grows without bound when the same comes again and
again (the wind-up of recursive least squares with forgetting; Salgado, Goodwin and Middleton,
1988). The first figure must be 1. Each of the others is penalised by its own spread, which is the
same as to standardise it by the faded mean and variance (Welford, 1962, computes the same without
forgetting).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

EVERY: Final = 16  # outcomes between two solutions
_LEAST_SPREAD: Final = 1e-4  # of a figure that never changes


class Ridge:
    """Linear predictions of several outcomes from the same figures.

    memory: outcomes that count, in the mean; penalty: as many outcomes of usual spread speak for
    weights of nothing.
    """

    __slots__ = ("_fade", "_moments", "_penalty", "_products", "_waiting", "inverse", "weights")

    def __init__(self, figures: int, outcomes: int, memory: float, penalty: float) -> None:
        keep = 1.0 - 1.0 / memory
        self._fade: Floats = keep ** np.arange(EVERY, -1, -1.0)  # what is older by so many
        self._penalty = penalty
        self._moments: Floats = np.zeros((figures, figures))
        self._products: Floats = np.zeros((figures, outcomes))
        self._waiting: list[tuple[Sequence[float], Sequence[float]]] = []
        self.weights: Floats = np.zeros((figures, outcomes))
        self.inverse: Floats = np.eye(figures) / penalty

    def predict(self, figures: Sequence[Sequence[float]]) -> list[list[float]]:
        """Return the outcomes to expect, for each row of figures."""
        found: list[list[float]] = (np.array(figures) @ self.weights).tolist()
        return found

    def spread(self, figures: Sequence[Sequence[float]]) -> list[float]:
        """Return how little is known of each row: the square root of `x' (X'X + L)^-1 x`."""
        rows = np.array(figures)
        found: list[float] = np.sqrt(((rows @ self.inverse) * rows).sum(axis=1)).tolist()
        return found

    def saw(self, figures: Sequence[float], outcomes: Sequence[float]) -> None:
        """Learn from one outcome of each kind. All of it must be finite and bounded."""
        self._waiting.append((figures, outcomes))
        if len(self._waiting) >= EVERY:
            self._take_in()
            self._solve()

    def _take_in(self) -> None:
        rows = np.array([figures for figures, _ in self._waiting])
        outcomes = np.array([outcome for _, outcome in self._waiting])
        self._waiting.clear()
        faded = rows.T * self._fade[1:]
        self._moments = self._fade[0] * self._moments + faded @ rows
        self._products = self._fade[0] * self._products + faded @ outcomes

    def _solve(self) -> None:
        moments = self._moments
        count = moments[0, 0]
        spread = np.maximum(np.diag(moments) / count - (moments[0] / count) ** 2, _LEAST_SPREAD)
        spread[0] = 1.0
        self.inverse = np.linalg.inv(moments + np.diag(self._penalty * spread)).astype(np.float64)
        self.weights = self.inverse @ self._products
