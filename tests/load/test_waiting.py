"""A process can be started in which models take as long as a test wants."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from load.waiting import python_path

_CODE = """
import time
from edge_runtime.backends import onnx

class Backend:
    def compute(self, *_):
        return ["what it computed"]

began = time.monotonic()
found = onnx.OnnxRun(Backend(), None, {}, ()).execute()
print(found, time.monotonic() - began >= 0.3)
"""


def test_a_run_takes_as_long_as_was_asked_for_and_returns_what_it_computed(tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": python_path(tmp_path / "hook", 0.3)}
    done = subprocess.run(
        [sys.executable, "-c", _CODE], env=environment, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "['what it computed'] True"
