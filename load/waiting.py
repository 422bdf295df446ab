"""Models that wait instead of computing, so that a small machine can hold a large fleet.

A process that starts with `python_path(...)` as its PYTHONPATH is as usual, but for one thing: a
run of ONNX Runtime that is over sooner than it should be sleeps until then. Queues, batches,
routing and scaling cannot tell that from a model that computes for so long.
"""

from __future__ import annotations

import importlib.abc
import importlib.machinery
import importlib.util
import os
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, Final

CHECKOUT: Final = Path(__file__).resolve().parents[1]
BACKEND: Final = "edge_runtime.backends.onnx"


def python_path(folder: Path, seconds: float) -> str:
    """Return the PYTHONPATH of processes in which a run takes at least so long.

    folder: where the start-up module for that is written; it must stay while they run.
    """
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "sitecustomize.py").write_text(
        f"from load.waiting import install\n\ninstall({seconds!r})\n"
    )
    inherited = os.environ.get("PYTHONPATH")
    return os.pathsep.join([str(folder), str(CHECKOUT), *([inherited] if inherited else [])])


def install(seconds: float) -> None:
    """Make runs of models that are loaded in this process from now on take at least so long."""
    sys.meta_path.insert(0, _Finder(seconds))


class _Finder(importlib.abc.MetaPathFinder):
    def __init__(self, seconds: float) -> None:
        self._seconds = seconds

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if name != BACKEND:
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(name)
        if spec is not None and spec.loader is not None:
            spec.loader = _Loader(spec.loader, self._seconds)
        return spec


class _Loader(importlib.abc.Loader):
    def __init__(self, loader: importlib.abc.Loader, seconds: float) -> None:
        self._loader = loader
        self._seconds = seconds

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> ModuleType | None:
        return self._loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        self._loader.exec_module(module)
        module.OnnxRun.execute = _slowed(module.OnnxRun.execute, self._seconds)


def _slowed(execute: Callable[[Any], Any], seconds: float) -> Callable[[Any], Any]:
    def slowed(run: Any) -> Any:
        due = time.monotonic() + seconds
        try:
            return execute(run)
        finally:
            time.sleep(max(0.0, due - time.monotonic()))

    return slowed
