"""Memory that models take and give back exactly, and an engine of gate backends on it."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Mapping
from pathlib import Path

from edge_runtime.auth import Principal
from edge_runtime.backends.base import Backend, BackendOptions
from edge_runtime.engine import Engine, EngineOptions, ModelOptions, ModelSource
from edge_runtime.protocol.service import CallContext
from edge_runtime.service import EngineService
from tests.edge_runtime.engine.gate import GateBackend, later, request

MIB = 1 << 20
CALLER = Principal("tester", frozenset({"infer", "models:write"}))


class Memory:
    """What a process has in use: `base` of its own, and its models."""

    def __init__(self, base: int = 50 * MIB) -> None:
        self.used = base

    def __call__(self) -> int:
        return self.used


class SizedBackend(GateBackend):
    """A gate backend that takes memory until it is closed."""

    def __init__(self, memory: Memory, size_bytes: int) -> None:
        super().__init__()
        self._memory = memory
        self._size_bytes = size_bytes
        memory.used += size_bytes

    def close(self) -> None:
        if not self.is_closed:
            self._memory.used -= self._size_bytes
        super().close()


class Loads:
    """Opens backends of known sizes, by the name of the file; counts, and may hold them up."""

    def __init__(self, memory: Memory, sizes: Mapping[str, int]) -> None:
        self._memory = memory
        self._sizes = sizes
        self.opened: list[str] = []
        self.backends: dict[str, SizedBackend] = {}
        self.gate = threading.Event()
        self.gate.set()
        self.error: Exception | None = None

    def __call__(self, artifact: Path, options: BackendOptions) -> Backend:
        name = artifact.name
        self.opened.append(name)
        self.gate.wait()
        if self.error is not None:
            raise self.error
        self.backends[name] = SizedBackend(self._memory, self._sizes[name])
        return self.backends[name]


class Place:
    """An engine's service over models of these sizes, limited in memory; `close` at the end."""

    def __init__(self, sizes: Mapping[str, int], limit: int, **options: float) -> None:
        self.memory = Memory()
        self.loads = Loads(self.memory, sizes)
        self.decided: list[tuple[str, str, bool]] = []
        self.engine = Engine(
            EngineOptions(threads=2, drain_s=5.0, max_model_bytes=limit),
            {"gate": self.loads},
            measure=self.memory,
        )
        self.sources = {
            name: ModelSource.of(
                name,
                "1",
                Path(name),
                "gate",
                ModelOptions(**options),  # type: ignore[arg-type]
            )
            for name in sizes
        }
        self.service = EngineService(
            self.engine, list(self.sources.values()), version="test", decided=self._decide
        )

    async def _decide(self, model: str, version: str, is_loaded: bool) -> None:
        self.decided.append((model, version, is_loaded))

    @property
    def loaded(self) -> set[str]:
        return {model for model, _ in self.engine.loaded}

    @property
    def evicted(self) -> set[str]:
        return {model for model, _ in self.engine.residency.evicted}

    async def load(self, *models: str) -> None:
        for model in models:
            await self.service.load_model(model, {}, context())

    async def ask(self, model: str, value: float = 1.0, seconds: float = 60.0) -> float:
        """Return twice the value, as every model here computes it."""
        found = await self.service.infer(request([value], model=model), context(seconds))
        return float(found.response.outputs[0].data[0][0])

    def asking(self, model: str, value: float = 1.0) -> asyncio.Task[float]:
        return asyncio.create_task(self.ask(model, value))

    def shut(self, model: str) -> None:
        """Let what this model computes from now on wait, off the loop, until its gate opens."""
        self.engine.runner(model, "1").service.saw(1, 0.05)
        self.loads.backends[model].gate.clear()

    async def close(self) -> None:
        self.loads.gate.set()
        for backend in self.loads.backends.values():
            backend.gate.set()
        await self.engine.close()


def context(seconds: float = 60.0) -> CallContext:
    return CallContext(principal=CALLER, deadline=later(seconds))
