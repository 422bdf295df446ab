"""The gateway's snapshot follows the registry, and outlives its trouble."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from cluster.registry import EmbeddedRegistry
from edge_runtime.engine import ModelOptions
from edge_runtime.errors import NotFound, Unavailable
from edge_runtime.protocol.types import ParameterValue
from serve_apps.gateway.catalogue import Catalogue
from tests.contract.registries import entry, file_with, register


@pytest.fixture
def registry(tmp_path: Path) -> EmbeddedRegistry:
    return EmbeddedRegistry(tmp_path / "registry")


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return file_with(tmp_path, b"weights")


@pytest.fixture
def catalogue(registry: EmbeddedRegistry) -> Catalogue:
    return Catalogue(registry, ModelOptions())


async def test_an_unknown_an_unserved_and_a_served_version_are_told_apart(
    registry: EmbeddedRegistry, source: Path, catalogue: Catalogue
) -> None:
    await catalogue.refresh()
    with pytest.raises(NotFound):
        catalogue.snapshot.resolve("digits", None)
    register(registry, source)
    await catalogue.refresh()
    with pytest.raises(Unavailable):
        catalogue.snapshot.resolve("digits", None)
    with pytest.raises(NotFound):
        catalogue.snapshot.resolve("digits", "2")
    registry.serve(entry())
    await catalogue.refresh()
    found = catalogue.snapshot.resolve("digits", None)
    assert found.version == registry.get("digits", "1")
    assert found.options.max_batch_size == 4


async def test_production_decides_as_soon_as_it_moves(
    registry: EmbeddedRegistry, source: Path, catalogue: Catalogue
) -> None:
    for version in ("1", "2"):
        register(registry, source, version=version)
        registry.serve(entry(version=version))
    await catalogue.refresh()
    assert catalogue.snapshot.resolve("digits", None).version.version == "2"
    registry.set_alias("digits", "production", "1", expected=None, actor="tests")
    await catalogue.refresh()
    assert catalogue.snapshot.resolve("digits", None).version.version == "1"
    registry.set_alias("digits", "production", None, expected="1", actor="tests")
    registry.stop_serving("digits", "2", actor="tests")
    await catalogue.refresh()
    assert catalogue.snapshot.resolve("digits", None).version.version == "1"


@pytest.mark.parametrize(
    "options",
    [
        {"canary_percent": 5, "max_batch_size": "many"},
        {"canary_percent": 0},
    ],
    ids=["with options that are wrong", "that is paused"],
)
async def test_a_canary_does_not_become_the_default(
    registry: EmbeddedRegistry,
    source: Path,
    catalogue: Catalogue,
    options: dict[str, ParameterValue],
) -> None:
    for version in ("1", "2"):
        register(registry, source, version=version)
    registry.serve(entry(version="1"))
    registry.serve(replace(entry(version="2"), options=options))
    await catalogue.refresh()
    assert catalogue.snapshot.resolve("digits", None).version.version == "1"


async def test_the_snapshot_stays_the_same_object_while_nothing_changes(
    registry: EmbeddedRegistry, source: Path, catalogue: Catalogue
) -> None:
    register(registry, source)
    await catalogue.refresh()
    before = catalogue.snapshot
    await catalogue.refresh()
    assert catalogue.snapshot is before


async def test_a_damaged_model_leaves_the_others_served(
    registry: EmbeddedRegistry, source: Path, catalogue: Catalogue, tmp_path: Path
) -> None:
    for model in ("good", "bad"):
        register(registry, source, model)
        registry.serve(entry(model))
    with closing(sqlite3.connect(tmp_path / "registry" / "registry.sqlite")) as connection:
        connection.execute("DROP TRIGGER version_never_update")
        connection.execute("UPDATE version SET manifest = '{}' WHERE model = 'bad'")
        connection.commit()
    await catalogue.refresh()
    assert catalogue.problem is None
    assert catalogue.snapshot.resolve("good", None).version.model == "good"
    with pytest.raises(NotFound):
        catalogue.snapshot.resolve("bad", None)


async def test_the_last_snapshot_stays_when_the_registry_cannot_be_read(
    registry: EmbeddedRegistry, source: Path, catalogue: Catalogue, tmp_path: Path
) -> None:
    register(registry, source)
    registry.serve(entry())
    await catalogue.refresh()
    registry.close()
    for file in (tmp_path / "registry").glob("registry.sqlite*"):
        file.write_bytes(b"damaged" * 1000)
    await catalogue.refresh()
    assert catalogue.problem is not None
    assert catalogue.snapshot.resolve("digits", "1").version.version == "1"
