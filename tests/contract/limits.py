"""Limits that a test can reach."""

from __future__ import annotations

from edge_runtime.protocol.service import Limits

MIB = 1024 * 1024
LIMITS = Limits(
    max_body_bytes=4 * MIB,
    max_json_bytes=MIB,
    max_inflight_bytes=32 * MIB,
    max_tensors=8,
    default_timeout_s=20.0,
    max_timeout_s=30.0,
    body_timeout_s=2.0,
)
