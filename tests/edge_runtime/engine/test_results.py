from __future__ import annotations

import asyncio
import gc
import random
import sys
import traceback
import tracemalloc
import weakref
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from edge_runtime.engine.results import (
    ENTRY_BYTES,
    LARGEST_SHARE,
    TENSOR_BYTES,
    Found,
    ResultCache,
    ResultCounts,
    result_key,
)
from edge_runtime.errors import DeadlineExceeded, InvalidInput, Overloaded
from edge_runtime.protocol.binary import bytes_array
from edge_runtime.protocol.datatypes import NUMPY
from edge_runtime.protocol.types import Array, Tensor
from tests.clock import Clock
from tests.edge_runtime.engine.gate import later

Outputs = tuple[Tensor, ...]
MIB = 2**20
TTL_S = 10.0


def key_of(number: int, model: str = "m", version: str = "1") -> bytes:
    return result_key(model, version, (Tensor("x", "INT64", np.array([number])),), ("y",))


def answer(value: float, size: int = 1) -> Outputs:
    return (Tensor("y", "FP32", np.full(size, value, dtype=np.float32)),)


def giving(outputs: Outputs) -> Callable[[], Awaitable[Outputs]]:
    async def compute() -> Outputs:
        return outputs

    return compute


async def never() -> Outputs:
    raise AssertionError("nothing should be computed")


def value_of(found: Found) -> float:
    return float(found.outputs[0].data[0])


@pytest.fixture
def clock() -> Clock:
    return Clock(100.0)


@pytest.fixture
async def cache(clock: Clock) -> AsyncIterator[ResultCache]:
    """A cache with room; no task, no computation and no unheard error may be left at the end."""
    unheard: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: unheard.append(context))
    made = ResultCache(MIB, clock)
    yield made
    await asyncio.sleep(0)  # tasks that are done leave the loop in its next turn
    assert asyncio.all_tasks() == {asyncio.current_task()}
    assert not made._flights
    gc.collect()
    assert unheard == []


class Caller:
    """A caller of `get` whose computation ends when the test says so."""

    def __init__(
        self,
        cache: ResultCache,
        key: bytes,
        *,
        seconds: float = 60.0,
        ttl_s: float = TTL_S,
        compute: Callable[[], Awaitable[Outputs]] | None = None,
    ) -> None:
        self.result: asyncio.Future[Outputs] = asyncio.get_running_loop().create_future()
        self.begun = 0
        self.task = asyncio.create_task(
            cache.get(key, ttl_s, compute or self.compute, later(seconds))
        )

    @property
    def is_computing(self) -> bool:
        return self.begun > 0 and not self.task.done()

    async def compute(self) -> Outputs:
        self.begun += 1
        return await self.result

    async def outcome(self) -> Found | BaseException:
        (found,) = await asyncio.gather(self.task, return_exceptions=True)
        return found


async def callers(cache: ResultCache, count: int, key: bytes | None = None) -> list[Caller]:
    """Start callers of one key, in this order; the first of them computes."""
    started = [Caller(cache, key or key_of(1)) for _ in range(count)]
    await turns()
    assert [caller.begun for caller in started] == [1] + [0] * (count - 1)
    return started


async def turns(count: int = 5) -> None:
    """Let everybody who can go on do so."""
    for _ in range(count):
        await asyncio.sleep(0)


class StandingLoop(asyncio.SelectorEventLoop):
    """An event loop whose time a test sets."""

    def __init__(self, clock: Clock) -> None:
        self._standing = clock
        super().__init__()

    def time(self) -> float:
        return self._standing()


@pytest.fixture
def runner(clock: Clock) -> Iterator[asyncio.Runner]:
    """What runs a test's coroutines on a loop that has the time of `clock`."""
    with asyncio.Runner(loop_factory=lambda: StandingLoop(clock)) as made:
        yield made


# Keeping


async def test_an_answer_is_computed_once_and_then_found_with_its_age(
    cache: ResultCache, clock: Clock
) -> None:
    first = await cache.get(key_of(1), TTL_S, giving(answer(7.0)), later())
    clock.now += 4.0
    second = await cache.get(key_of(1), TTL_S, never, later())
    assert (first.how, first.age_s, second.how, second.age_s) == ("computed", 0.0, "hit", 4.0)
    assert value_of(first) == value_of(second) == 7.0


async def test_an_expired_answer_is_computed_anew_and_served_as_stale_until_then(
    cache: ResultCache, clock: Clock
) -> None:
    await cache.get(key_of(1), TTL_S, giving(answer(1.0)), later())
    clock.now += TTL_S
    old = cache.stale(key_of(1))
    assert old is not None
    assert (old.outputs[0].data.tolist(), old.age_s) == ([1.0], TTL_S)
    found = await cache.get(key_of(1), TTL_S, giving(answer(2.0)), later())
    assert (found.how, value_of(found)) == ("computed", 2.0)
    fresh = cache.stale(key_of(1))
    assert fresh is not None
    assert fresh.age_s == 0.0


