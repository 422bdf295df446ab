"""A real model server in this process: REST and gRPC over one engine, on loopback ports."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Protocol

import uvicorn
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from cluster.identity.keys import SigningKey, key_set
from cluster.identity.tokens import issue
from edge_runtime.auth import Authenticator, Principal, TokenVerifier
from edge_runtime.engine import Engine, EngineOptions, ModelSource
from edge_runtime.protocol.body import ByteBudget
from edge_runtime.protocol.grpc_service import build_grpc_server
from edge_runtime.protocol.rest import build_rest_app
from edge_runtime.protocol.service import Limits
from edge_runtime.service import EngineService

API_KEY = "ps_for_tests"
SCOPES = ("infer", "models:write", "metrics:read")


class OneKey:
    """Knows one API key, until it is revoked."""

    def __init__(self) -> None:
        self.is_revoked = False

    def verify(self, key: str, now: float) -> Principal | None:
        known = key == API_KEY and not self.is_revoked
        return Principal("tester", frozenset({"infer"})) if known else None


class Server(Protocol):
    """A running server as the conformance suite sees it, wherever it runs.

    rest, grpc: host:port; name and version: what it says of itself; target and reason: where
    `mlp` is computed and why; api_key: one that may infer.
    """

    rest: str
    grpc: str
    name: str
    version: str
    target: str
    reason: str
    api_key: str
    limits: Limits

    def token(self, scopes: Sequence[str] = SCOPES) -> str: ...

    @property
    def bearer(self) -> dict[str, str]: ...

    def busy(self) -> int:
        """Return how many requests are queued or running."""
        ...

    def body_bytes(self) -> int:
        """Return how much memory request bodies take."""
        ...


@dataclass(frozen=True, slots=True, eq=False)
class LiveServer:
    """A server in this process. rest, grpc: host:port."""

    rest: str
    grpc: str
    key: SigningKey
    api_keys: OneKey
    authenticator: Authenticator
    limits: Limits
    budget: ByteBudget
    load: Callable[[], int]
    name: str = "prime-spark-edge"
    version: str = "test"
    target: str = "edge"
    reason: str = "local"
    api_key: str = API_KEY

    def busy(self) -> int:
        return self.load()

    def body_bytes(self) -> int:
        return self.budget.used

    def token(self, scopes: Sequence[str] = SCOPES) -> str:
        return issue(self.key, "tester", scopes, 3600.0, time.time())

    @property
    def bearer(self) -> dict[str, str]:
        return {"authorization": f"Bearer {self.token()}"}


@contextlib.contextmanager
def serving(
    sources: Sequence[ModelSource], limits: Limits, loads: Callable[[ModelSource], bool]
) -> Iterator[LiveServer]:
    """Serve until the block ends. loads: which sources to load at the start."""
    ready: Future[LiveServer] = Future()
    stop = threading.Event()

    async def run() -> None:
        async with _running(sources, limits, loads) as server:
            ready.set_result(server)
            await asyncio.to_thread(stop.wait)

    def work() -> None:
        try:
            asyncio.run(run())
        except BaseException as error:
            if ready.done():
                raise
            ready.set_exception(error)

    thread = threading.Thread(target=work, name="live-server")
    thread.start()
    try:
        yield ready.result(timeout=60)
    finally:
        stop.set()
        thread.join(timeout=30)


@contextlib.asynccontextmanager
async def _running(
    sources: Sequence[ModelSource], limits: Limits, loads: Callable[[ModelSource], bool]
) -> AsyncIterator[LiveServer]:
    engine = Engine(EngineOptions(threads=2, drain_s=1.0))
    service = EngineService(engine, [s for s in sources if loads(s)], version="test")
    await service.load_all()
    for source in sources:
        if not loads(source):
            service.add(source)
    key = SigningKey.of(Ed25519PrivateKey.generate())
    api_keys = OneKey()
    verifier = TokenVerifier(json.loads(json.dumps(key_set(key.private.public_key()))))
    authenticator = Authenticator(verifier, api_keys, time.time)
    budget = ByteBudget(limits.max_inflight_bytes)
    app = build_rest_app(service, authenticator, limits, lambda: (b"", "text/plain"), budget)
    grpc_server = build_grpc_server(service, authenticator, limits, budget)
    grpc_port = grpc_server.add_insecure_port("127.0.0.1:0")
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    config = uvicorn.Config(app, http="httptools", lifespan="off", log_config=None)
    rest_server = uvicorn.Server(config)
    task = asyncio.create_task(rest_server.serve(sockets=[listener]))
    await grpc_server.start()
    while not rest_server.started:  # noqa: ASYNC110 (only a flag)
        await asyncio.sleep(0.01)
    try:
        yield LiveServer(
            rest=f"127.0.0.1:{listener.getsockname()[1]}",
            grpc=f"127.0.0.1:{grpc_port}",
            key=key,
            api_keys=api_keys,
            authenticator=authenticator,
            limits=limits,
            budget=budget,
            load=lambda: sum(r.queued + r.running for r in engine.load_report().values()),
        )
    finally:
        rest_server.should_exit = True
        await asyncio.gather(task, grpc_server.stop(1.0))
        await engine.close()
