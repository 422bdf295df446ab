from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from cluster.registry import EmbeddedRegistry
from edge_runtime.backends.ort import onnxruntime as ort
from train.zoo import digits
from train.zoo.digits import Digits
from train.zoo.publish import Published, publish

Rows = NDArray[np.float32]


def quiet(done: int, total: int) -> None:
    """Progress that nobody watches."""


def run(artifact: Path, name: str, rows: Rows) -> Rows:
    """Compute with ONNX Runtime alone, as any user of the file would."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    session = ort.InferenceSession(str(artifact), options, providers=["CPUExecutionProvider"])
    answer: Rows = session.run(None, {name: rows})[0]
    return answer


@dataclass(frozen=True)
class Site:
    """A home with the digits model published once, for the tests that only read it."""

    root: Path
    registry: EmbeddedRegistry
    published: Published
    data: Digits

    @property
    def artifact(self) -> Path:
        version = self.registry.resolve("digits", None)
        return self.registry.artifact_path(version.artifacts[0])


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory) -> Site:
    root = tmp_path_factory.mktemp("zoo")
    registry = EmbeddedRegistry(root / "registry")
    published = publish("digits", root, registry, actor="ada", force=False, progress=quiet)
    return Site(root, registry, published, digits.load(root))
