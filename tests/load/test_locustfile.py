from __future__ import annotations

import subprocess
import sys
from pathlib import Path

FILE = Path(__file__).parents[2] / "load" / "locustfile.py"


def test_locust_reads_the_file_and_finds_its_users() -> None:
    # A process of its own: locust patches the standard library when it is imported.
    command = [sys.executable, "-m", "locust", "-f", str(FILE), "--list"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "MixedUser" in done.stdout
