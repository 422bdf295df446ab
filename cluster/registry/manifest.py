"""A version as bytes: one JSON document, and the digest of its content.

The document is written once with sorted keys and no white space, stored beside its SHA-256,
and checked against it whenever it is read, so an edited registry is noticed.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import Any, Final

from pydantic import TypeAdapter, ValidationError
from pydantic_core import PydanticSerializationError

from cluster.registry.types import Artifact, ModelCard, ModelVersion
from edge_runtime.errors import Corrupt, InvalidInput
from edge_runtime.protocol.types import Signature

MAX_BYTES: Final = 1 << 20


@dataclass(frozen=True, slots=True)
class Manifest:
    """The content of a version: what its digest covers."""

    model: str
    version: str
    signature: Signature
    artifacts: tuple[Artifact, ...]
    card: ModelCard


_MANIFEST: Final = TypeAdapter(Manifest)


def encode(manifest: Manifest) -> str:
    """Return the manifest as canonical JSON. Raises InvalidInput when it is too long or no text."""
    try:
        document: Any = _MANIFEST.dump_python(manifest, mode="json", warnings="error")
        # As UTF-8, because escapes would let a lone surrogate in that no reader takes.
        text = json.dumps(
            document,
            sort_keys=True,
            separators=(",", ":"),
            allow_nan=False,
            ensure_ascii=False,
        )
        size = len(text.encode())
    except (PydanticSerializationError, UnicodeError, ValueError, TypeError) as error:
        raise InvalidInput(f"this version cannot be written down: {error}", field="card") from None
    if size > MAX_BYTES:
        raise InvalidInput(
            f"the version's signature and card take {size} bytes, the limit is {MAX_BYTES}",
            field="card",
        )
    return text


def digest(text: str) -> str:
    """Return the SHA-256 of a manifest in hex."""
    return hashlib.sha256(text.encode()).hexdigest()


def decode(
    text: str, expected_digest: str, model: str, version: str, created_at: float, created_by: str
) -> ModelVersion:
    """Return the version a stored manifest describes. Raises Corrupt."""
    where = f"the stored description of {model}:{version}"
    if digest(text) != expected_digest:
        raise Corrupt(f"{where} is not what was registered", details={"digest": expected_digest})
    try:
        found = _MANIFEST.validate_json(text)
    except ValidationError as error:
        raise Corrupt(f"{where} cannot be read: {error.errors()[0]['msg']}") from None
    if (found.model, found.version) != (model, version):
        raise Corrupt(f"{where} belongs to {found.model}:{found.version}")
    return ModelVersion(
        model=model,
        version=version,
        signature=found.signature,
        artifacts=found.artifacts,
        card=found.card,
        digest=expected_digest,
        created_at=created_at,
        created_by=created_by,
    )
