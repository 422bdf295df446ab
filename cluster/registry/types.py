"""What the registry keeps: versions with their artifacts, aliases, what is served, history.

A version is immutable. Its content (signature, artifacts by digest, card) has one digest, so
two registrations can be compared and a package can be signed. What may change lives outside
of it: aliases point to a version, and the serving table says which versions ought to run
where. Every change is an event of the model's history.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Final

from edge_runtime.protocol.types import ParameterValue, Signature
from policies.routing.splits import of_engine

PRODUCTION: Final = "production"
PLACEMENTS: Final = frozenset({"colocated", "cloud", "edge"})
FORMATS: Final = ("onnx", "onnx-int8", "hef")


@dataclass(frozen=True, slots=True)
class Artifact:
    """One file of a version, named by its content.

    digest: SHA-256 in lower-case hex; target: the hardware it was compiled for where that
    matters (a HEF for `hailo8` does not run on `hailo8l`), empty where it runs anywhere.
    """

    format: str
    digest: str
    size_bytes: int
    target: str = ""


@dataclass(frozen=True, slots=True)
class ArtifactFile:
    """A file that is to become an artifact of a new version."""

    format: str
    path: Path
    target: str = ""


@dataclass(frozen=True, slots=True)
class ModelCard:
    """What is known of a version beside its bytes.

    metrics: finite numbers by name (`accuracy`); dataset: name and version of the data it was
    trained and measured on; notes: what a user has to know ("latency only"); provenance: how
    it came to be, such as digests of recipe, code and dataset.
    """

    description: str = ""
    metrics: Mapping[str, float] = field(default_factory=dict)
    dataset: str | None = None
    notes: tuple[str, ...] = ()
    provenance: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ModelVersion:
    """A registered version. digest: SHA-256 of its content, without who and when (unix seconds)."""

    model: str
    version: str
    signature: Signature
    artifacts: tuple[Artifact, ...]
    card: ModelCard
    digest: str
    created_at: float
    created_by: str


@dataclass(frozen=True, slots=True)
class ServingEntry:
    """A version that ought to run, and where.

    placements: a part of PLACEMENTS; options: of the engine for this version, and which share of
    the requests it gets (`policies.routing.splits`); actor and at: who asked for it and when (unix
    seconds).
    """

    model: str
    version: str
    placements: frozenset[str]
    options: Mapping[str, ParameterValue]
    actor: str
    at: float

    @property
    def engine_options(self) -> dict[str, object]:
        """The options that the engine knows."""
        return of_engine(self.options)


class Action(StrEnum):
    """What an event of the history tells."""

    REGISTERED = "registered"
    ALIAS_MOVED = "alias_moved"
    ALIAS_REMOVED = "alias_removed"
    SERVED = "served"
    STOPPED = "stopped"


@dataclass(frozen=True, slots=True)
class HistoryEvent:
    """Who did what to a model, and when (unix seconds); number grows with time.

    version: the version it is about; alias and previous: for moved aliases, which one and where
    it pointed before (None: it did not exist); details: placements and options of a serving.
    """

    number: int
    at: float
    actor: str
    model: str
    action: Action
    version: str
    alias: str | None = None
    previous: str | None = None
    details: Mapping[str, object] = field(default_factory=dict)
