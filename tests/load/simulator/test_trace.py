"""Traces are read, checked, scaled, shifted and made up."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_runtime.errors import InvalidInput
from load.simulator.trace import calm, diurnal, made, read_azure, seconds

HEADER = "TIMESTAMP,ContextTokens,GeneratedTokens\n"
times = st.lists(st.floats(0, 1e4), min_size=2, max_size=40).filter(
    lambda t: max(t) > min(t) + 1e-3
)


def write(folder: Path, text: str) -> Path:
    path = folder / "some.csv"
    path.write_text(text)
    return path


def test_a_public_trace_reads_as_times_from_zero_and_sizes_of_all_tokens(tmp_path: Path) -> None:
    rows = "2023-11-16 18:17:04.5,30,8\n2023-11-16 18:17:03.9799600,4808,10\n"
    trace = read_azure(write(tmp_path, HEADER + rows))
    assert trace.name == "some"
    assert trace.times == pytest.approx([0.0, 0.52004])
    assert trace.sizes.tolist() == [4818.0, 38.0]


@pytest.mark.parametrize("zone", ["", "Z", "+00:00", "+0000"])
@pytest.mark.parametrize("local", ["UTC", "America/New_York"])
def test_the_zone_of_a_time_counts_and_that_of_the_machine_does_not(
    monkeypatch: pytest.MonkeyPatch, zone: str, local: str
) -> None:
    monkeypatch.setenv("TZ", local)
    time.tzset()
    try:
        found = [seconds(f"2024-05-10 00:00:{second}{zone}") for second in ("00", "00.009930")]
        assert seconds("2024-05-10 02:00:00.25+02:00") == pytest.approx(found[0] + 0.25, abs=1e-6)
    finally:
        monkeypatch.undo()
        time.tzset()
    assert found == pytest.approx([1715299200.0, 1715299200.00993], abs=1e-6)


@pytest.mark.parametrize("text", ["2024-05-10 00:00:00.", "2024-05-10 00:00:00.x5", "00.5", ""])
def test_what_is_no_time_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"no time|isoformat"):
        seconds(text)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("TIMESTAMP,Tokens\n", "no column ContextTokens, GeneratedTokens"),
        (HEADER + "2023-11-16 18:17:04,1,1\nyesterday,1,1\n", "line 3"),
        (HEADER + "2023-11-16 18:17:04,1,one\n2023-11-16 18:17:05,1,1\n", "line 2"),
        (HEADER + "2023-11-16 18:17:04,1,1\n", "fewer than two"),
        (HEADER + "2023-11-16 18:17:04,1,1\n2023-11-16 18:17:05,-3,1\n", "no numbers from 0 up"),
        (HEADER + "2023-11-16 18:17:04,1,1\n2023-11-16 18:17:04,1,1\n", "the same moment"),
    ],
)
def test_a_file_that_is_no_trace_is_refused_with_the_reason(
    tmp_path: Path, text: str, says: str
) -> None:
    with pytest.raises(InvalidInput, match=says):
        read_azure(write(tmp_path, text))


@settings(max_examples=50, deadline=None)
@given(times, st.floats(0.01, 1e3))
def test_scaling_changes_the_rate_and_nothing_of_the_pattern(at: list[float], rate: float) -> None:
    trace = made("t", at, np.arange(float(len(at))))
    scaled = trace.scaled(rate)
    assert scaled.rate == pytest.approx(rate)
    assert np.allclose(scaled.times / scaled.duration_s, trace.times / trace.duration_s)
    assert scaled.sizes is trace.sizes


@settings(max_examples=50, deadline=None)
@given(times, st.floats(0, 0.999))
def test_a_shifted_trace_has_the_same_requests_in_order(at: list[float], share: float) -> None:
    trace = made("t", at, np.arange(float(len(at))))
    shifted = trace.shifted(share)
    assert sorted(shifted.sizes) == sorted(trace.sizes)
    assert (np.diff(shifted.times) >= -1e-9).all()
    assert shifted.times[0] >= -1e-9
    assert shifted.times[-1] <= trace.duration_s + 1e-9


def test_generated_traffic_is_repeatable_and_calm() -> None:
    first, again, other = calm(1), calm(1), calm(2)
    assert np.array_equal(first.times, again.times)
    assert not np.array_equal(first.times[:100], other.times[:100])
    assert first.rate == pytest.approx(5.0, rel=0.1)
    assert first.burstiness < 4.0


def test_a_generated_day_is_busy_at_noon_and_quiet_at_midnight() -> None:
    trace = diurnal(1, rate=20.0, day_s=600.0, days=2)
    phase = (trace.times % 600.0) / 600.0
    noon = ((phase > 0.45) & (phase < 0.55)).sum()
    midnight = ((phase < 0.05) | (phase > 0.95)).sum()
    assert noon > 4 * midnight
    assert trace.rate == pytest.approx(20.0, rel=0.1)
