"""A made-up request that fits a signature, to run a model before anybody waits for it."""

from __future__ import annotations

import numpy as np

from edge_runtime.engine.batch import Work
from edge_runtime.protocol.binary import bytes_array
from edge_runtime.protocol.datatypes import BYTES, NUMPY
from edge_runtime.protocol.types import Array, Signature, TensorSpec

MAX_ELEMENTS = 64 * 1024 * 1024


def sample_work(signature: Signature, rows: int) -> Work | None:
    """Return zeros of the model's shapes (free dimensions are 1), or None if that is too large."""
    is_batched = signature.is_batched
    inputs: dict[str, Array] = {}
    for spec in signature.inputs:
        shape = _shape(spec, rows if is_batched else 1)
        if np.prod(shape, dtype=np.float64) > MAX_ELEMENTS:
            return None
        inputs[spec.name] = _zeros(spec, shape)
    outputs = tuple(spec.name for spec in signature.outputs)
    return Work(inputs, outputs, rows if is_batched else 1, None)


def _shape(spec: TensorSpec, rows: int) -> tuple[int, ...]:
    free = [1 if dim < 0 else dim for dim in spec.shape]
    if spec.shape and spec.shape[0] < 0:
        free[0] = rows
    return tuple(free)


def _zeros(spec: TensorSpec, shape: tuple[int, ...]) -> Array:
    if spec.datatype == BYTES:
        return bytes_array([b""] * int(np.prod(shape)), shape)
    return np.zeros(shape, dtype=NUMPY[spec.datatype])
