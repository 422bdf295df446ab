"""Processes are found by mark and session, and only those are ended."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from cluster.home import Home
from cluster.processes import Session, belonging, end, is_running, kill, start

SLEEP = [sys.executable, "-c", "import time; time.sleep(300)"]
# Leaves a child of its own behind whose environment says nothing, as Ray's workers do.
ORPHAN = [
    sys.executable,
    "-c",
    "import subprocess, sys; p = subprocess.Popen("
    "[sys.executable, '-c', 'import time; time.sleep(300)'], env={}); print(p.pid, flush=True)",
]
STUBBORN = [
    sys.executable,
    "-c",
    "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('x', flush=True);"
    "time.sleep(300)",
]


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Home]:
    found = Home.at(tmp_path / "home")
    yield found
    kill([p for processes in belonging(found).values() for p in processes])


def wait_for_line(log: Path) -> str:
    until = time.monotonic() + 20.0
    while not log.exists() or not log.read_text():
        assert time.monotonic() < until, "the child said nothing"
        time.sleep(0.02)
    return log.read_text()


def test_a_started_process_is_found_by_its_part_and_others_are_not(home: Home) -> None:
    stranger = subprocess.Popen(SLEEP)
    try:
        child, session = start(home, "head", SLEEP, dict(os.environ), home.logs / "head.log")
        found = belonging(home)
        assert {part: [p.pid for p in ps] for part, ps in found.items()} == {"head": [child.pid]}
        assert session.sid == child.pid
        assert belonging(Home.at(home.root.parent / "other")) == {}
        end(found["head"], 5.0)
        assert belonging(home) == {}
        assert stranger.poll() is None
        child.wait()
    finally:
        stranger.kill()
        stranger.wait()


def test_an_orphan_that_lost_parent_and_mark_is_found_by_its_recorded_session(home: Home) -> None:
    log = home.logs / "head.log"
    child, session = start(home, "head", ORPHAN, dict(os.environ), log)
    orphan = int(wait_for_line(log))
    child.wait()
    assert belonging(home) == {}
    assert [p.pid for p in belonging(home, [session])["head"]] == [orphan]
    # A process older than the record has the same number by chance.
    later = Session("head", session.sid, time.time() + 60.0)
    assert belonging(home, [later]) == {}
    kill(belonging(home, [session])["head"])
    assert belonging(home, [session]) == {}


def test_a_process_that_ignores_the_request_is_killed(home: Home) -> None:
    log = home.logs / "head.log"
    child, _ = start(home, "head", STUBBORN, dict(os.environ), log)
    wait_for_line(log)
    end(belonging(home)["head"], 0.3)
    assert child.wait(5) == -9


def test_a_process_that_waits_to_be_reaped_is_not_running(home: Home) -> None:
    child, _ = start(home, "head", [sys.executable, "-c", ""], dict(os.environ), home.logs / "x")
    process = psutil.Process(child.pid)
    until = time.monotonic() + 20.0
    while process.status() != psutil.STATUS_ZOMBIE:
        assert time.monotonic() < until
        time.sleep(0.02)
    assert not is_running(process)
    assert belonging(home) == {}
    child.wait()
    assert not is_running(process)
