from __future__ import annotations

import threading
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from edge_runtime.backends.base import Backend, BackendOptions, Cancelled
from edge_runtime.backends.onnx import OnnxBackend, load_onnx
from edge_runtime.errors import Corrupt, InvalidInput, Unsupported
from edge_runtime.protocol.binary import bytes_array
from edge_runtime.protocol.datatypes import NUMPY, to_bf16
from edge_runtime.protocol.types import Array
from tests.edge_runtime import onnx_models

NUMERIC = sorted(set(NUMPY) - {"BYTES", "BF16", "BOOL"})


def load(path: Path) -> OnnxBackend:
    return load_onnx(path, BackendOptions())


def compute(backend: Backend, **inputs: Array) -> list[Array]:
    outputs = [spec.name for spec in backend.signature.outputs]
    return backend.prepare(inputs, outputs).execute()


def extremes(datatype: str) -> Array:
    kind = NUMPY[datatype]
    if kind.kind == "f":
        return np.array([[0.0, -1.5, 2.0], [np.inf, 6.1e-5, 1000.0]], dtype=kind)
    bounds = np.iinfo(str(kind))
    return np.array([[0, 1, 2], [bounds.min, bounds.max, 7]], dtype=kind)


@pytest.mark.parametrize("datatype", NUMERIC)
def test_numbers_of_each_datatype_pass_unchanged(datatype: str, tmp_path: Path) -> None:
    backend = load(onnx_models.identity(tmp_path / "m.onnx", datatype))
    given = extremes(datatype)
    (found,) = compute(backend, x=given)
    assert found.dtype == given.dtype
    assert np.array_equal(found, given)
    (spec,) = backend.signature.inputs
    assert (spec.name, spec.datatype, spec.shape) == ("x", datatype, (-1, 3))
    assert backend.signature.is_batched


def test_booleans_pass_unchanged(tmp_path: Path) -> None:
    backend = load(onnx_models.identity(tmp_path / "m.onnx", "BOOL"))
    given = np.array([[True, False, True]])
    assert np.array_equal(compute(backend, x=given)[0], given)


@pytest.mark.parametrize("rows", [0, 1, 5])
def test_bfloat16_passes_as_its_bits_in_memory_of_its_own(rows: int, tmp_path: Path) -> None:
    backend = load(onnx_models.identity(tmp_path / "m.onnx", "BF16"))
    values = np.linspace(-3e38, 3e38, rows * 3, dtype=np.float32).reshape(rows, 3)
    given = to_bf16(values)
    (found,) = compute(backend, x=given)
    assert found.dtype == np.uint16
    assert np.array_equal(found, given)
    assert found.flags.owndata
    assert not np.shares_memory(found, given)


def test_bfloat16_is_computed_with_and_mixes_with_other_datatypes(tmp_path: Path) -> None:
    path = onnx_models.save(
        tmp_path / "m.onnx",
        [
            helper.make_node("Cast", ["number"], ["rounded"], to=TensorProto.BFLOAT16),
            helper.make_node("Cast", ["bits"], ["widened"], to=TensorProto.FLOAT),
            helper.make_node("Cast", ["whole"], ["text"], to=TensorProto.STRING),
        ],
        [("number", "FP32", ["n"]), ("bits", "BF16", ["n"]), ("whole", "INT64", ["n"])],
        [("rounded", "BF16", ["n"]), ("widened", "FP32", ["n"]), ("text", "BYTES", ["n"])],
    )
    numbers = np.array([1.0, 1.0039062, -3.14159], dtype=np.float32)
    whole = np.array([1, -2, 3])
    rounded, widened, text = compute(
        load(path), number=numbers, bits=to_bf16(numbers * 2), whole=whole
    )
    assert np.array_equal(rounded, to_bf16(numbers))
    assert np.allclose(widened, numbers * 2, rtol=2**-8)
    assert text.tolist() == [b"1", b"-2", b"3"]


