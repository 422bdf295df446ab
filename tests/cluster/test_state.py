from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from cluster.home import Home
from cluster.processes import Session
from cluster.state import ClusterState, read_state, write_state


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Home]:
    found = Home.at(tmp_path / "home")
    found.make_run()
    yield found
    shutil.rmtree(found.run)


def test_what_was_written_is_read(home: Home) -> None:
    state = ClusterState((Session("head", 12, 3.5),), is_complete=True)
    write_state(home, state)
    assert read_state(home) == state


def test_a_part_that_starts_again_replaces_its_record() -> None:
    state = ClusterState((Session("head", 12, 3.5), Session("edge", 13, 4.0)))
    again = state.with_session(Session("edge", 99, 8.0))
    assert {s.part: s.sid for s in again.sessions} == {"head": 12, "edge": 99}


def test_the_record_of_an_earlier_boot_is_not_believed(home: Home) -> None:
    write_state(home, ClusterState((Session("head", 12, 3.5),)))
    document = json.loads(home.state.read_text())
    home.state.write_text(json.dumps({**document, "boot_id": "another"}))
    assert read_state(home) == ClusterState()


@pytest.mark.parametrize("text", ["", "{", "[]", '{"boot_id": 1}', "null"])
def test_a_damaged_record_is_no_record(home: Home, text: str) -> None:
    home.state.write_text(text)
    assert read_state(home) == ClusterState()
