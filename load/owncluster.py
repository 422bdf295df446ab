"""What a benchmark needs for a cluster of its own on this machine: free ports, and commands."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from cluster.ports import free_port

PORTS: Final = (
    "PORTS__REST", "PORTS__GRPC", "PORTS__DASHBOARD", "PORTS__GCS",
    "EDGE__PORTS__REST", "EDGE__PORTS__GRPC",
)  # fmt: skip


def environment(root: Path, settings: Mapping[str, object] | None = None) -> dict[str, str]:
    """Return this environment with a home and free ports instead of its own settings.

    settings: variables without their prefix.
    """
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("PRIME_SPARK_", "RAY_"))}
    chosen = {"HOME": root, **{name: free_port() for name in PORTS}, **(settings or {})}
    return kept | {f"PRIME_SPARK_{name}": str(value) for name, value in chosen.items()}


def must(environment: Mapping[str, str], module: str, *arguments: str) -> str:
    """Run a module there and return what it printed. Raises OSError with its complaint."""
    done = subprocess.run(
        [sys.executable, "-m", module, *arguments],
        env=dict(environment),
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        raise OSError(f"`{module} {' '.join(arguments)}`: {(done.stderr or done.stdout).strip()}")
    return done.stdout
