from __future__ import annotations

import ast
import mmap
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_runtime.accelerator import wire
from edge_runtime.accelerator.host import __main__ as host
from edge_runtime.accelerator.wire import ALIGNMENT, NUMPY, Field, Slots
from edge_runtime.protocol import datatypes

fields = st.builds(
    Field,
    st.text(min_size=1, max_size=8),
    st.sampled_from(sorted(NUMPY)),
    st.lists(st.integers(1, 5), max_size=3).map(tuple),
)
slots = st.builds(
    Slots,
    st.lists(fields, min_size=1, max_size=3),
    st.lists(fields, min_size=1, max_size=3),
    st.integers(1, 5),
    st.integers(1, 4),
)


@settings(max_examples=100)
@given(slots)
def test_tensors_never_overlap_are_aligned_and_fill_no_more_than_the_memory(found: Slots) -> None:
    memory = mmap.mmap(-1, found.size_bytes)
    owner = np.full(found.size_bytes, -1, np.int32)
    start = np.frombuffer(memory, np.uint8).__array_interface__["data"][0]
    for slot in range(found.count):
        inputs, outputs = found.views(memory, slot)
        described = (*found.inputs, *found.outputs)
        for number, (field, array) in enumerate(zip(described, (*inputs, *outputs), strict=True)):
            assert array.shape == (found.max_rows, *field.shape)
            assert array.dtype == NUMPY[field.datatype]
            assert array.nbytes == found.max_rows * field.row_bytes
            at = array.__array_interface__["data"][0] - start
            assert at % ALIGNMENT == 0
            assert slot * found.slot_bytes <= at
            assert at + array.nbytes <= (slot + 1) * found.slot_bytes
            assert (owner[at : at + array.nbytes] == -1).all()
            owner[at : at + array.nbytes] = 100 * slot + number


@settings(max_examples=50)
@given(slots)
def test_both_sides_see_the_same_numbers(found: Slots) -> None:
    memory = mmap.mmap(-1, found.size_bytes)
    message = wire.load_message(1, "m.hef", found)
    other = wire.read_slots(wire.decode(message[1:]))
    for slot in range(found.count):
        for array in found.views(memory, slot)[0]:
            array[...] = slot + 1
    for slot in range(found.count):
        for array in other.views(memory, slot)[0]:
            assert (array == slot + 1).all()


@given(slots, st.integers(0, 2**31), st.text(max_size=30))
def test_a_model_is_described_on_the_wire_as_it_is(found: Slots, model: int, path: str) -> None:
    message = wire.load_message(model, path, found)
    assert message[:1] == wire.LOAD
    document = wire.decode(message[1:])
    assert (document["model"], document["path"]) == (model, path)
    read = wire.read_slots(document)
    for name in ("inputs", "outputs", "max_rows", "count", "slot_bytes", "size_bytes"):
        assert getattr(read, name) == getattr(found, name)


def test_messages_of_a_large_model_fit_into_one_packet() -> None:
    many = [Field(f"a_long_name_of_a_tensor_{n}", "FP32", (512, 20, 20)) for n in range(200)]
    assert len(wire.load_message(1, "/" + "x" * 4095, Slots(many, many, 8, 3))) < wire.MAX_MESSAGE


def test_the_host_greets_without_the_module_that_it_may_be_unable_to_import() -> None:
    assert host.HELLO == wire.HELLO


def test_numbers_mean_what_they_mean_in_the_protocol() -> None:
    for name, kind in NUMPY.items():
        assert datatypes.NUMPY[name] == np.dtype(kind)


@pytest.mark.parametrize("path", [Path(wire.__file__), *Path(host.__file__).parent.glob("*.py")])
def test_what_the_host_runs_is_in_the_grammar_of_python_3_9(path: Path) -> None:
    ast.parse(path.read_text("utf-8"), feature_version=(3, 9))
