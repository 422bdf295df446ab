from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_runtime.backends.base import BackendOptions
from edge_runtime.backends.onnx import OnnxBackend, load_onnx
from edge_runtime.engine.batch import Work, check, split, stack
from edge_runtime.engine.warmup import MAX_ELEMENTS, sample_work
from edge_runtime.errors import InvalidInput
from edge_runtime.protocol.types import Signature, Tensor, TensorSpec
from tests.edge_runtime import onnx_models

PAIR = Signature(
    (TensorSpec("a", "FP32", (-1, 2)), TensorSpec("b", "INT64", (-1,))),
    (TensorSpec("y", "FP32", (-1, 2)), TensorSpec("z", "INT64", (-1,))),
)


def pair(rows: int, start: int = 0) -> tuple[Tensor, Tensor]:
    a = np.arange(start, start + rows * 2, dtype=np.float32).reshape(rows, 2)
    return Tensor("a", "FP32", a), Tensor("b", "INT64", np.arange(start, start + rows))


def works(sizes: Sequence[int]) -> list[Work]:
    return [check(PAIR, pair(rows, 100 * i), ()) for i, rows in enumerate(sizes)]


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(1, 5), min_size=1, max_size=6))
def test_cutting_up_a_stacked_batch_gives_each_request_its_own_rows(sizes: list[int]) -> None:
    found = works(sizes)
    stacked = stack(found)
    parts = split([stacked["a"], stacked["b"]], found)
    for work, (a, b) in zip(found, parts, strict=True):
        assert np.array_equal(a, work.inputs["a"])
        assert np.array_equal(b, work.inputs["b"])


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> OnnxBackend:
    weights = np.random.default_rng(3).normal(size=(8, 5)).astype(np.float32)
    path = onnx_models.linear(tmp_path_factory.mktemp("batch") / "m.onnx", weights)
    return load_onnx(path, BackendOptions())


@settings(max_examples=60, deadline=None)
@given(sizes=st.lists(st.integers(1, 9), min_size=2, max_size=5), seed=st.integers(0, 2**32 - 1))
def test_a_real_model_answers_a_request_the_same_alone_and_in_a_batch(
    model: OnnxBackend, sizes: list[int], seed: int
) -> None:
    rng = np.random.default_rng(seed)
    found = [
        check(
            model.signature,
            [Tensor("x", "FP32", rng.normal(size=(rows, 8)).astype(np.float32))],
            (),
        )
        for rows in sizes
    ]
    assert len({work.bucket for work in found}) == 1
    together = split(model.prepare(stack(found), ["y"]).execute(), found)
    for work, (in_batch,) in zip(found, together, strict=True):
        (alone,) = model.prepare(work.inputs, ["y"]).execute()
        assert np.allclose(in_batch, alone, atol=1e-5)


def test_a_lone_request_is_not_copied() -> None:
    (work,) = works([3])
    assert stack([work])["a"] is work.inputs["a"]


def test_outputs_that_are_no_batch_are_not_cut_up() -> None:
    pairs = works([1, 2])
    with pytest.raises(ValueError, match="3 rows"):
        split([np.zeros((2, 2))], pairs)
    with pytest.raises(ValueError, match="3 rows"):
        split([np.zeros(())], pairs)


def test_requests_of_other_outputs_or_shapes_do_not_share_a_bucket() -> None:
    free = Signature((TensorSpec("x", "FP32", (-1, -1)),), PAIR.outputs)
    wide = Tensor("x", "FP32", np.zeros((1, 3), np.float32))
    narrow = Tensor("x", "FP32", np.zeros((4, 2), np.float32))
    buckets = [
        check(free, [wide], ()).bucket,
        check(free, [narrow], ()).bucket,
        check(free, [narrow], ("y",)).bucket,
        check(free, [narrow], ("z", "y")).bucket,
    ]
    assert len(set(buckets)) == 4
    assert check(free, [narrow], ("y", "z")).bucket == buckets[1]


def test_outputs_not_named_are_all_outputs_in_the_model_s_order() -> None:
    assert check(PAIR, pair(2), ()).outputs == ("y", "z")
    assert check(PAIR, pair(2), ("z",)).outputs == ("z",)


def test_inputs_may_come_in_any_order() -> None:
    a, b = pair(2)
    assert list(check(PAIR, [b, a], ()).inputs) == ["a", "b"]


A, B = pair(2)


@pytest.mark.parametrize(
    ("inputs", "outputs", "field", "words"),
    [
        ([A], (), "b", "missing"),
        ([A, B, Tensor("c", "FP32", A.data)], (), "c", "no input 'c'"),
        ([A, B], ("nope",), "nope", "no output 'nope'"),
        ([Tensor("a", "FP64", A.data), B], (), "a", "takes FP32, got FP64"),
        ([Tensor("a", "FP32", A.data[:, :1]), B], (), "a", r"takes shape \[-1, 2\], got \[2, 1\]"),
        ([Tensor("a", "FP32", A.data[0]), B], (), "a", r"got \[2\]"),
        ([A, Tensor("b", "INT64", B.data[:1])], (), "b", "another input has 2"),
        (list(pair(0)), (), "a", "the batch is empty"),
    ],
)
def test_a_request_that_does_not_fit_is_refused_naming_the_tensor(
    inputs: list[Tensor], outputs: tuple[str, ...], field: str, words: str
) -> None:
    with pytest.raises(InvalidInput, match=words) as error:
        check(PAIR, inputs, outputs)
    assert error.value.field == field


def test_a_model_of_fixed_shape_takes_that_shape_and_never_stacks() -> None:
    fixed = Signature((TensorSpec("x", "FP32", (1, 2)),), (TensorSpec("y", "FP32", (1,)),))
    work = check(fixed, [Tensor("x", "FP32", np.zeros((1, 2), np.float32))], ())
    assert (work.rows, work.bucket) == (1, None)
    with pytest.raises(InvalidInput, match="takes shape"):
        check(fixed, [Tensor("x", "FP32", np.zeros((3, 2), np.float32))], ())


def test_a_sample_fits_the_model_it_was_made_for() -> None:
    text = Signature((*PAIR.inputs, TensorSpec("t", "BYTES", (-1, -1))), PAIR.outputs)
    work = sample_work(text, 4)
    assert work is not None
    assert {name: array.shape for name, array in work.inputs.items()} == {
        "a": (4, 2),
        "b": (4,),
        "t": (4, 1),
    }
    assert set(work.inputs["t"].reshape(-1).tolist()) == {b""}
    tensors = [Tensor(s.name, s.datatype, work.inputs[s.name]) for s in text.inputs]
    assert check(text, tensors, ()).rows == 4


def test_a_sample_of_a_fixed_model_has_its_shape_whatever_the_batch() -> None:
    fixed = Signature((TensorSpec("x", "BF16", (3, 2)),), (TensorSpec("y", "BF16", (3,)),))
    work = sample_work(fixed, 8)
    assert work is not None
    assert (work.rows, work.inputs["x"].shape) == (1, (3, 2))


def test_no_sample_is_made_of_a_model_with_huge_inputs() -> None:
    huge = Signature((TensorSpec("x", "FP32", (-1, MAX_ELEMENTS)),), PAIR.outputs)
    assert sample_work(huge, 2) is None
