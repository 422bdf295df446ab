"""Who hears at once that a server is overloaded: the cluster on the same node, and nobody else."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import grpc.aio
import pytest

from edge_runtime.auth import Authenticates, LocalCaller, Principal
from edge_runtime.engine import Engine, EngineOptions
from edge_runtime.errors import Overloaded
from edge_runtime.protocol import gate
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


@pytest.mark.parametrize(
    ("caller", "headers", "found"),
    [
        (LocalCaller(), {LOAD_HEADER: "1"}, grpc.StatusCode.UNAVAILABLE),
        (LocalCaller(), {}, grpc.StatusCode.DEADLINE_EXCEEDED),
        (Anybody(), {LOAD_HEADER: "1"}, grpc.StatusCode.DEADLINE_EXCEEDED),
        (Anybody(), {}, grpc.StatusCode.DEADLINE_EXCEEDED),
    ],
)
async def test_a_refusal_is_held_but_for_the_cluster_on_this_node(
    full: Full,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caller: Authenticates,
    headers: dict[str, str],
    found: grpc.StatusCode,
) -> None:
    monkeypatch.setattr(gate, "HOLD_S", 600.0)  # whoever is held never hears of it
    server = build_grpc_server(full, caller, Limits())
    address = f"unix:{tmp_path / 'full.sock'}"
    server.add_insecure_port(address)
    await server.start()
    request = pb.ModelInferRequest(model_name="m")
    request.inputs.add(name="x", datatype="FP32", shape=[1]).contents.fp32_contents.append(1.0)
    patience_s = 20.0 if found is grpc.StatusCode.UNAVAILABLE else 0.5
    try:
        async with grpc.aio.insecure_channel(address) as channel:
            ask = channel.unary_unary(f"/{SERVICE}/ModelInfer")
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await ask(
                    request.SerializeToString(),
                    metadata=tuple(headers.items()),
                    timeout=patience_s,
                )
    finally:
        await server.stop(None)
    assert caught.value.code() is found
