"""What a model registry promises when many processes and threads want the same thing."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import pytest

from cluster.registry import Action
from edge_runtime.errors import Conflict
from tests.children import race
from tests.contract.registries import (
    IMPLEMENTATIONS,
    OpenRegistry,
    entry,
    file_with,
    register,
)

PROCESSES = 6


@pytest.fixture(params=sorted(IMPLEMENTATIONS))
def open_registry(request: pytest.FixtureRequest) -> OpenRegistry:
    return IMPLEMENTATIONS[request.param]


def test_of_many_processes_that_register_a_version_one_wins(
    open_registry: OpenRegistry, tmp_path: Path
) -> None:
    root = tmp_path / "registry"
    sources = [
        file_with(tmp_path, bytes([number % 2]) * 50_000, f"{number}.onnx")
        for number in range(PROCESSES)
    ]

    def work(number: int) -> list[bool | None]:
        registry = open_registry(root)
        outcomes: list[bool | None] = []
        for version in range(5):
            try:
                register(registry, sources[number], version=str(version), actor=str(number))
                outcomes.append(None)
            except Conflict as lost:
                outcomes.append(lost.details["identical"] is True)
        return outcomes

    outcomes = race(PROCESSES, work)
    registry = open_registry(root)
    for version, found in enumerate(registry.versions("digits")):
        winners = [number for number in range(PROCESSES) if outcomes[number][version] is None]
        assert winners == [int(found.created_by)]
        path = registry.artifact_path(found.artifacts[0], verify=True)
        assert path.read_bytes() == sources[winners[0]].read_bytes()
        for number in set(range(PROCESSES)) - set(winners):
            assert outcomes[number][version] == (number % 2 == winners[0] % 2)
    assert [event.action for event in registry.history("digits")] == [Action.REGISTERED] * 5


def test_of_many_processes_that_move_an_alias_each_move_starts_where_the_last_ended(
    open_registry: OpenRegistry, tmp_path: Path
) -> None:
    root, source = tmp_path / "registry", file_with(tmp_path, b"weights")

    def prepare(_: int) -> None:
        registry = open_registry(root)
        for version in range(PROCESSES):
            register(registry, source, version=str(version))

    race(1, prepare)

    def work(number: int) -> int:
        registry, moves = open_registry(root), 0
        for _ in range(20):
            seen = registry.aliases("digits").get("production")
            with suppress(Conflict):
                registry.set_alias(
                    "digits", "production", str(number), expected=seen, actor=str(number)
                )
                moves += seen != str(number)
        return moves

    moves = race(PROCESSES, work)
    registry = open_registry(root)
    moved = [e for e in registry.history("digits") if e.action is Action.ALIAS_MOVED]
    assert len(moved) == sum(moves) > 0
    assert [e.previous for e in moved] == [None, *(e.version for e in moved[:-1])]
    assert registry.aliases("digits") == {"production": moved[-1].version}


def test_no_change_of_the_serving_table_is_lost_and_no_generation_given_twice(
    open_registry: OpenRegistry, tmp_path: Path
) -> None:
    root, source = tmp_path / "registry", file_with(tmp_path, b"weights")

    def work(number: int) -> list[int]:
        registry = open_registry(root)
        register(registry, source, f"model-{number}")
        return [registry.serve(entry(f"model-{number}")) for _ in range(10)]

    given = race(PROCESSES, work)
    registry = open_registry(root)
    generation, entries = registry.serving()
    assert {each.model for each in entries} == {f"model-{n}" for n in range(PROCESSES)}
    assert len({number for numbers in given for number in numbers}) == PROCESSES * 10
    assert generation == max(number for numbers in given for number in numbers)
    assert all(numbers == sorted(numbers) for numbers in given)


def test_threads_share_one_registry(open_registry: OpenRegistry, tmp_path: Path) -> None:
    registry, source = open_registry(tmp_path / "registry"), file_with(tmp_path, b"weights")

    def work(number: int) -> bool:
        try:
            register(registry, source, version=str(number // 2))
        except Conflict:
            return False
        registry.serve(entry(version=str(number // 2)))
        return registry.resolve("digits", str(number // 2)) in registry.versions("digits")

    with ThreadPoolExecutor(8) as pool:
        outcomes = list(pool.map(work, range(16)))
    assert sum(outcomes) == 8
    assert len(registry.versions("digits")) == len(registry.serving()[1]) == 8


def test_a_change_is_seen_by_other_processes_at_once(
    open_registry: OpenRegistry, tmp_path: Path
) -> None:
    root, source = tmp_path / "registry", file_with(tmp_path, b"weights")
    (generation,) = race(
        1, lambda _: (register(open_registry(root), source), open_registry(root).serve(entry()))[1]
    )
    assert open_registry(root).serving_generation() == generation
