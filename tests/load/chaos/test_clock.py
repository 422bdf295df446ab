"""A process whose wall clock is set: only that clock moves, and waits last as long as before."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from load.chaos.clock import Clock, NoCompiler

PROGRAM = """
import sys, threading, time
sys.stdin.readline()
before = time.monotonic()
print(time.time())
time.sleep(0.2)
threading.Event().wait(0.2)
print(time.monotonic() - before)
"""


@pytest.fixture
def clock(tmp_path: Path) -> Clock:
    try:
        return Clock(tmp_path)
    except NoCompiler as error:
        pytest.skip(str(error))


@pytest.mark.parametrize("offset_s", [0.0, 3600.0, -3600.0, -1.6e9])
def test_the_wall_clock_of_a_running_process_is_set(clock: Clock, offset_s: float) -> None:
    child = subprocess.Popen(
        [sys.executable, "-c", PROGRAM],
        env={**os.environ, **clock.environment},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    clock.step(offset_s)
    out, _ = child.communicate("go\n", timeout=20)
    wall, waited = map(float, out.split())
    assert wall == pytest.approx(time.time() + offset_s, abs=10.0)
    assert 0.39 < waited < 5.0
