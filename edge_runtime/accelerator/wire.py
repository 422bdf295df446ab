"""What the runtime and the accelerator host say to each other.

One Unix SEQPACKET socket, one message a packet: a kind (one byte) and a body. Tensors do not
travel: they lie in memory that both map (a memfd, passed with the message that loads a model), in
slots of one batch each. A slot belongs to the runtime, then to the host from RUN to DONE, then to
the runtime again. A host that has failed never gets its memory back: it is killed, and the next
one is given fresh memory, so a late write of the device cannot reach an answer.

This module keeps to Python 3.9 and numpy 1.24: the host imports it too.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

# From the runtime.
LOAD = b"L"  # JSON, with a memfd: see `load_message`
UNLOAD = b"U"  # JSON: model
RUN = b"R"  # RUN_BODY
# From the host.
HELLO = b"H"  # JSON: what the device is, or why there is none
LOADED = b"L"  # JSON: model, and error where it failed
DONE = b"D"  # DONE_BODY, then a text when the status is not 0
SENSED = b"S"  # JSON: temperature, throttling, power

RUN_BODY = struct.Struct("<QIII")  # job, model, slot, rows
DONE_BODY = struct.Struct("<QiQ")  # job, status (0: done), nanoseconds on the device
MAX_MESSAGE = 64 * 1024
ALIGNMENT = 64

NUMPY: Mapping[str, Any] = {
    "FP32": np.float32,
    "FP16": np.float16,
    "UINT8": np.uint8,
    "INT8": np.int8,
    "UINT16": np.uint16,
    "INT16": np.int16,
    "INT32": np.int32,
    "INT64": np.int64,
}


@dataclass(frozen=True)
class Field:
    """A tensor of a model: shape without the batch. datatype: a key of NUMPY."""

    name: str
    datatype: str
    shape: tuple[int, ...]

    @property
    def row_bytes(self) -> int:
        count = 1
        for size in self.shape:
            count *= size
        return int(count * np.dtype(NUMPY[self.datatype]).itemsize)


class Slots:
    """Where tensors lie in a model's shared memory: slot by slot, inputs before outputs."""

    def __init__(
        self, inputs: Sequence[Field], outputs: Sequence[Field], max_rows: int, count: int
    ) -> None:
        self.inputs = tuple(inputs)
        self.outputs = tuple(outputs)
        self.max_rows = max_rows
        self.count = count
        self._offsets: list[int] = []
        at = 0
        for field in (*self.inputs, *self.outputs):
            self._offsets.append(at)
            at += -(-field.row_bytes * max_rows // ALIGNMENT) * ALIGNMENT
        self.slot_bytes = at
        self.size_bytes = at * count

    def views(self, memory: Any, slot: int) -> tuple[list[Any], list[Any]]:
        """Return a slot's input and output arrays, [max_rows, ...] each, over mapped memory."""
        arrays = []
        for field, offset in zip((*self.inputs, *self.outputs), self._offsets):
            dtype = np.dtype(NUMPY[field.datatype])
            count = self.max_rows * (field.row_bytes // dtype.itemsize)
            flat = np.frombuffer(memory, dtype, count, slot * self.slot_bytes + offset)
            arrays.append(flat.reshape(self.max_rows, *field.shape))
        return arrays[: len(self.inputs)], arrays[len(self.inputs) :]


def load_message(model: int, path: str, slots: Slots) -> bytes:
    """Return the LOAD message of a model; its memfd goes with it."""
    return LOAD + encode(
        {
            "model": model,
            "path": path,
            "inputs": [[f.name, f.datatype, list(f.shape)] for f in slots.inputs],
            "outputs": [[f.name, f.datatype, list(f.shape)] for f in slots.outputs],
            "max_rows": slots.max_rows,
            "slots": slots.count,
        }
    )


def read_slots(document: Mapping[str, Any]) -> Slots:
    """Return the slots that a LOAD message describes."""
    return Slots(
        [Field(name, kind, tuple(shape)) for name, kind, shape in document["inputs"]],
        [Field(name, kind, tuple(shape)) for name, kind, shape in document["outputs"]],
        int(document["max_rows"]),
        int(document["slots"]),
    )


def encode(document: Mapping[str, Any]) -> bytes:
    """Return a JSON body."""
    return json.dumps(document, separators=(",", ":")).encode()


def decode(body: bytes) -> Any:
    """Read a JSON body."""
    return json.loads(body)
