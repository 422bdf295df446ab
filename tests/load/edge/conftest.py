from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from load.edge.__main__ import main
from load.edge.models import Models, describe
from load.edge.plan import QUICK
from tests.edge_runtime.onnx_models import linear

PLAN = replace(
    QUICK,
    rounds=1,
    warm_s=0.05,
    measure_s=0.15,
    requests=20,
    settle_s=0.05,
    hop_calls=20,
    hop_bytes=(150_528,),
    lives=1,
    kills=1,
    heavy_kills=0,
    clients=4,
    heavy_clients=2,
    batches=(4,),
)


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> Models:
    """Stand-ins for the digits and ResNet-18 that need no training."""
    folder, rng = tmp_path_factory.mktemp("models"), np.random.default_rng(11)

    def weights(rows: int, columns: int) -> Any:
        return (rng.random((rows, columns), dtype=np.float32) - 0.5) / rows

    return Models(
        describe("light", linear(folder / "light.onnx", weights(64, 10))),
        describe("heavy", linear(folder / "heavy.onnx", weights(2048, 1000))),
    )


@pytest.fixture(scope="session")
def publish(models: Models) -> Callable[[Path], Models]:
    return lambda home: models


@pytest.fixture(scope="session")
def written(
    publish: Callable[[Path], Models], tmp_path_factory: pytest.TempPathFactory
) -> tuple[int, Path]:
    """One run of the whole tool with next to no load: its exit code, and the folder it wrote."""
    out = tmp_path_factory.mktemp("out")
    return main(["--quick", "--out", str(out)], publish, PLAN), out


@pytest.fixture(scope="session")
def document(written: tuple[int, Path]) -> dict[str, Any]:
    """The raw results of that run."""
    found: dict[str, Any] = json.loads((written[1] / "edge-quick.json").read_bytes())
    return found
