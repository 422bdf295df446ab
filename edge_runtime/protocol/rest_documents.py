"""JSON documents of the REST surface, from the protocol's values.

Shapes: Open Inference Protocol v2 and Triton's model configuration, repository and statistics
extensions. Durations are nanoseconds there, as here.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from edge_runtime.protocol.types import (
    BatchStat,
    DurationStat,
    ModelConfig,
    ModelMetadata,
    ModelStatistics,
    RepositoryEntry,
    ServerMetadata,
    TensorSpec,
)

Document = dict[str, Any]


def server_metadata(value: ServerMetadata) -> Document:
    return {"name": value.name, "version": value.version, "extensions": list(value.extensions)}


def model_metadata(value: ModelMetadata) -> Document:
    return {
        "name": value.name,
        "versions": list(value.versions),
        "platform": value.platform,
        "inputs": [_spec(s) for s in value.signature.inputs],
        "outputs": [_spec(s) for s in value.signature.outputs],
    }


def model_config(value: ModelConfig) -> Document:
    """Triton's configuration: dims leave out the batch dimension when the model batches."""
    is_batched = value.max_batch_size > 0
    return {
        "name": value.name,
        "platform": value.platform,
        "backend": value.backend,
        "max_batch_size": value.max_batch_size,
        "input": [_config_spec(s, is_batched) for s in value.signature.inputs],
        "output": [_config_spec(s, is_batched) for s in value.signature.outputs],
        "instance_group": [{"name": value.name, "count": value.instances, "kind": "KIND_CPU"}],
        "dynamic_batching": {"max_queue_delay_microseconds": value.max_queue_delay_us},
        "parameters": {k: {"string_value": v} for k, v in value.parameters.items()},
    }


def config_datatype(datatype: str) -> str:
    """Return Triton's configuration name of a datatype (`TYPE_FP32`, `TYPE_STRING`)."""
    return "TYPE_STRING" if datatype == "BYTES" else f"TYPE_{datatype}"


def config_dims(spec: TensorSpec, is_batched: bool) -> list[int]:
    """Return a tensor's dimensions as the configuration has them; it knows no scalars."""
    return list(spec.shape[1:] if is_batched else spec.shape) or [1]


def statistics(values: Sequence[ModelStatistics]) -> Document:
    return {"model_stats": [_model_statistics(v) for v in values]}


def index(values: Sequence[RepositoryEntry]) -> list[Document]:
    return [
        {"name": v.name, "version": v.version, "state": v.state, "reason": v.reason} for v in values
    ]


def _spec(spec: TensorSpec) -> Document:
    return {"name": spec.name, "datatype": spec.datatype, "shape": list(spec.shape)}


def _config_spec(spec: TensorSpec, is_batched: bool) -> Document:
    return {
        "name": spec.name,
        "data_type": config_datatype(spec.datatype),
        "dims": config_dims(spec, is_batched),
    }


def _model_statistics(value: ModelStatistics) -> Document:
    return {
        "name": value.name,
        "version": value.version,
        "last_inference": value.last_inference_ms,
        "inference_count": value.inference_count,
        "execution_count": value.execution_count,
        "inference_stats": {
            "success": _duration(value.success),
            "fail": _duration(value.fail),
            "queue": _duration(value.queue),
            "compute_input": _duration(value.compute_input),
            "compute_infer": _duration(value.compute_infer),
            "compute_output": _duration(value.compute_output),
            "cache_hit": _duration(value.cache_hit),
            "cancel": _duration(value.cancel),
            "rejected": {"count": value.rejected, "ns": 0},
        },
        "batch_stats": [_batch(b) for b in value.batches],
    }


def _batch(value: BatchStat) -> Document:
    return {
        "batch_size": value.batch_size,
        "compute_input": _duration(value.compute_input),
        "compute_infer": _duration(value.compute_infer),
        "compute_output": _duration(value.compute_output),
    }


def _duration(value: DurationStat) -> Document:
    return {"count": value.count, "ns": value.ns}
