"""What stands behind the protocol servers: one interface for the gateway and the edge runtime.

`rest.py` and `grpc_service.py` know nothing of models, routing or Ray; they decode, check
limits and credentials, call an `InferenceService`, and encode. Both are tested by one
conformance suite over every implementation of this interface.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

from edge_runtime.auth import Principal
from edge_runtime.protocol.types import (
    InferRequest,
    InferResponse,
    ModelConfig,
    ModelMetadata,
    ModelStatistics,
    ParameterValue,
    RepositoryEntry,
    ServerMetadata,
)
from policies.routing.types import Objective

SERVER_EXTENSIONS = (
    "classification",
    "model_configuration",
    "model_repository",
    "model_repository(unload_dependents)",
    "schedule_policy",
    "statistics",
    "binary_tensor_data",
    "parameters",
)

# Where an answer came from, in its parameters: the name of the target, a stable reason code, and
# on an edge box the rung of the degradation ladder that computed it.
TARGET_PARAMETER: Final = "prime_spark_target"
REASON_PARAMETER: Final = "prime_spark_reason"
RUNG_PARAMETER: Final = "prime_spark_rung"
LOAD_PARAMETER: Final = "prime_spark_load"  # JSON: `LoadReport`, and `alone_s` of this request
AGE_PARAMETER: Final = "prime_spark_age_ms"  # of an answer that was computed before


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds that hold before anything is allocated for a request.

    max_body_bytes: of a request as sent and as decompressed; max_json_bytes: of its JSON part
    (a parsed JSON number takes some 20 times its text); max_inflight_bytes: of all requests
    being read or served at once in this process; timeouts in seconds.
    """

    max_body_bytes: int = 64 * 1024 * 1024
    max_json_bytes: int = 8 * 1024 * 1024
    max_inflight_bytes: int = 512 * 1024 * 1024
    max_tensors: int = 64
    default_timeout_s: float = 30.0
    max_timeout_s: float = 300.0
    body_timeout_s: float = 30.0
    allow_non_finite: bool = False


@dataclass(frozen=True, slots=True)
class CallContext:
    """Everything about a call that is not the request itself.

    deadline: on the clock of `asyncio` (monotonic seconds); priority: lower runs sooner,
    0 when unset; origin_site: where the caller is, if it said so; tier: `edge`, `cloud` or
    `colocated` when the caller insists, else None; trace: a W3C `traceparent`, empty without one;
    wants_load: the answer is to say how busy the model is; session: what the call belongs to, if
    its caller wants to be kept at one place; objective: of routing, where the caller says one;
    address: the caller's IP address as the front door saw it, to be believed behind one only.
    """

    principal: Principal
    deadline: float
    priority: int = 0
    origin_site: str | None = None
    tier: str | None = None
    protocol: str = "http"
    trace: str = ""
    wants_load: bool = False
    session: str = ""
    objective: Objective | None = None
    address: str = ""


@dataclass(frozen=True, slots=True, eq=False)
class InferResult:
    """An answer and where it came from: target name, stable reason code, rung where it is known.

    age_s: seconds since it was computed, where that was before this request.
    """

    response: InferResponse
    target: str
    reason: str
    rung: str = ""
    age_s: float = 0.0


def origin_parameters(
    target: str, reason: str, rung: str, age_s: float
) -> dict[str, ParameterValue]:
    """Return the parameters of an answer that say where it came from; see `InferResult`."""
    found: dict[str, ParameterValue] = {TARGET_PARAMETER: target, REASON_PARAMETER: reason}
    if rung:
        found[RUNG_PARAMETER] = rung
    if age_s:
        found[AGE_PARAMETER] = int(age_s * 1e3)
    return found


def computed_on(parameters: Mapping[str, ParameterValue]) -> tuple[str, float]:
    """Return the rung and the age in seconds that `origin_parameters` wrote."""
    age_ms = parameters.get(AGE_PARAMETER)
    age_s = age_ms / 1e3 if isinstance(age_ms, int | float) else 0.0
    return str(parameters.get(RUNG_PARAMETER, "")), age_s


@dataclass(frozen=True, slots=True)
class Health:
    """status: ready, degraded (still answers) or unready; reasons are short sentences."""

    status: str
    reasons: tuple[str, ...] = ()

    @property
    def is_ready(self) -> bool:
        return self.status in ("ready", "degraded")


class InferenceService(Protocol):
    """The model server behind the protocol. Methods raise errors of `edge_runtime.errors`.

    version None means that the server picks. `infer` may be cancelled at any await and then
    frees whatever it held.
    """

    def health(self) -> Health: ...

    def server_metadata(self) -> ServerMetadata: ...

    def is_model_ready(self, model: str, version: str | None) -> bool: ...

    def model_metadata(self, model: str, version: str | None) -> ModelMetadata: ...

    def model_config(self, model: str, version: str | None) -> ModelConfig: ...

    async def model_statistics(
        self, model: str | None, version: str | None
    ) -> Sequence[ModelStatistics]: ...

    def repository_index(self, *, ready_only: bool) -> Sequence[RepositoryEntry]: ...

    async def load_model(
        self, model: str, parameters: Mapping[str, ParameterValue], context: CallContext
    ) -> None: ...

    async def unload_model(
        self, model: str, parameters: Mapping[str, ParameterValue], context: CallContext
    ) -> None: ...

    async def infer(self, request: InferRequest, context: CallContext) -> InferResult: ...
