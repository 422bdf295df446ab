"""Registers the small models of the contract suites, so that they can be served."""

from __future__ import annotations

from typing import Final

import numpy as np

from cluster.registry import ArtifactFile, ModelCard, Registry, ServingEntry
from edge_runtime.backends.base import BackendOptions
from edge_runtime.backends.onnx import load_onnx
from edge_runtime.engine import ModelSource
from edge_runtime.protocol.types import InferRequest, ParameterValue, Signature, Tensor, TensorSpec
from tests.contract.models import FEATURES

UNKNOWN: Final = Signature((TensorSpec("x", "FP32", (-1, 4)),), (TensorSpec("y", "FP32", (-1,)),))


def register(registry: Registry, source: ModelSource, version: str = "1") -> None:
    """Register a model under its own signature; a file that is no model gets a made-up one."""
    path = source.variants[0].path
    is_model = source.model != "broken"
    signature = load_onnx(path, BackendOptions()).signature if is_model else UNKNOWN
    registry.register(
        source.model,
        version,
        signature=signature,
        artifacts=[ArtifactFile("onnx", path)],
        card=ModelCard(),
        actor="tests",
    )


def serve(
    registry: Registry, model: str, version: str = "1", *placements: str, **options: ParameterValue
) -> int:
    """Put a version into the serving table, co-located unless placements say otherwise."""
    where = frozenset(placements or ("colocated",))
    return registry.serve(ServingEntry(model, version, where, options, "tests", 1.0))


def mlp_request(rows: int = 1, version: str | None = None) -> InferRequest:
    """Return a request that the model `mlp` takes."""
    x = np.ones((rows, FEATURES), dtype=np.float32)
    return InferRequest("mlp", version, (Tensor("x", "FP32", x),), id="q1")
