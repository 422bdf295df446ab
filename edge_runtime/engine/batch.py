"""Checking a request against a model, stacking requests into a batch, and cutting it up again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from edge_runtime.errors import InvalidInput
from edge_runtime.protocol.types import ANY_DIM, Array, Signature, Tensor, TensorSpec

Bucket = tuple[object, ...]


@dataclass(frozen=True, slots=True, eq=False)
class Work:
    """A request that fits the model: arrays by input name, output names, rows of a batch.

    bucket: equal for requests that may be stacked; None when this model never stacks.
    """

    inputs: Mapping[str, Array]
    outputs: tuple[str, ...]
    rows: int
    bucket: Bucket | None


def check(signature: Signature, inputs: Sequence[Tensor], outputs: Sequence[str]) -> Work:
    """Fit a request to a signature. Raises InvalidInput naming the tensor that does not fit."""
    given = {tensor.name: tensor for tensor in inputs}
    rows: int | None = None
    arrays: dict[str, Array] = {}
    batched = signature.is_batched
    for spec in signature.inputs:
        tensor = given.pop(spec.name, None)
        if tensor is None:
            raise InvalidInput(
                f"input '{spec.name}' is missing",
                field=spec.name,
                hint="the model takes " + ", ".join(s.name for s in signature.inputs),
            )
        _check_tensor(spec, tensor)
        if batched:
            if rows is not None and tensor.shape[0] != rows:
                raise InvalidInput(
                    f"input '{spec.name}': batch of {tensor.shape[0]}, another input has {rows}",
                    field=spec.name,
                )
            rows = tensor.shape[0]
        arrays[spec.name] = tensor.data
    if given:
        name = next(iter(given))
        raise InvalidInput(
            f"the model has no input '{name}'",
            field=name,
            hint="the model takes " + ", ".join(s.name for s in signature.inputs),
        )
    if rows == 0:
        raise InvalidInput("the batch is empty", field=signature.inputs[0].name)
    names = tuple(outputs) or tuple(spec.name for spec in signature.outputs)
    known = {spec.name for spec in signature.outputs}
    for name in names:
        if name not in known:
            raise InvalidInput(
                f"the model has no output '{name}'",
                field=name,
                hint="the model gives " + ", ".join(s.name for s in signature.outputs),
            )
    bucket: Bucket | None = None
    if batched:
        bucket = (names, *(array.shape[1:] for array in arrays.values()))
    return Work(arrays, names, rows or 1, bucket)


def stack(works: Sequence[Work]) -> Mapping[str, Array]:
    """Join the inputs of one bucket along the batch dimension; a lone request is not copied."""
    if len(works) == 1:
        return works[0].inputs
    return {name: np.concatenate([work.inputs[name] for work in works]) for name in works[0].inputs}


def split(arrays: Sequence[Array], works: Sequence[Work]) -> list[list[Array]]:
    """Cut a batch's outputs into one list of arrays a request.

    Raises ValueError when an output's first dimension is not the rows of the batch.
    """
    if len(works) == 1:
        return [list(arrays)]
    total = sum(work.rows for work in works)
    for array in arrays:
        if array.ndim == 0 or len(array) != total:
            raise ValueError(f"an output has shape {array.shape} for a batch of {total} rows")
    parts: list[list[Array]] = []
    at = 0
    for work in works:
        parts.append([array[at : at + work.rows] for array in arrays])
        at += work.rows
    return parts


def _check_tensor(spec: TensorSpec, tensor: Tensor) -> None:
    if tensor.datatype != spec.datatype:
        raise InvalidInput(
            f"input '{spec.name}': the model takes {spec.datatype}, got {tensor.datatype}",
            field=spec.name,
        )
    shape = tensor.data.shape
    if len(shape) != len(spec.shape) or any(
        want not in (ANY_DIM, got) for want, got in zip(spec.shape, shape, strict=False)
    ):
        raise InvalidInput(
            f"input '{spec.name}': the model takes shape {list(spec.shape)}, got {list(shape)}",
            field=spec.name,
        )
