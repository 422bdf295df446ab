"""The checker finds what it is for: wrong answers, answers of others, outputs of failed jobs."""

from __future__ import annotations

import numpy as np
import pytest

from load.chaos.answers import Kind, check
from load.chaos.models import (
    DIGITS,
    FP32,
    HAILO,
    INT8,
    LONE,
    LONE_STALE,
    PLAIN,
    Floats,
    Subject,
)
from load.fake_hailo.device import MARKER

Subjects = dict[str, Subject]


def answer(subject: Subject, rung: str, *picked: int) -> Floats:
    return subject.references[rung].rows[list(picked)].copy()


@pytest.mark.parametrize("rung", [HAILO, INT8, FP32])
def test_the_answer_of_the_rung_that_it_names_is_right(subjects: Subjects, rung: str) -> None:
    digits = subjects[DIGITS]
    for picked in ((3,), (1, 7, 40)):
        assert check(digits, picked, rung, answer(digits, rung, *picked)).kind is Kind.RIGHT


@pytest.mark.parametrize("rung", [HAILO, INT8, FP32])
def test_the_answer_to_any_other_input_is_wrong(subjects: Subjects, rung: str) -> None:
    digits = subjects[DIGITS]
    for other in range(len(digits.inputs)):
        if other != 5:
            found = check(digits, (5,), rung, answer(digits, rung, other))
            assert found.kind is Kind.WRONG
            assert f"answer to input {other}, not 5" in found.detail


def test_rows_in_another_order_are_wrong(subjects: Subjects) -> None:
    digits = subjects[DIGITS]
    assert check(digits, (1, 2, 3), HAILO, answer(digits, HAILO, 1, 3, 2)).kind is Kind.WRONG


def test_an_answer_that_names_a_rung_it_is_not_of_is_wrong(subjects: Subjects) -> None:
    digits = subjects[DIGITS]
    picked = int(
        np.abs(digits.references[HAILO].rows - digits.references[FP32].rows).max(1).argmax()
    )
    found = check(digits, (picked,), FP32, answer(digits, HAILO, picked))
    assert found.kind is Kind.WRONG
    assert found.detail == f"named {FP32}, and it is of {HAILO}"


@pytest.mark.parametrize("rung", ["", "cloud", "cpu-int4"])
def test_a_rung_that_there_is_not_is_wrong(subjects: Subjects, rung: str) -> None:
    digits = subjects[DIGITS]
    assert check(digits, (0,), rung, answer(digits, FP32, 0)).kind is Kind.WRONG


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), 1e30])
def test_a_single_value_that_is_off_is_wrong(subjects: Subjects, bad: float) -> None:
    digits = subjects[DIGITS]
    rows = answer(digits, HAILO, 0, 1, 2)
    rows[1, 4] = bad
    assert check(digits, (0, 1, 2), HAILO, rows).kind is Kind.WRONG


def test_a_value_just_over_the_tolerance_is_wrong_and_one_below_is_right(
    subjects: Subjects,
) -> None:
    plain = subjects[PLAIN]
    tolerance = plain.references[FP32].tolerance
    rows = answer(plain, FP32, 9)
    rows[0, 0] += tolerance * 0.9
    assert check(plain, (9,), FP32, rows).kind is Kind.RIGHT
    rows[0, 0] += tolerance * 0.2
    assert check(plain, (9,), FP32, rows).kind is Kind.WRONG


@pytest.mark.parametrize("shape", [(2, 10), (1, 9), (10,)])
def test_an_answer_of_another_shape_is_wrong(subjects: Subjects, shape: tuple[int, ...]) -> None:
    assert check(subjects[DIGITS], (0,), FP32, np.zeros(shape, np.float32)).kind is Kind.WRONG


@pytest.mark.parametrize("rung", [HAILO, INT8, "stale"])
def test_a_row_of_the_marker_is_a_leak_whoever_names_it(subjects: Subjects, rung: str) -> None:
    digits = subjects[DIGITS]
    assert digits.marker is not None
    rows = answer(digits, HAILO, 0, 1, 2)
    rows[2] = digits.marker
    assert check(digits, (0, 1, 2), rung, rows).kind is Kind.LEAK


def test_the_markers_bytes_themselves_are_a_leak(subjects: Subjects) -> None:
    rows = np.frombuffer(bytes([MARKER] * 4 * 8), np.float32).reshape(1, 8)
    assert check(subjects[PLAIN], (0,), FP32, rows).kind is Kind.LEAK


def test_no_reference_is_taken_for_a_leak_or_for_another(subjects: Subjects) -> None:
    for subject in subjects.values():
        for rung, reference in subject.references.items():
            for number, row in enumerate(reference.rows):
                assert check(subject, (number,), rung, row[None]).kind is Kind.RIGHT


def test_a_kept_answer_is_right_where_any_rung_has_given_it(subjects: Subjects) -> None:
    stale = subjects[LONE_STALE]
    assert check(stale, (4,), "stale", answer(stale, HAILO, 4)).kind is Kind.STALE
    assert check(stale, (4,), "cache", answer(stale, HAILO, 4)).kind is Kind.RIGHT
    assert check(stale, (4,), "stale", answer(stale, HAILO, 5)).kind is Kind.WRONG


def test_a_model_that_only_the_device_has_is_right_from_nobody_else(subjects: Subjects) -> None:
    lone = subjects[LONE]
    assert check(lone, (4,), INT8, answer(lone, HAILO, 4)).kind is Kind.WRONG
