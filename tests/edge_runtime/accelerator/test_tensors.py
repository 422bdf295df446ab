from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from edge_runtime.accelerator.host.tensors import Coder, Mismatch, Stream, match
from edge_runtime.accelerator.wire import NUMPY, Field

scales = st.floats(1e-4, 100.0)
zero_points = st.integers(0, 255)


def encode(row: Any, scale: float = 1.0, zero_point: int = 0, shape: Any = None) -> Any:
    """Encode a row for a stream of its own shape, or of another."""
    name = next(n for n, kind in NUMPY.items() if np.dtype(kind) == row.dtype)
    stream = Stream("net/s", shape or row.shape, scale, zero_point)
    frame = np.full(stream.shape, 77, np.uint8)
    Coder(Field("t", name, row.shape), stream).encode(row, frame)
    return frame


def decode(
    frame: Any, shape: Any, datatype: str = "FP32", scale: float = 1.0, zero_point: int = 0
) -> Any:
    row = np.full(shape, 77, NUMPY[datatype])
    stream = Stream("net/s", frame.shape, scale, zero_point)
    Coder(Field("t", datatype, shape), stream).decode(frame, row)
    return row


@settings(max_examples=200)
@given(
    scales,
    zero_points,
    hnp.arrays(np.float32, st.integers(1, 20), elements=st.floats(0.0, 1.0, width=32)),
)
def test_inside_the_range_the_error_is_half_a_step_at_most(
    scale: float, zero_point: int, shares: Any
) -> None:
    low, high = -zero_point * scale, (255 - zero_point) * scale
    row = (low + shares.astype(np.float64) * (high - low)).astype(np.float32)
    back = decode(encode(row, scale, zero_point), row.shape, "FP32", scale, zero_point)
    # In single precision; the numbers themselves are as large as 255 steps.
    assert np.abs(back.astype(np.float64) - row).max() <= scale / 2 + 255 * scale * 2**-21


@given(scales, zero_points, st.floats(0.51, 1e6))
def test_outside_the_range_it_is_cut_off(scale: float, zero_point: int, beyond: float) -> None:
    low, high = -zero_point * scale, (255 - zero_point) * scale
    row = np.array([low - beyond * scale, high + beyond * scale, -np.inf, np.inf], np.float32)
    assert encode(row, scale, zero_point).tolist() == [0, 255, 0, 255]


@pytest.mark.filterwarnings("error")
def test_what_is_no_number_becomes_some_code_in_silence() -> None:
    assert encode(np.array([np.nan, 1.0], np.float32)).tolist()[1] == 1


@given(st.integers(0, 255), scales, zero_points, st.sampled_from(["FP32", "FP16"]))
def test_every_code_comes_back_as_itself(
    code: int, scale: float, zero_point: int, datatype: str
) -> None:
    frame = np.array([code], np.uint8)
    row = decode(frame, (1,), datatype, scale, zero_point)
    value = (code - zero_point) * scale
    if datatype == "FP16" and (abs(value) > 60_000 or scale < 1e-3):
        return
    assert row[0] == pytest.approx(value, rel=2e-3 if datatype == "FP16" else 1e-6)
    assert encode(row, scale, zero_point).tolist() == [code]


@given(hnp.arrays(np.uint8, st.integers(1, 9)), scales, zero_points)
def test_bytes_pass_as_they_are(row: Any, scale: float, zero_point: int) -> None:
    assert np.array_equal(encode(row, scale, zero_point), row)
    assert np.array_equal(decode(row, row.shape, "UINT8", scale, zero_point), row)


@given(
    st.sampled_from(["INT8", "INT16", "INT32", "INT64", "UINT16"]),
    st.integers(0, 255),
    st.sampled_from([0.1, 0.3, 1.0, 2.5, 7.0]),
    zero_points,
)
def test_whole_numbers_are_rounded_and_cut_to_their_type(
    datatype: str, code: int, scale: float, zero_point: int
) -> None:
    found = decode(np.array([code], np.uint8), (1,), datatype, scale, zero_point)[0]
    limits = np.iinfo(NUMPY[datatype])
    value = min(limits.max, max(limits.min, (code - zero_point) * scale))
    assert abs(int(found) - value) <= 0.5 + 1e-3


