"""An accelerator over the stand-in, in virtual time, with models that give y = 2 x + 1."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edge_runtime.accelerator.device import HailoAccelerator
from edge_runtime.accelerator.model import SLOTS, AcceleratorModel
from edge_runtime.engine.runner import ModelOptions
from edge_runtime.engine.source import ModelSource, Variant
from edge_runtime.protocol.types import Signature, TensorSpec
from tests.edge_runtime.accelerator.standin import StandIn, StandInHost
from tests.edge_runtime.accelerator.virtual import VirtualLoop

WIDTH = 4
SIGNATURE = Signature(
    (TensorSpec("x", "FP32", (-1, WIDTH)),), (TensorSpec("y", "FP32", (-1, WIDTH)),)
)

Floats = NDArray[np.float32]


def source(name: str = "m", max_rows: int = 4, target: str = "hailo8") -> ModelSource:
    variants = (Variant("hef", Path("m.hef"), target),)
    return ModelSource(name, "1", variants, ModelOptions(max_batch_size=max_rows))


def numbers(*rows: int, start: float = 0.0) -> list[Floats]:
    """Return requests of so many rows, no value of which comes twice."""
    found = []
    for count in rows:
        flat = np.arange(count * WIDTH, dtype=np.float32) + np.float32(start)
        found.append(flat.reshape(count, WIDTH))
        start += count * WIDTH
    return found


async def ask(model: AcceleratorModel, requests: Sequence[Floats]) -> None:
    """Run requests as one batch, and check every number of the answers."""
    before = [x.copy() for x in requests]
    answers, _ = await model.run([{"x": x} for x in requests], ["y"])
    assert len(answers) == len(requests)
    for x, kept, (y,) in zip(requests, before, answers, strict=True):
        assert np.array_equal(x, kept)
        assert np.array_equal(y, 2 * x + 1)


class Bench:
    def __init__(self) -> None:
        self.loop = VirtualLoop()
        self.standin = StandIn()
        self.plan = self.standin.plan
        self.accelerator = HailoAccelerator(["first", "second"], start_host=self.standin.start)

    def start(self) -> None:
        async def start() -> None:
            self.accelerator.start()

        self.loop.run(start())

    @property
    def host(self) -> StandInHost:
        return self.standin.host

    def open(self, name: str = "m", max_rows: int = 4, target: str = "hailo8") -> AcceleratorModel:
        model = self.loop.run(self.accelerator.open(source(name, max_rows, target), SIGNATURE))
        assert model is not None
        return model

    def hear(self, *messages: bytes) -> None:
        """Let the host say something."""
        host = self.host

        async def say() -> None:
            for message in messages:
                host.say(message)

        self.loop.run(say())

    def asking(self, model: AcceleratorModel, *rows: int) -> asyncio.Task[None]:
        """Send a batch, as far as the host."""
        task = self.loop.create_task(ask(model, numbers(*(rows or (1,)))))
        self.loop.live(0.0)
        return task

    def ask(self, model: AcceleratorModel, *rows: int) -> None:
        self.loop.run(ask(model, numbers(*(rows or (1,)))))

    def until(self, condition: Callable[[], bool], at_most_s: float = 30.0) -> None:
        self.loop.live_until(condition, at_most_s, 0.01)

    def until_it_serves(self, at_most_s: float = 30.0) -> None:
        self.until(lambda: not self.accelerator.why, at_most_s)

    def finish(self) -> None:
        """End it; nothing may be left of it."""
        self.loop.run(self.accelerator.close())
        assert not self.standin.running
        assert all(host.is_reaped for host in self.standin.hosts)
        self.loop.finish()


def is_whole(model: AcceleratorModel) -> bool:
    """Tell whether every slot of a loaded model is free."""
    return model.free_slots == SLOTS
