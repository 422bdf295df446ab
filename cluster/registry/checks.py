"""What may enter the registry: names, signatures, cards, serving entries.

Names travel in URLs, metrics labels and command lines, so they are kept to letters, digits and
`._-`, begin with a letter, digit or underscore, and are bounded.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import Final

from cluster.registry.types import FORMATS, PLACEMENTS, ArtifactFile, ModelCard, ServingEntry
from edge_runtime.errors import InvalidInput
from edge_runtime.protocol.datatypes import NUMPY
from edge_runtime.protocol.types import ANY_DIM, Signature, TensorSpec
from policies.routing.splits import shares_of

MAX_NAME: Final = 128
MAX_ACTOR: Final = 256
RESERVED_MODELS: Final = frozenset({"stats"})  # `/v2/models/stats` counts over all models
MAX_TENSORS: Final = 1024
MAX_OPTIONS: Final = 64

_NAME: Final = re.compile(r"[a-zA-Z0-9_][a-zA-Z0-9._-]*")


def is_name(text: str) -> bool:
    """Tell whether something could be registered under this name."""
    return len(text) <= MAX_NAME and _NAME.fullmatch(text) is not None


def check_name(kind: str, text: str) -> None:
    """Raise InvalidInput unless text is a name; kind is the field: model, version, alias."""
    if not is_name(text):
        raise InvalidInput(
            f"{text[:160]!r} is not a name for a {kind}",
            field=kind,
            hint=f"letters, digits and ._- only, not beginning with . or -, at most {MAX_NAME}",
        )
    if kind == "model" and text in RESERVED_MODELS:
        raise InvalidInput(f"a model cannot be called '{text}'", field=kind, hint="a route has it")


def check_actor(actor: str) -> None:
    """Raise InvalidInput unless actor can be written into the history as one line."""
    if not actor or len(actor) > MAX_ACTOR or not actor.isprintable():
        raise InvalidInput(
            f"an actor is 1 to {MAX_ACTOR} printable characters, not {actor[:300]!r}",
            field="actor",
        )


def check_signature(signature: Signature) -> None:
    """Raise InvalidInput unless the signature could describe a model."""
    for side, specs in (("inputs", signature.inputs), ("outputs", signature.outputs)):
        where = f"signature.{side}"
        if not specs:
            raise InvalidInput(f"a model has {side}; this signature has none", field=where)
        if len(specs) > MAX_TENSORS:
            raise InvalidInput(f"at most {MAX_TENSORS} {side}", field=where)
        if len({spec.name for spec in specs}) != len(specs):
            raise InvalidInput(f"two {side} have the same name", field=where)
        for spec in specs:
            _check_tensor(spec, where)


def _check_tensor(spec: TensorSpec, where: str) -> None:
    if not spec.name:
        raise InvalidInput("a tensor needs a name", field=where)
    if spec.datatype not in NUMPY:
        raise InvalidInput(
            f"tensor {spec.name[:64]!r} has the unknown datatype {spec.datatype[:32]!r}",
            field=where,
            hint="one of " + ", ".join(NUMPY),
        )
    if any(dim < ANY_DIM for dim in spec.shape):
        raise InvalidInput(
            f"tensor {spec.name[:64]!r} has the shape {list(spec.shape)}",
            field=where,
            hint="sizes are 0 or more, or -1 where any size goes",
        )


def check_artifacts(artifacts: Sequence[ArtifactFile]) -> None:
    """Raise InvalidInput unless there is at least one file, each of its own format and target."""
    if not artifacts:
        raise InvalidInput("a version needs at least one artifact", field="artifacts")
    for artifact in artifacts:
        if artifact.format not in FORMATS:
            raise InvalidInput(
                f"unknown artifact format {artifact.format[:64]!r}",
                field="artifacts.format",
                hint="one of " + ", ".join(FORMATS),
            )
        if artifact.target:
            check_name("artifacts.target", artifact.target)
    kinds = {(artifact.format, artifact.target) for artifact in artifacts}
    if len(kinds) != len(artifacts):
        raise InvalidInput("two artifacts have the same format and target", field="artifacts")


def check_card(card: ModelCard) -> None:
    """Raise InvalidInput when a metric is not a finite number (JSON has no others)."""
    for name, value in card.metrics.items():
        if not math.isfinite(value):
            raise InvalidInput(
                f"metric {name[:64]!r} is {value}, not a finite number", field="card.metrics"
            )


def check_entry(entry: ServingEntry) -> None:
    """Raise InvalidInput unless the entry says where to run, with options of plain values."""
    check_actor(entry.actor)
    if not math.isfinite(entry.at):
        raise InvalidInput(f"{entry.at} is not a time", field="at")
    if not entry.placements or not entry.placements <= PLACEMENTS:
        raise InvalidInput(
            f"placements {sorted(entry.placements)} are not offered",
            field="placement",
            hint="one or more of " + ", ".join(sorted(PLACEMENTS)),
        )
    _check_options(entry.options)
    try:
        shares_of(entry.options)
    except ValueError as error:
        raise InvalidInput(str(error), field="options") from None


def _check_options(options: Mapping[str, object]) -> None:
    if len(options) > MAX_OPTIONS:
        raise InvalidInput(f"at most {MAX_OPTIONS} options", field="options")
    for name, value in options.items():
        check_name("option", name)
        match value:
            case bool() | int() | str():
                pass
            case float() if math.isfinite(value):
                pass
            case _:
                raise InvalidInput(
                    f"option '{name}' is {value!r:.64}",
                    field=f"options.{name}",
                    hint="a boolean, a finite number or text",
                )
