"""Who is turned away when the process is behind, by the stamp of the door in front of it."""

from __future__ import annotations

import asyncio

import pytest

from edge_runtime.errors import InvalidInput, Overloaded, PrimeSparkError, Unavailable
from edge_runtime.protocol.gate import HOLD_S, TARGET_S, Gate, hold
from policies.shedding import INTERVAL_S
from tests.clock import Clock

NOW_S = 1_800_000_000.0
OLD = f"t={round((NOW_S - 4 * TARGET_S) * 1e3)}"
FRESH = f"t={round(NOW_S * 1e3)}"


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def gate(clock: Clock) -> Gate:
    return Gate(wall=lambda: NOW_S, clock=clock)


def _check_for(gate: Gate, clock: Clock, stamp: str | None, seconds: float) -> None:
    """Check a thousand requests a second."""
    until = clock.now + seconds
    while clock.now < until:
        gate.check(stamp)
        clock.now += 0.001


def test_a_server_that_is_behind_turns_late_requests_away(gate: Gate, clock: Clock) -> None:
    _check_for(gate, clock, OLD, INTERVAL_S)
    with pytest.raises(Overloaded) as error:
        _check_for(gate, clock, OLD, INTERVAL_S)
    assert error.value.retry_after_s == 1.0
    assert gate.refused == 1
    gate.check(FRESH)


def test_requests_in_progress_are_counted_until_they_end(gate: Gate) -> None:
    with gate, gate:
        assert gate.in_progress == 2
    with pytest.raises(LookupError), gate:
        raise LookupError
    assert gate.in_progress == 0


@pytest.mark.parametrize(
    "stamp",
    [None, "", "t=", "t=x", "1", "t=-5", "t=" + "9" * 15, "t=" + "9" * 400, "t=0", "t=٣", "t=1.5"],
)
def test_a_stamp_that_cannot_be_is_no_delay(gate: Gate, clock: Clock, stamp: str | None) -> None:
    _check_for(gate, clock, stamp, 4 * INTERVAL_S)
    assert gate.refused == 0


async def test_a_refusal_for_load_is_held_back_and_lets_its_request_go() -> None:
    with pytest.raises(Overloaded) as caught:
        raise Overloaded("full", retry_after_s=1.0)
    loop = asyncio.get_running_loop()
    began = loop.time()
    await hold(caught.value)
    assert loop.time() - began >= HOLD_S * 0.9  # loops differ in how they round
    assert caught.value.__traceback__ is None


@pytest.mark.parametrize("error", [Unavailable("gone", retry_after_s=1.0), InvalidInput("bad")])
def test_other_errors_are_not_held(error: PrimeSparkError) -> None:
    with pytest.raises(StopIteration):
        hold(error).send(None)
