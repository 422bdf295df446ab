"""What was loaded and unloaded by name, kept over restarts: `state/serving.json`.

A box that reboots without a network serves what it served before. The file is replaced durably
with every decision; a disk that does not take it is reported, and the decision holds until the
process ends.
"""

from __future__ import annotations

import json
import logging
import threading
from pathlib import Path
from typing import Any

from edge_runtime import durable

logger = logging.getLogger(__name__)

Key = tuple[str, str]


class ServingState:
    """Decisions by (model, version): True to be loaded, False not to be. Use from any thread.

    problem: why the file cannot be read or written, empty when all is well.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self.problem = ""
        self._decided: dict[Key, bool] = {}
        self._lock = threading.Lock()
        try:
            document: Any = json.loads(path.read_bytes())
            self._decided = {
                (str(model), str(version)): bool(is_loaded)
                for model, version, is_loaded in document["decided"]
            }
        except FileNotFoundError:
            pass
        except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
            self._report(f"what was loaded before is not known: {type(error).__name__}")

    def is_wanted(self, key: Key, default: bool) -> bool:
        """Tell whether a version ought to be loaded."""
        return self._decided.get(key, default)

    def decide(self, model: str, version: str, is_loaded: bool) -> None:
        """Remember a decision; waits for the disk."""
        with self._lock:
            if self._decided.get((model, version)) is is_loaded and not self.problem:
                return
            self._decided[model, version] = is_loaded
            self._write()

    def forget(self, model: str, version: str) -> None:
        """Drop what was decided on a version that is gone; waits for the disk."""
        with self._lock:
            if self._decided.pop((model, version), None) is not None:
                self._write()

    def _write(self) -> None:
        entries = [[*key, decided] for key, decided in sorted(self._decided.items())]
        try:
            durable.make_folder(self._path.parent)
            durable.write(self._path, json.dumps({"decided": entries}).encode())
        except OSError as error:
            self._report(f"what is loaded cannot be written down: {error.strerror}")
        else:
            self.problem = ""

    def _report(self, problem: str) -> None:
        if problem != self.problem:
            logger.error("%s (%s)", problem, self._path.name)
        self.problem = problem