async def test_without_a_time_to_live_nothing_is_found_but_all_is_there_as_stale(
    cache: ResultCache,
) -> None:
    for value in 1.0, 2.0:
        found = await cache.get(key_of(1), 0.0, giving(answer(value)), later())
        assert (found.how, value_of(found)) == ("computed", value)
    assert cache.stale(key_of(1)) is not None


async def test_a_cached_answer_is_there_for_a_caller_whose_time_is_over(cache: ResultCache) -> None:
    await cache.get(key_of(1), TTL_S, giving(answer(1.0)), later())
    assert (await cache.get(key_of(1), TTL_S, never, later(-1.0))).how == "hit"
    with pytest.raises(DeadlineExceeded, match="model 'm'"):
        await cache.get(key_of(2), TTL_S, never, later(-1.0))


async def test_what_was_not_used_for_longest_makes_room(clock: Clock) -> None:
    size = ENTRY_BYTES + len(key_of(1)) + TENSOR_BYTES + 4
    cache = ResultCache(4 * size, clock)
    for number in 1, 2, 3, 4:
        await cache.get(key_of(number), TTL_S, giving(answer(number)), later())
    await cache.get(key_of(1), TTL_S, never, later())
    cache.stale(key_of(2))
    await cache.get(key_of(5), TTL_S, giving(answer(5)), later())
    seen = cache.statistics()
    assert (seen.entries, seen.size_bytes, seen.evictions) == (4, 4 * size, 1)
    assert [number for number in range(1, 6) if cache.stale(key_of(number))] == [1, 2, 4, 5]


async def test_another_version_never_answers(cache: ResultCache) -> None:
    await cache.get(key_of(1, version="1"), TTL_S, giving(answer(1.0)), later())
    assert cache.stale(key_of(1, version="2")) is None
    found = await cache.get(key_of(1, version="2"), TTL_S, giving(answer(2.0)), later())
    assert found.how == "computed"


async def test_forgetting_a_version_drops_its_answers_and_counts_and_no_others(
    cache: ResultCache,
) -> None:
    names = [("m", "1"), ("m", "11"), ("m1", "1"), ("", "m1")]
    for model, version in names:
        await cache.get(key_of(1, model, version), TTL_S, giving(answer(1.0)), later())
    cache.forget("m", "1")
    kept = [name for name in names if cache.stale(key_of(1, *name)) is not None]
    assert kept == names[1:]
    assert [(c.model, c.version) for c in cache.statistics().models] == names[1:]


@pytest.mark.parametrize("forget", [lambda cache: cache.forget("m", "1"), ResultCache.clear])
async def test_what_is_computed_while_its_version_is_forgotten_is_given_but_not_kept(
    cache: ResultCache, forget: Callable[[ResultCache], None]
) -> None:
    old = await callers(cache, 2)
    forget(cache)
    new = await callers(cache, 1)
    old[0].result.set_result(answer(1.0))
    found = [await caller.task for caller in old]
    assert [f.how for f in found] == ["computed", "shared"]
    assert not found[0].outputs[0].data.flags.writeable
    assert cache.statistics().entries == 0
    new[0].result.set_result(answer(2.0))
    await new[0].task
    assert value_of(await cache.get(key_of(1), TTL_S, never, later())) == 2.0


async def test_clearing_drops_answers_and_keeps_counts(cache: ResultCache) -> None:
    await cache.get(key_of(1), TTL_S, giving(answer(1.0)), later())
    cache.clear()
    seen = cache.statistics()
    assert (seen.entries, seen.size_bytes) == (0, 0)
    assert seen.models == (ResultCounts("m", "1", hits=0, shared=0, misses=1, stale=0),)


async def test_counts_are_by_model_and_a_snapshot_does_not_change(cache: ResultCache) -> None:
    before = cache.statistics()
    for key in key_of(1), key_of(1), key_of(2), key_of(1, "n"):
        await cache.get(key, TTL_S, giving(answer(1.0)), later())
    cache.stale(key_of(1))
    cache.stale(key_of(99))
    (leader, *waiting) = await callers(cache, 3, key_of(5, "n"))
    leader.result.set_result(answer(1.0))
    await asyncio.gather(leader.task, *(caller.task for caller in waiting))
    assert cache.statistics().models == (
        ResultCounts("m", "1", hits=1, shared=0, misses=2, stale=1),
        ResultCounts("n", "1", hits=0, shared=2, misses=2, stale=0),
    )
    assert before.models == ()


# Whose the arrays are


