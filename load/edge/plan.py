"""How much is measured."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class Plan:
    """One run. Each subject has so many rounds, and each round measures everybody once.

    measure_s, warm_s: of one measurement under load; requests: between the two readings of memory,
    each after settle_s of rest; hop_calls: round trips of one frame size in a round; lives: of an
    accelerator, with so many kills and one hang each; clients, heavy_clients: that saturate the
    light model and the heavy one; batches: sizes that onnxruntime alone is tried with.
    """

    rounds: int
    warm_s: float
    measure_s: float
    requests: int
    settle_s: float
    hop_calls: int
    hop_bytes: tuple[int, ...]
    lives: int
    kills: int
    heavy_kills: int
    clients: int
    heavy_clients: int
    batches: tuple[int, ...]


FULL: Final = Plan(
    rounds=11,
    warm_s=0.5,
    measure_s=4.0,
    requests=1000,
    settle_s=1.0,
    hop_calls=400,
    hop_bytes=(1024, 150_528, 602_112),
    lives=10,
    kills=3,
    heavy_kills=5,
    clients=32,
    heavy_clients=48,
    batches=(1, 2, 4, 8, 16),
)
QUICK: Final = Plan(
    rounds=3,
    warm_s=0.3,
    measure_s=1.0,
    requests=1000,
    settle_s=0.7,
    hop_calls=200,
    hop_bytes=(1024, 150_528, 602_112),
    lives=2,
    kills=3,
    heavy_kills=2,
    clients=32,
    heavy_clients=8,
    batches=(1, 4, 16),
)
