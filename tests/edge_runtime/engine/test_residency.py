"""Loaded models stay below a limit of measured memory, and come back when they are asked for."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_runtime.engine import Engine, EngineOptions, ModelOptions, ModelSource
from edge_runtime.engine.memory import data_bytes, trim_heap
from edge_runtime.engine.residency import LEAST_BYTES, Residency
from edge_runtime.errors import Corrupt, DeadlineExceeded, NotFound, Unavailable
from edge_runtime.protocol.types import InferRequest, Tensor
from edge_runtime.service import EngineService
from tests.clock import Clock
from tests.edge_runtime import onnx_models
from tests.edge_runtime.engine.gate import later, request, until
from tests.edge_runtime.engine.memory import MIB, Memory, Place, context

SIZES = {"a": 40 * MIB, "b": 40 * MIB, "c": 40 * MIB}


@pytest.fixture
async def place() -> AsyncIterator[Place]:
    """Three models of 40 MiB where there is room for two; no task may be left at the end."""
    made = Place(SIZES, 100 * MIB)
    yield made
    await made.close()
    await asyncio.sleep(0)
    assert asyncio.all_tasks() == {asyncio.current_task()}


# Bounded, the least recently used first


async def test_the_least_recently_used_makes_room_and_what_is_measured_stays_below_the_limit(
    place: Place,
) -> None:
    await place.load("a", "b")
    await place.ask("a")
    await place.load("c")
    assert (place.loaded, place.evicted) == ({"a", "c"}, {"b"})
    assert place.engine.residency.sizes == {("a", "1"): 40 * MIB, ("c", "1"): 40 * MIB}
    assert place.memory.used == 130 * MIB
    assert place.engine.residency.evictions == 1


async def test_without_a_limit_nothing_leaves_and_nothing_is_measured() -> None:
    place = Place(SIZES, 0)
    await place.load("a", "b", "c")
    assert place.loaded == {"a", "b", "c"}
    assert not place.engine.residency.sizes
    await place.close()


@given(st.lists(st.sampled_from(["a", "b", "c", "d"]), max_size=30))
@settings(max_examples=30)
def test_whatever_is_asked_for_the_limit_holds_and_who_was_asked_last_is_in_memory(
    asked: list[str],
) -> None:
    sizes = {"a": 10 * MIB, "b": 20 * MIB, "c": 30 * MIB, "d": 40 * MIB}

    async def run() -> None:
        place = Place(sizes, 60 * MIB)
        await place.load(*sizes)
        in_order = ["a", "b", "c", "d"]
        for model in asked:
            assert await place.ask(model, 3.0) == 6.0
            in_order.remove(model)
            in_order.append(model)
            assert model in place.loaded
            assert place.memory.used - 50 * MIB == sum(sizes[m] for m in place.loaded)
            assert place.memory.used - 50 * MIB <= 60 * MIB
            assert place.loaded | place.evicted == set(sizes)
            # Who is out was used before everybody who could have gone instead.
            latest_out = max((in_order.index(m) for m in place.evicted), default=-1)
            assert sum(sizes[m] for m in in_order[latest_out:]) > 60 * MIB or latest_out == -1
        await place.close()

    asyncio.run(run())


async def test_a_version_that_made_room_is_loaded_again_when_it_is_asked_for(place: Place) -> None:
    await place.load("a", "b", "c")
    assert place.evicted == {"a"}
    assert await place.ask("a", 4.0) == 8.0
    assert (place.loaded, place.evicted) == ({"a", "c"}, {"b"})
    assert place.loads.opened == ["a", "b", "c", "a"]


async def test_many_who_ask_for_it_at_the_same_time_share_one_load(place: Place) -> None:
    await place.load("a", "b", "c")
    found = await asyncio.gather(*(place.ask("a", float(n)) for n in range(50)))
    assert found == [2.0 * n for n in range(50)]
    assert place.loads.opened.count("a") == 2


async def test_two_that_have_no_room_beside_each_other_are_both_answered() -> None:
    """Each that comes in sends the other out, but not before it has answered who waits."""
    place = Place({"a": 40 * MIB, "b": 40 * MIB}, 50 * MIB)
    await place.load("a", "b")
    asking = [place.asking(model, float(n)) for n in range(5) for model in ("a", "b")]
    found = await asyncio.wait_for(asyncio.gather(*asking), 30.0)
    assert found == [2.0 * n for n in range(5) for _ in ("a", "b")]
    await place.close()


async def test_who_asks_in_the_moment_in_which_a_model_goes_waits_for_its_return(
    place: Place,
) -> None:
    await place.load("a", "b")
    loading = asyncio.create_task(place.load("c"))
    while "a" in place.loaded:  # noqa: ASYNC110 (the very turn counts)
        await asyncio.sleep(0)
    assert not place.loads.backends["a"].is_closed, "it is going"
    assert await place.ask("a", 2.0) == 4.0
    await loading


async def test_a_load_that_lasts_longer_than_the_caller_waits_goes_on(place: Place) -> None:
    await place.load("a", "b", "c")
    place.loads.gate.clear()
    with pytest.raises(DeadlineExceeded, match="still loading"):
        await place.ask("a", seconds=0.02)
    place.loads.gate.set()
    await until(lambda: "a" in place.loaded)
    assert place.loads.opened.count("a") == 2
    assert await place.ask("a") == 2.0


# Who stays


async def test_one_that_is_pinned_stays(place: Place) -> None:
    place.service.add(replace(place.sources["a"], options=ModelOptions(pinned=1)))
    await place.load("a", "b")
    await place.ask("b")
    await place.load("c")
    assert (place.loaded, place.evicted) == ({"a", "c"}, {"b"})


async def test_one_that_has_work_stays_and_the_work_is_finished(place: Place) -> None:
    await place.load("a", "b")
    place.shut("a")
    working = place.asking("a", 5.0)
    await until(lambda: place.engine.runner("a", "1").running == 1)
    await place.ask("b")
    await place.load("c")
    assert (place.loaded, place.evicted) == ({"a", "c"}, {"b"})
    place.loads.backends["a"].gate.set()
    assert await working == 10.0


async def test_one_who_needs_room_waits_a_moment_for_others_to_finish(place: Place) -> None:
    await place.load("a", "b", "c")
    place.shut("b")
    place.shut("c")
    working = [place.asking("b"), place.asking("c")]
    await until(lambda: all(place.engine.runner(m, "1").running for m in ("b", "c")))
    coming = place.asking("a", 7.0)
    for _ in range(20):
        await asyncio.sleep(0)
    assert place.loaded == {"b", "c"}
    place.loads.backends["c"].gate.set()
    assert await coming == 14.0
    assert (place.loaded, place.evicted) == ({"a", "b"}, {"c"})
    place.loads.backends["b"].gate.set()
    assert await asyncio.gather(*working) == [2.0, 2.0]


async def test_where_all_have_work_for_long_another_is_refused_and_is_no_reason_to_be_degraded(
    place: Place,
) -> None:
    await place.load("a", "b", "c")
    place.shut("b")
    place.shut("c")
    working = [place.asking("b"), place.asking("c")]
    await until(lambda: all(place.engine.runner(m, "1").running for m in ("b", "c")))
    with pytest.raises(Unavailable, match="needs about 40 MiB") as refused:
        await place.ask("a")
    assert refused.value.retry_after_s
    assert place.service.health().status == "ready"
    for model in ("b", "c"):
        place.loads.backends[model].gate.set()
    await asyncio.gather(*working)
    assert await place.ask("a") == 2.0


async def test_a_model_that_is_too_large_is_refused_by_its_file_before_it_is_opened(
    place: Place, tmp_path: Path
) -> None:
    path = tmp_path / "large"
    with path.open("wb") as file:
        file.truncate(60 * MIB)
    source = ModelSource.of("large", "1", path, "gate", ModelOptions())
    place.service.add(source)
    await place.load("a")
    with pytest.raises(Unavailable) as refused:
        await place.load("large")
    assert refused.value.message == (
        "model 'large' needs about 192 MiB, and what is loaded and pinned or busy leaves too"
        " little of 100 MiB"
    )
    assert "edge.models.max_bytes" in str(refused.value.hint)
    assert place.loaded == {"a"}, "nobody goes in vain"
    assert place.loads.opened == ["a"]
    assert place.service.health().reasons == (f"large:1: {refused.value.message}",)


async def test_where_a_pinned_one_leaves_too_little_another_is_refused_at_once(
    place: Place,
) -> None:
    place.service.add(replace(place.sources["a"], options=ModelOptions(pinned=1)))
    await place.load("a", "b")
    place.engine.residency.limit_bytes = 70 * MIB
    await place.engine.unload("b", "1")
    await place.load("c")  # its size is not known yet
    await place.engine.unload("c", "1")
    began = asyncio.get_running_loop().time()
    with pytest.raises(Unavailable, match="'c' needs about 40 MiB"):
        await place.load("c")
    assert asyncio.get_running_loop().time() - began < 1.0
    assert place.loaded == {"a"}


# Unloading, failing


async def test_what_was_unloaded_by_name_is_not_loaded_again_when_it_is_asked_for(
    place: Place,
) -> None:
    await place.load("a", "b", "c")
    assert place.evicted == {"a"}
    await place.service.unload_model("a", {}, context())
    assert place.evicted == set()
    assert place.decided[-1] == ("a", "1", False)
    with pytest.raises(Unavailable, match="not loaded"):
        await place.ask("a")
    assert place.loads.opened == ["a", "b", "c"]


async def test_one_that_is_unloaded_while_it_would_make_room_is_not_loaded_again(
    place: Place,
) -> None:
    await place.load("a", "b")
    place.shut("a")
    straight = place.engine.infer(request([1.0], model="a"), "1", deadline=later())
    working = asyncio.create_task(straight)
    await until(lambda: place.engine.runner("a", "1").running == 1)
    unloading = asyncio.create_task(place.service.unload_model("a", {}, context()))
    await until(lambda: "a" not in place.loaded)
    await place.ask("b")
    loading = asyncio.create_task(place.load("c"))
    await until(lambda: "c" in place.loaded)
    for _ in range(20):
        await asyncio.sleep(0)
    assert not loading.done(), "it waits until there is room in truth"
    place.loads.backends["a"].gate.set()
    await asyncio.gather(working, unloading, loading)
    assert "a" not in place.evicted
    with pytest.raises(Unavailable, match="not loaded"):
        await place.ask("a")


async def test_an_unloading_that_nobody_waits_for_any_more_frees_its_share_all_the_same(
    place: Place,
) -> None:
    await place.load("a", "b")
    place.shut("a")
    working = place.asking("a")
    await until(lambda: place.engine.runner("a", "1").running == 1)
    unloading = asyncio.create_task(place.engine.unload("a", "1"))
    await until(lambda: "a" not in place.loaded)
    unloading.cancel()
    await asyncio.wait([unloading])
    assert ("a", "1") not in place.engine.residency.sizes
    place.loads.backends["a"].gate.set()
    await working
    await place.load("c")
    assert place.loaded == {"b", "c"}


async def test_one_that_cannot_be_loaded_again_is_tried_each_time_and_reported(
    place: Place,
) -> None:
    await place.load("a", "b", "c")
    place.loads.error = Corrupt("a is not what was installed")
    for _ in range(2):
        with pytest.raises(Corrupt):
            await place.ask("a")
    assert place.service.health().reasons == ("a:1: a is not what was installed",)
    place.loads.error = None
    assert await place.ask("a") == 2.0
    assert place.service.health().status == "ready"


async def test_a_version_that_is_dropped_while_it_is_out_is_not_found_nor_an_error(
    place: Place,
) -> None:
    await place.load("a", "b", "c")
    newer = replace(place.sources["a"], version="2")
    place.service.add(newer)
    place.service.drop("a", "1")
    with pytest.raises(NotFound, match="has no version '1'"):
        await place.service.infer(
            InferRequest("a", "1", (Tensor("x", "FP32", np.ones((1, 1), np.float32)),)), context()
        )


async def test_one_that_is_out_is_ready_and_describes_itself(place: Place) -> None:
    await place.load("a")
    before = (place.service.model_metadata("a", None), place.service.model_config("a", "1"))
    await place.load("b", "c")
    assert place.evicted == {"a"}
    assert place.service.is_model_ready("a", None)
    assert place.service.is_model_ready("a", "1")
    after = (place.service.model_metadata("a", None), place.service.model_config("a", "1"))
    assert after == before
    entry = place.service.repository_index(ready_only=False)[0]
    assert (entry.name, entry.state) == ("a", "UNAVAILABLE")
    assert entry.reason == "made room for another, loaded when asked for"
    assert place.loads.opened == ["a", "b", "c"], "describing loads nothing"


# Measuring


class Rooms:
    """A residency over memory that the test moves by hand."""

    def __init__(self, limit: int) -> None:
        self.memory = Memory(0)
        self.clock = Clock()
        self.sizes: dict[str, int] = {}
        self.residency = Residency(limit, lambda key: False, self._evict, self.clock, self.memory)

    async def _evict(self, key: tuple[str, str]) -> None:
        self.memory.used -= self.sizes.pop(key[0])

    async def come(self, model: str, size: int, meanwhile: int = 0, path: Path = Path()) -> None:
        self.clock.now += 1
        source = ModelSource.of(model, "1", path, "gate", ModelOptions())
        async with self.residency.room_for(source):
            self.sizes[model] = size
            self.memory.used += size + meanwhile


async def test_a_guess_that_was_too_low_is_made_good_after_the_load() -> None:
    rooms = Rooms(100 * MIB)
    await rooms.come("a", 60 * MIB)
    await rooms.come("b", 60 * MIB)  # guessed at 1 MiB
    assert rooms.residency.evicted == {("a", "1")}
    assert rooms.memory.used == 60 * MIB


async def test_the_second_time_room_is_made_before_the_load() -> None:
    rooms = Rooms(100 * MIB)
    for model in ("a", "b", "a"):
        await rooms.come(model, 60 * MIB)
    most: list[int] = []
    source = ModelSource.of("b", "1", Path(), "gate", ModelOptions())
    async with rooms.residency.room_for(source):
        most.append(rooms.memory.used)
    assert most == [0]


async def test_memory_that_somebody_else_gave_back_meanwhile_does_not_hide_a_model(
    tmp_path: Path,
) -> None:
    path = tmp_path / "m"
    path.write_bytes(bytes(3 * MIB))
    rooms = Rooms(100 * MIB)
    rooms.memory.used = 500 * MIB
    await rooms.come("a", 40 * MIB, meanwhile=-200 * MIB, path=path)
    assert rooms.residency.sizes[("a", "1")] == 3 * MIB
    await rooms.come("b", 0)
    assert rooms.residency.sizes[("b", "1")] == LEAST_BYTES


async def test_what_others_took_while_it_was_loaded_does_not_keep_a_version_out_for_good() -> None:
    rooms = Rooms(100 * MIB)
    await rooms.come("a", 10 * MIB, meanwhile=200 * MIB)
    assert rooms.residency.sizes[("a", "1")] == 210 * MIB
    await rooms.come("b", 60 * MIB)
    assert rooms.residency.evicted == {("a", "1")}
    await rooms.come("a", 10 * MIB)
    assert rooms.residency.sizes == {("a", "1"): 10 * MIB, ("b", "1"): 60 * MIB}


async def test_a_version_that_was_above_the_limit_twice_is_refused_before_anybody_goes() -> None:
    rooms = Rooms(100 * MIB)
    for model in ("a", "b", "a", "c"):
        await rooms.come(model, 210 * MIB if model == "a" else 60 * MIB)
    with pytest.raises(Unavailable, match="'a' needs about 210 MiB"):
        await rooms.come("a", 210 * MIB)
    assert rooms.residency.sizes == {("c", "1"): 60 * MIB}


async def test_a_load_that_fails_takes_no_share() -> None:
    rooms = Rooms(100 * MIB)
    source = ModelSource.of("a", "1", Path(), "gate", ModelOptions())
    with pytest.raises(Corrupt):
        async with rooms.residency.room_for(source):
            raise Corrupt("broken")
    assert not rooms.residency.sizes
    await rooms.come("b", 60 * MIB)
    assert rooms.residency.sizes == {("b", "1"): 60 * MIB}


async def test_memory_really_comes_back_when_models_make_room(tmp_path: Path) -> None:
    """Ratios only: how much a model of 30 MB takes differs between versions and machines."""
    weights = np.random.default_rng(1).standard_normal((2740, 2740), dtype=np.float32)  # 30 MB
    paths = {name: onnx_models.linear(tmp_path / f"{name}.onnx", weights) for name in "abc"}
    paths["tiny"] = onnx_models.identity(tmp_path / "tiny.onnx", "FP32")
    del weights
    trim_heap()
    options = ModelOptions(max_batch_size=1)
    sources = [ModelSource.of(name, "1", path, "onnx", options) for name, path in paths.items()]
    engine = Engine(EngineOptions(threads=1, max_model_bytes=1 << 40))
    service = EngineService(engine, sources, version="test")
    x = Tensor("x", "FP32", np.ones((1, 2740), np.float32))
    empty = data_bytes()
    answers = []
    for model in "abc":
        await service.load_model(model, {}, context())
        answers.append(await service.infer(InferRequest(model, None, (x,)), context()))
    taken = data_bytes() - empty
    assert taken > 3 * 28 * MIB
    sizes = engine.residency.sizes
    assert sum(sizes.values()) == pytest.approx(taken, rel=0.5)

    engine.residency.limit_bytes = 4 * MIB
    await service.load_model("tiny", {}, context())
    assert engine.loaded == (("tiny", "1"),)
    assert data_bytes() - empty < 0.4 * taken
    engine.residency.limit_bytes = 1 << 40
    answers.append(await service.infer(InferRequest("a", None, (x,)), context()))
    outputs = [answer.response.outputs[0].data for answer in answers]
    assert all(np.array_equal(outputs[0], other) for other in outputs)
    await engine.close()
