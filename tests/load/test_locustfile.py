from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from load.simulator.readers import read

FILE = Path(__file__).parents[2] / "load" / "locustfile.py"

# Locust's own events, as it fires them for a request that was answered, one that was not, and one
# that asked no model.
FIRED = """
from locust.env import Environment
from load.locustfile import RequestFile

environment = Environment()
file = RequestFile("requests.csv")
environment.events.request.add_listener(file.saw)
environment.events.quit.add_listener(file.close)
for at, taken_ms, error, context in (
    (1000.5, 12.5, None, {"model": "digits", "bytes": 256}),
    (1000.7, 30.0, OSError("gone"), {"model": "digits", "bytes": 2048}),
    (1000.9, 1.0, None, {}),
):
    environment.events.request.fire(
        request_type="POST", name="x", response_time=taken_ms, response_length=9, url="/",
        exception=error, context=context, response=None, start_time=at,
    )
environment.events.quit.fire(exit_code=0)
"""


def test_locust_reads_the_file_and_finds_its_users() -> None:
    # A process of its own: locust patches the standard library when it is imported.
    command = [sys.executable, "-m", "locust", "-f", str(FILE), "--list"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "MixedUser" in done.stdout


def test_requests_that_locust_made_are_a_trace(tmp_path: Path) -> None:
    subprocess.run([sys.executable, "-c", FIRED], cwd=tmp_path, check=True, capture_output=True)
    found = read(tmp_path / "requests.csv")
    assert not found.problems
    assert [(r.at, r.size_bytes, r.model, r.taken_s, r.outcome) for r in found.requests] == [
        (1000.5, 256, "digits", 0.0125, "ok"),
        (1000.7, 2048, "digits", 0.030, "failed"),
    ]
