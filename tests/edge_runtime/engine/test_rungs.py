from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from edge_runtime.backends.base import BackendOptions
from edge_runtime.backends.onnx import load_onnx
from edge_runtime.engine.batch import check
from edge_runtime.engine.jobs import Batch, Timing
from edge_runtime.engine.rungs import AcceleratorRung, Ladder, ProcessorRung
from edge_runtime.engine.times import ServiceTimes
from edge_runtime.protocol.types import Array, Signature, Tensor, TensorSpec
from policies.degradation import FAST_RUNS, PROBE_EVERY_S, SLACK_S, SLOW_RUNS
from tests.edge_runtime.engine.gate import GateBackend
from tests.edge_runtime.onnx_models import linear

QUICK_S = 0.002
DEVICE_S = 0.001


class Device:
    """An accelerator backend whose answers wait for others on it."""

    name = "device"
    platform = "test"
    depth = 2
    why = ""

    def __init__(self, signature: Signature) -> None:
        self.signature = signature
        self.asked_at = 0.0

    async def run(
        self, rows: Sequence[Mapping[str, Array]], outputs: Sequence[str]
    ) -> tuple[list[list[Array]], float]:
        await asyncio.sleep(2 * DEVICE_S)
        return [[np.zeros((1, 10), np.float32)] for _ in rows], DEVICE_S

    def close(self) -> None:
        return


@pytest.fixture
def ladder(tmp_path: Path) -> Ladder:
    """A device above a processor that takes 0.1 ms."""
    weights = np.zeros((4, 10), np.float32)
    backend = load_onnx(linear(tmp_path / "m.onnx", weights), BackendOptions())
    processor = ProcessorRung("onnx", backend, ThreadPoolExecutor(1), 1)
    processor.service.saw(1, 0.0001)
    return Ladder([AcceleratorRung("hailo", Device(backend.signature)), processor])


def run(ladder: Ladder, seconds: float, others_s: float = 0.0) -> None:
    timing = Timing(0, int((seconds + others_s) * 1e9), 0, 0, int(seconds * 1e9))
    ladder.ran(ladder.rungs[0], 1, timing)


def name_of_best(ladder: Ladder) -> str:
    best = ladder.best()
    assert best is not None
    return best.name


def test_a_device_that_is_much_slower_than_usual_steps_back_and_returns_on_trial(
    ladder: Ladder,
) -> None:
    run(ladder, QUICK_S)
    for _ in range(SLOW_RUNS):
        assert name_of_best(ladder) == "hailo"
        run(ladder, 10 * QUICK_S)
    assert name_of_best(ladder) == "onnx"
    assert ladder.reasons() == ["hailo: much slower than usual"]
    for turn in range(FAST_RUNS):
        now = 100.0 + turn * PROBE_EVERY_S
        rung = ladder.take(now)
        assert rung is not None
        assert rung.name == "hailo"
        again = ladder.take(now)  # one request in this time
        assert again is not None
        assert again.name == "onnx"
        run(ladder, QUICK_S)
    assert name_of_best(ladder) == "hailo"
    assert ladder.reasons() == []


@pytest.mark.parametrize("runs_before", [0, 1])
def test_runs_that_were_given_up_count_as_slow(ladder: Ladder, runs_before: int) -> None:
    """Whether or not a usual pace is known, and however slow the processor is."""
    ladder.rungs[1].service = ServiceTimes(has_fixed_rows=True)
    ladder.rungs[1].service.saw(1, 100 * QUICK_S)
    for _ in range(runs_before):
        run(ladder, QUICK_S)
    for _ in range(SLOW_RUNS):
        assert name_of_best(ladder) == "hailo"
        ladder.gave_up(ladder.rungs[0])
    assert name_of_best(ladder) == "onnx"


def test_a_busy_processor_and_other_models_do_not_make_a_device_slow(ladder: Ladder) -> None:
    """The processor would be quicker for so small a model, at any time."""
    run(ladder, QUICK_S)
    for _ in range(10 * SLOW_RUNS):
        run(ladder, QUICK_S + 0.9 * SLACK_S, others_s=0.3)
        assert name_of_best(ladder) == "hailo"


async def test_what_the_device_took_is_told_from_what_was_waited_for(ladder: Ladder) -> None:
    rung = ladder.rungs[0]
    assert isinstance(rung, AcceleratorRung)
    tensor = Tensor("x", "FP32", np.zeros((1, 4), np.float32))
    work = check(ladder.signature, [tensor], ())
    computed = await rung.compute(Batch([]), [work])
    assert computed.timing.device_ns == int(DEVICE_S * 1e9) < computed.timing.infer_ns


@pytest.mark.parametrize(
    ("spec", "is_data_dependent", "is_fixed"),
    [
        (TensorSpec("x", "FP32", (-1, 2)), False, True),
        (TensorSpec("x", "FP32", (-1, 2)), True, False),
        (TensorSpec("x", "FP32", (-1, -1)), False, False),
        (TensorSpec("x", "BYTES", (-1, 1)), False, False),
    ],
    ids=["fixed", "loops", "free dimension", "texts"],
)
def test_only_what_takes_as_long_for_any_request_may_run_on_the_loop(
    spec: TensorSpec, is_data_dependent: bool, is_fixed: bool
) -> None:
    backend = GateBackend(signature=Signature((spec,), (TensorSpec("y", "FP32", (-1, 1)),)))
    backend.is_data_dependent = is_data_dependent
    with ThreadPoolExecutor(1) as pool:
        rung = ProcessorRung("onnx", backend, pool, 1)
    rung.service.saw(1, QUICK_S / 100)
    assert rung.service.is_quick(1) == is_fixed