async def test_nobody_can_write_to_an_answer(cache: ResultCache) -> None:
    whole = np.zeros((4, 3), dtype=np.float32)
    outputs = (
        Tensor("own", "FP32", np.zeros(3, dtype=np.float32)),
        Tensor("slice", "FP32", whole[1]),
        Tensor("scalar", "FP32", np.array(1.0, dtype=np.float32)),
        Tensor("text", "BYTES", bytes_array([b"a"], (1,))),
    )
    found = await cache.get(key_of(1), TTL_S, giving(outputs), later())
    whole[:] = 9.0
    again = await cache.get(key_of(1), TTL_S, never, later())
    for tensor in (*found.outputs, *again.outputs):
        with pytest.raises(ValueError, match="read-only"):
            tensor.data[...] = tensor.data
    assert [t.data.tolist() for t in again.outputs] == [[0.0] * 3, [0.0] * 3, 1.0, [b"a"]]


async def test_an_answer_too_large_to_keep_is_read_only_too(cache: ResultCache) -> None:
    outputs = answer(1.0, MIB // 4)
    found = await cache.get(key_of(1), TTL_S, giving(outputs), later())
    assert found.outputs == outputs
    assert not outputs[0].data.flags.writeable
    assert cache.statistics().entries == 0


async def test_a_cut_of_a_batch_does_not_keep_the_batch_alive(cache: ResultCache) -> None:
    batch = np.zeros((8, 16), dtype=np.float32)
    gone = weakref.ref(batch)
    outputs = (Tensor("y", "FP32", batch[2:3]),)
    found = await cache.get(key_of(1), TTL_S, giving(outputs), later())
    del batch, outputs
    assert gone() is None
    assert found.outputs[0].data.shape == (1, 16)


@pytest.mark.parametrize("datatype", ["FP32", "BYTES"])
async def test_the_size_counted_is_the_memory_taken(clock: Clock, datatype: str) -> None:
    cache = ResultCache(100 * MIB, clock)

    async def compute() -> Outputs:
        if datatype == "BYTES":
            data: Array = bytes_array([bytes(100 + i) for i in range(20)], (20,))
        else:
            data = np.zeros(64, dtype=np.float32)
        return (Tensor("y", datatype, data), Tensor("z", datatype, data.copy()))

    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        for number in range(1500):
            await cache.get(key_of(number), TTL_S, compute, later())
        after, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    # The elements of BYTES are in both tensors here, and counted in both.
    shared = 1500 * sum(sys.getsizeof(bytes(100 + i)) for i in range(20))
    counted = cache.statistics().size_bytes - (shared if datatype == "BYTES" else 0)
    assert counted == pytest.approx(after - before, rel=0.2)


# Many callers at a time


async def test_many_who_ask_at_once_share_one_computation(cache: ResultCache, clock: Clock) -> None:
    first, *others = await callers(cache, 100)
    clock.now += 3.0  # of the computation: an answer is new when it is there
    first.result.set_result(answer(5.0))
    found = [await caller.task for caller in (first, *others)]
    assert Counter(f.how for f in found) == {"computed": 1, "shared": 99}
    assert {id(f.outputs) for f in found} == {id(found[0].outputs)}
    assert {f.age_s for f in found} == {0.0}
    assert sum(caller.begun for caller in others) == 0
    (counts,) = cache.statistics().models
    assert (counts.misses, counts.shared, counts.hits) == (1, 99, 0)


async def test_different_questions_do_not_wait_for_each_other(cache: ResultCache) -> None:
    (slow,) = await callers(cache, 1, key_of(1))
    assert (await cache.get(key_of(2), TTL_S, giving(answer(2.0)), later())).how == "computed"
    slow.result.set_result(answer(1.0))
    await slow.task


async def test_who_accepts_an_older_answer_gets_it_while_others_compute(
    cache: ResultCache, clock: Clock
) -> None:
    await cache.get(key_of(1), TTL_S, giving(answer(1.0)), later())
    clock.now += TTL_S
    (renewing,) = await callers(cache, 1)
    assert (await cache.get(key_of(1), 2 * TTL_S, never, later())).how == "hit"
    renewing.result.set_result(answer(2.0))
    await renewing.task


async def test_when_the_one_that_computes_is_cancelled_the_next_computes(
    cache: ResultCache,
) -> None:
    first, second, third = await callers(cache, 3)
    first.task.cancel()
    await turns()
    assert first.task.cancelled()
    assert (second.begun, third.begun) == (1, 0)
    second.result.set_result(answer(2.0))
    assert (await second.task).how == "computed"
    found = await third.task
    assert (found.how, value_of(found)) == ("shared", 2.0)


async def test_an_heir_cancelled_before_it_could_begin_hands_on(cache: ResultCache) -> None:
    first, second, third = await callers(cache, 3)
    first.task.cancel()
    await asyncio.sleep(0)
    assert first.task.done()
    assert second.begun == 0
    second.task.cancel()
    third.result.set_result(answer(3.0))
    assert (await third.task).how == "computed"
    assert (second.task.cancelled(), second.begun) == (True, 0)


async def test_when_the_last_is_cancelled_the_next_to_come_computes(cache: ResultCache) -> None:
    pair = await callers(cache, 2)
    for caller in reversed(pair):
        caller.task.cancel()
    await asyncio.wait([caller.task for caller in pair])
    assert (await cache.get(key_of(1), TTL_S, giving(answer(1.0)), later())).how == "computed"


@pytest.mark.parametrize(
    "refusal", [DeadlineExceeded("late"), Overloaded("no", details={"reason": "deadline"})]
)
async def test_a_refusal_for_the_deadline_of_one_is_not_shared(
    cache: ResultCache, refusal: Exception
) -> None:
    first, second = await callers(cache, 2)
    first.result.set_exception(refusal)
    assert await first.outcome() is refusal
    second.result.set_result(answer(2.0))
    assert (await second.task).how == "computed"


async def test_a_caller_that_waits_and_is_cancelled_disturbs_nobody(cache: ResultCache) -> None:
    first, second, third = await callers(cache, 3)
    second.task.cancel()
    await turns()
    assert second.task.cancelled()
    first.result.set_result(answer(1.0))
    assert (await third.task).how == "shared"
    assert (await first.task).how == "computed"


@pytest.mark.parametrize(
    "error",
    [
        InvalidInput("not for this model"),
        Overloaded("full", details={"reason": "queue_full"}),
        RuntimeError("broken"),
        TimeoutError("of something inside"),
    ],
)
async def test_an_error_reaches_all_who_wait_and_is_not_kept(
    cache: ResultCache, error: Exception
) -> None:
    started = await callers(cache, 4)
    started[0].result.set_exception(error)
    assert [await caller.outcome() for caller in started] == [error] * 4
    assert cache.statistics().entries == 0
    assert (await cache.get(key_of(1), TTL_S, giving(answer(1.0)), later())).how == "computed"


async def test_an_answer_that_is_none_is_an_error_for_all(cache: ResultCache) -> None:
    started = await callers(cache, 2)
    started[0].result.set_result(None)  # type: ignore[arg-type]
    assert [type(await caller.outcome()) for caller in started] == [TypeError, TypeError]


async def test_an_error_that_many_get_does_not_grow_with_each(cache: ResultCache) -> None:
    started = await callers(cache, 50)
    started[0].result.set_exception(RuntimeError("broken"))
    errors = [await caller.outcome() for caller in started]
    assert isinstance(errors[-1], RuntimeError)
    assert len(traceback.extract_tb(errors[-1].__traceback__)) < 10


async def test_an_old_answer_outlives_a_failure_to_renew_it(
    cache: ResultCache, clock: Clock
) -> None:
    await cache.get(key_of(1), TTL_S, giving(answer(1.0)), later())
    clock.now += 3 * TTL_S
    (renewing,) = await callers(cache, 1)
    renewing.result.set_exception(RuntimeError("no device"))
    assert isinstance(await renewing.outcome(), RuntimeError)
    old = cache.stale(key_of(1))
    assert old is not None
    assert old.age_s == 3 * TTL_S


@pytest.mark.parametrize("way", ["error", "cancelled", "deadline"])
async def test_whatever_fails_leaves_nothing_for_the_garbage_collector(
    cache: ResultCache, way: str
) -> None:
    async def fail(large: Array) -> Outputs:
        if way == "error":
            await asyncio.sleep(0)
            raise RuntimeError(str(large.shape))
        return await asyncio.get_running_loop().create_future()  # type: ignore[no-any-return]

    async def ask() -> weakref.ref[Array]:
        large = np.zeros(1000)

        async def compute(large: Array = large) -> Outputs:
            return await fail(large)

        tasks = [
            asyncio.create_task(
                cache.get(key_of(1), TTL_S, compute, later(0.01 if way == "deadline" else 60.0))
            )
            for _ in range(3)
        ]
        if way == "cancelled":
            await turns()
            for task in tasks:
                task.cancel()
        found = await asyncio.gather(*tasks, return_exceptions=True)
        assert not any(isinstance(outcome, Found) for outcome in found)
        return weakref.ref(large)

    gc.collect()
    gc.disable()
    try:
        gone = await ask()
        await turns()
        assert gone() is None
    finally:
        gc.enable()


async def test_whatever_happens_each_caller_ends_and_nothing_is_left(cache: ResultCache) -> None:
    seed = 20_262
    rng = random.Random(seed)
    running: Counter[bytes] = Counter()
    keys = [key_of(number) for number in range(3)]
    is_forgotten = False

    def ask(key: bytes) -> asyncio.Task[Found]:
        async def compute() -> Outputs:
            running[key] += 1
            assert running[key] == 1 or is_forgotten, f"seed {seed}: two at a time"
            try:
                for _ in range(rng.randrange(4)):
                    await asyncio.sleep(rng.choice([0, 0.001]))
                match rng.randrange(8):
                    case 0:
                        raise InvalidInput("no")
                    case 1:
                        raise RuntimeError("broken")
                return answer(float(keys.index(key)))
            finally:
                running[key] -= 1

        seconds = rng.choice([0.001, 0.003, 60.0])
        ttl_s = rng.choice([0.0, 0.0, TTL_S])
        return asyncio.create_task(cache.get(key, ttl_s, compute, later(seconds)), name=str(number))

    asked: list[tuple[bytes, asyncio.Task[Found]]] = []
    for number in range(1500):
        key = rng.choice(keys)
        asked.append((key, ask(key)))
        match rng.randrange(8):
            case 0 | 1:
                rng.choice(asked[-20:])[1].cancel()
            case 2:
                await asyncio.sleep(0.001)
            case 3 | 4:
                await asyncio.sleep(0)
        if number == 1400:
            is_forgotten = True
        if is_forgotten and number % 10 == 0:
            cache.forget("m", "1")
    found = await asyncio.gather(*(task for _, task in asked), return_exceptions=True)
    kinds: Counter[str] = Counter()
    for (key, _), outcome in zip(asked, found, strict=True):
        if isinstance(outcome, Found):
            assert value_of(outcome) == keys.index(key), f"seed {seed}"
            kinds[outcome.how] += 1
        else:
            kinds[type(outcome).__name__] += 1
    outcomes = {"hit", "shared", "computed", "InvalidInput", "RuntimeError"}
    assert set(kinds) <= outcomes | {"DeadlineExceeded", "CancelledError"}, f"seed {seed}: {kinds}"
    assert kinds["shared"] > 0
    assert running.total() == 0


# Deadlines


def test_when_the_deadline_of_the_one_that_computes_ends_the_next_computes(
    runner: asyncio.Runner, clock: Clock
) -> None:
    async def ask() -> None:
        cache = ResultCache(MIB, clock)
        first, second = Caller(cache, key_of(1), seconds=1.0), Caller(cache, key_of(1))
        await turns()
        clock.now += 1.0
        assert isinstance(await first.outcome(), DeadlineExceeded)
        second.result.set_result(answer(2.0))
        found = await second.task
        assert (found.how, value_of(found), first.begun, second.begun) == ("computed", 2.0, 1, 1)

    runner.run(ask())


def test_who_waits_keeps_to_its_own_deadline_and_the_computation_goes_on(
    runner: asyncio.Runner, clock: Clock
) -> None:
    async def ask() -> None:
        cache = ResultCache(MIB, clock)
        first, hasty, patient = (Caller(cache, key_of(1), seconds=s) for s in (9.0, 1.0, 9.0))
        await turns()
        clock.now += 1.0
        assert isinstance(await hasty.outcome(), DeadlineExceeded)
        assert first.is_computing
        first.result.set_result(answer(1.0))
        assert [(await caller.task).how for caller in (first, patient)] == ["computed", "shared"]
        assert (hasty.begun, patient.begun) == (0, 0)

    runner.run(ask())


def test_an_answer_in_the_moment_of_a_deadline_is_given(
    runner: asyncio.Runner, clock: Clock
) -> None:
    async def ask() -> None:
        cache = ResultCache(MIB, clock)
        first, hasty = Caller(cache, key_of(1), seconds=2.0), Caller(cache, key_of(1), seconds=1.0)
        await turns()
        first.result.set_result(answer(1.0))
        clock.now += 1.0
        assert [(await caller.task).how for caller in (first, hasty)] == ["computed", "shared"]

    runner.run(ask())


def test_an_heir_whose_own_deadline_ends_in_that_moment_does_not_begin(
    runner: asyncio.Runner, clock: Clock
) -> None:
    async def ask() -> None:
        cache = ResultCache(MIB, clock)
        first, heir = Caller(cache, key_of(1), seconds=2.0), Caller(cache, key_of(1), seconds=1.0)
        await turns()
        first.task.cancel()
        clock.now += 1.0
        assert isinstance(await heir.outcome(), DeadlineExceeded)
        assert (first.task.cancelled(), heir.begun) == (True, 0)

    runner.run(ask())


def test_an_error_that_the_end_of_the_time_brings_about_is_not_shared(
    runner: asyncio.Runner, clock: Clock
) -> None:
    async def ask() -> None:
        cache = ResultCache(MIB, clock)

        async def compute() -> Outputs:
            try:
                return await first.result
            except asyncio.CancelledError:
                raise RuntimeError("the device was in the middle of it") from None

        first = Caller(cache, key_of(1), seconds=1.0, compute=compute)
        second = Caller(cache, key_of(1))
        await turns()
        clock.now += 1.0
        assert isinstance(await first.outcome(), DeadlineExceeded)
        second.result.set_result(answer(2.0))
        assert (await second.task).how == "computed"

    runner.run(ask())


# Against a slow cache and slow callers


VERSIONS = [("a", "1"), ("a", "2")]
KEYS = [key_of(number, *name) for name in VERSIONS for number in range(4)]
CAPACITY = 6000


@dataclass
class SlowCache:
    """The same cache as a list, least recently used first: key, when computed, size, value."""

    kept: list[tuple[bytes, float, int, float]] = field(default_factory=list)
    counts: dict[bytes, Counter[str]] = field(
        default_factory=lambda: {key: Counter() for key in KEYS}
    )
    evictions: int = 0

    def find(self, key: bytes) -> tuple[bytes, float, int, float] | None:
        return next((entry for entry in self.kept if entry[0] == key), None)

    def touch(self, key: bytes) -> None:
        self.kept.sort(key=lambda entry: entry[0] == key)

    def put(self, key: bytes, now: float, size: int, value: float) -> None:
        if size > CAPACITY / LARGEST_SHARE:
            return
        self.kept = [*(entry for entry in self.kept if entry[0] != key), (key, now, size, value)]
        while sum(entry[2] for entry in self.kept) > CAPACITY:
            del self.kept[0]
            self.evictions += 1


class CacheMachine(RuleBasedStateMachine):
    """Every sequence of questions, of time passing and of dropping is as in the slow cache."""

    def __init__(self) -> None:
        super().__init__()
        self.clock = Clock()
        self.cache = ResultCache(CAPACITY, self.clock)
        self.slow = SlowCache()
        self.value = 0.0
        self.runner = asyncio.Runner()

    def teardown(self) -> None:
        self.runner.close()

    def get(self, key: bytes, ttl_s: float, compute: Callable[[], Awaitable[Outputs]]) -> Found:
        return self.runner.run(self.cache.get(key, ttl_s, compute, float("inf")))

    @rule(
        keys=st.lists(st.sampled_from(KEYS), min_size=1, max_size=8),
        ttl_s=st.sampled_from([0.0, 1.0, 5.0]),
        count=st.sampled_from([1, 100, 200, 2000]),
    )
    def ask_for_some(self, keys: list[bytes], ttl_s: float, count: int) -> None:
        for key in keys:
            self.ask(key, ttl_s, count)

    def ask(self, key: bytes, ttl_s: float, count: int) -> None:
        self.value += 1
        known = self.slow.find(key)
        found = self.get(key, ttl_s, giving(answer(self.value, count)))
        if known is not None and self.clock() - known[1] < ttl_s:
            assert (found.how, value_of(found)) == ("hit", known[3])
            assert found.age_s == self.clock() - known[1]
            self.slow.touch(key)
            self.slow.counts[key]["hits"] += 1
        else:
            assert (found.how, value_of(found), found.age_s) == ("computed", self.value, 0.0)
            size = ENTRY_BYTES + len(key) + TENSOR_BYTES + 4 * count
            self.slow.put(key, self.clock(), size, self.value)
            self.slow.counts[key]["misses"] += 1

    @rule(key=st.sampled_from(KEYS))
    def fail(self, key: bytes) -> None:
        async def compute() -> Outputs:
            raise InvalidInput("no")

        with pytest.raises(InvalidInput):
            self.get(key, 0.0, compute)
        self.slow.counts[key]["misses"] += 1

    @rule(seconds=st.sampled_from([0.5, 1.0, 4.0]))
    def wait(self, seconds: float) -> None:
        self.clock.now += seconds

    @rule(key=st.sampled_from(KEYS))
    def stale(self, key: bytes) -> None:
        cached, known = self.cache.stale(key), self.slow.find(key)
        if known is None:
            assert cached is None
            return
        assert cached is not None
        assert (cached.outputs[0].data[0], cached.age_s) == (known[3], self.clock() - known[1])
        self.slow.touch(key)
        self.slow.counts[key]["stale"] += 1

    @rule(name=st.sampled_from(VERSIONS))
    def forget(self, name: tuple[str, str]) -> None:
        self.cache.forget(*name)
        keys = KEYS[4 * VERSIONS.index(name) :][:4]
        self.slow.kept = [entry for entry in self.slow.kept if entry[0] not in keys]
        for key in keys:
            self.slow.counts[key].clear()

    @rule()
    def clear(self) -> None:
        self.cache.clear()
        self.slow.kept.clear()

    @invariant()
    def it_is_as_the_slow_one(self) -> None:
        seen = self.cache.statistics()
        assert seen.entries == len(self.slow.kept)
        assert seen.size_bytes == sum(entry[2] for entry in self.slow.kept) <= CAPACITY
        assert seen.evictions == self.slow.evictions
        assert list(self.cache._entries) == [entry[0] for entry in self.slow.kept]
        by_name = {(c.model, c.version): c for c in seen.models}
        for index, name in enumerate(VERSIONS):
            total = sum((self.slow.counts[key] for key in KEYS[4 * index :][:4]), Counter())
            counts = by_name.get(name, ResultCounts(*name, 0, 0, 0, 0))
            assert counts == ResultCounts(*name, total["hits"], 0, total["misses"], total["stale"])


CacheMachine.TestCase.settings = settings(max_examples=40, stateful_step_count=40, deadline=None)
TestCacheMachine = CacheMachine.TestCase


@dataclass(eq=False)
class SlowCaller:
    """What a caller should find: its deadline, computations begun, and in the end its outcome."""

    deadline: float
    begun: int = 0
    outcome: object = None


class CallersMachine(RuleBasedStateMachine):
    """Callers in a row for each question: the first computes, and whatever ends it, no other.

    The first of a row ends with all of it, or leaves it to the others.
    """

    def __init__(self) -> None:
        super().__init__()
        self.clock = Clock()
        self.loop = StandingLoop(self.clock)
        self.unheard: list[dict[str, Any]] = []
        self.loop.set_exception_handler(lambda _, context: self.unheard.append(context))
        self.cache = ResultCache(0, self.clock)
        self.rows: dict[int, list[tuple[Caller, SlowCaller]]] = {0: [], 1: []}
        self.all: list[tuple[Caller, SlowCaller]] = []

    def settle(self) -> None:
        self.loop.run_until_complete(turns(8))
        for row in self.rows.values():
            row[:] = [pair for pair in row if pair[1].outcome is None]
            if row:
                row[0][1].begun = 1

    def teardown(self) -> None:
        for caller, _ in self.all:
            caller.task.cancel()
        self.settle()
        assert not self.cache._flights
        assert not asyncio.all_tasks(self.loop)
        self.all.clear()
        self.rows.clear()
        assert self.unheard == []
        self.loop.close()

    @rule(number=st.sampled_from([0, 1]), seconds=st.sampled_from([1.0, 2.0, 3.0]))
    def ask(self, number: int, seconds: float) -> None:
        async def start() -> Caller:
            return Caller(self.cache, key_of(number), seconds=seconds, ttl_s=0.0)

        pair = (self.loop.run_until_complete(start()), SlowCaller(self.clock() + seconds))
        self.rows[number].append(pair)
        self.all.append(pair)
        self.settle()

    @precondition(lambda self: any(self.rows.values()))
    @rule(
        data=st.data(),
        error=st.sampled_from([InvalidInput("no"), RuntimeError("broken"), DeadlineExceeded("x")]),
    )
    def fail(self, data: st.DataObject, error: Exception) -> None:
        row = self.row(data)
        row[0][0].result.set_exception(error)
        for _, slow in row[:1] if isinstance(error, DeadlineExceeded) else row:
            slow.outcome = error
        self.settle()

    @precondition(lambda self: any(self.rows.values()))
    @rule(data=st.data())
    def give(self, data: st.DataObject) -> None:
        row = self.row(data)
        row[0][0].result.set_result(answer(1.0))
        for _, slow in row:
            slow.outcome = "shared"
        row[0][1].outcome = "computed"
        self.settle()

    @precondition(lambda self: any(self.rows.values()))
    @rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        caller, slow = data.draw(st.sampled_from(self.row(data)))
        caller.task.cancel()
        slow.outcome = asyncio.CancelledError
        self.settle()

    @rule()
    def wait(self) -> None:
        self.clock.now += 1.0
        for row in self.rows.values():
            for _, slow in row:
                if slow.deadline <= self.clock():
                    slow.outcome = DeadlineExceeded
        self.settle()

    def row(self, data: st.DataObject) -> list[tuple[Caller, SlowCaller]]:
        return data.draw(st.sampled_from([row for row in self.rows.values() if row]))

    @invariant()
    def all_are_as_the_slow_ones(self) -> None:
        for caller, slow in self.all:
            assert caller.begun == slow.begun
            assert caller.task.done() == (slow.outcome is not None)
            match slow.outcome:
                case None:
                    pass
                case str(how):
                    assert caller.task.result().how == how
                case Exception() as error:
                    assert caller.task.exception() is error
                case asyncio.CancelledError:
                    assert caller.task.cancelled()
                case _:
                    assert isinstance(caller.task.exception(), DeadlineExceeded)


CallersMachine.TestCase.settings = settings(max_examples=40, stateful_step_count=30, deadline=None)
TestCallersMachine = CallersMachine.TestCase


# Keys


@dataclass(frozen=True)
class Call:
    model: str
    version: str
    inputs: tuple[Tensor, ...]
    outputs: tuple[str, ...]

    @property
    def key(self) -> bytes:
        return result_key(self.model, self.version, self.inputs, self.outputs)

    @property
    def content(self) -> object:
        """All that an answer depends on, in full."""
        inputs = frozenset(
            (t.name, t.datatype, t.shape, tuple(t.data.flat) if t.datatype == "BYTES" else raw(t))
            for t in self.inputs
        )
        return self.model, self.version, inputs, self.outputs


def raw(tensor: Tensor) -> bytes:
    return np.ascontiguousarray(tensor.data).tobytes()


def tensors(name: str) -> st.SearchStrategy[Tensor]:
    """Tensors of few values, so that two are often nearly the same."""

    def make(datatype: str, shape: Sequence[int], seeds: Sequence[int]) -> Tensor:
        count = int(np.prod(shape))
        picked = [seeds[i % len(seeds)] for i in range(count)]
        if datatype == "BYTES":
            return Tensor(name, datatype, bytes_array([b"ab"[:n] for n in picked], shape))
        return Tensor(name, datatype, np.array(picked, dtype=NUMPY[datatype]).reshape(shape))

    return st.builds(
        make,
        st.sampled_from([*NUMPY]),
        st.lists(st.integers(0, 2), max_size=3),
        st.lists(st.integers(0, 2), min_size=1, max_size=4),
    )


names = st.sampled_from(["", "a", "b", "ab", "ä"])
calls = st.builds(
    Call,
    names,
    names,
    st.lists(names, max_size=3, unique=True).flatmap(
        lambda chosen: st.tuples(*(tensors(name) for name in chosen))
    ),
    st.lists(names, max_size=3).map(tuple),
)


@given(calls, calls)
@settings(max_examples=120, deadline=None)
def test_two_keys_are_equal_just_when_all_is_equal(one: Call, other: Call) -> None:
    assert (one.key == other.key) == (one.content == other.content)


@given(calls.filter(lambda call: len(call.inputs) > 0), st.data())
@settings(max_examples=120, deadline=None)
def test_any_one_change_changes_the_key(call: Call, data: st.DataObject) -> None:
    at = data.draw(st.integers(0, len(call.inputs) - 1))
    changed = data.draw(st.sampled_from([*changes(call, call.inputs[at])]))
    if isinstance(changed, Tensor):
        inputs = (*call.inputs[:at], changed, *call.inputs[at + 1 :])
        changed = replace(call, inputs=inputs)
    assert changed.key != call.key
    assert changed.content != call.content


def changes(call: Call, tensor: Tensor) -> list[Call | Tensor]:
    """Return a call, or one input of it, with one thing changed in each."""
    found: list[Call | Tensor] = [
        replace(call, model=call.model + "x"),
        replace(call, version=call.version + "x"),
        replace(call, outputs=(*call.outputs, "x")),
        replace(call, inputs=(*call.inputs, Tensor("x", "INT8", np.zeros(0, np.int8)))),
        replace(call, inputs=tuple(t for t in call.inputs if t is not tensor)),
        replace(tensor, name=tensor.name + "x"),
        replace(tensor, data=tensor.data[np.newaxis]),
    ]
    column = np.concatenate([tensor.data.reshape(-1)[:1]] * 9)[:, np.newaxis]
    if column.shape != tensor.data.shape:
        found.append(replace(tensor, data=column))
    if call.outputs[::-1] != call.outputs:
        found.append(replace(call, outputs=call.outputs[::-1]))
    if tensor.datatype == "BYTES":
        for index in range(tensor.data.size):
            data = tensor.data.copy()
            data.reshape(-1)[index] += b"x"
            found.append(replace(tensor, data=data))
        return found
    found += [
        replace(tensor, datatype=datatype, data=tensor.data.view(NUMPY[datatype]))
        for datatype in NUMPY
        if datatype not in ("BYTES", tensor.datatype)
        and NUMPY[datatype].itemsize == tensor.data.dtype.itemsize
    ]
    for index in range(tensor.data.nbytes):
        data = tensor.data.copy()
        data.reshape(-1).view(np.uint8)[index] ^= 128
        found.append(replace(tensor, data=data))
    return found


@given(calls, st.randoms(use_true_random=False))
@settings(max_examples=100, deadline=None)
def test_where_and_how_the_same_lies_in_memory_does_not_matter(
    call: Call, rng: random.Random
) -> None:
    inputs = [replace(tensor, data=rng.choice(layouts(tensor.data))) for tensor in call.inputs]
    rng.shuffle(inputs)
    assert replace(call, inputs=tuple(inputs)).key == call.key


def layouts(data: Array) -> list[Array]:
    """Return arrays of the same content."""
    wide = np.zeros((*data.shape, 3), dtype=data.dtype)
    wide[..., 1] = data
    turned = np.ascontiguousarray(data.T).T.reshape(data.shape)
    backwards = np.flip(np.flip(data).copy()) if data.ndim else data
    fixed = data.copy()
    fixed.flags.writeable = False
    return [
        wide[..., 1],
        turned,
        np.array(data, order="F"),
        backwards,
        fixed,
        data.astype(data.dtype.newbyteorder(">")),
    ]


def test_numbers_that_compare_equal_are_different_bytes() -> None:
    def key(value: float) -> bytes:
        return result_key("m", "1", (Tensor("x", "FP32", np.array([value], np.float32)),), ())

    assert key(0.0) != key(-0.0)
    assert key(np.nan) == key(np.nan)


def test_the_same_bits_of_another_type_than_the_datatype_says_are_something_else() -> None:
    numbers = np.ones(3, np.float32)
    keys = {
        result_key("m", "1", (Tensor("x", "FP32", data),), ())
        for data in (numbers, numbers.view(np.int32))
    }
    assert len(keys) == 2
