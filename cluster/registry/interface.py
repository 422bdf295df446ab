"""The registry as its users see it; `embedded.py` keeps it on one host in SQLite and files.

What an implementation has to promise, whatever it is built on:

- A version appears whole or not at all, and never changes. Of concurrent registrations of
  one version exactly one wins; the others get `Conflict`.
- An alias moves only from where the caller saw it (compare-and-set), so nobody undoes a
  move unseen.
- The generation grows with every change a server has to know of (a version, an alias, the
  serving table); reading it is cheap enough to be polled several times a second.
- The history only grows.

That asks for no more than a transaction or a script over a few keys (SQLite, PostgreSQL,
Redis) and a store of immutable objects named by digest (files, S3). Errors are those of
`edge_runtime.errors`: `Unavailable` when the store cannot be reached or is busy, `Corrupt` when
it holds something else than was written. `tests/contract/test_registry.py` runs over every
implementation.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol

from cluster.registry.types import (
    Artifact,
    ArtifactFile,
    HistoryEvent,
    ModelCard,
    ModelVersion,
    ServingEntry,
)
from edge_runtime.protocol.types import Signature


class Registry(Protocol):
    """Model versions, artifacts, aliases, and what ought to run. Safe to call from threads."""

    def register(
        self,
        model: str,
        version: str,
        *,
        signature: Signature,
        artifacts: Sequence[ArtifactFile],
        card: ModelCard,
        actor: str,
    ) -> ModelVersion:
        """Copy the files in and make the version visible.

        Raises InvalidInput (names, files, signature, card) and Conflict when the version is
        there; `details["identical"]` of the conflict says whether its content is the same.
        """
        ...

    def get(self, model: str, version: str) -> ModelVersion:
        """Return a version. Raises NotFound."""
        ...

    def versions(self, model: str) -> tuple[ModelVersion, ...]:
        """Return a model's versions in the order of registration; none if it is unknown."""
        ...

    def models(self) -> tuple[str, ...]:
        """Return the names of all models, sorted."""
        ...

    def resolve(self, model: str, ref: str | None) -> ModelVersion:
        """Return what `ref` (a version or an alias) means; None: `production`, else the newest.

        Raises NotFound.
        """
        ...

    def aliases(self, model: str) -> Mapping[str, str]:
        """Return the version each alias of the model points to."""
        ...

    def set_alias(
        self, model: str, alias: str, version: str | None, *, expected: str | None, actor: str
    ) -> None:
        """Move an alias from `expected` to `version`; None stands for an alias that is not there.

        Raises Conflict when it points elsewhere than expected (`details["actual"]`) or is the
        name of a version, NotFound when the version does not exist.
        """
        ...

    def history(self, model: str) -> tuple[HistoryEvent, ...]:
        """Return everything that was done to the model, oldest first."""
        ...

    def artifact_path(self, artifact: Artifact, *, verify: bool = False) -> Path:
        """Return a local, read-only file with the artifact's bytes.

        verify: read it all and compare the digest. Raises Corrupt when the file is missing or
        is not what was registered.
        """
        ...

    def serve(self, entry: ServingEntry) -> int:
        """Put a version into the serving table, or replace its entry; return the generation.

        Raises NotFound when the version does not exist.
        """
        ...

    def stop_serving(self, model: str, version: str, *, actor: str) -> int:
        """Take a version out of the serving table; return the generation. Raises NotFound."""
        ...

    def serving(self) -> tuple[int, tuple[ServingEntry, ...]]:
        """Return the generation and the serving table, by model in order of registration."""
        ...

    def serving_generation(self) -> int:
        """Return the generation alone."""
        ...
