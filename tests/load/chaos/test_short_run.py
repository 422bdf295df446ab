"""A short fault run of a box alone: faults every two seconds and a power cut, all marks held."""

from __future__ import annotations

import asyncio
import subprocess

import pytest

from load.chaos.run import Options, run
from load.chaos.schedule import Pace

SECONDS = 40.0
KINDS = (
    *("kill", "kill-twice", "stop", "segfault", "vanish", "fail", "fail-batch", "refuse"),
    *("slow-5", "slow-20", "hang-reopen", "heat", "mismatch", "open-refused", "reboot"),
)


def may_mount() -> bool:
    """Tell whether this user may mount: root in a container need not."""
    return subprocess.run(["unshare", "--mount", "true"], capture_output=True).returncode == 0


@pytest.mark.skipif(not may_mount(), reason="it mounts a disk for the box")
@pytest.mark.timeout(180)
async def test_the_site_is_answered_rightly_whatever_breaks() -> None:
    options = Options(
        minutes=SECONDS / 60,
        seed=4,
        only=KINDS,
        has_cluster=False,
        pace=Pace(accelerator_s=2.0, box_s=SECONDS),
        is_trained=False,
        is_relentless=True,
    )
    lines: list[str] = []
    done = await asyncio.wait_for(run(options, lines.append), 150)
    broken = [mark for mark in done.marks if not mark.holds]
    assert not broken, "\n".join([*lines, *map(str, broken)])
    assert done.figures["accelerator_faults"] >= 10
    assert done.scene.found("ready")
    assert done.scene.ledger.counts().right > SECONDS * 30
