"""Homes that killed runs left are removed, and only those."""

from __future__ import annotations

import os
import subprocess
import time
from pathlib import Path

from tests.leftovers import QUIET_S, sweep


def _home(folder: Path, name: str, age_s: float = 2 * QUIET_S) -> Path:
    home = folder / name
    (home / "logs").mkdir(parents=True)
    then = time.time() - age_s
    os.utime(home, (then, then))
    return home


def test_old_homes_go_and_what_is_new_or_of_something_else_stays(tmp_path: Path) -> None:
    old = [_home(tmp_path, name) for name in ("ps-x1_fgh2z", "ps-0-05b2e529aa-edge")]
    others = [_home(tmp_path, "ps-notes"), _home(tmp_path, "ps-abcdefgh", age_s=60.0)]
    assert sorted(sweep(tmp_path)) == sorted(old)
    assert sorted(tmp_path.iterdir()) == sorted(others)


def test_a_home_that_a_process_has_to_do_with_stays(tmp_path: Path) -> None:
    told, open_in, unused = (_home(tmp_path, f"ps-aaaaaaa{n}") for n in range(3))
    environment = {**os.environ, "PRIME_SPARK_HOME": str(told)}
    holding = subprocess.Popen(["sleep", "60"], env=environment, cwd=open_in)
    try:
        assert sweep(tmp_path) == [unused]
    finally:
        holding.kill()
        holding.wait()
    assert sorted(sweep(tmp_path)) == [told, open_in]
