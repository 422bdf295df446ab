from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from pathlib import Path

import pytest

from cluster.registry import EmbeddedRegistry
from edge_runtime.engine import Engine, EngineOptions, ModelSource
from tests.contract.models import write_models


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, ModelSource]:
    """The contract suites' small models by name (version 1)."""
    sources = write_models(tmp_path_factory.mktemp("models"))
    return {source.model: source for source in sources if source.version == "1"}


@pytest.fixture
def registry(tmp_path: Path) -> EmbeddedRegistry:
    return EmbeddedRegistry(tmp_path / "registry")


@pytest.fixture
async def engine() -> AsyncIterator[Engine]:
    made = Engine(EngineOptions(threads=2, drain_s=5.0))
    yield made
    await made.close()
