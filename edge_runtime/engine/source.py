"""What an engine is told to load: the artifacts of a version, and how to serve it."""

from __future__ import annotations

import hashlib
import stat
from dataclasses import dataclass
from pathlib import Path

from edge_runtime.engine.runner import ModelOptions
from edge_runtime.errors import Corrupt
from edge_runtime.protocol.types import Signature


class Damaged(Corrupt):
    """A file is not the one that was installed: installing it again cures that."""


@dataclass(frozen=True, slots=True)
class Variant:
    """One artifact of a version.

    target: the hardware it was compiled for, empty where it runs anywhere; digest: SHA-256 in
    hex that the file must have, empty where somebody has checked it already.
    """

    format: str
    path: Path
    target: str = ""
    digest: str = ""

    @property
    def name(self) -> str:
        return f"{self.format} for {self.target}" if self.target else self.format

    def verify(self) -> None:
        """Read the file and compare its digest. Raises Damaged."""
        try:
            if self.digest:
                if not stat.S_ISREG(self.path.stat().st_mode):  # a pipe would never end
                    raise Damaged(f"{self.path.name} is not a file")
                with self.path.open("rb") as file:
                    found = hashlib.file_digest(file, "sha256").hexdigest()
                if found != self.digest:
                    raise Damaged(f"{self.path.name} is not what was installed (SHA-256 differs)")
        except OSError as error:
            raise Damaged(f"{self.path.name} cannot be read: {error.strerror}") from None


@dataclass(frozen=True, slots=True)
class ModelSource:
    """A version: its artifacts in any order, and how it is served.

    signature: needed where no artifact can be opened on this processor.
    """

    model: str
    version: str
    variants: tuple[Variant, ...]
    options: ModelOptions
    signature: Signature | None = None

    @classmethod
    def of(
        cls, model: str, version: str, path: Path, artifact_format: str, options: ModelOptions
    ) -> ModelSource:
        """Return a version that has one artifact."""
        return cls(model, version, (Variant(artifact_format, path),), options)
