"""Slots are owned by one process each, and a slot whose owner was killed is free again."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Iterator
from contextlib import closing
from functools import partial
from pathlib import Path

import pytest

from cluster.home import Home
from edge_runtime.errors import Conflict
from serve_apps.gateway.sockets import claim_slot
from tests.children import exit_status, fork, race


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Home]:
    made = Home(tmp_path)
    made.make_run()
    yield made
    shutil.rmtree(made.run)


def test_processes_that_claim_at_the_same_time_get_slots_of_their_own(home: Home) -> None:
    numbers = race(4, lambda _: claim_slot(home, 8).number)
    # A child ends as soon as it has said its number, and its slot may be claimed again.
    assert set(numbers) <= set(range(4))
    with closing(_Held(home, 4)) as held:
        assert held.numbers == [0, 1, 2, 3]
        with pytest.raises(Conflict, match="all 4 gateway slots"):
            claim_slot(home, 4)


class _Held:
    """Children that each hold a slot until they are killed."""

    def __init__(self, home: Home, count: int) -> None:
        self.pids: list[int] = []
        self.numbers: list[int] = []
        for _ in range(count):
            readable, writable = os.pipe()
            self.pids.append(fork(partial(_hold, home, writable)))
            os.close(writable)
            self.numbers.append(int(os.read(readable, 8)))
            os.close(readable)

    def kill(self, number: int) -> None:
        pid = self.pids.pop(self.numbers.index(number))
        self.numbers.remove(number)
        os.kill(pid, signal.SIGKILL)
        assert exit_status(pid) == -signal.SIGKILL

    def close(self) -> None:
        for number in list(self.numbers):
            self.kill(number)


def _hold(home: Home, end: int) -> None:
    slot = claim_slot(home, 8)
    Path(slot.http_path).touch()
    os.write(end, str(slot.number).encode())
    signal.pause()


def test_the_slot_of_a_killed_process_is_free_and_its_sockets_are_removed(home: Home) -> None:
    with closing(_Held(home, 3)) as held:
        held.kill(1)
        assert home.gateway_http_socket(1).exists()
        slot = claim_slot(home, 8)
        assert slot.number == 1
        assert not home.gateway_http_socket(1).exists()
        assert home.gateway_http_socket(2).exists()
        slot.release()


def test_a_released_slot_leaves_no_sockets_and_can_be_claimed_again(home: Home) -> None:
    slot = claim_slot(home, 1)
    Path(slot.http_path).touch()
    slot.release()
    assert not Path(slot.http_path).exists()
    again = claim_slot(home, 1)
    assert again.number == slot.number
    again.release()
