"""The engine beside the gateway tells how it is when it is looked at, and with every answer."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import numpy as np
import pytest

from cluster.registry import EmbeddedRegistry
from edge_runtime.engine import Engine, EngineOptions, ModelOptions, ModelSource
from edge_runtime.protocol.types import InferRequest, Tensor
from policies.routing import Request
from serve_apps.gateway.local import IDLE_LOOK_S, LOOK_S, LocalTarget
from serve_apps.model_sync import ModelSync
from tests.edge_runtime.engine.gate import GateBackend, until
from tests.edge_runtime.engine.test_engine import ANYWHERE

MODEL = ("m", "1")
REQUEST = InferRequest("m", None, (Tensor("x", "FP32", np.ones((1, 1), np.float32)),))


class Beside:
    """A target, its engine, a backend that answers while its gate is open, and the time."""

    def __init__(self, registry: EmbeddedRegistry) -> None:
        self.now = 100.0
        self.backend = GateBackend()
        self.engine = Engine(EngineOptions(threads=1), {"gate": lambda *_: self.backend})
        sync = ModelSync(self.engine, registry, "colocated", ModelOptions())
        self.target = LocalTarget("colocated", "dc", self.engine, sync, lambda: self.now)

    @property
    def heard_at(self) -> float:
        """When the engine was last looked at, by a decision that is made now at the latest."""
        return self.target.view(MODEL).heard_at

    @property
    def is_running(self) -> bool:
        load = self.engine.load_of(MODEL)
        return load is not None and load.running == 1

    async def answer(self) -> None:
        deadline = asyncio.get_running_loop().time() + 10.0
        await self.target.infer(
            REQUEST, "1", Request(10.0), deadline=deadline, priority=0, patience_s=None
        )


@pytest.fixture
async def beside(registry: EmbeddedRegistry) -> AsyncIterator[Beside]:
    made = Beside(registry)
    await made.engine.load(ModelSource.of("m", "1", ANYWHERE, "gate", ModelOptions()))
    yield made
    made.backend.gate.set()
    await made.engine.close()


def _is_looked_at_again_after(beside: Beside, seconds: float) -> None:
    first = beside.heard_at
    beside.now += 0.9 * seconds
    assert beside.heard_at == first
    beside.now += 0.2 * seconds
    assert beside.heard_at == beside.now


async def test_an_idle_engine_is_looked_at_again_after_a_while(beside: Beside) -> None:
    _is_looked_at_again_after(beside, IDLE_LOOK_S)


async def test_an_answer_is_a_look(beside: Beside) -> None:
    assert beside.heard_at == beside.now
    beside.now += 0.9 * IDLE_LOOK_S
    await beside.answer()
    assert beside.heard_at == beside.now
    _is_looked_at_again_after(beside, IDLE_LOOK_S)


async def test_a_busy_engine_is_looked_at_again_soon(beside: Beside) -> None:
    beside.backend.gate.clear()
    under_way = asyncio.create_task(beside.answer())
    await until(lambda: beside.is_running)
    _is_looked_at_again_after(beside, LOOK_S)
    beside.backend.gate.set()
    await under_way


async def test_a_version_that_went_while_it_answered_is_not_taken_to_be_there(
    beside: Beside,
) -> None:
    assert beside.target.view(MODEL).has_model
    beside.backend.gate.clear()
    under_way = asyncio.create_task(beside.answer())
    await until(lambda: beside.is_running)
    unloading = asyncio.create_task(beside.engine.unload(*MODEL))
    await until(lambda: beside.engine.load_of(MODEL) is None)
    beside.now += 0.9 * IDLE_LOOK_S
    beside.backend.gate.set()
    await asyncio.gather(under_way, unloading)
    beside.now += 0.15 * IDLE_LOOK_S  # an answer without a load is no look
    assert not beside.target.view(MODEL).has_model
