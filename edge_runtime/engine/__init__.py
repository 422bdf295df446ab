"""The engine: queue, batcher, admission and statistics around a backend; no Ray inside."""

from edge_runtime.engine.engine import (
    Engine,
    EngineOptions,
    LoadReport,
    ModelSource,
    model_options,
)
from edge_runtime.engine.runner import ModelOptions

__all__ = [
    "Engine",
    "EngineOptions",
    "LoadReport",
    "ModelOptions",
    "ModelSource",
    "model_options",
]
