"""The edge runtime's own process as the protocol's suites see a server."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import httpx

from edge_runtime.protocol.service import Limits
from tests.contract.limits import LIMITS
from tests.contract.live import SCOPES
from tests.contract.models import write_models
from tests.edge_process import EdgeProcess

SETTINGS = {
    "edge.site": "barn",
    "edge.models.startup": "none",
    "limits.max_body_bytes": LIMITS.max_body_bytes,
    "limits.max_json_bytes": LIMITS.max_json_bytes,
    "limits.max_inflight_bytes": LIMITS.max_inflight_bytes,
    "limits.max_inputs": LIMITS.max_tensors,
    "limits.default_timeout_s": LIMITS.default_timeout_s,
    "limits.max_timeout_s": LIMITS.max_timeout_s,
}


@dataclass(frozen=True)
class EdgeServer:
    """A `tests.contract.live.Server` that is a process."""

    process: EdgeProcess
    api_key: str
    all_scopes: str
    name: str = "prime-spark-edge"
    version: str = version("prime-spark")
    target: str = "edge/barn"
    reason: str = "local"
    limits: Limits = LIMITS

    @property
    def rest(self) -> str:
        return self.process.rest

    @property
    def grpc(self) -> str:
        return self.process.grpc

    def token(self, scopes: Sequence[str] = SCOPES) -> str:
        return self.all_scopes if tuple(scopes) == SCOPES else self.process.token(scopes)

    @property
    def bearer(self) -> dict[str, str]:
        return {"authorization": f"Bearer {self.all_scopes}"}

    def busy(self) -> int:
        models = self._overview()["models"]
        return sum(model["queued"] + model["running"] for model in models)

    def body_bytes(self) -> int:
        return int(self._overview()["body_bytes"])

    def _overview(self) -> Any:
        answer = httpx.get(f"http://{self.rest}/v2/prime-spark/edge", headers=self.bearer)
        return answer.json()


@contextmanager
def edge_server(folder: Path) -> Iterator[EdgeServer]:
    """Start a runtime that serves the suite's models; `broken` and a second `add_sub` are not."""
    with EdgeProcess(folder / "home", SETTINGS) as process:
        for source in write_models(folder):
            process.install(source)
        key = process.must("apikey", "create", "suite").strip()
        process.start()
        try:
            made = EdgeServer(process, key, process.token(SCOPES))
            with httpx.Client(base_url=f"http://{process.rest}", headers=made.bearer) as api:
                index = api.post("/v2/repository/index").json()
                for entry in index:
                    if entry["version"] == "1" and entry["name"] != "broken":
                        api.post(
                            f"/v2/repository/models/{entry['name']}/load",
                            json={"parameters": {"version": "1"}},
                        ).raise_for_status()
            yield made
        finally:
            assert process.stop() == 0
