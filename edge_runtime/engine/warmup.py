"""Made-up requests that fit a signature, to run a model before anybody waits for it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Final

import numpy as np

from edge_runtime.backends.base import AcceleratorFault
from edge_runtime.engine.batch import Work
from edge_runtime.engine.jobs import Batch, Timing
from edge_runtime.engine.rungs import Rung
from edge_runtime.errors import InvalidInput
from edge_runtime.protocol.binary import bytes_array
from edge_runtime.protocol.datatypes import BYTES, NUMPY
from edge_runtime.protocol.types import Array, Signature, TensorSpec

logger = logging.getLogger(__name__)

RUNS: Final = 3
SLOW_S: Final = 0.5  # of a batch: loading a slow model must not take seconds more
MAX_ELEMENTS: Final = 64 * 1024 * 1024


async def warm_up(rung: Rung, signature: Signature, max_batch_size: int) -> None:
    """Learn how long one row takes and, where that is quick, a full batch."""
    most_s = SLOW_S / max_batch_size
    single = await _quickest(rung, signature, 1, lambda run: _work_s(run) > most_s)
    if single is not None and single.infer_ns / 1e9 <= most_s:
        await _quickest(rung, signature, max_batch_size, _was_undisturbed)


async def _quickest(
    rung: Rung, signature: Signature, rows: int, is_enough: Callable[[Timing], bool]
) -> Timing | None:
    """Learn from the quickest of some runs of zeros; None when the model takes none.

    The first also allocates, and any may wait for a processor that others keep busy.
    """
    work = sample_work(signature, rows)
    if work is None:
        return None
    runs: list[Timing] = []
    while not runs or (len(runs) < RUNS and not is_enough(runs[-1])):
        run = await _try(rung, work)
        if run is None:
            return None
        runs.append(run)
    found = min(runs, key=lambda run: run.infer_ns)
    rung.service.saw(work.rows, found.infer_ns / 1e9, found.thread_ns / 1e9)
    return found


async def _try(rung: Rung, work: Work) -> Timing | None:
    batch = Batch([])
    try:
        computed = await rung.compute(batch, [work])
    except asyncio.CancelledError:
        batch.abandon()
        raise
    except (InvalidInput, AcceleratorFault) as error:
        logger.debug("no warm-up on %s: %s", rung.name, error)
        return None
    return computed.timing


def _work_s(run: Timing) -> float:
    """Return what a run took of a processor where that is known, its time elsewhere."""
    return (run.thread_ns or run.infer_ns) / 1e9


def _was_undisturbed(run: Timing) -> bool:
    return run.infer_ns / 1e9 <= 2 * _work_s(run)


def sample_work(signature: Signature, rows: int) -> Work | None:
    """Return zeros of the model's shapes (free dimensions are 1), or None if that is too large."""
    is_batched = signature.is_batched
    inputs: dict[str, Array] = {}
    for spec in signature.inputs:
        shape = _shape(spec, rows if is_batched else 1)
        if np.prod(shape, dtype=np.float64) > MAX_ELEMENTS:
            return None
        inputs[spec.name] = _zeros(spec, shape)
    outputs = tuple(spec.name for spec in signature.outputs)
    return Work(inputs, outputs, rows if is_batched else 1, None)


def _shape(spec: TensorSpec, rows: int) -> tuple[int, ...]:
    free = [1 if dim < 0 else dim for dim in spec.shape]
    if spec.shape and spec.shape[0] < 0:
        free[0] = rows
    return tuple(free)


def _zeros(spec: TensorSpec, shape: tuple[int, ...]) -> Array:
    if spec.datatype == BYTES:
        return bytes_array([b""] * int(np.prod(shape)), shape)
    return np.zeros(shape, dtype=NUMPY[spec.datatype])