def test_a_model_that_takes_text_beside_bfloat16_is_unsupported(tmp_path: Path) -> None:
    path = onnx_models.save(
        tmp_path / "m.onnx",
        [helper.make_node("Identity", [n], [f"{n}2"]) for n in ("bits", "text")],
        [("bits", "BF16", ["n"]), ("text", "BYTES", ["n"])],
        [("bits2", "BF16", ["n"]), ("text2", "BYTES", ["n"])],
    )
    with pytest.raises(Unsupported, match="BF16"):
        load(path)


def test_text_passes_as_utf8_bytes_in_its_shape(tmp_path: Path) -> None:
    backend = load(onnx_models.identity(tmp_path / "m.onnx", "BYTES"))
    words = [b"", b"edge", "größer".encode(), "日本".encode(), b"a\x00b\x00", b"x" * 1000]
    given = bytes_array(words, (2, 3))
    (found,) = compute(backend, x=given)
    assert found.shape == (2, 3)
    assert found.reshape(-1).tolist() == words


def test_bytes_that_are_not_text_are_refused_naming_the_tensor(tmp_path: Path) -> None:
    backend = load(onnx_models.identity(tmp_path / "m.onnx", "BYTES"))
    with pytest.raises(InvalidInput, match="UTF-8") as error:
        compute(backend, x=bytes_array([b"\xff\xfe", b"", b""], (1, 3)))
    assert error.value.field == "x"


def test_views_that_are_read_only_or_strided_are_taken_as_they_are(tmp_path: Path) -> None:
    backend = load(onnx_models.identity(tmp_path / "m.onnx", "FP32"))
    given = np.arange(24, dtype=np.float32).reshape(4, 6)[::2, ::2]
    given.flags.writeable = False
    assert np.array_equal(compute(backend, x=given)[0], given)


def test_only_the_outputs_asked_for_are_given_in_the_order_asked(tmp_path: Path) -> None:
    path = onnx_models.save(
        tmp_path / "m.onnx",
        [helper.make_node("Neg", ["x"], ["minus"]), helper.make_node("Abs", ["x"], ["size"])],
        [("x", "FP32", ["n"])],
        [("minus", "FP32", ["n"]), ("size", "FP32", ["n"])],
    )
    backend = load(path)
    x = np.array([-1.0, 2.0], dtype=np.float32)
    found = backend.prepare({"x": x}, ["size", "minus"]).execute()
    assert [array.tolist() for array in found] == [[1.0, 2.0], [1.0, -2.0]]
    assert len(backend.prepare({"x": x}, ["size"]).execute()) == 1


def test_a_fixed_shape_and_a_scalar_are_described_as_such(tmp_path: Path) -> None:
    fixed = load(onnx_models.identity(tmp_path / "a.onnx", "INT8", (1, 4)))
    scalar = load(onnx_models.identity(tmp_path / "b.onnx", "INT8", ()))
    assert [fixed.signature.inputs[0].shape, scalar.signature.inputs[0].shape] == [(1, 4), ()]
    assert not fixed.signature.is_batched
    assert not scalar.signature.is_batched
    assert compute(scalar, x=np.array(3, dtype=np.int8))[0] == 3


def test_a_run_that_is_under_way_can_be_aborted_and_the_model_goes_on_serving(
    tmp_path: Path,
) -> None:
    backend = load(onnx_models.slow(tmp_path / "m.onnx"))
    run = backend.prepare({"x": np.zeros((1, 1), dtype=np.float32)}, ["y"])
    began = threading.Event()
    raised: list[BaseException] = []

    def execute() -> None:
        began.set()
        try:
            run.execute()
        except Cancelled as error:
            raised.append(error)

    thread = threading.Thread(target=execute)
    thread.start()
    began.wait()
    run.abort()
    thread.join()
    assert [type(error) for error in raised] == [Cancelled]
    quick = load(onnx_models.slow(tmp_path / "quick.onnx", turns=10))
    assert compute(quick, x=np.ones((1, 1), dtype=np.float32))[0].tolist() == [[1.0]]


