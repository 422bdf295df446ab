"""A real cluster of its own for the comparison: the cloud tier, and an edge box that waits."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np

from cluster.config import Settings, load_settings
from cluster.home import Home
from load import owncluster
from load.access import Access
from load.fake_hailo.device import DRIVER_PATH, FakeDevice
from load.http1 import connect, request_bytes
from load.oip import Payload, binary_request
from load.routing.fidelity import models

BATCH: Final = 8
LOG_S: Final = 1.5  # after which what was asked for is in the request log
_DEVICE_QUEUE: Final = 2 * BATCH


@dataclass(frozen=True, slots=True)
class Shape:
    """edge_s, edge_further_s: of the device for a row, and for each more of a batch; shared, own:
    products of the model on the processor (`models.register`).
    """

    edge_s: float
    edge_further_s: float
    shared: int
    own: int


class Cluster:
    """A cluster with the model served on both tiers. `running` starts and ends it."""

    def __init__(self, root: Path, shape: Shape) -> None:
        self.root = root
        self.home = Home.at(str(root))
        self._device = FakeDevice(root / "fake-hailo")
        self._device.create(
            latency_s=shape.edge_s, further_s=shape.edge_further_s, queue_size=_DEVICE_QUEUE
        )
        accelerated = {
            "kind": "hailo",
            "python": sys.executable,
            "driver_path": str(DRIVER_PATH),
            "environment": f"[FAKE_HAILO_DIR={self._device.folder}]",
        }
        self._flags = [
            word
            for name, value in accelerated.items()
            for word in ("--set", f"edge.accelerator.{name}={value}")
        ]
        self._environment = owncluster.environment(root)
        models.register(root, self.home, shape.shared, shape.own)
        self._is_served = False
        self.access = Access("", 0, "")

    @contextmanager
    def running(self, rule: str) -> Iterator[None]:
        """Have it up with a rule. Raises OSError with what a command complained of."""
        try:
            owncluster.must(
                self._environment,
                "cluster.cli.main",
                *self._flags,
                "--set",
                f"routing.rule={rule}",
                "up",
            )
            if not self._is_served:
                options = {"max_batch_size": BATCH, "instances": 1, "spill": 0}
                words = [w for name, one in options.items() for w in ("--option", f"{name}={one}")]
                reference = f"{models.MODEL}@{models.VERSION}"
                self._prime("model", "serve", reference, "--placement", "edge,cloud", *words)
                instant = f"{models.INSTANT}@{models.VERSION}"
                self._prime("model", "serve", instant, "--placement", "cloud")
                self._is_served = True
            settings = self.settings
            token = self._prime("token", "--scope", "infer", "--scope", "metrics:read").strip()
            self.access = Access(settings.address, settings.ports.rest, token)
            yield
        finally:
            self._prime("down")

    @property
    def settings(self) -> Settings:
        return load_settings(self._environment)

    def request(self, headers: Mapping[str, str], model: str = models.MODEL) -> bytes:
        """Return a request of the box's site with more headers."""
        data = np.random.default_rng(2).random((1, models.WIDTH), dtype=np.float32)
        said = self.access.headers({"prime-spark-site": self.settings.edge.site, **headers})
        return binary_request(Payload(model, "x", data), self.access.authority, said)

    async def targets(self) -> Mapping[str, Mapping[str, Any]]:
        """Return what the gateway knows of its targets for the model, by name."""
        document = await self._ask("/v2/prime-spark/targets")
        return {
            target["name"]: {**model, "tier": target["tier"], "site": target["site"]}
            for target in document["targets"]
            for model in target["models"]
            if model["model"] == models.MODEL
        }

    async def batches(self) -> Mapping[int, tuple[int, float]]:
        """Return runs and their seconds of computing by rows, of all places together."""
        document = await self._ask(f"/v2/models/{models.MODEL}/stats")
        return {
            batch["batch_size"]: (
                batch["compute_infer"]["count"],
                batch["compute_infer"]["ns"] / 1e9,
            )
            for batch in document["model_stats"][0]["batch_stats"]
        }

    def logged(self, since: float) -> list[dict[str, Any]]:
        """Return the lines of the request log from a time on, in order."""
        lines = [
            json.loads(text)
            for path in sorted(self.home.requests.glob("*.jsonl"))
            for text in path.read_text("utf-8").splitlines()
        ]
        return sorted((one for one in lines if one["at"] >= since), key=lambda one: one["at"])

    async def _ask(self, path: str) -> Any:
        connection = await connect(self.access.host, self.access.port)
        try:
            answer = await connection.ask(
                request_bytes("GET", path, self.access.authority, self.access.headers())
            )
        finally:
            connection.close()
        if answer.status != 200:
            raise OSError(f"{path}: status {answer.status}, {answer.body[:200]!r}")
        return json.loads(answer.body)

    def _prime(self, *words: str) -> str:
        return owncluster.must(self._environment, "cluster.cli.main", *words)
