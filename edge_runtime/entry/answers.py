"""What gateways answer, and which error an answer stands for."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, NamedTuple

from edge_runtime.errors import (
    DeadlineExceeded,
    Overloaded,
    PrimeSparkError,
    Unavailable,
    kind_of,
)


class Answer(NamedTuple):
    """What a gateway answered. headers: by lower-case name; gateway: its address."""

    status: int
    headers: Mapping[str, str]
    body: bytes
    gateway: str

    def json(self) -> Any:
        """Return the JSON part of the body. Raises Unavailable when it has none."""
        try:
            return json.loads(self.body[: self._json_bytes()])
        except ValueError:
            raise Unavailable(
                f"{self.gateway} does not answer with JSON (status {self.status})"
            ) from None

    @property
    def binary(self) -> bytes:
        """The binary tensors behind the JSON part, in the order of its outputs."""
        return self.body[self._json_bytes() :]

    def _json_bytes(self) -> int:
        said = self.headers.get("inference-header-content-length", "")
        return int(said) if said.isascii() and said.isdigit() else len(self.body)


class GatewayGone(Unavailable):
    """A gateway refused a connection, broke it off, or did not take one in time."""


def refusal_of(answer: Answer) -> PrimeSparkError | None:
    """Return the error that an answer carries; None when it is a success."""
    if answer.status < 400:
        return None
    try:
        document = answer.json()
    except Unavailable:
        document = None
    said = document if isinstance(document, dict) else {}
    retry_after = answer.headers.get("retry-after", "")
    return _kind(answer.status, str(said.get("code", "")))(
        str(said.get("error", f"{answer.gateway} answers with status {answer.status}")),
        field=said.get("field"),
        hint=said.get("hint"),
        retry_after_s=float(retry_after) if retry_after.isdigit() else None,
        details={"status": answer.status, "gateway": answer.gateway},
    )


def _kind(status: int, code: str) -> type[PrimeSparkError]:
    found = kind_of(code)
    if status in (502, 503) and not issubclass(found, Overloaded | Unavailable):
        return Unavailable  # of something in between, or a kind that this version does not know
    if status == 504 and not code:
        return DeadlineExceeded
    return found
