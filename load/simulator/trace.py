"""Traffic to replay: when requests came, and how large they were.

Readers for the public Azure traces (TIMESTAMP, ContextTokens, GeneratedTokens) and for our own
logs, and generated traffic. Times are seconds from the first request; a size is in whatever unit
the source has (tokens, bytes), and work follows from its share of the mean.
"""

from __future__ import annotations

import csv
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt

from edge_runtime.errors import InvalidInput

Floats = npt.NDArray[np.float64]
_DIGITS: Final = re.compile(r"[0-9]+")


@dataclass(frozen=True, eq=False)
class Trace:
    """Arrival times (ascending, from 0) and sizes of the same length."""

    name: str
    times: Floats
    sizes: Floats

    @property
    def duration_s(self) -> float:
        return float(self.times[-1])

    @property
    def rate(self) -> float:
        """Requests a second, over the whole of it."""
        return len(self.times) / max(self.duration_s, 1e-9)

    @property
    def burstiness(self) -> float:
        """The 99th percentile of requests in a second over their mean; about 2 to 3 when calm."""
        counts = np.bincount(self.times.astype(np.int64))
        return float(np.percentile(counts, 99) / counts.mean())

    def scaled(self, rate: float) -> Trace:
        """Return the same pattern at another mean rate."""
        return Trace(self.name, self.times * (self.rate / rate), self.sizes)

    def shifted(self, share: float) -> Trace:
        """Return it begun at a share of its length, the rest after its end."""
        begin = share * self.duration_s
        split = int(np.searchsorted(self.times, begin))
        times = np.concatenate(
            (self.times[split:] - begin, self.times[:split] + self.duration_s - begin)
        )
        return Trace(self.name, times, np.concatenate((self.sizes[split:], self.sizes[:split])))


def read_azure(path: Path) -> Trace:
    """Read a trace of the Azure LLM inference family. Raises InvalidInput naming the row."""
    times: list[float] = []
    sizes: list[float] = []
    with path.open(newline="", encoding="utf-8") as file:
        reader = csv.DictReader(file)
        missing = {"TIMESTAMP", "ContextTokens", "GeneratedTokens"} - set(reader.fieldnames or ())
        if missing:
            raise InvalidInput(
                f"'{path}' has no column {', '.join(sorted(missing))}",
                hint="a trace has TIMESTAMP, ContextTokens and GeneratedTokens",
            )
        for number, row in enumerate(reader, 2):
            try:
                times.append(seconds(row["TIMESTAMP"]))
                sizes.append(float(row["ContextTokens"]) + float(row["GeneratedTokens"]))
            except (TypeError, ValueError) as error:
                raise InvalidInput(f"'{path}' line {number}: {error}") from None
    return made(path.stem, times, sizes)


def made(name: str, times: Sequence[float] | Floats, sizes: Sequence[float] | Floats) -> Trace:
    """Put arrivals in order. Raises InvalidInput when there are too few to say anything."""
    if len(times) < 2:
        raise InvalidInput(f"trace '{name}' has fewer than two requests")
    at, size = np.asarray(times, np.float64), np.asarray(sizes, np.float64)
    order = np.argsort(at, kind="stable")
    at = at[order] - at[order[0]]
    if not (np.isfinite(at).all() and np.isfinite(size).all() and (size >= 0).all()):
        raise InvalidInput(f"trace '{name}' has times or sizes that are no numbers from 0 up")
    if at[-1] <= 0:
        raise InvalidInput(f"all requests of trace '{name}' came at the same moment")
    return Trace(name, at, size[order])


def seconds(text: str) -> float:
    """Return unix seconds of a time as the public traces write it. Raises ValueError.

    Those of 2023 have seven digits of a second and no zone (UTC is meant), those of 2024 have one.
    """
    whole, dot, rest = text.partition(".")
    digits = _DIGITS.match(rest)
    if dot and not digits:
        raise ValueError(f"'{text}' is no time")
    fraction = digits[0] if digits else ""
    at = datetime.fromisoformat(whole + rest[len(fraction) :])
    at = at if at.tzinfo else at.replace(tzinfo=UTC)
    return at.timestamp() + (float(f"0.{fraction}") if fraction else 0.0)


def calm(seed: int, rate: float = 5.0, duration_s: float = 3600.0) -> Trace:
    """Return traffic that swells and ebbs slowly: a Poisson process whose rate wanders.

    The logarithm of the rate is an AR(1) process over minutes; sizes are log-normal.
    """
    rng = np.random.default_rng(seed)
    steps = int(duration_s)
    level = np.empty(steps)
    value = 0.0
    for index in range(steps):
        value += -value / 300.0 + 0.25 * math.sqrt(2.0 / 300.0) * rng.standard_normal()
        level[index] = value
    rates = rate * np.exp(level - level.mean())
    counts = rng.poisson(rates)
    times = np.repeat(np.arange(steps), counts) + rng.random(int(counts.sum()))
    return made("calm", times, rng.lognormal(6.5, 1.0, len(times)).round())


def diurnal(seed: int, rate: float = 40.0, day_s: float = 1440.0, days: int = 3) -> Trace:
    """Return days of traffic: a sine, a peak at noon, and noise that lasts for minutes."""
    rng = np.random.default_rng(seed)
    steps = int(day_s * days)
    noise, value = np.empty(steps), 0.0
    for index in range(steps):
        value += -value / 20.0 + 0.08 * math.sqrt(2.0 / 20.0) * rng.standard_normal()
        noise[index] = value
    phase = np.arange(steps) % day_s / day_s
    shape = 1.0 - 0.7 * np.cos(2 * np.pi * phase) + 0.8 * np.exp(-(((phase - 0.5) / 0.05) ** 2))
    rates = np.maximum(0.0, shape / shape.mean() + noise) * rate
    counts = rng.poisson(rates)
    times = np.repeat(np.arange(steps), counts) + rng.random(int(counts.sum()))
    return made("diurnal", times, rng.lognormal(6.5, 1.0, len(times)).round())
