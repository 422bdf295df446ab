"""What another process writes and leaves is seen by those who had the registry open."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from cluster.registry import EmbeddedRegistry

WRITES = """
import sys
from pathlib import Path
from cluster.registry import EmbeddedRegistry, rows
with EmbeddedRegistry(Path(sys.argv[1]))._database.write() as db:
    rows.next_generation(db)
"""


def test_what_short_lived_processes_write_is_seen_however_many_readers_there_were(
    tmp_path: Path,
) -> None:
    registry = EmbeddedRegistry(tmp_path / "registry")
    before = registry.serving_generation()
    with registry._database.read(), registry._database.read():  # a second connection, as of threads
        pass
    for number in range(1, 4):
        subprocess.run([sys.executable, "-c", WRITES, str(tmp_path / "registry")], check=True)
        assert registry.serving_generation() == before + number
    registry.close()
