"""The compiler of HEF files, and what the driver makes of wrong ones."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from load.fake_hailo.device import FakeDevice
from load.fake_hailo.hef import MAGIC, HefStream, compile_hef, describe_hef, pack_hef
from tests.edge_runtime.onnx_models import identity


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return identity(tmp_path / "my net.onnx", "FP32", ("n", 4))


ROWS = {"x": np.array([[-1.0, 0.0, 0.5, 1.55]], np.float32)}


def refused(hailo: Any, hef: bytes) -> str:
    with hailo.VDevice() as vdevice, pytest.raises(hailo.HailoRTException) as raised:
        vdevice.create_infer_model(hef)
    return f"{type(raised.value).__name__}: {raised.value}"


def test_a_hef_begins_with_the_real_magic_number(hef: bytes) -> None:
    assert hef.startswith(MAGIC)
    assert list(MAGIC) == [1, ord("H"), ord("E"), ord("F")]


def test_the_calibration_gives_scale_and_zero_point(model: Path) -> None:
    found = describe_hef(compile_hef(model, ROWS, architecture="hailo8l"))
    assert (found.network, found.architecture) == ("my_net", "hailo8l")
    (stream,) = found.inputs
    assert stream.scale == pytest.approx(0.01, rel=1e-6)
    assert replace(stream, scale=0.01) == HefStream(
        name="my_net/input_layer1",
        tensor="x",
        rank=2,
        shape=(1, 1, 4),
        dtype="uint8",
        order="NHWC",
        scale=0.01,
        zero_point=100,
        is_nms=False,
    )
    assert found.outputs[0].name == "my_net/y1"


def test_ranges_include_zero_and_constants_compile(model: Path) -> None:
    rows = {"x": np.full((2, 4), 5.1, np.float32)}
    (stream,) = describe_hef(compile_hef(model, rows, architecture="hailo8")).inputs
    assert stream.zero_point == 0
    assert stream.scale == pytest.approx(5.1 / 255)
    rows = {"x": np.zeros((2, 4), np.float32)}
    (stream,) = describe_hef(compile_hef(model, rows, architecture="hailo8")).inputs
    assert (stream.zero_point, stream.scale) == (0, 1.0)


def test_models_that_the_device_cannot_hold_do_not_compile(tmp_path: Path, model: Path) -> None:
    whole_numbers = identity(tmp_path / "int.onnx", "INT64", ("n", 4))
    with pytest.raises(ValueError, match="no calibration rows"):
        compile_hef(model, {}, architecture="hailo8")
    with pytest.raises(Exception, match="int64"):
        compile_hef(whole_numbers, ROWS, architecture="hailo8")
    cubes = identity(tmp_path / "cube.onnx", "FP32", ("n", 2, 2))
    with pytest.raises(ValueError, match="3 dimensions"):
        compile_hef(cubes, {"x": np.ones((1, 2, 2))}, architecture="hailo8")


@pytest.mark.parametrize("data", [b"", b"PK\x03\x04" + bytes(100), MAGIC])
def test_what_is_no_hef_is_invalid(hailo: Any, data: bytes) -> None:
    assert refused(hailo, data).startswith("HailoRTInvalidHEFException")


@pytest.mark.parametrize("where", [60, -1])
def test_a_damaged_hef_is_corrupted(hailo: Any, hef: bytes, where: int) -> None:
    damaged = bytearray(hef)
    damaged[where] ^= 1
    assert "error: 91 " in refused(hailo, bytes(damaged))
    assert "error: 91 " in refused(hailo, hef[:-10])


@pytest.mark.parametrize("architecture", ["hailo8l", "hailo10h"])
def test_a_hef_for_another_chip_is_not_compatible(
    hailo: Any, model: Path, architecture: Any
) -> None:
    hef = compile_hef(model, ROWS, architecture=architecture)
    assert refused(hailo, hef).startswith("HailoRTHEFNotCompatibleWithDevice")


def test_a_hef_of_a_newer_compiler_is_not_supported(
    device: FakeDevice, hailo: Any, model: Path
) -> None:
    newer = compile_hef(model, ROWS, architecture="hailo8", compiler_version="3.34.0")
    assert "error: 92 " in refused(hailo, newer)
    older = compile_hef(model, ROWS, architecture="hailo8", compiler_version="3.29.0")
    with hailo.VDevice() as vdevice:
        vdevice.create_infer_model(older)


def test_a_hef_of_a_newer_format_is_not_supported(hailo: Any, hef: bytes) -> None:
    assert "error: 92 " in refused(hailo, hef[:7] + b"\x02" + hef[8:])


def test_packing_a_description_gives_the_same_file_again(hef: bytes, model: Path) -> None:
    again = compile_hef(model, ROWS, architecture="hailo8")
    assert pack_hef(describe_hef(again), model.read_bytes()) == again
