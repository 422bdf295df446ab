"""The real test images through every tier and protocol, judged against the local answer."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edge_runtime.backends.ort import onnxruntime as ort
from load.demo.gateway import INPUT, OUTPUT, Caller, Images, Logits

WARM_UP = 5


@dataclass(frozen=True, slots=True)
class TierResult:
    """What one tier did with the test set over one protocol; latencies in milliseconds.

    is_exact: every predicted class is the one that the model predicts locally.
    """

    tier: str
    protocol: str
    accuracy: float
    is_exact: bool
    p50_ms: float
    p95_ms: float
    targets: tuple[tuple[str, str, int], ...]


def local_logits(artifact: Path, images: Images) -> Logits:
    """Run the artifact in this process, with ONNX Runtime alone."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    session = ort.InferenceSession(str(artifact), options, providers=["CPUExecutionProvider"])
    rows = [session.run([OUTPUT], {INPUT: images[i : i + 1]})[0] for i in range(len(images))]
    return np.concatenate(rows)


def accuracy(logits: Logits, labels: NDArray[np.int64]) -> float:
    return float((logits.argmax(axis=1) == labels).mean())


def measure(
    callers: Sequence[Caller],
    tiers: Sequence[str],
    model: str,
    images: Images,
    labels: NDArray[np.int64],
    expected: Logits,
    advance: Callable[[str], None],
) -> Iterator[TierResult]:
    """Send each image alone, tier by tier; advance is told the tier after each image."""
    for tier in tiers:
        for caller in callers:
            for row in range(WARM_UP):
                caller.predict(model, images[row : row + 1], tier=tier)
            taken: list[float] = []
            rows: list[Logits] = []
            where: Counter[tuple[str, str]] = Counter()
            for row in range(len(images)):
                began = time.perf_counter()
                answer = caller.predict(model, images[row : row + 1], tier=tier)
                taken.append((time.perf_counter() - began) * 1e3)
                rows.append(answer.logits)
                where[(answer.target, answer.reason)] += 1
                advance(f"{tier} {caller.protocol}")
            logits = np.concatenate(rows)
            yield TierResult(
                tier=tier,
                protocol=caller.protocol,
                accuracy=accuracy(logits, labels),
                is_exact=bool((logits.argmax(axis=1) == expected.argmax(axis=1)).all()),
                p50_ms=float(np.percentile(taken, 50)),
                p95_ms=float(np.percentile(taken, 95)),
                targets=tuple((*key, count) for key, count in where.most_common()),
            )
