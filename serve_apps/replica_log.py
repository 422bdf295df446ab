"""Where a replica's own words go: one JSON-lines file a replica under the home's `logs/`.

Serve keeps a log of its own and, in its fast mode, holds lines back in memory; what the product
has to say about targets, models and faults must be on disk when it is said.
"""

from __future__ import annotations

import logging
from logging.handlers import RotatingFileHandler
from pathlib import Path
from typing import Final

from edge_runtime.logs import JsonLines

PACKAGES: Final = ("serve_apps", "edge_runtime", "cluster", "uvicorn.error", "grpc")
MAX_BYTES: Final = 5 * 1024 * 1024
BACKUPS: Final = 2
KEPT_FILES: Final = 20


def log_to(folder: Path, name: str) -> None:
    """Send the product's loggers of this process to `folder/name.log`; older files are pruned."""
    folder.mkdir(parents=True, exist_ok=True)
    _prune(folder, name.partition("-")[0])
    handler = RotatingFileHandler(
        folder / f"{name}.log", maxBytes=MAX_BYTES, backupCount=BACKUPS, encoding="utf-8"
    )
    handler.setFormatter(JsonLines())
    for package in PACKAGES:
        logger = logging.getLogger(package)
        logger.handlers = [handler]
        logger.setLevel(logging.INFO)
        logger.propagate = False


def _prune(folder: Path, kind: str) -> None:
    """Replicas come and go; keep the newest files of their kind."""
    for old in sorted(folder.glob(f"{kind}-*.log*"), key=_changed_at)[:-KEPT_FILES]:
        old.unlink(missing_ok=True)


def _changed_at(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except FileNotFoundError:  # pruned or rotated by another replica meanwhile
        return 0.0
