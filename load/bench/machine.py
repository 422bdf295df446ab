"""What a table of figures must say about where it was made."""

from __future__ import annotations

import os
import platform
import subprocess
from collections.abc import Mapping
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

import psutil

PACKAGES: Final = ("ray", "onnxruntime", "starlette", "uvicorn", "grpcio", "numpy")


def describe(checkout: Path) -> dict[str, Any]:
    """Return machine, date, commit and versions as a JSON value."""
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": _git(checkout, "rev-parse", "HEAD") or "unknown",
        "has_local_changes": bool(_git(checkout, "status", "--porcelain", "--untracked-files=no")),
        "cpu": _cpu(),
        "architecture": platform.machine(),
        "cores": os.cpu_count(),
        "memory_gb": round(psutil.virtual_memory().total / 1e9, 1),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "load_before": [round(value, 2) for value in os.getloadavg()],
        "packages": {name: version(name) for name in PACKAGES},
    }


def stamp(machine: Mapping[str, Any]) -> str:
    """Return when and of what a page is. machine: as `describe` returned it."""
    changed = " with local changes" if machine["has_local_changes"] else ""
    return f"{machine['date']}, commit `{machine['commit'][:12]}`{changed}"


def measured_on(machine: Mapping[str, Any]) -> str:
    """Return that, and what else matters for times."""
    return (
        f"{stamp(machine)}, {machine['cores']} processors; load average before: "
        f"{machine['load_before'][0]:g}"
    )


def _cpu() -> str:
    for line in Path("/proc/cpuinfo").read_text("utf-8").splitlines():
        if line.startswith(("model name", "Model")):
            return line.partition(":")[2].strip()
    return platform.processor() or "unknown"


def _git(checkout: Path, *words: str) -> str:
    try:
        done = subprocess.run(
            ["git", "-C", str(checkout), *words], capture_output=True, text=True, check=True
        )
    except (OSError, subprocess.CalledProcessError):
        return ""
    return done.stdout.strip()