def test_whole_numbers_are_encoded_by_their_value() -> None:
    assert encode(np.array([-5, 0, 7], np.int8), 0.5, 100).tolist() == [90, 100, 114]
    assert encode(np.array([2**40, -(2**40)], np.int64)).tolist() == [255, 0]


@given(st.permutations([2, 3, 4]), st.randoms())
def test_images_go_from_channels_first_to_channels_last_and_back(
    sizes: list[int], random: Any
) -> None:
    channels, height, width = sizes
    row = np.arange(24, dtype=np.float32).reshape(channels, height, width)
    frame = encode(row, shape=(height, width, channels))
    for c, h, w in itertools.product(range(channels), range(height), range(width)):
        assert frame[h, w, c] == row[c, h, w]
    assert np.array_equal(decode(frame, row.shape), row)


def test_an_image_that_could_be_either_is_taken_as_channels_first() -> None:
    row = np.arange(27, dtype=np.float32).reshape(3, 3, 3)
    assert np.array_equal(encode(row), row.transpose(1, 2, 0))
    assert np.array_equal(decode(encode(row), row.shape), row)


def test_an_image_that_only_fits_channels_last_is_left_as_it_is() -> None:
    row = np.arange(24, dtype=np.float32).reshape(2, 3, 4)
    assert np.array_equal(encode(row, shape=(2, 3, 4)), row)
    assert np.array_equal(decode(encode(row, shape=(2, 3, 4)), row.shape), row)


@pytest.mark.parametrize("shape", [(6,), (1, 6), (6, 1, 1), (1, 1, 6), (2, 3), (1, 1, 1, 6)])
@pytest.mark.parametrize("frame", [(6,), (1, 1, 6), (1, 6, 1), (6, 1, 1)])
def test_a_vector_is_one_however_it_is_written(
    shape: tuple[int, ...], frame: tuple[int, ...]
) -> None:
    row = np.arange(6, dtype=np.float32).reshape(shape)
    encoded = encode(row, shape=frame)
    assert encoded.reshape(-1).tolist() == list(range(6))
    assert np.array_equal(decode(encoded, shape), row)


@pytest.mark.parametrize(
    ("shape", "frame"),
    [
        ((6,), (1, 1, 5)),
        ((2, 3, 4), (4, 2, 3)),
        ((24,), (2, 3, 4)),
        ((4, 6), (4, 6, 1)),
        ((2, 3, 4), (3, 4)),
        ((), (1, 1, 2)),
    ],
)
def test_shapes_that_do_not_fit_are_refused_by_name(
    shape: tuple[int, ...], frame: tuple[int, ...]
) -> None:
    with pytest.raises(Mismatch, match=r"tensor 't' .* stream 'net/s'"):
        Coder(Field("t", "FP32", shape), Stream("net/s", frame, 1.0, 0))


def test_a_scale_of_nothing_is_taken_as_one() -> None:
    assert Stream("s", (1,), 0.0, 0).scale == 1.0


# Which stream is which tensor.


def fields_of(*names: str) -> list[Field]:
    return [Field(name, "FP32", (1,)) for name in names]


def streams_of(*names: str) -> list[Stream]:
    return [Stream(name, (1,), 1.0, 0) for name in names]


def paired(fields: list[Field], streams: list[Stream]) -> list[tuple[str, str]]:
    return [(field.name, stream.name) for field, stream in match(fields, streams)]


@pytest.mark.parametrize("names", [("net/b", "net/a"), ("b", "a"), ("x/y/b", "net/a")])
def test_names_count_before_the_order(names: tuple[str, str]) -> None:
    b, a = names
    assert paired(fields_of("a", "b"), streams_of(b, a)) == [("a", a), ("b", b)]


def test_the_order_counts_where_names_say_nothing() -> None:
    found = paired(fields_of("a", "b"), streams_of("net/conv1", "net/conv2"))
    assert found == [("a", "net/conv1"), ("b", "net/conv2")]


def test_a_whole_name_counts_before_a_part_of_one() -> None:
    assert paired(fields_of("a", "net/a"), streams_of("net/a", "a")) == [
        ("a", "a"),
        ("net/a", "net/a"),
    ]


@pytest.mark.parametrize("count", [0, 1, 3])
def test_another_number_of_streams_is_refused(count: int) -> None:
    with pytest.raises(Mismatch, match=f"the network has {count} streams, the model 2"):
        match(fields_of("a", "b"), streams_of(*"abc"[:count]))
