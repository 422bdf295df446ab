"""What a model is made from, as one digest: its version is named by it.

Covered are the source of everything that shapes the model, the data set and the versions of
the libraries that train and export. Nothing heavy is imported, so asking whether a model has
been made already takes milliseconds.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Final

LIBRARIES: Final = ("onnx", "onnxscript", "torch")
_HERE: Final = Path(__file__).parent
_SHOWN: Final = 8  # hex digits of the digest in a version's name


@dataclass(frozen=True, slots=True)
class Provenance:
    """Where a model comes from: SHA-256 of its code, of its data, of all; library versions."""

    code: str
    dataset: str | None
    libraries: Mapping[str, str]

    @property
    def digest(self) -> str:
        content = [self.code, self.dataset, sorted(self.libraries.items())]
        return hashlib.sha256(json.dumps(content).encode()).hexdigest()

    @property
    def version(self) -> str:
        """A version's name, such as `r1f0a33c8`."""
        return f"r{self.digest[:_SHOWN]}"

    def as_card(self) -> Mapping[str, str]:
        """Return it in the form of a model card's provenance."""
        card = {"recipe_sha256": self.digest, "code_sha256": self.code, **self.libraries}
        return card if self.dataset is None else {**card, "dataset_sha256": self.dataset}


def provenance(sources: Sequence[str], dataset: str | None) -> Provenance:
    """Return the provenance of a model made by these modules of the zoo (file names)."""
    code = hashlib.sha256()
    for source in sorted(sources):
        content = (_HERE / source).read_bytes()
        code.update(f"{source} {len(content)}\n".encode())
        code.update(content)
    return Provenance(code.hexdigest(), dataset, {name: version(name) for name in LIBRARIES})
