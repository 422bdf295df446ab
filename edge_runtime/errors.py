"""The one error tree of the product.

    PrimeSparkError
     +-- InvalidInput        the caller's fault: malformed, wrong shape, wrong type   (400)
     +-- Unauthenticated     no credentials, or credentials that do not hold          (401)
     +-- Forbidden           known caller, action not allowed                         (403)
     +-- NotFound            model, version, alias or route that does not exist       (404)
     +-- Conflict            somebody else was first (compare-and-set, duplicates)    (409)
     +-- TooLarge            a stated or measured size over a limit                   (413)
     +-- BudgetExceeded      what may be spent for the caller or the model is spent   (429)
     +-- Unsupported         well-formed, but not offered here                        (400)
     +-- Overloaded          refused early so that accepted work stays fast           (503)
     +-- Unavailable         nothing that could serve this is up                      (503)
     +-- DeadlineExceeded    the caller's time is over                                (504)
     +-- Corrupt             stored bytes are not what they were                      (500)

Errors are raised where the fact is known and translated once at each border: HTTP in
`protocol/rest.py`, gRPC in `protocol/grpc_service.py`, exit codes in `cluster/cli`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar


class PrimeSparkError(Exception):
    """An expected failure with a stable code, a message for the user and a hint.

    field: the offending input, parameter or header; hint: what to do about it;
    retry_after_s: seconds after which a repeat is sensible; details: machine-readable extras.
    """

    code: ClassVar[str] = "internal"

    def __init__(
        self,
        message: str,
        *,
        field: str | None = None,
        hint: str | None = None,
        retry_after_s: float | None = None,
        details: Mapping[str, object] | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.field = field
        self.hint = hint
        self.retry_after_s = retry_after_s
        self.details = dict(details or {})

    def __reduce__(self) -> tuple[object, ...]:
        state = {
            "field": self.field,
            "hint": self.hint,
            "retry_after_s": self.retry_after_s,
            "details": self.details,
        }
        return (_rebuild, (type(self), self.message, state))


class InvalidInput(PrimeSparkError):
    code = "invalid_input"


class Unauthenticated(PrimeSparkError):
    code = "unauthenticated"


class Forbidden(PrimeSparkError):
    code = "forbidden"


class NotFound(PrimeSparkError):
    code = "not_found"


class Conflict(PrimeSparkError):
    code = "conflict"


class TooLarge(PrimeSparkError):
    code = "too_large"


class BudgetExceeded(PrimeSparkError):
    code = "budget_exceeded"


class Unsupported(PrimeSparkError):
    code = "unsupported"


class Overloaded(PrimeSparkError):
    code = "overloaded"


class Unavailable(PrimeSparkError):
    code = "unavailable"


class DeadlineExceeded(PrimeSparkError):
    code = "deadline_exceeded"


class Corrupt(PrimeSparkError):
    code = "corrupt"


def kind_of(code: str) -> type[PrimeSparkError]:
    """Return the kind of error that a code names, the base for one that is not known."""
    return _KINDS.get(code, PrimeSparkError)


_KINDS = {kind.code: kind for kind in PrimeSparkError.__subclasses__()}


def _rebuild(
    kind: type[PrimeSparkError], message: str, state: Mapping[str, object]
) -> PrimeSparkError:
    return kind(message, **state)  # type: ignore[arg-type]
