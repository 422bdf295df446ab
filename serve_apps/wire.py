"""How a call travels from the gateway to an inference replica and back.

Both ends are this project, on one trusted cluster, so the form is plain tuples of bytes and
numbers that pickle in microseconds; results and expected errors both travel as values, because
an exception through a Serve handle costs a traceback and loses its type. Deadlines travel as
the seconds left, since clocks of two machines need not agree. Every reply carries the load of
the replica that gave it.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from operator import attrgetter
from typing import Any, Final, NamedTuple

from edge_runtime.engine import LOAD_FIELDS, Answered, LoadReport
from edge_runtime.errors import PrimeSparkError, kind_of
from edge_runtime.protocol.binary import decode_raw, encode_raw
from edge_runtime.protocol.types import InferRequest, ModelStatistics, RequestedOutput, Tensor

FOLLOWS_NONE: Final = sys.maxsize

_fields = attrgetter(*LOAD_FIELDS)

WireTensor = tuple[str, str, tuple[int, ...], bytes]


class Call(NamedTuple):
    """A request on its way. slack_s: seconds to its deadline when it was sent.

    trace: a W3C `traceparent`, empty where the caller sent none.
    """

    model: str
    version: str
    inputs: tuple[WireTensor, ...]
    outputs: tuple[str, ...]
    slack_s: float
    priority: int
    trace: str = ""

    @classmethod
    def of(cls, values: Sequence[Any]) -> Call:
        """Read what an older release sent, or a newer one, which has more to say."""
        return cls(*values[: len(cls._fields)])


class Reply(NamedTuple):
    """What came back: outputs or an error; taken_s: seconds in the replica.

    rung, age_s, alone_s: what computed the outputs, how long before this call, and how long by
    itself; see `Answered`.
    """

    outputs: tuple[WireTensor, ...]
    error: tuple[str, str, str | None, str | None, float | None] | None
    load: tuple[Any, ...] | None
    taken_s: float
    rung: str = ""
    age_s: float = 0.0
    alone_s: float = 0.0

    @classmethod
    def of(cls, values: Sequence[Any]) -> Reply:
        """Read what an older release sent, or a newer one, which has more to say."""
        return cls(*values[: len(cls._fields)])


class Failure(NamedTuple):
    """Why a version could not be loaded: an error's code and its message."""

    code: str
    message: str

    def error(self, context: str) -> PrimeSparkError:
        """Return it as the error it was, with a context before its message."""
        return kind_of(self.code)(f"{context}: {self.message}")


@dataclass(frozen=True, slots=True)
class ReplicaReport:
    """A replica's answer to a probe: what it has loaded, how busy it is, what failed to load.

    generation: of the serving table that it has caught up with; FOLLOWS_NONE where it has no table.
    """

    loads: Mapping[tuple[str, str], LoadReport]
    failures: Mapping[tuple[str, str], Failure]
    statistics: tuple[ModelStatistics, ...]
    generation: int


def encode_call(
    request: InferRequest, version: str, slack_s: float, priority: int, trace: str = ""
) -> Call:
    """Pack a request for the version it was resolved to."""
    return Call(
        request.model,
        version,
        tuple(_pack(tensor) for tensor in request.inputs),
        tuple(output.name for output in request.outputs),
        slack_s,
        priority,
        trace,
    )


def decode_call(call: Call) -> InferRequest:
    """Unpack a request; its tensors are views on the bytes that came."""
    return InferRequest(
        model=call.model,
        version=call.version,
        inputs=tuple(_unpack(tensor) for tensor in call.inputs),
        outputs=tuple(RequestedOutput(name) for name in call.outputs),
    )


def encode_answer(found: Answered, load: LoadReport | None, taken_s: float) -> Reply:
    """Pack an answer and the load beside it."""
    outputs = tuple(_pack(tensor) for tensor in found.outputs)
    return Reply(outputs, None, _load(load), taken_s, found.rung, found.age_s, found.alone_s)


def encode_error(error: PrimeSparkError, load: LoadReport | None, taken_s: float) -> Reply:
    """Pack an expected refusal."""
    parts = (error.code, error.message, error.field, error.hint, error.retry_after_s)
    return Reply((), parts, _load(load), taken_s)


def decode_reply(reply: Reply) -> Answered:
    """Unpack an answer. Raises the error that the replica packed."""
    if reply.error is not None:
        code, message, field, hint, retry_after_s = reply.error
        raise kind_of(code)(message, field=field, hint=hint, retry_after_s=retry_after_s)
    outputs = tuple(_unpack(tensor) for tensor in reply.outputs)
    return Answered(outputs, reply.rung, reply.age_s, reply.alone_s)


def reported_load(reply: Reply) -> LoadReport | None:
    """Return the load that came with a reply."""
    return None if reply.load is None else LoadReport(*reply.load[: len(LOAD_FIELDS)])


def _load(load: LoadReport | None) -> tuple[Any, ...] | None:
    return None if load is None else _fields(load)


def _pack(tensor: Tensor) -> WireTensor:
    return (tensor.name, tensor.datatype, tensor.shape, bytes(encode_raw(tensor)))


def _unpack(packed: WireTensor) -> Tensor:
    name, datatype, shape, raw = packed
    return decode_raw(name, datatype, shape, raw, allow_non_finite=True)
