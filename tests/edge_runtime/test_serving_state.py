"""What was loaded and unloaded by name outlives a restart, and trouble with the disk is named."""

from __future__ import annotations

import json
import threading
from pathlib import Path

import pytest

from edge_runtime import durable, serving_state
from edge_runtime.serving_state import ServingState
from tests.children import die_at_call, exit_status, fork
from tests.disks import fill, read_only, small_disk

DIGITS = ("digits", "1")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state" / "serving.json"


def test_without_a_decision_the_default_holds(path: Path) -> None:
    state = ServingState(path)
    assert state.is_wanted(DIGITS, True)
    assert not state.is_wanted(DIGITS, False)
    assert state.problem == ""
    assert not path.exists()


@pytest.mark.parametrize("is_loaded", [True, False])
def test_a_decision_outlives_a_restart(path: Path, is_loaded: bool) -> None:
    ServingState(path).decide(*DIGITS, is_loaded)
    again = ServingState(path)
    assert again.is_wanted(DIGITS, not is_loaded) is is_loaded
    assert again.is_wanted(("digits", "2"), not is_loaded) is not is_loaded


def test_the_last_decision_counts(path: Path) -> None:
    state = ServingState(path)
    for is_loaded in (True, False, True, False):
        state.decide(*DIGITS, is_loaded)
    assert not ServingState(path).is_wanted(DIGITS, True)


def test_what_was_decided_on_a_version_that_is_gone_does_not_come_back_with_its_name(
    path: Path,
) -> None:
    state = ServingState(path)
    state.decide(*DIGITS, False)
    state.decide("other", "1", False)
    state.forget(*DIGITS)
    for found in (state, ServingState(path)):
        assert found.is_wanted(DIGITS, True)
        assert not found.is_wanted(("other", "1"), True)


def test_the_same_decision_again_writes_nothing(path: Path) -> None:
    state = ServingState(path)
    state.decide(*DIGITS, True)
    path.unlink()
    state.decide(*DIGITS, True)
    state.forget("nobody", "1")
    assert not path.exists()


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b"{}",
        b'{"decided": 1}',
        b'{"decided": [[1]]}',
        b'{"decided": [["a", "b", true, 1]]}',
        b"\xff\xfe",
        b"[" * 100_000,
    ],
)
def test_a_file_that_cannot_be_read_is_a_problem_and_the_next_decision_mends_it(
    path: Path, content: bytes
) -> None:
    path.parent.mkdir()
    path.write_bytes(content)
    state = ServingState(path)
    assert state.problem.startswith("what was loaded before is not known")
    assert state.is_wanted(DIGITS, True)
    state.decide(*DIGITS, False)
    assert state.problem == ""
    assert not ServingState(path).is_wanted(DIGITS, True)


def test_each_truncation_of_the_file_is_a_problem_never_another_decision(path: Path) -> None:
    ServingState(path).decide(*DIGITS, False)
    whole = path.read_bytes()
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        state = ServingState(path)
        assert state.problem, f"the first {length} bytes"
        assert state.is_wanted(DIGITS, True)


def test_on_a_full_disk_the_decision_holds_for_now_and_the_old_one_is_on_disk(
    tmp_path: Path,
) -> None:
    with small_disk(tmp_path / "disk", 1 << 20) as disk:
        state = ServingState(disk / "serving.json")
        state.decide(*DIGITS, True)
        ballast = fill(disk)
        state.decide(*DIGITS, False)
        assert state.problem == "what is loaded cannot be written down: No space left on device"
        assert not state.is_wanted(DIGITS, True)
        assert ServingState(disk / "serving.json").is_wanted(DIGITS, False)
        ballast.unlink()
        state.decide(*DIGITS, False)
        assert state.problem == ""
        assert not ServingState(disk / "serving.json").is_wanted(DIGITS, True)


def test_in_a_folder_that_cannot_be_written_the_decision_holds_for_now(path: Path) -> None:
    ServingState(path).decide("other", "1", True)
    with read_only(path.parent):
        state = ServingState(path)
        assert state.problem == ""
        state.decide(*DIGITS, True)
        assert state.problem.endswith("Read-only file system")
        assert state.is_wanted(DIGITS, False)
        assert state.is_wanted(("other", "1"), False)


def test_a_folder_in_the_file_s_place_is_a_problem_and_no_crash(path: Path) -> None:
    path.mkdir(parents=True)
    state = ServingState(path)
    assert "IsADirectoryError" in state.problem
    state.decide(*DIGITS, True)
    assert state.problem.startswith("what is loaded cannot be written down")
    assert state.is_wanted(DIGITS, False)


def test_a_process_killed_at_any_step_of_a_decision_leaves_the_one_before_or_the_new_one(
    path: Path,
) -> None:
    sources = (durable.__file__, serving_state.__file__)
    found: list[bool] = []
    for step in range(1, 100):
        ServingState(path).decide(*DIGITS, False)

        def work(step: int = step) -> None:
            state = ServingState(path)
            die_at_call(step, *sources)
            state.decide(*DIGITS, True)

        status = exit_status(fork(work))
        after = ServingState(path)
        assert after.problem == ""
        found.append(after.is_wanted(DIGITS, False))
        if status == 0:
            break
    assert len(found) > 3, "the steps were not counted"
    assert found == sorted(found), "once written, it stays"
    assert found[-1]


def test_decisions_from_many_threads_are_all_written(path: Path) -> None:
    state = ServingState(path)
    names = [f"m{number}" for number in range(16)]
    threads = [
        threading.Thread(target=state.decide, args=(name, str(turn), True))
        for name in names
        for turn in range(3)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert state.problem == ""
    written = json.loads(path.read_bytes())["decided"]
    assert sorted(map(tuple, written)) == sorted(
        (name, str(turn), True) for name in names for turn in range(3)
    )
