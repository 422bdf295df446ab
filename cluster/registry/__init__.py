"""The model registry: immutable versions, artifacts by digest, aliases, the serving table."""

from cluster.registry.embedded import EmbeddedRegistry
from cluster.registry.interface import Registry
from cluster.registry.types import (
    PLACEMENTS,
    PRODUCTION,
    Action,
    Artifact,
    ArtifactFile,
    HistoryEvent,
    ModelCard,
    ModelVersion,
    ServingEntry,
)

__all__ = [
    "PLACEMENTS",
    "PRODUCTION",
    "Action",
    "Artifact",
    "ArtifactFile",
    "EmbeddedRegistry",
    "HistoryEvent",
    "ModelCard",
    "ModelVersion",
    "Registry",
    "ServingEntry",
]
