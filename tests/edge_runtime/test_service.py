"""The service over one engine: what is loaded by name, what is decided, and what health says."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest

from edge_runtime.errors import (
    Corrupt,
    DeadlineExceeded,
    InvalidInput,
    NotFound,
    PrimeSparkError,
    Unavailable,
    Unsupported,
)
from edge_runtime.protocol.types import InferRequest
from tests.edge_runtime.engine.gate import request, until
from tests.edge_runtime.engine.memory import MIB, Place, context


@pytest.fixture
async def place() -> AsyncIterator[Place]:
    """Two models without a limit; no task may be left at the end."""
    made = Place({"a": MIB, "b": MIB}, 0)
    yield made
    await made.close()
    for _ in range(3):
        await asyncio.sleep(0)
    assert asyncio.all_tasks() == {asyncio.current_task()}


def states(place: Place) -> dict[tuple[str, str], str]:
    return {(e.name, e.version): e.state for e in place.service.repository_index(ready_only=False)}


# Loading


async def test_without_a_version_the_newest_is_loaded_and_answers(place: Place) -> None:
    newer = replace(place.sources["a"], version="2")
    place.service.add(newer)
    assert place.service.is_newest(newer)
    assert not place.service.is_newest(place.sources["a"])
    await place.load("a")
    assert states(place) == {
        ("a", "1"): "UNAVAILABLE",
        ("a", "2"): "READY",
        ("b", "1"): "UNAVAILABLE",
    }
    found = await place.service.infer(request([1.0], model="a"), context())
    assert found.response.version == "2"
    await place.service.load_model("a", {"version": "1"}, context())
    assert place.service.model_metadata("a", None).versions == ("1", "2")
    with pytest.raises(NotFound, match="has no version '3'"):
        await place.service.load_model("a", {"version": "3"}, context())
    assert place.decided == [("a", "2", True), ("a", "1", True)]


async def test_what_cannot_be_loaded_is_told_kept_as_a_reason_and_not_decided(
    place: Place,
) -> None:
    place.loads.error = Corrupt("a is broken")
    with pytest.raises(Corrupt):
        await place.load("a")
    health = place.service.health()
    assert (health.status, health.reasons) == ("degraded", ("a:1: a is broken",))
    (entry, _) = place.service.repository_index(ready_only=False)
    assert (entry.name, entry.reason) == ("a", "a is broken")
    assert place.decided == []
    place.loads.error = None
    await place.load("a")
    assert place.service.health().status == "ready"


async def test_what_could_not_be_loaded_is_no_reason_any_more_when_it_is_unloaded(
    place: Place,
) -> None:
    place.loads.error = Corrupt("a is broken")
    with pytest.raises(Corrupt):
        await place.load("a")
    await place.service.unload_model("a", {"version": "1"}, context())
    assert place.service.health().status == "ready"
    assert place.decided == [("a", "1", False)]


async def test_a_model_that_fails_in_a_way_nobody_thought_of_keeps_no_other_from_loading(
    place: Place, caplog: pytest.LogCaptureFixture
) -> None:
    place.loads.error = RuntimeError("a null pointer, or so")
    await place.service.load_all(lambda source: source.model == "a")
    place.loads.error = None
    await place.service.load_all(lambda source: source.model == "b")
    assert place.loaded == {"b"}
    assert place.service.health().reasons == ("a:1: it failed unexpectedly; the log has more",)
    assert "a null pointer, or so" in caplog.text
    place.loads.error = RuntimeError("again")
    with pytest.raises(PrimeSparkError, match="'a' failed unexpectedly"):
        await place.load("a")


async def test_a_load_goes_on_and_is_remembered_though_its_caller_gave_up(place: Place) -> None:
    place.loads.gate.clear()
    with pytest.raises(DeadlineExceeded, match="still loading"):
        await place.service.load_model("a", {}, context(0.01))
    gone = asyncio.create_task(place.service.load_model("b", {}, context()))
    await until(lambda: len(place.loads.opened) == 2)
    gone.cancel()
    await asyncio.wait([gone])
    place.loads.gate.set()
    await until(lambda: len(place.decided) == 2)
    assert place.loaded == {"a", "b"}
    assert sorted(place.decided) == [("a", "1", True), ("b", "1", True)]


async def test_why_a_load_failed_is_kept_though_its_caller_gave_up(place: Place) -> None:
    place.loads.gate.clear()
    place.loads.error = Corrupt("a is broken")
    with pytest.raises(DeadlineExceeded):
        await place.service.load_model("a", {}, context(0.01))
    place.loads.gate.set()
    await until(lambda: place.service.health().status == "degraded")
    assert place.service.health().reasons == ("a:1: a is broken",)


async def test_of_a_load_and_an_unload_the_later_one_is_what_is_remembered(place: Place) -> None:
    place.loads.gate.clear()
    loading = asyncio.create_task(place.load("a"))
    await until(lambda: len(place.loads.opened) == 1)
    unloading = asyncio.create_task(place.service.unload_model("a", {}, context()))
    await asyncio.sleep(0)
    place.loads.gate.set()
    await asyncio.gather(loading, unloading)
    assert place.loaded == set()
    assert place.decided == [("a", "1", True), ("a", "1", False)]


async def test_overrides_in_a_load_are_refused(place: Place) -> None:
    for parameters in ({"config": "{}"}, {"file:1/model.onnx": "x"}):
        with pytest.raises(Unsupported, match="overrides are not offered"):
            await place.service.load_model("a", parameters, context())
    with pytest.raises(InvalidInput, match="'version' must be text"):
        await place.service.load_model("a", {"version": 1}, context())


# Unloading, dropping, describing


async def test_without_a_version_all_that_are_loaded_are_unloaded(place: Place) -> None:
    place.service.add(replace(place.sources["a"], version="2"))
    for version in ("1", "2"):
        await place.service.load_model("a", {"version": version}, context())
    await place.service.unload_model("a", {}, context())
    assert place.loaded == set()
    assert place.decided[2:] == [("a", "1", False), ("a", "2", False)]


async def test_what_is_not_known_or_not_loaded_says_which_it_is(place: Place) -> None:
    service = place.service
    for ask in (service.model_metadata, service.model_config, service.is_model_ready):
        with pytest.raises(NotFound, match="no model 'c'"):
            ask("c", None)
        with pytest.raises(NotFound, match="no version '9'"):
            ask("a", "9")
    assert not service.is_model_ready("a", None)
    with pytest.raises(Unavailable, match="model 'a' version '1' is not loaded") as refused:
        service.model_metadata("a", None)
    assert refused.value.hint == "load it through the repository"
    with pytest.raises(NotFound):
        await service.unload_model("a", {"version": "9"}, context())
    with pytest.raises(Unavailable):
        await place.ask("a")
    with pytest.raises(NotFound):
        await place.ask("c")


async def test_a_version_that_is_dropped_is_not_known_and_no_reason(place: Place) -> None:
    place.loads.error = Corrupt("a is broken")
    with pytest.raises(Corrupt):
        await place.load("a")
    place.service.drop("a", "1")
    assert states(place) == {("b", "1"): "UNAVAILABLE"}
    assert place.service.health().status == "ready"
    place.service.drop("a", "1")


async def test_a_model_is_described_as_it_is_served(place: Place) -> None:
    await place.load("a")
    config = place.service.model_config("a", None)
    assert (config.name, config.platform, config.backend) == ("a", "test", "gate")
    assert (config.max_batch_size, config.parameters) == (8, {"version": "1"})
    metadata = place.service.model_metadata("a", None)
    assert (metadata.versions, metadata.signature) == (("1",), config.signature)
    server = place.service.server_metadata()
    assert (server.name, server.version) == ("prime-spark-edge", "test")


async def test_statistics_are_of_one_version_of_all_of_a_model_or_of_all_models(
    place: Place,
) -> None:
    place.service.add(replace(place.sources["a"], version="2"))
    await place.load("b", "a")
    await place.service.load_model("a", {"version": "1"}, context())
    await place.ask("a")
    statistics = place.service.model_statistics

    async def found(model: str | None, version: str | None) -> list[tuple[str, str, int]]:
        return [(s.name, s.version, s.success.count) for s in await statistics(model, version)]

    assert await found("a", "2") == [("a", "2", 1)]
    assert await found("a", None) == [("a", "1", 0), ("a", "2", 1)]
    assert await found(None, None) == [("a", "1", 0), ("a", "2", 1), ("b", "1", 0)]


async def test_while_it_is_held_it_says_why_and_takes_nothing(place: Place) -> None:
    await place.load("a")
    place.service.hold("the box is being cleaned")
    health = place.service.health()
    assert (health.status, health.reasons) == ("unready", ("the box is being cleaned",))
    with pytest.raises(Unavailable, match="being cleaned") as refused:
        await place.service.infer(InferRequest("nobody", None, ()), context())
    assert refused.value.retry_after_s == 1.0
    await place.load("b")
    place.service.hold("")
    assert await place.ask("a", 2.0) == 4.0
