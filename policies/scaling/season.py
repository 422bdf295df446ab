"""Finds after which time traffic repeats, where nobody has said it.

The autocorrelation of what came, by its Fourier transform (Wiener and Khinchin), without its
linear trend: a period is the lag of its highest peak, if that is high, seen twice at least. A
multiple of a period repeats as well: the smallest part of the lag that is nearly as high is taken.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from policies.scaling.history import Floats

LEAST_CORRELATION: Final = 0.5
LEAST_BUCKETS: Final = 12  # of a period; below that, its shape is not seen
_NEARLY: Final = 0.7
_NEAR: Final = 0.1  # of a lag: what noise may move a peak by


def find_period(works: Floats, bucket_s: float, least_s: float = 0.0) -> float | None:
    """Return the period in seconds, None where nothing repeats. least_s: the shortest looked for.

    works: what came in each bucket, without gaps.
    """
    count = len(works)
    longest = count // 2
    shortest = max(LEAST_BUCKETS, int(np.ceil(least_s / bucket_s)))
    if longest <= shortest + 1:
        return None
    seconds = np.arange(count)
    rest = works - np.polyval(np.polyfit(seconds, works, 1), seconds)
    if not rest.any():
        return None
    power = np.abs(np.fft.rfft(rest, 2 * count)) ** 2
    raw = np.fft.irfft(power)[: longest + 1]
    # Of as many pairs as there are at this lag, over the mean square of what they consist of.
    squares = np.concatenate(((0.0,), np.cumsum(rest**2)))
    lags = np.arange(longest + 1)
    scale = np.sqrt(squares[count - lags] * (squares[count] - squares[lags]))
    found = raw / np.maximum(scale, 1e-12)
    inner = found[1:-1]
    is_peak = (inner >= found[:-2]) & (inner >= found[2:]) & (lags[1:-1] >= shortest)
    # What only fades out, without having been low before, is inertia and no season.
    is_peak &= np.minimum.accumulate(found)[1:-1] <= 0.5 * inner
    peaks = np.flatnonzero(is_peak) + 1
    if not len(peaks) or found[peaks].max() < LEAST_CORRELATION:
        return None
    best = int(peaks[found[peaks].argmax()])
    for parts in range(best // shortest, 1, -1):
        near = peaks[np.abs(peaks - best / parts) <= max(1.0, _NEAR * best / parts)]
        if len(near) and found[near].max() >= _NEARLY * found[best]:
            return float(near[found[near].argmax()] * bucket_s)
    return float(best * bucket_s)
