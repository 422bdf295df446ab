"""The classification extension: the top classes of an output instead of the tensor.

Each element is the text `score:index`, best first, one row per batch entry (Triton,
"Classification Extension"; labels are left out because models here carry none).
"""

from __future__ import annotations

import numpy as np

from edge_runtime.errors import InvalidInput
from edge_runtime.protocol.binary import bytes_array
from edge_runtime.protocol.datatypes import BYTES, numbers
from edge_runtime.protocol.types import InferRequest, Tensor


def classify_outputs(
    request: InferRequest, outputs: tuple[Tensor, ...], *, is_batched: bool
) -> tuple[Tensor, ...]:
    """Replace the outputs that the request wants classified. Raises as `classify` does."""
    tops = {output.name: output.classification for output in request.outputs}
    if not any(tops.values()):
        return outputs
    return tuple(
        classify(tensor, top, is_batched=is_batched) if (top := tops.get(tensor.name)) else tensor
        for tensor in outputs
    )


def classify(tensor: Tensor, top: int, *, is_batched: bool) -> Tensor:
    """Return a BYTES tensor [batch, top] (or [top]) of `score:index`, ties by lower index.

    Raises InvalidInput when the output is not numeric or top is not positive.
    """
    if tensor.datatype in (BYTES, "BOOL"):
        raise InvalidInput(
            f"output '{tensor.name}': {tensor.datatype} cannot be classified", field=tensor.name
        )
    if top < 1:
        raise InvalidInput(
            f"output '{tensor.name}': classification must be >= 1", field=tensor.name
        )
    scores = numbers(tensor.datatype, tensor.data)
    rows = scores.reshape(len(scores), -1) if is_batched and scores.ndim else scores.reshape(1, -1)
    kept = min(top, rows.shape[1])
    order = np.argsort(-rows.astype(np.float64), axis=1, kind="stable")[:, :kept]
    text = [
        f"{rows[row, index]:f}:{index}".encode() for row in range(len(rows)) for index in order[row]
    ]
    shape = (len(rows), kept) if is_batched and scores.ndim else (kept,)
    return Tensor(tensor.name, BYTES, bytes_array(text, shape))
