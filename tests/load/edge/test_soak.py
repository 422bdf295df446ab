from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from load.edge import bench, report, soak
from load.edge.crowd import Crowd, Guest, malformed
from load.edge.models import Models
from load.http1 import Response


def test_a_soak_of_five_seconds_sees_every_kind_of_client_and_no_surprise(
    publish: Callable[[Path], Models], tmp_path: Path
) -> None:
    arguments = ["--minutes", str(5 / 60), "--out", str(tmp_path), "--seed", "3", "--rate", "600"]
    code = soak.main(arguments, publish)
    document = json.loads((tmp_path / "edge-soak.json").read_bytes())
    marks = {v["mark"]["title"]: v["is_met"] for v in document["marks"]}
    assert marks[soak.WRONG.title]
    assert marks[soak.SURPRISES.title], document["counts"]
    assert code == (0 if all(marks.values()) else 1)
    counts = document["counts"]
    models = {rung.split(" on ")[0] for rung in counts["rungs"]}
    assert models == {"light", "heavy", soak.RECALLED, soak.GUEST}
    assert counts["loads_of_the_guest"] >= 1
    assert any(rung.endswith(" on hailo") for rung in counts["rungs"])
    assert any(rung.endswith(" on cache") for rung in counts["rungs"])
    assert any(what.startswith("malformed") for what in counts["expected"])
    assert counts["expected"]["left before the answer"] > 0
    assert len(document["samples"]) >= 4
    assert all(sample["rss"] > 0 for sample in document["samples"])
    assert (tmp_path / "edge-soak.svg").exists()
    found = bench.read_soak(tmp_path)
    assert found is not None
    page = report.markdown("x", {**document, "plan": {"rounds": 1}, "results": {}}, found)
    assert "## Soak" in page
    assert "[edge-soak.json](edge-soak.json)" in page


def response(status: int) -> Response:
    return Response(status, {}, b"{}")


@pytest.mark.parametrize(
    ("guest", "status", "is_surprise"),
    [
        (None, 503, True),
        (Guest("g", is_loaded=True, since=5.0), 503, True),
        (Guest("g", is_loaded=False, since=5.0), 503, False),
        (Guest("g", is_loaded=True, since=15.0), 503, False),
        (Guest("g", is_loaded=False, since=5.0), 500, True),
    ],
)
def test_a_refusal_is_expected_only_of_a_model_that_was_away(
    models: Models, guest: Guest | None, status: int, is_surprise: bool
) -> None:
    crowd = Crowd(1, {}, 0.0, 1)
    crowd._count(crowd.question("g", models.light), response(status), guest, asked_at=10.0)
    assert bool(crowd.counts.unexpected) is is_surprise
    assert bool(crowd.counts.expected) is not is_surprise


def test_malformed_requests_differ_from_a_good_one(models: Models) -> None:
    bent = malformed(models.light, "h", {"authorization": "Bearer x"})
    good = Crowd(1, {"authorization": "Bearer x"}, 0.0, 1).question("light", models.light).request
    assert len(bent) > 10
    assert good not in bent.values()


def test_the_first_that_ends_ends_the_others_and_its_error_is_raised() -> None:
    ended = []

    async def stay() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.append("stay")

    async def fail() -> None:
        raise OSError("the process has gone")

    async def both() -> None:
        tasks = [asyncio.ensure_future(stay()), asyncio.ensure_future(fail())]
        await soak.until_first_ends(tasks, 30.0)

    with pytest.raises(OSError, match="has gone"):
        asyncio.run(both())
    assert ended == ["stay"]
