"""Traffic of several shapes, generated: what a rule was not tuned to shows what it is worth.

All have a mean of about `rate` requests a second, noise that lasts for some 20 seconds, arrivals by
a Poisson process and log-normal sizes.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Final

import numpy as np

from load.simulator.trace import Trace, made
from policies.scaling.history import Floats

NOISE: Final = 0.08  # of the mean rate, standard deviation
NOISE_S: Final = 20.0
DAY_S: Final = 1440.0
SHORT_DAY_S: Final = 480.0


def step(seed: int, rate: float) -> Trace:
    """Return an hour in which traffic triples at once, and falls back at once, three times."""
    seconds = np.arange(3600)
    return _traffic("step", seed, rate, np.where(seconds // 600 % 2 == 1, 1.5, 0.5))


def ramp(seed: int, rate: float) -> Trace:
    """Return an hour in which traffic grows for half an hour to six times, and falls faster."""
    return _traffic(
        "ramp", seed, rate, np.interp(np.arange(3600), [0, 600, 2400, 3000], [1, 1, 6, 1])
    )


def spikes(seed: int, rate: float) -> Trace:
    """Return an hour of steady traffic that triples for 20 to 60 s, about every 5 minutes."""
    rng = np.random.default_rng(seed + 1_000_000)
    shape = np.ones(3600)
    at = rng.exponential(300.0)
    while at < 3600:
        length = rng.uniform(20.0, 60.0)
        shape[int(at) : int(at + length)] = 3.0
        at += length + rng.exponential(300.0)
    return _traffic("spikes", seed, rate, shape)


def bells(seed: int, rate: float) -> Trace:
    """Return four days with two sudden peaks at the same time of each: shifts that begin."""
    phase = np.arange(int(4 * DAY_S)) % DAY_S / DAY_S
    is_peak = ((phase > 0.3) & (phase < 0.4)) | ((phase > 0.6) & (phase < 0.65))
    return _traffic("bells", seed, rate, np.where(is_peak, 3.0, 1.0))


def weekly(seed: int, rate: float) -> Trace:
    """Return two weeks of short days, weekends at two fifths."""
    seconds = np.arange(int(14 * SHORT_DAY_S))
    phase = seconds % SHORT_DAY_S / SHORT_DAY_S
    is_weekend = seconds // SHORT_DAY_S % 7 >= 5
    shape = (1.0 - 0.7 * np.cos(2 * np.pi * phase)) * np.where(is_weekend, 0.4, 1.0)
    return _traffic("weekly", seed, rate, shape)


SHAPES: Final[dict[str, Callable[[int, float], Trace]]] = {
    "step": step,
    "ramp": ramp,
    "spikes": spikes,
    "bells": bells,
    "weekly": weekly,
}


def _traffic(name: str, seed: int, rate: float, shape: Floats) -> Trace:
    rng = np.random.default_rng(seed)
    noise, value = np.empty(len(shape)), 0.0
    for index, kick in enumerate(rng.standard_normal(len(shape))):
        value += -value / NOISE_S + NOISE * math.sqrt(2.0 / NOISE_S) * kick
        noise[index] = value
    counts = rng.poisson(np.maximum(0.0, shape / shape.mean() + noise) * rate)
    times = np.repeat(np.arange(len(shape)), counts) + rng.random(int(counts.sum()))
    return made(name, times, rng.lognormal(6.5, 1.0, len(times)).round())