def test_aborting_before_and_after_a_run_is_harmless(tmp_path: Path) -> None:
    backend = load(onnx_models.identity(tmp_path / "m.onnx", "FP32"))
    x = np.ones((1, 3), dtype=np.float32)
    done = backend.prepare({"x": x}, ["y"])
    done.execute()
    done.abort()
    early = backend.prepare({"x": x}, ["y"])
    early.abort()
    with pytest.raises(Cancelled):
        early.execute()
    assert np.array_equal(compute(backend, x=x)[0], x)


def test_data_that_the_model_refuses_is_the_caller_s_fault(tmp_path: Path) -> None:
    path = onnx_models.save(
        tmp_path / "m.onnx",
        [helper.make_node("Gather", ["table", "x"], ["y"])],
        [("x", "INT64", ["n"])],
        [("y", "FP32", ["n"])],
        [helper.make_tensor("table", TensorProto.FLOAT, [3], [1.0, 2.0, 3.0])],
    )
    backend = load(path)
    assert compute(backend, x=np.array([2, 0]))[0].tolist() == [3.0, 1.0]
    with pytest.raises(InvalidInput, match="could not compute"):
        compute(backend, x=np.array([99]))
    assert compute(backend, x=np.array([1]))[0].tolist() == [2.0]


def test_a_closed_model_cannot_be_run(tmp_path: Path) -> None:
    backend = load(onnx_models.identity(tmp_path / "m.onnx", "FP32"))
    backend.close()
    with pytest.raises(RuntimeError, match="closed"):
        backend.prepare({}, ["y"])


def _valid(path: Path) -> bytes:
    return onnx_models.identity(path, "FP32").read_bytes()


@pytest.mark.parametrize("content", [b"", b"not a model", b"\x08\x0a" * 100])
def test_a_file_that_is_no_model_is_corrupt(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    path.write_bytes(content)
    with pytest.raises(Corrupt, match=r"m\.onnx") as error:
        load(path)
    assert str(tmp_path) not in str(error.value)


def test_a_cut_model_is_corrupt(tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    content = _valid(path)
    path.write_bytes(content[: len(content) // 2])
    with pytest.raises(Corrupt):
        load(path)


def test_a_missing_file_is_corrupt(tmp_path: Path) -> None:
    with pytest.raises(Corrupt):
        load(tmp_path / "gone.onnx")


def test_a_model_of_sequences_is_unsupported(tmp_path: Path) -> None:
    graph = helper.make_graph(
        [helper.make_node("SequenceConstruct", ["x"], ["y"])],
        "test",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [2])],
        [helper.make_tensor_sequence_value_info("y", TensorProto.FLOAT, [2])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    onnx.save_model(model, str(tmp_path / "m.onnx"))
    with pytest.raises(Unsupported, match="only tensors"):
        load(tmp_path / "m.onnx")


def test_a_sound_model_with_an_operator_that_is_not_built_in_is_unsupported(
    tmp_path: Path,
) -> None:
    path = onnx_models.save(
        tmp_path / "m.onnx",
        [helper.make_node("Conv", ["x", "w"], ["y"])],
        [("x", "FP64", ["n", 1, 4, 4]), ("w", "FP64", [1, 1, 3, 3])],
        [("y", "FP64", ["n", 1, 2, 2])],
    )
    with pytest.raises(Unsupported, match="Conv"):
        load(path)


def test_more_threads_in_a_run_give_the_same_answer(tmp_path: Path) -> None:
    weights = np.random.default_rng(0).normal(size=(64, 64)).astype(np.float32)
    path = onnx_models.linear(tmp_path / "m.onnx", weights)
    x = np.ones((3, 64), dtype=np.float32)
    two = load_onnx(path, BackendOptions(intra_op_threads=2))
    assert np.allclose(compute(two, x=x)[0], x @ weights, atol=1e-4)
