"""How fast this box answers a model: callers on its Unix socket, as co-resident programs have it.

Inputs are zeros of the model's shapes; free dimensions are 1. Latency is what a caller waits,
protocol included, and the rungs that computed say whether an accelerator did.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from edge_runtime.engine.warmup import sample_work
from edge_runtime.errors import InvalidInput, PrimeSparkError, Unavailable
from edge_runtime.local_client import ask
from edge_runtime.protocol.grpc_client import OipClient
from edge_runtime.protocol.service import RUNG_PARAMETER, Limits
from edge_runtime.protocol.types import InferRequest, Signature, Tensor, TensorSpec

TIMEOUT_S: Final = 30.0
WARM_UP: Final = 5  # requests that do not count


@dataclass(slots=True)
class BenchResult:
    """One run. Latencies in milliseconds; rungs: answers by the rung that computed them."""

    clients: int
    answers: int = 0
    failures: int = 0
    per_s: float = 0.0
    p50_ms: float = 0.0
    p90_ms: float = 0.0
    p99_ms: float = 0.0
    rungs: dict[str, int] = field(default_factory=dict)
    errors: dict[str, int] = field(default_factory=dict)


def sample_request(socket: Path, model: str, version: str | None) -> InferRequest:
    """Make a request that fits a model. Raises NotFound, Unavailable, InvalidInput."""
    route = f"/v2/models/{model}" + (f"/versions/{version}" if version else "")
    described = ask(socket, "GET", route)
    signature = Signature(
        *(
            tuple(TensorSpec(t["name"], t["datatype"], tuple(t["shape"])) for t in described[side])
            for side in ("inputs", "outputs")
        )
    )
    work = sample_work(signature, 1)
    if work is None:
        raise InvalidInput(f"a request for model '{model}' would be too large", field="model")
    datatypes = {spec.name: spec.datatype for spec in signature.inputs}
    tensors = tuple(Tensor(name, datatypes[name], data) for name, data in work.inputs.items())
    return InferRequest(model, version, tensors)


async def bench(
    grpc_socket: Path,
    request: InferRequest,
    *,
    clients: int,
    seconds: float,
    progress: Callable[[float], None] = lambda part: None,
) -> BenchResult:
    """Ask as fast as answers come, with this many callers. Raises Unavailable when all fail."""
    client = OipClient(f"unix:{grpc_socket}", Limits())
    result = BenchResult(clients)
    rungs: Counter[str] = Counter()
    errors: Counter[str] = Counter()
    taken: list[float] = []
    try:
        for _ in range(WARM_UP):
            await client.infer(request, request.version, timeout_s=TIMEOUT_S)
        began = time.perf_counter()
        until = began + seconds

        async def call() -> None:
            while (now := time.perf_counter()) < until:
                progress((now - began) / seconds)
                try:
                    answer = await client.infer(request, request.version, timeout_s=TIMEOUT_S)
                except PrimeSparkError as error:
                    errors[error.code] += 1
                    continue
                taken.append(time.perf_counter() - now)
                rungs[str(answer.parameters.get(RUNG_PARAMETER, ""))] += 1

        async with asyncio.TaskGroup() as group:
            for _ in range(clients):
                group.create_task(call())
        lasted_s = time.perf_counter() - began
    finally:
        await client.close()
    if not taken:
        raise Unavailable(f"model '{request.model}' answered nothing: {dict(errors)}")
    taken.sort()
    result.answers, result.failures = len(taken), errors.total()
    result.per_s = len(taken) / lasted_s
    result.p50_ms, result.p90_ms, result.p99_ms = (
        1e3 * taken[min(len(taken) - 1, int(len(taken) * share))] for share in (0.5, 0.9, 0.99)
    )
    result.rungs, result.errors = dict(rungs), dict(errors)
    return result
