"""A model on the accelerator: its tensors in shared memory, and its runs.

The model outlives the hosts that compute it. Each host that loads it gives it fresh memory; when
that host ends, what was under way is lost and the memory is dropped with it.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from edge_runtime.accelerator.runtimes import RunTimes
from edge_runtime.accelerator.wire import NUMPY, Field, Slots
from edge_runtime.backends.base import AcceleratorFault
from edge_runtime.engine.source import Variant
from edge_runtime.errors import InvalidInput, Unsupported
from edge_runtime.protocol.types import ANY_DIM, Array, Signature, TensorSpec

SLOTS: Final = 3  # one computed, one being filled or read, one for a probe
DEPTH: Final = 2

Submit = Callable[["AcceleratorModel", "Slot", int], Awaitable[float]]


@dataclass(slots=True, eq=False)
class _Loaded:
    """A model in the memory of one host; free: slots that nobody uses."""

    memory: Any
    inputs: list[list[Array]]
    outputs: list[list[Array]]
    free: list[int]


@dataclass(frozen=True, slots=True, eq=False)
class Slot:
    """The place of one batch, from `_take` to `release`; it stays that of the host it was in."""

    number: int
    loaded: _Loaded

    def release(self) -> None:
        """Let another batch have it. Once, and not while the host may still write into it."""
        self.loaded.free.append(self.number)


class AcceleratorModel:
    """A version on the accelerator; an `AcceleratorBackend`.

    submit: runs a filled slot's rows, and returns when its outputs are there, the seconds that the
    device took; the slot is the caller's then, and otherwise its business. device_why: why the
    device as a whole takes nothing; forget: takes the model off it.
    is_pinned: it stays on the device; failed_loads: in a row; retry_at: when a load that failed is
    tried again while its host lives, on the loop's clock, None for never.
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
        *,
        asked_at: float,
        is_pinned: bool,
    ) -> None:
        self.number = number
        self.label = label
        self.variants = tuple(variants)
        self.signature = signature
        rows = max_rows if signature.is_batched else 1
        inputs, outputs = (_fields(s, signature) for s in (signature.inputs, signature.outputs))
        self.slots = Slots(inputs, outputs, rows, SLOTS)
        self.times = RunTimes()
        self.has_run = False  # since it was put on; the first run also sets the device up
        self.asked_at = asked_at
        self.is_pinned = is_pinned
        self.failed_loads = 0
        self.retry_at: float | None = None
        self._problem = "not loaded yet"
        self._submit = submit
        self._device_why = device_why
        self._is_careful = is_careful
        self._forget = forget
        self._loaded: _Loaded | None = None

    @property
    def depth(self) -> int:
        return 1 if self._is_careful() else DEPTH

    @property
    def why(self) -> str:
        return self._device_why() or self._problem

    @property
    def is_loaded(self) -> bool:
        return self._loaded is not None

    @property
    def is_busy(self) -> bool:
        return self._loaded is not None and len(self._loaded.free) < SLOTS

    @property
    def free_slots(self) -> int:
        """Slots that nobody uses, 0 while it is not loaded."""
        return 0 if self._loaded is None else len(self._loaded.free)

    def attach(self, memory: Any) -> None:
        """The host has loaded it; memory is mapped by both."""
        views = [self.slots.views(memory, slot) for slot in range(self.slots.count)]
        self._loaded = _Loaded(
            memory,
            [inputs for inputs, _ in views],
            [outputs for _, outputs in views],
            list(range(self.slots.count)),
        )
        self._problem = ""
        self.has_run = False
        self.failed_loads = 0
        self.retry_at = None

    def detach(self, problem: str) -> None:
        """The host is gone, or could not load it."""
        self._loaded = None
        self._problem = problem

    async def run(
        self, rows: Sequence[Mapping[str, Array]], outputs: Sequence[str]
    ) -> tuple[list[list[Array]], float]:
        """Compute requests as one batch; a request larger than a slot takes several turns.

        Beside the outputs it returns the seconds that the device took.
        """
        counts = [self._rows_of(work) for work in rows]
        total = sum(counts)
        known = [field.name for field in self.slots.outputs]
        if unknown := [name for name in outputs if name not in known]:
            raise InvalidInput(f"the model has no output '{unknown[0]}'", field=unknown[0])
        positions = [known.index(name) for name in outputs]
        if self.why:
            raise AcceleratorFault(self.why)
        found = [
            np.empty((total, *field.shape), NUMPY[field.datatype])
            for field in (self.slots.outputs[at] for at in positions)
        ]
        device_s = 0.0
        for begin in range(0, total, self.slots.max_rows):
            end = min(total, begin + self.slots.max_rows)
            device_s += await self._run_slot(rows, (begin, end), positions, found)
        parts: list[list[Array]] = []
        at = 0
        for count in counts:
            parts.append([array[at : at + count] for array in found])
            at += count
        return parts, device_s

    async def probe(self) -> float:
        """Run one row of zeros; return the seconds that it took. Raises AcceleratorFault."""
        zeros = {
            field.name: np.zeros((1, *field.shape), NUMPY[field.datatype])
            for field in self.slots.inputs
        }
        return await self._run_slot([zeros], (0, 1), [], [])

    def close(self) -> None:
        self._forget(self)
        self.detach("unloaded")

    async def _run_slot(
        self,
        rows: Sequence[Mapping[str, Array]],
        span: tuple[int, int],
        positions: Sequence[int],
        found: Sequence[Array],
    ) -> float:
        slot = self._take()
        begin, end = span
        _fill(slot.loaded.inputs[slot.number], rows, self.slots.inputs, begin, end)
        # From here on the slot is the host's, until its run has ended, whether or not anybody
        # still waits for it.
        device_s = await self._submit(self, slot, end - begin)
        for position, target in zip(positions, found, strict=True):
            target[begin:end] = slot.loaded.outputs[slot.number][position][: end - begin]
        slot.release()
        return device_s

    def _take(self) -> Slot:
        loaded = self._loaded
        if loaded is None:
            raise AcceleratorFault(self._problem)
        if not loaded.free:
            raise AcceleratorFault("all its memory is in use")
        return Slot(loaded.free.pop(), loaded)

    def _rows_of(self, work: Mapping[str, Array]) -> int:
        """Return a request's rows. Raises InvalidInput where it does not fit the model."""
        counts = []
        for field in self.slots.inputs:
            array = work.get(field.name)
            if array is None:
                raise InvalidInput(f"input '{field.name}' is missing", field=field.name)
            if array.dtype != NUMPY[field.datatype] or array.shape[1:] != field.shape:
                raise InvalidInput(
                    f"input '{field.name}' is {array.dtype} of shape {list(array.shape)}, the model"
                    f" takes {field.datatype} of [rows, {', '.join(map(str, field.shape))}]",
                    field=field.name,
                )
            counts.append(len(array))
        if len(set(counts)) != 1:
            raise InvalidInput(f"the inputs have {counts} rows", field=self.slots.inputs[-1].name)
        if not self.signature.is_batched and counts[0] != 1:
            raise InvalidInput(f"the model takes one row, got {counts[0]}")
        return counts[0]


