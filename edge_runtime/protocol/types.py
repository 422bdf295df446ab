"""The values that the Open Inference Protocol v2 speaks in, free of any transport.

REST and gRPC decode into `InferRequest` and encode from `InferResponse`; the engine, the
gateway and the edge runtime only ever see these. Tensor data is a numpy array that may be
a read-only view on the request body: nothing is copied until a batch is built.

Source: Open Inference Protocol v2 (KServe), with the binary tensor, model repository and
statistics extensions as Triton documents them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

ParameterValue = bool | int | float | str
Parameters = Mapping[str, ParameterValue]
Array = NDArray[np.generic]

ANY_DIM = -1


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """What a model takes or gives under one name.

    shape: one entry per dimension, -1 where any size goes; a leading -1 is the batch.
    datatype: an OIP name such as FP32 or BYTES.
    """

    name: str
    datatype: str
    shape: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Signature:
    """The inputs and outputs of a model, in the model's own order."""

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]

    @property
    def is_batched(self) -> bool:
        """True when every tensor leads with a free dimension, so requests may be stacked."""
        specs = (*self.inputs, *self.outputs)
        return bool(specs) and all(s.shape and s.shape[0] == ANY_DIM for s in specs)


@dataclass(frozen=True, slots=True, eq=False)
class Tensor:
    """One named tensor. BYTES is an object array of `bytes`; BF16 is kept as its uint16 bits."""

    name: str
    datatype: str
    data: Array

    @property
    def shape(self) -> tuple[int, ...]:
        return self.data.shape


@dataclass(frozen=True, slots=True)
class RequestedOutput:
    """An output the caller asked for; binary is None when the request's default holds.

    classification: number of top classes wanted instead of the tensor, 0 for the tensor.
    """

    name: str
    binary: bool | None = None
    classification: int = 0


@dataclass(frozen=True, slots=True, eq=False)
class InferRequest:
    """An inference call. outputs empty means every output; version None lets the server pick."""

    model: str
    version: str | None
    inputs: tuple[Tensor, ...]
    outputs: tuple[RequestedOutput, ...] = ()
    id: str = ""
    parameters: Parameters = field(default_factory=dict)
    binary_output_default: bool = False


@dataclass(frozen=True, slots=True, eq=False)
class InferResponse:
    """The answer to one call; outputs are in the order asked for."""

    model: str
    version: str
    outputs: tuple[Tensor, ...]
    id: str = ""
    parameters: Parameters = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ServerMetadata:
    name: str
    version: str
    extensions: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class ModelMetadata:
    name: str
    versions: tuple[str, ...]
    platform: str
    signature: Signature


@dataclass(frozen=True, slots=True)
class ModelConfig:
    """The part of a model's configuration that clients read (Triton's model configuration).

    max_batch_size: 0 when the model does not batch; max_queue_delay_us: how long the batcher waits.
    """

    name: str
    platform: str
    backend: str
    signature: Signature
    max_batch_size: int
    max_queue_delay_us: int
    instances: int
    parameters: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class RepositoryEntry:
    """A model version known to the repository; state is READY, UNAVAILABLE or LOADING."""

    name: str
    version: str
    state: str
    reason: str = ""


@dataclass(frozen=True, slots=True)
class DurationStat:
    """How often something happened and how long it took in all (nanoseconds)."""

    count: int = 0
    ns: int = 0

    def __add__(self, other: DurationStat) -> DurationStat:
        return DurationStat(self.count + other.count, self.ns + other.ns)


@dataclass(frozen=True, slots=True)
class BatchStat:
    """Executions of one batch size."""

    batch_size: int
    compute_input: DurationStat
    compute_infer: DurationStat
    compute_output: DurationStat


@dataclass(frozen=True, slots=True)
class ModelStatistics:
    """Counters since load (statistics extension).

    last_inference_ms: unix milliseconds; inference_count: requests weighted by batch rows;
    execution_count: runs of the backend.
    """

    name: str
    version: str
    last_inference_ms: int = 0
    inference_count: int = 0
    execution_count: int = 0
    success: DurationStat = DurationStat()
    fail: DurationStat = DurationStat()
    queue: DurationStat = DurationStat()
    compute_input: DurationStat = DurationStat()
    compute_infer: DurationStat = DurationStat()
    compute_output: DurationStat = DurationStat()
    cancel: DurationStat = DurationStat()
    cache_hit: DurationStat = DurationStat()
    rejected: int = 0
    batches: tuple[BatchStat, ...] = ()


def merge_statistics(parts: Sequence[ModelStatistics]) -> ModelStatistics:
    """Add up the counters of one model version over several engines (parts is not empty)."""
    first = parts[0]
    by_size: dict[int, BatchStat] = {}
    for part in parts:
        for stat in part.batches:
            seen = by_size.get(stat.batch_size)
            by_size[stat.batch_size] = (
                stat
                if seen is None
                else BatchStat(
                    stat.batch_size,
                    seen.compute_input + stat.compute_input,
                    seen.compute_infer + stat.compute_infer,
                    seen.compute_output + stat.compute_output,
                )
            )

    def total(name: str) -> DurationStat:
        out = DurationStat()
        for part in parts:
            out += getattr(part, name)
        return out

    return ModelStatistics(
        name=first.name,
        version=first.version,
        last_inference_ms=max(p.last_inference_ms for p in parts),
        inference_count=sum(p.inference_count for p in parts),
        execution_count=sum(p.execution_count for p in parts),
        success=total("success"),
        fail=total("fail"),
        queue=total("queue"),
        compute_input=total("compute_input"),
        compute_infer=total("compute_infer"),
        compute_output=total("compute_output"),
        cancel=total("cancel"),
        cache_hit=total("cache_hit"),
        rejected=sum(p.rejected for p in parts),
        batches=tuple(by_size[size] for size in sorted(by_size)),
    )
