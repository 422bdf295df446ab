"""An engine with a real child on a fake device; every answer of it is checked."""

from __future__ import annotations

import asyncio
import sys
import time
from collections import Counter
from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np

from edge_runtime.accelerator.device import HailoAccelerator
from edge_runtime.accelerator.model import AcceleratorModel
from edge_runtime.accelerator.process import HostProcess
from edge_runtime.engine import Engine, EngineOptions
from edge_runtime.engine.rungs import AcceleratorRung
from load.fake_hailo.device import DRIVER_PATH, FakeDevice
from tests.edge_runtime.accelerator import processes
from tests.edge_runtime.accelerator.networks import Compiled, assert_exact, assert_right, request
from tests.edge_runtime.engine.gate import later

RETURN_S = 10.0  # to the top rung, after a fault
PATIENCE_S = 30.0


class Box:
    def __init__(
        self,
        device: FakeDevice,
        pythons: Sequence[str] = (sys.executable,),
        max_models: int = 0,
    ) -> None:
        self.device = device
        start_host = partial(HostProcess, environment=device.environment())
        self.accelerator = HailoAccelerator(pythons, str(DRIVER_PATH), start_host, max_models)
        self.engine = Engine(EngineOptions(threads=2), accelerator=self.accelerator)
        self.nets: dict[str, Compiled] = {}
        self.answered: Counter[str] = Counter()
        self.pids: set[int] = set()

    def start(self) -> None:
        self.accelerator.start()

    async def close(self) -> None:
        """End it; no child of it may be left."""
        self.note()
        await self.engine.close()
        await self.accelerator.close()
        assert not processes.children() & self.pids
        assert not self.device.is_in_use
        await asyncio.sleep(0)
        assert asyncio.all_tasks() == {asyncio.current_task()}

    async def load(self, net: Compiled, name: str = "m", **options: Any) -> None:
        self.nets[name] = net
        await self.engine.load(
            net.source(name, **{"max_queue_wait_ms": 1e3 * PATIENCE_S, **options})
        )
        self.note()

    async def ask(
        self, rows: int = 1, *outputs: str, model: str = "m", timeout_s: float = PATIENCE_S
    ) -> str:
        """Send one request, and check its answer; return which rung gave it."""
        net = self.nets[model]
        seed = sum(self.answered.values())
        x = net.images(rows, seed)
        kept = x.copy()
        runner = self.engine.runner(model, "1")
        answer = await runner.answer(request(x, *outputs, model=model), deadline=later(timeout_s))
        assert np.array_equal(x, kept)
        assert [tensor.name for tensor in answer.outputs] == list(outputs or ("map", "scores"))
        found = {tensor.name: np.asarray(tensor.data) for tensor in answer.outputs}
        check = assert_right if answer.rung == "hailo" else assert_exact
        check(net, x, found)
        self.answered[answer.rung] += 1
        return answer.rung

    async def ask_many(self, count: int, model: str = "m") -> Counter[str]:
        rungs = await asyncio.gather(*[self.ask(1 + n % 3, model=model) for n in range(count)])
        return Counter(rungs)

    async def until_it_serves(self, model: str = "m", within_s: float = PATIENCE_S) -> float:
        """Ask until the accelerator answers; return how long that took."""
        began = time.monotonic()
        while await self.ask(model=model) != "hailo":
            assert time.monotonic() - began < within_s, self.accelerator.why
            await asyncio.sleep(0.02)
        self.note()
        return time.monotonic() - began

    def model(self, name: str = "m") -> AcceleratorModel:
        rung = self.engine.runner(name, "1").ladder.rungs[0]
        assert isinstance(rung, AcceleratorRung)
        assert isinstance(rung.backend, AcceleratorModel)
        return rung.backend

    @property
    def pid(self) -> int:
        assert self.accelerator.host_pid is not None
        return self.accelerator.host_pid

    @property
    def faults(self) -> dict[str, int]:
        return self.accelerator.counts.faults

    def note(self) -> None:
        if self.accelerator.host_pid is not None:
            self.pids.add(self.accelerator.host_pid)
