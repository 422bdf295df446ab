from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.contract.edge_server import EdgeServer, edge_server
from tests.contract.limits import LIMITS
from tests.contract.live import LiveServer, serving
from tests.contract.models import write_models


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveServer]:
    """One model server for the suites; `add_sub` version 2 and `broken` are known, not loaded."""
    folder: Path = tmp_path_factory.mktemp("models")

    def loads(version: str, model: str) -> bool:
        return version == "1" and model != "broken"

    with serving(
        write_models(folder), LIMITS, lambda source: loads(source.version, source.model)
    ) as live:
        yield live


@pytest.fixture(scope="session")
def edge(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EdgeServer]:
    """The edge runtime's own process, with the same models."""
    with edge_server(tmp_path_factory.mktemp("edge")) as made:
        yield made
