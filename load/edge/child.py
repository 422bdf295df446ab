"""Measurements in a process of their own: `python -m load.edge.child WHICH`, JSON in and out.

An engine, an accelerator with its host, onnxruntime by itself: each in a fresh process, so that
neither the memory nor the threads nor the garbage of the tool is in the figures.
"""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any, Final

from load.bench.worker import Job, Measured

TIMEOUT_S: Final = 300.0
WHICH: Final = ("hop", "death", "throughput")


class MeasurementFailed(Exception):
    """A child ended with an error, or saw no answers; the message says whose."""


def measure(
    which: str,
    job: Mapping[str, Any],
    *,
    environment: Mapping[str, str] | None = None,
    niceness: int = 0,
) -> Any:
    """Run `in_child` of a module here with a job. Raises MeasurementFailed."""
    command = [sys.executable, "-m", "load.edge.child", which]
    return json.loads(_run(which, command, job, environment or {}, niceness))


def load(who: str, job: Job, niceness: int = 0) -> Measured:
    """Run the load generator of `load.bench`. Raises MeasurementFailed, also for a failure."""
    command = [sys.executable, "-m", "load.bench.worker"]
    measured = Measured(**json.loads(_run(who, command, asdict(job), {}, niceness)))
    if not measured.answers or measured.failures:
        raise MeasurementFailed(f"{who}: {measured.first_failure}")
    return measured


def _run(
    who: str,
    command: list[str],
    job: Mapping[str, Any],
    environment: Mapping[str, str],
    niceness: int,
) -> str:
    if niceness:
        command = ["nice", "-n", str(niceness), *command]
    done = subprocess.run(
        command,
        input=json.dumps(job),
        capture_output=True,
        text=True,
        env={**os.environ, **environment},
        timeout=TIMEOUT_S,
        check=False,
    )
    if done.returncode != 0:
        raise MeasurementFailed(f"{who}: {done.stderr.strip()[-1500:]}")
    return done.stdout


def main() -> int:
    """Read a job, run it, print what was found."""
    which = sys.argv[1]
    if which not in WHICH:
        raise SystemExit(f"one of {', '.join(WHICH)}")
    module = importlib.import_module(f"load.edge.{which}")
    json.dump(module.in_child(json.load(sys.stdin)), sys.stdout)
    return 0


if __name__ == "__main__":
    sys.exit(main())
