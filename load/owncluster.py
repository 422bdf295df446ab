"""A benchmark's own cluster on this machine: free ports, commands, and a model that it serves."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
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


@contextmanager
def serving(
    environment: Mapping[str, str], root: Path, model: str, placement: str, *options: str
) -> Iterator[None]:
    """Have a cluster up there that serves a model of the zoo. Raises OSError.

    root: its home; options: of the model, NAME=VALUE.
    """
    try:
        must(environment, "cluster.cli.main", "up")
        must(environment, "train.zoo.publish", model, "--home", str(root))
        words = [word for option in options for word in ("--option", option)]
        served = ("model", "serve", f"{model}@production", "--placement", placement)
        must(environment, "cluster.cli.main", *served, *words)
        yield
    finally:
        must(environment, "cluster.cli.main", "down")


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


def end_when_told() -> None:
    """Let SIGTERM end this process by an exception, or its cluster would outlive it."""
    signal.signal(signal.SIGTERM, _end)


def _end(number: int, _: object) -> None:
    sys.exit(128 + number)
