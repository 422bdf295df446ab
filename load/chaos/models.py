"""The models of a fault run, their inputs, and what every rung has to answer to each of them.

    python -m load.chaos.models FOLDER [--untrained]

`digits` has a HEF, int8 and fp32 ONNX; `plain` runs on the processor only; `lone` and `lone-stale`
have nothing but a HEF, so that they cannot be computed without the device. References are computed
here once: by ONNX Runtime for the processor's rungs, and for the device by the fake's own
quantisation around the float model. Inputs are chosen so that no two have answers that could be
taken for each other: an answer that belongs to another request shows.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from edge_runtime.backends.ort import onnxruntime
from load.fake_hailo.device import MARKER
from load.fake_hailo.hef import HefStream, compile_hef, describe_hef

Floats = NDArray[np.float32]

DIGITS: Final = "digits"
PLAIN: Final = "plain"
LONE: Final = "lone"
LONE_STALE: Final = "lone-stale"
HAILO: Final = "hailo"
INT8: Final = "cpu-int8"
FP32: Final = "cpu-fp32"
TARGET: Final = "hailo8"

INPUTS: Final = 48
APART: Final = 3.0  # tolerances between the answers to two inputs, at least
HEF_STEPS: Final = 2.5  # of the output's scale: an input that is rounded the other way moves it
_CALIBRATION_ROWS: Final = 64
_BATCHES: Final = (1, 3, 8)
_SEED: Final = 11
_FILES: Final = {FP32: "{}.onnx", INT8: "{}-int8.onnx", HAILO: "{}.hef"}


@dataclass(frozen=True, slots=True, eq=False)
class Reference:
    """What a rung answers: a row for each input, within tolerance at every value."""

    rows: Floats
    tolerance: float


@dataclass(frozen=True, slots=True, eq=False)
class Subject:
    """A model to ask: its inputs (a row each), references by rung, and the marker decoded.

    marker: what a row of a failed job would be if it came out; None without a HEF.
    """

    model: str
    input: str
    output: str
    inputs: Floats
    references: Mapping[str, Reference]
    marker: float | None


def build(folder: Path, *, is_trained: bool = True) -> None:
    """Make all files of the models below a folder. is_trained: takes torch and about 10 s."""
    folder.mkdir(parents=True, exist_ok=True)
    pixels = _pixels(folder, is_trained=is_trained)
    digits = folder / "digits.onnx"
    if is_trained:
        _train(folder, digits)
    else:
        _network(digits, ("image", "logits"), (1, 8, 8), 10, seed=1)
    calibration = pixels[:_CALIBRATION_ROWS]
    hef = compile_hef(digits, {"image": calibration}, architecture=TARGET, network="digits")
    (folder / "digits.hef").write_bytes(hef)
    _quantise(digits, folder / "digits-int8.onnx", "image", calibration)
    _network(folder / "plain.onnx", ("signal", "scores"), (3, 6, 6), 8, seed=2)
    signals = np.random.default_rng(_SEED).random((512, 3, 6, 6), dtype=np.float32)
    found: dict[str, Any] = {}
    arrays: dict[str, Floats] = {}
    for name, rows, rungs, names in (
        ("digits", pixels, (HAILO, INT8, FP32), ("image", "logits")),
        ("plain", signals, (FP32,), ("signal", "scores")),
    ):
        chosen, references = _choose(folder, name, rows, rungs)
        arrays[f"{name}/inputs"] = chosen
        tolerances = {}
        for rung, reference in references.items():
            arrays[f"{name}/{rung}"] = reference.rows
            tolerances[rung] = reference.tolerance
        found[name] = {"input": names[0], "output": names[1], "tolerances": tolerances}
    stream = describe_hef(hef).outputs[0]
    found["digits"]["marker"] = float(_decode(np.array([MARKER], np.uint8), stream)[0])
    with (folder / "references.npz").open("wb") as file:
        np.savez(file, allow_pickle=False, **arrays)
    (folder / "references.json").write_text(json.dumps(found, indent=1))


def read(folder: Path) -> dict[str, Subject]:
    """Return the subjects of a folder that `build` has filled, by model."""
    described = json.loads((folder / "references.json").read_bytes())
    with np.load(folder / "references.npz") as arrays:
        kept = {name: arrays[name] for name in arrays.files}
    subjects = {}
    for model, source in ((DIGITS, "digits"), (PLAIN, "plain"), (LONE, "digits")):
        told = described[source]
        references = {
            rung: Reference(kept[f"{source}/{rung}"], tolerance)
            for rung, tolerance in told["tolerances"].items()
            if model != LONE or rung == HAILO
        }
        subjects[model] = Subject(
            model,
            told["input"],
            told["output"],
            kept[f"{source}/inputs"],
            references,
            told.get("marker"),
        )
    lone = subjects[LONE]
    subjects[LONE_STALE] = Subject(
        LONE_STALE, lone.input, lone.output, lone.inputs, lone.references, lone.marker
    )
    return subjects


def _choose(
    folder: Path, name: str, rows: Floats, rungs: Sequence[str]
) -> tuple[Floats, dict[str, Reference]]:
    """Return inputs whose answers differ from each other on every rung, and their references."""
    references = {rung: _reference(folder, name, rung, rows) for rung in rungs}
    kept: list[int] = []
    for row in range(len(rows)):
        if len(kept) == INPUTS:
            break
        if all(
            np.abs(found.rows[kept] - found.rows[row]).max(axis=1, initial=0.0).min(initial=np.inf)
            >= APART * found.tolerance
            for found in references.values()
        ):
            kept.append(row)
    if len(kept) < INPUTS // 2:
        raise ValueError(f"only {len(kept)} inputs of {name} have answers that can be told apart")
    return rows[kept], {
        rung: Reference(found.rows[kept], found.tolerance) for rung, found in references.items()
    }


def _reference(folder: Path, name: str, rung: str, rows: Floats) -> Reference:
    """Compute a rung's answers one by one; the tolerance covers what batches change in them."""
    if rung == HAILO:
        return _device_reference(folder / f"{name}.hef", folder / f"{name}.onnx", rows)
    session = _session(folder / _FILES[rung].format(name))
    alone = _run(session, rows, 1)
    difference = max(float(np.abs(_run(session, rows, n) - alone).max()) for n in _BATCHES)
    span = float(alone.max() - alone.min())
    # A step of a quantised output is within what another kernel for another batch may do.
    least = span / 128 if rung == INT8 else span * 1e-4
    return Reference(alone, max(least, 3 * difference))


