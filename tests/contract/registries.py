"""The registries that the contract suite runs over, and what their tests register."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

from cluster.registry import (
    ArtifactFile,
    EmbeddedRegistry,
    ModelCard,
    ModelVersion,
    Registry,
    ServingEntry,
)
from edge_runtime.protocol.types import Signature, TensorSpec

OpenRegistry = Callable[[Path], Registry]

IMPLEMENTATIONS: Final[Mapping[str, OpenRegistry]] = {"embedded": EmbeddedRegistry}

SIGNATURE: Final = Signature(
    inputs=(TensorSpec("pixels", "FP32", (-1, 1, 8, 8)),),
    outputs=(TensorSpec("logits", "FP32", (-1, 10)),),
)
CARD: Final = ModelCard(
    description="digits",
    metrics={"accuracy": 0.98},
    dataset="digits@1",
    notes=("for tests",),
    provenance={"recipe": "none"},
)


def file_with(folder: Path, content: bytes, name: str = "model.onnx") -> Path:
    """Write a source file for a registration."""
    path = folder / name
    path.write_bytes(content)
    return path


def register(
    registry: Registry,
    source: Path,
    model: str = "digits",
    version: str = "1",
    *,
    card: ModelCard = CARD,
    actor: str = "tests",
) -> ModelVersion:
    """Register one ONNX file."""
    return registry.register(
        model,
        version,
        signature=SIGNATURE,
        artifacts=[ArtifactFile("onnx", source)],
        card=card,
        actor=actor,
    )


def entry(model: str = "digits", version: str = "1", *placements: str) -> ServingEntry:
    """Return an entry of the serving table."""
    return ServingEntry(
        model, version, frozenset(placements or ("cloud",)), {"max_batch_size": 4}, "tests", 7.5
    )
