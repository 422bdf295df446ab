"""What buffers and sources are taken, and what values come out of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import helper, numpy_helper
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression

from load.fake_hailo.device import FakeDevice
from load.fake_hailo.hef import compile_hef
from tests.edge_runtime.onnx_models import save
from tests.load.fake_hailo.rig import Rig, status_of

Floats = NDArray[np.float32]


def channel_scaler(path: Path) -> Path:
    """y = x * (1, 2, 3) over the channels of a 3 x 2 x 4 image."""
    factors = np.array([1, 2, 3], np.float32).reshape(1, 3, 1, 1)
    return save(
        path,
        [helper.make_node("Mul", ["x", "f"], ["scaled"])],
        [("x", "FP32", ("n", 3, 2, 4))],
        [("scaled", "FP32", ("n", 3, 2, 4))],
        [numpy_helper.from_array(factors, "f")],
    )


def two_by_two(path: Path) -> Path:
    """sum = a + b, difference = a - b."""
    shape = ("n", 4)
    return save(
        path,
        [
            helper.make_node("Add", ["a", "b"], ["sum"]),
            helper.make_node("Sub", ["a", "b"], ["difference"]),
        ],
        [("a", "FP32", shape), ("b", "FP32", shape)],
        [("sum", "FP32", shape), ("difference", "FP32", shape)],
    )


def codes(values: Floats, stream: Any) -> NDArray[np.uint8]:
    (quant,) = stream.quant_infos
    found: NDArray[np.uint8] = np.clip(
        np.rint(values / quant.qp_scale) + quant.qp_zp, 0, 255
    ).astype(np.uint8)
    return found


def values(found: NDArray[Any], stream: Any) -> Floats:
    (quant,) = stream.quant_infos
    floats: Floats = (found.astype(np.float32) - quant.qp_zp) * np.float32(quant.qp_scale)
    return floats


@pytest.fixture
def image_hef(tmp_path: Path) -> bytes:
    rows = np.random.default_rng(5).uniform(-1, 1, (16, 3, 2, 4)).astype(np.float32)
    model = channel_scaler(tmp_path / "scaler.onnx")
    return compile_hef(model, {"x": rows}, architecture="hailo8")


@pytest.fixture
def two_hef(tmp_path: Path) -> bytes:
    rows = np.random.default_rng(6).uniform(-1, 1, (16, 4)).astype(np.float32)
    model = two_by_two(tmp_path / "two.onnx")
    return compile_hef(model, {"a": rows, "b": -rows[::-1]}, architecture="hailo8")


def test_images_are_nhwc_for_the_device(hailo: Any, image_hef: bytes) -> None:
    image = np.random.default_rng(7).uniform(-1, 1, (2, 4, 3)).astype(np.float32)
    with Rig(hailo, image_hef) as rig:
        source, sink = rig.model.input(), rig.model.output()
        assert source.shape == sink.shape == [2, 4, 3]
        assert source.format.order == hailo.FormatOrder.NHWC
        assert (source.name, sink.name) == ("scaler/input_layer1", "scaler/scaled1")
        frame = rig.frame()
        frame.bindings.input().set_buffer(codes(image, source))
        rig.configured.run([frame.bindings], 1000)
        step = sink.quant_infos[0].qp_scale
        # half a step of the input, three times, and half a step of the output
        found = values(frame.output, sink)
        np.testing.assert_allclose(found, image * [1, 2, 3], atol=step * 1.5)


def test_the_host_may_ask_for_nchw_and_float(hailo: Any, image_hef: bytes) -> None:
    image = np.random.default_rng(8).uniform(-1, 1, (3, 2, 4)).astype(np.float32)
    with hailo.VDevice() as vdevice:
        model = vdevice.create_infer_model(image_hef)
        for stream in (model.input(), model.output()):
            stream.set_format_type(hailo.FormatType.FLOAT32)
            stream.set_format_order(hailo.FormatOrder.NCHW)
        with model.configure() as configured:
            configured.activate()
            output = np.zeros((3, 2, 4), np.float32)
            bindings = configured.create_bindings(
                {model.input().name: image}, {model.output().name: output}
            )
            configured.run([bindings], 1000)
        expected = image * np.array([1, 2, 3]).reshape(3, 1, 1)
        np.testing.assert_allclose(output, expected, atol=0.05)


def test_floats_are_rounded_to_codes_and_clipped(hailo: Any, hef: bytes) -> None:
    with hailo.VDevice() as vdevice:
        model = vdevice.create_infer_model(hef)  # its codes are the values
        for stream in (model.input(), model.output()):
            stream.set_format_type(hailo.FormatType.FLOAT32)
        with model.configure() as configured:
            configured.activate()
            output = np.zeros((1, 1, 4), np.float32)
            bindings = configured.create_bindings(
                {model.input().name: np.array([[[1.4, 1.6, -3.0, 300.0]]], np.float32)},
                {model.output().name: output},
            )
            configured.run([bindings], 1000)
    assert output.tolist() == [[[1.0, 2.0, 0.0, 255.0]]]


def test_rows_are_one_by_one_by_channels(rig: Rig) -> None:
    assert rig.model.input().shape == rig.model.output().shape == [1, 1, 4]
    assert rig.run(77).tolist() == [[[77, 77, 77, 77]]]


def test_digits_are_read_as_well_in_uint8_as_in_float(
    device: FakeDevice, hailo: Any, tmp_path: Path
) -> None:
    device.create(latency_s=0.0, queue_size=50)
    images, digits = load_digits(return_X_y=True)
    images = images.astype(np.float32)
    regression = LogisticRegression(max_iter=300).fit(images[:1000], digits[:1000])
    model = save(
        tmp_path / "digits.onnx",
        [helper.make_node("Gemm", ["pixels", "w", "b"], ["logits"])],
        [("pixels", "FP32", ("n", 64))],
        [("logits", "FP32", ("n", 10))],
        [
            numpy_helper.from_array(regression.coef_.T.astype(np.float32), "w"),
            numpy_helper.from_array(regression.intercept_.astype(np.float32), "b"),
        ],
    )
    hef = compile_hef(model, {"pixels": images[:200]}, architecture="hailo8")
    held_out = slice(1000, 1400)
    found = []
    with Rig(hailo, hef) as rig:
        for start in range(1000, 1400, 50):
            frames = [rig.frame() for _ in range(50)]
            for frame, image in zip(frames, images[start : start + 50], strict=True):
                frame.bindings.input().set_buffer(codes(image, rig.model.input()))
            rig.configured.run([frame.bindings for frame in frames], 5000)
            found += [int(frame.output.argmax()) for frame in frames]
    in_float = regression.predict(images[held_out])
    assert np.mean(np.array(found) == in_float) >= 0.98


def test_a_model_of_several_streams_is_addressed_by_name(hailo: Any, two_hef: bytes) -> None:
    with Rig(hailo, two_hef) as rig:
        assert rig.model.input_names == ["two/input_layer1", "two/input_layer2"]
        assert rig.model.output_names == ["two/sum1", "two/difference2"]
        bindings = rig.configured.create_bindings()
        for call in (rig.model.input, rig.model.output, bindings.input, bindings.output):
            with pytest.raises(rig.errors.HailoRTNotFoundException) as raised:
                call()
            assert status_of(raised.value) == 61
            with pytest.raises(rig.errors.HailoRTNotFoundException):
                call("no such stream")
        a, b = (np.array([[[0.5, -0.25, 0.1, 0.9]]], np.float32), np.float32(0.25))
        frame = rig.frame()
        one, other = rig.model.inputs
        frame.bindings.input(one.name).set_buffer(codes(a, one))
        frame.bindings.input(other.name).set_buffer(codes(np.full_like(a, b), other))
        rig.configured.run([frame.bindings], 1000)
        total, difference = rig.model.outputs
        np.testing.assert_allclose(values(frame.outputs[total.name], total), a + b, atol=0.03)
        np.testing.assert_allclose(
            values(frame.outputs[difference.name], difference), a - b, atol=0.03
        )


def test_a_buffer_of_the_wrong_size_is_noticed_when_the_job_is_submitted(rig: Rig) -> None:
    frame = rig.frame()
    frame.bindings.input().set_buffer(np.zeros((1, 1, 4), np.float32))  # taken
    with pytest.raises(rig.errors.HailoRTInvalidOperationException) as raised:
        rig.configured.run_async([frame.bindings])
    assert status_of(raised.value) == 6
    assert rig.run(3).tolist() == [[[3, 3, 3, 3]]]  # a refusal breaks nothing


def test_only_bytes_count_not_the_type_or_the_shape(rig: Rig) -> None:
    frame = rig.frame()
    frame.bindings.input().set_buffer(np.array([1.0], np.float32))
    rig.configured.run([frame.bindings], 1000)
    assert frame.output.tobytes() == np.array([1.0], np.float32).tobytes()


def test_a_missing_buffer_is_refused(rig: Rig) -> None:
    bindings = rig.configured.create_bindings()
    bindings.input().set_buffer(np.zeros((1, 1, 4), np.uint8))
    with pytest.raises(rig.errors.HailoRTInvalidOperationException):
        rig.configured.run_async([bindings])


def test_a_buffer_has_to_be_contiguous_and_writeable(rig: Rig) -> None:
    bindings = rig.configured.create_bindings()
    strided = np.zeros((1, 1, 8), np.uint8)[..., ::2]
    with pytest.raises(rig.errors.HailoRTException, match="C_CONTIGUOUS"):
        bindings.input().set_buffer(strided)
    fixed = np.frombuffer(bytes(4), np.uint8)
    with pytest.raises(ValueError, match="not writeable"):
        bindings.input().set_buffer(fixed)


def test_a_network_comes_from_a_text_path_or_from_bytes(
    hailo: Any, hef: bytes, tmp_path: Path
) -> None:
    path = tmp_path / "model.hef"
    path.write_bytes(hef)
    with hailo.VDevice() as vdevice:
        for source in (hef, str(path)):
            model = vdevice.create_infer_model(source)
            assert model.input_names == ["same/input_layer1"]
            assert [i.name for i in model.hef.get_input_vstream_infos()] == model.input_names
        for wrong in (path, memoryview(hef)):
            with pytest.raises(TypeError):
                vdevice.create_infer_model(wrong)
            with pytest.raises(ValueError, match="only be created from"):
                hailo.HEF(wrong)
        with pytest.raises(hailo.HailoRTException, match="13 "):
            vdevice.create_infer_model(str(tmp_path / "none.hef"))


def test_options_of_post_processing_that_is_not_there_fail_the_configuration(
    hailo: Any, hef: bytes
) -> None:
    with hailo.VDevice() as vdevice:
        model = vdevice.create_infer_model(hef)
        assert not model.output().is_nms
        model.output().set_nms_score_threshold(0.5)
        with pytest.raises(hailo.HailoRTException):
            model.configure()


def test_a_forgotten_batch_dimension_of_the_model_is_no_matter(hailo: Any, tmp_path: Path) -> None:
    node = onnx.helper.make_node("Identity", ["x"], ["y"])
    fixed = save(tmp_path / "one.onnx", [node], [("x", "FP32", (1, 4))], [("y", "FP32", (1, 4))])
    rows = np.ones((3, 4), np.float32)
    with Rig(hailo, compile_hef(fixed, {"x": rows}, architecture="hailo8")) as rig:
        assert rig.run(200).tolist() == [[[200] * 4]]
