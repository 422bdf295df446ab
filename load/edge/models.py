"""The models that the edge benchmark and the soak serve, and what they ought to answer."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np

from cluster.home import Home
from cluster.registry import PRODUCTION, EmbeddedRegistry
from edge_runtime.backends.ort import onnxruntime as ort
from load.bench.models import BenchModel
from load.fake_hailo.hef import HefStream, compile_hef, describe_hef
from load.oip import Payload, Rows
from serve_apps.model_sync import runnable_artifact

SEED: Final = 3
ARCHITECTURE: Final = "hailo8"
CALIBRATION_ROWS: Final = 64


@dataclass(frozen=True, slots=True)
class Models:
    """light: computes in less than a millisecond (the digits); heavy: in the shape of ResNet-18."""

    light: BenchModel
    heavy: BenchModel


Publish = Callable[[Path], Models]
"""Makes the models below a folder, or finds them there."""


def publish(root: Path) -> Models:
    """Take the models from the registry of a home, training and exporting them the first time.

    Raises CalledProcessError when one cannot be made.
    """
    for name in ("digits", "resnet18"):
        command = [sys.executable, "-m", "train.zoo.publish", name, "--home", str(root)]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    registry = EmbeddedRegistry(Home.at(root).registry)

    def artifact(name: str) -> Path:
        return registry.artifact_path(runnable_artifact(registry.resolve(name, PRODUCTION)))

    return Models(
        describe("digits", artifact("digits")), describe("resnet18", artifact("resnet18"))
    )


def describe(name: str, artifact: Path) -> BenchModel:
    """Open a model of one FP32 input and keep one row and its answer."""
    session = _session(artifact)
    (node,) = session.get_inputs()
    data = rows(session, 1)
    return BenchModel(name, artifact, Payload(name, node.name, data), _run(session, data))


def examples(model: BenchModel, count: int) -> list[BenchModel]:
    """Return as many rows and their answers, each as a model of its own."""
    session = _session(model.artifact)
    data = rows(session, count)
    name, node = model.name, model.payload.input
    return [
        BenchModel(name, model.artifact, Payload(name, node, row), _run(session, row))
        for row in np.split(data, count)
    ]


def compiled(model: BenchModel, path: Path) -> Path:
    """Write the model as a HEF for the fake device."""
    data = rows(_session(model.artifact), CALIBRATION_ROWS if model.payload.data.size < 4096 else 2)
    hef = compile_hef(model.artifact, {model.payload.input: data}, architecture=ARCHITECTURE)
    path.write_bytes(hef)
    return path


def hef_outputs(path: Path) -> tuple[HefStream, ...]:
    """Return the output streams of a HEF that `compiled` wrote."""
    return describe_hef(path.read_bytes()).outputs


def rows(session: Any, count: int) -> Rows:
    """Return rows of numbers from 0 to 1, the same ones every time."""
    (node,) = session.get_inputs()
    shape = [count, *(int(dim) for dim in node.shape[1:])]
    return np.random.default_rng(SEED).random(shape, dtype=np.float32)


def _session(artifact: Path) -> Any:
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    return ort.InferenceSession(str(artifact), options, providers=["CPUExecutionProvider"])


def _run(session: Any, data: Rows) -> Rows:
    answer: Rows = session.run(None, {session.get_inputs()[0].name: data})[0]
    return answer
