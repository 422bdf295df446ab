"""A backend whose runs wait until a test lets them go on; it satisfies the backend contract."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from edge_runtime.backends.base import Cancelled
from edge_runtime.protocol.types import Array, InferRequest, Signature, Tensor, TensorSpec

SIGNATURE = Signature(
    (TensorSpec("x", "FP32", (-1, -1)),),
    (TensorSpec("y", "FP32", (-1, -1)),),
)


Floats = NDArray[np.float32]


def doubled(x: Floats) -> Floats:
    return x * np.float32(2)


class GateBackend:
    """Gives y = compute(x), by default 2 x, once the gate is open; notes what it ran and where."""

    name = "gate"
    platform = "test"
    is_data_dependent = False

    def __init__(
        self,
        compute: Callable[[Floats], Floats] = doubled,
        *,
        is_open: bool = True,
        is_deaf: bool = False,
        signature: Signature = SIGNATURE,
    ) -> None:
        self.signature = signature
        self.compute = compute
        self.is_deaf = is_deaf
        self.gate = threading.Event()
        self.inputs: list[Floats] = []
        self.threads: list[str] = []
        self.aborted = 0
        self.is_closed = False
        if is_open:
            self.gate.set()

    @property
    def rows(self) -> list[int]:
        """Rows of each run that began."""
        return [len(x) for x in self.inputs]

    def prepare(self, inputs: Mapping[str, Array], outputs: Sequence[str]) -> GateRun:
        return GateRun(self, np.asarray(inputs["x"], dtype=np.float32))

    def close(self) -> None:
        self.is_closed = True


class GateRun:
    def __init__(self, backend: GateBackend, x: Floats) -> None:
        self._backend = backend
        self._x = x
        self._is_aborted = threading.Event()

    def execute(self) -> list[Array]:
        backend = self._backend
        backend.threads.append(threading.current_thread().name)
        backend.inputs.append(self._x)
        while not backend.gate.wait(0.001):
            if self._is_aborted.is_set() and not backend.is_deaf:
                raise Cancelled
        return [backend.compute(self._x)]

    def abort(self) -> None:
        self._is_aborted.set()
        self._backend.aborted += 1


def request(*rows: Sequence[float], model: str = "m") -> InferRequest:
    return InferRequest(model, None, (Tensor("x", "FP32", np.array(rows, dtype=np.float32)),))


def later(seconds: float = 60.0) -> float:
    """Return a deadline on the running loop's clock."""
    return asyncio.get_running_loop().time() + seconds


async def until(condition: Callable[[], bool]) -> None:
    """Wait for a condition; the test's own time limit ends a wait in vain."""
    while not condition():  # noqa: ASYNC110 (what is waited for tells nobody)
        await asyncio.sleep(0.001)
