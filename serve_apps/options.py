"""From the settings to the values that the portable core takes."""

from __future__ import annotations

from cluster.config import Settings
from edge_runtime.engine import ModelOptions
from edge_runtime.protocol.service import Limits


def protocol_limits(settings: Settings) -> Limits:
    """Return the protocol's limits from the settings."""
    configured = settings.limits
    return Limits(
        max_body_bytes=configured.max_body_bytes,
        max_json_bytes=configured.max_json_bytes,
        max_inflight_bytes=configured.max_inflight_bytes,
        max_tensors=configured.max_inputs,
        default_timeout_s=configured.default_timeout_s,
        max_timeout_s=configured.max_timeout_s,
        allow_non_finite=configured.allow_non_finite,
    )


def engine_defaults(settings: Settings) -> ModelOptions:
    """Return how models are served unless they say otherwise."""
    configured = settings.engine
    return ModelOptions(
        max_batch_size=configured.max_batch_size,
        max_delay_ms=configured.max_delay_ms,
        max_queue=configured.max_queue,
        max_queue_wait_ms=configured.max_queue_wait_ms,
        intra_op_threads=configured.intra_op_threads,
    )
