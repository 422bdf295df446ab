"""A virtual environment for each peer, built from its pinned requirements when they change."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Final

PEERS: Final = Path(__file__).parent / "peers"
_BUILT_FROM: Final = "built-from.txt"


def ensure(peer: str, folder: Path) -> Path:
    """Return the peer's Python, building `folder/peer` unless it is as its requirements say.

    Raises CalledProcessError when pip fails (its output was shown).
    """
    requirements = (PEERS / peer / "requirements.txt").read_text("utf-8")
    environment = folder / peer
    python = environment / "bin" / "python"
    built_from = environment / _BUILT_FROM
    if built_from.is_file() and built_from.read_text("utf-8") == requirements:
        return python
    print(f"building {environment.name}'s environment ...", flush=True)
    shutil.rmtree(environment, ignore_errors=True)
    subprocess.run([sys.executable, "-m", "venv", str(environment)], check=True)
    pip = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*pip, "-r", str(PEERS / peer / "requirements.txt")], check=True)
    built_from.write_text(requirements, "utf-8")
    return python
