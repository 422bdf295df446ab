"""The edge runtime inside a test: on the test's own event loop, with a home below a folder."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import httpx
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from cluster.identity.keys import SigningKey, key_set
from cluster.identity.tokens import issue
from cluster.ports import free_port
from edge_runtime.app import EdgeRuntime, Places, RuntimeConfig
from edge_runtime.config import (
    AcceleratorSettings,
    EdgeModels,
    EdgePorts,
    EdgeSettings,
    EngineSettings,
    LimitSettings,
)
from edge_runtime.packages import Incoming, PackageFolder
from edge_runtime.protocol.types import ParameterValue
from tests.edge_runtime import onnx_models


class Box:
    """What a runtime needs, and what may be put into it while it runs and while it does not."""

    def __init__(self, folder: Path, **edge: object) -> None:
        self.folder = folder
        self.key = SigningKey.of(Ed25519PrivateKey.generate())
        self.packages = PackageFolder(folder / "models")
        settings: dict[str, object] = {
            "ports": EdgePorts(rest=free_port(), grpc=free_port()),
            "accelerator": AcceleratorSettings(kind="none"),
            "drain_s": 5.0,
            **edge,
        }
        self.config = RuntimeConfig(
            places=Places(models=folder / "models", state=folder / "state", run=folder / "run"),
            edge=EdgeSettings.model_validate(settings),
            engine=EngineSettings(),
            limits=LimitSettings(),
            jwks=key_set(self.key.private.public_key()),
            api_keys=None,
            version="test",
        )

    @property
    def edge(self) -> EdgeSettings:
        return self.config.edge

    @property
    def rest(self) -> str:
        return f"http://127.0.0.1:{self.edge.ports.rest}"

    @property
    def grpc(self) -> str:
        return f"127.0.0.1:{self.edge.ports.grpc}"

    def serve_models(self, **models: object) -> None:
        """Set how models are kept from the next start on."""
        edge = self.edge.model_copy(update={"models": EdgeModels.model_validate(models)})
        self.config = replace(self.config, edge=edge)

    def install(
        self,
        model: str,
        version: str = "1",
        path: Path | None = None,
        options: Mapping[str, ParameterValue] | None = None,
        now: float = 0.0,
    ) -> Path:
        """Put a model that answers with its input (or another file) into the folder."""
        source = path or onnx_models.identity(self.folder / "identity.onnx", "FP32", ("n", 1))
        files = [Incoming("onnx", source)]
        return self.packages.install(
            model, version, files, options=options, installed_at=now or time.time()
        ).folder

    def token(self, *scopes: str) -> dict[str, str]:
        """Return the header of a caller who may do this."""
        text = issue(self.key, "tester", scopes, 3600.0, time.time())
        return {"authorization": f"Bearer {text}"}

    def local(self) -> httpx.AsyncClient:
        """Return a client for the Unix socket."""
        transport = httpx.AsyncHTTPTransport(uds=str(self.config.places.socket))
        return httpx.AsyncClient(transport=transport, base_url="http://edge", timeout=30)

    @asynccontextmanager
    async def running(self, *, is_ready: bool = True) -> AsyncIterator[EdgeRuntime]:
        """Run it for a block; it is stopped at the end, if it has not been."""
        runtime = EdgeRuntime(self.config)
        await runtime.start()
        try:
            if is_ready:
                await runtime.ready()
            yield runtime
        finally:
            await runtime.stop()


def infer_body(value: float = 1.0) -> dict[str, object]:
    """Return the body of a request with one number."""
    tensor = {"name": "x", "datatype": "FP32", "shape": [1, 1], "data": [value]}
    return {"inputs": [tensor]}


async def ask(
    client: httpx.AsyncClient, model: str, value: float = 1.0, timeout_ms: int = 20_000
) -> httpx.Response:
    headers = {"prime-spark-timeout-ms": str(timeout_ms)}
    return await client.post(f"/v2/models/{model}/infer", json=infer_body(value), headers=headers)


async def descriptors() -> int:
    """Return how many files and sockets this process has open, when what is closing is closed."""
    await asyncio.sleep(0.05)
    return len(os.listdir("/proc/self/fd"))  # noqa: PTH208 (no disk)
