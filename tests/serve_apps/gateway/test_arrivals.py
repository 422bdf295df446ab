from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from edge_runtime.engine import LoadReport
from serve_apps.gateway.arrivals import MOST_MODELS, OTHERS, Arrivals
from serve_apps.gateway.targets import RemoteTarget, TargetTable
from serve_apps.scaling import spool
from serve_apps.wire import Call, ReplicaReport, Reply


class Replicas:
    """A cloud tier of two replicas that say how they are."""

    def __init__(self) -> None:
        self.row_s = 0.02
        self.wait_s = 0.1

    async def call(self, call: Call) -> Reply:
        raise ConnectionError("nothing is asked of it here")

    async def wake(self) -> None:
        raise ConnectionError("nor of anybody else")

    async def probe(self) -> Sequence[ReplicaReport]:
        load = LoadReport(
            queued=3, running=1, wait_s=self.wait_s, service_s=0.05, row_s=self.row_s, busy=0.4
        )
        return [ReplicaReport({("m", "1"): load}, {}, (), 1)] * 2


@pytest.fixture
def backing() -> Replicas:
    return Replicas()


@pytest.fixture
async def targets(backing: Replicas) -> TargetTable:
    table = TargetTable([RemoteTarget("cloud", "cloud", "dc", backing, lambda: 1.0)])
    await table.probe()
    return table


async def _until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not holds():  # noqa: ASYNC110 (a file, and a log: neither can be awaited)
            await asyncio.sleep(0.01)


async def test_requests_are_counted_with_how_the_cloud_replicas_are(targets: TargetTable) -> None:
    arrivals = Arrivals()
    for target in ("cloud", "cloud", "edge/lab"):
        arrivals.came("m", target)
    arrivals.came("m")  # nobody could take it
    found = arrivals.counts(targets, 5.0)
    assert found.came == {"m": {"cloud": 3, "edge/lab": 1}}
    assert (found.replicas, found.at_s) == (2, 5.0)
    assert found.busy == pytest.approx(0.8)
    assert found.queued_s == pytest.approx(0.12)
    assert found.work_s == {"m": pytest.approx(0.02)}


async def test_answers_of_the_cloud_are_counted_by_model(targets: TargetTable) -> None:
    arrivals = Arrivals()
    for target in ("cloud", "cloud", "edge/lab"):
        arrivals.came("m", target)
        arrivals.done("m", target)
    arrivals.done("nobody has asked for it", "cloud")
    assert arrivals.counts(targets, 5.0).done == {"m": 2, OTHERS: 1}


async def test_a_replica_where_requests_wait_for_long_is_busy(
    backing: Replicas, targets: TargetTable
) -> None:
    assert Arrivals().counts(targets, 1.0).waiting == 0
    backing.wait_s = 0.3
    await targets.probe()
    found = Arrivals().counts(targets, 2.0)
    assert (found.waiting, found.busy) == (2, 2.0)


async def test_what_a_request_takes_changes_slowly(backing: Replicas, targets: TargetTable) -> None:
    arrivals = Arrivals()
    arrivals.came("m")
    arrivals.counts(targets, 1.0)
    backing.row_s = 0.04
    await targets.probe()
    assert 0.02 < arrivals.counts(targets, 2.0).work_s["m"] < 0.021


async def test_models_beyond_a_number_are_counted_together(targets: TargetTable) -> None:
    arrivals = Arrivals()
    for number in range(MOST_MODELS + 10):
        arrivals.came(f"m{number}" if number else "m")
    found = arrivals.counts(targets, 1.0)
    assert len(found.came) == MOST_MODELS + 1
    assert found.came[OTHERS] == {"cloud": 10}
    assert found.work_s[OTHERS] == pytest.approx(0.02)


async def test_the_file_is_written_again_when_it_can_be(
    tmp_path: Path, targets: TargetTable, caplog: pytest.LogCaptureFixture
) -> None:
    arrivals = Arrivals()
    folder = tmp_path / "not there yet"
    task = asyncio.create_task(arrivals.run(folder, 0, targets, every_s=0.01))
    try:
        await _until(lambda: "cannot be written" in caplog.text)
        folder.mkdir()
        await _until(spool.counts_path(folder, 0).exists)
    finally:
        task.cancel()
    assert caplog.text.count("cannot be written") == 1
    assert json.loads(spool.counts_path(folder, 0).read_text())["replicas"] == 2
