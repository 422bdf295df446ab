"""The engine: queue, batcher, admission and statistics around a backend; no Ray inside."""

from edge_runtime.engine.engine import (
    LOAD_FIELDS,
    Engine,
    EngineOptions,
    LoadReport,
    model_options,
)
from edge_runtime.engine.runner import Answered, ModelOptions
from edge_runtime.engine.source import ModelSource, Variant

__all__ = [
    "LOAD_FIELDS",
    "Answered",
    "Engine",
    "EngineOptions",
    "LoadReport",
    "ModelOptions",
    "ModelSource",
    "Variant",
    "model_options",
]
