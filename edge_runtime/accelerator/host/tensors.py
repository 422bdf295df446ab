"""From a model's tensors to a device's streams and back.

A device takes uint8 frames in NHWC order: q = round(x / scale) + zero point, cut to 0..255; it
gives the same (affine quantisation, Jacob et al., "Quantization and Training of Neural Networks
for Efficient Integer-Arithmetic-Only Inference", 2018). Models are described as they came from
ONNX: images in NCHW, vectors as (C,).
"""

from __future__ import annotations

from typing import Any

import numpy as np

from edge_runtime.accelerator.wire import NUMPY, Field


class Mismatch(Exception):
    """A model's tensor cannot be a stream of this network."""


class Stream:
    """A stream as the network describes it: shape of a frame, scale and zero point."""

    def __init__(self, name: str, shape: tuple[int, ...], scale: float, zero_point: float) -> None:
        self.name = name
        self.shape = tuple(shape)
        self.scale = float(scale) or 1.0
        self.zero_point = float(zero_point)


class Coder:
    """Turns rows of one tensor into frames of one stream, or frames into rows."""

    def __init__(self, field: Field, stream: Stream) -> None:
        self._field = field
        self._stream = stream
        self._axes = _axes(field, stream)
        self._dtype = np.dtype(NUMPY[field.datatype])
        self._bounds = _bounds(self._dtype)

    def encode(self, row: Any, frame: Any) -> None:
        """Write one row into a uint8 frame of the stream's shape."""
        ordered = row if self._axes is None else row.transpose(self._axes)
        ordered = ordered.reshape(self._stream.shape)
        if self._dtype == np.uint8:
            np.copyto(frame, ordered)  # the caller sends what the device takes
            return
        scaled = ordered.astype(np.float32)
        scaled *= np.float32(1.0 / self._stream.scale)
        scaled += np.float32(self._stream.zero_point)
        np.rint(scaled, out=scaled)
        np.clip(scaled, 0, 255, out=scaled)
        with np.errstate(invalid="ignore"):  # what is no number may become any code
            np.copyto(frame, scaled, casting="unsafe")

    def decode(self, frame: Any, row: Any) -> None:
        """Write one uint8 frame into a row of the model's tensor."""
        if self._dtype == np.uint8:
            values = frame
        else:
            values = frame.astype(np.float32)
            values -= np.float32(self._stream.zero_point)
            values *= np.float32(self._stream.scale)
            if self._bounds is not None:
                np.clip(np.rint(values, out=values), *self._bounds, out=values)
        if self._axes is None:
            np.copyto(row, values.reshape(self._field.shape), casting="unsafe")
        else:
            back = np.argsort(self._axes)
            np.copyto(row, values.transpose(back).reshape(self._field.shape), casting="unsafe")


def match(fields: Any, streams: Any) -> Any:
    """Pair a model's tensors with a network's streams: by name, else by their order.

    A stream's name is `network/layer`; either the whole or the part after the slash counts.
    Raises Mismatch.
    """
    if len(fields) != len(streams):
        raise Mismatch("the network has %d streams, the model %d" % (len(streams), len(fields)))
    by_name = {}
    for stream in streams:
        by_name[stream.name] = stream
        by_name.setdefault(stream.name.rpartition("/")[2], stream)
    if all(field.name in by_name for field in fields):
        return [(field, by_name[field.name]) for field in fields]
    return list(zip(fields, streams))


def _axes(field: Field, stream: Stream) -> tuple[int, ...] | None:
    """Return how a row's axes are permuted to be a frame's, None when they are not.

    A row of rank 3 is an image, channels first, unless only channels last fits.
    """
    shape, frame = field.shape, stream.shape
    if len(shape) == 3 and len(frame) == 3:
        if (shape[1], shape[2], shape[0]) == frame:
            return None if shape == frame and shape[0] == 1 else (1, 2, 0)
        if shape == frame:
            return None
    if _count(shape) == _count(frame) and sum(1 for size in frame if size > 1) <= 1:
        return None  # a vector, however it is written
    raise Mismatch(
        "tensor '%s' of shape %s cannot be stream '%s' of shape %s"
        % (field.name, list(shape), stream.name, list(frame))
    )


def _bounds(dtype: Any) -> tuple[int, int] | None:
    """Return the least and the largest value of a whole-number type."""
    if dtype.kind not in "iu":
        return None
    limits = np.iinfo(dtype)
    return int(limits.min), int(limits.max)


def _count(shape: tuple[int, ...]) -> int:
    count = 1
    for size in shape:
        count *= size
    return count
