"""The running gateway as the protocol's conformance suite sees a server."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from cluster.registry import ArtifactFile, EmbeddedRegistry, ModelCard
from edge_runtime.backends.base import BackendOptions
from edge_runtime.backends.onnx import load_onnx
from edge_runtime.engine import ModelSource
from edge_runtime.protocol.service import Limits
from edge_runtime.protocol.types import Signature, TensorSpec
from tests.contract.live import SCOPES
from tests.contract.models import write_models
from tests.e2e.cluster import TestCluster

PLACEMENT = "cloud"
BROKEN = "broken"


@dataclass(frozen=True)
class GatewayServer:
    """A `tests.contract.live.Server` that runs in a cluster."""

    cluster: TestCluster
    api_key: str
    all_scopes: str
    name: str = "prime-spark"
    version: str = version("prime-spark")
    target: str = PLACEMENT
    reason: str = "only_candidate"

    @property
    def rest(self) -> str:
        return self.cluster.rest

    @property
    def grpc(self) -> str:
        return self.cluster.grpc

    @property
    def limits(self) -> Limits:
        settings = self.cluster.settings.limits
        return Limits(
            max_body_bytes=settings.max_body_bytes, max_json_bytes=settings.max_json_bytes
        )

    def token(self, scopes: Sequence[str] = SCOPES) -> str:
        return self.all_scopes if tuple(scopes) == SCOPES else self.cluster.token(*scopes)

    @property
    def bearer(self) -> dict[str, str]:
        return {"authorization": f"Bearer {self.all_scopes}"}

    def busy(self) -> int:
        with self.cluster.http() as client:
            answer = client.get("/v2/prime-spark/targets", headers=self.bearer)
        targets = answer.json()["targets"]
        return sum(m["queued"] + m["running"] for target in targets for m in target["models"])

    def body_bytes(self) -> int:
        with self.cluster.http() as client:
            lines = client.get("/metrics", headers=self.bearer).text.splitlines()
        (value,) = (x.split()[1] for x in lines if x.startswith("prime_spark_gateway_body_bytes "))
        return int(float(value))


def serve_suite_models(cluster: TestCluster, folder: Path) -> None:
    """Register the suite's models in the cluster and serve them; `broken` and a second version
    of `add_sub` are registered only."""
    registry = EmbeddedRegistry(cluster.home.registry)
    sources = write_models(folder)
    for source in sources:
        registry.register(
            source.model,
            source.version,
            signature=_signature(source),
            artifacts=[ArtifactFile("onnx", source.variants[0].path)],
            card=ModelCard(),
            actor="suite",
        )
    for source in sources:
        if source.version == "1" and source.model != BROKEN:
            cluster.must(
                "model", "serve", f"{source.model}@1", "--placement", PLACEMENT, "--wait-s", "90"
            )


def _signature(source: ModelSource) -> Signature:
    if source.model == BROKEN:
        anything = (TensorSpec("x", "FP32", (-1,)),)
        return Signature(anything, anything)
    return load_onnx(source.variants[0].path, BackendOptions()).signature
