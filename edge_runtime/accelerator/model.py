"""A model on the accelerator: its tensors in shared memory, and its runs.

The model outlives the hosts that compute it. Each host that loads it gives it fresh memory; when
that host ends, what was under way is lost and the memory is dropped with it.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from edge_runtime.accelerator.wire import NUMPY, Field, Slots
from edge_runtime.backends.base import AcceleratorFault
from edge_runtime.engine.source import Variant
from edge_runtime.errors import Unsupported
from edge_runtime.protocol.types import ANY_DIM, Array, Signature, TensorSpec

SLOTS: Final = 3  # one computed, one being filled or read, one for a probe
DEPTH: Final = 2
MIN_LIMIT_S: Final = 0.25  # a run that takes longer than this and ...
LIMIT_FACTOR: Final = 10.0  # ... this many times the 99th percentile hangs
FIRST_LIMIT_S: Final = 5.0  # while nothing is known; the first run also sets the device up
SAMPLES: Final = 200
_RECOUNT: Final = 20

Submit = Callable[["AcceleratorModel", int, int], Awaitable[None]]


@dataclass(slots=True, eq=False)
class _Loaded:
    """A model in the memory of one host; free: slots that nobody uses."""

    memory: Any
    inputs: list[list[Array]]
    outputs: list[list[Array]]
    free: list[int]


class AcceleratorModel:
    """A version on the accelerator; an `AcceleratorBackend`.

    submit: runs a filled slot's rows, and returns when its outputs are there; device_why: why the
    device as a whole takes nothing; forget: takes the model off the device.
    """

    name = "hailort"
    platform = "hailort_hef"

    def __init__(
        self,
        number: int,
        label: str,
        variants: Sequence[Variant],
        signature: Signature,
        max_rows: int,
        submit: Submit,
        device_why: Callable[[], str],
        is_careful: Callable[[], bool],
        forget: Callable[[AcceleratorModel], None],
    ) -> None:
        self.number = number
        self.label = label
        self.variants = tuple(variants)
        self.signature = signature
        rows = max_rows if signature.is_batched else 1
        self.slots = Slots(_fields(signature.inputs), _fields(signature.outputs), rows, SLOTS)
        self.problem = "not loaded yet"
        self._submit = submit
        self._device_why = device_why
        self._is_careful = is_careful
        self._forget = forget
        self._loaded: _Loaded | None = None
        self._seconds: deque[float] = deque(maxlen=SAMPLES)
        self._since_recount = _RECOUNT
        self._p99_s = 0.0

    @property
    def depth(self) -> int:
        return 1 if self._is_careful() else DEPTH

    @property
    def why(self) -> str:
        return self._device_why() or self.problem

    @property
    def is_loaded(self) -> bool:
        return self._loaded is not None

    @property
    def limit_s(self) -> float:
        """Seconds after which a run that has not ended hangs."""
        if not self._seconds:
            return FIRST_LIMIT_S
        if self._since_recount >= _RECOUNT:
            ordered = sorted(self._seconds)
            self._p99_s = ordered[math.ceil(0.99 * len(ordered)) - 1]
            self._since_recount = 0
        return max(LIMIT_FACTOR * self._p99_s, MIN_LIMIT_S)

    @property
    def typical_s(self) -> float:
        """Seconds that most runs stay below, 0 while nothing is known."""
        return self._p99_s

    def attach(self, memory: Any) -> None:
        """The host has loaded it; memory is mapped by both."""
        views = [self.slots.views(memory, slot) for slot in range(self.slots.count)]
        self._loaded = _Loaded(
            memory,
            [inputs for inputs, _ in views],
            [outputs for _, outputs in views],
            list(range(self.slots.count)),
        )
        self.problem = ""

    def detach(self, problem: str) -> None:
        """The host is gone, or could not load it."""
        self._loaded = None
        self.problem = problem

    def saw(self, seconds: float) -> None:
        """Learn from a run that has ended well."""
        self._seconds.append(seconds)
        self._since_recount += 1

    async def run(
        self, rows: Sequence[Mapping[str, Array]], outputs: Sequence[str]
    ) -> list[list[Array]]:
        """Compute requests as one batch; a request larger than a slot takes several turns."""
        if self.why:
            raise AcceleratorFault(self.why)
        names = [field.name for field in self.slots.inputs]
        counts = [len(work[names[0]]) for work in rows]
        total = sum(counts)
        wanted = {field.name: at for at, field in enumerate(self.slots.outputs)}
        positions = [wanted[name] for name in outputs]
        found = [
            np.empty((total, *field.shape), NUMPY[field.datatype])
            for field in (self.slots.outputs[at] for at in positions)
        ]
        for begin in range(0, total, self.slots.max_rows):
            end = min(total, begin + self.slots.max_rows)
            await self._run_slot(rows, names, (begin, end), positions, found)
        parts: list[list[Array]] = []
        at = 0
        for count in counts:
            parts.append([array[at : at + count] for array in found])
            at += count
        return parts

    async def probe(self) -> None:
        """Run one row of zeros. Raises AcceleratorFault."""
        zeros = {
            field.name: np.zeros((1, *field.shape), NUMPY[field.datatype])
            for field in self.slots.inputs
        }
        names = [field.name for field in self.slots.inputs]
        await self._run_slot([zeros], names, (0, 1), [], [])

    def close(self) -> None:
        self._forget(self)
        self.detach("unloaded")

    async def _run_slot(
        self,
        rows: Sequence[Mapping[str, Array]],
        names: Sequence[str],
        span: tuple[int, int],
        positions: Sequence[int],
        found: Sequence[Array],
    ) -> None:
        loaded = self._loaded
        if loaded is None:
            raise AcceleratorFault(self.problem)
        if not loaded.free:
            raise AcceleratorFault("all its memory is in use")
        slot = loaded.free.pop()
        begin, end = span
        _fill(loaded.inputs[slot], rows, names, begin, end)
        # From here on the slot is the host's; it comes back by `release` when the run has ended,
        # whether or not anybody still waits for it.
        await self._submit(self, slot, end - begin)
        for position, target in zip(positions, found, strict=True):
            target[begin:end] = loaded.outputs[slot][position][: end - begin]
        loaded.free.append(slot)

    def release(self, slot: int) -> None:
        """A run that nobody waits for any more has ended."""
        if self._loaded is not None:
            self._loaded.free.append(slot)


def _fill(
    target: Sequence[Array],
    rows: Sequence[Mapping[str, Array]],
    names: Sequence[str],
    begin: int,
    end: int,
) -> None:
    """Copy rows begin to end of all requests, counted through, into a slot."""
    at = 0
    for work in rows:
        count = len(work[names[0]])
        first, last = max(begin, at), min(end, at + count)
        if first < last:
            for array, name in zip(target, names, strict=True):
                array[first - begin : last - begin] = work[name][first - at : last - at]
        at += count


def _fields(specs: Sequence[TensorSpec]) -> list[Field]:
    """Return tensors as the host knows them. Raises Unsupported."""
    found: list[Field] = []
    for spec in specs:
        if spec.datatype not in NUMPY:
            raise Unsupported(f"'{spec.name}' is {spec.datatype}, which no accelerator takes")
        first, *inner = spec.shape or (0,)
        if first not in (ANY_DIM, 1) or any(size < 1 for size in inner):
            raise Unsupported(
                f"'{spec.name}' has shape {list(spec.shape)}: an accelerator needs a batch"
                " dimension and fixed sizes behind it"
            )
        found.append(Field(spec.name, spec.datatype, tuple(inner)))
    return found
