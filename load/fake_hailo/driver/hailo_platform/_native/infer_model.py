"""The binding's side of InferModel: streams by name, their formats, configuration, bindings."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, TypeVar

import numpy as np

from .chip import Chip
from .enums import FormatOrder, FormatType, HailoFormatFlags
from .hef import Hef, Stream
from .network import Network, Port
from .pipeline import Array, Job, Pipeline
from .statuses import Status, failed

Item = TypeVar("Item")


@dataclass(frozen=True)
class QuantInfo:
    """value = (code - qp_zp) * qp_scale; limvals are the least and the largest value."""

    qp_zp: float
    qp_scale: float
    limvals_min: float
    limvals_max: float

    @staticmethod
    def of(stream: Stream) -> QuantInfo:
        """How this stream is quantised."""
        low, high = (((code - stream.zero_point) * stream.scale) for code in (0, 255))
        return QuantInfo(stream.zero_point, stream.scale, low, high)


@dataclass(frozen=True)
class Format:
    """Element type and order of a buffer."""

    type: FormatType
    order: FormatOrder
    flags: HailoFormatFlags = HailoFormatFlags.NONE


@dataclass
class StreamSettings:
    """What the caller has asked of a stream before configuring."""

    stream: Stream
    type: FormatType = FormatType.UINT8
    order: FormatOrder = FormatOrder.AUTO
    nms: dict[str, float] = field(default_factory=dict)

    @property
    def format(self) -> Format:
        """The format that buffers will have."""
        order = self.stream.order if self.order == FormatOrder.AUTO else self.order
        return Format(self.type, order)

    def set_type(self, wanted: FormatType) -> None:
        """Ask for an element type; AUTO is the device's own."""
        self.type = FormatType.UINT8 if wanted == FormatType.AUTO else FormatType(wanted)

    def port(self) -> Port:
        """The checked settings: 6 for what the library cannot convert."""
        if self.type not in (FormatType.UINT8, FormatType.FLOAT32):
            raise failed(Status.INVALID_OPERATION)
        if self.format.order not in (self.stream.order, FormatOrder.NHWC, FormatOrder.NCHW):
            raise failed(Status.INVALID_OPERATION)
        if self.nms:  # no stream of the fake has post-processing on the host
            raise failed(Status.INVALID_OPERATION)
        return Port(self.stream, self.type, self.format.order)


def pick(items: Mapping[str, Item], name: str) -> Item:
    """An item by name; the only one needs none. 61 otherwise."""
    if not name and len(items) == 1:
        return next(iter(items.values()))
    if name not in items:
        raise failed(Status.NOT_FOUND)
    return items[name]


class InferModelHandle:
    """A network that is known to the device and not yet configured."""

    def __init__(self, chip: Chip, hef: Hef) -> None:
        self._chip = chip
        self._hef = hef
        self.inputs = {stream.name: StreamSettings(stream) for stream in hef.inputs}
        self.outputs = {stream.name: StreamSettings(stream) for stream in hef.outputs}
        self.batch_size = 0

    def set_batch_size(self, batch_size: int) -> None:
        """Frames to a burst; the fake's chip takes no notice."""
        if not 0 <= batch_size <= 0xFFFF:
            raise TypeError("set_batch_size(): incompatible function arguments: not a uint16")
        self.batch_size = batch_size

    def configure(self) -> ConfiguredHandle:
        """Load the network."""
        if self._chip.broken:
            raise failed(self._chip.broken)
        inputs = {name: settings.port() for name, settings in self.inputs.items()}
        outputs = {name: settings.port() for name, settings in self.outputs.items()}
        network = Network(self._hef, inputs, outputs)
        return ConfiguredHandle(Pipeline(self._chip, network), tuple(inputs), tuple(outputs))


class BufferSlot:
    """Where a frame of one stream is read from or written to."""

    def __init__(self) -> None:
        self.buffer: Array | None = None

    def set_buffer(self, buffer: Array) -> None:
        """Remember the array; its size is looked at when a job is submitted."""
        if not isinstance(buffer, np.ndarray):
            raise TypeError("set_buffer(): incompatible function arguments")
        if not buffer.flags.writeable:  # also for inputs: the binding takes a mutable pointer
            raise ValueError("array is not writeable")
        self.buffer = buffer


class BindingsHandle:
    """The buffers of one frame."""

    def __init__(self, inputs: Sequence[str], outputs: Sequence[str]) -> None:
        self.inputs = {name: BufferSlot() for name in inputs}
        self.outputs = {name: BufferSlot() for name in outputs}

    def input(self, name: str) -> BufferSlot:
        """An input's slot."""
        return pick(self.inputs, name)

    def output(self, name: str) -> BufferSlot:
        """An output's slot."""
        return pick(self.outputs, name)


class JobHandle:
    """A job, for those who wait for it."""

    def __init__(self, job: Job) -> None:
        self._job = job

    def wait(self, timeout: timedelta) -> None:
        """Wait for the job and then for its callback."""
        self._job.wait(timeout.total_seconds())


class ConfiguredHandle:
    """Owns a pipeline: when this is destroyed, the pipeline is closed."""

    def __init__(self, pipeline: Pipeline, inputs: Sequence[str], outputs: Sequence[str]) -> None:
        self._pipeline = pipeline
        self._inputs = inputs
        self._outputs = outputs

    def __del__(self) -> None:
        """Join the callback thread."""
        self._pipeline.close()

    def create_bindings(self) -> BindingsHandle:
        """Empty bindings."""
        return BindingsHandle(self._inputs, self._outputs)

    def activate(self) -> None:
        """Take the chip."""
        self._pipeline.activate()

    def deactivate(self) -> None:
        """Give it back."""
        self._pipeline.deactivate()

    def wait_for_async_ready(self, timeout: timedelta, frames_count: int) -> None:
        """Wait for room in the queue."""
        self._pipeline.wait_until_ready(timeout.total_seconds(), frames_count)

    def run_async(
        self, bindings: Sequence[BindingsHandle], callback: Callable[[int], None]
    ) -> JobHandle:
        """Submit a job of one frame per binding."""
        frames = [(_buffers(b.inputs), _buffers(b.outputs)) for b in bindings]
        return JobHandle(self._pipeline.submit(frames, callback))

    def set_scheduler_option(self, value: Any) -> None:
        """Timeout, threshold and priority mean nothing on a single network's fake."""
        self._pipeline.require_scheduler()

    def get_async_queue_size(self) -> int:
        """Frames that may be under way."""
        return self._pipeline.queue_size

    def shutdown(self) -> None:
        """Abort everything."""
        self._pipeline.shut_down()


def _buffers(slots: Mapping[str, BufferSlot]) -> dict[str, Array | None]:
    return {name: slot.buffer for name, slot in slots.items()}
