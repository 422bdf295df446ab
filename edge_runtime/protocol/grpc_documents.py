"""Messages of the gRPC surface that say what there is, from the protocol's values.

The counterpart of `rest_documents.py`: metadata, configuration, repository and statistics.
"""

from __future__ import annotations

from collections.abc import Iterable

from edge_runtime.protocol.proto import inference_pb2 as pb
from edge_runtime.protocol.rest_documents import config_datatype, config_dims
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


def server_metadata(value: ServerMetadata) -> pb.ServerMetadataResponse:
    return pb.ServerMetadataResponse(
        name=value.name, version=value.version, extensions=value.extensions
    )


def model_metadata(value: ModelMetadata) -> pb.ModelMetadataResponse:
    return pb.ModelMetadataResponse(
        name=value.name,
        versions=value.versions,
        platform=value.platform,
        inputs=[_spec(spec) for spec in value.signature.inputs],
        outputs=[_spec(spec) for spec in value.signature.outputs],
    )


def model_config(value: ModelConfig) -> pb.ModelConfigResponse:
    """Triton's configuration: dims leave out the batch dimension when the model batches."""
    is_batched = value.max_batch_size > 0
    config = pb.ModelConfig(
        name=value.name,
        platform=value.platform,
        backend=value.backend,
        max_batch_size=value.max_batch_size,
        input=[
            pb.ModelInput(
                name=s.name, data_type=config_datatype(s.datatype), dims=config_dims(s, is_batched)
            )
            for s in value.signature.inputs
        ],
        output=[
            pb.ModelOutput(
                name=s.name, data_type=config_datatype(s.datatype), dims=config_dims(s, is_batched)
            )
            for s in value.signature.outputs
        ],
        instance_group=[
            pb.ModelInstanceGroup(
                name=value.name, count=value.instances, kind=pb.ModelInstanceGroup.KIND_CPU
            )
        ],
        parameters={
            name: pb.ModelParameter(string_value=text) for name, text in value.parameters.items()
        },
    )
    if is_batched:
        config.dynamic_batching.max_queue_delay_microseconds = value.max_queue_delay_us
    return pb.ModelConfigResponse(config=config)


def statistics(values: Iterable[ModelStatistics]) -> pb.ModelStatisticsResponse:
    return pb.ModelStatisticsResponse(model_stats=[_statistics(value) for value in values])


def index(values: Iterable[RepositoryEntry]) -> pb.RepositoryIndexResponse:
    kind = pb.RepositoryIndexResponse.ModelIndex
    return pb.RepositoryIndexResponse(
        models=[
            kind(name=v.name, version=v.version, state=v.state, reason=v.reason) for v in values
        ]
    )


def _spec(spec: TensorSpec) -> pb.ModelMetadataResponse.TensorMetadata:
    return pb.ModelMetadataResponse.TensorMetadata(
        name=spec.name, datatype=spec.datatype, shape=spec.shape
    )


def _statistics(value: ModelStatistics) -> pb.ModelStatistics:
    return pb.ModelStatistics(
        name=value.name,
        version=value.version,
        last_inference=value.last_inference_ms,
        inference_count=value.inference_count,
        execution_count=value.execution_count,
        inference_stats=pb.InferStatistics(
            success=_duration(value.success),
            fail=_duration(value.fail),
            queue=_duration(value.queue),
            compute_input=_duration(value.compute_input),
            compute_infer=_duration(value.compute_infer),
            compute_output=_duration(value.compute_output),
            cache_hit=_duration(value.cache_hit),
            cache_miss=pb.StatisticDuration(),
        ),
        batch_stats=[_batch(batch) for batch in value.batches],
    )


def read_statistics(message: pb.ModelStatisticsResponse) -> list[ModelStatistics]:
    """Return the counters that a server has told."""
    return [_read_statistics(found) for found in message.model_stats]


def _read_statistics(found: pb.ModelStatistics) -> ModelStatistics:
    told = found.inference_stats
    return ModelStatistics(
        name=found.name,
        version=found.version,
        last_inference_ms=found.last_inference,
        inference_count=found.inference_count,
        execution_count=found.execution_count,
        success=_read_duration(told.success),
        fail=_read_duration(told.fail),
        queue=_read_duration(told.queue),
        compute_input=_read_duration(told.compute_input),
        compute_infer=_read_duration(told.compute_infer),
        compute_output=_read_duration(told.compute_output),
        cache_hit=_read_duration(told.cache_hit),
        batches=tuple(
            BatchStat(
                batch.batch_size,
                _read_duration(batch.compute_input),
                _read_duration(batch.compute_infer),
                _read_duration(batch.compute_output),
            )
            for batch in found.batch_stats
        ),
    )


def _read_duration(value: pb.StatisticDuration) -> DurationStat:
    return DurationStat(value.count, value.ns)


def _batch(value: BatchStat) -> pb.InferBatchStatistics:
    return pb.InferBatchStatistics(
        batch_size=value.batch_size,
        compute_input=_duration(value.compute_input),
        compute_infer=_duration(value.compute_infer),
        compute_output=_duration(value.compute_output),
    )


def _duration(value: DurationStat) -> pb.StatisticDuration:
    return pb.StatisticDuration(count=value.count, ns=value.ns)