def _fill(
    target: Sequence[Array],
    rows: Sequence[Mapping[str, Array]],
    fields: Sequence[Field],
    begin: int,
    end: int,
) -> None:
    """Copy rows begin to end of all requests, counted through, into a slot."""
    at = 0
    for work in rows:
        count = len(work[fields[0].name])
        first, last = max(begin, at), min(end, at + count)
        if first < last:
            for array, field in zip(target, fields, strict=True):
                array[first - begin : last - begin] = work[field.name][first - at : last - at]
        at += count


def _fields(specs: Sequence[TensorSpec], signature: Signature) -> list[Field]:
    """Return tensors as the host knows them. Raises Unsupported."""
    leading = ANY_DIM if signature.is_batched else 1
    found: list[Field] = []
    for spec in specs:
        if spec.datatype not in NUMPY:
            raise Unsupported(f"'{spec.name}' is {spec.datatype}, which no accelerator takes")
        if spec.shape[:1] != (leading,) or any(size < 1 for size in spec.shape[1:]):
            raise Unsupported(
                f"'{spec.name}' has shape {list(spec.shape)}: an accelerator needs a batch"
                " dimension and fixed sizes behind it"
            )
        found.append(Field(spec.name, spec.datatype, tuple(spec.shape[1:])))
    if not found:
        raise Unsupported("an accelerator needs inputs and outputs")
    return found
