"""Who hears at once that a server is overloaded: the cluster on the same node, and nobody else."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import grpc.aio
import pytest

from edge_runtime.auth import Authenticates, LocalCaller, Principal
from edge_runtime.engine import Engine, EngineOptions
from edge_runtime.errors import Overloaded, PrimeSparkError
from edge_runtime.protocol import grpc_service
from edge_runtime.protocol.context import LOAD_HEADER
from edge_runtime.protocol.grpc_service import SERVICE, build_grpc_server
from edge_runtime.protocol.proto import inference_pb2 as pb
from edge_runtime.protocol.service import CallContext, InferResult, Limits
from edge_runtime.protocol.types import InferRequest
from edge_runtime.service import EngineService


class Full(EngineService):
    """Has no place for anybody."""

    async def infer(self, request: InferRequest, context: CallContext) -> InferResult:
        raise Overloaded("full", retry_after_s=1.0)


class Anybody:
    """Lets anybody in, as somebody of the network."""

    def authenticate(self, authorization: str | None, api_key: str | None = None) -> Principal:
        return Principal("somebody", frozenset({"infer"}))


@pytest.fixture
async def full() -> AsyncIterator[Full]:
    engine = Engine(EngineOptions(threads=1))
    yield Full(engine, (), version="test")
    await engine.close()


@pytest.fixture
def held(monkeypatch: pytest.MonkeyPatch) -> list[PrimeSparkError]:
    """Those refusals that are held back."""
    found: list[PrimeSparkError] = []

    async def hold(error: PrimeSparkError) -> None:
        found.append(error)

    monkeypatch.setattr(grpc_service, "hold", hold)
    return found


@pytest.mark.parametrize(
    ("caller", "headers", "is_held"),
    [
        (LocalCaller(), {LOAD_HEADER: "1"}, False),
        (LocalCaller(), {}, True),
        (Anybody(), {LOAD_HEADER: "1"}, True),
        (Anybody(), {}, True),
    ],
)
async def test_a_refusal_is_held_but_for_the_cluster_on_this_node(
    full: Full,
    held: list[PrimeSparkError],
    tmp_path: Path,
    caller: Authenticates,
    headers: dict[str, str],
    is_held: bool,
) -> None:
    server = build_grpc_server(full, caller, Limits())
    address = f"unix:{tmp_path / 'full.sock'}"
    server.add_insecure_port(address)
    await server.start()
    request = pb.ModelInferRequest(model_name="m")
    request.inputs.add(name="x", datatype="FP32", shape=[1]).contents.fp32_contents.append(1.0)
    try:
        async with grpc.aio.insecure_channel(address) as channel:
            ask = channel.unary_unary(f"/{SERVICE}/ModelInfer")
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await ask(
                    request.SerializeToString(), metadata=tuple(headers.items()), timeout=20.0
                )
    finally:
        await server.stop(None)
    assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
    assert [type(error) for error in held] == [Overloaded] * is_held