def _device_reference(hef: Path, onnx: Path, rows: Floats) -> Reference:
    described = describe_hef(hef.read_bytes())
    source, target = described.inputs[0], described.outputs[0]
    quantised = _decode(_encode(rows, source), source)
    answers = _run(_session(onnx), quantised, 1)
    return Reference(_decode(_encode(answers, target), target), HEF_STEPS * target.scale)


def _encode(values: Floats, stream: HefStream) -> NDArray[np.uint8]:
    """As the fake does (driver/hailo_platform/_native/network.py)."""
    codes = np.rint(values / np.float32(stream.scale)) + np.float32(stream.zero_point)
    clipped: NDArray[np.uint8] = np.clip(codes, 0, 255).astype(np.uint8)
    return clipped


def _decode(codes: NDArray[np.uint8], stream: HefStream) -> Floats:
    values: Floats = (codes.astype(np.float32) - np.float32(stream.zero_point)) * np.float32(
        stream.scale
    )
    return values


def _session(path: Path) -> Any:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def _run(session: Any, rows: Floats, at_once: int) -> Floats:
    name = session.get_inputs()[0].name
    parts = [
        session.run(None, {name: rows[at : at + at_once]})[0] for at in range(0, len(rows), at_once)
    ]
    found: Floats = np.concatenate(parts)
    return found


def _pixels(folder: Path, *, is_trained: bool) -> Floats:
    if not is_trained:
        return np.random.default_rng(_SEED).random((512, 1, 8, 8), dtype=np.float32)
    from train.zoo import digits

    images: Floats = digits.load(folder / "home").test.images.astype(np.float32)
    return images


def _train(folder: Path, path: Path) -> None:
    from train.zoo import cnn, digits

    cnn.build(digits.load(folder / "home"), path, lambda done, total: None)


def _network(
    path: Path, names: tuple[str, str], shape: tuple[int, int, int], classes: int, seed: int
) -> None:
    """Write a small convolutional network with random weights."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    rng = np.random.default_rng(seed)
    channels, height, width = shape
    weights = {
        "w1": rng.normal(0, 0.5, (16, channels, 3, 3)),
        "w2": rng.normal(0, 0.2, (16 * height * width, classes)),
        "b2": rng.normal(0, 1.0, (classes,)),
    }
    graph = helper.make_graph(
        [
            helper.make_node("Conv", [names[0], "w1"], ["c"], pads=[1, 1, 1, 1]),
            helper.make_node("Relu", ["c"], ["r"]),
            helper.make_node("Flatten", ["r"], ["f"]),
            helper.make_node("Gemm", ["f", "w2", "b2"], [names[1]]),
        ],
        "chaos",
        [helper.make_tensor_value_info(names[0], TensorProto.FLOAT, ["n", *shape])],
        [helper.make_tensor_value_info(names[1], TensorProto.FLOAT, ["n", classes])],
        [numpy_helper.from_array(v.astype(np.float32), name) for name, v in weights.items()],
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    onnx.save_model(made, str(path))


def _quantise(source: Path, target: Path, name: str, rows: Floats) -> None:
    """Write an int8 model with fixed scales; scales that follow a batch would mix its requests."""
    from onnxruntime.quantization import (  # noqa: TID251 (telemetry is off, see above)
        CalibrationDataReader,
        QuantFormat,
        QuantType,
        quantize_static,
    )
    from onnxruntime.quantization.shape_inference import quant_pre_process  # noqa: TID251

    class Rows(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self._left = iter(rows)

        def get_next(self) -> dict[str, Floats] | None:
            row = next(self._left, None)
            return None if row is None else {name: row[None]}

    with tempfile.TemporaryDirectory(dir=target.parent) as folder:
        prepared = Path(folder) / "prepared.onnx"
        quant_pre_process(str(source), str(prepared), skip_symbolic_shape=True)
        quantize_static(
            str(prepared),
            str(target),
            Rows(),
            quant_format=QuantFormat.QDQ,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
        )


def main(arguments: Sequence[str] | None = None) -> int:
    """Build the models into a folder."""
    parser = argparse.ArgumentParser(prog="load.chaos.models", description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--untrained", action="store_true", help="random weights, in a second")
    options = parser.parse_args(arguments)
    build(options.folder, is_trained=not options.untrained)
    return 0


if __name__ == "__main__":
    sys.exit(main())
