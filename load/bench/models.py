"""The two models of the benchmark, in a registry, with one input each and its right answer."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np

from cluster.home import Home
from cluster.registry import PRODUCTION, EmbeddedRegistry
from edge_runtime.backends.ort import onnxruntime as ort
from load.oip import Payload, Rows
from serve_apps.model_sync import runnable_artifact

MODELS: Final = ("mlp", "resnet18")
SEED: Final = 2
TOLERANCE: Final = 1e-3  # batching and other kernels may change the last bits


@dataclass(frozen=True, slots=True, eq=False)
class BenchModel:
    """A model's file, an input for it, and what onnxruntime answers in this process."""

    name: str
    artifact: Path
    payload: Payload
    expected: Rows

    def check(self, answer: Rows) -> None:
        """Raise ValueError when an answer is not the model's."""
        if answer.shape != self.expected.shape:
            raise ValueError(f"{self.name}: shape {answer.shape}, not {self.expected.shape}")
        worst = float(np.abs(answer - self.expected).max())
        if not worst <= TOLERANCE * max(1.0, float(np.abs(self.expected).max())):
            raise ValueError(f"{self.name}: the answer is off by {worst:.3g}")


def publish(home: Home) -> tuple[BenchModel, ...]:
    """Put the models into the home's registry (no work when they are there).

    Raises CalledProcessError when one cannot be made.
    """
    for name in MODELS:
        command = [sys.executable, "-m", "train.zoo.publish", name, "--home", str(home.root)]
        subprocess.run(command, check=True)
    registry = EmbeddedRegistry(home.registry)
    found = []
    for name in MODELS:
        version = registry.resolve(name, PRODUCTION)
        found.append(_open(name, registry.artifact_path(runnable_artifact(version))))
    return tuple(found)


def _open(name: str, artifact: Path) -> BenchModel:
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    session = ort.InferenceSession(str(artifact), options, providers=["CPUExecutionProvider"])
    (node,) = session.get_inputs()
    shape = [1, *(int(dim) for dim in node.shape[1:])]
    data = np.random.default_rng(SEED).random(shape, dtype=np.float32)
    expected = session.run(None, {node.name: data})[0]
    return BenchModel(name, artifact, Payload(name, node.name, data), expected)
